//! The tables of slices.

use crate::batch::Record;
use crate::key::Key;
use crate::state::KeyTable;
use crate::window::beyond::Groups;
use crate::window::marked::MarkedTable;
use crate::window::saving::Outgoing;

/// Emptied tables kept for the next slices, which will most likely be as large.
const SPARE: usize = 4;

/// The table of a slice.
pub(super) struct SliceTable<K, V> {
    /// End of the slice.
    pub(super) end: i64,
    pub(super) keys: MarkedTable<K, V>,
    /// Key groups of which the backend has rows that are not in memory.
    pub(super) stored: Groups,
    /// Used since room was last made.
    pub(super) touched: bool,
}

/// Rows of slices on their way into snapshots.
pub(super) type SliceRows<K, V> = Outgoing<i64, K, V>;

/// Tables by number, so that finding one again costs nothing.
pub(super) struct Tables<K, V> {
    tables: Vec<Option<SliceTable<K, V>>>,
    free: Vec<u32>,
    spare: Vec<MarkedTable<K, V>>,
}

impl<K, V> Default for Tables<K, V> {
    fn default() -> Self {
        Tables { tables: Vec::new(), free: Vec::new(), spare: Vec::new() }
    }
}

impl<K, V> Tables<K, V>
where
    K: Key,
    V: Record,
{
    /// The number of a new empty table, for the slice that ends at `end`.
    pub(super) fn add(&mut self, end: i64) -> u32 {
        let keys = self.spare.pop().unwrap_or_default();
        let table = SliceTable { end, keys, stored: Groups::default(), touched: true };
        match self.free.pop() {
            Some(number) => {
                self.tables[number as usize] = Some(table);
                number
            }
            None => {
                self.tables.push(Some(table));
                self.tables.len() as u32 - 1
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> &KeyTable<K, V> {
        self.tables[number as usize].as_ref().expect("the number of a table in use").keys.keys()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut SliceTable<K, V> {
        let table = self.tables[number as usize].as_mut().expect("the number of a table in use");
        table.touched = true;
        table
    }

    /// Key groups of a table that the backend has rows of which are not in memory.
    pub(super) fn stored(&self, number: u32) -> &Groups {
        &self.tables[number as usize].as_ref().expect("the number of a table in use").stored
    }

    /// Whether a table was used since that was last noted.
    pub(super) fn is_touched(&self, number: u32) -> bool {
        self.tables[number as usize].as_ref().is_some_and(|table| table.touched)
    }

    /// A table, to be changed in a way that is no use of it.
    pub(super) fn get_untouched(&mut self, number: u32) -> &mut SliceTable<K, V> {
        self.tables[number as usize].as_mut().expect("the number of a table in use")
    }

    /// All tables in use.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut SliceTable<K, V>> {
        self.tables.iter_mut().flatten()
    }

    /// Gives up a table, giving its entries; of rows that are not in memory nobody will know any more.
    pub(super) fn remove(&mut self, number: u32, rows: &mut SliceRows<K, V>) -> Vec<(K, V)> {
        let SliceTable { end, mut keys, .. } =
            self.tables[number as usize].take().expect("the number of a table in use");
        self.free.push(number);
        if self.free.len() == self.tables.len() && self.tables.len() > 64 {
            (self.tables, self.free) = (Vec::new(), Vec::new());
        }
        // Emptying costs a pass over the buckets: not worth it where they were made for many more entries.
        let fits = keys.keys().memory_bytes() <= (keys.len() + 64) * (64 + 2 * size_of::<(K, V)>());
        let entries = keys.take_entries(&end, rows);
        if fits && self.spare.len() < SPARE {
            self.spare.push(keys);
        }
        entries
    }

    /// A barrier.
    pub(super) fn begin_drain(&mut self) {
        self.tables.iter_mut().flatten().for_each(|table| table.keys.begin_drain());
    }

    /// Copies frozen rows, looking at so many at most; whether those were all.
    pub(super) fn drain(&mut self, rows: &mut SliceRows<K, V>, budget: &mut usize) -> bool {
        let tables = &mut self.tables.iter_mut().flatten();
        tables.all(|table| table.keys.drain(&table.end, rows, budget))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tables.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::stable_hash;

    #[test]
    fn numbers_and_room_are_used_again_but_not_kept_for_ever() {
        let mut tables: Tables<u32, u32> = Tables::default();
        let rows = &mut SliceRows::default();
        let numbers: Vec<u32> = (0..100).map(|end| tables.add(end)).collect();
        for key in 0..1000u32 {
            tables.get_mut(numbers[7]).keys.insert_new(stable_hash(&key), key, key, rows);
        }
        assert_eq!(tables.remove(numbers[7], rows).len(), 1000);
        assert_eq!(tables.add(7), numbers[7]);
        assert!(tables.get(numbers[7]).is_empty());
        assert!(tables.get(numbers[7]).memory_bytes() > 1000 * 8);
        numbers.into_iter().for_each(|number| drop(tables.remove(number, rows)));
        assert_eq!((tables.len(), tables.tables.capacity()), (0, 0));
        assert!(tables.spare.len() <= SPARE);
    }
}

//! The tables of slices.

use crate::key::Key;
use crate::state::KeyTable;

/// Emptied tables kept for the next slices, which will most likely be as large.
const SPARE: usize = 4;

/// Tables by number, so that finding one again costs nothing.
pub(super) struct Tables<K, V> {
    tables: Vec<Option<KeyTable<K, V>>>,
    free: Vec<u32>,
    spare: Vec<KeyTable<K, V>>,
}

impl<K, V> Default for Tables<K, V> {
    fn default() -> Self {
        Tables { tables: Vec::new(), free: Vec::new(), spare: Vec::new() }
    }
}

impl<K: Key, V> Tables<K, V> {
    /// A new empty table's number.
    pub(super) fn add(&mut self) -> u32 {
        let table = self.spare.pop().unwrap_or_default();
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
        self.tables[number as usize].as_ref().expect("the number of a table in use")
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut KeyTable<K, V> {
        self.tables[number as usize].as_mut().expect("the number of a table in use")
    }

    /// Gives up a table, giving its entries.
    pub(super) fn remove(&mut self, number: u32) -> Vec<(K, V)> {
        let mut table = self.tables[number as usize].take().expect("the number of a table in use");
        self.free.push(number);
        if self.free.len() == self.tables.len() && self.tables.len() > 64 {
            (self.tables, self.free) = (Vec::new(), Vec::new());
        }
        // Emptying costs a pass over the buckets: not worth it where they were made for many more entries.
        let fits = table.memory_bytes() <= (table.len() + 64) * (64 + 2 * size_of::<(K, V)>());
        let entries = table.take_entries();
        if fits && self.spare.len() < SPARE {
            self.spare.push(table);
        }
        entries
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
        let numbers: Vec<u32> = (0..100).map(|_| tables.add()).collect();
        for key in 0..1000u32 {
            tables.get_mut(numbers[7]).insert_new(stable_hash(&key), key, key);
        }
        assert_eq!(tables.remove(numbers[7]).len(), 1000);
        assert_eq!(tables.add(), numbers[7]);
        assert!(tables.get(numbers[7]).is_empty());
        assert!(tables.get(numbers[7]).memory_bytes() > 1000 * 8);
        numbers.into_iter().for_each(|number| drop(tables.remove(number)));
        assert_eq!((tables.len(), tables.tables.capacity()), (0, 0));
        assert!(tables.spare.len() <= SPARE);
    }
}

//! A table of keys whose rows snapshots take.

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::Result;

use super::beyond::Groups;
use super::saving::{Outgoing, Prefix, Row};
use crate::key::{Key, stable_hash};
use crate::state::KeyTable;
use crate::state::epochs::PASSED_MAX;

/// A [`KeyTable`], and a mark for each entry where snapshots are taken: beside it, so that entries stay as dense as they are without.
pub(crate) struct MarkedTable<K, V> {
    keys: KeyTable<K, V>,
    marks: Vec<u8>,
    /// Entries that may be frozen stand below. Removal moves an entry from the end to a gap, so downwards none is missed.
    below: usize,
    /// Where the clock's hand stands that chooses what is forgotten.
    hand: usize,
}

impl<K: Key, V> Default for MarkedTable<K, V> {
    fn default() -> Self {
        MarkedTable { keys: KeyTable::default(), marks: Vec::new(), below: 0, hand: 0 }
    }
}

impl<K: Key, V> MarkedTable<K, V> {
    /// The table, to be read.
    #[inline(always)]
    pub(crate) fn keys(&self) -> &KeyTable<K, V> {
        &self.keys
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl<K, V> MarkedTable<K, V>
where
    K: Key,
    V: Clone + Send + Serialize + DeserializeOwned + 'static,
{
    /// The value of an entry, to be changed.
    #[inline(always)]
    pub(crate) fn value_mut<P: Prefix>(
        &mut self,
        entry: usize,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
    ) -> &mut V {
        self.entry_mut(entry, prefix, rows).1
    }

    /// The key and value of an entry, to be changed.
    #[inline(always)]
    pub(crate) fn entry_mut<P: Prefix>(
        &mut self,
        entry: usize,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
    ) -> (&K, &mut V) {
        let (key, value) = self.keys.entry_mut(entry);
        if rows.is_tracked() {
            rows.write(&mut self.marks[entry], || row(prefix, key, Some(value)));
        }
        (key, value)
    }

    /// The key and value of an entry, to be used in a way that leaves the value as it is.
    #[inline]
    pub(crate) fn unchanged_mut(&mut self, entry: usize) -> (&K, &mut V) {
        self.keys.entry_mut(entry)
    }

    /// Appends an entry for a key that is not in the table.
    #[inline]
    pub(crate) fn insert_new<P: Prefix>(
        &mut self,
        hash: u64,
        key: K,
        value: V,
        rows: &Outgoing<P, K, V>,
    ) -> usize {
        if rows.is_tracked() {
            self.marks.push(rows.fresh());
        }
        self.keys.insert_new(hash, key, value)
    }

    /// Appends an entry that was restored.
    pub(crate) fn insert_restored<P: Prefix>(
        &mut self,
        hash: u64,
        key: K,
        value: V,
        rows: &Outgoing<P, K, V>,
    ) -> usize {
        self.marks.push(rows.stored());
        self.keys.insert_new(hash, key, value)
    }

    /// Removes a key. The last entry takes its place.
    pub(crate) fn remove<P: Prefix>(
        &mut self,
        hash: u64,
        key: &K,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
    ) -> Option<V> {
        if rows.is_tracked() {
            let entry = self.keys.find(hash, key)?;
            let mark = self.marks.swap_remove(entry);
            let (key, value) = self.keys.entry_mut(entry);
            rows.remove(mark, |with_value| row(prefix, key, with_value.then_some(&*value)));
        }
        self.keys.remove(hash, key).map(|(_, value)| value)
    }

    /// Removes all keys.
    pub(crate) fn take_entries<P: Prefix>(
        &mut self,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
    ) -> Vec<(K, V)> {
        let entries = self.keys.take_entries();
        for ((key, value), mark) in entries.iter().zip(self.marks.drain(..)) {
            rows.remove(mark, |with_value| row(prefix, key, with_value.then_some(value)));
        }
        self.below = 0;
        entries
    }

    /// Forgets so many entries, those first that were not used for a while; what the backend has not is written. Adds the key groups of the
    /// keys that are only there then.
    pub(crate) fn forget<P: Prefix>(
        &mut self,
        count: usize,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
        stored: &mut Groups,
    ) -> Result<()> {
        let mut left = count.min(self.len());
        // As often around as an entry may be passed by before it goes.
        let mut steps = self.len() * PASSED_MAX;
        let mut dirty = Vec::new();
        while left > 0 && steps > 0 {
            steps -= 1;
            if self.hand >= self.len() {
                self.hand = 0;
            }
            if rows.pass(&mut self.marks[self.hand]) {
                self.hand += 1;
                continue;
            }
            left -= 1;
            // The last entry takes its place.
            let mark = self.marks.swap_remove(self.hand);
            let key = self.keys.entries()[self.hand].0.clone();
            let hash = stable_hash(&key);
            let Some((key, value)) = self.keys.remove(hash, &key) else { continue };
            stored.insert(rows.group_of(hash));
            dirty.extend(rows.forget(mark, Row { prefix: prefix.clone(), key, value: Some(value) }));
        }
        self.keys.shrink();
        if self.marks.capacity() > self.marks.len() * 4 {
            self.marks.shrink_to_fit();
        }
        rows.write_out(dirty)
    }

    /// Empty, and without the room it has taken.
    pub(crate) fn reset(&mut self) {
        debug_assert!(self.is_empty(), "only an empty table is reset");
        *self = Self::default();
    }

    /// The rows have been frozen.
    pub(crate) fn begin_drain(&mut self) {
        self.below = self.keys.len();
    }

    /// Copies frozen rows, looking at so many at most; whether those were all.
    pub(crate) fn drain<P: Prefix>(
        &mut self,
        prefix: &P,
        rows: &mut Outgoing<P, K, V>,
        budget: &mut usize,
    ) -> bool {
        self.below = self.below.min(self.keys.len());
        while self.below > 0 && *budget > 0 {
            *budget -= 1;
            self.below -= 1;
            let (key, value) = self.keys.entry_mut(self.below);
            rows.copy(&mut self.marks[self.below], || row(prefix, key, Some(value)));
        }
        self.below == 0
    }
}

fn row<P: Prefix, K: Clone, V: Clone>(prefix: &P, key: &K, value: Option<&V>) -> Row<P, K, V> {
    Row { prefix: prefix.clone(), key: key.clone(), value: value.cloned() }
}

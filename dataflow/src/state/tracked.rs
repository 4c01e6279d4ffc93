//! A table that hands its rows in for snapshots.

use std::mem::take;

use super::epochs::{Epochs, Tracking};
use super::key_table::KeyTable;
use crate::key::{Key, stable_hash};

/// Entries looked at in one call of [`TrackedTable::drain`], for each row that may be copied.
const LOOKED_AT_A_ROW: usize = 8;

/// A row on its way into a snapshot; without a value: it is gone.
pub type FrozenRow<K, V> = (K, Option<V>);

/// A [`KeyTable`] that tracks what changes, and gives its rows for snapshots: [`TrackedTable::freeze`] at a barrier, in no time; then
/// [`TrackedTable::drain`] until it says that those were all, with any use of the table in between. Rows that are gone come first, so that of
/// several rows of one key the last counts.
pub struct TrackedTable<K, V> {
    table: KeyTable<K, (V, u8)>,
    epochs: Epochs,
    /// Frozen entries stand below. Removal moves an entry from the end to a gap, so downwards none is missed.
    below: usize,
    /// Copied because they were written while frozen.
    copied: Vec<(K, V)>,
    /// Gone since the last barrier; the backend has rows of them.
    gone: Vec<K>,
    frozen_gone: Vec<K>,
    draining: bool,
}

impl<K: Key, V: Clone> TrackedTable<K, V> {
    /// An empty table.
    pub fn new(tracking: Tracking) -> Self {
        TrackedTable {
            table: KeyTable::default(),
            epochs: Epochs::new(tracking),
            below: 0,
            copied: Vec::new(),
            gone: Vec::new(),
            frozen_gone: Vec::new(),
            draining: false,
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The table, for reading: lookups, prefetching, entries. The second part of a value is the table's own.
    pub fn inner(&self) -> &KeyTable<K, (V, u8)> {
        &self.table
    }

    /// The entry of a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.table.find(hash, key)
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &K) -> Option<&V> {
        self.table.get(hash, key).map(|(value, _)| value)
    }

    /// The value of an entry, to be changed.
    #[inline]
    pub fn value_mut(&mut self, entry: usize) -> &mut V {
        let (key, (value, mark)) = self.table.entry_mut(entry);
        if self.epochs.write(mark) {
            self.copied.push((key.clone(), value.clone()));
        }
        value
    }

    /// Appends an entry for a key that is not in the table.
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> usize {
        self.table.insert_new(hash, key, (value, self.epochs.fresh()))
    }

    /// Appends an entry that was restored: the backend has it.
    pub fn insert_restored(&mut self, hash: u64, key: K, value: V) -> usize {
        self.table.insert_new(hash, key, (value, self.epochs.stored()))
    }

    /// Removes a key. The last entry takes its place.
    pub fn remove(&mut self, hash: u64, key: &K) -> Option<V> {
        let (key, (value, mark)) = self.table.remove(hash, key)?;
        self.removed(key, &value, mark);
        Some(value)
    }

    /// Removes all keys, calling `visit` for each.
    pub fn remove_all(&mut self, mut visit: impl FnMut(&K, V)) {
        for (key, (value, mark)) in self.table.take_entries() {
            if self.epochs.is_tracked() {
                self.removed(key.clone(), &value, mark);
            }
            visit(&key, value);
        }
    }

    fn removed(&mut self, key: K, value: &V, mut mark: u8) {
        if self.epochs.is_frozen(mark) {
            self.copied.push((key.clone(), value.clone()));
            self.epochs.copied(&mut mark);
        }
        if self.epochs.is_stored(mark) {
            self.gone.push(key);
        }
    }

    /// A barrier: what the table holds now is what [`TrackedTable::drain`] gives. The rows of an earlier barrier must all be drained.
    pub fn freeze(&mut self) {
        assert!(!self.draining, "the rows of one barrier are drained before the next");
        self.epochs.switch();
        self.below = self.table.len();
        self.frozen_gone = take(&mut self.gone);
        self.draining = self.epochs.is_tracked();
    }

    /// Whether there are frozen rows to drain.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Appends about so many of the frozen rows; whether those were all. May append none though more are left.
    pub fn drain(&mut self, wanted: usize, rows: &mut Vec<FrozenRow<K, V>>) -> bool {
        if !self.draining {
            return true;
        }
        let room = rows.len().saturating_add(wanted.max(1));
        let gone = self.frozen_gone.len().min(room - rows.len());
        rows.extend(self.frozen_gone.drain(self.frozen_gone.len() - gone..).map(|key| (key, None)));
        if !self.frozen_gone.is_empty() {
            return false;
        }
        rows.extend(self.copied.drain(..).map(|(key, value)| (key, Some(value))));
        // Entries may have been removed since.
        self.below = self.below.min(self.table.len());
        let until = self.below.saturating_sub(wanted.max(1).saturating_mul(LOOKED_AT_A_ROW));
        while self.below > until && rows.len() < room {
            self.below -= 1;
            let (key, (value, mark)) = self.table.entry_mut(self.below);
            if self.epochs.is_frozen(*mark) {
                self.epochs.copied(mark);
                rows.push((key.clone(), Some(value.clone())));
            }
        }
        if self.below == 0 {
            self.epochs.all_copied();
            self.draining = false;
        }
        !self.draining
    }

    /// The backend has a row of an entry.
    pub fn found_stored(&mut self, entry: usize) {
        let (_, (_, mark)) = self.table.entry_mut(entry);
        *mark |= self.epochs.stored();
    }

    /// Forgets the rows that `chosen` says; gives those of which the backend has others. None may be frozen.
    pub fn forget(&mut self, mut chosen: impl FnMut(&K) -> bool) -> Vec<(K, V)> {
        assert!(!self.draining, "the rows of a barrier are drained before some are forgotten");
        let mut dirty = Vec::new();
        for (key, (value, mark)) in self.table.take_entries() {
            if !chosen(&key) {
                self.table.insert_new(stable_hash(&key), key, (value, mark));
            } else if !self.epochs.is_clean(mark) {
                dirty.push((key, value));
            }
        }
        self.table.shrink();
        dirty
    }

    /// What snapshots want.
    pub fn tracking(&self) -> Tracking {
        self.epochs.tracking()
    }

    /// The rows copied and the keys gone since this was called last, for keys that stand for something else which may soon be lost. The
    /// caller then hands them in: what is gone with the next barrier, before all other rows.
    pub fn take_gone(&mut self) -> (std::vec::Drain<'_, (K, V)>, std::vec::Drain<'_, K>) {
        (self.copied.drain(..), self.gone.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8, i32),
        Remove(u8),
        RemoveAll,
        Barrier,
        Drain(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0u8..40, 1i32..100).prop_map(|(key, value)| Step::Add(key, value)),
            8 => (0u8..40).prop_map(Step::Remove),
            1 => Just(Step::RemoveAll),
            2 => Just(Step::Barrier),
            6 => (1usize..6).prop_map(Step::Drain),
        ];
        prop::collection::vec(step, 0..400)
    }

    fn check(tracking: Tracking, steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
        let mut table: TrackedTable<u8, i32> = TrackedTable::new(tracking);
        let mut model: BTreeMap<u8, i32> = BTreeMap::new();
        let mut stored: BTreeMap<u8, i32> = BTreeMap::new();
        for key in 0..5 {
            table.insert_restored(stable_hash(&key), key, -1);
            model.insert(key, -1);
            stored.insert(key, -1);
        }
        let mut frozen: Option<BTreeMap<u8, i32>> = None;
        let drain = |table: &mut TrackedTable<u8, i32>,
                     stored: &mut BTreeMap<u8, i32>,
                     frozen: &mut Option<BTreeMap<u8, i32>>,
                     wanted: usize| {
            let mut rows = Vec::new();
            let done = table.drain(wanted, &mut rows);
            for (key, value) in rows {
                match value {
                    Some(value) => stored.extend([(key, value)]),
                    None => {
                        prop_assert!(tracking == Tracking::Changes);
                        stored.remove(&key);
                    }
                }
            }
            if done && let Some(frozen) = frozen.take() {
                prop_assert_eq!(&*stored, &frozen);
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Add(key, value) => {
                    let hash = stable_hash(&key);
                    match table.find(hash, &key) {
                        Some(entry) => *table.value_mut(entry) += value,
                        None => {
                            table.insert_new(hash, key, value);
                        }
                    }
                    *model.entry(key).or_default() += value;
                }
                Step::Remove(key) => {
                    prop_assert_eq!(table.remove(stable_hash(&key), &key), model.remove(&key));
                }
                Step::RemoveAll => {
                    let mut removed = BTreeMap::new();
                    table.remove_all(|key, value| removed.extend([(*key, value)]));
                    prop_assert_eq!(removed, take(&mut model));
                }
                Step::Barrier => {
                    while table.is_draining() {
                        drain(&mut table, &mut stored, &mut frozen, 3)?;
                    }
                    if tracking == Tracking::AllRows {
                        stored.clear();
                    }
                    table.freeze();
                    frozen = Some(model.clone());
                }
                Step::Drain(wanted) => drain(&mut table, &mut stored, &mut frozen, wanted)?,
            }
            prop_assert_eq!(table.len(), model.len());
        }
        while table.is_draining() {
            drain(&mut table, &mut stored, &mut frozen, 3)?;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_snapshot_holds_what_the_table_held_at_the_barrier(steps in steps()) {
            check(Tracking::Changes, steps.clone())?;
            check(Tracking::AllRows, steps)?;
        }
    }

    #[test]
    fn a_table_without_snapshots_has_nothing_to_drain() {
        let mut table: TrackedTable<u8, i32> = TrackedTable::new(Tracking::Off);
        table.insert_new(stable_hash(&1u8), 1, 1);
        table.freeze();
        table.remove(stable_hash(&1u8), &1);
        assert!(table.drain(10, &mut Vec::new()) && !table.is_draining());
    }
}

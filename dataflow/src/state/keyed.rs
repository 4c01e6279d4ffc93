//! The keys of one operator in one task: their slots, states and timers.

use flott_schema::Result;

use super::key_table::KeyTable;
use super::keyed_fetch::Fetching;
use super::keyed_snapshot::Backing;
use super::store::StateStore;
use super::timers::{TimeDomain, Timer, Timers};
use crate::key::{Key, stable_hash};

/// Keys, states and timers. A key gets a slot when it is first seen and loses it when it has no state and no timer.
pub struct KeyedState<K> {
    pub(super) slots: KeyTable<K, u32>,
    /// The key of each slot in use.
    pub(super) keys: Vec<Option<K>>,
    free: Vec<u32>,
    /// Slots that had no state after their record was processed; looked at after the batch.
    pub(super) maybe_empty: Vec<usize>,
    pub(super) store: StateStore,
    /// By [`TimeDomain`].
    pub(super) timers: [Timers; 2],
    /// Where it is kept for snapshots.
    pub(super) backing: Option<Backing<K>>,
    /// The slots of the keys of the batch at hand, where they had to be looked for before it.
    pub(super) found: Vec<u32>,
    /// If some of it need not be in memory.
    pub(super) fetching: Option<Fetching>,
}

impl<K: Key> Default for KeyedState<K> {
    fn default() -> Self {
        KeyedState {
            slots: KeyTable::default(),
            keys: Vec::new(),
            free: Vec::new(),
            maybe_empty: Vec::new(),
            store: StateStore::default(),
            timers: Default::default(),
            backing: None,
            found: Vec::new(),
            fetching: None,
        }
    }
}

impl<K: Key> KeyedState<K> {
    /// The states, for registration and access.
    pub fn store(&mut self) -> &mut StateStore {
        &mut self.store
    }

    /// Number of keys in memory: those that have state or timers, and those of which a snapshot still has to be told that they are gone.
    pub fn key_count(&self) -> usize {
        self.slots.len()
    }

    /// Makes `key` the current one, giving its slot.
    #[inline]
    pub fn enter(&mut self, hash: u64, key: &K) -> u32 {
        let slot = self.find_or_add(hash, key);
        self.store.enter(slot as usize);
        slot
    }

    #[inline]
    pub(super) fn find_or_add(&mut self, hash: u64, key: &K) -> u32 {
        match self.slots.find(hash, key) {
            Some(entry) => *self.slots.value_mut(entry),
            None => self.add(hash, key),
        }
    }

    /// Makes the key of `slot` the current one.
    fn enter_slot(&mut self, slot: u32) {
        self.store.enter(slot as usize);
    }

    /// The key of a slot in use.
    #[inline]
    pub fn key(&self, slot: u32) -> &K {
        self.keys[slot as usize].as_ref().expect("a slot in use has a key")
    }

    /// The current key was processed.
    #[inline]
    pub fn leave(&mut self, slot: u32) {
        if *self.store.references(slot as usize) == 0 {
            self.maybe_empty.push(slot as usize);
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.touch(slot as usize);
        }
    }

    /// Prefetches for the key at `index` of a batch.
    #[inline]
    pub fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        self.slots.prefetch_ahead(hashes, index);
    }

    /// Begins a batch at this processing time.
    pub fn begin(&mut self, now_ms: i64) {
        self.store.set_now_ms(now_ms);
    }

    /// Ends a batch: forgets keys without state, looks for expired state.
    pub fn end(&mut self) {
        self.store.clean_some(&mut self.maybe_empty);
        self.forget_empty();
    }

    /// Forgets those of the candidates that have nothing, and of which nothing has to be told.
    pub(super) fn forget_empty(&mut self) {
        // In any case: slots that are freed later must not be named by what waits.
        self.hand_over_copies();
        // A key that is known to have no state stays, where finding that out again would cost.
        let stays = self.fetching.as_ref().is_some_and(|fetching| fetching.partial);
        let mut candidates = std::mem::take(&mut self.maybe_empty);
        for slot in candidates.drain(..) {
            let gone = *self.store.references(slot) == 0 && self.keys[slot].is_some() && !stays;
            if gone && !self.store.is_stored(slot) {
                self.free_slot(slot);
            }
        }
        self.maybe_empty = candidates;
    }

    pub(super) fn free_slot(&mut self, slot: usize) {
        if let Some(key) = self.keys[slot].take() {
            self.slots.remove(stable_hash(&key), &key);
            self.store.free(slot);
            self.free.push(slot as u32);
        }
    }

    /// Registers a timer for the key of `slot`.
    pub fn register_timer(&mut self, domain: TimeDomain, timestamp_ms: i64, slot: u32) {
        if self.timers(domain).register(timestamp_ms, slot) {
            *self.store.references(slot as usize) += 1;
        }
    }

    /// Deletes a timer of the key of `slot`.
    pub fn delete_timer(&mut self, domain: TimeDomain, timestamp_ms: i64, slot: u32) {
        if self.timers(domain).delete(timestamp_ms, slot) {
            *self.store.references(slot as usize) -= 1;
        }
        if self.timers(domain).horizon.is_some() {
            self.delete_beyond(domain, timestamp_ms, slot);
        }
    }

    /// The next due timer, its slot made current.
    pub fn pop_timer(&mut self, domain: TimeDomain, until_ms: i64) -> Result<Option<(Timer, u32)>> {
        if self.timers(domain).horizon.is_some() {
            self.load_timers(domain, until_ms)?;
        }
        let Some((timestamp_ms, slot)) = self.timers(domain).pop_due(until_ms) else { return Ok(None) };
        *self.store.references(slot as usize) -= 1;
        self.enter_slot(slot);
        Ok(Some((Timer { timestamp_ms, domain }, slot)))
    }

    /// When the next processing-time timer is due, or `i64::MAX`. A deleted one may still count.
    pub fn next_processing_ms(&self) -> i64 {
        self.timers[TimeDomain::Processing as usize].next_ms()
    }

    /// When the next event-time timer is due, or `i64::MAX`. A deleted one may still count.
    pub fn next_event_ms(&self) -> i64 {
        self.timers[TimeDomain::Event as usize].next_ms()
    }

    /// Calls `visit` for each key in memory that has state or a timer, its slot made current.
    pub fn for_each_key(&mut self, mut visit: impl FnMut(&K, &mut StateStore)) {
        let slots: Vec<u32> = self.slots.entries().iter().map(|(_, slot)| *slot).collect();
        for slot in slots {
            if *self.store.references(slot as usize) == 0 {
                continue;
            }
            self.enter_slot(slot);
            let key = self.keys[slot as usize].as_ref().expect("a slot in use has a key");
            visit(key, &mut self.store);
            self.leave(slot);
        }
    }

    fn timers(&mut self, domain: TimeDomain) -> &mut Timers {
        &mut self.timers[domain as usize]
    }

    fn add(&mut self, hash: u64, key: &K) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.keys.push(None);
            self.keys.len() as u32 - 1
        });
        if self.keys.len() > self.store.slots() {
            self.store.grow(self.keys.len().next_power_of_two().max(64));
        }
        self.keys[slot as usize] = Some(key.clone());
        self.slots.insert_new(hash, key.clone(), slot);
        if let Some(fetching) = &mut self.fetching {
            fetching.added(slot as usize);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{ListState, MapState, StateTtl, ValueState};
    use super::*;

    fn enter(state: &mut KeyedState<String>, key: &str) -> u32 {
        let key = key.to_string();
        state.enter(stable_hash(&key), &key)
    }

    #[test]
    fn states_of_keys_are_apart_and_keys_without_state_are_forgotten() {
        let mut state: KeyedState<String> = KeyedState::default();
        let count: ValueState<u32> = ValueState::register(state.store(), "count", None).unwrap();
        for key in ["a", "b", "a", "c"] {
            let slot = enter(&mut state, key);
            count.update(state.store(), |count| *count += 1);
            state.leave(slot);
        }
        state.end();
        assert_eq!(state.key_count(), 3);
        let slot = enter(&mut state, "a");
        assert_eq!(count.take(state.store()), Some(2));
        state.leave(slot);
        state.end();
        assert_eq!(state.key_count(), 2);
        // The slot of "a" is used again, and nothing of "a" is left in it.
        let reused = enter(&mut state, "d");
        assert_eq!(reused, slot);
        assert_eq!(count.get(state.store()), None);
    }

    #[test]
    fn a_timer_keeps_its_key_alive() {
        let mut state: KeyedState<String> = KeyedState::default();
        let slot = enter(&mut state, "a");
        state.register_timer(TimeDomain::Event, 10, slot);
        state.leave(slot);
        state.end();
        assert_eq!(state.key_count(), 1);
        let (timer, slot) = state.pop_timer(TimeDomain::Event, 10).unwrap().unwrap();
        assert_eq!((timer.timestamp_ms, state.key(slot).as_str()), (10, "a"));
        state.leave(slot);
        state.end();
        assert_eq!(state.key_count(), 0);
    }

    #[test]
    fn iterating_renews_entries_that_live_after_access() {
        let after_access = StateTtl::after_access(Duration::from_millis(10));
        let after_write = StateTtl::after_write(Duration::from_millis(10));
        for (ttl, left) in [(after_access, 2), (after_write, 0)] {
            let mut state: KeyedState<String> = KeyedState::default();
            let list: ListState<u8> = ListState::register(state.store(), "list", Some(ttl)).unwrap();
            let map: MapState<u8, u8> = MapState::register(state.store(), "map", Some(ttl)).unwrap();
            state.begin(0);
            enter(&mut state, "a");
            for value in [1, 2] {
                list.add(state.store(), value);
                map.put(state.store(), value, value);
            }
            state.begin(8);
            assert_eq!(list.iter(state.store()).count(), 2);
            assert_eq!(map.iter(state.store()).count(), 2);
            // Past the end of their first life. The length alone is no read.
            state.begin(16);
            assert_eq!((list.len(state.store()), map.len(state.store())), (left, left));
            // An end of life that nothing has put off.
            state.begin(18);
            assert_eq!((list.len(state.store()), map.len(state.store())), (0, 0));
        }
    }

    #[test]
    fn iterating_over_an_expired_entry_does_not_revive_it() {
        let ttl = StateTtl::after_access(Duration::from_millis(10)).return_expired_if_not_cleaned_up();
        let mut state: KeyedState<String> = KeyedState::default();
        let list: ListState<u8> = ListState::register(state.store(), "list", Some(ttl)).unwrap();
        let map: MapState<u8, u8> = MapState::register(state.store(), "map", Some(ttl)).unwrap();
        state.begin(0);
        let slot = enter(&mut state, "a");
        list.add(state.store(), 1);
        map.put(state.store(), 1, 1);
        state.leave(slot);
        state.begin(12);
        enter(&mut state, "a");
        assert_eq!((list.iter(state.store()).count(), map.iter(state.store()).count()), (1, 1));
        state.leave(slot);
        state.end();
        assert_eq!(state.key_count(), 0, "what has expired is cleaned up");
    }

    #[test]
    fn entries_of_lists_and_maps_expire_one_by_one_and_the_key_goes_with_the_last() {
        let mut state: KeyedState<String> = KeyedState::default();
        let ttl = Some(StateTtl::after_write(Duration::from_millis(10)));
        let list: ListState<u8> = ListState::register(state.store(), "list", ttl).unwrap();
        let map: MapState<u8, u8> = MapState::register(state.store(), "map", ttl).unwrap();
        state.begin(0);
        let slot = enter(&mut state, "a");
        list.add(state.store(), 1);
        map.put(state.store(), 1, 1);
        state.begin(5);
        list.add(state.store(), 2);
        map.put(state.store(), 2, 2);
        state.begin(12);
        assert_eq!(list.iter(state.store()).copied().collect::<Vec<_>>(), [2]);
        assert_eq!(map.iter(state.store()).collect::<Vec<_>>(), [(&2, &2)]);
        state.leave(slot);
        state.begin(20);
        state.end();
        assert_eq!(state.key_count(), 0);
    }

    #[test]
    fn one_name_cannot_be_registered_twice() {
        let mut state: KeyedState<String> = KeyedState::default();
        let _: ValueState<u8> = ValueState::register(state.store(), "x", None).unwrap();
        assert!(ListState::<u8>::register(state.store(), "x", None).is_err());
    }
}

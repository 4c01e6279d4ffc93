//! More keys than memory holds: what a batch misses is fetched together, what was not used for a while is forgotten.
//!
//! Keys with timers in memory stay there too. Others are forgotten when the budget is spent, with all of their states, by the clock of `epochs`;
//! what the backend does not have is written first. A key that has no state is kept in memory until then too, so that it is not
//! fetched again.

use std::borrow::Borrow;

use flott_schema::Result;

use super::keyed::KeyedState;
use super::timers::TimeDomain;
use crate::codec::encode_value;
use crate::key::Key;
use crate::snapshot::WantedKey;

/// The key of the slot is in memory with all of its states.
const LOADED: u8 = 1;
/// Used since the hand last passed by.
const TOUCHED: u8 = 2;
/// Keys whose timers are due that are fetched together.
const DUE_AT_ONCE: usize = 512;
/// Keys forgotten at once beyond what is needed: a pause that many writes share, and that nobody notices.
const FORGOTTEN_AHEAD: usize = 2048;
/// Keys measured for each batch.
const SAMPLED: usize = 4;

/// What is known of the keys in memory, where others can be fetched.
#[derive(Default)]
pub(super) struct Fetching {
    /// Whether the backend may have keys that are not in memory.
    pub partial: bool,
    /// By slot.
    flags: Vec<u8>,
    hand: usize,
    /// What a key and its states own besides their own size: a moving mean, bytes.
    pub owned_bytes: usize,
    sampled: usize,
    scratch: Vec<u8>,
}

impl Fetching {
    /// The key of a slot was used.
    #[inline]
    pub fn touch(&mut self, slot: usize) {
        self.flags[slot] |= TOUCHED;
    }

    /// A slot has got a key.
    pub fn added(&mut self, slot: usize) {
        if slot >= self.flags.len() {
            self.flags.resize((slot + 1).next_power_of_two(), 0);
        }
        // Where some are elsewhere, a key is only known when it was looked for.
        self.flags[slot] = if self.partial { TOUCHED } else { TOUCHED | LOADED };
    }

    fn is_loaded(&self, slot: usize) -> bool {
        self.flags[slot] & LOADED != 0
    }
}

impl<K: Key> KeyedState<K> {
    /// Keys may be forgotten when memory is short, and fetched again: the operator calls [`KeyedState::load`] for the keys of every batch,
    /// and [`KeyedState::load_due`] before a timer fires. To be called between [`KeyedState::attach`] and [`KeyedState::restore`].
    pub fn fetch_keys(&mut self) {
        if self.backing.as_ref().is_some_and(|backing| backing.state.can_fetch()) {
            self.fetching = Some(Fetching::default());
        }
    }

    /// Before a batch with these keys and their hashes: gets those that are not in memory, after making room for them. Whether the slots of
    /// all are known, so that [`KeyedState::enter_found`] spares the batch a second look.
    pub fn load<Q: Borrow<K>>(&mut self, hashes: &[u64], keys: impl Iterator<Item = Q>) -> Result<bool> {
        if self.fetching.is_none() {
            return Ok(false);
        }
        self.bound_timers()?;
        self.make_room(hashes.len())?;
        if !self.fetching.as_ref().is_some_and(|fetching| fetching.partial) {
            return Ok(false);
        }
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let mut missing: Vec<u32> = Vec::new();
        for (index, (hash, key)) in hashes.iter().zip(keys).enumerate() {
            self.prefetch_ahead(hashes, index);
            let slot = self.find_or_add(*hash, key.borrow());
            if self.fetching.as_ref().is_some_and(|fetching| !fetching.is_loaded(slot as usize)) {
                missing.push(slot);
            }
            found.push(slot);
        }
        self.found = found;
        self.fetch(missing)?;
        Ok(true)
    }

    /// Makes the key at `index` of the batch that was loaded last the current one, giving its slot.
    #[inline]
    pub fn enter_found(&mut self, index: usize) -> u32 {
        let slot = self.found[index];
        self.store.enter(slot as usize);
        slot
    }

    /// Before a timer fires for the key of `slot`: gets the key if it is not in memory, and with it some of those whose timers up to
    /// `until_ms` are due as well.
    pub fn load_due(&mut self, slot: u32, domain: TimeDomain, until_ms: i64) -> Result<()> {
        let Some(fetching) = &self.fetching else { return Ok(()) };
        if fetching.is_loaded(slot as usize) {
            return Ok(());
        }
        let due = self.timers[domain as usize].due_slots(until_ms, DUE_AT_ONCE);
        let missing = due.filter(|slot| self.keys[*slot as usize].is_some());
        let missing = missing.filter(|slot| !fetching.is_loaded(*slot as usize));
        let missing: Vec<u32> = missing.chain([slot]).collect();
        self.fetch(missing)
    }

    /// Gets the states of the keys of these slots.
    fn fetch(&mut self, mut slots: Vec<u32>) -> Result<()> {
        let (Some(backing), Some(fetching)) = (&self.backing, &mut self.fetching) else { return Ok(()) };
        slots.sort_unstable();
        slots.dedup();
        if slots.is_empty() {
            return Ok(());
        }
        let (mut bytes, mut ends, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for slot in &slots {
            let key = self.keys[*slot as usize].as_ref().expect("a slot that is to be filled has a key");
            encode_value(key, &mut bytes)?;
            ends.push(bytes.len());
            groups.push(backing.groups.of(key));
            fetching.flags[*slot as usize] |= LOADED;
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let ranges = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]);
        let wanted: Vec<WantedKey<'_>> = groups.into_iter().zip(ranges).collect();
        let now_ms = self.store.now_ms();
        for column in 0..self.store.tables.len() {
            let Some(table) = self.store.tables[column].id else { continue };
            let store = &mut self.store;
            backing.state.fetch(table, &wanted, &mut |position, value| {
                store.restore(column, slots[position] as usize, value, now_ms)
            })?;
        }
        Ok(())
    }

    /// Memory held, bytes, about.
    pub fn memory_bytes(&self) -> usize {
        let owned_bytes = self.fetching.as_ref().map_or(0, |fetching| fetching.owned_bytes);
        self.key_bytes() * self.store.slots() + owned_bytes * self.slots.len()
    }

    /// Bytes of a slot, without what its key and states own.
    pub(super) fn key_bytes(&self) -> usize {
        // The key stands in the table and by its slot; a table is two thirds full.
        let keys = size_of::<(K, u32)>() * 3 / 2 + size_of::<Option<K>>() + 8;
        let columns: usize = self.store.tables.iter().map(|column| column.table.cell_bytes()).sum();
        keys + columns + size_of::<u32>() + 1
    }

    /// Measures a few keys.
    fn sample(&mut self) {
        let Some(fetching) = &mut self.fetching else { return };
        let slots = self.keys.len();
        let mut sum = 0;
        let mut count = 0;
        for _ in 0..SAMPLED.min(slots) {
            fetching.sampled = (fetching.sampled + slots / 7 + 1) % slots;
            let slot = fetching.sampled;
            let Some(key) = &self.keys[slot] else { continue };
            count += 1;
            if std::mem::needs_drop::<K>() {
                fetching.scratch.clear();
                // What cannot be encoded is reported when it has to be. The key is held twice.
                if encode_value(key, &mut fetching.scratch).is_ok() {
                    sum += 4 * fetching.scratch.len();
                }
            }
            for column in &self.store.tables {
                sum += 2 * column.table.stored_bytes(slot, &mut fetching.scratch);
            }
        }
        if let Some(mean) = usize::checked_div(sum, count) {
            fetching.owned_bytes =
                if fetching.owned_bytes == 0 { mean } else { (fetching.owned_bytes * 7 + mean) / 8 };
        }
    }

    fn make_room(&mut self, records: usize) -> Result<()> {
        self.sample();
        let key_bytes = self.key_bytes();
        let (Some(fetching), Some(backing)) = (&self.fetching, &self.backing) else { return Ok(()) };
        // Columns grow to twice what is needed. The budget is asked for each time: operators that are opened later have their share of it.
        let allowed = backing.state.budget_bytes() / (2 * key_bytes + fetching.owned_bytes);
        if self.slots.len() + records <= allowed || self.is_draining() {
            return Ok(());
        }
        self.forget_some(allowed.saturating_sub(records))
    }

    /// Forgets keys until so many and some fewer are left, if that many can be.
    fn forget_some(&mut self, keys: usize) -> Result<()> {
        let wanted = self.slots.len().saturating_sub(keys - (keys / 8).min(FORGOTTEN_AHEAD));
        self.hand_over_copies();
        let mut chosen: Vec<u32> = Vec::new();
        let slots = self.keys.len();
        // Twice around: the first time every key may have been used.
        for _ in 0..slots * 2 {
            if chosen.len() >= wanted {
                break;
            }
            let Some(fetching) = &mut self.fetching else { return Ok(()) };
            fetching.hand = (fetching.hand + 1) % slots;
            let slot = fetching.hand;
            if self.keys[slot].is_none() || fetching.flags[slot] & TOUCHED != 0 {
                fetching.flags[slot] &= !TOUCHED;
                continue;
            }
            if !self.store.has_timers(slot) {
                chosen.push(slot as u32);
                // Not to be chosen again the second time around.
                fetching.flags[slot] |= TOUCHED;
            }
        }
        self.write_dirty(&chosen)?;
        for slot in chosen {
            self.store.forget(slot as usize);
            self.free_slot(slot as usize);
        }
        if let Some(fetching) = &mut self.fetching {
            fetching.partial = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::context::{OperatorContext, Settings, TaskContext};
    use crate::harness::memory::{MemoryKind, MemoryState};
    use crate::snapshot::Snapshots;
    use crate::state::{ListState, ValueState};

    #[test]
    fn memory_stays_near_the_budget_and_keys_with_timers_stay() {
        let budget_bytes = 200_000;
        let state = MemoryState::new(MemoryKind::Fetching { budget_bytes }, 0, 1, 128);
        let mut task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
        task.snapshots = Snapshots::new(state.clone(), false);
        let ctx = OperatorContext::new(Rc::new(task), "operator", "uid");
        let mut keyed: KeyedState<String> = KeyedState::default();
        keyed.attach(&ctx, "").unwrap();
        keyed.fetch_keys();
        let text: ValueState<String> = ValueState::register(keyed.store(), "text", None).unwrap();
        let list: ListState<u64> = ListState::register(keyed.store(), "list", None).unwrap();
        keyed.restore().unwrap();
        for round in 0..500u64 {
            let keys: Vec<String> = (0..40).map(|n| format!("key {}", (round * 40 + n) % 10_000)).collect();
            let hashes: Vec<u64> = keys.iter().map(crate::key::stable_hash).collect();
            keyed.begin(0);
            keyed.load(&hashes, keys.iter()).unwrap();
            for (index, key) in keys.iter().enumerate() {
                let slot = keyed.enter(hashes[index], key);
                text.update(keyed.store(), |text| text.push_str("some more text "));
                list.add(keyed.store(), round);
                if round == 3 {
                    keyed.register_timer(TimeDomain::Event, 10, slot);
                }
                keyed.leave(slot);
            }
            keyed.end();
            if round % 50 == 30 {
                state.begin(round);
                keyed.freeze();
            }
            keyed.drain(200);
            // Half is for growth of the columns, a part for a snapshot that is being taken.
            assert!(keyed.memory_bytes() < budget_bytes * 3 / 2, "{} bytes", keyed.memory_bytes());
        }
        assert!(keyed.key_count() > 200, "{} keys", keyed.key_count());
        // All of these have been forgotten, but those with timers.
        let before = state.fetched_and_written().0;
        let keys: Vec<String> = (120..160).map(|n| format!("key {n}")).collect();
        let hashes: Vec<u64> = keys.iter().map(crate::key::stable_hash).collect();
        keyed.load(&hashes, keys.iter()).unwrap();
        assert_eq!(state.fetched_and_written().0, before, "they have timers");
        let mut fired = 0;
        while let Some((_, slot)) = keyed.pop_timer(TimeDomain::Event, 10).unwrap() {
            fired += 1;
            assert_eq!(list.len(keyed.store()), 2, "key {}", keyed.key(slot));
            assert_eq!(text.get(keyed.store()).unwrap().len(), 30);
            keyed.leave(slot);
        }
        assert_eq!(fired, 40);
    }
}

//! More timers than memory holds: the earliest are in memory, the others in the backend until their time comes near.
//!
//! Rows of timers are in the order of key group, time and key. So what is in memory is all before a *horizon*: a time, and a key group for
//! those of that very time. Behind it a timer may be in memory, because it was registered lately, or with the backend, or both; deleting one tells
//! the backend in any case. When the clock comes to the horizon it moves on by a page.

use flott_schema::Result;

use super::keyed::KeyedState;
use super::keyed_snapshot::{KeyTimer, timer_rows};
use super::rows::Written;
use super::time_pages::TimePages;
use super::timers::TimeDomain;
use crate::codec::decode_value;
use crate::key::{Key, stable_hash};

/// Share of the budget that timers and their keys have.
const TIMERS_SHARE: usize = 4;
/// A timer in the table, in the queue and in the index, bytes; vectors grow to twice what is needed.
const TIMER_BYTES: usize = 112;
/// Deleted timers, of which the backend need not be told at once, and the share of the timers' budget that they may take until the next barrier.
const GONE_MAX: usize = if cfg!(test) { 4 } else { 4096 };
const GONE_SHARE: usize = 4;
/// Timers written at once.
const WRITTEN_AT_ONCE: usize = 16 * 1024;
/// Timers loaded at once, at most and at least.
const PAGE_MAX: usize = if cfg!(test) { 6 } else { 64 * 1024 };
const PAGE_MIN: usize = if cfg!(test) { 2 } else { 256 };

const DOMAINS: [TimeDomain; 2] = [TimeDomain::Event, TimeDomain::Processing];

impl<K: Key> KeyedState<K> {
    /// Timers that may be in memory, of each clock.
    fn timers_allowed(&self) -> usize {
        let (Some(backing), Some(fetching)) = (&self.backing, &self.fetching) else { return usize::MAX };
        let timer_bytes = TIMER_BYTES + 2 * self.key_bytes() + fetching.owned_bytes;
        backing.state.budget_bytes() / TIMERS_SHARE / DOMAINS.len() / timer_bytes
    }

    /// Forgets the later half of the timers, where there are too many; tells the backend which were deleted, where those are many.
    pub fn bound_timers(&mut self) -> Result<()> {
        if self.fetching.is_none() {
            return Ok(());
        }
        let allowed = self.timers_allowed();
        for domain in DOMAINS {
            if self.timers[domain as usize].len() > allowed.max(PAGE_MIN) * 2 {
                self.forget_timers(domain, allowed.max(PAGE_MIN))?;
            }
            // A program that sets and deletes far timers all the time must not fill memory with what it has deleted.
            let gone = self.backing.as_ref().map_or(0, |backing| backing.timers[domain as usize].gone.len());
            if gone > (allowed / GONE_SHARE).max(GONE_MAX) {
                self.settle_timers(domain)?;
            }
        }
        Ok(())
    }

    /// Forgets timers until about so many of a clock are left, if not more of them are of one time and key group.
    fn forget_timers(&mut self, domain: TimeDomain, wanted: usize) -> Result<()> {
        self.settle_timers(domain)?;
        let Some(backing) = &self.backing else { return Ok(()) };
        let timers = &mut self.timers[domain as usize];
        let place = |(time_ms, slot): &(i64, u32)| {
            let key = self.keys[*slot as usize].as_ref().expect("a timer has a key");
            (*time_ms, backing.groups.of(key))
        };
        let mut places: Vec<(i64, u16)> =
            timers.rows().inner().entries().iter().map(|(timer, _)| place(timer)).collect();
        let Some(least) = places.iter().min().copied() else { return Ok(()) };
        let at = wanted.min(places.len() - 1);
        let (_, cut, _) = places.select_nth_unstable(at);
        // What is first stays, all of it.
        let horizon = (*cut).max((least.0, least.1.saturating_add(1)));
        let horizon = timers.horizon.map_or(horizon, |before| before.min(horizon));
        if !places.iter().any(|place| *place >= horizon) {
            return Ok(());
        }
        let mut slots: Vec<u32> = Vec::new();
        let dirty = timers.forget(|timer| {
            let is_beyond = place(timer) >= horizon;
            if is_beyond {
                slots.push(timer.1);
            }
            is_beyond
        });
        timers.horizon = Some(horizon);
        let key = |slot: u32| self.keys[slot as usize].clone().expect("a timer has a key");
        let dirty: Vec<KeyTimer<K>> = dirty.into_iter().map(|(time_ms, slot)| (time_ms, key(slot))).collect();
        for slot in slots {
            *self.store.references(slot as usize) -= 1;
            self.maybe_empty.push(slot as usize);
        }
        self.write_timers(domain, dirty, Written::Row)?;
        self.forget_empty();
        Ok(())
    }

    /// Hands in the frozen timers, and tells the backend which ones are gone: then it can be asked. Frozen states are left to the batches.
    fn settle_timers(&mut self, domain: TimeDomain) -> Result<()> {
        self.hand_in_timers();
        let Some(backing) = &mut self.backing else { return Ok(()) };
        let gone = std::mem::take(&mut backing.timers[domain as usize].gone);
        self.write_timers(domain, gone, Written::Gone)
    }

    fn write_timers(&self, domain: TimeDomain, timers: Vec<KeyTimer<K>>, written: Written) -> Result<()> {
        let Some(backing) = &self.backing else { return Ok(()) };
        let table = backing.timers[domain as usize].table;
        let mut timers = timers.into_iter().peekable();
        while timers.peek().is_some() {
            let some = timers.by_ref().take(WRITTEN_AT_ONCE).collect();
            backing.state.write(table, timer_rows(some, written, backing.groups))?;
        }
        Ok(())
    }

    /// A timer was deleted that the backend may have, and memory not.
    pub(super) fn delete_beyond(&mut self, domain: TimeDomain, timestamp_ms: i64, slot: u32) {
        let Some(backing) = &mut self.backing else { return };
        let key = self.keys[slot as usize].as_ref().expect("a slot in use has a key");
        let horizon = self.timers[domain as usize].horizon;
        if horizon.is_some_and(|horizon| (timestamp_ms, backing.groups.of(key)) >= horizon) {
            backing.timers[domain as usize].gone.push((timestamp_ms, key.clone()));
        }
    }

    /// The state was restored: the backend has all timers, of which the first are loaded.
    pub(super) fn find_first_timers(&mut self) -> Result<()> {
        for domain in DOMAINS {
            self.timers[domain as usize].horizon = Some((i64::MIN, 0));
            self.load_page(domain)?;
        }
        Ok(())
    }

    /// Loads timers until the earliest one up to `until_ms` is in memory, if there is one.
    #[cold]
    pub(super) fn load_timers(&mut self, domain: TimeDomain, until_ms: i64) -> Result<()> {
        while let Some((horizon_ms, group)) = self.timers[domain as usize].horizon
            && horizon_ms <= until_ms
        {
            let first = self.timers[domain as usize].first();
            let is_before = first.is_some_and(|(time_ms, slot)| {
                let key = self.keys[slot as usize].as_ref().expect("a timer has a key");
                let groups = self.backing.as_ref().map(|backing| backing.groups);
                time_ms < horizon_ms
                    || time_ms == horizon_ms && groups.is_some_and(|groups| groups.of(key) < group)
            });
            if is_before {
                return Ok(());
            }
            self.load_page(domain)?;
        }
        Ok(())
    }

    /// Moves the horizon on by a page.
    fn load_page(&mut self, domain: TimeDomain) -> Result<()> {
        self.settle_timers(domain)?;
        let page = (self.timers_allowed() / 2).clamp(PAGE_MIN, PAGE_MAX);
        let Some(horizon) = self.timers[domain as usize].horizon else { return Ok(()) };
        let Some(backing) = &self.backing else { return Ok(()) };
        let pages = TimePages {
            state: &*backing.state,
            table: backing.timers[domain as usize].table,
            lead: &[],
            key_groups: backing.key_groups,
        };
        let mut timers: Vec<KeyTimer<K>> = Vec::new();
        let next = pages.next(horizon, page, &mut |key| decode_value(key), &mut |(time_ms, _), key| {
            timers.push((time_ms, key));
        })?;
        self.restore_timers(domain, timers);
        self.timers[domain as usize].horizon = next;
        Ok(())
    }

    fn restore_timers(&mut self, domain: TimeDomain, timers: Vec<KeyTimer<K>>) {
        for (timestamp_ms, key) in timers {
            let slot = self.find_or_add(stable_hash(&key), &key);
            if self.timers[domain as usize].restore(timestamp_ms, slot) {
                *self.store.references(slot as usize) += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::super::ValueState;
    use super::*;
    use crate::context::{OperatorContext, Settings, TaskContext};
    use crate::harness::memory::{MemoryKind, MemoryState};
    use crate::snapshot::Snapshots;

    const EVENT: TimeDomain = TimeDomain::Event;

    #[derive(Clone, Debug)]
    enum Step {
        /// A batch: a key, and timers that it registers, or deletes.
        Batch(Vec<(u8, i64, bool)>),
        /// Fires so many timers at most, of those so far behind the clock.
        Fire(i64, usize),
        Barrier,
        Drain,
        /// From a snapshot that is taken now.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let timer = (0u8..40, prop_oneof![0i64..60, Just(30i64)], prop::bool::weighted(0.8));
        let step = prop_oneof![
            6 => prop::collection::vec(timer, 1..20).prop_map(Step::Batch),
            3 => (0i64..15, 1usize..30).prop_map(|(by, count)| Step::Fire(by, count)),
            1 => Just(Step::Barrier),
            1 => Just(Step::Drain),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 0..50)
    }

    struct Task {
        state: Rc<MemoryState>,
        keyed: KeyedState<u8>,
        batches: ValueState<u32>,
        checkpoint: u64,
    }

    impl Task {
        fn new(state: Rc<MemoryState>) -> Self {
            let mut task = TaskContext::new("job", "vertex", 0, 1, 16, Settings::default());
            task.snapshots = Snapshots::new(state.clone(), false);
            let ctx = OperatorContext::new(Rc::new(task), "operator", "uid");
            let mut keyed: KeyedState<u8> = KeyedState::default();
            keyed.attach(&ctx, "").unwrap();
            keyed.fetch_keys();
            let batches = ValueState::register(keyed.store(), "batches", None).unwrap();
            keyed.restore().unwrap();
            Task { state, keyed, batches, checkpoint: 0 }
        }

        fn barrier(&mut self) {
            self.checkpoint += 1;
            self.state.begin(self.checkpoint);
            self.keyed.freeze();
        }

        fn restart(mut self, kind: MemoryKind) -> Self {
            self.barrier();
            while !self.keyed.drain(usize::MAX) {}
            let snapshot = self.state.snapshot(self.checkpoint).unwrap();
            Task::new(MemoryState::restored_from(&[snapshot], kind, 0, 1, 16))
        }

        fn batch(&mut self, timers: &[(u8, i64, bool)]) {
            let hashes: Vec<u64> = timers.iter().map(|(key, ..)| stable_hash(key)).collect();
            self.keyed.begin(0);
            let found = self.keyed.load(&hashes, timers.iter().map(|(key, ..)| key)).unwrap();
            for (index, (key, time_ms, registers)) in timers.iter().enumerate() {
                let slot =
                    if found { self.keyed.enter_found(index) } else { self.keyed.enter(hashes[index], key) };
                self.batches.update(self.keyed.store(), |batches| *batches += 1);
                match registers {
                    true => self.keyed.register_timer(EVENT, *time_ms, slot),
                    false => self.keyed.delete_timer(EVENT, *time_ms, slot),
                }
                self.keyed.leave(slot);
            }
            self.keyed.end();
            self.keyed.drain_some(0);
        }

        /// The next timer up to a time, its key, and what the key's state holds.
        fn fire(&mut self, until_ms: i64) -> Option<(i64, u8, u32)> {
            let (timer, slot) = self.keyed.pop_timer(EVENT, until_ms).unwrap()?;
            self.keyed.load_due(slot, EVENT, until_ms).unwrap();
            let batches = self.batches.get(self.keyed.store()).copied().unwrap_or(0);
            let fired = (timer.timestamp_ms, *self.keyed.key(slot), batches);
            self.keyed.leave(slot);
            Some(fired)
        }

        fn end_firing(&mut self) {
            self.keyed.end();
            self.keyed.bound_timers().unwrap();
        }
    }

    fn check(steps: Vec<Step>, kind: MemoryKind) -> std::result::Result<(), TestCaseError> {
        let mut task = Task::new(MemoryState::new(kind, 0, 1, 16));
        let mut timers: BTreeSet<(i64, u8)> = BTreeSet::new();
        let mut batches: BTreeMap<u8, u32> = BTreeMap::new();
        let mut clock_ms = 0;
        for step in steps {
            match step {
                Step::Batch(batch) => {
                    let batch: Vec<(u8, i64, bool)> = batch
                        .into_iter()
                        .map(|(key, time_ms, registers)| (key, clock_ms + time_ms, registers))
                        .collect();
                    task.batch(&batch);
                    for (key, time_ms, registers) in batch {
                        *batches.entry(key).or_default() += 1;
                        match registers {
                            true => timers.insert((time_ms, key)),
                            false => timers.remove(&(time_ms, key)),
                        };
                    }
                }
                Step::Fire(by, count) => {
                    clock_ms += by;
                    for _ in 0..count {
                        let fired = task.fire(clock_ms);
                        let first_ms = timers.first().map(|(time_ms, _)| *time_ms);
                        let Some((time_ms, key, seen)) = fired else {
                            prop_assert!(first_ms.is_none_or(|first_ms| first_ms > clock_ms));
                            break;
                        };
                        prop_assert_eq!(Some(time_ms), first_ms);
                        prop_assert!(timers.remove(&(time_ms, key)), "{} of {} fired twice", time_ms, key);
                        prop_assert_eq!(seen, batches[&key]);
                    }
                    task.end_firing();
                }
                Step::Barrier => task.barrier(),
                Step::Drain => task.keyed.drain_some(0),
                Step::Restart => task = task.restart(kind),
            }
            let first_ms = timers.first().map_or(i64::MAX, |(time_ms, _)| *time_ms);
            prop_assert!(task.keyed.next_event_ms() <= first_ms, "the task wakes in time");
        }
        task = task.restart(kind);
        while let Some((time_ms, key, _)) = task.fire(i64::MAX) {
            prop_assert_eq!(timers.first().map(|(first_ms, _)| *first_ms), Some(time_ms));
            prop_assert!(timers.remove(&(time_ms, key)));
        }
        prop_assert!(timers.is_empty(), "{:?} never fired", timers);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn timers_beyond_memory_fire_once_in_the_order_of_time(steps in steps(), budget_bytes in 0usize..20_000) {
            check(steps, MemoryKind::Fetching { budget_bytes })?;
        }
    }

    #[test]
    fn far_timers_are_forgotten_with_their_keys_and_a_restart_loads_few() {
        let kind = MemoryKind::Fetching { budget_bytes: 4000 };
        let mut task = Task::new(MemoryState::new(kind, 0, 1, 16));
        for round in 0..100 {
            let batch: Vec<(u8, i64, bool)> = (0..100).map(|key| (key, 1000 + round, true)).collect();
            task.batch(&batch);
            assert!(task.keyed.timers[0].len() < 200, "{}", task.keyed.timers[0].len());
        }
        let mut task = task.restart(kind);
        assert!(task.keyed.timers[0].len() < 200, "{} were loaded", task.keyed.timers[0].len());
        let mut fired = 0;
        while let Some((time_ms, _, batches)) = task.fire(2000) {
            assert_eq!((time_ms, batches), (1000 + fired / 100, 100));
            fired += 1;
            assert!(task.keyed.timers[0].len() < 400, "{}", task.keyed.timers[0].len());
        }
        assert_eq!(fired, 10_000);
    }

    /// A task with a horizon in front of 50,000, and a key whose timers are all far behind it.
    fn task_with_horizon(budget_bytes: usize) -> Task {
        let mut task = Task::new(MemoryState::new(MemoryKind::Fetching { budget_bytes }, 0, 1, 16));
        for round in 0..10 {
            let batch: Vec<(u8, i64, bool)> = (0..100).map(|key| (key, 1000 + round, true)).collect();
            task.batch(&batch);
        }
        assert!(task.keyed.timers[0].horizon.is_some_and(|(time_ms, _)| time_ms < 50_000));
        task
    }

    #[test]
    fn far_timers_that_are_deleted_again_and_again_take_no_memory() {
        let mut task = task_with_horizon(40_000);
        task.keyed.bound_timers().unwrap();
        // So few are in memory that none are forgotten while these come and go.
        let (held, allowed) = (task.keyed.timers[0].len(), task.keyed.timers_allowed());
        assert!(held + 2 < allowed * 2, "{held} of {allowed}");
        for round in 0..500 {
            task.batch(&[(7, 50_001 + round, true), (7, 50_000 + round, false)]);
            let gone = task.keyed.backing.as_ref().unwrap().timers[0].gone.len();
            assert!(gone < 100, "{gone} deleted timers wait in round {round}");
        }
        let mut task = task.restart(MemoryKind::Fetching { budget_bytes: 40_000 });
        let far: Vec<i64> = std::iter::from_fn(|| task.fire(i64::MAX))
            .map(|fired| fired.0)
            .filter(|ms| *ms >= 50_000)
            .collect();
        assert_eq!(far, [50_500]);
    }

    #[test]
    fn a_page_of_timers_leaves_frozen_states_to_the_batches() {
        let mut task = task_with_horizon(4000);
        task.barrier();
        assert!(task.keyed.is_draining());
        let before = task.state.frozen_rows();
        let horizon = task.keyed.timers[0].horizon;
        task.keyed.load_page(EVENT).unwrap();
        assert_ne!(task.keyed.timers[0].horizon, horizon, "a page was loaded");
        assert!(
            task.keyed.is_draining(),
            "{} rows were handed in at once",
            task.state.frozen_rows() - before
        );
        while !task.keyed.drain(5) {}
        assert_eq!(task.state.snapshot(1).unwrap().row_count("batches"), 100);
    }
}

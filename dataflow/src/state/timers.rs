//! Timers of keys: at most one per key, domain and time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use serde::{Deserialize, Serialize};

use super::epochs::Tracking;
use super::tracked::TrackedTable;
use crate::key::stable_hash;

/// The clock a timer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeDomain {
    /// The watermark.
    Event,
    /// The clock on the wall.
    Processing,
}

/// A timer that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The time it was set for, epoch milliseconds.
    pub timestamp_ms: i64,
    /// Its clock.
    pub domain: TimeDomain,
}

/// The timers of one clock, each for a key slot.
pub struct Timers {
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    /// What is registered; the queue may hold deleted ones as well.
    registered: TrackedTable<(i64, u32), ()>,
    /// The backend may have timers that are not here: of this time those of this key group and those behind it, and later ones.
    pub(super) horizon: Option<(i64, u16)>,
}

impl Default for Timers {
    fn default() -> Self {
        Timers::new(Tracking::Off)
    }
}

impl Timers {
    /// None yet.
    pub fn new(tracking: Tracking) -> Self {
        Timers { queue: BinaryHeap::new(), registered: TrackedTable::new(tracking), horizon: None }
    }

    /// Registers a timer; `false` if it is registered already.
    pub fn register(&mut self, timestamp_ms: i64, slot: u32) -> bool {
        let timer = (timestamp_ms, slot);
        let hash = stable_hash(&timer);
        let new = self.registered.find(hash, &timer).is_none();
        if new {
            self.registered.insert_new(hash, timer, ());
            self.queue.push(Reverse(timer));
        }
        new
    }

    /// Registers a timer that the backend has; `false` if it is registered already.
    pub(super) fn restore(&mut self, timestamp_ms: i64, slot: u32) -> bool {
        let timer = (timestamp_ms, slot);
        let hash = stable_hash(&timer);
        match self.registered.find(hash, &timer) {
            Some(entry) => {
                self.registered.found_stored(entry);
                false
            }
            None => {
                self.registered.insert_restored(hash, timer, ());
                self.queue.push(Reverse(timer));
                true
            }
        }
    }

    /// Forgets the timers that `chosen` says; gives those of which the backend has others.
    pub(super) fn forget(&mut self, chosen: impl FnMut(&(i64, u32)) -> bool) -> Vec<(i64, u32)> {
        let dirty = self.registered.forget(chosen);
        self.queue = self.registered.inner().entries().iter().map(|(timer, _)| Reverse(*timer)).collect();
        dirty.into_iter().map(|(timer, ())| timer).collect()
    }

    /// Number of timers in memory.
    pub(super) fn len(&self) -> usize {
        self.registered.len()
    }

    /// The earliest timer in memory.
    pub(super) fn first(&mut self) -> Option<(i64, u32)> {
        while let Some(Reverse(timer)) = self.queue.peek() {
            if self.registered.find(stable_hash(timer), timer).is_some() {
                return Some(*timer);
            }
            self.queue.pop();
        }
        None
    }

    /// Deletes a timer; `false` if it is not registered.
    pub fn delete(&mut self, timestamp_ms: i64, slot: u32) -> bool {
        let deleted = self.unregister((timestamp_ms, slot));
        // A program that sets and deletes far timers all the time must not grow the queue without bound.
        if deleted && self.queue.len() > 64 && self.queue.len() > self.registered.len() * 4 {
            self.queue = self.registered.inner().entries().iter().map(|(timer, _)| Reverse(*timer)).collect();
        }
        deleted
    }

    fn unregister(&mut self, timer: (i64, u32)) -> bool {
        self.registered.remove(stable_hash(&timer), &timer).is_some()
    }

    /// The registered timers, for snapshots.
    pub(super) fn rows(&mut self) -> &mut TrackedTable<(i64, u32), ()> {
        &mut self.registered
    }

    /// Slots of some timers at or before `until_ms`, by what stands foremost in the queue.
    pub(super) fn due_slots(&self, until_ms: i64, wanted: usize) -> impl Iterator<Item = u32> {
        let due = self.queue.iter().take(wanted).filter(move |Reverse((time, _))| *time <= until_ms);
        due.map(|Reverse((_, slot))| *slot)
    }

    /// The earliest timer at or before `until_ms`, removed.
    pub fn pop_due(&mut self, until_ms: i64) -> Option<(i64, u32)> {
        while let Some(Reverse((timestamp_ms, slot))) = self.queue.peek().copied() {
            if timestamp_ms > until_ms {
                return None;
            }
            self.queue.pop();
            if self.unregister((timestamp_ms, slot)) {
                return Some((timestamp_ms, slot));
            }
        }
        None
    }

    /// The time of the earliest timer, or `i64::MAX`. A deleted one may still count, which wakes the task in vain, and so may the earliest time
    /// of those that are not in memory.
    pub fn next_ms(&self) -> i64 {
        let first_ms = self.queue.peek().map_or(i64::MAX, |Reverse((timestamp_ms, _))| *timestamp_ms);
        self.horizon.map_or(first_ms, |(horizon_ms, _)| horizon_ms.min(first_ms))
    }

    /// The registered timers in order, for inspection.
    pub fn sorted(&self) -> BTreeSet<(i64, u32)> {
        self.registered.inner().entries().iter().map(|(timer, _)| *timer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_once_in_order_and_deleted_ones_never() {
        let mut timers = Timers::default();
        assert!(timers.register(30, 1));
        assert!(timers.register(10, 2));
        assert!(!timers.register(10, 2));
        assert!(timers.register(20, 1));
        assert!(timers.delete(20, 1));
        assert!(!timers.delete(20, 1));
        assert_eq!(timers.next_ms(), 10);
        assert_eq!(timers.pop_due(25), Some((10, 2)));
        assert_eq!(timers.pop_due(25), None);
        assert_eq!(timers.pop_due(30), Some((30, 1)));
        assert_eq!(timers.next_ms(), i64::MAX);
    }

    #[test]
    fn timers_set_and_deleted_again_and_again_take_no_room() {
        let mut timers = Timers::default();
        for round in 0..100_000i64 {
            timers.register(1_000_000 + round, 0);
            timers.delete(1_000_000 + round, 0);
        }
        assert!(timers.queue.len() < 200, "{}", timers.queue.len());
    }
}

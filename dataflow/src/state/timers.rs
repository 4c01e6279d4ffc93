//! Timers of keys: at most one per key, domain and time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};

use serde::{Deserialize, Serialize};

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
#[derive(Default)]
pub struct Timers {
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    /// What is registered; the queue may hold deleted ones as well.
    registered: HashSet<(i64, u32)>,
}

impl Timers {
    /// Registers a timer; `false` if it is registered already.
    pub fn register(&mut self, timestamp_ms: i64, slot: u32) -> bool {
        let new = self.registered.insert((timestamp_ms, slot));
        if new {
            self.queue.push(Reverse((timestamp_ms, slot)));
        }
        new
    }

    /// Deletes a timer; `false` if it is not registered.
    pub fn delete(&mut self, timestamp_ms: i64, slot: u32) -> bool {
        let deleted = self.registered.remove(&(timestamp_ms, slot));
        // A program that sets and deletes far timers all the time must not grow the queue without bound.
        if deleted && self.queue.len() > 64 && self.queue.len() > self.registered.len() * 4 {
            self.queue = self.registered.iter().map(|timer| Reverse(*timer)).collect();
        }
        deleted
    }

    /// The earliest timer at or before `until_ms`, removed.
    pub fn pop_due(&mut self, until_ms: i64) -> Option<(i64, u32)> {
        while let Some(Reverse((timestamp_ms, slot))) = self.queue.peek().copied() {
            if timestamp_ms > until_ms {
                return None;
            }
            self.queue.pop();
            if self.registered.remove(&(timestamp_ms, slot)) {
                return Some((timestamp_ms, slot));
            }
        }
        None
    }

    /// The time of the earliest timer, or `i64::MAX`. A deleted one may still count, which wakes the task in vain.
    pub fn next_ms(&self) -> i64 {
        self.queue.peek().map_or(i64::MAX, |Reverse((timestamp_ms, _))| *timestamp_ms)
    }

    /// The registered timers in order, for inspection.
    pub fn sorted(&self) -> BTreeSet<(i64, u32)> {
        self.registered.iter().copied().collect()
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

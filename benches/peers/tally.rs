//! The sinks: what an engine's last operator does with a record, the same for all engines.
//!
//! Each parallel sink counts in fields of its own; what it has is added to the shared totals when it is dropped, which every
//! engine does before its run returns. Cloning a sink gives an empty one that adds to the same totals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{Latency, Outcome};
use crate::measure;
use crate::workload::{PacedEvent, keyed_check};

#[derive(Debug, Default)]
struct Totals {
    checksum: AtomicU64,
    counted: AtomicU64,
    growth_bytes: AtomicU64,
    latencies_ns: Mutex<Vec<u64>>,
}

/// The wrapping sum of what arrives.
#[derive(Debug, Default)]
pub struct Tally {
    checksum: u64,
    counted: u64,
    totals: Arc<Totals>,
}

impl Tally {
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.checksum = self.checksum.wrapping_add(value);
    }

    /// Adds a value that stands for `records` records of the source.
    pub fn add_counted(&mut self, value: u64, records: u64) {
        self.add(value);
        self.counted += records;
    }

    /// After the run: the outcome of a case whose number of records is known beforehand.
    pub fn outcome(&self, records: u64) -> Outcome {
        let checksum = self.totals.checksum.load(Ordering::Acquire).wrapping_add(self.checksum);
        Outcome { records, checksum, latency: None, growth_bytes: None }
    }

    /// After the run: the outcome of a case whose records were counted with [`Tally::add_counted`].
    pub fn counted_outcome(&self) -> Outcome {
        self.outcome(self.totals.counted.load(Ordering::Acquire) + self.counted)
    }
}

impl Clone for Tally {
    fn clone(&self) -> Self {
        Self { checksum: 0, counted: 0, totals: Arc::clone(&self.totals) }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.totals.checksum.fetch_add(self.checksum, Ordering::AcqRel);
        self.totals.counted.fetch_add(self.counted, Ordering::AcqRel);
    }
}

/// The sink of the latency case: notes how long after its due time each event arrives.
#[derive(Debug)]
pub struct LatencySink {
    start: Instant,
    latencies_ns: Vec<u64>,
    tally: Tally,
}

impl LatencySink {
    /// `start` is the instant from which events are due.
    pub fn new(start: Instant) -> Self {
        Self { start, latencies_ns: Vec::new(), tally: Tally::default() }
    }

    #[inline]
    pub fn add(&mut self, event: &PacedEvent) {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        self.latencies_ns.push(now_ns.saturating_sub(event.due_ns));
        self.tally.add(keyed_check(event.key, event.value));
    }

    /// After the run.
    pub fn outcome(&self, records: u64) -> Outcome {
        let mut latencies_ns =
            self.tally.totals.latencies_ns.lock().unwrap_or_else(PoisonError::into_inner).clone();
        latencies_ns.extend_from_slice(&self.latencies_ns);
        Outcome { latency: Latency::of(&mut latencies_ns), ..self.tally.outcome(records) }
    }
}

impl Clone for LatencySink {
    fn clone(&self) -> Self {
        Self { start: self.start, latencies_ns: Vec::new(), tally: self.tally.clone() }
    }
}

impl Drop for LatencySink {
    fn drop(&mut self) {
        let mut all = self.tally.totals.latencies_ns.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(&mut self.latencies_ns);
    }
}

/// The sink of the memory case: the instance that gets the record at a tenth of the stream stops for a while. Growth is
/// counted from a quarter into the stall (queues may fill up to their bounds) to its end.
#[derive(Debug, Clone)]
pub struct StalledSink {
    stall_at: u64,
    stall: Duration,
    tally: Tally,
}

impl StalledSink {
    pub fn new(records: u64, stall: Duration) -> Self {
        Self { stall_at: records / 10, stall, tally: Tally::default() }
    }

    #[inline]
    pub fn add(&mut self, key: u64, index: u64) {
        self.tally.add(keyed_check(key, index));
        if index == self.stall_at {
            self.stand_still();
        }
    }

    #[cold]
    fn stand_still(&self) {
        thread::sleep(self.stall / 4);
        let before = measure::resident_bytes();
        thread::sleep(self.stall * 3 / 4);
        let after = measure::resident_bytes();
        // Where the system does not tell, nothing is reported rather than "flat".
        if let (Ok(before), Ok(after)) = (before, after) {
            self.tally.totals.growth_bytes.store(after.saturating_sub(before) + 1, Ordering::Release);
        }
    }

    /// After the run.
    pub fn outcome(&self, records: u64) -> Outcome {
        let growth_bytes = self.tally.totals.growth_bytes.load(Ordering::Acquire).checked_sub(1);
        Outcome { growth_bytes, ..self.tally.outcome(records) }
    }
}

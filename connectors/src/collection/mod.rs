//! A source of values that the program holds.
//!
//! Who may call it: job authors, tests. What must never happen here: a copy of the whole collection in each task; the
//! enumerator alone holds it and deals it out in pieces.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use flott_dataflow::batch::{Batch, NO_TIMESTAMP, Record};
use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_schema::{Error, Result};

/// Records in one split at most: as many as a reader turns into one batch, or a few.
const SPLIT_RECORDS_MAX: usize = 4096;
/// Splits for each reader at least, so that a quick one can take work from a slow one.
const SPLITS_PER_READER: usize = 4;

/// Emits the values of a vector. With one task they keep their order.
///
/// ```
/// use flott_connectors::collection::Collection;
/// let words = Collection::new(vec!["to", "be"].into_iter().map(String::from).collect());
/// let clicks = Collection::with_timestamps(vec![("home", 1_000), ("basket", 2_500)]);
/// # let _: (Collection<String>, Collection<&str>) = (words, clicks);
/// ```
pub struct Collection<T> {
    /// Locked when an enumerator is made. The lock lets `T` be `Send` without being `Sync`.
    records: Arc<Mutex<Vec<T>>>,
    timestamps: Arc<[i64]>,
}

impl<T> Clone for Collection<T> {
    fn clone(&self) -> Self {
        Collection { records: self.records.clone(), timestamps: self.timestamps.clone() }
    }
}

impl<T> Collection<T> {
    /// The values of `records`, without timestamps.
    pub fn new(records: Vec<T>) -> Self {
        Collection { records: Arc::new(Mutex::new(records)), timestamps: [].into() }
    }

    /// Values with their event times, epoch milliseconds.
    pub fn with_timestamps(records: Vec<(T, i64)>) -> Self {
        let (records, timestamps): (Vec<T>, Vec<i64>) = records.into_iter().unzip();
        Collection { records: Arc::new(Mutex::new(records)), timestamps: timestamps.into() }
    }
}

/// A piece of a collection, with its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSplit<T> {
    /// What is still to be emitted.
    pub records: VecDeque<T>,
    /// Event times of the records, or nothing.
    pub timestamps: VecDeque<i64>,
}

impl<T: Record> Source for Collection<T> {
    type Record = T;
    type Split = CollectionSplit<T>;
    type Enumerator = CollectionEnumerator<T>;
    type Reader = CollectionReader<T>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, parallelism: u32) -> Result<CollectionEnumerator<T>> {
        // A clone that panicked leaves the vector as it was.
        let records = self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let wanted = records.len().div_ceil(parallelism.max(1) as usize * SPLITS_PER_READER);
        Ok(CollectionEnumerator {
            split_records: wanted.clamp(1, SPLIT_RECORDS_MAX),
            handed_out: 0,
            records: records.into(),
            timestamps: self.timestamps.to_vec().into(),
        })
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<CollectionReader<T>> {
        Ok(CollectionReader { splits: VecDeque::new() })
    }
}

/// Deals out pieces of equal size.
pub struct CollectionEnumerator<T> {
    split_records: usize,
    /// Values dealt out so far. The rest is not part of snapshots: the program has it.
    handed_out: u64,
    records: VecDeque<T>,
    timestamps: VecDeque<i64>,
}

impl<T: Send + 'static> SplitEnumerator for CollectionEnumerator<T> {
    type Split = CollectionSplit<T>;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<CollectionSplit<T>>> {
        let count = self.split_records.min(self.records.len());
        if count == 0 {
            return Ok(Assignment::NoMore);
        }
        let timestamps = count.min(self.timestamps.len());
        self.handed_out += count as u64;
        Ok(Assignment::Split(CollectionSplit {
            records: self.records.drain(..count).collect(),
            timestamps: self.timestamps.drain(..timestamps).collect(),
        }))
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.handed_out, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let handed_out: u64 = decode_value(state)?;
        let count = self.records.len();
        if handed_out > count as u64 {
            return Err(Error::user(format!(
                "a collection of {count} values cannot go on behind value {handed_out}, to which it was read before; was \
                 the program given other values?"
            )));
        }
        self.records.drain(..handed_out as usize);
        self.timestamps.drain(..self.timestamps.len().min(handed_out as usize));
        self.handed_out = handed_out;
        Ok(())
    }
}

/// Emits the contents of its splits.
pub struct CollectionReader<T> {
    splits: VecDeque<CollectionSplit<T>>,
}

impl<T: Record> SourceReader for CollectionReader<T> {
    type Record = T;
    type Split = CollectionSplit<T>;

    fn add_split(&mut self, split: CollectionSplit<T>) -> Result<()> {
        self.splits.push_back(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<T>> {
        let Some(split) = self.splits.front_mut() else { return Ok(Poll::Ready(None)) };
        let count = max_records.min(split.records.len());
        let mut batch = Batch::with_capacity(count);
        if split.timestamps.is_empty() {
            batch.records.extend(split.records.drain(..count));
        } else {
            for record in split.records.drain(..count) {
                batch.push(record, split.timestamps.pop_front().unwrap_or(NO_TIMESTAMP));
            }
        }
        if split.records.is_empty() {
            self.splits.pop_front();
        }
        Ok(Poll::Ready(Some(batch)))
    }

    fn snapshot(&self) -> Vec<CollectionSplit<T>> {
        self.splits.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_kit::{check_runs, drain, read_by, read_resuming, runs};

    proptest! {
        #[test]
        fn every_value_is_emitted_once(records: Vec<u16>, readers in 1u32..5, max in 1usize..50) {
            let mut read = read_by(&Collection::new(records.clone()), readers, max).concat();
            if readers == 1 {
                prop_assert_eq!(&read, &records, "one reader keeps the order");
            }
            read.sort_unstable();
            let mut expected = records;
            expected.sort_unstable();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn every_value_is_emitted_once_over_restarts(count in 0usize..400, runs in runs()) {
            check_runs(&Collection::new((0..count).collect()), &runs)?;
        }

        #[test]
        fn a_resumed_reader_emits_the_rest(count in 0usize..300, max in 1usize..50, batches in 0usize..9) {
            let source = Collection::with_timestamps((0..count).map(|n| (n, n as i64)).collect());
            let (before, after) = read_resuming(&source, max, batches);
            prop_assert_eq!([before, after].concat(), (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn timestamps_stay_with_their_values() {
        let pairs: Vec<(String, i64)> = (0..10_000).map(|n| (n.to_string(), n * 7)).collect();
        assert_eq!(drain(&Collection::with_timestamps(pairs.clone()), 100), pairs);
        let plain = Collection::new(vec!['a', 'b']);
        assert_eq!(drain(&plain, 100), [('a', NO_TIMESTAMP), ('b', NO_TIMESTAMP)]);
    }

    #[test]
    fn a_collection_that_has_become_shorter_than_what_was_read_is_an_error() {
        let mut enumerator = Collection::new((0..10).collect()).enumerator(1).unwrap();
        enumerator.next_split(0).unwrap();
        enumerator.next_split(0).unwrap();
        let state = enumerator.snapshot().unwrap();
        let mut shorter = Collection::new(vec![1, 2]).enumerator(1).unwrap();
        let error = shorter.restore(&state).unwrap_err().to_string();
        assert!(error.contains("2 values cannot go on behind value 6"), "{error}");
    }
}

//! A source of the whole numbers of a range.
//!
//! Who may call it: job authors, benchmarks. What must never happen here: work per number beyond writing it down.

use std::collections::VecDeque;
use std::fmt::{Debug, Display};
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_schema::{Error, Result};

/// Numbers in one split at most.
const SPLIT_NUMBERS_MAX: u64 = 16 << 20;
/// Splits for each reader at least, so that a quick one can take work from a slow one.
const SPLITS_PER_READER: u64 = 16;
/// Numbers in one split at least, as long as there are so many: handing out a split costs more than making them.
const SPLIT_NUMBERS_MIN: u64 = 64 << 10;

/// `u64` or `i64`.
pub trait Number: Record + Copy + Ord + Debug + Display {
    /// The number `distance` behind this one, which must exist.
    fn ahead(self, distance: u64) -> Self;
    /// How far `last` is behind this one; only if it is not before.
    fn distance(self, last: Self) -> u64;
    /// Appends this and the `count - 1` numbers behind it.
    fn append(self, count: usize, numbers: &mut Vec<Self>);
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn ahead(self, distance: u64) -> Self {
                self.wrapping_add(distance as $type)
            }

            fn distance(self, last: Self) -> u64 {
                last.wrapping_sub(self) as u64
            }

            fn append(self, count: usize, numbers: &mut Vec<Self>) {
                numbers.extend((0..count as $type).map(|index| self.wrapping_add(index)));
            }
        }
    };
}

number!(u64);
number!(i64);

/// Emits the numbers of a range, both ends included. With one task they are in order.
///
/// ```
/// use flott_connectors::sequence::Sequence;
/// let hundred: Sequence<u64> = Sequence::new(1, 100);
/// let balanced: Sequence<i64> = Sequence::signed(-50, 50);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sequence<N> {
    first: N,
    last: N,
}

impl Sequence<u64> {
    /// The numbers `first` to `last`.
    pub fn new(first: u64, last: u64) -> Self {
        Sequence { first, last }
    }
}

impl Sequence<i64> {
    /// The numbers `first` to `last`, which may be negative.
    pub fn signed(first: i64, last: i64) -> Self {
        Sequence { first, last }
    }
}

/// A part of a sequence; both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceSplit<N> {
    /// The next number to emit.
    pub next: N,
    /// The last one.
    pub last: N,
}

impl<N: Number> Source for Sequence<N> {
    type Record = N;
    type Split = SequenceSplit<N>;
    type Enumerator = SequenceEnumerator<N>;
    type Reader = SequenceReader<N>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn check(&self) -> Result<()> {
        match self.first <= self.last {
            true => Ok(()),
            false => Err(Error::configuration(format!(
                "a sequence from {} to {} runs backwards; its first number must not be above its last",
                self.first, self.last
            ))),
        }
    }

    fn enumerator(&self, parallelism: u32) -> Result<SequenceEnumerator<N>> {
        self.check()?;
        let share = self.first.distance(self.last) / (u64::from(parallelism.max(1)) * SPLITS_PER_READER) + 1;
        let split_numbers = share.clamp(SPLIT_NUMBERS_MIN, SPLIT_NUMBERS_MAX);
        Ok(SequenceEnumerator {
            rest: Some(SequenceSplit { next: self.first, last: self.last }),
            split_numbers,
        })
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<SequenceReader<N>> {
        Ok(SequenceReader { splits: VecDeque::new() })
    }
}

/// Deals out ranges.
pub struct SequenceEnumerator<N> {
    rest: Option<SequenceSplit<N>>,
    split_numbers: u64,
}

impl<N: Number> SplitEnumerator for SequenceEnumerator<N> {
    type Split = SequenceSplit<N>;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<SequenceSplit<N>>> {
        let Some(rest) = self.rest else { return Ok(Assignment::NoMore) };
        if rest.next.distance(rest.last) < self.split_numbers {
            self.rest = None;
            return Ok(Assignment::Split(rest));
        }
        let behind = rest.next.ahead(self.split_numbers);
        self.rest = Some(SequenceSplit { next: behind, last: rest.last });
        Ok(Assignment::Split(SequenceSplit {
            next: rest.next,
            last: rest.next.ahead(self.split_numbers - 1),
        }))
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.rest, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.rest = decode_value(state)?;
        Ok(())
    }
}

/// Emits ranges.
pub struct SequenceReader<N> {
    splits: VecDeque<SequenceSplit<N>>,
}

impl<N: Number> SourceReader for SequenceReader<N> {
    type Record = N;
    type Split = SequenceSplit<N>;

    fn add_split(&mut self, split: SequenceSplit<N>) -> Result<()> {
        self.splits.push_back(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<N>> {
        let Some(split) = self.splits.front_mut() else { return Ok(Poll::Ready(None)) };
        let left = split.next.distance(split.last).saturating_add(1);
        let count = left.min(max_records.max(1) as u64);
        let mut batch = Batch::with_capacity(count as usize);
        split.next.append(count as usize, &mut batch.records);
        if count == left {
            self.splits.pop_front();
        } else {
            split.next = split.next.ahead(count);
        }
        Ok(Poll::Ready(Some(batch)))
    }

    fn snapshot(&self) -> Vec<SequenceSplit<N>> {
        self.splits.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_kit::{check_runs, drain, read_by, read_resuming, runs};

    fn records<N: Number>(source: &Sequence<N>, max: usize) -> Vec<N> {
        drain(source, max).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn both_ends_are_included_up_to_the_ends_of_the_type() {
        assert_eq!(records(&Sequence::new(3, 5), 2), [3, 4, 5]);
        assert_eq!(records(&Sequence::new(7, 7), 10), [7]);
        assert_eq!(records(&Sequence::signed(-2, 1), 10), [-2, -1, 0, 1]);
        assert_eq!(
            records(&Sequence::new(u64::MAX - 2, u64::MAX), 2),
            [u64::MAX - 2, u64::MAX - 1, u64::MAX]
        );
        assert_eq!(records(&Sequence::signed(i64::MAX, i64::MAX), 2), [i64::MAX]);
    }

    #[test]
    fn the_widest_ranges_have_a_first_and_a_second_split() {
        let mut unsigned = Sequence::new(0, u64::MAX).enumerator(4).unwrap();
        let mut signed = Sequence::signed(i64::MIN, i64::MAX).enumerator(4).unwrap();
        for turn in 0..3 {
            let first = turn * SPLIT_NUMBERS_MAX;
            let last = first + SPLIT_NUMBERS_MAX - 1;
            assert_eq!(
                unsigned.next_split(0).unwrap(),
                Assignment::Split(SequenceSplit { next: first, last })
            );
            let (next, last) = (i64::MIN + first as i64, i64::MIN + last as i64);
            assert_eq!(signed.next_split(0).unwrap(), Assignment::Split(SequenceSplit { next, last }));
        }
    }

    #[test]
    fn a_backwards_range_is_refused_beforehand() {
        let error = Sequence::new(2, 1).check().unwrap_err().to_string();
        assert!(error.contains("from 2 to 1"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn readers_share_the_range_and_each_number_comes_once(
            first in -1000i64..1000,
            count in 1i64..300_000,
            readers in 1u32..5,
        ) {
            let source = Sequence::signed(first, first + count - 1);
            let mut read = read_by(&source, readers, 1000).concat();
            if readers > 1 {
                read.sort_unstable();
            }
            prop_assert!(read.into_iter().eq(first..first + count));
        }

        #[test]
        fn each_number_comes_once_over_restarts(count in 1u64..400_000, runs in runs()) {
            let runs: Vec<_> = runs.into_iter().map(|run| run.with_larger_batches(1000)).collect();
            check_runs(&Sequence::new(1, count), &runs)?;
        }

        #[test]
        fn a_resumed_reader_emits_the_rest(count in 1u64..200, max in 1usize..50, batches in 0usize..9) {
            let (before, after) = read_resuming(&Sequence::new(1, count), max, batches);
            prop_assert!([before, after].concat().into_iter().eq(1..=count));
        }
    }
}

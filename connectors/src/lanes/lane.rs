//! Every n-th number, and how far they are done.

use serde::{Deserialize, Serialize};

use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::source::{Assignment, SplitEnumerator};
use flott_schema::Result;

/// The numbers `first`, `first + step`, and so on, `count` of them, of which the first `done` are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The first number.
    pub first: u64,
    /// The distance: the number of lanes.
    pub step: u64,
    /// How many numbers; `u64::MAX` for no end.
    pub count: u64,
    /// How many are made.
    pub done: u64,
}

impl Lane {
    /// The next number to make.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.done.saturating_mul(self.step))
    }

    /// How many are to be made.
    pub fn remaining(&self) -> u64 {
        self.count - self.done
    }
}

/// Hands out one lane for each reader: whoever asks first gets the first. A job that starts again with more or fewer readers
/// keeps its lanes: what is in a lane depends on their number.
#[derive(Serialize, Deserialize)]
pub struct LaneEnumerator {
    lanes: u64,
    handed_out: u64,
    /// Numbers of all lanes; `None` for no end.
    total: Option<u64>,
}

impl LaneEnumerator {
    /// For the numbers `0..total`.
    pub fn new(parallelism: u32, total: Option<u64>) -> Self {
        LaneEnumerator { lanes: u64::from(parallelism.max(1)), handed_out: 0, total }
    }
}

impl SplitEnumerator for LaneEnumerator {
    type Split = Lane;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<Lane>> {
        if self.handed_out == self.lanes {
            return Ok(Assignment::NoMore);
        }
        let first = self.handed_out;
        self.handed_out += 1;
        let count = self.total.map_or(u64::MAX, |total| total.saturating_sub(first).div_ceil(self.lanes));
        Ok(Assignment::Split(Lane { first, step: self.lanes, count, done: 0 }))
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(self, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        *self = decode_value(state)?;
        Ok(())
    }
}

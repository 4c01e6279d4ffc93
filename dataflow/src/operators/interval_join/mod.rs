//! The interval join: pairs of records of one key whose timestamps are close enough.
//!
//! What lives here: the bounds ([`Interval`]), the buffers of a key ([`buffer`]), the operator. Who may call it: the
//! API. What must never happen here: work at a watermark that grows with the number of keys that have nothing to
//! clean up.

mod buffer;
mod function;
mod operator;

pub use buffer::Buffers;
pub use function::{JoinContext, JoinWith, ProcessJoinFunction};
pub use operator::{IntervalJoin, JoinOptions};

use flott_schema::{Error, Result};

/// How far a right record's timestamp may lie from a left one's: `left + lower_ms ..= left + upper_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Smallest distance.
    pub lower_ms: i64,
    /// Largest distance.
    pub upper_ms: i64,
}

impl Interval {
    /// Both bounds included.
    pub fn new(lower_ms: i64, upper_ms: i64) -> Self {
        Interval { lower_ms, upper_ms }
    }

    /// The lower bound does not belong to the interval.
    pub fn lower_exclusive(self) -> Self {
        Interval { lower_ms: self.lower_ms.saturating_add(1), ..self }
    }

    /// The upper bound does not belong to the interval.
    pub fn upper_exclusive(self) -> Self {
        Interval { upper_ms: self.upper_ms.saturating_sub(1), ..self }
    }

    /// Refuses an interval that no pair can be in.
    pub fn check(self) -> Result<()> {
        if self.lower_ms > self.upper_ms {
            return Err(Error::graph(format!(
                "the interval join would never give a pair: its lower bound of {} ms lies above its upper bound of \
                 {} ms; exclusive bounds are one millisecond tighter than they were given",
                self.lower_ms, self.upper_ms
            )));
        }
        Ok(())
    }

    /// The interval as the right input sees it: how far left records may lie.
    fn mirrored(self) -> Self {
        Interval { lower_ms: self.upper_ms.saturating_neg(), upper_ms: self.lower_ms.saturating_neg() }
    }

    /// How long after its timestamp a record of this side may still find a partner.
    fn kept_ms(self) -> i64 {
        self.upper_ms.max(0)
    }
}

#[cfg(test)]
mod tests;

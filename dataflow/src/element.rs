//! What flows on a channel.

use serde::{Deserialize, Serialize};

pub use flott_schema::snapshot::Barrier;

use crate::batch::ErasedBatch;

/// The watermark of a stream that has ended: no record will follow.
pub const MAX_WATERMARK: i64 = i64::MAX;

/// Everything on a channel that is not data; ordered with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// No record with a timestamp at or below this will follow, except late ones.
    Watermark(i64),
    /// Watermark status: `true` when the channel has become idle and must not hold back watermarks.
    Idle(bool),
    /// A checkpoint barrier.
    Barrier(Barrier),
    /// Nothing will follow.
    EndOfInput,
}

/// One item on a channel.
pub enum Element {
    /// Records.
    Batch(Box<dyn ErasedBatch>),
    /// A signal.
    Signal(Signal),
}

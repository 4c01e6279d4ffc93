//! The kinds of window.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A finite set of records that belong together, named by what sets it apart from other windows.
pub trait Window: Clone + Ord + fmt::Debug + Send + Serialize + DeserializeOwned + 'static {
    /// The largest timestamp that belongs to the window, epoch milliseconds; results carry it.
    fn max_timestamp(&self) -> i64;
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimeWindow {
    /// First millisecond, since the epoch.
    pub start_ms: i64,
    /// The millisecond behind the last, since the epoch.
    pub end_ms: i64,
}

impl TimeWindow {
    /// The window from `start_ms` to `end_ms`, end exclusive.
    pub fn new(start_ms: i64, end_ms: i64) -> Self {
        TimeWindow { start_ms, end_ms }
    }

    /// Length, milliseconds.
    pub fn size_ms(&self) -> i64 {
        self.end_ms - self.start_ms
    }

    /// Whether the windows overlap or touch.
    pub fn intersects(&self, other: &TimeWindow) -> bool {
        self.start_ms <= other.end_ms && self.end_ms >= other.start_ms
    }

    /// The smallest window that holds both.
    pub fn cover(&self, other: &TimeWindow) -> TimeWindow {
        TimeWindow { start_ms: self.start_ms.min(other.start_ms), end_ms: self.end_ms.max(other.end_ms) }
    }
}

impl Window for TimeWindow {
    #[inline]
    fn max_timestamp(&self) -> i64 {
        self.end_ms - 1
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start_ms, self.end_ms)
    }
}

/// The one window that holds everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GlobalWindow;

impl Window for GlobalWindow {
    fn max_timestamp(&self) -> i64 {
        i64::MAX
    }
}

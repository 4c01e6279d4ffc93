//! Processing time for tasks: the wall clock at the start, moved on by the monotonic clock, so it never goes back.

use std::time::{Duration, Instant, SystemTime};

/// A clock that all tasks of a worker share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { started: Instant::now(), started_ms: since_epoch.as_millis() as i64 }
    }
}

impl Clock {
    /// Epoch milliseconds at `instant`.
    pub fn at_ms(&self, instant: Instant) -> i64 {
        self.started_ms + instant.saturating_duration_since(self.started).as_millis() as i64
    }

    /// Epoch milliseconds now.
    pub fn now_ms(&self) -> i64 {
        self.at_ms(Instant::now())
    }
}

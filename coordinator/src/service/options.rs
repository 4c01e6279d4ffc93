//! Settings of a coordinator.

use std::time::{SystemTime, UNIX_EPOCH};

/// Settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Commands that may wait for the loop; further callers wait for room.
    pub queue_capacity: usize,
    /// Events that may wait to be committed; further commands that change something are refused.
    pub uncommitted_max: usize,
    /// How long a job may wait for slots while nothing of it runs.
    pub slot_wait_ms: u64,
    /// How long the workers of a coordinator that begins to lead may take to return, before they are given up.
    pub worker_return_ms: u64,
    /// How long a call of a handle may take.
    pub request_timeout_ms: u64,
    /// Job state changes kept for a slow subscriber.
    pub changes_kept: usize,
    /// Ended jobs that are remembered.
    pub ended_jobs_max: usize,
    /// Milliseconds since 1970, for the time stamps of events.
    pub now_ms: fn() -> u64,
}

impl Default for Options {
    /// Flink's five minutes for slots, its heartbeat timeout for workers; the clock of the system.
    fn default() -> Self {
        Options {
            queue_capacity: 1_024,
            uncommitted_max: 65_536,
            slot_wait_ms: 300_000,
            worker_return_ms: 50_000,
            request_timeout_ms: 10_000,
            changes_kept: 256,
            ended_jobs_max: 1_000,
            now_ms: || {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            },
        }
    }
}

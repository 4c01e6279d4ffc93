//! Settings of a coordinator.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::config::{Configuration, options};
use flott_schema::error::Result;

use crate::machine::Limits;

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
    /// Ended jobs that are remembered; every coordinator of a group has to be given the same number.
    pub ended_jobs_max: usize,
    /// Exceptions of a job that are remembered; every coordinator of a group has to be given the same number.
    pub exceptions_max: usize,
    /// Path or URI of the folder for the checkpoints of jobs that name none. Where workers run on several hosts, all of them and the
    /// coordinators have to reach it.
    pub checkpoint_directory: String,
    /// Milliseconds since 1970, for the time stamps of events.
    pub now_ms: fn() -> u64,
}

impl Options {
    /// What `configuration` says; the rest as by default.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Options {
            slot_wait_ms: millis(configuration.get(&options::SLOT_REQUEST_TIMEOUT)?),
            worker_return_ms: millis(configuration.get(&options::HEARTBEAT_TIMEOUT)?),
            exceptions_max: configuration.get(&options::WEB_EXCEPTION_HISTORY_SIZE)? as usize,
            ..Options::default()
        })
    }
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
            ended_jobs_max: Limits::default().ended_jobs_max,
            exceptions_max: Limits::default().exceptions_max,
            checkpoint_directory: std::env::temp_dir().join("flott-checkpoints").display().to_string(),
            now_ms: || {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            },
        }
    }
}

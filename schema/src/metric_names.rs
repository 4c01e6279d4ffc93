//! Flink's names for the numbers of tasks and operators, and where the numbers are found: one table for the REST API and for
//! Prometheus.

use crate::stats::{OperatorStats, TaskStats};

/// Counters of a task. Flink gives each as a total, and as a rate whose name ends in `PerSecond`.
pub const TASK_COUNTERS: [(&str, fn(&TaskStats) -> u64); 6] = [
    ("numRecordsIn", |stats| stats.records_in),
    ("numRecordsOut", |stats| stats.records_out),
    ("numBytesIn", |stats| stats.bytes_in),
    ("numBytesOut", |stats| stats.bytes_out),
    ("numBuffersIn", |stats| stats.batches_in),
    ("numBuffersOut", |stats| stats.batches_out),
];

/// Times of a task: the name of the rate (milliseconds per second), that of the total (milliseconds), and the number.
pub const TASK_TIMES: [(&str, &str, fn(&TaskStats) -> u64); 3] = [
    ("busyTimeMsPerSecond", "accumulateBusyTimeMs", |stats| stats.busy_ms),
    ("idleTimeMsPerSecond", "accumulateIdleTimeMs", |stats| stats.idle_ms),
    ("backPressuredTimeMsPerSecond", "accumulateBackPressuredTimeMs", |stats| stats.backpressured_ms),
];

/// Counters of an operator, and the names of their rates where Flink has one.
pub const OPERATOR_COUNTERS: [(&str, Option<&str>, fn(&OperatorStats) -> u64); 4] = [
    ("numRecordsIn", Some("numRecordsInPerSecond"), |operator| operator.records_in),
    ("numRecordsOut", Some("numRecordsOutPerSecond"), |operator| operator.records_out),
    ("numLateRecordsDropped", None, |operator| operator.late_records_dropped),
    ("numRecordsInErrors", None, |operator| operator.undecodable_records),
];

/// Milliseconds per second from which on a task that waits for its outputs counts as backpressured.
pub const BACKPRESSURED_FROM: f64 = 100.0;

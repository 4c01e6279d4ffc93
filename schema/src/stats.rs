//! What workers tell about themselves and their tasks: numbers for people and metrics, never facts to decide by. They are
//! not replicated; the leader keeps the latest.

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, JobId, OperatorId};

/// What a worker offers when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerProfile {
    /// Its name, unique among workers that live: `worker.id`, or made of its address and a random part.
    pub name: String,
    /// The host it runs on, for people.
    pub host: String,
    /// `host:port` where executors of other workers reach those of this one.
    pub data_address: String,
    /// Number of slots.
    pub slots: u32,
    /// Processor cores of the host.
    pub cores: u32,
    /// Memory of the host, bytes.
    pub memory_bytes: u64,
    /// Memory that each slot's share of an executor may take, bytes; 0: not limited.
    pub slot_memory_bytes: u64,
    /// Port of its Prometheus endpoint; 0: none.
    pub metrics_port: u16,
    /// Version of its Flott.
    pub version: String,
}

/// Counters of one operator of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStats {
    /// The operator; its name stands in the job graph.
    pub operator: Option<OperatorId>,
    /// Records read.
    pub records_in: u64,
    /// Records emitted.
    pub records_out: u64,
    /// Records dropped as too late.
    pub late_records_dropped: u64,
    /// Records skipped as undecodable.
    pub undecodable_records: u64,
}

/// Counters of one task since it was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStats {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// Records read from other tasks.
    pub records_in: u64,
    /// Records sent to other tasks.
    pub records_out: u64,
    /// Bytes read from executors of other workers.
    pub bytes_in: u64,
    /// Bytes sent to executors of other workers.
    pub bytes_out: u64,
    /// Batches read.
    pub batches_in: u64,
    /// Batches sent.
    pub batches_out: u64,
    /// Time spent working.
    pub busy_ms: u64,
    /// Time spent waiting for input.
    pub idle_ms: u64,
    /// Time spent waiting for room in the outputs.
    pub backpressured_ms: u64,
    /// The combined watermark of the inputs (milliseconds since 1970); nothing before the first.
    pub input_watermark_ms: Option<i64>,
    /// Its operators, upstream first.
    pub operators: Vec<OperatorStats>,
}

impl TaskStats {
    /// Those of a task that has done nothing yet.
    pub fn new(job: JobId, attempt: AttemptId) -> Self {
        TaskStats {
            job,
            attempt,
            records_in: 0,
            records_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            batches_in: 0,
            batches_out: 0,
            busy_ms: 0,
            idle_ms: 0,
            backpressured_ms: 0,
            input_watermark_ms: None,
            operators: Vec::new(),
        }
    }
}

/// What a worker uses at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerUsage {
    /// Resident memory of the worker's own process, bytes.
    pub resident_bytes: u64,
    /// Resident memory of its executors, bytes.
    pub executors_resident_bytes: u64,
    /// Memory free on the host, bytes.
    pub host_free_bytes: u64,
    /// Processor time of the worker and its executors, milliseconds.
    pub cpu_ms: u64,
    /// Number of executors that live.
    pub executors: u32,
}

/// What comes with a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// The worker.
    pub usage: WorkerUsage,
    /// The tasks that run on it, and those that ended since the last heartbeat.
    pub tasks: Vec<TaskStats>,
}

/// A log file that a process keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// File name without folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written last (milliseconds since 1970).
    pub modified_ms: u64,
}

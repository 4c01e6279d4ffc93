//! What the REST API answers, as far as this client reads it. Fields are named as Flink names them; what is missing in an
//! answer of another version has its default.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Numbers of tasks by their state, in Flink's words in either case, and `total`.
pub type TaskCounts = BTreeMap<String, u64>;

/// `GET /overview`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Overview {
    /// Workers that are there.
    pub taskmanagers: u32,
    /// Their slots.
    pub slots_total: u32,
    /// Those that no job uses.
    pub slots_available: u32,
    /// Jobs that have not ended.
    pub jobs_running: u32,
    /// Jobs that came to their end.
    pub jobs_finished: u32,
    /// Jobs that were cancelled.
    pub jobs_cancelled: u32,
    /// Jobs that failed.
    pub jobs_failed: u32,
    /// The version of Flott.
    pub flott_version: String,
}

/// `GET /jobs/overview`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobsOverview {
    /// Every job the cluster knows.
    pub jobs: Vec<JobOverview>,
}

/// A line of [`JobsOverview`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobOverview {
    /// Job id.
    pub jid: String,
    /// Its name.
    pub name: String,
    /// Its state, in Flink's words.
    pub state: String,
    /// When it was submitted (milliseconds since 1970).
    pub start_time: i64,
    /// When it ended; -1: it has not.
    pub end_time: i64,
    /// From then until then or now, milliseconds.
    pub duration: i64,
    /// Its tasks.
    #[serde(default)]
    pub tasks: TaskCounts,
}

/// `GET /jobs/:id`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobDetails {
    /// Job id.
    pub jid: String,
    /// Its name.
    pub name: String,
    /// Its state, in Flink's words.
    pub state: String,
    /// `STREAMING` or `BATCH`.
    #[serde(default)]
    pub job_type: String,
    /// When it was submitted (milliseconds since 1970).
    pub start_time: i64,
    /// When it ended; -1: it has not.
    pub end_time: i64,
    /// From then until then or now, milliseconds.
    pub duration: i64,
    /// Its vertices, upstream first.
    pub vertices: Vec<VertexDetails>,
    /// When it last came into each state (milliseconds since 1970); 0: never.
    #[serde(default)]
    pub timestamps: BTreeMap<String, u64>,
    /// What it waits for, if it waits.
    #[serde(default)]
    pub slot_wait: Option<SlotWaitDetails>,
}

/// A wait for slots.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlotWaitDetails {
    /// Slots that what is to start next needs.
    pub slots_needed: u32,
}

impl JobDetails {
    /// Tasks by the state that `wanted` names.
    pub fn tasks_in(&self, wanted: &str) -> u64 {
        self.vertices.iter().map(|vertex| count(&vertex.tasks, wanted)).sum()
    }

    /// All tasks.
    pub fn task_count(&self) -> u64 {
        self.vertices.iter().map(|vertex| u64::from(vertex.parallelism)).sum()
    }
}

/// The number of tasks in a state.
pub fn count(tasks: &TaskCounts, state: &str) -> u64 {
    tasks.iter().filter(|(name, _)| name.eq_ignore_ascii_case(state)).map(|(_, count)| count).sum()
}

/// Whether a job in this state has ended for good.
pub fn has_ended(state: &str) -> bool {
    matches!(state, "FINISHED" | "CANCELED" | "FAILED")
}

/// A vertex of [`JobDetails`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VertexDetails {
    /// Vertex id.
    pub id: String,
    /// Its chain of operators.
    pub name: String,
    /// Number of its tasks.
    pub parallelism: u32,
    /// Number of its key groups, and so of its tasks at most.
    #[serde(default, rename = "maxParallelism")]
    pub max_parallelism: u32,
    /// The state that stands for them all.
    pub status: String,
    /// Its tasks.
    #[serde(default)]
    pub tasks: TaskCounts,
    /// Its numbers.
    #[serde(default)]
    pub metrics: IoMetrics,
}

/// Numbers of a vertex.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct IoMetrics {
    /// Records read from other tasks.
    pub read_records: u64,
    /// Records sent to other tasks.
    pub write_records: u64,
    /// Bytes read from other processes.
    pub read_bytes: u64,
    /// Bytes sent to other processes.
    pub write_bytes: u64,
    /// Time spent working, milliseconds. Flink writes `"NaN"` where it is not known.
    #[serde(deserialize_with = "number_or_zero")]
    pub accumulated_busy_time: f64,
}

fn number_or_zero<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_f64().unwrap_or(0.0))
}

/// `GET /jobs/:id/exceptions`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExceptionHistory {
    /// The failures.
    pub exception_history: Exceptions,
}

/// The list in [`ExceptionHistory`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Exceptions {
    /// The latest first.
    pub entries: Vec<ExceptionEntry>,
}

/// A failure of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExceptionEntry {
    /// Its kind.
    pub exception_name: String,
    /// Its message and backtrace.
    pub stacktrace: String,
    /// When it was noticed (milliseconds since 1970).
    pub timestamp: i64,
    /// The task that failed.
    pub task_name: Option<String>,
}

/// `GET /taskmanagers`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// The workers.
    pub taskmanagers: Vec<WorkerView>,
}

/// A worker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkerView {
    /// Its name.
    pub id: String,
    /// Where it can be reached.
    pub path: String,
    /// The port for records.
    pub data_port: u32,
    /// Its slots.
    pub slots_number: u32,
    /// Those that no job uses.
    pub free_slots: u32,
    /// The latest heartbeat (milliseconds since 1970).
    pub time_since_last_heartbeat: i64,
    /// The host.
    pub hardware: Hardware,
}

/// The host of a worker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hardware {
    /// Processor cores.
    pub cpu_cores: u32,
    /// Memory, bytes.
    pub physical_memory: u64,
    /// Memory that is free, bytes.
    pub free_memory: u64,
}

/// `GET /jars`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Programs {
    /// The stored programs.
    pub files: Vec<ProgramView>,
}

/// A stored program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProgramView {
    /// `<sha256>_<name>`
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The answer to `POST /jars/upload`.
#[derive(Clone, Debug, Deserialize)]
pub struct Uploaded {
    /// Where the coordinator keeps it; the last part is its id.
    pub filename: String,
}

/// The answer to `POST /jobs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// `/jobs/<id>`
    pub job_url: String,
}

/// A metric summed over the tasks of a vertex.
#[derive(Clone, Debug, Deserialize)]
pub struct MetricSum {
    /// Its name.
    pub id: String,
    /// The sum.
    #[serde(default)]
    pub sum: f64,
}

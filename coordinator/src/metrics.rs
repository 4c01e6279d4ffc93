//! Metrics of the coordinator's process, in Prometheus' text, under the names that Flink's Prometheus reporter gives them.
//!
//! What the state tells is measured when it is asked for, into a recorder that lives for that answer: a job that is
//! forgotten leaves no series behind.

use metrics::{describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::machine::ClusterState;
use crate::rest::checkpoint_metrics;

/// The cluster in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNumbers {
    /// Registered workers.
    pub workers: u64,
    /// Their slots.
    pub slots_total: u64,
    /// Free ones.
    pub slots_available: u64,
    /// Jobs that are not over.
    pub jobs_running: u64,
    /// Each of them.
    pub jobs: Vec<JobNumbers>,
}

/// A job in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobNumbers {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Flink's word for its state, in lower case.
    pub state: String,
    /// Times it was started again.
    pub restarts: u64,
    /// Its tasks that run.
    pub tasks_running: u64,
    /// All its tasks.
    pub tasks: u64,
    /// Flink's metrics of its checkpoints.
    pub checkpoints: Vec<(&'static str, i64)>,
}

impl ClusterNumbers {
    /// Of a state.
    pub fn of(state: &ClusterState) -> Self {
        let open = state.jobs().filter(|job| !job.state().is_terminal());
        let jobs: Vec<JobNumbers> = open
            .map(|job| JobNumbers {
                id: job.id().to_string(),
                name: job.graph().name.clone(),
                state: job.state().word().to_lowercase(),
                restarts: job.restarts().into(),
                tasks_running: job.counts().of(flott_schema::control::TaskState::Running).into(),
                tasks: job.counts().total().into(),
                checkpoints: checkpoint_metrics(job.checkpoints()).to_vec(),
            })
            .collect();
        ClusterNumbers {
            workers: state.workers().len() as u64,
            slots_total: state.slots().total().into(),
            slots_available: state.slots().free().into(),
            jobs_running: jobs.len() as u64,
            jobs,
        }
    }
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessNumbers {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Processor time since its start, milliseconds.
    pub cpu_ms: u64,
    /// Its threads.
    pub threads: u64,
}

/// Bytes in a page, and ticks of the kernel's clock in a second: what Linux has on every machine it runs on today.
const PAGE_BYTES: u64 = 4_096;
const TICKS_PER_SECOND: u64 = 100;

impl ProcessNumbers {
    /// As `/proc` tells; zeros where there is none.
    pub fn read() -> Self {
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Self::default() };
        // The name of the program, in brackets, may hold anything; the numbers follow its end.
        let Some((_, rest)) = stat.rsplit_once(')') else { return Self::default() };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        ProcessNumbers {
            resident_bytes: number(21) * PAGE_BYTES,
            cpu_ms: (number(11) + number(12)) * 1_000 / TICKS_PER_SECOND,
            threads: number(17),
        }
    }
}

/// What this coordinator is to its group and to callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Whether it leads.
    pub leads: bool,
    /// Callers that were turned away at its control port.
    pub callers_refused: u64,
    /// Files of snapshots that nobody needs and that could not be deleted, each time it was tried.
    pub deletions_failed: u64,
}

/// The numbers of a task, or of one of its operators.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSeries {
    /// `task` or `task_operator`: a part of the names.
    pub scope: &'static str,
    /// Which task of which job, on which worker.
    pub labels: Vec<(&'static str, String)>,
    /// Flink's names and the values.
    pub values: Vec<(String, f64)>,
}

/// Everything as text.
pub fn render(cluster: &ClusterNumbers, process: &ProcessNumbers, own: Own, tasks: &[TaskSeries]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    with_local_recorder(&recorder, || {
        let set = |name: &'static str, help: &'static str, value: u64| {
            describe_gauge!(name, help);
            gauge!(name).set(value as f64);
        };
        set("flink_jobmanager_numRegisteredTaskManagers", "registered workers", cluster.workers);
        set("flink_jobmanager_numPendingTaskManagers", "workers that are being started", 0);
        set("flink_jobmanager_taskSlotsTotal", "slots of all workers", cluster.slots_total);
        set("flink_jobmanager_taskSlotsAvailable", "free slots of all workers", cluster.slots_available);
        set("flink_jobmanager_numRunningJobs", "jobs that are not over", cluster.jobs_running);
        set("flink_jobmanager_Status_JVM_Memory_Heap_Used", "resident memory, bytes", process.resident_bytes);
        set(
            "flink_jobmanager_Status_JVM_CPU_Time",
            "processor time, nanoseconds",
            process.cpu_ms * 1_000_000,
        );
        set("flink_jobmanager_Status_JVM_Threads_Count", "threads", process.threads);
        set("flott_coordinator_leader", "1 if this coordinator leads its group", u64::from(own.leads));
        set(
            "flott_coordinator_callers_refused",
            "callers that were turned away at the control port",
            own.callers_refused,
        );
        set(
            "flott_coordinator_snapshot_deletions_failed",
            "files of snapshots that could not be deleted, each time it was tried",
            own.deletions_failed,
        );
        for job in &cluster.jobs {
            let labels = [("job_id", job.id.clone()), ("job_name", job.name.clone())];
            let of_job = |name: &'static str, value: u64| gauge!(name, &labels).set(value as f64);
            for state in ["created", "running", "restarting", "failing", "cancelling"] {
                let name = format!("flink_jobmanager_job_{state}State");
                gauge!(name, &labels).set(f64::from(u8::from(job.state == state)));
            }
            of_job("flink_jobmanager_job_numRestarts", job.restarts);
            of_job("flink_jobmanager_job_numRunningTasks", job.tasks_running);
            of_job("flink_jobmanager_job_numTasks", job.tasks);
            for (name, value) in &job.checkpoints {
                gauge!(format!("flink_jobmanager_job_{name}"), &labels).set(*value as f64);
            }
        }
        for series in tasks {
            for (name, value) in &series.values {
                gauge!(format!("flink_taskmanager_job_{}_{name}", series.scope), &series.labels).set(*value);
            }
        }
    });
    rendered.render()
}

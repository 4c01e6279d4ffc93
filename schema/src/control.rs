//! Messages between a coordinator and its workers, as values. In one process they go through a queue as they are;
//! between processes they get a wire form, see [`crate::wire`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::ids::{AttemptId, JobId, SlotId, WorkerId};
use crate::job::JobSpec;
use crate::snapshot::{Barrier, RestoreFrom, TaskSnapshot};
use crate::stats::WorkerProfile;

/// State of a task, in Flink's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Known, not yet placed.
    Created,
    /// Placed in a slot.
    Scheduled,
    /// On its way to the worker.
    Deploying,
    /// Opening its operators.
    Initializing,
    /// Processing.
    Running,
    /// Ended by itself.
    Finished,
    /// Asked to stop.
    Canceling,
    /// Stopped on request.
    Canceled,
    /// Ended by an error.
    Failed,
}

impl TaskState {
    /// All states, in the order of a task's life; the discriminant is the index.
    pub const ALL: [TaskState; 9] = [
        TaskState::Created,
        TaskState::Scheduled,
        TaskState::Deploying,
        TaskState::Initializing,
        TaskState::Running,
        TaskState::Finished,
        TaskState::Canceling,
        TaskState::Canceled,
        TaskState::Failed,
    ];

    /// Whether the task will never run again in this attempt.
    pub fn is_terminal(self) -> bool {
        matches!(self, TaskState::Finished | TaskState::Canceled | TaskState::Failed)
    }

    /// Flink's word.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Created => "CREATED",
            TaskState::Scheduled => "SCHEDULED",
            TaskState::Deploying => "DEPLOYING",
            TaskState::Initializing => "INITIALIZING",
            TaskState::Running => "RUNNING",
            TaskState::Finished => "FINISHED",
            TaskState::Canceling => "CANCELING",
            TaskState::Canceled => "CANCELED",
            TaskState::Failed => "FAILED",
        }
    }
}

/// Why a task failed, in a form that crosses processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Who may act.
    pub kind: ErrorKind,
    /// Vertex name.
    pub vertex: String,
    /// Parallel index, from 0.
    pub subtask: u32,
    /// Number of tasks of the vertex.
    pub parallelism: u32,
    /// What happened.
    pub message: String,
    /// Text of a backtrace, for a panic.
    pub backtrace: Option<String>,
}

/// Bytes of each text of a [`TaskFailure`] at most, once it has been cut.
pub const FAILURE_TEXT_BYTES_MAX: usize = 16 << 10;

impl TaskFailure {
    /// The failure with texts that a log of failures can hold: what is too long loses its end, and says so.
    pub fn cut(mut self) -> Self {
        for text in [&mut self.vertex, &mut self.message].into_iter().chain(&mut self.backtrace) {
            if text.len() > FAILURE_TEXT_BYTES_MAX {
                let note = format!("... (cut: {} bytes in all)", text.len());
                text.truncate(text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX - note.len()));
                text.push_str(&note);
            }
        }
        self
    }

    /// The failure as an error that names vertex and subtask.
    pub fn to_error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone()).at(format!(
            "task '{}' (subtask {} of {})",
            self.vertex,
            u64::from(self.subtask) + 1,
            self.parallelism
        ));
        match &self.backtrace {
            Some(backtrace) => error.with_backtrace(backtrace.clone()),
            None => error,
        }
    }
}

/// Where a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The deployment.
    pub attempt: AttemptId,
    /// The slot.
    pub slot: SlotId,
}

/// A task that a worker runs, as it says when it comes back to a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// The state it is in.
    pub state: TaskState,
}

/// Where the executors of a worker can be reached by those of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHost {
    /// The worker.
    pub worker: WorkerId,
    /// `host:port`; empty in an embedded cluster.
    pub data_address: String,
}

/// From the coordinator to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Start these tasks. All placements of the tasks they exchange records with are in `peers`.
    Deploy {
        /// The job.
        job: JobId,
        /// What it is; the worker checks the fingerprint of the program it holds against the graph.
        spec: Arc<JobSpec>,
        /// The tasks to start.
        tasks: Vec<Placement>,
        /// Where every task of the job placed so far runs or ran; one list, shared by the messages to all workers.
        peers: Arc<[Placement]>,
        /// Every worker that `peers` names.
        hosts: Arc<[WorkerHost]>,
        /// The snapshot that the tasks start from.
        restore: Option<Arc<RestoreFrom>>,
    },
    /// Take a snapshot. Every worker with tasks of the job gets it: sources send the barrier, tasks that have ended hand in their last state, and
    /// all learn where the files go.
    Checkpoint(CheckpointOrder),
    /// A snapshot is complete, so that sinks commit, or was given up.
    CheckpointEnded {
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// Whether it is complete.
        completed: bool,
        /// The deployments on the worker that took part.
        attempts: Vec<AttemptId>,
    },
    /// Make ready for tasks that may be deployed soon. Nothing is reported of it.
    Prepare(PrepareOrder),
    /// Stop these tasks; each reports `Canceled` (or the terminal state it was in).
    Cancel {
        /// The job.
        job: JobId,
        /// The deployments to stop.
        attempts: Vec<AttemptId>,
    },
    /// The job has ended: drop what is kept for it (spooled results, enumerators).
    Release {
        /// The job.
        job: JobId,
    },
}

/// An order of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The term of the leader that gives it. A worker refuses those of a term before the last it has seen.
    pub term: u64,
    /// What to do.
    pub message: ToWorker,
}

/// Make ready for tasks of a job that goes on with another parallelism, while those of now still run. What comes of it
/// changes how fast they begin, and nothing else: tasks may be deployed elsewhere after all, or never.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareOrder {
    /// The job.
    pub job: JobId,
    /// What it will be.
    pub spec: Arc<JobSpec>,
    /// The tasks that are planned for the worker.
    pub tasks: Vec<Placement>,
    /// Every worker for which tasks are planned.
    pub hosts: Arc<[WorkerHost]>,
    /// The newest snapshot there is: most of what they start from will be in it.
    pub restore: Option<Arc<RestoreFrom>>,
}

/// Take a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointOrder {
    /// The job.
    pub job: JobId,
    /// What the barrier says.
    pub barrier: Barrier,
    /// Where the files of this snapshot alone go: path or URI of a folder.
    pub folder: String,
    /// Where files go that later checkpoints may share; none for a snapshot that shares nothing.
    pub shared_folder: Option<String>,
    /// The deployments on the worker that take part.
    pub attempts: Vec<AttemptId>,
}

/// From a worker to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// A worker offers its slots.
    Register {
        /// The worker.
        worker: WorkerId,
        /// Its slots, and what people want to know of it.
        profile: WorkerProfile,
    },
    /// A task changed state.
    TaskState(TaskReport),
    /// A task's part of a snapshot.
    Snapshot(Box<SnapshotReport>),
    /// A task has ended but for what its sinks have to commit: it waits for a snapshot.
    SnapshotWanted {
        /// The job.
        job: JobId,
        /// The deployment.
        attempt: AttemptId,
    },
}

/// What a leader acknowledges once it is committed; sent again until then, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// A task changed state.
    Task(TaskReport),
    /// A [`LAST_SNAPSHOT`]: it comes before the word that the task has finished.
    LastSnapshot(Box<SnapshotReport>),
}

impl Report {
    /// The deployment that it is about.
    pub fn task(&self) -> (JobId, AttemptId) {
        match self {
            Report::Task(report) => (report.job, report.attempt),
            Report::LastSnapshot(report) => (report.job, report.attempt),
        }
    }
}

impl Report {
    /// The reports as those of tasks alone, if no last snapshot is among them.
    pub fn of_tasks_alone(reports: &[Report]) -> Option<Vec<TaskReport>> {
        let task = |report: &Report| match report {
            Report::Task(report) => Some(report.clone()),
            Report::LastSnapshot(_) => None,
        };
        reports.iter().map(task).collect()
    }
}

impl From<TaskReport> for ToCoordinator {
    fn from(report: TaskReport) -> Self {
        ToCoordinator::TaskState(report)
    }
}

impl From<Report> for ToCoordinator {
    fn from(report: Report) -> Self {
        match report {
            Report::Task(report) => ToCoordinator::TaskState(report),
            Report::LastSnapshot(report) => ToCoordinator::Snapshot(report),
        }
    }
}

/// In a [`SnapshotReport`]: what follows is that the task has finished, and this is its part of all snapshots to come.
pub const LAST_SNAPSHOT: u64 = u64::MAX;

/// A task's part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// The snapshot, or [`LAST_SNAPSHOT`].
    pub checkpoint: u64,
    /// Of a [`LAST_SNAPSHOT`]: the newest snapshot for which it does not stand, because for those up to it the task hands in parts of their
    /// own. They travel on another way, and may come later.
    pub handed_in: u64,
    /// What it has handed in, or why it cannot.
    pub result: std::result::Result<TaskSnapshot, String>,
}

impl SnapshotReport {
    /// Whether it counts for all snapshots to come.
    pub fn is_last(&self) -> bool {
        self.checkpoint == LAST_SNAPSHOT
    }
}

/// A task changed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// The new state.
    pub state: TaskState,
    /// With `Failed`.
    pub failure: Option<TaskFailure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_of_a_failure_lose_their_ends() {
        let failure = TaskFailure {
            kind: ErrorKind::UserCode,
            vertex: "map".into(),
            subtask: 0,
            parallelism: 1,
            message: "\u{20ac}".repeat(FAILURE_TEXT_BYTES_MAX),
            backtrace: Some("x".repeat(FAILURE_TEXT_BYTES_MAX)),
        };
        let cut = failure.clone().cut();
        assert_eq!((&cut.vertex, &cut.backtrace), (&failure.vertex, &failure.backtrace));
        assert!(cut.message.len() <= FAILURE_TEXT_BYTES_MAX);
        assert!(cut.message.ends_with("\u{20ac}... (cut: 49152 bytes in all)"), "{}", cut.message);
    }
}

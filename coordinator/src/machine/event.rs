//! What happens to the machine and what it wants done.

use std::sync::Arc;

use flott_schema::control::{
    CheckpointOrder, Placement, PrepareOrder, RunningTask, TaskFailure, TaskState, WorkerHost,
};
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::job::{JobSpec, ProgramDigest};
use flott_schema::snapshot::{RestoreFrom, TaskSnapshot};
use flott_schema::stats::WorkerProfile;

use super::checkpoint::{CheckpointRequest, CheckpointStats};
use super::job::{JobOutcome, JobState};

/// A fact, with the time it was noted (milliseconds since 1970). Time never runs backwards in the machine: an earlier
/// stamp counts as the latest one seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker offers its slots. A worker that comes back has a new id.
    WorkerRegistered {
        /// The worker.
        worker: WorkerId,
        /// Its slots, and what people want to know of it.
        profile: WorkerProfile,
        /// When.
        at_ms: u64,
    },
    /// A worker is gone, with its tasks and the results it kept.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// When.
        at_ms: u64,
    },
    /// A registered worker is back, after its connection or its coordinator was lost. It has the same slots.
    WorkerReturned {
        /// The worker.
        worker: WorkerId,
        /// The attempts that were ordered and whose end is not acknowledged, in a state that they are or were in (reports that
        /// are not acknowledged follow); more may be named, such as ended ones whose results it keeps. Orders of the session
        /// before must not take effect any more once this list is made. A task that is placed there, not over and missing
        /// has failed (was cancelled, if it was to stop), unless it was still to be deployed: then it is ordered again.
        tasks: Vec<RunningTask>,
        /// When.
        at_ms: u64,
    },
    /// A job to run; its id is chosen by the caller and new.
    JobSubmitted {
        /// The job.
        job: JobId,
        /// What it is; its graph has passed [`super::check_graph`].
        spec: Arc<JobSpec>,
        /// When.
        at_ms: u64,
    },
    /// A worker's report on a task. `Failed` of a task that has finished says that its result is gone, say with the
    /// process that kept it.
    TaskStateChanged {
        /// The job.
        job: JobId,
        /// The deployment.
        attempt: AttemptId,
        /// The state it is in now.
        state: TaskState,
        /// The cause, with `Failed`.
        failure: Option<TaskFailure>,
        /// When.
        at_ms: u64,
    },
    /// A user wants the job to end.
    CancelRequested {
        /// The job.
        job: JobId,
        /// When.
        at_ms: u64,
    },
    /// The job has waited for slots for as long as it may.
    SlotWaitExpired {
        /// The job.
        job: JobId,
        /// The number that [`Effect::StartSlotWait`] gave; another wait is not meant.
        wait: u32,
        /// When.
        at_ms: u64,
    },
    /// The delay before a restart is over.
    RestartDelayExpired {
        /// The job.
        job: JobId,
        /// The number that [`Effect::StartRestartDelay`] gave; another delay is not meant.
        number: u32,
        /// When.
        at_ms: u64,
    },
    /// A program is stored, on so many members of the cluster that it will not be lost.
    ProgramStored {
        /// Its SHA-256.
        digest: ProgramDigest,
        /// Its file name.
        name: String,
        /// Bytes.
        size: u64,
        /// When.
        at_ms: u64,
    },
    /// A program is no longer listed. Its file stays while [`super::ClusterState::needs_program`].
    ProgramRemoved {
        /// Its SHA-256.
        digest: ProgramDigest,
        /// When.
        at_ms: u64,
    },
    /// A snapshot is to be taken. The machine gives it an id, or refuses it.
    CheckpointRequested {
        /// The job.
        job: JobId,
        /// What for.
        request: CheckpointRequest,
        /// When.
        at_ms: u64,
    },
    /// All parts of a snapshot are in its manifest, which is stored: the job can go back to it, and sinks may commit.
    CheckpointCompleted {
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// How it went.
        stats: CheckpointStats,
        /// When.
        at_ms: u64,
    },
    /// A snapshot is given up.
    CheckpointFailed {
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// Why.
        reason: String,
        /// Whether it counts as one of the failures of which a job survives so many in a row.
        counts: bool,
        /// How it went.
        stats: CheckpointStats,
        /// When.
        at_ms: u64,
    },
    /// A task has nothing more to do, and this is its part of all snapshots to come.
    LastSnapshot {
        /// The job.
        job: JobId,
        /// The deployment.
        attempt: AttemptId,
        /// Its state.
        snapshot: Arc<TaskSnapshot>,
        /// When.
        at_ms: u64,
    },
    /// A user has the files of a savepoint deleted.
    SavepointDisposed {
        /// Its folder.
        folder: String,
        /// When.
        at_ms: u64,
    },
    /// The snapshot that a job has claimed is deleted: what is in its folder from now on is somebody's.
    ClaimEnded {
        /// The job.
        job: JobId,
        /// When.
        at_ms: u64,
    },
}

impl Event {
    /// When the event was noted.
    pub fn at_ms(&self) -> u64 {
        match self {
            Event::WorkerRegistered { at_ms, .. }
            | Event::WorkerLost { at_ms, .. }
            | Event::WorkerReturned { at_ms, .. }
            | Event::ProgramStored { at_ms, .. }
            | Event::ProgramRemoved { at_ms, .. }
            | Event::CheckpointRequested { at_ms, .. }
            | Event::CheckpointCompleted { at_ms, .. }
            | Event::CheckpointFailed { at_ms, .. }
            | Event::LastSnapshot { at_ms, .. }
            | Event::SavepointDisposed { at_ms, .. }
            | Event::ClaimEnded { at_ms, .. }
            | Event::JobSubmitted { at_ms, .. }
            | Event::TaskStateChanged { at_ms, .. }
            | Event::CancelRequested { at_ms, .. }
            | Event::SlotWaitExpired { at_ms, .. }
            | Event::RestartDelayExpired { at_ms, .. } => *at_ms,
        }
    }
}

/// Something to do outside. Effects are performed in order, and performing one twice does no harm: attempts fence
/// deployments, and the rest is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start tasks on a worker.
    Deploy {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// What it is.
        spec: Arc<JobSpec>,
        /// The tasks to start there.
        tasks: Vec<Placement>,
        /// Every task of the job placed so far, on all workers.
        peers: Arc<[Placement]>,
        /// The workers that `peers` names, and where their executors are reached.
        hosts: Arc<[WorkerHost]>,
        /// The snapshot they start from.
        restore: Option<Arc<RestoreFrom>>,
    },
    /// Have a worker make ready for tasks that may be deployed there soon.
    Prepare {
        /// The worker.
        worker: WorkerId,
        /// What for.
        order: PrepareOrder,
    },
    /// Have the tasks on a worker take their part in a snapshot.
    Checkpoint {
        /// The worker.
        worker: WorkerId,
        /// What to take.
        order: CheckpointOrder,
    },
    /// Tell the tasks on a worker that a snapshot is complete, or was given up. Said again, it is of no effect.
    CheckpointEnded {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// Whether it is complete.
        completed: bool,
        /// The deployments there.
        attempts: Vec<AttemptId>,
    },
    /// Stop tasks on a worker.
    Cancel {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The deployments to stop.
        attempts: Vec<AttemptId>,
    },
    /// The job has ended: let the worker drop what it keeps for it.
    Release {
        /// The worker.
        worker: WorkerId,
        /// The job.
        job: JobId,
    },
    /// Set a timer: when it is due, [`Event::SlotWaitExpired`] follows with the same number.
    StartSlotWait {
        /// The job.
        job: JobId,
        /// Counts the waits of the job.
        wait: u32,
    },
    /// Set a timer: when it is due, [`Event::RestartDelayExpired`] follows with the same number. It takes the place of the
    /// job's earlier one.
    StartRestartDelay {
        /// The job.
        job: JobId,
        /// Counts the delays of the job.
        number: u32,
        /// How long to wait; 0 is due at once.
        delay_ms: u64,
    },
    /// The job entered a state: tell who watches.
    JobStateChanged {
        /// The job.
        job: JobId,
        /// The new state.
        state: JobState,
        /// When.
        at_ms: u64,
    },
    /// The job is over: tell who waits.
    JobEnded {
        /// The job.
        job: JobId,
        /// How.
        outcome: JobOutcome,
    },
}

//! What happens to the supervisor of executors, and what it wants done.

use flott_schema::control::{SnapshotReport, TaskReport, ToWorker};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::job::ProgramRef;

/// An executor of this worker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutorNumber(pub u64);

/// What waits for its time to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The executor has to say hello.
    Hello,
    /// The tasks of the cancellation with this number have to end.
    Cancellation(u64),
    /// The executor has to end.
    End,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The coordinator's order.
    Order(ToWorker),
    /// The process of an executor runs.
    Spawned(ExecutorNumber),
    /// An executor could not be started: its program could not be fetched or executed.
    NotStarted {
        /// The executor.
        executor: ExecutorNumber,
        /// Who may act.
        kind: ErrorKind,
        /// Why.
        reason: String,
    },
    /// It said hello, and takes orders now.
    Connected(ExecutorNumber),
    /// Its control connection has closed.
    Disconnected(ExecutorNumber),
    /// It has said nothing for too long, and is most likely frozen.
    Silent(ExecutorNumber),
    /// It cannot run its job.
    Refused {
        /// The executor.
        executor: ExecutorNumber,
        /// Why.
        reason: String,
    },
    /// A task of it changed state.
    Report {
        /// The executor.
        executor: ExecutorNumber,
        /// What its task became.
        report: TaskReport,
    },
    /// A task of it has handed in its part of a snapshot.
    Snapshot {
        /// The executor.
        executor: ExecutorNumber,
        /// The part.
        report: Box<SnapshotReport>,
    },
    /// A task of it has ended but for what its sinks have to commit.
    SnapshotWanted {
        /// The executor.
        executor: ExecutorNumber,
        /// The task.
        attempt: AttemptId,
    },
    /// Its process has ended.
    Exited {
        /// The executor.
        executor: ExecutorNumber,
        /// How: an exit status or a signal.
        how: String,
        /// What is known beside: last lines of its standard error, an exceeded limit.
        details: String,
        /// Whether it ran into its memory limit.
        out_of_memory: bool,
    },
    /// A timer is due.
    Due(ExecutorNumber, Timer),
    /// The worker ends, or has lost its place in the cluster: all executors are to end.
    EndAll,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetch the program and start an executor; answered by `Spawned` or `NotStarted`.
    Start {
        /// Its number.
        executor: ExecutorNumber,
        /// Its job.
        job: JobId,
        /// The worker, as the cluster names it.
        worker: WorkerId,
        /// Its program.
        program: ProgramRef,
        /// Slots of this worker that the job holds.
        slots: u32,
    },
    /// The job holds this many slots now: the limits of its executor follow.
    Resize(ExecutorNumber, u32),
    /// Hand an order on.
    Send(ExecutorNumber, ToWorker),
    /// Tell the coordinator.
    Report(TaskReport),
    /// Hand a part of a snapshot on to the coordinator.
    Snapshot(Box<SnapshotReport>),
    /// Tell the coordinator that a task waits for a snapshot.
    SnapshotWanted(JobId, AttemptId),
    /// Call again with `Due` after this time.
    SetTimer(ExecutorNumber, Timer, u64),
    /// End the process at once; answered by `Exited`, or `NotStarted` if it did not run yet.
    Kill(ExecutorNumber),
    /// The executor is gone: forget its connection, limits and timers.
    Forget(ExecutorNumber),
}

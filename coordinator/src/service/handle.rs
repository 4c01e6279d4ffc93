//! The callers' side of the service.

use std::sync::Arc;
use std::time::Duration;

use flott_schema::control::{RunningTask, ToCoordinator};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::{JobSpec, ProgramDigest};
use flott_schema::stats::WorkerProfile;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::error::CoordinatorError;
use super::snapshots::{LedgerQuestion, SnapshotRequest};
use super::view::Question;
use crate::checkpoints::Keeper;
use crate::journal::Role;
use crate::machine::{Event, JobOutcome, JobRecord, JobState, check_graph};

pub(super) type Reply<T> = oneshot::Sender<Result<T, CoordinatorError>>;

/// What the loop is asked to do.
pub(super) enum Command {
    /// Have the event committed that is made with the time at which it is noted.
    Write {
        event: Box<dyn FnOnce(u64) -> Event + Send>,
        reply: Reply<()>,
    },
    Wait {
        job: JobId,
        reply: Reply<JobOutcome>,
    },
    Status {
        job: JobId,
        reply: Reply<JobRecord>,
    },
    Read(Question),
    ReadLedger(LedgerQuestion),
    Snapshot {
        job: JobId,
        request: SnapshotRequest,
        reply: Reply<()>,
    },
    NewWorker {
        reply: Reply<WorkerId>,
    },
    FromWorker {
        messages: Vec<ToCoordinator>,
        reply: Option<Reply<()>>,
    },
    WorkerLost(WorkerId),
    Expect(WorkerId),
    Stop,
}

/// Talks to a running [`super::Coordinator`]. Cheap to clone. Every call but [`Handle::wait`] has a deadline
/// (`request_timeout_ms`). A future that is dropped while it waits for the answer takes nothing back. What changes
/// something is the leader's business; a follower refuses it with [`CoordinatorError::NotLeader`] and answers
/// questions from its own copy of the state, which may be a moment behind.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) changes: broadcast::WeakSender<JobStateChange>,
    pub(super) role: watch::Receiver<Role>,
    pub(super) timeout_ms: u64,
    pub(super) keeper: Keeper,
}

impl Handle {
    /// Submits a job under an id that nobody has used. Returns when its submission is committed; whether it runs or
    /// waits for slots, [`Handle::status`] tells. A graph that cannot run is refused here.
    pub async fn submit(&self, job: JobId, spec: impl Into<Arc<JobSpec>>) -> Result<(), CoordinatorError> {
        let spec = spec.into();
        check_graph(&spec.graph).map_err(CoordinatorError::Graph)?;
        flott_storage::check_places(&spec).map_err(CoordinatorError::Storage)?;
        self.write("submit", move |at_ms| Event::JobSubmitted { job, spec, at_ms }).await
    }

    /// Asks a job to end. Returns when its tasks are being stopped, [`Handle::wait`] when they have. To cancel again is
    /// no error while the job goes down.
    pub async fn cancel(&self, job: JobId) -> Result<(), CoordinatorError> {
        self.write("cancel", move |at_ms| Event::CancelRequested { job, at_ms }).await
    }

    /// Waits for the end of a job, for as long as it runs.
    pub async fn wait(&self, job: JobId) -> Result<JobOutcome, CoordinatorError> {
        let (reply, answer) = oneshot::channel();
        self.send("wait", Command::Wait { job, reply }).await?;
        answer.await.map_err(|_| CoordinatorError::Stopped)?
    }

    /// What is known about a job at this moment: its state, its tasks, their time stamps.
    pub async fn status(&self, job: JobId) -> Result<JobRecord, CoordinatorError> {
        self.ask("status", |reply| Command::Status { job, reply }).await
    }

    /// An id for a worker that is about to register: open the way to the worker under this id first, since orders may
    /// follow at once, then call [`Handle::register_worker`].
    pub async fn new_worker_id(&self) -> Result<WorkerId, CoordinatorError> {
        self.ask("new worker id", |reply| Command::NewWorker { reply }).await
    }

    /// Registers a worker under an id of [`Handle::new_worker_id`]. Returns when it is committed.
    pub async fn register_worker(
        &self,
        worker: WorkerId,
        profile: WorkerProfile,
    ) -> Result<(), CoordinatorError> {
        self.worker_reports(vec![ToCoordinator::Register { worker, profile }]).await
    }

    /// A worker is back, after the connection or the leader was lost, under the id it had. `tasks` is what it has of jobs
    /// that it was not told to release. Open the way to it first, as with [`Handle::register_worker`]: what it runs is
    /// compared with what it should run, and orders follow. Fails if the cluster has given it up.
    pub async fn worker_returned(
        &self,
        worker: WorkerId,
        tasks: Vec<RunningTask>,
    ) -> Result<(), CoordinatorError> {
        self.write("worker returned", move |at_ms| Event::WorkerReturned { worker, tasks, at_ms }).await
    }

    /// A program is stored, by this coordinator and by a majority of the group: jobs may name it.
    pub async fn program_stored(
        &self,
        digest: ProgramDigest,
        name: String,
        size: u64,
    ) -> Result<(), CoordinatorError> {
        self.write("program stored", move |at_ms| Event::ProgramStored { digest, name, size, at_ms }).await
    }

    /// Jobs may no longer name the program. Refused while a job that is not over does. The files go when
    /// [`Programs::sweep`](crate::programs::Programs::sweep) runs.
    pub async fn remove_program(&self, digest: ProgramDigest) -> Result<(), CoordinatorError> {
        self.write("remove program", move |at_ms| Event::ProgramRemoved { digest, at_ms }).await
    }

    /// Delivers messages of a worker and returns when they are committed. The messages of a worker must be delivered
    /// one after the other; what was not taken (an error) must be delivered again, or the worker be given up.
    pub async fn worker_reports(&self, messages: Vec<ToCoordinator>) -> Result<(), CoordinatorError> {
        self.ask("worker reports", |reply| Command::FromWorker { messages, reply: Some(reply) }).await
    }

    /// Delivers a message of a worker without waiting until it is committed: for workers in the same process, which
    /// end with their coordinator.
    pub async fn worker_message(&self, message: ToCoordinator) -> Result<(), CoordinatorError> {
        self.send("worker message", Command::FromWorker { messages: vec![message], reply: None }).await
    }

    /// Tells that a worker is gone: its process ended, its connection broke.
    pub async fn worker_lost(&self, worker: WorkerId) -> Result<(), CoordinatorError> {
        self.send("worker lost", Command::WorkerLost(worker)).await
    }

    /// Tells that a worker whose return was not answered is not connected: it may come again, and is given up unless it
    /// does in time.
    pub async fn expect_worker(&self, worker: WorkerId) -> Result<(), CoordinatorError> {
        self.send("expect worker", Command::Expect(worker)).await
    }

    /// What this coordinator is in its group at this moment.
    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// The role and its changes. It ends when the coordinator has stopped.
    pub fn watch_role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Job state changes from now on.
    pub fn subscribe(&self) -> Result<JobStateChanges, CoordinatorError> {
        let changes = self.changes.upgrade().ok_or(CoordinatorError::Stopped)?;
        Ok(JobStateChanges { receiver: changes.subscribe() })
    }

    /// Ends the coordinator, not the jobs: workers keep what they run.
    pub async fn stop(&self) -> Result<(), CoordinatorError> {
        self.send("stop", Command::Stop).await
    }

    pub(super) async fn ask<T>(
        &self,
        call: &'static str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, CoordinatorError> {
        let (reply, answer) = oneshot::channel();
        self.in_time(call, async {
            self.commands.send(command(reply)).await.map_err(|_| CoordinatorError::Stopped)?;
            answer.await.map_err(|_| CoordinatorError::Stopped)?
        })
        .await
    }

    pub(super) async fn write(
        &self,
        call: &'static str,
        event: impl FnOnce(u64) -> Event + Send + 'static,
    ) -> Result<(), CoordinatorError> {
        self.ask(call, |reply| Command::Write { event: Box::new(event), reply }).await
    }

    async fn send(&self, call: &'static str, command: Command) -> Result<(), CoordinatorError> {
        self.in_time(call, async { self.commands.send(command).await.map_err(|_| CoordinatorError::Stopped) })
            .await
    }

    async fn in_time<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, CoordinatorError>>,
    ) -> Result<T, CoordinatorError> {
        let late = |_| Err(CoordinatorError::Timeout { call, timeout_ms: self.timeout_ms });
        timeout(Duration::from_millis(self.timeout_ms), work).await.unwrap_or_else(late)
    }
}

/// A job entered a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStateChange {
    /// The job.
    pub job: JobId,
    /// The new state.
    pub state: JobState,
    /// When (milliseconds since 1970).
    pub at_ms: u64,
}

/// What a subscriber gets to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A job entered a state.
    State(JobStateChange),
    /// The subscriber was too slow, and so many changes are gone: look jobs up with [`Handle::status`].
    Missed(u64),
}

/// A subscription, see [`Handle::subscribe`]. It never slows the coordinator down.
#[derive(Debug)]
pub struct JobStateChanges {
    receiver: broadcast::Receiver<JobStateChange>,
}

impl JobStateChanges {
    /// The next change; nothing when the coordinator has stopped. Waits until there is one; a dropped future loses
    /// none.
    pub async fn next(&mut self) -> Option<Change> {
        match self.receiver.recv().await {
            Ok(change) => Some(Change::State(change)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Change::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

//! Snapshots in the loop of the service: what the [ledger](crate::checkpoints) is told, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::config::options::StateBackend;
use flott_schema::control::{SnapshotReport, TaskFailure, TaskState, ToCoordinator};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, VertexId};
use flott_schema::snapshot::SnapshotKind;
use flott_storage::{Storage, manifest};
use tokio::time::Instant;

use super::commit::EVENT_BYTES_MAX;
use super::error::CoordinatorError;
use super::handle::{Command, Handle, Reply};
use super::run::Coordinator;
use crate::checkpoints::keeper::Done;
use crate::checkpoints::{Action, Ledger, Now};
use crate::journal::Journal;
use crate::link::WorkerLink;
use crate::machine::{CheckpointRequest, ClusterState, Event, OperationId, Purpose};

/// A question to the state and to the ledger, see [`Handle::read_with_ledger`].
pub(super) type LedgerQuestion = Box<dyn FnOnce(&ClusterState, &Ledger) + Send>;

/// What an event means to the ledger, once it is applied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    Nothing,
    /// A request was answered.
    Requested(JobId),
    /// A task has handed in its last part.
    Last(JobId, AttemptId),
    /// A job may have changed.
    Changed(JobId),
    /// Any of the open jobs may.
    All,
}

pub(super) fn told(event: &Event) -> Told {
    match event {
        Event::CheckpointRequested { job, .. } => Told::Requested(*job),
        Event::LastSnapshot { job, attempt, .. } => Told::Last(*job, *attempt),
        Event::JobSubmitted { job, .. }
        | Event::TaskStateChanged { job, .. }
        | Event::CancelRequested { job, .. }
        | Event::SlotWaitExpired { job, .. }
        | Event::RestartDelayExpired { job, .. }
        | Event::CheckpointCompleted { job, .. }
        | Event::CheckpointFailed { job, .. } => Told::Changed(*job),
        Event::WorkerLost { .. } | Event::WorkerReturned { .. } => Told::All,
        Event::WorkerRegistered { .. }
        | Event::ProgramStored { .. }
        | Event::ProgramRemoved { .. }
        | Event::SavepointDisposed { .. }
        | Event::ClaimEnded { .. } => Told::Nothing,
    }
}

/// What a user wants of a job's snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Whose it is to be.
    pub kind: SnapshotKind,
    /// What follows it.
    pub purpose: Purpose,
    /// Of a savepoint: the folder in which it gets its own; nothing: as the job is configured.
    pub target: Option<String>,
    /// With [`Purpose::Rescale`]: vertices and the parallelism they are to have.
    pub parallelism: BTreeMap<VertexId, u32>,
    /// The number of the request. One that is known is not followed again.
    pub operation: OperationId,
}

impl Handle {
    /// Has a snapshot begun, once those under way leave room for it. Returns when the request is committed; what comes of it is told by
    /// [`JobCheckpoints::operation`](crate::machine::JobCheckpoints::operation). A change of parallelism that cannot be is refused
    /// at once.
    pub async fn request_snapshot(
        &self,
        job: JobId,
        request: SnapshotRequest,
    ) -> Result<(), CoordinatorError> {
        self.ask("request snapshot", |reply| Command::Snapshot { job, request, reply }).await
    }

    /// Deletes a savepoint: no job goes back to it any more.
    pub async fn dispose_savepoint(&self, folder: String) -> Result<(), CoordinatorError> {
        let disposed = manifest::folder_of(&folder).map_err(CoordinatorError::Storage)?;
        // The first word: a job that fails meanwhile must not look for what is half gone.
        let uri = disposed.uri().to_string();
        let named = self
            .read("savepoints", move |state| {
                let savepoints = state.jobs().flat_map(|job| job.checkpoints().savepoints());
                let is_meant = |folder: &str| Storage::open(folder).is_ok_and(|folder| folder.uri() == uri);
                let names = savepoints.map(|one| one.folder.clone()).filter(|folder| is_meant(folder));
                names.collect::<std::collections::BTreeSet<_>>()
            })
            .await?;
        for folder in named {
            self.write("dispose", move |at_ms| Event::SavepointDisposed { folder, at_ms }).await?;
        }
        self.keeper.dispose(folder).await.map_err(CoordinatorError::Storage)
    }

    /// The same as [`Handle::read`], with what the leader knows of snapshots under way; a follower knows nothing of them.
    pub async fn read_with_ledger<T: Send + 'static>(
        &self,
        call: &'static str,
        question: impl FnOnce(&ClusterState, &Ledger) -> T + Send + 'static,
    ) -> Result<T, CoordinatorError> {
        self.ask(call, |reply| {
            Command::ReadLedger(Box::new(move |state, ledger| {
                // Who asked may be gone; the answer is dropped then.
                let _ = reply.send(Ok(question(state, ledger)));
            }))
        })
        .await
    }
}

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    pub(super) fn now(&self) -> Now {
        let clock_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { clock_ms, wall_ms: self.now_ms() }
    }

    /// A user's request: what it needs is settled here, and the machine decides.
    pub(super) fn request_snapshot(&mut self, job: JobId, request: SnapshotRequest, reply: Reply<()>) {
        match self.events_of_request(job, request) {
            Ok(events) => self.write_all(events, Some(reply)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn events_of_request(
        &self,
        job: JobId,
        request: SnapshotRequest,
    ) -> Result<Vec<Event>, CoordinatorError> {
        let record = self.state.job(job).ok_or(CoordinatorError::UnknownJob(job))?;
        let SnapshotRequest { kind, purpose, target, parallelism, operation } = request;
        if record.checkpoints().operation(operation).is_some() {
            return Ok(Vec::new());
        }
        if record.state().is_terminal() {
            return Err(CoordinatorError::JobEnded { job, state: record.state() });
        }
        let mut request = self
            .ledger
            .user_request(record, kind, purpose, target.as_deref(), operation)
            .map_err(CoordinatorError::Storage)?;
        request.parallelism = parallelism;
        if purpose == Purpose::Rescale
            && let Some(obstacle) = record.request_obstacle(&request, self.state.slots())
        {
            return Err(CoordinatorError::NotRescaled { job, reason: obstacle });
        }
        let at_ms = self.now_ms();
        // One in front of it, while tasks process: what is left for the one for which they stand still is what changes until then.
        let settings = &record.spec().settings;
        let stores_changes = settings.checkpoints.interval_ms.is_some()
            && settings.state.backend == StateBackend::RocksDb
            && request.kind == SnapshotKind::Checkpoint;
        let ahead = (purpose == Purpose::Rescale && stores_changes).then(|| {
            let (purpose, parallelism) = (Purpose::GoOn, BTreeMap::new());
            CheckpointRequest { purpose, parallelism, operation: None, ..request.clone() }
        });
        let requests = ahead.into_iter().chain([request]);
        Ok(requests.map(|request| Event::CheckpointRequested { job, request, at_ms }).collect())
    }

    /// A task's part of a snapshot: the last one is a fact, any other is the leader's business.
    pub(super) fn take_part(&mut self, report: SnapshotReport) -> Option<Event> {
        if !report.is_last() {
            if self.role.borrow().term().is_some() {
                let now = self.now();
                self.ledger.part(report, now);
            }
            return None;
        }
        let at_ms = self.now_ms();
        let SnapshotReport { job, attempt, handed_in, result, .. } = report;
        self.ledger.last_comes(job, attempt, handed_in);
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(reason) => return self.without_last(job, attempt, reason),
        };
        let event = Event::LastSnapshot { job, attempt, snapshot: Arc::new(snapshot), at_ms };
        match self.journal.size_of(&event) {
            Ok(size_bytes) if size_bytes <= EVENT_BYTES_MAX => Some(event),
            size => Some(self.too_large(job, attempt, size.unwrap_or(usize::MAX))),
        }
    }

    /// A task has finished and leaves no part. In a job that takes checkpoints none could follow, and sinks would wait for their commit
    /// for ever: it has failed.
    fn without_last(&self, job: JobId, attempt: AttemptId, reason: String) -> Option<Event> {
        let settings = &self.state.job(job)?.spec().settings;
        if settings.checkpoints.interval_ms.is_none() {
            tracing::warn!(%job, reason, "a task has finished without a last snapshot; no savepoint can follow");
            return None;
        }
        let message = format!(
            "the task has finished, and no checkpoint can follow, since it leaves no state: {reason}"
        );
        Some(self.failed(job, attempt, ErrorKind::Internal, message))
    }

    /// A task whose last part cannot be kept has failed: it would never be told otherwise.
    fn too_large(&self, job: JobId, attempt: AttemptId, size_bytes: usize) -> Event {
        let message = format!(
            "the state that is left when the task finishes has {size_bytes} bytes, and the coordinators keep \
             {EVENT_BYTES_MAX}; take checkpoints more often, so that less waits to be committed"
        );
        self.failed(job, attempt, ErrorKind::Resources, message)
    }

    fn failed(&self, job: JobId, attempt: AttemptId, kind: ErrorKind, message: String) -> Event {
        let vertex = self.state.job(job).and_then(|record| record.graph().vertex(attempt.task.vertex));
        let failure = TaskFailure {
            kind,
            vertex: vertex.map_or_else(String::new, |vertex| vertex.name.clone()),
            subtask: attempt.task.subtask,
            parallelism: vertex.map_or(0, |vertex| vertex.parallelism),
            message,
            backtrace: None,
        };
        let at_ms = self.now_ms();
        Event::TaskStateChanged { job, attempt, state: TaskState::Failed, failure: Some(failure), at_ms }
    }

    /// A task waits for a snapshot.
    pub(super) fn want_snapshot(&mut self, job: JobId, attempt: AttemptId) {
        if self.role.borrow().term().is_some()
            && let Some(record) = self.state.job(job)
        {
            self.ledger.wanted(record, attempt);
        }
    }

    /// Messages of workers become events; parts of snapshots that are none go to the ledger.
    pub(super) fn events_of(&mut self, messages: Vec<ToCoordinator>, at_ms: u64) -> Vec<Event> {
        let mut events = Vec::with_capacity(messages.len());
        for message in messages {
            match message {
                ToCoordinator::Snapshot(report) => events.extend(self.take_part(*report)),
                ToCoordinator::SnapshotWanted { job, attempt } => self.want_snapshot(job, attempt),
                other => events.extend(Self::event_of(other, at_ms)),
            }
        }
        events
    }

    /// An event was applied that says something of snapshots, or of jobs that take them.
    pub(super) fn tell_ledger(&mut self, told: Told) {
        match told {
            Told::Nothing => {}
            Told::Requested(job) => {
                self.ledger.answered(job);
                self.changed.insert(job);
            }
            Told::Last(job, attempt) => {
                let task = self.state.job(job).and_then(|record| record.task(attempt.task));
                let last =
                    task.filter(|task| task.attempt() == attempt).and_then(|task| task.last_snapshot());
                if let Some(last) = last.cloned() {
                    let now = self.now();
                    self.ledger.last(job, attempt, &last, now);
                }
                // It may have been what stood in the way of the next.
                self.changed.insert(job);
            }
            Told::Changed(job) => {
                self.changed.insert(job);
            }
            Told::All => self.changed.extend(self.state.open_jobs()),
        }
    }

    /// What the thread of snapshots has done.
    pub(super) fn kept(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Stored { job, checkpoint, result } => {
                flott_faults::point("leader.complete");
                self.ledger.stored(job, checkpoint, result, now);
            }
            Done::NotDeleted(failed) => self.ledger.not_deleted(failed),
            Done::ClaimEnded(job) => self.ledger.claim_ended(job, now),
            Done::Surveyed(job, surveyed) => {
                if let Some(record) = self.state.job(job) {
                    self.ledger.surveyed(record, surveyed, now);
                }
            }
        }
    }

    /// Lets the ledger see what has changed and what has come due, and does what it wants. True: events are to be proposed.
    pub(super) fn keep_snapshots(&mut self) -> bool {
        let changed = std::mem::take(&mut self.changed);
        if self.role.borrow().term().is_none() {
            return false;
        }
        let now = self.now();
        for record in changed.into_iter().filter_map(|job| self.state.job(job)) {
            self.ledger.look(record, now);
        }
        let (timers, link) = (&self.timers, &self.link);
        self.ledger.tick(&self.state, now, |worker| timers.expects(worker) || link.is_behind(worker));
        let mut proposed = false;
        loop {
            let actions = self.ledger.take_actions();
            if actions.is_empty() {
                return proposed;
            }
            for action in actions {
                proposed |= matches!(action, Action::Propose(_));
                self.act(action, now);
            }
        }
    }

    fn act(&mut self, action: Action, now: Now) {
        match action {
            Action::Propose(event) => self.note(event),
            Action::Store { job, checkpoint, folder, manifest } => {
                if let Err(reason) = self.keeper.store(job, checkpoint, folder, manifest) {
                    self.ledger.stored(job, checkpoint, Err(reason), now);
                }
            }
            Action::Delete(deletion) => {
                if let Err(deletion) = self.keeper.delete(deletion) {
                    self.ledger.not_deleted(deletion);
                }
            }
            Action::Survey(survey) => {
                let job = survey.job;
                if !self.keeper.survey(survey)
                    && let Some(record) = self.state.job(job)
                {
                    // Nothing shared is deleted until it is tried again.
                    self.ledger.surveyed(record, crate::checkpoints::action::Surveyed::default(), now);
                }
            }
        }
    }

    /// When the ledger has something to do.
    pub(super) fn snapshots_due(&self) -> Option<Instant> {
        let due_ms = self.ledger.next_due_ms()?;
        self.began.checked_add(Duration::from_millis(due_ms))
    }
}

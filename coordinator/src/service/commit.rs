//! From a command to an applied event: what waits to be committed, what is being committed, and who is to be told.

use std::collections::VecDeque;

use flott_schema::job::ProgramDigest;
use tokio::sync::oneshot;

use super::error::CoordinatorError;
use super::run::Coordinator;
use super::snapshots::told;
use crate::journal::{Journal, Role};
use crate::link::WorkerLink;
use crate::machine::{ClusterState, Event, JobRecord, apply};

/// Events in one proposal at most. More would make entries of the log that block those behind them.
const GROUP_EVENTS_MAX: usize = 4_096;
/// Bytes at which a proposal is closed.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Bytes of one event at most: it has to reach the other members between two signs of life of the leader.
pub(crate) const EVENT_BYTES_MAX: usize = 4 << 20;
/// Bytes of the events that may wait to be committed.
const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;

/// Who waits for an event to be committed.
type Reply = oneshot::Sender<Result<(), CoordinatorError>>;

/// Events on their way into the journal. One group is under way at a time; meanwhile the next one gathers.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    under_way: Option<Group>,
    last_proposal: u64,
}

/// An event that waits to be proposed.
#[derive(Debug)]
struct Pending {
    event: Event,
    size_bytes: usize,
    reply: Option<Reply>,
}

/// A proposal, and who waits for which of its events.
#[derive(Debug)]
struct Group {
    proposal: u64,
    replies: Vec<(usize, Reply)>,
}

impl Writes {
    /// Everything that waited has lost its leader.
    pub(super) fn abandon(&mut self, error: impl Fn() -> CoordinatorError) {
        let replies = self.under_way.take().into_iter().flat_map(|group| group.replies);
        let pending = self.pending.drain(..).filter_map(|pending| pending.reply);
        self.pending_bytes = 0;
        for reply in replies.map(|(_, reply)| reply).chain(pending) {
            let _ = reply.send(Err(error()));
        }
    }

    /// Whether nothing waits and nothing is under way.
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_none()
    }

    fn push(&mut self, event: Event, size_bytes: usize, reply: Option<Reply>) {
        self.pending_bytes += size_bytes;
        self.pending.push_back(Pending { event, size_bytes, reply });
    }

    /// How many of the events that wait go into the next group: at least one.
    fn group_len(&self) -> usize {
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            bytes += pending.size_bytes;
            bytes <= GROUP_BYTES_MAX
        };
        self.pending.iter().take(GROUP_EVENTS_MAX).take_while(fits).count().max(1)
    }

    /// The next group, unless one is under way or nothing waits.
    fn next_group(&mut self) -> Option<(u64, Vec<Event>)> {
        if self.under_way.is_some() || self.pending.is_empty() {
            return None;
        }
        self.last_proposal += 1;
        let count = self.group_len();
        let mut group = Group { proposal: self.last_proposal, replies: Vec::new() };
        let mut events = Vec::with_capacity(count);
        for Pending { event, size_bytes, reply } in self.pending.drain(..count) {
            self.pending_bytes -= size_bytes;
            group.replies.extend(reply.map(|reply| (events.len(), reply)));
            events.push(event);
        }
        self.under_way = Some(group);
        Some((self.last_proposal, events))
    }

    /// Ends the group under way, if it is the one meant, and gives who waits for it.
    fn end_group(&mut self, proposal: Option<u64>) -> Vec<(usize, Reply)> {
        match self.under_way.take_if(|group| Some(group.proposal) == proposal) {
            Some(group) => group.replies,
            None => Vec::new(),
        }
    }
}

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    /// Has an event committed. Who asked is told once it is applied, or why it never will be.
    pub(super) fn write(&mut self, event: Event, reply: Option<Reply>) {
        self.write_all(vec![event], reply);
    }

    /// Has events committed, in order; who asked is told when the last one is applied.
    pub(super) fn write_all(&mut self, mut events: Vec<Event>, reply: Option<Reply>) {
        let sizes = match self.refusal(&events).map_or_else(|| self.sizes(&events), Err) {
            Ok(sizes) => sizes,
            Err(refusal) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal));
                }
                return;
            }
        };
        let Some(last) = events.pop() else {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(()));
            }
            return;
        };
        for (event, size_bytes) in events.into_iter().zip(&sizes) {
            self.writes.push(event, *size_bytes, None);
        }
        self.writes.push(last, sizes.last().copied().unwrap_or_default(), reply);
    }

    /// Bytes of each event, none of which may be too large for the log.
    fn sizes(&self, events: &[Event]) -> Result<Vec<usize>, CoordinatorError> {
        let size = |event| match self.journal.size_of(event).map_err(CoordinatorError::Unstorable)? {
            size_bytes if size_bytes > EVENT_BYTES_MAX => {
                Err(CoordinatorError::TooLarge { size_bytes, max_bytes: EVENT_BYTES_MAX })
            }
            size_bytes => Ok(size_bytes),
        };
        events.iter().map(size).collect()
    }

    /// Has an event committed that the coordinator found out by itself. There is always room for it, since there are no
    /// more of them than workers and waits of jobs; who does not lead leaves it to the leader.
    pub(super) fn note(&mut self, event: Event) {
        if self.role.borrow().term().is_some() {
            // They are small.
            self.writes.push(event, 0, None);
        }
    }

    /// Why events cannot be proposed, if they cannot.
    fn refusal(&self, events: &[Event]) -> Option<CoordinatorError> {
        if let Role::Follower { leader } = &*self.role.borrow() {
            return Some(CoordinatorError::NotLeader { leader: leader.clone() });
        }
        let waiting = self.writes.pending.len();
        if waiting >= self.options.uncommitted_max || self.writes.pending_bytes >= UNCOMMITTED_BYTES_MAX {
            return Some(CoordinatorError::Busy { waiting });
        }
        // Judged once more when it is applied: what is under way may change the answer.
        match events {
            [event] if self.writes.is_idle() => judge(&self.state, event).err(),
            _ => None,
        }
    }

    /// Proposes what waits. With a journal that commits at once, all of it is applied afterwards.
    pub(super) fn flush(&mut self) {
        while let Some((proposal, events)) = self.writes.next_group() {
            let Some(events) = self.journal.propose(proposal, events) else { return };
            self.apply_group(Some(proposal), events);
        }
    }

    /// A group is committed.
    pub(super) fn committed(&mut self, proposal: Option<u64>, events: Vec<Event>) {
        self.apply_group(proposal, events);
    }

    /// A proposal was not taken: another coordinator leads, and this one will hear of it.
    pub(super) fn refused(&mut self, proposal: u64) {
        let leader = match &*self.role.borrow() {
            Role::Leader { .. } => None,
            Role::Follower { leader } => leader.clone(),
        };
        // The loss of a worker may have been among it: it comes up again, unless another coordinator leads.
        for worker in std::mem::take(&mut self.losing) {
            if self.role.borrow().term().is_some() {
                self.expect(worker);
            }
        }
        for (_, reply) in self.writes.end_group(Some(proposal)) {
            let _ = reply.send(Err(CoordinatorError::NotLeader { leader: leader.clone() }));
        }
        // So may the beginning or the end of snapshots.
        if self.role.borrow().term().is_some() {
            let now = self.now();
            self.ledger.take_over(&self.state, now);
        }
    }

    /// Applies committed events. Who leads performs what follows from its own proposals.
    fn apply_group(&mut self, proposal: Option<u64>, events: Vec<Event>) {
        let leads = proposal.is_some() && self.role.borrow().term().is_some();
        let mut replies = self.writes.end_group(proposal).into_iter().peekable();
        for (index, event) in events.into_iter().enumerate() {
            let verdict = self.apply_one(event, leads);
            if let Some((_, reply)) = replies.next_if(|(awaited, _)| *awaited == index) {
                let _ = reply.send(verdict);
            }
        }
    }

    fn apply_one(&mut self, event: Event, leads: bool) -> Result<(), CoordinatorError> {
        let ignored = self.state.ignored();
        let shown = tracing::enabled!(tracing::Level::DEBUG).then(|| event.clone());
        // Every replica judges alike: it sees the same state and the same event.
        judge(&self.state, &event)?;
        let mut registering = None;
        let told = self.role.borrow().term().is_some().then(|| told(&event));
        match event {
            Event::WorkerLost { worker, .. } => {
                self.losing.remove(&worker);
                self.timers.returned(worker);
                if leads {
                    self.link.forget(worker);
                }
            }
            Event::WorkerReturned { worker, .. } => {
                if !leads || self.link.returned(worker) {
                    self.timers.returned(worker);
                } else {
                    // Its connection broke before its return was committed: nobody else watches it.
                    self.expect(worker);
                }
            }
            Event::WorkerRegistered { worker, .. } => {
                self.last_worker = self.last_worker.max(worker.0);
                registering = Some(worker);
            }
            _ => {}
        }
        if leads && matches!(event, Event::CheckpointCompleted { .. }) {
            flott_faults::point("leader.committed");
        }
        for effect in apply(&mut self.state, event) {
            self.perform(effect, leads);
        }
        if let Some(told) = told {
            self.tell_ledger(told);
        }
        if self.state.ignored() != ignored {
            tracing::debug!(event = ?shown, "event ignored");
        }
        match registering.filter(|worker| !self.state.workers().contains_key(worker)) {
            Some(worker) => {
                let reason = "it offers more slots than a worker may have".to_string();
                Err(CoordinatorError::RefusedWorker { worker, reason })
            }
            None => Ok(()),
        }
    }
}

/// What the caller behind an event is to be told, seen from the state before it.
fn judge(state: &ClusterState, event: &Event) -> Result<(), CoordinatorError> {
    match event {
        Event::JobSubmitted { job, spec, .. } => match (state.job(*job), &spec.program) {
            (Some(_), _) => Err(CoordinatorError::DuplicateJob(*job)),
            (None, Some(program)) if !state.programs().contains_key(&program.digest) => {
                Err(CoordinatorError::UnknownProgram(program.digest))
            }
            (None, _) => Ok(()),
        },
        Event::ProgramRemoved { digest, .. } if !state.programs().contains_key(digest) => {
            Err(CoordinatorError::UnknownProgram(*digest))
        }
        Event::ProgramRemoved { digest, .. } => match state.jobs().find(|job| needs(job, digest)) {
            Some(job) => Err(CoordinatorError::ProgramInUse { digest: *digest, job: job.id() }),
            None => Ok(()),
        },
        Event::CancelRequested { job, .. } => match state.job(*job).map(|record| record.state()) {
            None => Err(CoordinatorError::UnknownJob(*job)),
            Some(state) if state.is_terminal() => Err(CoordinatorError::JobEnded { job: *job, state }),
            Some(_) => Ok(()),
        },
        Event::WorkerRegistered { worker, .. } if state.workers().contains_key(worker) => {
            Err(CoordinatorError::RefusedWorker {
                worker: *worker,
                reason: "its id is taken; it must register as a new worker".to_string(),
            })
        }
        Event::WorkerReturned { worker, .. } if !state.workers().contains_key(worker) => {
            Err(CoordinatorError::RefusedWorker {
                worker: *worker,
                reason: "the cluster has given it up; it must register as a new worker".to_string(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether the job may have to start the program again.
fn needs(job: &JobRecord, digest: &ProgramDigest) -> bool {
    let is_named = job.spec().program.as_ref().is_some_and(|program| program.digest == *digest);
    is_named && !job.state().is_terminal()
}

//! The loop: commands, notices of the journal and due timers in; proposals and effects out.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::control::{TaskFailure, TaskReport, ToCoordinator};
use flott_schema::ids::{JobId, WorkerId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::commit::Writes;
use super::error::CoordinatorError;
use super::handle::{Command, Handle, JobStateChange};
use super::options::Options;
use super::timers::Timers;
use crate::checkpoints::keeper::Done;
use crate::checkpoints::{Keeper, Ledger, Places};
use crate::journal::{Journal, MemoryJournal, Notice, Role};
use crate::link::WorkerLink;
use crate::machine::{ClusterState, Event, JobOutcome, Limits};

/// Commands taken at once before what they want is proposed, so that many reports are committed together.
const COMMANDS_AT_ONCE: usize = 1_024;

/// The service. It owns the state of the cluster and the receiving end of every queue.
#[derive(Debug)]
pub struct Coordinator<L, J = MemoryJournal> {
    pub(super) state: ClusterState,
    pub(super) link: L,
    pub(super) journal: J,
    pub(super) role: watch::Sender<Role>,
    commands: mpsc::Receiver<Command>,
    pub(super) changes: broadcast::Sender<JobStateChange>,
    /// Who waits for the end of a job.
    pub(super) waiters: BTreeMap<JobId, Vec<oneshot::Sender<Result<JobOutcome, CoordinatorError>>>>,
    pub(super) writes: Writes,
    pub(super) timers: Timers,
    /// Workers that are being given up: the event is under way.
    pub(super) losing: BTreeSet<WorkerId>,
    /// The highest worker id given in this process.
    pub(super) last_worker: u64,
    pub(super) options: Options,
    /// Snapshots under way, while this coordinator leads.
    pub(super) ledger: Ledger,
    pub(super) keeper: Keeper,
    kept: mpsc::Receiver<Done>,
    /// Jobs at which the ledger has to look.
    pub(super) changed: BTreeSet<JobId>,
    /// The zero of the ledger's clock.
    pub(super) began: Instant,
}

impl<L: WorkerLink> Coordinator<L> {
    /// A coordinator that is alone and keeps nothing, without workers and jobs, and the handle to it. Nothing happens
    /// until [`Coordinator::run`].
    pub fn new(options: Options, link: L) -> (Self, Handle) {
        Coordinator::with_journal(options, link, MemoryJournal)
    }
}

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    /// A coordinator that commits through `journal`, and the handle to it. Its state is what the journal tells once
    /// [`Coordinator::run`] is called; nothing happens before.
    pub fn with_journal(options: Options, link: L, journal: J) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(options.queue_capacity.max(1));
        let (changes, _) = broadcast::channel(options.changes_kept.max(1));
        let (role, watched) = watch::channel(journal.role());
        let (keeper, kept) = Keeper::start();
        let handle = Handle {
            commands: sender,
            keeper: keeper.clone(),
            changes: changes.downgrade(),
            role: watched,
            timeout_ms: options.request_timeout_ms,
        };
        let coordinator = Coordinator {
            state: ClusterState::new(Limits {
                ended_jobs_max: options.ended_jobs_max,
                exceptions_max: options.exceptions_max,
            }),
            link,
            journal,
            role,
            commands,
            changes,
            waiters: BTreeMap::new(),
            writes: Writes::default(),
            timers: Timers::default(),
            losing: BTreeSet::new(),
            last_worker: 0,
            ledger: Ledger::new(Places { checkpoints: options.checkpoint_directory.clone() }),
            keeper,
            kept,
            changed: BTreeSet::new(),
            began: Instant::now(),
            options,
        };
        (coordinator, handle)
    }

    /// Runs until [`Handle::stop`], until all handles are gone, or until the journal is broken.
    pub async fn run(mut self) {
        self.begin();
        while self.keep_snapshots() {
            self.flush();
        }
        loop {
            self.expire_due();
            let due = [self.timers.next_due(), self.snapshots_due()].into_iter().flatten().min();
            // The branch of the timer is disabled without one; the instant only fills its place.
            let timer = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                notice = self.journal.next() => {
                    if self.heed(notice).is_break() {
                        break;
                    }
                }
                command = self.commands.recv() => {
                    let Some(command) = command else { break };
                    if self.obey(command).is_break() || self.obey_waiting().is_break() {
                        break;
                    }
                }
                Some(done) = self.kept.recv() => self.kept(done),
                () = timer, if due.is_some() => {}
            }
            self.flush();
            while self.keep_snapshots() {
                self.flush();
            }
        }
        self.journal.close().await;
    }

    /// What waits in the queue already, up to a bound.
    fn obey_waiting(&mut self) -> std::ops::ControlFlow<()> {
        for _ in 1..COMMANDS_AT_ONCE {
            let Ok(command) = self.commands.try_recv() else { break };
            self.obey(command)?;
        }
        std::ops::ControlFlow::Continue(())
    }

    fn heed(&mut self, notice: Notice) -> std::ops::ControlFlow<()> {
        match notice {
            Notice::Committed { proposal, events } => self.committed(proposal, events),
            Notice::Refused { proposal } => self.refused(proposal),
            Notice::Role(role) => self.enter(role),
            // Who wants a snapshot may be gone; then it is not needed.
            Notice::Capture(reply) => drop(reply.send(self.state.clone())),
            Notice::Restore(state, done) => {
                self.restore(*state);
                let _ = done.send(());
            }
            Notice::Broken(reason) => {
                tracing::error!(reason, "the coordinator ends: its log is broken");
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command) -> std::ops::ControlFlow<()> {
        let at_ms = self.now_ms();
        // Who asked may be gone; the answer is dropped then.
        match command {
            Command::Write { event, reply } => self.write(event(at_ms), Some(reply)),
            Command::NewWorker { reply } => {
                let _ = reply.send(self.new_worker());
            }
            Command::FromWorker { messages, reply } => {
                let events = self.events_of(messages, at_ms);
                self.write_all(events, reply);
            }
            Command::WorkerLost(worker) => self.give_up(worker, "it was reported lost"),
            Command::Expect(worker) => {
                if self.role.borrow().term().is_some() {
                    self.expect(worker);
                }
            }
            Command::Snapshot { job, request, reply } => self.request_snapshot(job, request, reply),
            Command::Stop => return std::ops::ControlFlow::Break(()),
            question => {
                // What was asked for before is to be seen in the answer, if it is committed at once.
                self.flush();
                self.answer(question);
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Answers a question, which changes nothing.
    fn answer(&mut self, question: Command) {
        match question {
            Command::Wait { job, reply } => match self.state.job(job).map(|record| record.outcome()) {
                None => {
                    let _ = reply.send(Err(CoordinatorError::UnknownJob(job)));
                }
                Some(Some(outcome)) => {
                    let _ = reply.send(Ok(outcome));
                }
                Some(None) => {
                    let waiters = self.waiters.entry(job).or_default();
                    waiters.retain(|waiter| !waiter.is_closed());
                    waiters.push(reply);
                }
            },
            Command::Status { job, reply } => {
                let _ = reply.send(self.state.job(job).cloned().ok_or(CoordinatorError::UnknownJob(job)));
            }
            Command::Read(question) => question(&self.state),
            Command::ReadLedger(question) => question(&self.state, &self.ledger),
            Command::Snapshot { .. }
            | Command::Write { .. }
            | Command::NewWorker { .. }
            | Command::FromWorker { .. }
            | Command::WorkerLost(_)
            | Command::Expect(_)
            | Command::Stop => unreachable!("no question"),
        }
    }

    pub(super) fn event_of(message: ToCoordinator, at_ms: u64) -> Option<Event> {
        Some(match message {
            ToCoordinator::Register { worker, profile } => Event::WorkerRegistered { worker, profile, at_ms },
            ToCoordinator::TaskState(TaskReport { job, attempt, state, failure }) => {
                let failure = failure.map(TaskFailure::cut);
                Event::TaskStateChanged { job, attempt, state, failure, at_ms }
            }
            // They go to the ledger.
            ToCoordinator::Snapshot(_) | ToCoordinator::SnapshotWanted { .. } => return None,
        })
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.options.now_ms)()
    }
}

//! The loop: commands and due timers in, effects out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::control::{ToCoordinator, ToWorker};
use flott_schema::ids::{JobId, WorkerId};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::error::CoordinatorError;
use super::handle::{Command, Handle, JobStateChange};
use crate::link::WorkerLink;
use crate::machine::{ClusterState, Effect, Event, JobOutcome, apply};

/// Settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Commands that may wait for the loop; further callers wait for room.
    pub queue_capacity: usize,
    /// How long a job may wait for slots while nothing of it runs.
    pub slot_wait_ms: u64,
    /// How long a call of a handle may take.
    pub request_timeout_ms: u64,
    /// Job state changes kept for a slow subscriber.
    pub changes_kept: usize,
    /// Ended jobs that are remembered.
    pub ended_jobs_max: usize,
    /// Milliseconds since 1970, for the time stamps of events.
    pub now_ms: fn() -> u64,
}

impl Default for Options {
    /// Flink's five minutes for slots; the clock of the system.
    fn default() -> Self {
        Options {
            queue_capacity: 1_024,
            slot_wait_ms: 300_000,
            request_timeout_ms: 10_000,
            changes_kept: 256,
            ended_jobs_max: 1_000,
            now_ms: || {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            },
        }
    }
}

/// The service. It owns the state of the cluster and the receiving end of every queue.
#[derive(Debug)]
pub struct Coordinator<L> {
    state: ClusterState,
    link: L,
    commands: mpsc::Receiver<Command>,
    changes: broadcast::Sender<JobStateChange>,
    /// Who waits for the end of a job.
    waiters: BTreeMap<JobId, Vec<oneshot::Sender<Result<JobOutcome, CoordinatorError>>>>,
    /// Slot waits in course, by when they are due; at most one a job.
    slot_waits: BTreeSet<(Instant, JobId, u32)>,
    options: Options,
}

impl<L: WorkerLink> Coordinator<L> {
    /// A coordinator without workers and jobs, and the handle to it. Nothing happens until [`Coordinator::run`].
    pub fn new(options: Options, link: L) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(options.queue_capacity.max(1));
        let (changes, _) = broadcast::channel(options.changes_kept.max(1));
        let handle =
            Handle { commands: sender, changes: changes.downgrade(), timeout_ms: options.request_timeout_ms };
        let coordinator = Coordinator {
            state: ClusterState::new(options.ended_jobs_max),
            link,
            commands,
            changes,
            waiters: BTreeMap::new(),
            slot_waits: BTreeSet::new(),
            options,
        };
        (coordinator, handle)
    }

    /// Runs until [`Handle::stop`], or until all handles are gone.
    pub async fn run(mut self) {
        loop {
            self.expire_due();
            let due = self.slot_waits.first().map(|(due, ..)| *due);
            // The branch of the timer is disabled without one; the instant only fills its place.
            let timer = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.obey(command),
                },
                () = timer, if due.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let at_ms = self.now_ms();
        // Who asked may be gone; the answer is dropped then.
        match command {
            Command::Submit { job, spec, reply } => {
                let _ = reply.send(match self.state.job(job) {
                    Some(_) => Err(CoordinatorError::DuplicateJob(job)),
                    None => {
                        self.process(Event::JobSubmitted { job, spec, at_ms });
                        Ok(())
                    }
                });
            }
            Command::Cancel { job, reply } => {
                let _ = reply.send(match self.state.job(job).map(|record| record.state()) {
                    None => Err(CoordinatorError::UnknownJob(job)),
                    Some(state) if state.is_terminal() => Err(CoordinatorError::JobEnded { job, state }),
                    Some(_) => {
                        self.process(Event::CancelRequested { job, at_ms });
                        Ok(())
                    }
                });
            }
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
            Command::FromWorker(message) => self.process(match message {
                ToCoordinator::Register { worker, profile } => {
                    Event::WorkerRegistered { worker, profile, at_ms }
                }
                ToCoordinator::TaskState { job, attempt, state, failure } => {
                    Event::TaskStateChanged { job, attempt, state, failure, at_ms }
                }
            }),
            Command::WorkerLost(worker) => self.give_up(worker, "it was reported lost"),
            Command::Stop => {}
        }
    }

    /// Applies an event and performs what follows from it. A worker that cannot be reached is given up, which is an
    /// event of its own.
    fn process(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let ignored = self.state.ignored();
            if let Event::WorkerLost { worker, .. } = &event {
                self.link.forget(*worker);
            }
            for effect in apply(&mut self.state, event.clone()) {
                if let Err(worker) = self.perform(effect) {
                    let known = |event: &Event| matches!(event, Event::WorkerLost { worker: lost, .. } if *lost == worker);
                    if !events.iter().any(known) {
                        events.push_back(Event::WorkerLost { worker, at_ms: self.now_ms() });
                    }
                }
            }
            if self.state.ignored() != ignored {
                tracing::debug!(?event, "event ignored");
            }
        }
    }

    /// Performs an effect; fails with the worker that cannot be reached.
    fn perform(&mut self, effect: Effect) -> Result<(), WorkerId> {
        match effect {
            Effect::Deploy { worker, job, spec, tasks, peers, hosts } => {
                self.send(worker, ToWorker::Deploy { job, spec, tasks, peers, hosts })?;
            }
            Effect::Cancel { worker, job, attempts } => {
                self.send(worker, ToWorker::Cancel { job, attempts })?;
            }
            Effect::Release { worker, job } => self.send(worker, ToWorker::Release { job })?,
            Effect::StartSlotWait { job, wait } => {
                let due = Instant::now() + Duration::from_millis(self.options.slot_wait_ms);
                self.slot_waits.retain(|(_, waiting, _)| *waiting != job);
                self.slot_waits.insert((due, job, wait));
            }
            Effect::JobStateChanged { job, state, at_ms } => {
                tracing::info!(%job, state = state.word(), "job state");
                // Without subscribers it reaches nobody, which is fine.
                let _ = self.changes.send(JobStateChange { job, state, at_ms });
            }
            Effect::JobEnded { job, outcome } => {
                self.slot_waits.retain(|(_, waiting, _)| *waiting != job);
                for waiter in self.waiters.remove(&job).unwrap_or_default() {
                    let _ = waiter.send(Ok(outcome.clone()));
                }
            }
        }
        Ok(())
    }

    /// Sends to a worker that is not given up yet.
    fn send(&mut self, worker: WorkerId, message: ToWorker) -> Result<(), WorkerId> {
        self.link.send(worker, message).map_err(|error| {
            tracing::warn!(worker = worker.0, %error, "worker given up");
            worker
        })
    }

    fn give_up(&mut self, worker: WorkerId, why: &str) {
        tracing::warn!(worker = worker.0, why, "worker given up");
        self.process(Event::WorkerLost { worker, at_ms: self.now_ms() });
    }

    fn expire_due(&mut self) {
        let now = Instant::now();
        while self.slot_waits.first().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, job, wait)) = self.slot_waits.pop_first() else { return };
            // Most waits end because slots came.
            let current = self.state.job(job).and_then(|record| record.slot_wait());
            if current.is_some_and(|current| current.number == wait) {
                self.process(Event::SlotWaitExpired { job, wait, at_ms: self.now_ms() });
            }
        }
    }

    fn now_ms(&self) -> u64 {
        (self.options.now_ms)()
    }
}

//! What begins and what ends with leadership.

use std::time::Duration;

use flott_schema::ids::WorkerId;
use tokio::time::Instant;

use super::error::CoordinatorError;
use super::run::Coordinator;
use super::timers::Due;
use crate::journal::{Journal, Role};
use crate::link::WorkerLink;
use crate::machine::{ClusterState, Limits, Timer};

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    /// The role at the start.
    pub(super) fn begin(&mut self) {
        let role = self.journal.role();
        self.enter(role);
    }

    /// The role has changed. Who begins to lead does what the state says is under way: timers run anew, and workers are
    /// expected back. Who ceases to lead promises nothing any more.
    pub(super) fn enter(&mut self, role: Role) {
        let now = role.term();
        let before = self.role.borrow().term();
        tracing::info!(?role, "role in the group of coordinators");
        let leader = match &role {
            Role::Leader { .. } => None,
            Role::Follower { leader } => leader.clone(),
        };
        self.timers.clear();
        self.losing.clear();
        self.ledger.clear();
        self.changed.clear();
        // Also between two terms of its own: what was under way between them was given up by the journal.
        if before != now {
            self.writes.abandon(|| CoordinatorError::NotLeader { leader: leader.clone() });
        }
        self.link.lead(now);
        self.role.send_replace(role);
        if now.is_some() {
            self.take_over();
        }
    }

    fn take_over(&mut self) {
        for timer in self.state.timers() {
            match timer {
                Timer::SlotWait { job, wait, .. } => self.start_slot_wait(job, wait),
                Timer::RestartDelay { job, number, due_ms } => {
                    self.start_restart_delay(job, number, due_ms.saturating_sub(self.now_ms()));
                }
            }
        }
        let workers: Vec<_> = self.state.workers().keys().copied().collect();
        for worker in workers {
            self.expect(worker);
        }
        self.last_worker = self.last_worker.max(self.state.next_worker_id().0 - 1);
        let now = self.now();
        self.ledger.take_over(&self.state, now);
    }

    /// A worker that is not connected has to return in time, or is given up.
    pub(super) fn expect(&mut self, worker: WorkerId) {
        let late = Instant::now() + Duration::from_millis(self.options.worker_return_ms);
        self.timers.set(late, Due::Return(worker));
    }

    /// The state of a snapshot takes the place of the state so far. Who waits for a job that ended meanwhile is told.
    pub(super) fn restore(&mut self, state: ClusterState) {
        self.state = state;
        // A snapshot brings the limits of who took it; this coordinator may be configured anew.
        let limits = Limits { ended_jobs_max: self.options.ended_jobs_max, ..self.state.limits() };
        self.state.set_limits(limits);
        for (job, waiters) in std::mem::take(&mut self.waiters) {
            match self.state.job(job).map(|record| record.outcome()) {
                Some(None) => {
                    self.waiters.insert(job, waiters);
                }
                known => {
                    for waiter in waiters {
                        let outcome = known.clone().flatten().ok_or(CoordinatorError::UnknownJob(job));
                        let _ = waiter.send(outcome);
                    }
                }
            }
        }
    }

    /// An id that no worker had before. Two leaders may give the same one; the registration of one of them fails then.
    pub(super) fn new_worker(&mut self) -> Result<WorkerId, CoordinatorError> {
        match &*self.role.borrow() {
            Role::Follower { leader } => Err(CoordinatorError::NotLeader { leader: leader.clone() }),
            Role::Leader { .. } => {
                self.last_worker += 1;
                Ok(WorkerId(self.last_worker))
            }
        }
    }
}

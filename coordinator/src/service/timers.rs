//! What comes due: waits of jobs for slots, delays before restarts, and the return of workers to a new leader.

use std::collections::BTreeSet;
use std::time::Duration;

use flott_schema::ids::{JobId, WorkerId};
use tokio::time::Instant;

use super::run::Coordinator;
use crate::journal::Journal;
use crate::link::WorkerLink;
use crate::machine::Event;

/// How long the end of a delay may take to be committed before it is said again.
const RESTART_REPEAT: Duration = Duration::from_secs(1);

/// What a timer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A job has waited for slots for as long as it may.
    SlotWait {
        /// The job; one wait at a time.
        job: JobId,
        /// The number of the wait.
        wait: u32,
    },
    /// The delay before a restart is over.
    RestartDelay {
        /// The job; one delay at a time.
        job: JobId,
        /// The number of the delay.
        number: u32,
    },
    /// A worker has not returned to the leader.
    Return(WorkerId),
}

/// Timers in course, by when they are due. They are not replicated: who begins to lead sets them anew from the state.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Due)>,
}

impl Timers {
    /// Sets a timer, in place of one that stands for the same job's wait or the same worker.
    pub(super) fn set(&mut self, at: Instant, due: Due) {
        self.due.retain(|(_, other)| match (due, *other) {
            (Due::SlotWait { job, .. }, Due::SlotWait { job: other, .. }) => job != other,
            (Due::RestartDelay { job, .. }, Due::RestartDelay { job: other, .. }) => job != other,
            (Due::Return(worker), Due::Return(other)) => worker != other,
            _ => true,
        });
        self.due.insert((at, due));
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Due> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, due)| due)
    }

    pub(super) fn job_ended(&mut self, ended: JobId) {
        self.due.retain(|(_, due)| match due {
            Due::SlotWait { job, .. } | Due::RestartDelay { job, .. } => *job != ended,
            Due::Return(_) => true,
        });
    }

    /// The worker is back, or lost: nothing is expected of it any more.
    pub(super) fn returned(&mut self, returned: WorkerId) {
        self.due.retain(|(_, due)| !matches!(due, Due::Return(worker) if *worker == returned));
    }

    /// Whether the worker has yet to return.
    pub(super) fn expects(&self, worker: WorkerId) -> bool {
        self.due.iter().any(|(_, due)| *due == Due::Return(worker))
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }
}

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    /// Says what has come due.
    pub(super) fn expire_due(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::SlotWait { job, wait } => {
                    // Most waits end because slots came.
                    let current = self.state.job(job).and_then(|record| record.slot_wait());
                    if current.is_some_and(|current| current.number == wait) {
                        self.note(Event::SlotWaitExpired { job, wait, at_ms: self.now_ms() });
                    }
                }
                Due::RestartDelay { job, number } => {
                    let restart = self.state.job(job).and_then(|record| record.pending_restart());
                    if restart.is_some_and(|restart| restart.number == number && !restart.delay_is_over()) {
                        // Said again until it is committed: nothing else would start the job.
                        self.timers.set(now + RESTART_REPEAT, Due::RestartDelay { job, number });
                        self.note(Event::RestartDelayExpired { job, number, at_ms: self.now_ms() });
                    }
                }
                Due::Return(worker) => {
                    // One that is connected is just being registered: its session gives it up if need be.
                    if self.state.workers().contains_key(&worker) && !self.link.is_connected(worker) {
                        self.give_up(worker, "it has not returned to the coordinator that leads now");
                    }
                }
            }
        }
        self.flush();
    }
}

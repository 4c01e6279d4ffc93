//! What the machine wants done.

use std::time::Duration;

use flott_schema::control::ToWorker;
use flott_schema::ids::{JobId, WorkerId};
use tokio::time::Instant;

use super::handle::JobStateChange;
use super::run::Coordinator;
use super::timers::Due;
use crate::journal::Journal;
use crate::link::WorkerLink;
use crate::machine::{Effect, Event};

impl<L: WorkerLink, J: Journal> Coordinator<L, J> {
    /// Performs an effect. Orders and timers are the leader's; who waits and who watches is told everywhere.
    pub(super) fn perform(&mut self, effect: Effect, leads: bool) {
        match effect {
            Effect::JobStateChanged { job, state, at_ms } => {
                tracing::info!(%job, state = state.word(), "job state");
                // Without subscribers it reaches nobody, which is fine.
                let _ = self.changes.send(JobStateChange { job, state, at_ms });
            }
            Effect::JobEnded { job, outcome } => {
                self.timers.job_ended(job);
                for waiter in self.waiters.remove(&job).unwrap_or_default() {
                    let _ = waiter.send(Ok(outcome.clone()));
                }
            }
            order if leads => self.order(order),
            _ => {}
        }
    }

    fn order(&mut self, order: Effect) {
        match order {
            Effect::Deploy { worker, job, spec, tasks, peers, hosts, restore } => {
                self.send(worker, ToWorker::Deploy { job, spec, tasks, peers, hosts, restore });
            }
            Effect::Prepare { worker, order } => self.send(worker, ToWorker::Prepare(order)),
            Effect::Cancel { worker, job, attempts } => {
                self.send(worker, ToWorker::Cancel { job, attempts });
            }
            Effect::Checkpoint { worker, order } => {
                flott_faults::point("leader.order");
                self.send(worker, ToWorker::Checkpoint(order));
            }
            Effect::CheckpointEnded { worker, job, checkpoint, completed, attempts } => {
                flott_faults::point("leader.ended");
                self.send(worker, ToWorker::CheckpointEnded { job, checkpoint, completed, attempts });
            }
            Effect::Release { worker, job } => self.send(worker, ToWorker::Release { job }),
            Effect::StartSlotWait { job, wait } => self.start_slot_wait(job, wait),
            Effect::StartRestartDelay { job, number, delay_ms } => {
                self.start_restart_delay(job, number, delay_ms);
            }
            Effect::JobStateChanged { .. } | Effect::JobEnded { .. } => unreachable!("no order"),
        }
    }

    pub(super) fn start_restart_delay(&mut self, job: JobId, number: u32, delay_ms: u64) {
        self.timers.set(in_ms(delay_ms), Due::RestartDelay { job, number });
    }

    pub(super) fn start_slot_wait(&mut self, job: JobId, wait: u32) {
        let own_ms = self.state.job(job).and_then(|record| record.spec().settings.slot_wait_ms);
        let due = in_ms(own_ms.unwrap_or(self.options.slot_wait_ms));
        self.timers.set(due, Due::SlotWait { job, wait });
    }

    /// Sends to a worker; one that cannot be reached is given up, unless it is being given up already.
    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if self.losing.contains(&worker) {
            return;
        }
        if let Err(error) = self.link.send(worker, message) {
            self.give_up(worker, &error.to_string());
        }
    }

    /// Has the loss of a worker committed.
    pub(super) fn give_up(&mut self, worker: WorkerId, why: &str) {
        if self.losing.insert(worker) {
            tracing::warn!(worker = worker.0, why, "worker given up");
            self.note(Event::WorkerLost { worker, at_ms: self.now_ms() });
        }
    }
}

/// A thousand years: longer than anybody waits, and short enough for the arithmetic of instants.
const WAIT_MS_MAX: u64 = 1_000 * 365 * 24 * 3_600 * 1_000;

fn in_ms(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX))
}

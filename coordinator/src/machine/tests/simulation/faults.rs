//! What goes wrong from outside: workers, executors, connections and leaders that are lost, and links that repeat.

use flott_schema::ids::{JobId, WorkerId};

use super::World;
use crate::machine::{Event, Timer};

impl World {
    pub(super) fn lose_worker(&mut self) {
        let Some(worker) = self.random.pick(self.workers.keys().copied()) else { return };
        self.give_up(worker);
    }

    fn give_up(&mut self, worker: WorkerId) {
        let gone = self.workers.remove(&worker).unwrap();
        // Its last words may come late.
        self.said.extend(gone.outbox);
        let held = self.state.jobs().filter(|job| job.placements().any(|place| place.slot.worker == worker));
        for job in held.map(|job| job.id()).collect::<Vec<_>>() {
            self.harm(job);
        }
        self.apply(Event::WorkerLost { worker, at_ms: self.now_ms });
    }

    pub(super) fn harm(&mut self, job: JobId) {
        self.jobs.get_mut(&job).unwrap().harmed = true;
    }

    /// The process of a job on a worker is gone, with its tasks and results; the worker says so.
    pub(super) fn kill_executor(&mut self) {
        let Some(id) = self.random.pick(self.workers.keys().copied()) else { return };
        let worker = self.workers.get_mut(&id).unwrap();
        let Some(job) = self.random.pick(worker.keeps.iter().copied()) else { return };
        worker.lose_executor(job, self.now_ms);
        self.harm(job);
    }

    /// The connection of a worker is lost, with the orders on it, and made again. Processes may die meanwhile, and their
    /// tasks are missed.
    pub(super) fn reconnect(&mut self) {
        let Some(worker) = self.random.pick(self.workers.keys().copied()) else { return };
        self.come_back(worker);
    }

    fn come_back(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        worker.inbox.clear();
        let mut harmed = Vec::new();
        if self.faults && self.random.percent(40) {
            let live = worker.tasks.iter().filter(|(_, (_, state))| !state.is_terminal());
            let live: Vec<_> = live.map(|(task, _)| *task).collect();
            for (job, attempt) in live {
                if self.random.percent(30) {
                    worker.forget(job, attempt);
                    harmed.push(job);
                }
            }
        }
        let tasks = worker.running(self.random.percent(50));
        harmed.into_iter().for_each(|job| self.harm(job));
        self.apply(Event::WorkerReturned { worker: id, tasks, at_ms: self.now_ms });
    }

    /// A leader falls silent: events are committed, and nobody performs what follows. The next one sets the timers, and
    /// workers come back to it, or do not.
    pub(super) fn change_leader(&mut self) {
        self.leads = false;
        for _ in 0..self.random.below(8) {
            self.random_step();
        }
        self.leads = true;
        self.leaders += 1;
        (self.waits, self.delays) = (Vec::new(), Vec::new());
        for timer in self.state.timers() {
            match timer {
                Timer::SlotWait { job, wait, .. } => self.waits.push((job, wait)),
                Timer::RestartDelay { job, number, .. } => self.delays.push((job, number)),
            }
        }
        self.take_over_snapshots();
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.random.percent(10) {
                self.give_up(worker);
            } else {
                self.come_back(worker);
            }
        }
    }

    /// A report comes twice, late, or of a deployment that never was.
    pub(super) fn repeat_something(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let position = self.random.below(self.said.len());
        let mut event = self.said[position].clone();
        if let Event::TaskStateChanged { attempt, .. } = &mut event
            && self.random.percent(20)
        {
            attempt.attempt += 1;
        }
        self.apply(event);
    }
}

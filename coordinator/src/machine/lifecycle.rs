//! How tasks and jobs end: failures, cancellation, lost workers, and what is freed then.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::control::TaskState;
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, WorkerId};

use super::event::Effect;
use super::exception::{FailedTask, JobException};
use super::failover::missed_results;
use super::job::{JobRecord, JobState};
use super::slots::SlotOwner;
use super::step::Step;
use super::task::TaskRecord;

impl Step<'_> {
    /// The job enters `state`.
    pub(super) fn enter(&mut self, job: JobId, state: JobState) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.state = state;
        record.times.enter(state as usize, at_ms);
        self.effects.push(Effect::JobStateChanged { job, state, at_ms });
        self.touch(job, false);
        if state != JobState::Running {
            self.drop_pending(job, state);
        }
    }

    /// Asks all tasks to stop; those that were never sent are stopped at once.
    pub(super) fn stop_tasks(&mut self, job: JobId) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.wait = None;
        for vertex in &mut record.vertices {
            for subtask in 0..vertex.tasks.len() {
                if vertex.tasks[subtask].state == TaskState::Created {
                    vertex.enter(subtask, TaskState::Canceled, at_ms);
                }
            }
        }
        let all = (0..record.regions.len()).collect();
        self.stop_regions(job, &all);
    }

    /// Asks the tasks of regions to stop.
    pub(super) fn stop_regions(&mut self, job: JobId, regions: &BTreeSet<usize>) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        let mut running: BTreeMap<WorkerId, Vec<AttemptId>> = BTreeMap::new();
        for (vertex, region) in record.vertices.iter_mut().zip(&record.region_of_vertex) {
            for subtask in 0..vertex.tasks.len() {
                let task = &vertex.tasks[subtask];
                if let TaskState::Deploying | TaskState::Initializing | TaskState::Running = task.state
                    && regions.contains(region)
                {
                    let slot = task.slot.expect("a task that was sent has a slot");
                    running.entry(slot.worker).or_default().push(task.attempt);
                    vertex.enter(subtask, TaskState::Canceling, at_ms);
                }
            }
        }
        self.effects.extend(running.into_iter().map(|(worker, attempts)| Effect::Cancel {
            worker,
            job,
            attempts,
        }));
        self.touch(job, true);
    }

    /// After tasks have ended: frees the slots of regions that are over, starts regions again that are due, and ends the
    /// job with its last task.
    pub(super) fn settle(&mut self, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        for region in 0..record.regions.len() {
            if record.regions[region].placed && record.is_over(region) && !record.is_restarting(region) {
                for slot in std::mem::take(&mut record.regions[region].slots) {
                    self.state.slots.release(slot, SlotOwner { job, region });
                    self.replan = true;
                }
            }
        }
        let (state, counts) = (record.state, record.counts());
        let end = match state {
            JobState::Restarting => return self.restart_if_due(job),
            state if state.is_terminal() || counts.terminal() < counts.total() => return,
            JobState::Cancelling => JobState::Canceled,
            JobState::Failing => JobState::Failed,
            _ if self.rescale_if_due(job) => return,
            _ => JobState::Finished,
        };
        self.enter(job, end);
        self.touch(job, true);
        self.close(job);
    }

    /// The job is over: its workers are told, and the oldest of the ended jobs may be forgotten.
    fn close(&mut self, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        // The workers stay noted: an order may be lost, see `returned`.
        let workers = record.workers.iter();
        self.effects.extend(workers.map(|worker| Effect::Release { worker: *worker, job }));
        let outcome = record.outcome().expect("the job is over");
        self.effects.push(Effect::JobEnded { job, outcome });
        self.state.open.retain(|open| *open != job);
        self.state.ended.push_back(job);
        self.state.forget_oldest();
    }

    /// A worker is gone: its tasks fail, and so do regions whose results it kept for readers that have yet to read them.
    /// One lost worker is one failure, however many tasks it ran.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        if !self.state.slots.lose(worker) {
            self.state.ignored.unknown_worker += 1;
            return;
        }
        let at_ms = self.state.now_ms;
        for job in self.state.open.clone() {
            let record = self.state.jobs.get_mut(&job).expect("open jobs are known");
            if !record.workers.remove(&worker) {
                continue;
            }
            let message = format!("worker {} was lost, and with it this task", worker.0);
            let mut losses = Losses::default();
            record.end_tasks(at_ms, &mut losses, |task| {
                task.is_on(worker).then(|| (TaskState::Failed, message.clone()))
            });
            let message = format!(
                "worker {} was lost, and with it the finished result of this task, which a later stage has yet to read",
                worker.0
            );
            record.miss_results(at_ms, &mut losses, &message, |task| task.is_on(worker));
            self.take_losses(job, losses);
        }
    }

    /// What follows from tasks and results that are gone.
    pub(super) fn take_losses(&mut self, job: JobId, losses: Losses) {
        self.touch(job, true);
        self.note_concurrent(job, losses.concurrent);
        if !losses.failed.is_empty() {
            self.fail(job, JobException::of_tasks(losses.failed), losses.regions);
        }
        self.settle(job);
    }
}

/// Tasks and results of a job that are gone at once.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Failures to act on.
    failed: Vec<FailedTask>,
    /// The regions they happened in.
    regions: BTreeSet<usize>,
    /// Failures of tasks that were being stopped already.
    concurrent: Vec<FailedTask>,
}

impl JobRecord {
    /// Ends tasks that live: as `how` says, and with which message where that is a failure.
    pub(super) fn end_tasks(
        &mut self,
        at_ms: u64,
        losses: &mut Losses,
        how: impl Fn(&TaskRecord) -> Option<(TaskState, String)>,
    ) {
        for position in 0..self.vertices.len() {
            for subtask in 0..self.vertices[position].tasks.len() {
                let task = &self.vertices[position].tasks[subtask];
                let (attempt, was) = (task.attempt, task.state);
                if was.is_terminal() || was == TaskState::Created {
                    continue;
                }
                let Some((end, message)) = how(task) else { continue };
                self.vertices[position].enter(subtask, end, at_ms);
                if end != TaskState::Failed {
                    continue;
                }
                let failure = self.task_failure(attempt.task, ErrorKind::Io, message);
                let failed = self.failed_task(attempt, failure, at_ms);
                if was == TaskState::Canceling {
                    losses.concurrent.push(failed);
                } else {
                    losses.failed.push(failed);
                    losses.regions.insert(self.region_of(position));
                }
            }
        }
    }

    /// Counts the results as lost that are gone with finished tasks and that some reader misses.
    pub(super) fn miss_results(
        &self,
        at_ms: u64,
        losses: &mut Losses,
        message: &str,
        is_gone: impl Fn(&TaskRecord) -> bool,
    ) {
        if !matches!(self.state, JobState::Running | JobState::Restarting) {
            return;
        }
        for position in missed_results(self) {
            let mut tasks = self.vertices[position].tasks.iter();
            let gone = tasks.find(|task| task.state == TaskState::Finished && is_gone(task));
            let Some(task) = gone else { continue };
            losses.regions.insert(self.region_of(position));
            // Tasks that failed say more.
            if losses.failed.is_empty() {
                let failure = self.task_failure(task.attempt.task, ErrorKind::Io, message.to_string());
                losses.failed.push(self.failed_task(task.attempt, failure, at_ms));
            }
        }
    }
}

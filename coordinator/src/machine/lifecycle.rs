//! How tasks and jobs end: failures, cancellation, lost workers, and what is freed then.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::control::TaskState;
use flott_schema::error::ErrorKind;
use flott_schema::graph::Exchange;
use flott_schema::ids::{AttemptId, JobId, WorkerId};

use super::event::Effect;
use super::job::{CONCURRENT_FAILURES_MAX, JobFailure, JobRecord, JobState};
use super::slots::SlotOwner;
use super::step::Step;

impl Step<'_> {
    /// The job enters `state`.
    pub(super) fn enter(&mut self, job: JobId, state: JobState) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.state = state;
        record.times.enter(state as usize, at_ms);
        self.effects.push(Effect::JobStateChanged { job, state, at_ms });
        self.touch(job, false);
    }

    /// Notes a failure: the first one takes the job down, later ones are kept beside it. [`Step::settle`] follows.
    pub(super) fn fail(&mut self, job: JobId, failure: JobFailure) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        match record.state {
            JobState::Created | JobState::Running => {
                record.failure = Some(failure);
                self.enter(job, JobState::Failing);
                self.stop_tasks(job);
            }
            _ => {
                if let JobFailure::Task(failure) = failure
                    && record.concurrent_failures.len() < CONCURRENT_FAILURES_MAX
                {
                    record.concurrent_failures.push(failure);
                }
            }
        }
    }

    /// Asks all tasks to stop; those that were never sent are stopped at once.
    pub(super) fn stop_tasks(&mut self, job: JobId) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.wait = None;
        let mut running: BTreeMap<WorkerId, Vec<AttemptId>> = BTreeMap::new();
        for vertex in &mut record.vertices {
            for subtask in 0..vertex.tasks.len() {
                let task = &vertex.tasks[subtask];
                match (task.state, task.slot) {
                    (TaskState::Created, _) => vertex.enter(subtask, TaskState::Canceled, at_ms),
                    (TaskState::Deploying | TaskState::Initializing | TaskState::Running, Some(slot)) => {
                        running.entry(slot.worker).or_default().push(task.attempt);
                        vertex.enter(subtask, TaskState::Canceling, at_ms);
                    }
                    _ => {}
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

    /// After tasks have ended: frees the slots of regions that are over, and ends the job with its last task.
    pub(super) fn settle(&mut self, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        for region in 0..record.regions.len() {
            if record.regions[region].placed && record.region_counts(region).live() == 0 {
                for slot in std::mem::take(&mut record.regions[region].slots) {
                    self.state.slots.release(slot, SlotOwner { job, region });
                    self.replan = true;
                }
            }
        }
        let counts = record.counts();
        if record.state.is_terminal() || counts.terminal() < counts.total() {
            return;
        }
        let end = match record.state {
            JobState::Cancelling => JobState::Canceled,
            JobState::Failing => JobState::Failed,
            _ => JobState::Finished,
        };
        self.enter(job, end);
        self.touch(job, true);
        self.close(job);
    }

    /// The job is over: its workers are told, and the oldest of the ended jobs may be forgotten.
    fn close(&mut self, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        for worker in std::mem::take(&mut record.workers) {
            self.effects.push(Effect::Release { worker, job });
        }
        let outcome = record.outcome().expect("the job is over");
        self.effects.push(Effect::JobEnded { job, outcome });
        self.state.open.retain(|open| *open != job);
        self.state.ended.push_back(job);
        while self.state.ended.len() > self.state.ended_jobs_max {
            let oldest = self.state.ended.pop_front().expect("it is not empty");
            self.state.jobs.remove(&oldest);
        }
    }

    /// A worker is gone: its tasks fail, and so does a job that has yet to read a result the worker kept.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        if !self.state.slots.lose(worker) {
            self.state.ignored.unknown_worker += 1;
            return;
        }
        for job in self.state.open.clone() {
            let record = self.state.jobs.get_mut(&job).expect("open jobs are known");
            if !record.workers.remove(&worker) {
                continue;
            }
            let failures = lose_tasks(record, worker, self.state.now_ms);
            self.touch(job, true);
            for failure in failures {
                self.fail(job, failure);
            }
            self.settle(job);
        }
    }
}

/// Fails the tasks of a job that ran on a lost worker; if none did, the first task whose result is lost and missed.
fn lose_tasks(record: &mut JobRecord, worker: WorkerId, at_ms: u64) -> Vec<JobFailure> {
    let mut failures = Vec::new();
    let lost = |task: &super::TaskRecord| task.slot.is_some_and(|slot| slot.worker == worker);
    for position in 0..record.vertices.len() {
        for subtask in 0..record.vertices[position].tasks.len() {
            let task = &record.vertices[position].tasks[subtask];
            if lost(task) && !task.state.is_terminal() {
                let message = format!("worker {} was lost, and with it this task", worker.0);
                failures.push(record.task_failure(task.attempt.task, ErrorKind::Io, message));
                record.vertices[position].enter(subtask, TaskState::Failed, at_ms);
            }
        }
    }
    if failures.is_empty() && record.state == JobState::Running {
        let missed = missed_results(record);
        let tasks = missed.iter().flat_map(|position| &record.vertices[*position].tasks);
        if let Some(task) = tasks.filter(|task| task.state == TaskState::Finished).find(|task| lost(task)) {
            let message = format!(
                "worker {} was lost, and with it the finished result of this task, which a later stage has yet to read",
                worker.0
            );
            failures.push(record.task_failure(task.attempt.task, ErrorKind::Io, message));
        }
    }
    failures.into_iter().map(JobFailure::Task).collect()
}

/// Vertices whose spooled results are still needed: some reader has not finished.
fn missed_results(record: &JobRecord) -> BTreeSet<usize> {
    let edges = record.spec.graph.edges.iter().filter(|edge| edge.exchange == Exchange::Blocking);
    edges
        .filter(|edge| !record.vertices[record.positions[&edge.target]].is_finished())
        .map(|edge| record.positions[&edge.source])
        .collect()
}

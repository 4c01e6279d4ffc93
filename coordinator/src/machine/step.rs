//! One step of the machine: dispatch, then placement of what may now start, then the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::{TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::stats::WorkerProfile;

use super::event::{Effect, Event};
use super::exception::JobException;
use super::invariants::{check_job, check_job_briefly};
use super::job::{JobFailure, JobRecord, JobState};
use super::lifecycle::Losses;
use super::region::check_graph;
use super::state::ClusterState;
use super::task::{Report, judge};

/// Applies an event. Events that make no sense (a report of an older attempt, an unknown job) change nothing and are
/// counted in [`super::Ignored`]. Panics if an invariant is broken afterwards: that is a bug of the machine, and going on
/// would spread it.
pub fn apply(state: &mut ClusterState, event: Event) -> Vec<Effect> {
    // The very end of time is left free for the stored form of time stamps.
    state.now_ms = state.now_ms.max(event.at_ms().min(u64::MAX - 1));
    let mut step = Step { state, effects: Vec::new(), replan: false, touched: BTreeMap::new() };
    match event {
        Event::WorkerRegistered { worker, profile, .. } => step.register(worker, profile),
        Event::WorkerLost { worker, .. } => step.lose(worker),
        Event::WorkerReturned { worker, tasks, .. } => step.welcome_back(worker, tasks),
        Event::JobSubmitted { job, spec, .. } => step.submit(job, spec),
        Event::TaskStateChanged { job, attempt, state, failure, .. } => {
            step.report(job, attempt, state, failure);
        }
        Event::CancelRequested { job, .. } => step.cancel(job),
        Event::SlotWaitExpired { job, wait, .. } => step.expire(job, wait),
        Event::RestartDelayExpired { job, number, .. } => step.end_delay(job, number),
        Event::ProgramStored { digest, name, size, .. } => step.store_program(digest, name, size),
        Event::ProgramRemoved { digest, .. } => step.remove_program(digest),
        Event::CheckpointRequested { job, request, .. } => step.request_checkpoint(job, request),
        Event::CheckpointCompleted { job, checkpoint, stats, .. } => {
            step.complete_checkpoint(job, checkpoint, stats);
        }
        Event::CheckpointFailed { job, checkpoint, reason, counts, stats, .. } => {
            step.fail_checkpoint(job, checkpoint, reason, counts, stats);
        }
        Event::LastSnapshot { job, attempt, snapshot, .. } => step.keep_last(job, attempt, snapshot),
        Event::SavepointDisposed { folder, .. } => step.dispose(&folder),
        Event::ClaimEnded { job, .. } => step.end_claim(job),
    }
    if step.replan {
        step.place_ready();
    }
    step.check();
    step.effects
}

/// An event being applied.
pub(super) struct Step<'a> {
    pub(super) state: &'a mut ClusterState,
    pub(super) effects: Vec<Effect>,
    /// Whether slots became free or regions ready.
    pub(super) replan: bool,
    /// Jobs to check afterwards, and whether in full. A report on a task touches that task alone and is checked by
    /// counts, so that the checks of an event never cost more than the event.
    touched: BTreeMap<JobId, bool>,
}

impl Step<'_> {
    pub(super) fn touch(&mut self, job: JobId, in_full: bool) {
        *self.touched.entry(job).or_default() |= in_full;
    }

    fn check(&self) {
        for (job, in_full) in &self.touched {
            let Some(record) = self.state.jobs.get(job) else { continue };
            let verdict =
                if *in_full { check_job(&self.state.slots, record) } else { check_job_briefly(record) };
            if let Err(broken) = verdict {
                panic!("invariant of job {job} broken: {broken}");
            }
        }
    }

    fn register(&mut self, worker: WorkerId, profile: WorkerProfile) {
        if !self.state.slots.register(worker, profile, self.state.now_ms) {
            self.state.ignored.refused_worker += 1;
            return;
        }
        self.state.last_worker_id = self.state.last_worker_id.max(worker.0);
        self.replan = true;
    }

    fn submit(&mut self, job: JobId, spec: Arc<JobSpec>) {
        if self.state.jobs.contains_key(&job) || check_graph(&spec.graph).is_err() {
            self.state.ignored.refused_job += 1;
            return;
        }
        let at_ms = self.state.now_ms;
        self.state.jobs.insert(job, JobRecord::new(job, spec, at_ms));
        self.state.open.push(job);
        self.effects.push(Effect::JobStateChanged { job, state: JobState::Created, at_ms });
        self.touch(job, true);
        self.replan = true;
    }

    fn report(&mut self, job: JobId, attempt: AttemptId, reported: TaskState, failure: Option<TaskFailure>) {
        let ignored = &mut self.state.ignored;
        let Some(record) = self.state.jobs.get_mut(&job) else {
            ignored.unknown_job += 1;
            return;
        };
        let Some(task) = record.task(attempt.task) else {
            ignored.unknown_task += 1;
            return;
        };
        if task.attempt() != attempt {
            ignored.stale_attempt += 1;
            return;
        }
        let before = task.state();
        let (next, failure) = match judge(task.state(), reported) {
            Report::Enter(TaskState::Failed) => {
                let unknown = || "the worker gave no cause".to_string();
                let failure = failure
                    .unwrap_or_else(|| record.task_failure(attempt.task, ErrorKind::Internal, unknown()));
                (TaskState::Failed, Some(failure))
            }
            Report::UnaskedCancel => {
                let message = "the task was cancelled though nobody asked for it".to_string();
                (TaskState::Failed, Some(record.task_failure(attempt.task, ErrorKind::Internal, message)))
            }
            Report::Enter(next) => (next, None),
            Report::ResultLost => return self.lose_result(job, attempt, failure),
            Report::Repeated => return ignored.repeated += 1,
            Report::Overtaken => return ignored.overtaken += 1,
            Report::Impossible => return ignored.impossible_transition += 1,
        };
        let position = record.positions[&attempt.task.vertex];
        record.vertices[position].enter(attempt.task.subtask as usize, next, self.state.now_ms);
        // A complete result may be what another region waits for.
        self.replan |= record.vertices[position].is_finished();
        self.touch(job, false);
        if let Some(failure) = failure {
            let record = &self.state.jobs[&job];
            let failed = record.failed_task(attempt, failure, self.state.now_ms);
            if before == TaskState::Canceling {
                self.note_concurrent(job, [failed]);
            } else {
                let region = BTreeSet::from([record.region_of(position)]);
                self.fail(job, JobException::of_tasks(vec![failed]), region);
            }
        }
        if next.is_terminal() {
            self.settle(job);
        }
    }

    /// The result of a finished task is gone; that is a failure if somebody has yet to read it.
    fn lose_result(&mut self, job: JobId, attempt: AttemptId, failure: Option<TaskFailure>) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        let position = record.positions[&attempt.task.vertex];
        let task = &mut record.vertices[position].tasks[attempt.task.subtask as usize];
        if std::mem::replace(&mut task.result_lost, true) {
            self.state.ignored.repeated += 1;
            return;
        }
        let message = match failure {
            Some(failure) => failure.message,
            None => "the process that kept it is gone".to_string(),
        };
        let message = format!(
            "the finished result of this task, which a later stage has yet to read, is lost: {message}"
        );
        let mut losses = Losses::default();
        record.miss_results(at_ms, &mut losses, &message, |task| task.attempt() == attempt);
        self.take_losses(job, losses);
    }

    pub(super) fn cancel(&mut self, job: JobId) {
        let Some(record) = self.state.jobs.get(&job) else {
            self.state.ignored.unknown_job += 1;
            return;
        };
        match record.state {
            JobState::Created | JobState::Running | JobState::Restarting => {
                self.enter(job, JobState::Cancelling);
                self.state.jobs.get_mut(&job).expect("its job is known").restart = None;
                self.stop_tasks(job);
                self.settle(job);
            }
            // Its tasks are being stopped already.
            JobState::Failing => self.enter(job, JobState::Cancelling),
            JobState::Cancelling | JobState::Canceled | JobState::Failed | JobState::Finished => {
                self.state.ignored.repeated += 1;
            }
        }
    }

    fn expire(&mut self, job: JobId, wait: u32) {
        let Some(record) = self.state.jobs.get(&job) else {
            self.state.ignored.unknown_job += 1;
            return;
        };
        let Some(needed) = record.wait.filter(|current| current.number == wait).map(|wait| wait.needed)
        else {
            self.state.ignored.stale_slot_wait += 1;
            return;
        };
        let (free, total) = (self.state.slots.free(), self.state.slots.total());
        let why = if total < needed {
            format!("the cluster has {total} in all; start workers or lower the parallelism")
        } else {
            format!(
                "other jobs hold {} of {total}; wait for them, start workers or lower the parallelism",
                total - free
            )
        };
        let message = format!("job '{}' needs {needed} slots, has {free}: {why}", record.graph().name);
        let cause = JobFailure::Job { kind: ErrorKind::Resources, message };
        self.fail(job, JobException::of_job(self.state.now_ms, cause), BTreeSet::new());
        self.settle(job);
    }
}

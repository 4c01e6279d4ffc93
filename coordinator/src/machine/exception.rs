//! What went wrong with a job: a bounded history for people.

use std::collections::VecDeque;

use flott_schema::control::TaskFailure;
use flott_schema::ids::{AttemptId, WorkerId};

use super::job::JobFailure;

/// Failures kept beside the first one; of a lost worker with many tasks the rest says nothing new.
pub const CONCURRENT_FAILURES_MAX: usize = 100;

/// The failure of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedTask {
    /// When it was noted (milliseconds since 1970).
    pub at_ms: u64,
    /// The deployment that failed.
    pub attempt: AttemptId,
    /// The worker it ran on; nothing if it was never placed.
    pub worker: Option<WorkerId>,
    /// Why.
    pub failure: TaskFailure,
}

/// A failure that restarted a job or ended it, and what failed along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobException {
    /// When it was noted (milliseconds since 1970).
    pub at_ms: u64,
    /// What happened.
    pub cause: JobFailure,
    /// The deployment that failed; nothing if no task is to blame.
    pub attempt: Option<AttemptId>,
    /// The worker it ran on.
    pub worker: Option<WorkerId>,
    /// Whether the job was started again.
    pub restarted: bool,
    /// Other tasks that failed before the job was up again; at most [`CONCURRENT_FAILURES_MAX`].
    pub concurrent: Vec<FailedTask>,
}

impl JobException {
    /// A failure of tasks: the first is the cause. There must be one.
    pub(super) fn of_tasks(mut failed: Vec<FailedTask>) -> Self {
        let FailedTask { at_ms, attempt, worker, failure } = failed.remove(0);
        failed.truncate(CONCURRENT_FAILURES_MAX);
        JobException {
            at_ms,
            cause: JobFailure::Task(failure),
            attempt: Some(attempt),
            worker,
            restarted: false,
            concurrent: failed,
        }
    }

    /// What failed, as a part of another exception; nothing if no task is to blame.
    pub(super) fn as_concurrent(&self) -> Option<Vec<FailedTask>> {
        let (JobFailure::Task(failure), Some(attempt)) = (&self.cause, self.attempt) else { return None };
        let first = FailedTask { at_ms: self.at_ms, attempt, worker: self.worker, failure: failure.clone() };
        Some(std::iter::once(first).chain(self.concurrent.iter().cloned()).collect())
    }

    /// A failure that no task is to blame for.
    pub(super) fn of_job(at_ms: u64, cause: JobFailure) -> Self {
        JobException { at_ms, cause, attempt: None, worker: None, restarted: false, concurrent: Vec::new() }
    }

    pub(super) fn add(&mut self, failed: FailedTask) {
        if self.concurrent.len() < CONCURRENT_FAILURES_MAX {
            self.concurrent.push(failed);
        }
    }
}

/// The latest exceptions of a job, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionHistory {
    pub(super) latest: VecDeque<JobException>,
    pub(super) total: u64,
}

impl ExceptionHistory {
    /// The exceptions that are kept, the oldest first.
    pub fn latest(&self) -> impl DoubleEndedIterator<Item = &JobException> + ExactSizeIterator {
        self.latest.iter()
    }

    /// Exceptions there ever were, also those no longer kept.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn push(&mut self, exception: JobException, kept_max: usize) {
        self.total += 1;
        self.latest.push_back(exception);
        self.keep(kept_max);
    }

    /// Forgets all but the latest.
    pub(super) fn keep(&mut self, kept_max: usize) {
        while self.latest.len() > kept_max {
            self.latest.pop_front();
        }
    }

    /// Adds what failed along with the latest.
    pub(super) fn add_concurrent(&mut self, failed: impl IntoIterator<Item = FailedTask>) {
        if let Some(latest) = self.latest.back_mut() {
            failed.into_iter().for_each(|failed| latest.add(failed));
        }
    }
}

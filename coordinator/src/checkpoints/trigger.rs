//! When the next checkpoint of a job is due.

use std::collections::BTreeSet;

use flott_schema::control::TaskState;
use flott_schema::ids::AttemptId;
use flott_schema::job::CheckpointSettings;

use crate::machine::{JobRecord, JobState};

/// How long after a failure tasks that wait for a snapshot get the next one.
const WANTED_AGAIN_MS: u64 = 1_000;

/// How long to wait for workers that have yet to return before looking again.
const POSTPONED_MS: u64 = 50;

/// The times of a job's checkpoints. All of them are milliseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Trigger {
    /// Whether a snapshot can be begun now.
    possible: bool,
    /// Whether those of the interval can.
    periodic: bool,
    /// When the next one of the interval is due; nothing while the job is not up.
    due_ms: Option<u64>,
    /// The end of the last one, and of the last that failed.
    ended_ms: Option<u64>,
    failed_ms: Option<u64>,
    /// Tasks that have ended but for what they have to commit.
    wanting: BTreeSet<AttemptId>,
    /// Whether no task is left that gives barriers or is about to.
    sources_ended: bool,
    /// Nothing begins before.
    not_before_ms: u64,
    /// Whether one is on its way into the log.
    pub(super) asked: bool,
}

impl Trigger {
    /// The job has changed.
    pub(super) fn look(&mut self, job: &JobRecord, settings: &CheckpointSettings, now_ms: u64) {
        if job.state() != JobState::Running {
            (self.due_ms, self.possible, self.periodic) = (None, false, false);
            return;
        }
        self.possible = job.snapshot_obstacle().is_none();
        let finished = job.counts().of(TaskState::Finished) > 0;
        self.periodic = self.possible && (settings.after_tasks_finish || !finished);
        if self.possible && self.due_ms.is_none() {
            self.due_ms = settings.interval_ms.map(|interval_ms| now_ms.saturating_add(interval_ms));
        }
        self.look_at_sources(job);
    }

    fn look_at_sources(&mut self, job: &JobRecord) {
        if self.wanting.is_empty() {
            return;
        }
        self.wanting.retain(|attempt| {
            let task = job.task(attempt.task);
            task.is_some_and(|task| task.attempt() == *attempt && !task.state().is_terminal())
        });
        let ended = |vertex: &crate::machine::VertexRecord| {
            let has_ended = |task: &crate::machine::TaskRecord| {
                task.state() == TaskState::Finished || self.wanting.contains(&task.attempt())
            };
            vertex.tasks().iter().all(has_ended)
        };
        let sources = job.graph().vertices.iter().zip(job.vertices()).filter(|(vertex, _)| vertex.is_source);
        self.sources_ended = sources.into_iter().all(|(_, record)| ended(record));
    }

    /// A task waits for a snapshot.
    pub(super) fn want(&mut self, job: &JobRecord, attempt: AttemptId) {
        self.wanting.insert(attempt);
        self.look_at_sources(job);
    }

    /// It cannot begin yet: looks again after a moment.
    pub(super) fn postpone(&mut self, now_ms: u64) {
        self.not_before_ms = now_ms.saturating_add(POSTPONED_MS);
    }

    /// One has begun.
    pub(super) fn began(&mut self, settings: &CheckpointSettings, now_ms: u64) {
        self.due_ms = settings.interval_ms.map(|interval_ms| now_ms.saturating_add(interval_ms));
    }

    /// One has ended; of these tasks it holds the last word, if it is complete.
    pub(super) fn ended(&mut self, completed: bool, served: impl Fn(AttemptId) -> bool, now_ms: u64) {
        self.ended_ms = Some(now_ms);
        self.failed_ms = if completed { None } else { Some(now_ms) };
        if completed {
            self.wanting.retain(|attempt| !served(*attempt));
        }
    }

    /// When the next one is to begin, `pending` being under way; nothing while that cannot be told.
    pub(super) fn next_ms(&self, settings: &CheckpointSettings, pending: usize) -> Option<u64> {
        if self.asked || !self.possible {
            return None;
        }
        let pause_over_ms =
            self.ended_ms.map_or(0, |ended_ms| ended_ms.saturating_add(settings.min_pause_ms));
        let has_room = pending < settings.max_concurrent.max(1) as usize;
        let periodic =
            self.due_ms.filter(|_| self.periodic && has_room).map(|due_ms| due_ms.max(pause_over_ms));
        let wanted = (!self.wanting.is_empty() && self.sources_ended && pending == 0)
            .then(|| self.failed_ms.map_or(0, |failed_ms| failed_ms.saturating_add(WANTED_AGAIN_MS)));
        let next = [periodic, wanted].into_iter().flatten().min();
        next.map(|next_ms| next_ms.max(self.not_before_ms))
    }
}

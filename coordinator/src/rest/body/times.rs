//! When jobs and tasks began and ended.

use flott_schema::control::TaskState;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::machine::{JobRecord, JobState, TaskRecord};

/// Start, end and duration; -1 for what has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Span {
    pub(super) start_time: i64,
    pub(super) end_time: i64,
    pub(super) duration: i64,
}

impl Span {
    /// From `start`, to `end` or until `now`.
    pub(super) fn new(start: Option<u64>, end: Option<u64>, now: u64) -> Self {
        let Some(start) = start else { return Span { start_time: -1, end_time: -1, duration: -1 } };
        Span {
            start_time: signed(start),
            end_time: end.map_or(-1, signed),
            duration: signed(end.unwrap_or(now).saturating_sub(start)),
        }
    }

    /// Of a job: from its submission.
    pub(super) fn of_job(job: &JobRecord, now: u64) -> Self {
        let ended = job.state().is_terminal().then(|| job.entered_ms(job.state())).flatten();
        Span::new(job.entered_ms(JobState::Created), ended, now)
    }

    /// Of the current attempt of a task: from its deployment.
    pub(super) fn of_task(task: &TaskRecord, now: u64) -> Self {
        let ended = task.state().is_terminal().then(|| task.entered_ms(task.state())).flatten();
        let started = task.entered_ms(TaskState::Deploying);
        Span::new(started, ended.filter(|_| started.is_some()), now)
    }

    /// Of some tasks together: from the first deployment to the last end, if all have ended.
    pub(super) fn of_tasks<'a>(tasks: impl Iterator<Item = &'a TaskRecord> + Clone, now: u64) -> Self {
        let start = tasks.clone().filter_map(|task| task.entered_ms(TaskState::Deploying)).min();
        let ended = tasks.clone().all(|task| task.state().is_terminal());
        let end = ended.then(|| tasks.filter_map(|task| task.entered_ms(task.state())).max()).flatten();
        Span::new(start, end, now)
    }
}

/// When a job's state changed last.
pub(super) fn last_modification(job: &JobRecord) -> i64 {
    signed(JobState::ALL.into_iter().filter_map(|state| job.entered_ms(state)).max().unwrap_or(0))
}

/// Flink's states of a job, in its order.
const JOB_STATES: [&str; 11] = [
    "INITIALIZING",
    "CREATED",
    "RUNNING",
    "FAILING",
    "FAILED",
    "CANCELLING",
    "CANCELED",
    "FINISHED",
    "RESTARTING",
    "SUSPENDED",
    "RECONCILING",
];

/// `{"CREATED": ms, ..}`, 0 for states that were not reached.
pub(super) struct Timestamps<'a>(pub(super) &'a JobRecord);

impl Serialize for Timestamps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(JOB_STATES.len()))?;
        for word in JOB_STATES {
            // A submission is initialised when it is taken.
            let known = if word == "INITIALIZING" { "CREATED" } else { word };
            let state = JobState::ALL.into_iter().find(|state| state.word() == known);
            map.serialize_entry(word, &state.and_then(|state| self.0.entered_ms(state)).unwrap_or(0))?;
        }
        map.end()
    }
}

/// States of a task that come before it ends, in the order of its life.
pub(super) const LIVE_STATES: [TaskState; 5] = [
    TaskState::Created,
    TaskState::Scheduled,
    TaskState::Deploying,
    TaskState::Initializing,
    TaskState::Running,
];

/// How long a task was in a state before it ended; -1 if it never was.
pub(super) fn time_in(task: &TaskRecord, state: TaskState, now: u64) -> i64 {
    let Some(entered) = task.entered_ms(state) else { return -1 };
    let later = TaskState::ALL.into_iter().filter(|other| *other as usize > state as usize);
    let left = later.filter_map(|other| task.entered_ms(other)).filter(|at| *at >= entered).min();
    signed(left.unwrap_or(now).saturating_sub(entered))
}

/// As JSON's readers in Java take it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

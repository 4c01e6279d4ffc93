//! Numbers of tasks by state.

use flott_schema::control::TaskState;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::machine::TaskCounts;

/// Flink's states of a task, in its order.
const STATES: [(&str, &str, Option<TaskState>); 10] = [
    ("CREATED", "created", Some(TaskState::Created)),
    ("SCHEDULED", "scheduled", Some(TaskState::Scheduled)),
    ("DEPLOYING", "deploying", Some(TaskState::Deploying)),
    ("RUNNING", "running", Some(TaskState::Running)),
    ("FINISHED", "finished", Some(TaskState::Finished)),
    ("CANCELING", "canceling", Some(TaskState::Canceling)),
    ("CANCELED", "canceled", Some(TaskState::Canceled)),
    ("FAILED", "failed", Some(TaskState::Failed)),
    // A task whose state a new leader does not know; ours knows it always.
    ("RECONCILING", "reconciling", None),
    ("INITIALIZING", "initializing", Some(TaskState::Initializing)),
];

/// `{"CREATED": 0, ..}`.
#[derive(Clone, Copy)]
pub(super) struct Counts(pub(super) TaskCounts);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(STATES.len()))?;
        for (word, _, state) in STATES {
            map.serialize_entry(word, &state.map_or(0, |state| self.0.of(state)))?;
        }
        map.end()
    }
}

/// `{"total": 0, "created": 0, ..}`.
#[derive(Clone, Copy)]
pub(super) struct LowerCounts(pub(super) TaskCounts);

impl Serialize for LowerCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(STATES.len() + 1))?;
        map.serialize_entry("total", &self.0.total())?;
        for (_, word, state) in STATES {
            map.serialize_entry(word, &state.map_or(0, |state| self.0.of(state)))?;
        }
        map.end()
    }
}

/// Numbers of vertices by state: `{"CREATED": 0, ..}`.
#[derive(Clone, Copy)]
pub(super) struct VertexCounts([u32; STATES.len()]);

impl VertexCounts {
    /// Counts words.
    pub(super) fn of(words: impl Iterator<Item = &'static str>) -> Self {
        let mut counts = [0; STATES.len()];
        for word in words {
            let index = STATES.iter().position(|(known, ..)| *known == word);
            counts[index.expect("every state is in the table")] += 1;
        }
        VertexCounts(counts)
    }
}

impl Serialize for VertexCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(STATES.len()))?;
        for ((word, ..), count) in STATES.iter().zip(self.0) {
            map.serialize_entry(word, &count)?;
        }
        map.end()
    }
}

/// The state of a vertex as a whole, by Flink's rule.
pub(super) fn state_of(counts: &TaskCounts) -> &'static str {
    let first = [
        TaskState::Failed,
        TaskState::Canceling,
        TaskState::Canceled,
        TaskState::Initializing,
        TaskState::Running,
    ];
    match first.into_iter().find(|state| counts.of(*state) > 0) {
        Some(state) => state.word(),
        None => match counts.of(TaskState::Finished) {
            0 => counts_before_running(counts),
            finished if finished == counts.total() => TaskState::Finished.word(),
            _ => TaskState::Running.word(),
        },
    }
}

fn counts_before_running(counts: &TaskCounts) -> &'static str {
    let later = [TaskState::Deploying, TaskState::Scheduled];
    later.into_iter().find(|state| counts.of(*state) == counts.total()).unwrap_or(TaskState::Created).word()
}

//! What people ask for of snapshots, task by task. A leader forgets it when it leads no longer.

use std::collections::BTreeMap;

use flott_schema::ids::TaskId;
use flott_schema::snapshot::SnapshotTimes;

/// A task's part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartDetails {
    /// When it came (milliseconds since 1970).
    pub at_ms: u64,
    /// How it went.
    pub times: SnapshotTimes,
    /// Whether the task had finished.
    pub finished: bool,
}

/// A snapshot, task by task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointDetails {
    /// Its id.
    pub id: u64,
    /// Those that have handed in.
    pub parts: BTreeMap<TaskId, PartDetails>,
}

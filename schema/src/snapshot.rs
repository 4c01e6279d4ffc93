//! Snapshots of a job as data: what a barrier says, what a task hands in, and what a manifest holds.
//!
//! A snapshot is a *checkpoint* (the job's own) or a *savepoint* (the user's). Each task hands in a [`TaskSnapshot`]: small state
//! stands in it, large state in files that it names. All of them and the plan they belong to make the [`Manifest`], the file
//! `_metadata` in the folder of the snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, OperatorId, TaskId, VertexId};
use crate::key_group::KeyGroupRange;

/// Name of a manifest's file.
pub const MANIFEST_FILE: &str = "_metadata";

/// Form of a savepoint's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SavepointFormat {
    /// Rows in a documented form that any state backend reads.
    #[default]
    Canonical,
    /// The files of the state backend.
    Native,
}

/// To whom a snapshot belongs, and what it may share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// The job's; may share files with earlier ones.
    #[default]
    Checkpoint,
    /// The job's; shares nothing with earlier ones.
    FullCheckpoint,
    /// The user's: self-contained, never deleted by the job.
    Savepoint(SavepointFormat),
}

impl SnapshotKind {
    /// Whether it is the user's.
    pub fn is_savepoint(self) -> bool {
        matches!(self, SnapshotKind::Savepoint(_))
    }

    /// For people, and Flink's `checkpoint_type`.
    pub fn word(self) -> &'static str {
        match self {
            SnapshotKind::Checkpoint => "CHECKPOINT",
            SnapshotKind::FullCheckpoint => "FULL_CHECKPOINT",
            SnapshotKind::Savepoint(_) => "SAVEPOINT",
        }
    }
}

/// What a job does behind a barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AfterBarrier {
    /// It goes on.
    #[default]
    GoOn,
    /// Sources send nothing more; when the snapshot is complete, tasks commit and finish. Timers and windows that are not due
    /// stay in state.
    Suspend,
    /// The same, with the final watermark in front of the barrier: event time ends, windows fire.
    Drain,
}

impl AfterBarrier {
    /// Whether the job ends with the snapshot.
    pub fn stops(self) -> bool {
        self != AfterBarrier::GoOn
    }
}

/// How a task with several channels treats a barrier that has come on some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Alignment {
    /// Those channels wait for the others: exactly once.
    #[default]
    Aligned,
    /// Aligned for so many milliseconds; then the barrier overtakes the records in flight, which become state: exactly once.
    UnalignedAfter(u32),
    /// No channel waits: at least once.
    None,
}

/// An in-band marker that separates the records before a snapshot from those after it (Chandy, Lamport: *Distributed
/// snapshots*, 1985; Carbone and others: *Lightweight asynchronous snapshots for distributed dataflows*, 2015).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Id of the snapshot: from 1, growing over the life of a job, also over restarts. Savepoints count along.
    pub checkpoint: u64,
    /// When it was triggered, epoch milliseconds.
    pub timestamp_ms: i64,
    /// Whose it is.
    pub kind: SnapshotKind,
    /// What follows.
    pub after: AfterBarrier,
    /// How it passes tasks with several channels.
    pub alignment: Alignment,
}

impl Barrier {
    /// The barrier of a plain checkpoint.
    pub fn of_checkpoint(checkpoint: u64) -> Self {
        Barrier { checkpoint, ..Barrier::default() }
    }
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// The name by which the state backend knows it.
    pub name: String,
    /// Where it is: relative to the folder of the manifest (`../shared/...` for one that checkpoints share), so that a snapshot
    /// whose files lie below its folder can be moved.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32C of the whole file.
    pub crc32c: u32,
}

/// How the items of a list state are spread when the job starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListMode {
    /// Each item goes to one task, evenly (Flink: `SPLIT_DISTRIBUTE`).
    Split,
    /// Each task gets all items of all tasks (`UNION`).
    Union,
    /// All tasks hold the same; each gets the items of one (`BROADCAST`).
    Broadcast,
}

/// A list state of an operator in one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSnapshot {
    /// Unique in the operator, also among its tables.
    pub name: String,
    /// How it is spread.
    pub mode: ListMode,
    /// Text of the items' type, see `flott_dataflow::types`; empty where it is not known.
    pub item_type: String,
    /// The items in their wire form; none where they are in a file.
    pub items: Vec<Vec<u8>>,
    /// The file that holds the items, where they are too many bytes to stand here; of the snapshot alone.
    #[serde(default)]
    pub file: Option<SnapshotFile>,
}

impl ListSnapshot {
    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.file.is_none()
    }

    /// Bytes of the items that stand here.
    pub fn inline_bytes(&self) -> usize {
        self.items.iter().map(Vec::len).sum()
    }
}

/// What is known of a table of keyed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// Unique in the operator.
    pub name: String,
    /// The number that the rows of the table carry; unique in the operator and never given again.
    pub number: u16,
    /// What it holds, for people: `value`, `list`, `map`, `timers`, `window`.
    pub holds: String,
    /// Text of the type of its keys.
    pub key_type: String,
    /// Text of the type of its values.
    pub value_type: String,
}

/// Keyed state of an operator in one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedSnapshot {
    /// The key groups it holds.
    pub key_groups: KeyGroupRange,
    /// Form of the files: `rows-1` (documented in the book) or `rocksdb-1`.
    pub format: String,
    /// Its tables.
    pub tables: Vec<TableSnapshot>,
    /// Its files.
    pub files: Vec<SnapshotFile>,
}

/// What one operator of a task hands in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    /// The operator.
    pub operator: Option<OperatorId>,
    /// Its list states.
    pub lists: Vec<ListSnapshot>,
    /// Its keyed state: none or one, of a task; a restored task may hold several until it has written its own.
    pub keyed: Vec<KeyedSnapshot>,
    /// State of its split enumerator, from the task with parallel index 0 of a source.
    pub enumerator: Option<Vec<u8>>,
}

/// Records that were in flight on a channel into a task, of an unaligned checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSnapshot {
    /// Index of the edge in the graph.
    pub edge: u32,
    /// The sending subtask.
    pub source: u32,
    /// Frames with batches, in order.
    pub file: SnapshotFile,
}

/// What a task hands in for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    /// The task.
    pub task: TaskId,
    /// Whether it had finished: it sends nothing more when it is restored.
    pub finished: bool,
    /// Its operators that have state.
    pub operators: Vec<OperatorSnapshot>,
    /// Records in flight into it.
    pub channels: Vec<ChannelSnapshot>,
    /// How it went.
    pub times: SnapshotTimes,
}

/// How the snapshot of a task went; Flink's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTimes {
    /// From the trigger to the start of the task's part.
    pub start_delay_ms: u64,
    /// From the first to the last barrier.
    pub alignment_ms: u64,
    /// How long the task stood still.
    pub sync_us: u64,
    /// From there until all files were written.
    pub async_ms: u64,
    /// Bytes that this snapshot wrote.
    pub written_bytes: u64,
    /// Bytes of all files it names and of the state in it.
    pub state_bytes: u64,
    /// Bytes processed during the alignment.
    pub processed_bytes: u64,
    /// Bytes of records in flight that were written.
    pub persisted_bytes: u64,
    /// Whether the barrier overtook records.
    pub unaligned: bool,
}

impl TaskSnapshot {
    /// Bytes of the state that stands in it, about; that in files does not count.
    pub fn inline_bytes(&self) -> usize {
        let bytes = |operator: &OperatorSnapshot| {
            let lists = operator.lists.iter().map(ListSnapshot::inline_bytes);
            lists.sum::<usize>() + operator.enumerator.as_ref().map_or(0, Vec::len)
        };
        self.operators.iter().map(bytes).sum()
    }

    /// The files of the task's keyed state, lists and channels.
    pub fn files(&self) -> impl Iterator<Item = &SnapshotFile> {
        let keyed = self.operators.iter().flat_map(|operator| &operator.keyed).flat_map(|keyed| &keyed.files);
        let lists = self.operators.iter().flat_map(|operator| &operator.lists);
        keyed
            .chain(lists.filter_map(|list| list.file.as_ref()))
            .chain(self.channels.iter().map(|channel| &channel.file))
    }
}

/// An operator of the plan that a snapshot belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestOperator {
    /// The operator.
    pub operator: OperatorId,
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
}

/// A vertex of the plan that a snapshot belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestVertex {
    /// The vertex.
    pub vertex: VertexId,
    /// Its name.
    pub name: String,
    /// Number of its tasks.
    pub parallelism: u32,
    /// Number of its key groups.
    pub max_parallelism: u32,
    /// Its chain.
    pub operators: Vec<ManifestOperator>,
}

/// A whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job that took it.
    pub job: JobId,
    /// Its name.
    pub job_name: String,
    /// Id of the snapshot in that job.
    pub checkpoint: u64,
    /// Whose it is.
    pub kind: SnapshotKind,
    /// When it was triggered, epoch milliseconds.
    pub timestamp_ms: i64,
    /// The plan.
    pub vertices: Vec<ManifestVertex>,
    /// What the tasks handed in.
    pub tasks: Vec<TaskSnapshot>,
}

/// Where the tasks of a deployment start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFrom {
    /// Folder of the snapshot: path or URI; its manifest is `_metadata` in it.
    pub folder: String,
    /// Id of the snapshot. Checkpoints of the job go on behind it.
    pub checkpoint: u64,
    /// Whether state that no operator of the job claims is dropped; else it is refused.
    pub ignore_unclaimed: bool,
    /// Whether it is one that this job has taken, so that later checkpoints may share its files. Of a user's savepoint nothing may
    /// be shared.
    pub own: bool,
}

impl fmt::Display for RestoreFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} in {}", self.checkpoint, self.folder)
    }
}

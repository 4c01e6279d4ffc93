//! What is known of the snapshots of a job: those under way, those it can go back to, and what people ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flott_schema::ids::VertexId;
use flott_schema::snapshot::{AfterBarrier, Alignment, Barrier, RestoreFrom, SnapshotKind};

/// Snapshots of a job that may be under way at once.
pub const PENDING_CHECKPOINTS_MAX: usize = 32;

/// The highest id; the one above it has a meaning of its own on the wire.
pub const CHECKPOINT_ID_MAX: u64 = u64::MAX - 1;

/// Snapshots of a job that have ended and are remembered for people; Flink's `web.checkpoints.history`.
pub const CHECKPOINT_HISTORY_MAX: usize = 10;

/// Savepoints of a job that are remembered as places to go back to.
pub const SAVEPOINTS_MAX: usize = 16;

/// Requests of users about a job whose outcome is remembered.
pub const OPERATIONS_MAX: usize = 64;

/// The number of a user's request, chosen by the user or at random: a request that is repeated is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(pub u128);

/// What follows when a snapshot is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The job goes on.
    #[default]
    GoOn,
    /// Its tasks commit and finish.
    Stop,
    /// The same, after the end of event time.
    Drain,
    /// It goes on from there with another parallelism.
    Rescale,
    /// It is cancelled.
    Cancel,
}

impl Purpose {
    /// What the barrier says of it.
    pub fn after(self) -> AfterBarrier {
        match self {
            Purpose::GoOn | Purpose::Cancel => AfterBarrier::GoOn,
            Purpose::Stop | Purpose::Rescale => AfterBarrier::Suspend,
            Purpose::Drain => AfterBarrier::Drain,
        }
    }

    /// Whether the tasks of this deployment end with the snapshot by themselves.
    pub fn ends_tasks(self) -> bool {
        self.after().stops()
    }
}

/// A snapshot to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Whose it is.
    pub kind: SnapshotKind,
    /// What follows.
    pub purpose: Purpose,
    /// How barriers pass tasks with several channels.
    pub alignment: Alignment,
    /// Path or URI: of a savepoint its own folder, of a checkpoint the one that holds all checkpoints of the job.
    pub folder: String,
    /// The user's request behind it.
    pub operation: Option<OperationId>,
    /// With [`Purpose::Rescale`]: parallelism by vertex; vertices that are not named stay as they are.
    pub parallelism: BTreeMap<VertexId, u32>,
}

impl CheckpointRequest {
    /// The folder of the snapshot with this id.
    pub(super) fn folder_of(&self, id: u64) -> String {
        match self.kind.is_savepoint() {
            true => self.folder.clone(),
            false => format!("{}/chk-{id}", self.folder.trim_end_matches('/')),
        }
    }
}

/// Where the checkpoints of a job, whose folders stand side by side, keep the files that they share.
pub fn shared_folder_of(checkpoint_folder: &str) -> Option<String> {
    checkpoint_folder.rsplit_once('/').map(|(parent, _)| format!("{parent}/shared"))
}

/// How a snapshot went, in Flink's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Tasks that have handed in their part, those that had finished among them.
    pub acknowledged: u32,
    /// When the last of them did (milliseconds since 1970); 0: none has.
    pub last_ack_ms: u64,
    /// Bytes that it wrote.
    pub written_bytes: u64,
    /// Bytes of all that it names.
    pub state_bytes: u64,
    /// Bytes processed while barriers were aligned.
    pub processed_bytes: u64,
    /// Bytes of records in flight.
    pub persisted_bytes: u64,
    /// Bytes of its manifest.
    pub manifest_bytes: u64,
    /// Whether barriers overtook records.
    pub unaligned: bool,
}

/// How far a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointOutcome {
    /// Under way.
    Pending,
    /// The job can go back to it.
    Completed {
        /// When (milliseconds since 1970).
        at_ms: u64,
    },
    /// It was given up.
    Failed {
        /// When (milliseconds since 1970).
        at_ms: u64,
        /// Why.
        reason: String,
    },
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// From 1, growing over the life of the job.
    pub id: u64,
    /// Whose it is.
    pub kind: SnapshotKind,
    /// What follows it.
    pub purpose: Purpose,
    /// How barriers pass tasks with several channels.
    pub alignment: Alignment,
    /// Its folder: path or URI.
    pub folder: String,
    /// The user's request behind it.
    pub operation: Option<OperationId>,
    /// When it was begun (milliseconds since 1970).
    pub triggered_ms: u64,
    /// Tasks of the job at that time.
    pub tasks: u32,
    /// How it went; of one that is under way, nothing.
    pub stats: CheckpointStats,
    /// How far it is.
    pub outcome: CheckpointOutcome,
}

impl CheckpointRecord {
    /// The barrier that separates what it holds from the rest.
    pub fn barrier(&self) -> Barrier {
        Barrier {
            checkpoint: self.id,
            timestamp_ms: i64::try_from(self.triggered_ms).unwrap_or(i64::MAX),
            kind: self.kind,
            after: self.purpose.after(),
            alignment: self.alignment,
        }
    }

    /// Where it puts what later checkpoints may share; nothing for a snapshot that shares nothing.
    pub fn shared_folder(&self) -> Option<String> {
        match self.kind {
            SnapshotKind::Checkpoint => shared_folder_of(&self.folder),
            SnapshotKind::FullCheckpoint | SnapshotKind::Savepoint(_) => None,
        }
    }

    /// When it ended (milliseconds since 1970).
    pub fn ended_ms(&self) -> Option<u64> {
        match self.outcome {
            CheckpointOutcome::Pending => None,
            CheckpointOutcome::Completed { at_ms } | CheckpointOutcome::Failed { at_ms, .. } => Some(at_ms),
        }
    }

    /// Whether the job can go back to it.
    pub fn is_completed(&self) -> bool {
        matches!(self.outcome, CheckpointOutcome::Completed { .. })
    }

    fn to_restore(&self) -> RestoreFrom {
        RestoreFrom {
            folder: self.folder.clone(),
            checkpoint: self.id,
            ignore_unclaimed: false,
            own: !self.kind.is_savepoint(),
        }
    }
}

/// A stop or a change of parallelism under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Its snapshot.
    pub checkpoint: u64,
    /// Whether that is complete: tasks commit and finish.
    pub completed: bool,
    /// What follows.
    pub purpose: Purpose,
    /// The folder of the snapshot.
    pub folder: String,
    /// The user's request.
    pub operation: Option<OperationId>,
    /// With [`Purpose::Rescale`]: the vertices that change.
    pub parallelism: BTreeMap<VertexId, u32>,
}

/// A user's request about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// What was asked for.
    pub purpose: Purpose,
    /// When (milliseconds since 1970).
    pub at_ms: u64,
    /// The snapshot it led to; 0: none.
    pub checkpoint: u64,
    /// What came of it: the folder of the snapshot, or why not.
    pub result: Option<Result<String, String>>,
}

/// What tasks were started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The snapshot.
    pub from: Arc<RestoreFrom>,
    /// When (milliseconds since 1970).
    pub at_ms: u64,
}

/// The snapshots of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobCheckpoints {
    /// The highest id given, also to those that failed; at the start that of the snapshot the job starts from.
    pub(super) last_id: u64,
    pub(super) pending: BTreeMap<u64, CheckpointRecord>,
    /// The job's own, the oldest first: no more than it retains.
    pub(super) retained: VecDeque<CheckpointRecord>,
    /// The user's, the oldest first.
    pub(super) savepoints: VecDeque<CheckpointRecord>,
    /// Those that ended last, the oldest first.
    pub(super) history: VecDeque<CheckpointRecord>,
    pub(super) latest_completed: Option<CheckpointRecord>,
    pub(super) latest_savepoint: Option<CheckpointRecord>,
    pub(super) latest_failed: Option<CheckpointRecord>,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) restores: u64,
    /// Failures that count, since the last complete one.
    pub(super) failures_in_a_row: u32,
    pub(super) closing: Option<Closing>,
    pub(super) operations: VecDeque<Operation>,
    /// What the tasks that are deployed now were started from.
    pub(super) restored: Option<Restored>,
    /// The snapshot that the job came with and owned is deleted.
    pub(super) claim_ended: bool,
}

impl JobCheckpoints {
    /// Of a job that starts from a snapshot, or from nothing.
    pub(super) fn new(restore: Option<&RestoreFrom>) -> Self {
        // Behind an id out of all reason there would soon be none left.
        let last_id = restore.map_or(0, |restore| restore.checkpoint).min(CHECKPOINT_ID_MAX / 2);
        JobCheckpoints { last_id, ..JobCheckpoints::default() }
    }

    /// Those under way, by id.
    pub fn pending(&self) -> impl DoubleEndedIterator<Item = &CheckpointRecord> + ExactSizeIterator {
        self.pending.values()
    }

    /// One that is under way.
    pub fn pending_one(&self, id: u64) -> Option<&CheckpointRecord> {
        self.pending.get(&id)
    }

    /// The highest id given so far.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The job's own that are complete and kept, the oldest first.
    pub fn retained(&self) -> impl DoubleEndedIterator<Item = &CheckpointRecord> + ExactSizeIterator {
        self.retained.iter()
    }

    /// Whether the snapshot is one of [`JobCheckpoints::retained`].
    pub fn is_retained(&self, id: u64) -> bool {
        self.retained.iter().any(|kept| kept.id == id)
    }

    /// The latest savepoints that are complete and were not disposed of, the oldest first.
    pub fn savepoints(&self) -> impl DoubleEndedIterator<Item = &CheckpointRecord> + ExactSizeIterator {
        self.savepoints.iter()
    }

    /// Those that ended last, the oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &CheckpointRecord> + ExactSizeIterator {
        self.history.iter()
    }

    /// The latest checkpoint, savepoint and failed one.
    pub fn latest(&self) -> [Option<&CheckpointRecord>; 3] {
        [self.latest_completed.as_ref(), self.latest_savepoint.as_ref(), self.latest_failed.as_ref()]
    }

    /// One that is remembered.
    pub fn find(&self, id: u64) -> Option<&CheckpointRecord> {
        let mut ended = self.history.iter().chain(self.latest().into_iter().flatten());
        self.pending.get(&id).or_else(|| ended.find(|one| one.id == id))
    }

    /// How many were completed.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// How often tasks were started from a snapshot.
    pub fn restores(&self) -> u64 {
        self.restores
    }

    /// What the tasks of the current deployment were started from.
    pub fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Whether the snapshot that the job came with and owned is deleted.
    pub fn claim_has_ended(&self) -> bool {
        self.claim_ended
    }

    /// The stop or change of parallelism under way.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// A request that is remembered.
    pub fn operation(&self, id: OperationId) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// What tasks are to be started from now: the newest complete snapshot, else the one the job came with. A savepoint counts only if the job
    /// was to end with it: sinks have not committed with others, which are the user's and may be gone (Flink: FLIP-203).
    pub(super) fn newest(&self) -> Option<RestoreFrom> {
        let ending = self.savepoints.iter().filter(|one| one.purpose.ends_tasks());
        let newest = self.retained.back().into_iter().chain(ending);
        newest.max_by_key(|one| one.id).map(CheckpointRecord::to_restore)
    }

    pub(super) fn begin_operation(&mut self, id: OperationId, purpose: Purpose, checkpoint: u64, at_ms: u64) {
        self.operations.push_back(Operation { id, purpose, at_ms, checkpoint, result: None });
        while self.operations.len() > OPERATIONS_MAX {
            // One that is under way is not forgotten: there are fewer than are kept.
            let Some(oldest) = self.operations.iter().position(|one| one.result.is_some()) else { return };
            self.operations.remove(oldest);
        }
    }

    pub(super) fn end_operation(&mut self, id: Option<OperationId>, result: Result<String, String>) {
        let mut operations = self.operations.iter_mut();
        if let Some(operation) = operations.find(|one| Some(one.id) == id && one.result.is_none()) {
            operation.result = Some(result);
        }
    }

    /// A snapshot under way is complete, or was given up.
    pub(super) fn end(&mut self, mut record: CheckpointRecord, outcome: CheckpointOutcome) {
        record.outcome = outcome;
        let latest = match (&record.outcome, record.kind.is_savepoint()) {
            (CheckpointOutcome::Failed { .. }, _) => {
                self.failed += 1;
                &mut self.latest_failed
            }
            (_, true) => {
                self.completed += 1;
                &mut self.latest_savepoint
            }
            (_, false) => {
                self.completed += 1;
                &mut self.latest_completed
            }
        };
        *latest = Some(record.clone());
        self.history.push_back(record);
        while self.history.len() > CHECKPOINT_HISTORY_MAX {
            self.history.pop_front();
        }
    }

    /// A snapshot under way is given up, and with it the request behind it.
    pub(super) fn give_up(&mut self, record: CheckpointRecord, reason: String, at_ms: u64) {
        self.end_operation(record.operation, Err(reason.clone()));
        self.end(record, CheckpointOutcome::Failed { at_ms, reason });
    }

    /// What is wrong with them, if something is. `is_running`: the state of the job; `retained_max`: how many it keeps.
    pub(super) fn check(&self, is_running: bool, retained_max: usize) -> Result<(), String> {
        let ensure = |holds: bool, broken: &str| if holds { Ok(()) } else { Err(broken.to_string()) };
        ensure(self.pending.is_empty() || is_running, "a snapshot is under way of a job that does not run")?;
        ensure(self.closing.is_none() || is_running, "a job that does not run is about to stop or change")?;
        ensure(self.pending.len() <= PENDING_CHECKPOINTS_MAX, "too many snapshots are under way")?;
        ensure(self.retained.len() <= retained_max, "too many checkpoints are retained")?;
        ensure(self.savepoints.len() <= SAVEPOINTS_MAX, "too many savepoints are remembered")?;
        ensure(self.history.len() <= CHECKPOINT_HISTORY_MAX, "too many snapshots are remembered")?;
        let all = self.pending.values().chain(&self.retained).chain(&self.savepoints).chain(&self.history);
        ensure(all.clone().all(|one| one.id <= self.last_id), "a snapshot has an id that was never given")?;
        let under_way = |one: &CheckpointRecord| one.outcome == CheckpointOutcome::Pending;
        ensure(
            self.pending.iter().all(|(id, one)| *id == one.id && under_way(one)),
            "a snapshot is misplaced",
        )?;
        let kept = self.retained.iter().chain(&self.savepoints);
        ensure(kept.clone().all(CheckpointRecord::is_completed), "a snapshot is kept that is not complete")?;
        let ascending = self.retained.iter().zip(self.retained.iter().skip(1)).all(|(a, b)| a.id < b.id);
        ensure(ascending, "checkpoints are retained out of order")?;
        let newest = self.retained.back().map_or(0, |one| one.id);
        let older = self.pending.values().any(|one| one.id < newest && !one.kind.is_savepoint());
        ensure(!older, "a checkpoint is under way that is older than a complete one")?;
        if let Some(closing) = &self.closing {
            let open = self.pending.contains_key(&closing.checkpoint);
            ensure(open != closing.completed, "a stop or a change of parallelism waits for no snapshot")?;
        }
        let awaited: BTreeSet<OperationId> = self.pending.values().filter_map(|one| one.operation).collect();
        let closing = self.closing.as_ref().and_then(|closing| closing.operation);
        let open = self.operations.iter().filter(|operation| operation.result.is_none());
        let lost = open.map(|operation| operation.id).any(|id| !awaited.contains(&id) && Some(id) != closing);
        ensure(!lost, "a request waits for nothing")
    }
}

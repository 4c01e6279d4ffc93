//! A snapshot that is being taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::graph::JobGraph;
use flott_schema::ids::{AttemptId, JobId, TaskId};
use flott_schema::snapshot::{Manifest, ManifestOperator, ManifestVertex, SnapshotKind, TaskSnapshot};

use super::action::Now;
use super::details::{CheckpointDetails, PartDetails};
use crate::machine::{CheckpointRecord, CheckpointStats, JobRecord};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Tasks have yet to hand in.
    Collecting,
    /// The manifest is being written.
    Storing,
    /// Its end is on its way into the log.
    Ending,
}

/// A snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) kind: SnapshotKind,
    pub(super) folder: String,
    pub(super) deadline_ms: u64,
    /// Whether it has yet to begin, since others are being taken.
    pub(super) awaits_its_turn: bool,
    pub(super) stage: Stage,
    pub(super) stats: CheckpointStats,
    pub(super) details: CheckpointDetails,
    waiting: BTreeSet<AttemptId>,
    /// Those of them whose last part does not stand for one in this.
    with_own_part: BTreeSet<AttemptId>,
    parts: BTreeMap<TaskId, Arc<TaskSnapshot>>,
    graph: Arc<JobGraph>,
    triggered_ms: u64,
}

impl Pending {
    /// One that the machine has just begun: tasks that run have to hand in, those that have handed in their last part did so
    /// before.
    pub(super) fn new(job: &JobRecord, record: &CheckpointRecord, deadline_ms: u64) -> Self {
        let mut pending = Pending {
            id: record.id,
            kind: record.kind,
            folder: record.folder.clone(),
            deadline_ms,
            awaits_its_turn: job.awaits_its_turn(record.id),
            stage: Stage::Collecting,
            stats: CheckpointStats::default(),
            details: CheckpointDetails { id: record.id, parts: BTreeMap::new() },
            waiting: BTreeSet::new(),
            with_own_part: BTreeSet::new(),
            parts: BTreeMap::new(),
            graph: job.graph().clone(),
            triggered_ms: record.triggered_ms,
        };
        for task in job.vertices().iter().flat_map(|vertex| vertex.tasks()) {
            // Its end may not be known yet; it answers no order any more.
            if let Some(last) = task.last_snapshot() {
                pending.stats.acknowledged += 1;
                pending.stats.state_bytes += last.times.state_bytes;
                pending.parts.insert(task.attempt().task, last.clone());
            } else {
                pending.waiting.insert(task.attempt());
            }
        }
        pending
    }

    /// Takes a task's part. False: it is not waited for.
    pub(super) fn take(&mut self, attempt: AttemptId, part: Arc<TaskSnapshot>, now: Now) -> bool {
        if part.task != attempt.task || !self.waiting.remove(&attempt) {
            return false;
        }
        let times = part.times;
        let stats = &mut self.stats;
        stats.acknowledged += 1;
        stats.last_ack_ms = stats.last_ack_ms.max(now.wall_ms);
        stats.written_bytes += times.written_bytes;
        stats.state_bytes += times.state_bytes;
        stats.processed_bytes += times.processed_bytes;
        stats.persisted_bytes += times.persisted_bytes;
        stats.unaligned |= times.unaligned;
        let finished = part.finished;
        self.details.parts.insert(attempt.task, PartDetails { at_ms: now.wall_ms, times, finished });
        self.parts.insert(attempt.task, part);
        true
    }

    pub(super) fn waits_for(&self, attempt: AttemptId) -> bool {
        self.waiting.contains(&attempt)
    }

    /// The task hands in a part of its own, whatever else is heard of it.
    pub(super) fn expect_own_part(&mut self, attempt: AttemptId) {
        if self.waits_for(attempt) {
            self.with_own_part.insert(attempt);
        }
    }

    /// Whether the last part of a task stands for the one that is waited for.
    pub(super) fn waits_for_last(&self, attempt: AttemptId) -> bool {
        self.waits_for(attempt) && !self.with_own_part.contains(&attempt)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tasks that have yet to hand in, in words; no more than a few.
    pub(super) fn missing(&self) -> String {
        let name = |attempt: &AttemptId| {
            let vertex = self.graph.vertex(attempt.task.vertex);
            let name = vertex.map_or("?", |vertex| vertex.name.as_str());
            format!("'{name}' ({})", u64::from(attempt.task.subtask) + 1)
        };
        let mut names: Vec<String> = self.waiting.iter().take(3).map(name).collect();
        if self.waiting.len() > names.len() {
            names.push(format!("{} more", self.waiting.len() - names.len()));
        }
        names.join(", ")
    }

    /// The tasks that had finished when they handed in.
    pub(super) fn finished(&self) -> impl Iterator<Item = TaskId> {
        self.parts.values().filter(|part| part.finished).map(|part| part.task)
    }

    /// All of it as the file that makes it a snapshot.
    pub(super) fn manifest(&self, job: JobId) -> Manifest {
        let vertices = self.graph.vertices.iter().map(|vertex| ManifestVertex {
            vertex: vertex.id,
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            operators: vertex
                .operators
                .iter()
                .map(|operator| ManifestOperator {
                    operator: operator.id,
                    uid: operator.uid.clone(),
                    name: operator.name.clone(),
                })
                .collect(),
        });
        let in_order =
            self.graph.vertices.iter().flat_map(|vertex| {
                (0..vertex.parallelism).map(|subtask| TaskId { vertex: vertex.id, subtask })
            });
        Manifest {
            job,
            job_name: self.graph.name.clone(),
            checkpoint: self.id,
            kind: self.kind,
            timestamp_ms: i64::try_from(self.triggered_ms).unwrap_or(i64::MAX),
            vertices: vertices.collect(),
            tasks: in_order
                .filter_map(|task| self.parts.get(&task))
                .map(|part| TaskSnapshot::clone(part))
                .collect(),
        }
    }
}

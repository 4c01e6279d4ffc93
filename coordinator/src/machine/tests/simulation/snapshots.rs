//! Snapshots in a simulated cluster: a leader's ledger of them, and what a test can see of them from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::CheckpointOrder;
use flott_schema::ids::{AttemptId, JobId, VertexId};
use flott_schema::snapshot::{
    Alignment, RestoreFrom, SavepointFormat, SnapshotKind, SnapshotTimes, TaskSnapshot,
};

use super::World;
use crate::machine::{CheckpointRequest, CheckpointStats, Event, OperationId, Purpose};

/// What the test knows of snapshots.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The ledger of the leader: who has yet to hand in.
    open: BTreeMap<(JobId, u64), BTreeSet<AttemptId>>,
    /// The highest id that was ever ordered.
    last: BTreeMap<JobId, u64>,
    /// Those that are complete, by folder.
    complete: BTreeMap<JobId, BTreeMap<u64, String>>,
    /// Those that a job may go back to: not the savepoints beside which it goes on.
    restorable: BTreeMap<JobId, BTreeMap<u64, String>>,
    requests: u128,
    pub(super) completed: u32,
    pub(super) failed: u32,
    pub(super) stopped: u32,
    pub(super) rescaled: u32,
    pub(super) refused: u32,
    pub(super) restored: u32,
}

impl World {
    /// Somebody wants a snapshot, or the interval is over.
    pub(super) fn request_snapshot(&mut self) {
        let ready = self.state.jobs().filter(|job| job.snapshot_obstacle().is_none()).map(|job| job.id());
        let ready: Vec<JobId> = ready.collect();
        let job = match self.random.percent(70) {
            true => self.random.pick(ready),
            false => self.random.pick(self.jobs.keys().copied()),
        };
        let Some(job) = job else { return };
        let purpose = match self.random.below(12) {
            0 => Purpose::Stop,
            1 => Purpose::Drain,
            2..5 => Purpose::Rescale,
            5 if self.random.percent(20) => Purpose::Cancel,
            _ => Purpose::GoOn,
        };
        let is_savepoint =
            purpose != Purpose::Rescale && (purpose != Purpose::GoOn || self.random.percent(20));
        self.snapshots.requests += 1;
        let number = self.snapshots.requests;
        let record = self.state.job(job).unwrap();
        let mut parallelism: BTreeMap<VertexId, u32> = BTreeMap::new();
        if purpose == Purpose::Rescale {
            for vertex in record.graph().vertices.iter().map(|vertex| vertex.id).collect::<Vec<_>>() {
                // Sometimes too many, so that slots are short.
                parallelism.insert(vertex, 1 + self.random.below(5) as u32);
            }
        }
        let request = CheckpointRequest {
            kind: match is_savepoint {
                true => SnapshotKind::Savepoint(SavepointFormat::Canonical),
                false => SnapshotKind::Checkpoint,
            },
            purpose,
            alignment: Alignment::Aligned,
            folder: if is_savepoint {
                format!("/savepoints/{number}")
            } else {
                format!("/checkpoints/{job}")
            },
            operation: (purpose != Purpose::GoOn || self.random.percent(30)).then_some(OperationId(number)),
            parallelism,
        };
        let event = Event::CheckpointRequested { job, request, at_ms: self.now_ms };
        self.said.push(event.clone());
        self.apply(event);
    }

    /// An order of the leader: it notes who has to hand in.
    pub(super) fn note_order(&mut self, order: &CheckpointOrder) {
        let CheckpointOrder { job, barrier, attempts, .. } = order;
        let last = self.snapshots.last.entry(*job).or_default();
        assert!(*last <= barrier.checkpoint, "an id is given twice");
        let is_new = self.snapshots.open.contains_key(&(*job, barrier.checkpoint));
        assert!(is_new || *last < barrier.checkpoint, "an id is given twice");
        *last = barrier.checkpoint;
        self.snapshots.open.entry((*job, barrier.checkpoint)).or_default().extend(attempts);
    }

    /// A task has handed in, or has finished.
    pub(super) fn acknowledge(&mut self, job: JobId, checkpoint: Option<u64>, attempt: AttemptId) {
        let mut whole = Vec::new();
        for ((of, id), waiting) in &mut self.snapshots.open {
            let is_meant = *of == job && checkpoint.is_none_or(|checkpoint| checkpoint == *id);
            if is_meant && waiting.remove(&attempt) && waiting.is_empty() {
                whole.push(*id);
            }
        }
        for id in whole {
            self.snapshots.open.remove(&(job, id));
            self.complete(job, id);
        }
    }

    fn complete(&mut self, job: JobId, checkpoint: u64) {
        let pending = self.state.job(job).and_then(|job| job.checkpoints().pending_one(checkpoint)).cloned();
        if let Some(pending) = pending {
            self.snapshots.completed += 1;
            if !pending.kind.is_savepoint() || pending.purpose.ends_tasks() {
                let restorable = self.snapshots.restorable.entry(job).or_default();
                restorable.insert(checkpoint, pending.folder.clone());
            }
            self.snapshots.complete.entry(job).or_default().insert(checkpoint, pending.folder);
            if pending.purpose == Purpose::Cancel {
                self.jobs.get_mut(&job).unwrap().cancelled = true;
            }
        }
        let stats = CheckpointStats::default();
        let event = Event::CheckpointCompleted { job, checkpoint, stats, at_ms: self.now_ms };
        self.said.push(event.clone());
        self.apply(event);
    }

    /// One takes too long, or a part of it fails.
    pub(super) fn fail_snapshot(&mut self) {
        let pending =
            self.state.jobs().flat_map(|job| job.checkpoints().pending().map(|one| (job.id(), one.id)));
        let Some((job, checkpoint)) = self.random.pick(pending) else { return };
        let counts = self.random.percent(50);
        self.give_up_snapshot(job, checkpoint, counts);
    }

    fn give_up_snapshot(&mut self, job: JobId, checkpoint: u64, counts: bool) {
        self.snapshots.failed += 1;
        self.snapshots.open.remove(&(job, checkpoint));
        // It may be one too many, or one behind which the job cannot go on.
        self.harm(job);
        self.apply(Event::CheckpointFailed {
            job,
            checkpoint,
            reason: "simulated".into(),
            counts,
            stats: CheckpointStats::default(),
            at_ms: self.now_ms,
        });
    }

    /// The next leader gives up what was under way.
    pub(super) fn take_over_snapshots(&mut self) {
        self.snapshots.open.clear();
        let pending =
            self.state.jobs().flat_map(|job| job.checkpoints().pending().map(|one| (job.id(), one.id)));
        for (job, checkpoint) in pending.collect::<Vec<_>>() {
            self.give_up_snapshot(job, checkpoint, false);
        }
    }

    /// Tasks start from the newest complete snapshot of their job, and from nothing else.
    pub(super) fn check_restore(&mut self, job: JobId, restore: Option<&Arc<RestoreFrom>>) {
        let newest = self.snapshots.restorable.get(&job).and_then(|complete| complete.last_key_value());
        let expected = newest.map(|(id, folder)| (*id, folder.as_str()));
        assert_eq!(restore.map(|restore| (restore.checkpoint, restore.folder.as_str())), expected);
        self.snapshots.restored += u32::from(restore.is_some());
    }

    pub(super) fn check_ended(&self, job: JobId, checkpoint: u64, completed: bool) {
        let known =
            self.snapshots.complete.get(&job).is_some_and(|complete| complete.contains_key(&checkpoint));
        assert_eq!(known, completed, "what workers are told of snapshot {checkpoint} of job {job}");
    }

    /// Nothing is left open, and every request has an answer.
    pub(super) fn assert_snapshots_at_rest(&mut self) {
        for job in self.state.jobs() {
            let checkpoints = job.checkpoints();
            assert_eq!(checkpoints.pending().count(), 0);
            assert_eq!(checkpoints.closing(), None);
            for number in 1..=self.snapshots.requests {
                let Some(operation) = checkpoints.operation(OperationId(number)) else { continue };
                match (operation.result.as_ref().expect("every request is answered"), operation.purpose) {
                    (Ok(_), Purpose::Stop | Purpose::Drain) => self.snapshots.stopped += 1,
                    (Ok(_), Purpose::Rescale) => self.snapshots.rescaled += 1,
                    (Ok(_), _) => {}
                    (Err(_), _) => self.snapshots.refused += 1,
                }
            }
        }
    }
}

/// A last snapshot.
pub(in crate::machine::tests) fn last_of(attempt: AttemptId) -> Arc<TaskSnapshot> {
    Arc::new(TaskSnapshot {
        task: attempt.task,
        finished: true,
        operators: Vec::new(),
        channels: Vec::new(),
        times: SnapshotTimes::default(),
    })
}

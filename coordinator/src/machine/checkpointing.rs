//! Snapshots: how they begin, end, and what they are good for afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_schema::control::{CheckpointOrder, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::graph::ExecutionMode;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::snapshot::{Barrier, RestoreFrom, TaskSnapshot};

use super::checkpoint::{
    CHECKPOINT_ID_MAX, CheckpointOutcome, CheckpointRecord, CheckpointRequest, CheckpointStats, Closing,
    PENDING_CHECKPOINTS_MAX, Purpose, Restored, SAVEPOINTS_MAX,
};
use super::event::Effect;
use super::exception::JobException;
use super::job::{JobFailure, JobRecord, JobState};
use super::slots::SlotTable;
use super::step::Step;
use super::task::TaskRecord;

/// Bytes of the reason of a failed snapshot that are kept.
const REASON_BYTES_MAX: usize = 4 << 10;

impl JobRecord {
    /// Why no snapshot of the job can be begun at this moment, if none can.
    pub fn snapshot_obstacle(&self) -> Option<String> {
        if self.graph().mode == ExecutionMode::Batch {
            return Some("a batch job takes no snapshots: it runs its stages again instead".into());
        }
        if self.state != JobState::Running {
            return Some(format!(
                "the job is {}; snapshots are taken while it is RUNNING",
                self.state.word()
            ));
        }
        if let Some(closing) = &self.checkpoints.closing {
            let what = match closing.purpose {
                Purpose::Rescale => "its parallelism is being changed",
                _ => "it is being stopped",
            };
            return Some(format!("{what}, with snapshot {}", closing.checkpoint));
        }
        if self.checkpoints.pending.len() >= PENDING_CHECKPOINTS_MAX {
            return Some(format!(
                "{PENDING_CHECKPOINTS_MAX} snapshots of the job are under way; try again later"
            ));
        }
        if self.checkpoints.last_id >= CHECKPOINT_ID_MAX {
            return Some("no id is left for another snapshot".into());
        }
        self.task_obstacle()
    }

    /// Why its tasks cannot take a snapshot at this moment, if they cannot.
    fn task_obstacle(&self) -> Option<String> {
        let mut running = false;
        for (vertex, record) in self.graph().vertices.iter().zip(&self.vertices) {
            // What the counts say needs no look at each task.
            let counts = &record.counts;
            running |= counts.of(TaskState::Running) > 0;
            if counts.of(TaskState::Running) == counts.total() {
                continue;
            }
            for task in &record.tasks {
                let lacking = match task.state {
                    TaskState::Running => continue,
                    TaskState::Finished if task.last.is_some() => continue,
                    TaskState::Finished => "has finished and left no last snapshot".to_string(),
                    state => format!("is {}; try again when all tasks are RUNNING", state.word()),
                };
                return Some(format!(
                    "task '{}' (subtask {} of {}) {lacking}",
                    vertex.name,
                    u64::from(task.attempt.task.subtask) + 1,
                    vertex.parallelism
                ));
            }
        }
        (!running).then(|| "all its tasks have finished".into())
    }

    /// Why a snapshot that was asked for cannot be begun, if it cannot.
    pub(crate) fn request_obstacle(&self, request: &CheckpointRequest, slots: &SlotTable) -> Option<String> {
        self.snapshot_obstacle().or_else(|| match request.purpose {
            Purpose::Rescale => self.rescale_obstacle(&request.parallelism, slots),
            _ => None,
        })
    }

    /// Snapshots under way that have begun, the oldest first: no more than may be taken at once. Those behind them wait for
    /// their turn, and begin in the order of their ids. That of a change of parallelism has to itself what tasks can do, for nothing
    /// comes out until it is complete.
    fn begun(&self) -> impl Iterator<Item = u64> {
        let concurrent_max = self.spec.settings.checkpoints.max_concurrent.max(1) as usize;
        let begun = self.checkpoints.pending.values().take(concurrent_max).enumerate();
        begun
            .filter(|(position, one)| *position == 0 || one.purpose != Purpose::Rescale)
            .map(|(_, one)| one.id)
    }

    /// Whether a snapshot under way has yet to begin, since others are being taken.
    pub fn awaits_its_turn(&self, id: u64) -> bool {
        self.checkpoints.pending.contains_key(&id) && self.begun().all(|begun| begun != id)
    }

    /// Whether another snapshot would begin at once.
    fn has_room(&self) -> bool {
        self.checkpoints.pending.len() < self.spec.settings.checkpoints.max_concurrent.max(1) as usize
    }

    /// The workers that run tasks of the job, and which of those that are `meant`.
    fn running_tasks(&self, meant: impl Fn(&TaskRecord) -> bool) -> BTreeMap<WorkerId, Vec<AttemptId>> {
        let mut running: BTreeMap<WorkerId, Vec<AttemptId>> = BTreeMap::new();
        for task in self.vertices.iter().flat_map(|vertex| &vertex.tasks).filter(|task| meant(task)) {
            if let (TaskState::Running, Some(slot)) = (task.state, task.slot) {
                running.entry(slot.worker).or_default().push(task.attempt);
            }
        }
        running
    }

    /// What tasks are to be started from: the newest complete snapshot, else what the job was submitted with.
    pub(super) fn restore_point(&self) -> Option<RestoreFrom> {
        match self.graph().mode {
            ExecutionMode::Streaming => self.checkpoints.newest().or_else(|| self.spec.restore.clone()),
            ExecutionMode::Batch => None,
        }
    }

    /// Tasks are deployed anew: chooses what they start from.
    pub(super) fn choose_restore_point(&mut self, at_ms: u64) {
        let from = self.restore_point().map(Arc::new);
        self.checkpoints.restores += u64::from(from.is_some());
        self.checkpoints.restored = from.map(|from| Restored { from, at_ms });
    }

    /// What the tasks that are being deployed start from.
    pub(super) fn restore(&self) -> Option<Arc<RestoreFrom>> {
        self.checkpoints.restored.as_ref().map(|restored| restored.from.clone())
    }
}

impl Step<'_> {
    pub(super) fn request_checkpoint(&mut self, job: JobId, request: CheckpointRequest) {
        let at_ms = self.state.now_ms;
        let Some(record) = self.state.jobs.get_mut(&job) else {
            self.state.ignored.unknown_job += 1;
            return;
        };
        if request.operation.is_some_and(|id| record.checkpoints.operation(id).is_some()) {
            self.state.ignored.repeated += 1;
            return;
        }
        // The interval has no need to queue: it comes again.
        let crowded = || {
            let waits = request.operation.is_none() && !record.has_room();
            waits.then(|| "as many snapshots are under way as may be".to_string())
        };
        if let Some(obstacle) = record.request_obstacle(&request, &self.state.slots).or_else(crowded) {
            self.state.ignored.refused_checkpoint += 1;
            if let Some(operation) = request.operation {
                record.checkpoints.begin_operation(operation, request.purpose, 0, at_ms);
                record.checkpoints.end_operation(Some(operation), Err(obstacle));
                self.touch(job, false);
            }
            return;
        }

        let id = record.checkpoints.last_id + 1;
        let folder = request.folder_of(id);
        let begun = CheckpointRecord {
            id,
            kind: request.kind,
            purpose: request.purpose,
            alignment: request.alignment,
            folder: folder.clone(),
            operation: request.operation,
            triggered_ms: at_ms,
            tasks: record.counts().total(),
            stats: CheckpointStats::default(),
            outcome: CheckpointOutcome::Pending,
        };
        let checkpoints = &mut record.checkpoints;
        checkpoints.last_id = id;
        checkpoints.pending.insert(id, begun);
        if let Some(operation) = request.operation {
            checkpoints.begin_operation(operation, request.purpose, id, at_ms);
        }
        let parallelism = request.parallelism.clone();
        if request.purpose.ends_tasks() {
            checkpoints.closing = Some(Closing {
                checkpoint: id,
                completed: false,
                purpose: request.purpose,
                folder: folder.clone(),
                operation: request.operation,
                parallelism: request.parallelism,
            });
        }
        if request.purpose == Purpose::Rescale {
            self.prepare(job, &parallelism);
        }
        if !self.state.jobs[&job].awaits_its_turn(id) {
            self.order_snapshot(job, id);
        }
        self.touch(job, false);
    }

    /// Has a snapshot under way taken by the tasks.
    fn order_snapshot(&mut self, job: JobId, id: u64) {
        let record = &self.state.jobs[&job];
        let one = &record.checkpoints.pending[&id];
        // One that has waited for its turn has not waited on its way.
        let timestamp_ms = i64::try_from(self.state.now_ms).unwrap_or(i64::MAX);
        let barrier = Barrier { timestamp_ms, ..one.barrier() };
        let (folder, shared_folder) = (&one.folder, one.shared_folder());
        // Who has handed in its last part answers no more.
        let asked = record.running_tasks(|task| task.last.is_none());
        self.effects.extend(asked.into_iter().map(|(worker, attempts)| {
            let (folder, shared_folder) = (folder.clone(), shared_folder.clone());
            Effect::Checkpoint {
                worker,
                order: CheckpointOrder { job, barrier, folder, shared_folder, attempts },
            }
        }));
    }

    /// Snapshots have ended: begins those whose turn it is now, `begun` being the ones that had begun before.
    fn begin_waiting(&mut self, job: JobId, mut begun: Vec<u64>) {
        loop {
            // It may be over by what ended last.
            let Some(record) = self.state.jobs.get(&job).filter(|record| record.state == JobState::Running)
            else {
                return;
            };
            let Some(next) = record.begun().find(|id| !begun.contains(id)) else { return };
            match record.task_obstacle() {
                None => self.order_snapshot(job, next),
                Some(obstacle) => self.give_up_waiting(job, next, obstacle),
            }
            begun.push(next);
        }
    }

    /// Gives up a snapshot of which no task has heard.
    fn give_up_waiting(&mut self, job: JobId, id: u64, reason: String) {
        let at_ms = self.state.now_ms;
        let Some((record, one)) = self.take_pending(job, id) else { return };
        record.checkpoints.give_up(one, cut(reason), at_ms);
        let closing = record.checkpoints.closing.take_if(|closing| closing.checkpoint == id);
        self.not_closed(job, closing);
        self.touch(job, false);
    }

    /// A stop or a change of parallelism does not come about, and the job goes on as it was.
    fn not_closed(&mut self, job: JobId, closing: Option<Closing>) {
        if closing.is_some_and(|closing| closing.purpose == Purpose::Rescale) {
            self.release_prepared(job);
        }
    }

    fn begun(&self, job: JobId) -> Vec<u64> {
        self.state.jobs.get(&job).map_or_else(Vec::new, |record| record.begun().collect())
    }

    pub(super) fn complete_checkpoint(&mut self, job: JobId, id: u64, stats: CheckpointStats) {
        let at_ms = self.state.now_ms;
        let begun = self.begun(job);
        let Some((record, mut done)) = self.take_pending(job, id) else { return };
        done.stats = stats;
        let (operation, purpose, folder) = (done.operation, done.purpose, done.folder.clone());
        let is_savepoint = done.kind.is_savepoint();
        let retained_max = record.retained_max();
        let checkpoints = &mut record.checkpoints;
        checkpoints.failures_in_a_row = 0;
        checkpoints.end(done, CheckpointOutcome::Completed { at_ms });
        let done = checkpoints.history.back().cloned().expect("it was just noted");
        let (kept, kept_max) = match is_savepoint {
            true => (&mut checkpoints.savepoints, SAVEPOINTS_MAX),
            false => (&mut checkpoints.retained, retained_max),
        };
        kept.push_back(done);
        while kept.len() > kept_max {
            kept.pop_front();
        }
        let mut ended = vec![(id, true)];
        if !is_savepoint {
            // What is older is of no use to the job any more.
            let older = checkpoints.pending.range(..id).filter(|(_, one)| !one.kind.is_savepoint());
            for older in older.map(|(older, _)| *older).collect::<Vec<_>>() {
                let one = checkpoints.pending.remove(&older).expect("it was just found");
                let reason = format!("checkpoint {id}, which is newer, was complete before it");
                checkpoints.give_up(one, reason, at_ms);
                ended.push((older, false));
            }
        }
        match &mut checkpoints.closing {
            Some(closing) if closing.checkpoint == id => closing.completed = true,
            _ => checkpoints.end_operation(operation, Ok(folder)),
        }
        self.tell_ended(job, &ended);
        if purpose == Purpose::Cancel {
            self.cancel(job);
        }
        self.begin_waiting(job, begun);
        self.touch(job, false);
    }

    /// `counts`: whether too many of the kind in a row are a failure of the job.
    pub(super) fn fail_checkpoint(
        &mut self,
        job: JobId,
        id: u64,
        reason: String,
        counts: bool,
        stats: CheckpointStats,
    ) {
        if self.state.jobs.get(&job).is_some_and(|record| record.awaits_its_turn(id)) {
            return self.give_up_waiting(job, id, reason);
        }
        let at_ms = self.state.now_ms;
        let begun = self.begun(job);
        let Some((record, mut one)) = self.take_pending(job, id) else { return };
        one.stats = stats;
        let (kind, purpose) = (one.kind, one.purpose);
        let tolerable = record.spec.settings.checkpoints.tolerable_failures;
        let checkpoints = &mut record.checkpoints;
        let reason = cut(reason);
        checkpoints.give_up(one, reason.clone(), at_ms);
        let closing = checkpoints.closing.take_if(|closing| closing.checkpoint == id);
        let counts = counts && !kind.is_savepoint();
        checkpoints.failures_in_a_row += u32::from(counts);
        let failures = checkpoints.failures_in_a_row;
        self.tell_ended(job, &[(id, false)]);
        self.touch(job, false);
        let message = match purpose {
            // Its tasks are past the end of event time and cannot go back.
            Purpose::Drain => format!("the job could not be stopped: snapshot {id} failed: {reason}"),
            _ if counts && failures > tolerable => format!(
                "checkpoint {id} failed, and {failures} in a row are more than execution.checkpointing.\
                 tolerable-failed-checkpoints allows, which is {tolerable}: {reason}"
            ),
            _ => {
                self.not_closed(job, closing);
                return self.begin_waiting(job, begun);
            }
        };
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.checkpoints.failures_in_a_row = 0;
        let regions = (0..record.regions.len()).filter(|region| record.regions[*region].placed).collect();
        let cause = JobFailure::Job { kind: ErrorKind::Io, message };
        self.fail(job, JobException::of_job(at_ms, cause), regions);
        self.settle(job);
    }

    /// A task has finished but for its report, and this is its part of all snapshots to come.
    pub(super) fn keep_last(&mut self, job: JobId, attempt: AttemptId, snapshot: Arc<TaskSnapshot>) {
        let ignored = &mut self.state.ignored;
        let Some(record) = self.state.jobs.get_mut(&job) else {
            ignored.unknown_job += 1;
            return;
        };
        let Some(task) = record.task(attempt.task) else {
            ignored.unknown_task += 1;
            return;
        };
        if snapshot.task != attempt.task {
            ignored.unknown_task += 1;
            return;
        }
        if task.attempt != attempt {
            ignored.stale_attempt += 1;
            return;
        }
        let position = record.positions[&attempt.task.vertex];
        let task = &mut record.vertices[position].tasks[attempt.task.subtask as usize];
        match task.state {
            // Reports may overtake each other: it may be known already that it has finished.
            TaskState::Deploying | TaskState::Initializing | TaskState::Running | TaskState::Finished
                if task.last.is_none() =>
            {
                task.last = Some(snapshot);
            }
            TaskState::Canceling => ignored.overtaken += 1,
            _ => ignored.repeated += 1,
        }
        self.touch(job, false);
    }

    /// The user has taken a savepoint away: no job goes back to it.
    pub(super) fn dispose(&mut self, folder: &str) {
        let folder = folder.trim_end_matches('/');
        for job in self.state.jobs.values_mut() {
            job.checkpoints.savepoints.retain(|one| one.folder.trim_end_matches('/') != folder);
        }
    }

    /// The snapshot that the job has claimed is deleted.
    pub(super) fn end_claim(&mut self, job: JobId) {
        match self.state.jobs.get_mut(&job) {
            Some(record) => record.checkpoints.claim_ended = true,
            None => self.state.ignored.unknown_job += 1,
        }
    }

    /// The job runs no more, or not as it did: what was under way is given up, and requests learn what came of them.
    pub(super) fn drop_pending(&mut self, job: JobId, state: JobState) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        let checkpoints = &mut record.checkpoints;
        for one in std::mem::take(&mut checkpoints.pending).into_values() {
            let reason = match state {
                JobState::Finished => "the job has finished before it was complete".to_string(),
                state => format!("the job is {}", state.word()),
            };
            checkpoints.give_up(one, reason, at_ms);
        }
        let Some(closing) = checkpoints.closing.take() else { return };
        let Closing { purpose, folder, operation, .. } = closing;
        let result = match (purpose, state) {
            (Purpose::Stop | Purpose::Drain, JobState::Finished) => Ok(folder),
            (Purpose::Stop | Purpose::Drain, state) => Err(format!(
                "the savepoint in {folder} is complete, but the job is {} instead of FINISHED; see its exceptions",
                state.word()
            )),
            (_, state) => {
                Err(format!("the job is {} and keeps its parallelism; see its exceptions", state.word()))
            }
        };
        checkpoints.end_operation(operation, result);
    }

    /// A worker is back and may have missed how snapshots began and ended: what is under way is given up, and its tasks are
    /// told of what they may have seen.
    pub(super) fn end_missed(&mut self, worker: WorkerId, job: JobId) {
        // It may have ended by this very event, and been forgotten.
        let Some(record) = self.state.jobs.get(&job) else { return };
        if record.checkpoints.last_id == 0 {
            return;
        }
        // Of those that wait for their turn nothing was missed.
        for id in self.begun(job) {
            let reason = format!("the connection to worker {} was lost meanwhile", worker.0);
            self.fail_checkpoint(job, id, reason, false, CheckpointStats::default());
        }
        let Some(record) = self.state.jobs.get(&job) else { return };
        let latest = record.checkpoints.latest().into_iter().flatten();
        let mut ended: Vec<&CheckpointRecord> = latest.collect();
        ended.sort_unstable_by_key(|one| one.id);
        for one in ended {
            // A snapshot begins when all tasks run: those that ran later were deployed after it and know nothing of it.
            let saw = |task: &TaskRecord| {
                task.is_on(worker)
                    && task.entered_ms(TaskState::Running).is_some_and(|ran_ms| ran_ms <= one.triggered_ms)
            };
            let told = record.running_tasks(saw);
            self.effects.extend(told.into_iter().map(|(worker, attempts)| Effect::CheckpointEnded {
                worker,
                job,
                checkpoint: one.id,
                completed: one.is_completed(),
                attempts,
            }));
        }
    }

    fn tell_ended(&mut self, job: JobId, ended: &[(u64, bool)]) {
        let running = self.state.jobs[&job].running_tasks(|_| true);
        for (checkpoint, completed) in ended.iter().copied() {
            self.effects.extend(running.iter().map(|(worker, attempts)| Effect::CheckpointEnded {
                worker: *worker,
                job,
                checkpoint,
                completed,
                attempts: attempts.clone(),
            }));
        }
    }

    fn take_pending(&mut self, job: JobId, id: u64) -> Option<(&mut JobRecord, CheckpointRecord)> {
        let Some(record) = self.state.jobs.get_mut(&job) else {
            self.state.ignored.unknown_job += 1;
            return None;
        };
        let Some(one) = record.checkpoints.pending.remove(&id) else {
            self.state.ignored.stale_checkpoint += 1;
            return None;
        };
        Some((record, one))
    }
}

/// A reason that a log can hold.
fn cut(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push_str("...");
    }
    reason
}

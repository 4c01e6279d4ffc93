//! The ledger of one job.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flott_schema::config::options::CheckpointRetention;
use flott_schema::control::SnapshotReport;
use flott_schema::error::ErrorKind;
use flott_schema::graph::ExecutionMode;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::job::CheckpointSettings;
use flott_schema::snapshot::{Manifest, SnapshotKind, TaskSnapshot};

use super::action::{Action, ClaimedSnapshot, Deletion, Now, Survey, Surveyed};
use super::details::CheckpointDetails;
use super::pending::{Pending, Stage};
use super::registry::{Registry, shared_name, shared_names};
use super::request::checkpoint_request;
use super::trigger::Trigger;
use crate::machine::{CheckpointRecord, CheckpointStats, Event, JobRecord, JobState, Purpose};

/// Snapshots that have ended whose details are kept.
const DETAILS_MAX: usize = 10;

/// How long after it failed what the leader before has left is looked at again: at first, and at most.
const SURVEY_PAUSE_MIN_MS: u64 = 1_000;
const SURVEY_PAUSE_MAX_MS: u64 = 60_000;

/// Files that could not be deleted and are tried again, at most.
const RETRIED_MAX: usize = 10_000;

/// The ledger of one job.
#[derive(Debug)]
pub(super) struct JobLedger {
    job: JobId,
    settings: CheckpointSettings,
    /// The folder of all its checkpoints.
    folder: String,
    pending: BTreeMap<u64, Pending>,
    /// Checkpoints that the job can go back to.
    retained: BTreeSet<u64>,
    /// The folder of the snapshot that the job was started from and has claimed, until its own have taken its place.
    claimed: Option<String>,
    registry: Registry,
    /// Whether the registry is whole; else nothing that is shared is deleted.
    surveyed: bool,
    /// When to look again at what the leader before has left, after it could not be seen.
    survey_again_ms: Option<u64>,
    survey_pause_ms: u64,
    /// Shared files that were there and nobody was known to need, while what is being taken may.
    unsettled: Vec<String>,
    pub(super) trigger: Trigger,
    ended: VecDeque<CheckpointDetails>,
    failed_deletions: Deletion,
}

impl JobLedger {
    /// Of a job that is new, or new to this leader.
    pub(super) fn new(record: &JobRecord, folder: String, actions: &mut Vec<Action>) -> Self {
        let checkpoints = record.checkpoints();
        let retained: BTreeSet<u64> = checkpoints.retained().map(|one| one.id).collect();
        let mut ledger = JobLedger {
            job: record.id(),
            settings: record.spec().settings.checkpoints.clone(),
            folder,
            pending: BTreeMap::new(),
            retained,
            // What a leader before has deleted and could not say so is found to be gone.
            claimed: claimed(record),
            registry: Registry::default(),
            surveyed: true,
            survey_again_ms: None,
            survey_pause_ms: SURVEY_PAUSE_MIN_MS,
            unsettled: Vec::new(),
            trigger: Trigger::default(),
            ended: VecDeque::new(),
            failed_deletions: Deletion::default(),
        };
        // One of an earlier leader may have left files.
        if checkpoints.pending().len() > 0 || checkpoints.latest().iter().any(Option::is_some) {
            ledger.surveyed = false;
            ledger.survey(record, actions);
        }
        ledger
    }

    fn survey(&self, record: &JobRecord, actions: &mut Vec<Action>) {
        let retained = record.checkpoints().retained().map(|one| (one.id, one.folder.clone())).collect();
        actions.push(Action::Survey(Survey { job: self.job, folder: self.folder.clone(), retained }));
    }

    /// The job has changed: what is under way and what is kept is compared with what was.
    pub(super) fn look(&mut self, record: &JobRecord, now: Now, actions: &mut Vec<Action>) {
        let checkpoints = record.checkpoints();
        let gone: Vec<u64> =
            self.pending.keys().copied().filter(|id| checkpoints.pending_one(*id).is_none()).collect();
        for id in gone {
            let ended = checkpoints.find(id).is_some_and(CheckpointRecord::is_completed)
                || checkpoints.is_retained(id);
            self.end(id, ended, now, actions);
        }
        let kept: BTreeSet<u64> = checkpoints.retained().map(|one| one.id).collect();
        let subsumed: Vec<u64> = self.retained.difference(&kept).copied().collect();
        self.retained = kept;
        for id in subsumed {
            self.discard(id, actions);
        }
        // The claimed one is the oldest of those that are retained.
        if self.retained.len() >= (self.settings.num_retained as usize).max(1)
            && let Some(folder) = self.claimed.take()
        {
            self.discard_claimed(folder, actions);
        }
        self.settle(actions);
        let deadline_ms = now.clock_ms.saturating_add(self.settings.timeout_ms);
        for one in self.pending.values_mut().filter(|one| one.awaits_its_turn) {
            if !record.awaits_its_turn(one.id) {
                (one.awaits_its_turn, one.deadline_ms) = (false, deadline_ms);
            }
        }
        for one in checkpoints.pending() {
            if let Entry::Vacant(place) = self.pending.entry(one.id) {
                place.insert(Pending::new(record, one, deadline_ms));
                if one.purpose == Purpose::GoOn {
                    self.trigger.began(&self.settings, now.clock_ms);
                }
                self.advance(one.id, now, actions);
            }
        }
        self.trigger.look(record, &self.settings, now.clock_ms);
    }

    /// The job is over: what becomes of its checkpoints is settled.
    pub(super) fn close(&mut self, record: &JobRecord, now: Now, actions: &mut Vec<Action>) {
        self.look(record, now, actions);
        let is_damaged = record.failure().is_some_and(|failure| failure.kind() == ErrorKind::Snapshot);
        let goes = match (record.state(), self.settings.retention) {
            // What is whole of them may be all that there is to go on from.
            (JobState::Failed, _) if is_damaged => false,
            (JobState::Finished, _) | (_, CheckpointRetention::NoExternalizedCheckpoints) => true,
            (JobState::Canceled, CheckpointRetention::DeleteOnCancellation) => true,
            (_, CheckpointRetention::DeleteOnCancellation | CheckpointRetention::RetainOnCancellation) => {
                false
            }
        };
        if !goes {
            return;
        }
        // A job that ends before it has got anywhere leaves it to whoever has started it.
        let has_taken_over = record.state() == JobState::Finished || !self.retained.is_empty();
        if let Some(folder) = self.claimed.take_if(|_| has_taken_over) {
            self.discard_claimed(folder, actions);
        }
        if record.checkpoints().last_id() == 0 {
            return;
        }
        let mut deletion = std::mem::take(&mut self.failed_deletions);
        deletion.trees.extend(record.checkpoints().retained().map(|one| one.folder.clone()));
        deletion.trees.push(format!("{}/shared", self.folder));
        // Only if nothing else is in it.
        deletion.empty_folder = Some(self.folder.clone());
        deletion.job = Some(self.job);
        actions.push(Action::Delete(deletion));
    }

    /// A task has handed in its part, or says why it cannot.
    pub(super) fn part(&mut self, report: SnapshotReport, now: Now, actions: &mut Vec<Action>) {
        let SnapshotReport { attempt, checkpoint, result, .. } = report;
        let expected = self.pending.get_mut(&checkpoint).filter(|pending| pending.waits_for(attempt));
        match (expected, result) {
            (Some(_), Err(reason)) => {
                let task = format!(
                    "subtask {} of vertex {}",
                    u64::from(attempt.task.subtask) + 1,
                    attempt.task.vertex
                );
                self.fail(checkpoint, format!("{task}: {reason}"), true, now, actions);
            }
            (Some(pending), Ok(part)) => {
                let part = Arc::new(part);
                if !pending.kind.is_savepoint() {
                    shared_names(&part).for_each(|name| self.registry.need(name, checkpoint));
                }
                if !pending.take(attempt, part, now) {
                    let reason = "a task handed in a part that is another's".to_string();
                    return self.fail(checkpoint, reason, true, now, actions);
                }
                self.advance(checkpoint, now, actions);
            }
            (None, Ok(part)) => self.drop_stale(checkpoint, &part, actions),
            (None, Err(_)) => {}
        }
    }

    /// A last part is on its way into the log; it does not stand for those up to `handed_in`, of which the task's own parts may come later.
    pub(super) fn last_comes(&mut self, attempt: AttemptId, handed_in: u64) {
        self.pending.range_mut(..=handed_in).for_each(|(_, one)| one.expect_own_part(attempt));
    }

    /// A task has handed in its last part, which counts where it has not handed in another.
    pub(super) fn last(
        &mut self,
        attempt: AttemptId,
        part: &Arc<TaskSnapshot>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let waiting: Vec<u64> =
            self.pending.values().filter(|one| one.waits_for_last(attempt)).map(|one| one.id).collect();
        for id in waiting {
            if let Some(pending) = self.pending.get_mut(&id)
                && pending.take(attempt, part.clone(), now)
            {
                self.advance(id, now, actions);
            }
        }
    }

    /// A manifest is stored, or is not.
    pub(super) fn stored(
        &mut self,
        checkpoint: u64,
        result: Result<u64, String>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(pending) = self.pending.get_mut(&checkpoint) else {
            // It was given up meanwhile, and its folder deleted before the manifest came.
            if !self.retained.contains(&checkpoint) {
                let trees = vec![self.own_folder(checkpoint)];
                actions.push(Action::Delete(Deletion { job: Some(self.job), trees, ..Deletion::default() }));
            }
            return;
        };
        match result {
            Ok(manifest_bytes) if pending.stage == Stage::Storing => {
                pending.stage = Stage::Ending;
                let stats = CheckpointStats { manifest_bytes, ..pending.stats };
                let (job, at_ms) = (self.job, now.wall_ms);
                actions.push(Action::Propose(Event::CheckpointCompleted { job, checkpoint, stats, at_ms }));
            }
            Ok(_) => {}
            Err(reason) => self.fail(checkpoint, format!("its manifest: {reason}"), true, now, actions),
        }
    }

    /// What the leader before has left is known, or could not be seen.
    pub(super) fn surveyed(&mut self, surveyed: Surveyed, last_id: u64, now: Now, actions: &mut Vec<Action>) {
        let Surveyed { manifests, files, folders, .. } = surveyed;
        let Some(manifests) = manifests else {
            self.survey_again_ms = Some(now.clock_ms.saturating_add(self.survey_pause_ms));
            self.survey_pause_ms = (self.survey_pause_ms * 2).min(SURVEY_PAUSE_MAX_MS);
            return;
        };
        for (id, names) in manifests {
            // It may have been subsumed meanwhile; then nothing needs them on its account.
            if self.retained.contains(&id) {
                names.iter().for_each(|name| self.registry.need(name, id));
            }
        }
        self.surveyed = true;
        self.unsettled = files.into_iter().filter(|name| !self.registry.is_needed(name)).collect();
        let mut deletion = Deletion { job: Some(self.job), ..Deletion::default() };
        let is_over =
            |id: &u64| *id <= last_id && !self.retained.contains(id) && !self.pending.contains_key(id);
        deletion.trees.extend(folders.into_iter().filter(is_over).map(|id| self.own_folder(id)));
        if !deletion.is_empty() {
            actions.push(Action::Delete(deletion));
        }
        self.settle(actions);
    }

    /// Deletes what was there and nobody needs, once nothing is under way: what is being written is not known before it is
    /// handed in.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        if !self.pending.is_empty() || self.unsettled.is_empty() {
            return;
        }
        let unneeded =
            std::mem::take(&mut self.unsettled).into_iter().filter(|name| !self.registry.is_needed(name));
        let files: Vec<String> = unneeded.map(|name| self.shared_file(&name)).collect();
        if !files.is_empty() {
            actions.push(Action::Delete(Deletion { job: Some(self.job), files, ..Deletion::default() }));
        }
    }

    /// What could not be deleted.
    pub(super) fn not_deleted(&mut self, failed: Deletion) {
        let kept = &mut self.failed_deletions;
        kept.files.extend(failed.files);
        kept.trees.extend(failed.trees);
        kept.claimed = failed.claimed.or(kept.claimed.take());
        kept.files.truncate(RETRIED_MAX);
        kept.trees.truncate(RETRIED_MAX);
    }

    /// What has come due.
    pub(super) fn tick(
        &mut self,
        record: &JobRecord,
        now: Now,
        is_away: impl Fn(WorkerId) -> bool,
        actions: &mut Vec<Action>,
    ) {
        if self.survey_again_ms.take_if(|again_ms| *again_ms <= now.clock_ms).is_some() {
            self.survey(record, actions);
        }
        let late: Vec<u64> = self
            .pending
            .values()
            .filter(|one| one.deadline_ms <= now.clock_ms && one.stage != Stage::Ending)
            .map(|one| one.id)
            .collect();
        for id in late {
            let pending = &self.pending[&id];
            let waits = match pending.stage {
                Stage::Collecting if pending.awaits_its_turn => {
                    "it waited for those before it to end".to_string()
                }
                Stage::Collecting => format!("it waited for {}", pending.missing()),
                Stage::Storing | Stage::Ending => "its manifest was being written".to_string(),
            };
            let timeout_ms = self.settings.timeout_ms;
            self.fail(id, format!("it was not complete within {timeout_ms} ms; {waits}"), true, now, actions);
        }
        if self.begins_ms().is_none_or(|begins_ms| begins_ms > now.clock_ms) {
            return;
        }
        if record.placements().any(|place| is_away(place.slot.worker)) {
            // Its tasks would not hear of it.
            self.trigger.postpone(now.clock_ms);
        } else {
            self.trigger.asked = true;
            let settings = &self.settings;
            let folder = self.folder.clone();
            let request = checkpoint_request(settings, SnapshotKind::Checkpoint, folder);
            let (job, at_ms) = (record.id(), now.wall_ms);
            actions.push(Action::Propose(Event::CheckpointRequested { job, request, at_ms }));
        }
    }

    /// When there is something to do next.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let open = self.pending.values().filter(|one| one.stage != Stage::Ending);
        let deadline = open.map(|one| one.deadline_ms).min();
        [deadline, self.begins_ms(), self.survey_again_ms].into_iter().flatten().min()
    }

    fn begins_ms(&self) -> Option<u64> {
        // The user's are barriers under way like any others.
        self.trigger.next_ms(&self.settings, self.pending.len())
    }

    /// A snapshot, task by task, if it is remembered.
    pub(super) fn details(&self, id: u64) -> Option<&CheckpointDetails> {
        let pending = self.pending.get(&id).map(|pending| &pending.details);
        pending.or_else(|| self.ended.iter().find(|one| one.id == id))
    }

    /// How far the one under way is.
    pub(super) fn stats(&self, id: u64) -> Option<CheckpointStats> {
        self.pending.get(&id).map(|pending| pending.stats)
    }

    /// All have handed in: the manifest is written.
    fn advance(&mut self, id: u64, _: Now, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if pending.stage == Stage::Collecting && pending.is_whole() {
            pending.stage = Stage::Storing;
            let manifest: Box<Manifest> = Box::new(pending.manifest(self.job));
            let folder = pending.folder.clone();
            actions.push(Action::Store { job: self.job, checkpoint: id, folder, manifest });
        }
    }

    pub(super) fn fail(
        &mut self,
        id: u64,
        reason: String,
        counts: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(pending) = self.pending.get_mut(&id).filter(|pending| pending.stage != Stage::Ending) else {
            return;
        };
        pending.stage = Stage::Ending;
        let (job, stats, at_ms) = (self.job, pending.stats, now.wall_ms);
        actions.push(Action::Propose(Event::CheckpointFailed {
            job,
            checkpoint: id,
            reason,
            counts,
            stats,
            at_ms,
        }));
    }

    /// One is complete or given up, for all coordinators.
    fn end(&mut self, id: u64, completed: bool, now: Now, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        let finished: BTreeSet<_> = pending.finished().collect();
        self.trigger.ended(completed, |attempt| finished.contains(&attempt.task), now.clock_ms);
        if !completed {
            if pending.kind.is_savepoint() {
                // Its folder was made for it, and holds nothing else.
                let trees = vec![pending.folder.clone()];
                actions.push(Action::Delete(Deletion { job: Some(self.job), trees, ..Deletion::default() }));
            } else {
                self.discard(id, actions);
            }
        }
        self.ended.push_back(pending.details);
        while self.ended.len() > DETAILS_MAX {
            self.ended.pop_front();
        }
    }

    /// A checkpoint is no more: its folder goes, and what it alone needed.
    fn discard(&mut self, id: u64, actions: &mut Vec<Action>) {
        let unneeded = self.registry.release(id);
        let mut deletion = std::mem::take(&mut self.failed_deletions);
        deletion.job = Some(self.job);
        if self.surveyed {
            deletion.files.extend(unneeded.iter().map(|name| self.shared_file(name)));
        }
        deletion.trees.push(self.own_folder(id));
        actions.push(Action::Delete(deletion));
    }

    /// The snapshot that the job has claimed is no more, and so is what it alone needed.
    fn discard_claimed(&mut self, folder: String, actions: &mut Vec<Action>) {
        let claimed = Some(Box::new(ClaimedSnapshot { folder }));
        actions.push(Action::Delete(Deletion { job: Some(self.job), claimed, ..Deletion::default() }));
    }

    /// A part of a snapshot that has ended: what it alone needed is of no use.
    fn drop_stale(&self, checkpoint: u64, part: &TaskSnapshot, actions: &mut Vec<Action>) {
        if self.retained.contains(&checkpoint) || self.pending.contains_key(&checkpoint) {
            return;
        }
        let mut deletion = Deletion { job: Some(self.job), ..Deletion::default() };
        for file in part.files() {
            match shared_name(&file.path) {
                Some(name) if self.surveyed && !self.registry.is_needed(name) => {
                    deletion.files.push(self.shared_file(name));
                }
                Some(_) => {}
                // Of a savepoint it may be; that has a folder of another name, which stays as it is.
                None if !file.path.contains("..") => {
                    deletion.files.push(format!("{}/{}", self.own_folder(checkpoint), file.path));
                }
                None => {}
            }
        }
        if !deletion.is_empty() {
            actions.push(Action::Delete(deletion));
        }
    }

    fn own_folder(&self, id: u64) -> String {
        format!("{}/chk-{id}", self.folder)
    }

    fn shared_file(&self, name: &str) -> String {
        format!("{}/shared/{name}", self.folder)
    }
}

/// The snapshot that a job was submitted with and owns.
fn claimed(record: &JobRecord) -> Option<String> {
    let restore = record.spec().restore.as_ref().filter(|restore| restore.own)?;
    if record.checkpoints().claim_has_ended() {
        return None;
    }
    (record.graph().mode == ExecutionMode::Streaming).then(|| restore.folder.clone())
}

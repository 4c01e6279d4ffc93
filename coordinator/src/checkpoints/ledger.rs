//! The ledger of all jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_schema::control::SnapshotReport;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::snapshot::{Alignment, SnapshotKind, TaskSnapshot};

use super::action::{Action, Deletion, Now, Surveyed};
use super::details::CheckpointDetails;
use super::job::JobLedger;
use super::places::Places;
use super::request::checkpoint_request;
use crate::machine::{
    CheckpointRequest, CheckpointStats, ClusterState, Event, JobRecord, OperationId, Purpose,
};

/// Snapshots under way of all jobs that are not over, as long as this coordinator leads.
#[derive(Debug)]
pub struct Ledger {
    places: Places,
    jobs: BTreeMap<JobId, JobLedger>,
    actions: Vec<Action>,
    deletions_failed: u64,
}

impl Ledger {
    /// Of a coordinator that does not lead yet.
    pub fn new(places: Places) -> Self {
        Ledger { places, jobs: BTreeMap::new(), actions: Vec::new(), deletions_failed: 0 }
    }

    /// Where snapshots go.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The coordinator leads no longer.
    pub fn clear(&mut self) {
        self.jobs.clear();
        self.actions.clear();
    }

    /// The coordinator begins to lead: what was under way is given up, since nobody knows what was handed in.
    pub fn take_over(&mut self, state: &ClusterState, now: Now) {
        self.clear();
        for record in state.jobs().filter(|job| !job.state().is_terminal()) {
            // The last first: none is to begin because those before it have ended.
            for pending in record.checkpoints().pending().rev() {
                self.actions.push(Action::Propose(Event::CheckpointFailed {
                    job: record.id(),
                    checkpoint: pending.id,
                    reason: "the coordinator that took it does not lead any more".into(),
                    counts: false,
                    stats: CheckpointStats::default(),
                    at_ms: now.wall_ms,
                }));
            }
            self.look(record, now);
        }
    }

    /// A job has changed.
    pub fn look(&mut self, record: &JobRecord, now: Now) {
        let job = record.id();
        let Ledger { places, jobs, actions, .. } = self;
        if record.state().is_terminal() {
            if let Some(mut ledger) = jobs.remove(&job) {
                ledger.close(record, now, actions);
            }
            return;
        }
        let ledger = jobs.entry(job).or_insert_with(|| {
            let settings = &record.spec().settings.checkpoints;
            let folder = places.of_job(job, settings);
            if settings.interval_ms.is_some() && settings.directory.is_none() {
                tracing::warn!(
                    %job,
                    folder,
                    "checkpoints go to the coordinator's own folder; set execution.checkpointing.dir to one that all hosts reach \
                     where workers run on others"
                );
            }
            JobLedger::new(record, folder, actions)
        });
        ledger.look(record, now, actions);
    }

    /// A request has been applied, whatever came of it.
    pub fn answered(&mut self, job: JobId) {
        if let Some(ledger) = self.jobs.get_mut(&job) {
            ledger.trigger.asked = false;
        }
    }

    /// A task has handed in its part of a snapshot.
    pub fn part(&mut self, report: SnapshotReport, now: Now) {
        if let Some(ledger) = self.jobs.get_mut(&report.job) {
            ledger.part(report, now, &mut self.actions);
        }
    }

    /// A task has handed in its part of all snapshots to come, behind those up to `handed_in`; it is yet to be committed.
    pub fn last_comes(&mut self, job: JobId, attempt: AttemptId, handed_in: u64) {
        if let Some(ledger) = self.jobs.get_mut(&job) {
            ledger.last_comes(attempt, handed_in);
        }
    }

    /// A task has handed in its part of all snapshots to come, and that is committed.
    pub fn last(&mut self, job: JobId, attempt: AttemptId, part: &Arc<TaskSnapshot>, now: Now) {
        if let Some(ledger) = self.jobs.get_mut(&job) {
            ledger.last(attempt, part, now, &mut self.actions);
        }
    }

    /// A task waits for a snapshot.
    pub fn wanted(&mut self, record: &JobRecord, attempt: AttemptId) {
        let known = record.task(attempt.task).is_some_and(|task| task.attempt() == attempt);
        if let Some(ledger) = self.jobs.get_mut(&record.id()).filter(|_| known) {
            ledger.trigger.want(record, attempt);
        }
    }

    /// The manifest of a snapshot is stored, in so many bytes, or cannot be.
    pub fn stored(&mut self, job: JobId, checkpoint: u64, result: Result<u64, String>, now: Now) {
        if let Some(ledger) = self.jobs.get_mut(&job) {
            ledger.stored(checkpoint, result, now, &mut self.actions);
        }
    }

    /// What the leader before has left. Where it could not be seen, it is looked at again after a while.
    pub fn surveyed(&mut self, record: &JobRecord, surveyed: Surveyed, now: Now) {
        if let Some(ledger) = self.jobs.get_mut(&record.id()) {
            ledger.surveyed(surveyed, record.checkpoints().last_id(), now, &mut self.actions);
        }
    }

    /// What could not be deleted: it is tried again with the next deletion of the job.
    pub fn not_deleted(&mut self, failed: Deletion) {
        self.deletions_failed +=
            (failed.files.len() + failed.trees.len() + usize::from(failed.claimed.is_some())) as u64;
        if let Some(ledger) = failed.job.and_then(|job| self.jobs.get_mut(&job)) {
            ledger.not_deleted(failed);
        }
    }

    /// The snapshot that a job has claimed is deleted. Of a job that is over nobody will ask.
    pub fn claim_ended(&mut self, job: JobId, now: Now) {
        if self.jobs.contains_key(&job) {
            self.actions.push(Action::Propose(Event::ClaimEnded { job, at_ms: now.wall_ms }));
        }
    }

    /// Files and folders that could not be deleted, each time it was tried.
    pub fn deletions_failed(&self) -> u64 {
        self.deletions_failed
    }

    /// What has come due. `is_away`: whether a worker has yet to return to this leader, or is behind with its orders; nothing begins
    /// without it.
    pub fn tick(&mut self, state: &ClusterState, now: Now, is_away: impl Fn(WorkerId) -> bool) {
        for (job, ledger) in &mut self.jobs {
            if ledger.next_due_ms().is_some_and(|due_ms| due_ms <= now.clock_ms)
                && let Some(record) = state.job(*job)
            {
                ledger.tick(record, now, &is_away, &mut self.actions);
            }
        }
    }

    /// When [`Ledger::tick`] has something to do, by the clock that never goes back.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.jobs.values().filter_map(JobLedger::next_due_ms).min()
    }

    /// A snapshot, task by task, if this leader has taken it and it is one of the latest.
    pub fn details(&self, job: JobId, checkpoint: u64) -> Option<&CheckpointDetails> {
        self.jobs.get(&job)?.details(checkpoint)
    }

    /// How far a snapshot under way is.
    pub fn stats(&self, job: JobId, checkpoint: u64) -> Option<CheckpointStats> {
        self.jobs.get(&job)?.stats(checkpoint)
    }

    /// A user's request as the job's settings want it. An error says what is missing.
    pub fn user_request(
        &self,
        record: &JobRecord,
        kind: SnapshotKind,
        purpose: Purpose,
        target: Option<&str>,
        operation: OperationId,
    ) -> flott_schema::error::Result<CheckpointRequest> {
        let settings = &record.spec().settings.checkpoints;
        let folder = match kind.is_savepoint() {
            true => {
                let random = (operation.0 ^ (operation.0 >> 64)) as u64;
                self.places.of_savepoint(record.id(), settings, target, random)?
            }
            false => self.places.of_job(record.id(), settings),
        };
        let request = checkpoint_request(settings, kind, folder);
        let alignment = if purpose.ends_tasks() { Alignment::Aligned } else { request.alignment };
        Ok(CheckpointRequest { purpose, alignment, operation: Some(operation), ..request })
    }
}

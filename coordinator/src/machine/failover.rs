//! Failover: which regions a failure takes back, and how they start again.
//!
//! The rule is that of Flink's pipelined-region failover. A region goes back as a whole. So does every region whose result
//! it has to read again and which is gone, and every region that read from one that goes back, because a result that is
//! made twice need not be the same.

use std::collections::BTreeSet;

use flott_schema::control::TaskState;
use flott_schema::error::ErrorKind;
use flott_schema::graph::{Exchange, ExecutionMode};
use flott_schema::ids::JobId;
use flott_schema::job::RestartStrategy;

use super::event::Effect;
use super::exception::{FailedTask, JobException};
use super::job::{JobRecord, JobState, PendingRestart};
use super::restart::Verdict;
use super::slots::{SlotOwner, SlotTable};
use super::state::ClusterState;
use super::step::Step;

impl Step<'_> {
    /// Notes a failure of a job that is not going down: its restart strategy decides whether these regions, and those that
    /// hang on them, start again, or the job fails. [`Step::settle`] follows.
    pub(super) fn fail(&mut self, job: JobId, mut exception: JobException, failed: BTreeSet<usize>) {
        let ClusterState { jobs, slots, now_ms, limits, .. } = &mut *self.state;
        let record = jobs.get_mut(&job).expect("its job is known");
        // What only somebody can put right fails again, however often it is tried.
        let strategy = match exception.cause.kind() {
            ErrorKind::Configuration | ErrorKind::Graph => RestartStrategy::None,
            // Going back further by itself would repeat what sinks have committed since.
            ErrorKind::Snapshot => {
                exception.cause.add(&advice(record));
                RestartStrategy::None
            }
            _ => record.spec.settings.restart,
        };
        let Verdict::Restart { delay_ms, is_new } = record.memory.note_failure(&strategy, job, *now_ms)
        else {
            record.failure = Some(exception.cause.clone());
            record.exceptions.push(exception, limits.exceptions_max);
            record.restart = None;
            self.enter(job, JobState::Failing);
            return self.stop_tasks(job);
        };

        exception.restarted = true;
        record.restarts = record.restarts.saturating_add(u32::from(is_new));
        match exception.as_concurrent() {
            Some(failed) if !is_new => record.exceptions.add_concurrent(failed),
            _ => record.exceptions.push(exception, limits.exceptions_max),
        }
        let regions = regions_to_restart(record, slots, failed);
        let number = record.delays;
        record.delays += 1;
        record.wait = None;
        record.restart = Some(PendingRestart {
            number,
            since_ms: *now_ms,
            delay_ms,
            expired: false,
            regions: regions.clone(),
        });
        if record.state != JobState::Restarting {
            self.enter(job, JobState::Restarting);
        }
        self.stop_regions(job, &regions);
        self.effects.push(Effect::StartRestartDelay { job, number, delay_ms });
    }

    /// Notes failures of tasks that were being stopped: they belong to what stopped them.
    pub(super) fn note_concurrent(&mut self, job: JobId, failed: impl IntoIterator<Item = FailedTask>) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        if matches!(record.state, JobState::Failing | JobState::Restarting) {
            record.exceptions.add_concurrent(failed);
        }
    }

    /// The delay before a restart is over.
    pub(super) fn end_delay(&mut self, job: JobId, number: u32) {
        let Some(record) = self.state.jobs.get_mut(&job) else {
            self.state.ignored.unknown_job += 1;
            return;
        };
        match &mut record.restart {
            Some(restart) if restart.number == number && !restart.expired => restart.expired = true,
            _ => {
                self.state.ignored.stale_restart_delay += 1;
                return;
            }
        }
        self.touch(job, true);
        self.settle(job);
    }

    /// Starts the regions again whose tasks have all ended, once the delay is over.
    pub(super) fn restart_if_due(&mut self, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        let over = |restart: &PendingRestart| restart.regions.iter().all(|region| record.is_over(*region));
        if !record.restart.as_ref().is_some_and(|restart| restart.expired && over(restart)) {
            return;
        }
        let restart = record.restart.take().expect("it was looked at above");
        let at_ms = self.state.now_ms;
        let job_epoch = record.epoch + 1;
        record.epoch = job_epoch;
        for region in restart.regions {
            let JobRecord { regions, vertices, .. } = &mut *record;
            regions[region].placed = false;
            for slot in std::mem::take(&mut regions[region].slots) {
                self.state.slots.release(slot, SlotOwner { job, region });
            }
            for position in &regions[region].shape.vertices {
                for subtask in 0..vertices[*position].tasks.len() {
                    vertices[*position].reset(subtask, job_epoch, at_ms);
                }
            }
        }
        // What starts from now on belongs to the new epoch.
        for task in record.vertices.iter_mut().flat_map(|vertex| &mut vertex.tasks) {
            if task.state == TaskState::Created {
                task.attempt.job_epoch = job_epoch;
            }
        }
        self.enter(job, JobState::Running);
        self.touch(job, true);
        // Before all others: the slots were kept for it.
        self.place_job(job);
        if self.state.jobs[&job].graph().mode == ExecutionMode::Streaming {
            self.release_prepared(job);
        }
        self.replan = true;
        // A job that waited for slots may have found them and finished during the delay.
        self.settle(job);
    }
}

/// What can be done about a snapshot of which a file is missing or damaged.
fn advice(record: &JobRecord) -> String {
    let damaged = record.restore().map_or(0, |from| from.checkpoint);
    let kept = record.checkpoints.retained().chain(record.checkpoints.savepoints());
    match kept.filter(|one| one.id < damaged).max_by_key(|one| one.id) {
        Some(older) => format!(
            "; snapshot {} before it is kept: 'flott savepoint inspect --verify {}' checks its files, and 'flott run -s {} PROGRAM' goes \
             on from it, which repeats the output since",
            older.id, older.folder, older.folder
        ),
        None if damaged > 0 => {
            "; no older snapshot of the job is kept (execution.checkpointing.num-retained keeps more)".into()
        }
        None => String::new(),
    }
}

/// The regions that go back with the failed ones, and with those that go back already.
fn regions_to_restart(record: &JobRecord, slots: &SlotTable, failed: BTreeSet<usize>) -> BTreeSet<usize> {
    let placed = |region: usize| record.regions[region].placed;
    if record.spec.settings.restart_all {
        return (0..record.regions.len()).filter(|region| placed(*region)).collect();
    }
    let mut open: Vec<usize> = failed.iter().copied().collect();
    open.extend(record.restart.iter().flat_map(|restart| &restart.regions));
    let mut found: BTreeSet<usize> = open.iter().copied().collect();
    while let Some(region) = open.pop() {
        let shape = &record.regions[region].shape;
        let lost = shape.inputs.iter().filter(|position| !has_results(record, slots, **position));
        let sources = lost.map(|position| record.region_of(*position));
        let reads = |reader: &usize| {
            let inputs = &record.regions[*reader].shape.inputs;
            inputs.iter().any(|position| record.region_of(*position) == region)
        };
        let readers = (0..record.regions.len()).filter(reads);
        let next: Vec<usize> = sources.chain(readers).filter(|next| placed(*next)).collect();
        open.extend(next.into_iter().filter(|next| found.insert(*next)));
    }
    found
}

/// Whether all results of the vertex at this position can be read.
fn has_results(record: &JobRecord, slots: &SlotTable, position: usize) -> bool {
    record.vertices[position].tasks.iter().all(|task| {
        let there = |worker| slots.workers().contains_key(&worker);
        task.state == TaskState::Finished
            && !task.result_lost
            && task.slot.is_some_and(|slot| there(slot.worker))
    })
}

/// Vertices whose spooled results are still needed: some reader has not finished, or will start again.
pub(super) fn missed_results(record: &JobRecord) -> BTreeSet<usize> {
    let restarting = |position: usize| record.is_restarting(record.region_of(position));
    let edges = record.graph.edges.iter().filter(|edge| edge.exchange == Exchange::Blocking);
    edges
        .map(|edge| (record.positions[&edge.source], record.positions[&edge.target]))
        .filter(|(_, target)| !record.vertices[*target].is_finished() || restarting(*target))
        .map(|(source, _)| source)
        .filter(|source| !restarting(*source))
        .collect()
}

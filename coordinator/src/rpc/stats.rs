//! The numbers that come with heartbeats, as long as they are of use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_schema::ids::{JobId, TaskId, WorkerId};
use flott_schema::stats::{TaskStats, WorkerStats, WorkerUsage};

use crate::live::{ReadStats, Sample, TaskSamples};

/// Jobs whose numbers are kept; the one that was heard of longest ago goes first. Above the number of ended jobs that are
/// remembered, with room for those that run.
const JOBS_MAX: usize = 2_000;

/// The latest numbers of workers and tasks, in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LiveStats {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    workers: BTreeMap<WorkerId, Sample<WorkerUsage>>,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Debug, Default)]
struct Job {
    heard_ms: u64,
    tasks: BTreeMap<TaskId, TaskSamples>,
}

impl LiveStats {
    /// No numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a heartbeat brought.
    pub(super) fn note(&self, worker: WorkerId, stats: WorkerStats, at_ms: u64) {
        let mut tables = self.lock();
        tables.workers.insert(worker, Sample { at_ms, value: stats.usage });
        for task in stats.tasks {
            let job = tables.jobs.entry(task.job).or_default();
            job.heard_ms = at_ms;
            job.note(task, at_ms);
        }
        while tables.jobs.len() > JOBS_MAX {
            let oldest = tables.jobs.iter().min_by_key(|(_, job)| job.heard_ms).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            tables.jobs.remove(&oldest);
        }
    }

    /// A worker is gone. What is known of its tasks stays, since their jobs may have ended well.
    pub(super) fn forget(&self, worker: WorkerId) {
        self.lock().workers.remove(&worker);
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Whoever panicked with the lock left numbers that are whole one by one.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn note(&mut self, stats: TaskStats, at_ms: u64) {
        match self.tasks.get_mut(&stats.attempt.task) {
            Some(samples) => samples.note(stats, at_ms),
            None => {
                self.tasks.insert(stats.attempt.task, TaskSamples::new(stats, at_ms));
            }
        }
    }
}

impl ReadStats for LiveStats {
    fn worker(&self, worker: WorkerId) -> Option<Sample<WorkerUsage>> {
        self.lock().workers.get(&worker).cloned()
    }

    fn tasks(&self, job: JobId) -> BTreeMap<TaskId, TaskSamples> {
        self.lock().jobs.get(&job).map(|job| job.tasks.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::{AttemptId, VertexId};

    use super::*;

    fn task(job: u128, attempt: u32, records_in: u64) -> TaskStats {
        let task = TaskId { vertex: VertexId(1), subtask: 0 };
        let attempt = AttemptId { task, job_epoch: attempt, attempt };
        TaskStats { records_in, ..TaskStats::new(JobId(job), attempt) }
    }

    fn heartbeat(tasks: Vec<TaskStats>) -> WorkerStats {
        WorkerStats { usage: WorkerUsage { cpu_ms: 5, ..WorkerUsage::default() }, tasks }
    }

    fn records(stats: &LiveStats) -> (u64, Option<u64>) {
        let tasks = stats.tasks(JobId(1));
        let samples = tasks.values().next().expect("the task is known");
        (samples.latest.value.records_in, samples.previous.as_ref().map(|sample| sample.value.records_in))
    }

    #[test]
    fn the_last_two_samples_of_an_attempt_are_kept() {
        let stats = LiveStats::new();
        for (at_ms, count) in [(1_000, 1), (2_000, 4), (3_000, 9)] {
            stats.note(WorkerId(1), heartbeat(vec![task(1, 0, count)]), at_ms);
        }
        assert_eq!(records(&stats), (9, Some(4)));
        assert_eq!(stats.worker(WorkerId(1)).map(|sample| sample.at_ms), Some(3_000));
    }

    #[test]
    fn a_new_attempt_starts_anew_and_an_old_one_is_ignored() {
        let stats = LiveStats::new();
        stats.note(WorkerId(1), heartbeat(vec![task(1, 0, 100)]), 10);
        stats.note(WorkerId(2), heartbeat(vec![task(1, 1, 3)]), 20);
        assert_eq!(records(&stats), (3, None));
        stats.note(WorkerId(1), heartbeat(vec![task(1, 0, 200)]), 30);
        assert_eq!(records(&stats), (3, None));
    }

    #[test]
    fn a_lost_worker_is_forgotten_and_its_tasks_are_not() {
        let stats = LiveStats::new();
        stats.note(WorkerId(1), heartbeat(vec![task(1, 0, 100)]), 10);
        stats.forget(WorkerId(1));
        assert_eq!(stats.worker(WorkerId(1)), None);
        assert_eq!(records(&stats), (100, None));
    }

    #[test]
    fn jobs_that_were_not_heard_of_for_long_go_first() {
        let stats = LiveStats::new();
        stats.note(WorkerId(1), heartbeat(vec![task(1, 0, 1)]), 10);
        for job in 2..=JOBS_MAX as u128 {
            stats.note(WorkerId(1), heartbeat(vec![task(job, 0, 1)]), 20);
        }
        assert!(!stats.tasks(JobId(1)).is_empty());
        stats.note(WorkerId(1), heartbeat(vec![task(u128::MAX, 0, 1)]), 30);
        assert!(stats.tasks(JobId(1)).is_empty());
        assert!(!stats.tasks(JobId(2)).is_empty());
    }
}

//! The whole state of the machine.

use std::collections::{BTreeMap, VecDeque};

use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::ProgramDigest;

use super::job::JobRecord;
use super::programs::StoredProgram;
use super::slots::{SlotTable, WorkerRecord};

/// How much the machine remembers. Every replica must be given the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the jobs that have ended, the last so many are kept.
    pub ended_jobs_max: usize,
    /// Of the exceptions of a job, the last so many are kept.
    pub exceptions_max: usize,
}

impl Default for Limits {
    /// A thousand jobs, and Flink's 16 exceptions.
    fn default() -> Self {
        Limits { ended_jobs_max: 1_000, exceptions_max: 16 }
    }
}

/// A timer that the leader has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Ends with [`super::Event::SlotWaitExpired`].
    SlotWait {
        /// The job.
        job: JobId,
        /// The number of the wait.
        wait: u32,
        /// When it began (milliseconds since 1970).
        since_ms: u64,
    },
    /// Ends with [`super::Event::RestartDelayExpired`].
    RestartDelay {
        /// The job.
        job: JobId,
        /// The number of the delay.
        number: u32,
        /// When it is over (milliseconds since 1970).
        due_ms: u64,
    },
}

/// Workers and jobs. Changed by [`super::apply`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    pub(super) slots: SlotTable,
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    /// Jobs that are not over, in the order of submission: the order in which they get slots.
    pub(super) open: Vec<JobId>,
    /// Jobs that are over, the oldest first.
    pub(super) ended: VecDeque<JobId>,
    pub(super) limits: Limits,
    /// The highest worker id ever given.
    pub(super) last_worker_id: u64,
    pub(super) programs: BTreeMap<ProgramDigest, StoredProgram>,
    /// The latest time stamp seen.
    pub(super) now_ms: u64,
    pub(super) ignored: Ignored,
}

impl ClusterState {
    /// No workers, no jobs.
    pub fn new(limits: Limits) -> Self {
        ClusterState {
            slots: SlotTable::default(),
            jobs: BTreeMap::new(),
            open: Vec::new(),
            ended: VecDeque::new(),
            limits,
            last_worker_id: 0,
            programs: BTreeMap::new(),
            now_ms: 0,
            ignored: Ignored::default(),
        }
    }

    /// Changes the limits, as a coordinator does that was configured anew. What is too much by them is forgotten.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.forget_oldest();
        for job in self.jobs.values_mut() {
            job.exceptions.keep(limits.exceptions_max);
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        while self.ended.len() > self.limits.ended_jobs_max {
            let oldest = self.ended.pop_front().expect("it is not empty");
            self.jobs.remove(&oldest);
        }
    }

    /// The job, running or ended and not yet forgotten.
    pub fn job(&self, job: JobId) -> Option<&JobRecord> {
        self.jobs.get(&job)
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values()
    }

    /// Jobs that are not over, in the order of submission.
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> {
        self.open.iter().copied()
    }

    /// The timers in course: what a new leader has to set.
    pub fn timers(&self) -> Vec<Timer> {
        let open = self.open.iter().map(|job| &self.jobs[job]);
        open.flat_map(|job| {
            let wait = job.wait.map(|wait| Timer::SlotWait {
                job: job.id,
                wait: wait.number,
                since_ms: wait.since_ms,
            });
            let restart = job.restart.as_ref().filter(|restart| !restart.expired);
            let delay = restart.map(|restart| Timer::RestartDelay {
                job: job.id,
                number: restart.number,
                due_ms: restart.since_ms.saturating_add(restart.delay_ms),
            });
            [wait, delay].into_iter().flatten()
        })
        .collect()
    }

    /// An id that no worker had before, as far as the state knows.
    pub fn next_worker_id(&self) -> WorkerId {
        WorkerId(self.last_worker_id.saturating_add(1))
    }

    /// How much is remembered.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The registered workers.
    pub fn workers(&self) -> &BTreeMap<WorkerId, WorkerRecord> {
        self.slots.workers()
    }

    /// Workers and who holds their slots.
    pub fn slots(&self) -> &SlotTable {
        &self.slots
    }

    /// Events that changed nothing, counted by why.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }
}

/// Events that changed nothing, counted by why. None is an error of the machine: reports cross with requests, links
/// repeat, workers that were given up come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Of a job that is not known (any more).
    pub unknown_job: u64,
    /// Of a task that the job does not have.
    pub unknown_task: u64,
    /// Of another deployment than the current one.
    pub stale_attempt: u64,
    /// A task that would come back to life or go backwards.
    pub impossible_transition: u64,
    /// Sent before the worker had seen the cancel request.
    pub overtaken: u64,
    /// Said before: a state the task is in, a cancel of a job that is going down or over.
    pub repeated: u64,
    /// A slot wait that is over.
    pub stale_slot_wait: u64,
    /// A restart delay that is over.
    pub stale_restart_delay: u64,
    /// A worker that is lost or back, and not registered.
    pub unknown_worker: u64,
    /// A registration under a known id, or with an absurd number of slots.
    pub refused_worker: u64,
    /// A submission under a known id, or of a graph that is not valid.
    pub refused_job: u64,
    /// A program that is removed and was not listed.
    pub unknown_program: u64,
    /// A snapshot that could not be begun.
    pub refused_checkpoint: u64,
    /// The end of a snapshot that is not under way (any more).
    pub stale_checkpoint: u64,
}

impl Ignored {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Ignored {
            unknown_job,
            unknown_task,
            stale_attempt,
            impossible_transition,
            overtaken,
            repeated,
            stale_slot_wait,
            stale_restart_delay,
            unknown_worker,
            refused_worker,
            refused_job,
            unknown_program,
            refused_checkpoint,
            stale_checkpoint,
        } = self;
        unknown_job
            + unknown_task
            + stale_attempt
            + impossible_transition
            + overtaken
            + repeated
            + stale_slot_wait
            + stale_restart_delay
            + unknown_worker
            + refused_worker
            + refused_job
            + unknown_program
            + refused_checkpoint
            + stale_checkpoint
    }
}

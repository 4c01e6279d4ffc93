//! The whole state of the machine.

use std::collections::{BTreeMap, VecDeque};

use flott_schema::ids::{JobId, WorkerId};

use super::job::JobRecord;
use super::slots::{SlotTable, WorkerRecord};

/// Workers and jobs. Changed by [`super::apply`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    pub(super) slots: SlotTable,
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    /// Jobs that are not over, in the order of submission: the order in which they get slots.
    pub(super) open: Vec<JobId>,
    /// Jobs that are over, the oldest first.
    pub(super) ended: VecDeque<JobId>,
    pub(super) ended_jobs_max: usize,
    /// The latest time stamp seen.
    pub(super) now_ms: u64,
    pub(super) ignored: Ignored,
}

impl ClusterState {
    /// No workers, no jobs. Of the jobs that have ended, the last `ended_jobs_max` are remembered; every replica must
    /// be given the same number.
    pub fn new(ended_jobs_max: usize) -> Self {
        ClusterState {
            slots: SlotTable::default(),
            jobs: BTreeMap::new(),
            open: Vec::new(),
            ended: VecDeque::new(),
            ended_jobs_max,
            now_ms: 0,
            ignored: Ignored::default(),
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
    /// A lost worker that is not registered.
    pub unknown_worker: u64,
    /// A registration under a known id, or with an absurd number of slots.
    pub refused_worker: u64,
    /// A submission under a known id, or of a graph that is not valid.
    pub refused_job: u64,
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
            unknown_worker,
            refused_worker,
            refused_job,
        } = self;
        unknown_job
            + unknown_task
            + stale_attempt
            + impossible_transition
            + overtaken
            + repeated
            + stale_slot_wait
            + unknown_worker
            + refused_worker
            + refused_job
    }
}

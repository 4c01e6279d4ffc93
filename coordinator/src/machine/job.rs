//! The record of a job: its graph, its tasks, its state and how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::{Placement, TaskFailure, TaskState};
use flott_schema::error::{Error, ErrorKind};
use flott_schema::graph::JobGraph;
use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, VertexId, WorkerId};
use flott_schema::job::JobSpec;

use super::checkpoint::JobCheckpoints;
use super::exception::{ExceptionHistory, FailedTask};
use super::region::{RegionShape, positions, regions_of};
use super::restart::RestartMemory;
use super::task::{StateTimes, TaskCounts, TaskRecord};
use crate::scheduler::SlotSharing;

/// State of a job, in Flink's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobState {
    /// Submitted; no task is placed yet.
    Created,
    /// Tasks run, or the next stage of a batch job waits for slots.
    Running,
    /// A task failed; the others are being stopped.
    Failing,
    /// Ended by a failure.
    Failed,
    /// Somebody asked it to end; its tasks are being stopped.
    Cancelling,
    /// Ended on request.
    Canceled,
    /// All tasks finished.
    Finished,
    /// A task failed; its region is being stopped and starts again after a delay. Other regions run on.
    Restarting,
}

impl JobState {
    /// All states; the discriminant is the index.
    pub const ALL: [JobState; 8] = [
        JobState::Created,
        JobState::Running,
        JobState::Failing,
        JobState::Failed,
        JobState::Cancelling,
        JobState::Canceled,
        JobState::Finished,
        JobState::Restarting,
    ];

    /// Whether the job is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, JobState::Failed | JobState::Canceled | JobState::Finished)
    }

    /// Flink's word.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Created => "CREATED",
            JobState::Running => "RUNNING",
            JobState::Failing => "FAILING",
            JobState::Failed => "FAILED",
            JobState::Cancelling => "CANCELLING",
            JobState::Canceled => "CANCELED",
            JobState::Finished => "FINISHED",
            JobState::Restarting => "RESTARTING",
        }
    }
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFailure {
    /// One of its tasks did.
    Task(TaskFailure),
    /// No task is to blame: there were not enough slots.
    Job {
        /// Who may act.
        kind: ErrorKind,
        /// What happened.
        message: String,
    },
}

impl JobFailure {
    /// Who may act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JobFailure::Task(failure) => failure.kind,
            JobFailure::Job { kind, .. } => *kind,
        }
    }

    /// Adds to what it says.
    pub(super) fn add(&mut self, text: &str) {
        match self {
            JobFailure::Task(failure) => failure.message.push_str(text),
            JobFailure::Job { message, .. } => message.push_str(text),
        }
    }

    /// The failure as an error; a task's names vertex and subtask.
    pub fn to_error(&self) -> Error {
        match self {
            JobFailure::Task(failure) => failure.to_error(),
            JobFailure::Job { kind, message } => Error::new(*kind, message.clone()),
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// All tasks finished.
    Finished,
    /// On request.
    Canceled,
    /// By its first failure.
    Failed(JobFailure),
}

/// A wait for slots in course. While tasks of the job run, none is: their ends will free slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWait {
    /// Counts the waits of the job, from 0.
    pub number: u32,
    /// When it began (milliseconds since 1970).
    pub since_ms: u64,
    /// Slots that the next region needs.
    pub needed: u32,
}

/// A restart on its way: its regions wait until all their tasks have ended and the delay is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRestart {
    /// Counts the delays of the job, from 0.
    pub number: u32,
    /// When the delay began (milliseconds since 1970).
    pub since_ms: u64,
    /// The delay.
    pub delay_ms: u64,
    /// Whether the delay is over.
    pub(super) expired: bool,
    /// Positions of the regions that start again. They keep their slots until then, so that a job that restarts does not
    /// lose its place to one that waits.
    pub(super) regions: BTreeSet<usize>,
}

impl PendingRestart {
    /// Whether the delay is over, and only tasks that have yet to end hold it up.
    pub fn delay_is_over(&self) -> bool {
        self.expired
    }
}

/// A vertex and its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexRecord {
    pub(super) tasks: Vec<TaskRecord>,
    pub(super) counts: TaskCounts,
}

impl VertexRecord {
    /// The tasks by parallel index.
    pub fn tasks(&self) -> &[TaskRecord] {
        &self.tasks
    }

    /// Tasks in each state.
    pub fn counts(&self) -> &TaskCounts {
        &self.counts
    }

    /// Whether all its tasks have finished: its results are complete.
    pub fn is_finished(&self) -> bool {
        self.counts.of(TaskState::Finished) as usize == self.tasks.len()
    }

    pub(super) fn enter(&mut self, subtask: usize, state: TaskState, at_ms: u64) {
        let task = &mut self.tasks[subtask];
        self.counts.remove(task.state);
        self.counts.add(state);
        task.state = state;
        task.times.enter(state as usize, at_ms);
    }

    /// Makes a task ready for its next deployment.
    pub(super) fn reset(&mut self, subtask: usize, job_epoch: u32, at_ms: u64) {
        let task = &mut self.tasks[subtask];
        self.counts.remove(task.state);
        task.reset(job_epoch, at_ms);
        self.counts.add(task.state);
    }
}

/// A region of the job and the slots it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) shape: RegionShape,
    pub(super) sharing: SlotSharing,
    pub(super) placed: bool,
    /// From its placement until its last task has ended.
    pub(super) slots: Vec<SlotId>,
}

/// A job, running or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    pub(super) id: JobId,
    pub(super) spec: Arc<JobSpec>,
    /// The graph of `spec` at the parallelism the job has now.
    pub(super) graph: Arc<JobGraph>,
    pub(super) positions: BTreeMap<VertexId, usize>,
    pub(super) state: JobState,
    pub(super) times: StateTimes<{ JobState::ALL.len() }>,
    pub(super) vertices: Vec<VertexRecord>,
    pub(super) regions: Vec<Region>,
    pub(super) region_of_vertex: Vec<usize>,
    /// Workers that were sent tasks and may keep something for the job. Those of a job that is over were told to
    /// drop it.
    pub(super) workers: BTreeSet<WorkerId>,
    pub(super) wait: Option<SlotWait>,
    pub(super) waits: u32,
    pub(super) failure: Option<JobFailure>,
    /// Counts the deployments of the job: every restart raises it.
    pub(super) epoch: u32,
    pub(super) restart: Option<PendingRestart>,
    /// Delays so far; the number of the next.
    pub(super) delays: u32,
    pub(super) restarts: u32,
    pub(super) memory: RestartMemory,
    pub(super) exceptions: ExceptionHistory,
    pub(super) checkpoints: JobCheckpoints,
}

impl JobRecord {
    /// A new job of a graph that has passed [`super::check_graph`].
    pub(super) fn new(id: JobId, spec: Arc<JobSpec>, at_ms: u64) -> Self {
        let graph = spec.effective_graph();
        let vertices = graph.vertices.iter().map(|vertex| {
            let task = |subtask| {
                let task = TaskId { vertex: vertex.id, subtask };
                TaskRecord::new(AttemptId { task, job_epoch: 0, attempt: 0 }, at_ms)
            };
            let mut record = VertexRecord {
                tasks: (0..vertex.parallelism).map(task).collect(),
                counts: TaskCounts::default(),
            };
            record.tasks.iter().for_each(|task| record.counts.add(task.state));
            record
        });
        let vertices = vertices.collect();
        let regions = regions_of(&graph).into_iter().map(|shape| {
            let members = shape.vertices.iter().map(|position| &graph.vertices[*position]);
            let sharing = SlotSharing::of(
                members.map(|vertex| (vertex.slot_sharing_group.as_str(), vertex.parallelism)),
            );
            Region { shape, sharing, placed: false, slots: Vec::new() }
        });
        let regions: Vec<Region> = regions.collect();
        let mut region_of_vertex = vec![0; graph.vertices.len()];
        for (region, Region { shape, .. }) in regions.iter().enumerate() {
            shape.vertices.iter().for_each(|position| region_of_vertex[*position] = region);
        }
        let mut times = StateTimes::default();
        times.enter(JobState::Created as usize, at_ms);
        JobRecord {
            id,
            positions: positions(&graph),
            checkpoints: JobCheckpoints::new(spec.restore.as_ref()),
            spec,
            graph,
            state: JobState::Created,
            times,
            vertices,
            regions,
            region_of_vertex,
            workers: BTreeSet::new(),
            wait: None,
            waits: 0,
            failure: None,
            epoch: 0,
            restart: None,
            delays: 0,
            restarts: 0,
            memory: RestartMemory::default(),
            exceptions: ExceptionHistory::default(),
        }
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Its graph, at the parallelism it has now.
    pub fn graph(&self) -> &Arc<JobGraph> {
        &self.graph
    }

    /// What it was submitted as.
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.spec
    }

    /// The state it is in.
    pub fn state(&self) -> JobState {
        self.state
    }

    /// When it entered `state`, if it ever did (milliseconds since 1970).
    pub fn entered_ms(&self, state: JobState) -> Option<u64> {
        self.times.get(state as usize)
    }

    /// Its vertices, in the order of the graph.
    pub fn vertices(&self) -> &[VertexRecord] {
        &self.vertices
    }

    /// The record of a task.
    pub fn task(&self, task: TaskId) -> Option<&TaskRecord> {
        let position = *self.positions.get(&task.vertex)?;
        self.vertices[position].tasks.get(task.subtask as usize)
    }

    /// Tasks in each state.
    pub fn counts(&self) -> TaskCounts {
        let mut counts = TaskCounts::default();
        self.vertices.iter().for_each(|vertex| counts.merge(&vertex.counts));
        counts
    }

    /// The wait for slots in course.
    pub fn slot_wait(&self) -> Option<SlotWait> {
        self.wait
    }

    /// The first failure: the one that made it fail.
    pub fn failure(&self) -> Option<&JobFailure> {
        self.failure.as_ref()
    }

    /// The restart on its way.
    pub fn pending_restart(&self) -> Option<&PendingRestart> {
        self.restart.as_ref()
    }

    /// Number of restarts since it was submitted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Its snapshots.
    pub fn checkpoints(&self) -> &JobCheckpoints {
        &self.checkpoints
    }

    /// Checkpoints that it keeps.
    pub(super) fn retained_max(&self) -> usize {
        (self.spec.settings.checkpoints.num_retained as usize).max(1)
    }

    /// What went wrong so far.
    pub fn exceptions(&self) -> &ExceptionHistory {
        &self.exceptions
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<JobOutcome> {
        match self.state {
            JobState::Finished => Some(JobOutcome::Finished),
            JobState::Canceled => Some(JobOutcome::Canceled),
            JobState::Failed => {
                Some(JobOutcome::Failed(self.failure.clone().expect("a failed job has a failure")))
            }
            JobState::Created
            | JobState::Running
            | JobState::Restarting
            | JobState::Failing
            | JobState::Cancelling => None,
        }
    }

    /// Every task that has a place, in the order of the graph.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let tasks = self.vertices.iter().flat_map(|vertex| &vertex.tasks);
        tasks.filter_map(|task| Some(Placement { attempt: task.attempt, slot: task.slot? }))
    }

    /// Tasks in each state, of one region.
    pub(super) fn region_counts(&self, region: usize) -> TaskCounts {
        let mut counts = TaskCounts::default();
        for position in &self.regions[region].shape.vertices {
            counts.merge(&self.vertices[*position].counts);
        }
        counts
    }

    /// Whether no task of a region lives.
    pub(super) fn is_over(&self, region: usize) -> bool {
        self.region_counts(region).live() == 0
    }

    /// Whether all results that a region reads are complete, and none of them is about to be made again.
    pub(super) fn is_ready(&self, region: usize) -> bool {
        let complete = |position: &usize| {
            self.vertices[*position].is_finished() && !self.is_restarting(self.region_of(*position))
        };
        self.regions[region].shape.inputs.iter().all(complete)
    }

    /// Whether a region waits for its restart.
    pub(super) fn is_restarting(&self, region: usize) -> bool {
        self.restart.as_ref().is_some_and(|restart| restart.regions.contains(&region))
    }

    /// The region of the vertex at this position.
    pub(super) fn region_of(&self, position: usize) -> usize {
        self.region_of_vertex[position]
    }

    /// A task with its failure.
    pub(super) fn failed_task(&self, attempt: AttemptId, failure: TaskFailure, at_ms: u64) -> FailedTask {
        let slot = self.task(attempt.task).and_then(|task| task.slot);
        FailedTask { at_ms, attempt, worker: slot.map(|slot| slot.worker), failure }
    }

    /// A failure of a task that no worker has described.
    pub(super) fn task_failure(&self, task: TaskId, kind: ErrorKind, message: String) -> TaskFailure {
        let position = self.positions.get(&task.vertex);
        let vertex = position.map(|position| &self.graph.vertices[*position]);
        TaskFailure {
            kind,
            vertex: vertex.map_or_else(String::new, |vertex| vertex.name.clone()),
            subtask: task.subtask,
            parallelism: vertex.map_or(0, |vertex| vertex.parallelism),
            message,
            backtrace: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_states_agree_with_the_table() {
        for (index, state) in JobState::ALL.iter().enumerate() {
            assert_eq!(*state as usize, index);
        }
    }
}

//! A simulated worker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flott_schema::control::{Placement, RunningTask, TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::graph::{Exchange, ExecutionMode, JobGraph};
use flott_schema::ids::{AttemptId, JobId, SlotId};

use super::random::Random;
use super::snapshots::last_of;
use crate::machine::{Effect, Event};

/// A worker as it really is, not as the machine believes.
pub(super) struct SimWorker {
    slots: u32,
    pub(super) inbox: VecDeque<Effect>,
    pub(super) outbox: VecDeque<Event>,
    pub(super) tasks: BTreeMap<(JobId, AttemptId), (SlotId, TaskState)>,
    pub(super) keeps: BTreeSet<JobId>,
    /// Parts of snapshots on their way to the leader.
    pub(super) parts: VecDeque<(JobId, u64, AttemptId)>,
    /// Tasks that do nothing more until the snapshot has ended.
    suspended: BTreeMap<(JobId, AttemptId), u64>,
    streams: BTreeSet<JobId>,
    /// Whether streams end, too.
    pub(super) ending: bool,
}

impl SimWorker {
    pub(super) fn new(slots: u32) -> Self {
        SimWorker {
            slots,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            tasks: BTreeMap::new(),
            keeps: BTreeSet::new(),
            parts: VecDeque::new(),
            suspended: BTreeMap::new(),
            streams: BTreeSet::new(),
            ending: false,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        let live = self.tasks.values().any(|(_, state)| !state.is_terminal());
        live || !self.inbox.is_empty() || !self.outbox.is_empty()
    }

    pub(super) fn obey(&mut self, message: Effect, at_ms: u64) {
        match message {
            Effect::Deploy { job, spec, tasks, peers, .. } => {
                let graph = spec.effective_graph();
                if graph.mode == ExecutionMode::Streaming {
                    self.streams.insert(job);
                }
                self.keeps.insert(job);
                for task in &tasks {
                    // An order may come twice.
                    if !self.tasks.contains_key(&(job, task.attempt)) {
                        self.assert_may_start(job, task, &peers, &graph);
                        self.tasks.insert((job, task.attempt), (task.slot, TaskState::Deploying));
                    }
                }
            }
            Effect::Cancel { job, attempts, .. } => {
                for attempt in attempts {
                    // The order to start it may have been lost.
                    if let Some((_, state)) = self.tasks.get_mut(&(job, attempt))
                        && !state.is_terminal()
                    {
                        *state = TaskState::Canceling;
                    }
                }
            }
            // An executor is started, which stays until the job lets go of it.
            Effect::Prepare { order, .. } => drop(self.keeps.insert(order.job)),
            Effect::Release { job, .. } => {
                let live = self.tasks.iter().any(|((of, _), (_, state))| *of == job && !state.is_terminal());
                assert!(!live, "released with live tasks");
                self.keeps.remove(&job);
                self.tasks.retain(|(of, _), _| *of != job);
            }
            Effect::Checkpoint { order, .. } => {
                for attempt in order.attempts {
                    let task = (order.job, attempt);
                    if self.tasks.get(&task).is_some_and(|(_, state)| *state == TaskState::Running) {
                        self.parts.push_back((order.job, order.barrier.checkpoint, attempt));
                        if order.barrier.after.stops() {
                            self.suspended.insert(task, order.barrier.checkpoint);
                        }
                    }
                }
            }
            Effect::CheckpointEnded { job, checkpoint, completed, .. } => {
                let ended = self.suspended.iter().filter(|((of, _), id)| *of == job && **id == checkpoint);
                for task in ended.map(|(task, _)| *task).collect::<Vec<_>>() {
                    self.suspended.remove(&task);
                    let Some((_, state)) = self.tasks.get_mut(&task) else { continue };
                    if completed && *state == TaskState::Running {
                        *state = TaskState::Finished;
                        let (job, attempt) = task;
                        let (state, failure) = (TaskState::Finished, None);
                        self.outbox.push_back(Event::TaskStateChanged {
                            job,
                            attempt,
                            state,
                            failure,
                            at_ms,
                        });
                    }
                }
            }
            other => panic!("no message for a worker: {other:?}"),
        }
    }

    /// The slot exists and is not over-used, and what the task reads is placed.
    fn assert_may_start(&self, job: JobId, task: &Placement, peers: &[Placement], graph: &JobGraph) {
        assert!(task.slot.index < self.slots);
        assert!(peers.contains(task));
        let group = |attempt: &AttemptId| &graph.vertex(attempt.task.vertex).unwrap().slot_sharing_group;
        for ((other_job, other), (slot, state)) in &self.tasks {
            if *slot == task.slot && !state.is_terminal() {
                assert_eq!(*other_job, job, "two jobs in a slot");
                assert_ne!(other.task.vertex, task.attempt.task.vertex, "two tasks of a vertex in a slot");
                assert_eq!(group(other), group(&task.attempt), "two groups in a slot");
            }
        }
        for (_, edge) in graph.inputs(task.attempt.task.vertex) {
            let sources = peers.iter().filter(|peer| peer.attempt.task.vertex == edge.source).count();
            assert_eq!(sources, graph.vertex(edge.source).unwrap().parallelism as usize, "unplaced input");
        }
        if graph.mode == ExecutionMode::Streaming {
            assert_eq!(peers.len(), graph.task_count(), "a streaming job is placed at once");
        }
        let pipelined =
            graph.outputs(task.attempt.task.vertex).filter(|(_, e)| e.exchange == Exchange::Pipelined);
        for (_, edge) in pipelined {
            assert!(peers.iter().any(|peer| peer.attempt.task.vertex == edge.target), "unplaced reader");
        }
    }

    pub(super) fn advance(
        &mut self,
        job: JobId,
        attempt: AttemptId,
        random: &mut Random,
        faults: bool,
        at_ms: u64,
    ) -> Option<Event> {
        let (_, state) = self.tasks.get_mut(&(job, attempt)).unwrap();
        let fails = faults && random.percent(if *state == TaskState::Running { 1 } else { 2 });
        if !fails && *state == TaskState::Running && self.suspended.contains_key(&(job, attempt)) {
            return None;
        }
        *state = match *state {
            _ if fails => TaskState::Failed,
            TaskState::Deploying => TaskState::Initializing,
            TaskState::Initializing => TaskState::Running,
            TaskState::Canceling if random.percent(80) => TaskState::Canceled,
            // Streams have no end of their own as long as anything happens.
            TaskState::Running if !self.ending && self.streams.contains(&job) && random.percent(97) => {
                return None;
            }
            _ => TaskState::Finished,
        };
        let failure = fails.then(|| failure_of(attempt));
        if *state == TaskState::Finished && random.percent(80) {
            let snapshot = last_of(attempt);
            self.outbox.push_back(Event::LastSnapshot { job, attempt, snapshot, at_ms });
        }
        Some(Event::TaskStateChanged { job, attempt, state: *state, failure, at_ms })
    }

    /// What it says of its tasks when it comes back: the whole truth, or no more than it must, namely those whose end is not
    /// acknowledged, and nothing of what reports are yet to tell.
    pub(super) fn running(&self, whole: bool) -> Vec<RunningTask> {
        let waits = |task: &(JobId, AttemptId)| {
            self.outbox.iter().any(|event| match event {
                Event::TaskStateChanged { job, attempt, .. } => (*job, *attempt) == *task,
                _ => false,
            })
        };
        let mut running = Vec::new();
        for (task, (_, state)) in &self.tasks {
            let (job, attempt) = *task;
            match (*state, !whole && waits(task)) {
                (state, false) if whole || !state.is_terminal() => {
                    running.push(RunningTask { job, attempt, state });
                }
                (_, true) => running.push(RunningTask { job, attempt, state: TaskState::Deploying }),
                _ => {}
            }
        }
        running
    }

    /// The process of a job is gone: its tasks have failed, and its results are lost.
    pub(super) fn lose_executor(&mut self, job: JobId, at_ms: u64) {
        for ((of, attempt), (_, state)) in &mut self.tasks {
            if *of == job && !matches!(state, TaskState::Failed | TaskState::Canceled) {
                *state = TaskState::Failed;
                let failure = Some(failure_of(*attempt));
                self.outbox.push_back(Event::TaskStateChanged {
                    job,
                    attempt: *attempt,
                    state: TaskState::Failed,
                    failure,
                    at_ms,
                });
            }
        }
    }

    /// A task is gone without a word.
    pub(super) fn forget(&mut self, job: JobId, attempt: AttemptId) {
        self.tasks.remove(&(job, attempt));
        if !self.tasks.keys().any(|(of, _)| *of == job) {
            self.keeps.remove(&job);
        }
    }
}

fn failure_of(attempt: AttemptId) -> TaskFailure {
    TaskFailure {
        kind: ErrorKind::UserCode,
        vertex: "v".into(),
        subtask: attempt.task.subtask,
        parallelism: 1,
        message: "simulated".into(),
        backtrace: None,
    }
}

//! Random lives of a cluster: simulated workers deploy, run, finish, fail, get lost, links repeat, users cancel. After
//! each event the invariants are checked; in the end faults stop, and every job must end and every slot be free.
//! `SEED=n` plays one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flott_schema::control::{Placement, TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::graph::{Exchange, ExecutionMode, JobGraph};
use flott_schema::ids::{AttemptId, JobId, SlotId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, RestartStrategy};

use super::{graph, offering};
use crate::machine::{
    ClusterState, Effect, Event, Ignored, JobFailure, JobOutcome, JobState, Limits, apply, check_invariants,
};

const SEEDS: u64 = 200;
const STEPS: u32 = 600;
const WORKERS_MAX: usize = 5;
const JOBS_MAX: u128 = 25;

#[test]
fn every_job_ends_and_every_slot_is_freed_whatever_happens() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap()..seed.parse::<u64>().unwrap() + 1,
        Err(_) => 0..SEEDS,
    };
    let whole = seeds.end - seeds.start == SEEDS;
    let mut seen = Seen::default();
    for seed in seeds {
        let played = std::panic::catch_unwind(|| play(seed));
        match played {
            Ok(life) => seen.add(&life),
            Err(_) => panic!("seed {seed} fails; SEED={seed} plays it alone"),
        }
    }
    let Seen {
        finished,
        canceled,
        failed_by_task,
        failed_by_loss,
        failed_for_slots,
        failed_for_results,
        survived,
        partial,
        ..
    } = &seen;
    println!(
        "finished {finished}, canceled {canceled}, failed: task {failed_by_task}, worker {failed_by_loss}, slots \
         {failed_for_slots}, results {failed_for_results}; restarts of jobs that finished {survived}, partial {partial}"
    );
    if whole {
        seen.assert_everything_happened();
    }
}

fn play(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.random_step();
    }
    world.heal();
    world.assert_at_rest();
    world
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        if all.is_empty() { None } else { Some(all[self.below(all.len())]) }
    }
}

/// A worker as it really is, not as the machine believes.
struct SimWorker {
    slots: u32,
    inbox: VecDeque<Effect>,
    outbox: VecDeque<Event>,
    tasks: BTreeMap<(JobId, AttemptId), (SlotId, TaskState)>,
    keeps: BTreeSet<JobId>,
}

/// What the test knows about a job from outside.
struct Life {
    graph: Arc<JobGraph>,
    state: JobState,
    cancelled: bool,
    harmed: bool,
    outcome: Option<JobOutcome>,
}

struct World {
    random: Random,
    state: ClusterState,
    now_ms: u64,
    faults: bool,
    workers: BTreeMap<WorkerId, SimWorker>,
    workers_ever: u64,
    jobs: BTreeMap<JobId, Life>,
    waits: Vec<(JobId, u32)>,
    delays: Vec<(JobId, u32)>,
    /// Whether jobs may restart without end. In the end a large worker comes then, so that they find slots.
    endless: bool,
    /// Reports that a link may repeat, also of workers that are gone.
    said: Vec<Event>,
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            random: Random(seed),
            state: ClusterState::new(Limits { ended_jobs_max: 1_000, exceptions_max: 3 }),
            now_ms: 0,
            faults: true,
            workers: BTreeMap::new(),
            workers_ever: 0,
            jobs: BTreeMap::new(),
            waits: Vec::new(),
            delays: Vec::new(),
            endless: seed.is_multiple_of(2),
            said: Vec::new(),
        }
    }

    fn random_step(&mut self) {
        self.now_ms += self.random.below(20) as u64;
        match self.random.below(100) {
            0..4 => self.register(),
            4..6 => self.lose_worker(),
            6..14 => self.submit(),
            14..16 => self.cancel(),
            16..18 => self.expire(),
            18..22 => self.repeat_something(),
            22..25 => self.end_delay(),
            _ => {
                if let Some(worker) = self.random.pick(self.workers.keys().copied()) {
                    self.run_worker(worker);
                }
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let effects = apply(&mut self.state, event);
        check_invariants(&self.state).unwrap();
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Deploy { worker, .. }
            | Effect::Cancel { worker, .. }
            | Effect::Release { worker, .. } => {
                let worker = self.workers.get_mut(&worker).expect("effects are for workers that are there");
                worker.inbox.push_back(effect);
            }
            Effect::StartSlotWait { job, wait } => self.waits.push((job, wait)),
            Effect::StartRestartDelay { job, number, .. } => self.delays.push((job, number)),
            Effect::JobStateChanged { job, state, .. } => {
                let before = match self.jobs.get_mut(&job) {
                    Some(life) => std::mem::replace(&mut life.state, state),
                    None => panic!("state of an unknown job"),
                };
                assert!(is_legal(before, state), "{before:?} -> {state:?}");
            }
            Effect::JobEnded { job, outcome } => {
                let life = self.jobs.get_mut(&job).unwrap();
                assert_eq!(life.outcome.replace(outcome), None, "a job ends once");
            }
        }
    }

    fn register(&mut self) {
        if self.workers.len() < WORKERS_MAX {
            let slots = 1 + self.random.below(5) as u32;
            self.register_with(slots);
        }
    }

    fn register_with(&mut self, slots: u32) {
        self.workers_ever += 1;
        let worker = WorkerId(self.workers_ever);
        let record = SimWorker {
            slots,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            tasks: BTreeMap::new(),
            keeps: BTreeSet::new(),
        };
        self.workers.insert(worker, record);
        self.apply(Event::WorkerRegistered { worker, profile: offering(slots), at_ms: self.now_ms });
    }

    fn lose_worker(&mut self) {
        let Some(worker) = self.random.pick(self.workers.keys().copied()) else { return };
        let gone = self.workers.remove(&worker).unwrap();
        // Its last words may come late.
        self.said.extend(gone.outbox);
        let held = self.state.jobs().filter(|job| job.placements().any(|place| place.slot.worker == worker));
        for job in held.map(|job| job.id()).collect::<Vec<_>>() {
            self.jobs.get_mut(&job).unwrap().harmed = true;
        }
        self.apply(Event::WorkerLost { worker, at_ms: self.now_ms });
    }

    fn submit(&mut self) {
        let job = JobId(self.jobs.len() as u128 + 1);
        if job.0 > JOBS_MAX {
            return;
        }
        let graph = Arc::new(self.random_graph());
        let life = Life {
            graph: graph.clone(),
            state: JobState::Created,
            cancelled: false,
            harmed: false,
            outcome: None,
        };
        self.jobs.insert(job, life);
        let settings = JobSettings {
            restart: self.random_strategy(),
            restart_all: self.random.percent(20),
            ..JobSettings::default()
        };
        let spec = Arc::new(JobSpec { graph, program: None, settings });
        self.apply(Event::JobSubmitted { job, spec, at_ms: self.now_ms });
    }

    fn random_strategy(&mut self) -> RestartStrategy {
        let delay_ms = self.random.below(100) as u64;
        let attempts = if self.endless { u32::MAX } else { self.random.below(4) as u32 };
        match self.random.below(4) {
            0 => RestartStrategy::None,
            1 => RestartStrategy::FixedDelay { attempts, delay_ms },
            2 => RestartStrategy::FailureRate {
                failures_max: 1 + self.random.below(3) as u32,
                interval_ms: if self.endless { 200 } else { u64::MAX },
                delay_ms,
            },
            _ => RestartStrategy::ExponentialDelay {
                initial_ms: delay_ms,
                max_ms: 300,
                multiplier_milli: 1_500,
                jitter_milli: 100,
                reset_ms: 1_000_000,
                attempts,
            },
        }
    }

    fn random_graph(&mut self) -> JobGraph {
        let names = ["a", "b", "c", "d", "e"];
        let count = 1 + self.random.below(names.len());
        let vertices: Vec<(String, u32)> = names[..count]
            .iter()
            .map(|name| {
                let group = if self.random.percent(20) { "@other" } else { "" };
                (format!("{name}{group}"), 1 + self.random.below(4) as u32)
            })
            .collect();
        let vertices: Vec<(&str, u32)> =
            vertices.iter().map(|(name, parallelism)| (name.as_str(), *parallelism)).collect();
        let mut edges = Vec::new();
        for target in 1..count {
            for source in 0..target {
                if source + 1 == target || self.random.percent(20) {
                    let arrow = if self.random.percent(60) { ">>" } else { ">" };
                    edges.push(format!("{} {arrow} {}", names[source], names[target]));
                }
            }
        }
        let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
        let mode = if self.random.percent(50) { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        graph::build("random", mode, &vertices, &edges)
    }

    fn cancel(&mut self) {
        let Some(job) = self.random.pick(self.jobs.keys().copied()) else { return };
        let life = self.jobs.get_mut(&job).unwrap();
        life.cancelled |= !life.state.is_terminal();
        self.apply(Event::CancelRequested { job, at_ms: self.now_ms });
    }

    fn expire(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let position = self.random.below(self.waits.len());
        let (job, wait) = self.waits.swap_remove(position);
        let current = self.state.job(job).and_then(|job| job.slot_wait());
        self.jobs.get_mut(&job).unwrap().harmed |= current.is_some_and(|current| current.number == wait);
        self.apply(Event::SlotWaitExpired { job, wait, at_ms: self.now_ms });
    }

    fn end_delay(&mut self) {
        if self.delays.is_empty() {
            return;
        }
        let position = self.random.below(self.delays.len());
        let (job, number) = self.delays.swap_remove(position);
        self.apply(Event::RestartDelayExpired { job, number, at_ms: self.now_ms });
    }

    /// A report comes twice, late, or of a deployment that never was.
    fn repeat_something(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let position = self.random.below(self.said.len());
        let mut event = self.said[position].clone();
        if let Event::TaskStateChanged { attempt, .. } = &mut event
            && self.random.percent(20)
        {
            attempt.attempt += 1;
        }
        self.apply(event);
    }

    /// The worker reads a message, moves a task, or gets a report through.
    fn run_worker(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        match self.random.below(3) {
            0 => {
                if let Some(message) = worker.inbox.pop_front() {
                    worker.obey(message, &self.jobs);
                }
            }
            1 => {
                let live = worker.tasks.iter().filter(|(_, (_, state))| !state.is_terminal());
                let Some((job, attempt)) = self.random.pick(live.map(|(task, _)| *task)) else { return };
                let faults = self.faults;
                let event = worker.advance(job, attempt, &mut self.random, faults, self.now_ms);
                if let Event::TaskStateChanged { state: TaskState::Failed, .. } = event {
                    self.jobs.get_mut(&job).unwrap().harmed = true;
                }
                worker.outbox.push_back(event);
            }
            _ => {
                if let Some(report) = worker.outbox.pop_front() {
                    self.said.push(report.clone());
                    self.apply(report);
                }
            }
        }
    }

    /// No more faults, and work until nothing is left to do; who waits for slots in vain gives up.
    fn heal(&mut self) {
        self.faults = false;
        if self.endless {
            self.register_with(50);
        }
        for _ in 0..1_000_000 {
            self.now_ms += 1;
            let busy = self.workers.iter().filter(|(_, worker)| worker.is_busy()).map(|(id, _)| *id);
            match self.random.pick(busy) {
                Some(worker) => self.run_worker(worker),
                None if !self.delays.is_empty() => self.end_delay(),
                None if self.waits.is_empty() => return,
                None => self.expire(),
            }
        }
        panic!("no rest after a million steps");
    }

    fn assert_at_rest(&self) {
        for (id, life) in &self.jobs {
            let job = self.state.job(*id).expect("jobs are remembered");
            assert!(job.state().is_terminal(), "job {id} is {} for ever", job.state().word());
            assert_eq!(life.outcome, job.outcome(), "what was told of job {id} is what is known");
            match &life.outcome {
                Some(JobOutcome::Canceled) => assert!(life.cancelled, "job {id} was cancelled by nobody"),
                outcome if life.cancelled => panic!("job {id} was cancelled, and ended {outcome:?}"),
                Some(JobOutcome::Failed(_)) => assert!(life.harmed, "job {id} failed, and nothing harmed it"),
                _ => {}
            }
        }
        assert_eq!(self.state.slots().free(), self.state.slots().total(), "a slot stays taken");
        for (id, worker) in &self.workers {
            assert!(worker.keeps.is_empty(), "{id:?} was never told to release {:?}", worker.keeps);
        }
    }
}

impl SimWorker {
    fn is_busy(&self) -> bool {
        let live = self.tasks.values().any(|(_, state)| !state.is_terminal());
        live || !self.inbox.is_empty() || !self.outbox.is_empty()
    }

    fn obey(&mut self, message: Effect, jobs: &BTreeMap<JobId, Life>) {
        match message {
            Effect::Deploy { job, tasks, peers, .. } => {
                self.keeps.insert(job);
                for task in &tasks {
                    self.assert_may_start(job, task, &peers, &jobs[&job].graph);
                    let known = self.tasks.insert((job, task.attempt), (task.slot, TaskState::Deploying));
                    assert_eq!(known, None, "a task is deployed once");
                }
            }
            Effect::Cancel { job, attempts, .. } => {
                for attempt in attempts {
                    let (_, state) =
                        self.tasks.get_mut(&(job, attempt)).expect("what is cancelled was deployed");
                    if !state.is_terminal() {
                        *state = TaskState::Canceling;
                    }
                }
            }
            Effect::Release { job, .. } => {
                let live = self.tasks.iter().any(|((of, _), (_, state))| *of == job && !state.is_terminal());
                assert!(!live, "released with live tasks");
                assert!(self.keeps.remove(&job), "released twice");
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

    fn advance(
        &mut self,
        job: JobId,
        attempt: AttemptId,
        random: &mut Random,
        faults: bool,
        at_ms: u64,
    ) -> Event {
        let (_, state) = self.tasks.get_mut(&(job, attempt)).unwrap();
        let fails = faults && random.percent(2);
        *state = match *state {
            _ if fails => TaskState::Failed,
            TaskState::Deploying => TaskState::Initializing,
            TaskState::Initializing => TaskState::Running,
            TaskState::Canceling if random.percent(80) => TaskState::Canceled,
            _ => TaskState::Finished,
        };
        let failure = TaskFailure {
            kind: ErrorKind::UserCode,
            vertex: "v".into(),
            subtask: attempt.task.subtask,
            parallelism: 1,
            message: "simulated".into(),
            backtrace: None,
        };
        let failure = fails.then_some(failure);
        Event::TaskStateChanged { job, attempt, state: *state, failure, at_ms }
    }
}

fn is_legal(before: JobState, after: JobState) -> bool {
    use JobState::*;
    matches!(
        (before, after),
        (Created, Created | Running | Restarting | Failing | Cancelling)
            | (Running, Restarting | Failing | Cancelling | Finished)
            | (Restarting, Running | Failing | Cancelling)
            | (Failing, Cancelling | Failed)
            | (Cancelling, Canceled)
    )
}

/// What happened over all seeds: a simulation in which something never happens proves nothing about it.
#[derive(Default)]
struct Seen {
    finished: u32,
    canceled: u32,
    failed_by_task: u32,
    failed_by_loss: u32,
    failed_for_slots: u32,
    failed_for_results: u32,
    concurrent_failures: usize,
    /// Restarts of jobs that finished afterwards.
    survived: u32,
    /// Restarts that left tasks of their job alone.
    partial: u32,
    ignored: Vec<Ignored>,
}

impl Seen {
    fn add(&mut self, world: &World) {
        for job in world.state.jobs() {
            match job.outcome().expect("all have ended") {
                JobOutcome::Finished => {
                    self.finished += 1;
                    self.survived += job.restarts();
                    let attempts = || job.vertices().iter().flat_map(|vertex| vertex.tasks());
                    self.partial += u32::from(attempts().any(|task| task.attempt().attempt < job.restarts()));
                }
                JobOutcome::Canceled => self.canceled += 1,
                JobOutcome::Failed(JobFailure::Job { .. }) => self.failed_for_slots += 1,
                JobOutcome::Failed(JobFailure::Task(failure))
                    if failure.message.contains("finished result") =>
                {
                    self.failed_for_results += 1;
                }
                JobOutcome::Failed(JobFailure::Task(failure)) if failure.kind == ErrorKind::Io => {
                    self.failed_by_loss += 1;
                }
                JobOutcome::Failed(JobFailure::Task(_)) => self.failed_by_task += 1,
            }
            self.concurrent_failures +=
                job.exceptions().latest().map(|one| one.concurrent.len()).sum::<usize>();
        }
        self.ignored.push(world.state.ignored());
    }

    fn assert_everything_happened(&self) {
        assert!(self.finished > 0 && self.canceled > 0 && self.failed_by_task > 0 && self.failed_by_loss > 0);
        assert!(self.failed_for_slots > 0 && self.failed_for_results > 0 && self.concurrent_failures > 0);
        assert!(self.survived > 1_000 && self.partial > 100, "{} {}", self.survived, self.partial);
        let any = |count: fn(&Ignored) -> u64| self.ignored.iter().any(|ignored| count(ignored) > 0);
        assert!(any(|ignored| ignored.stale_attempt) && any(|ignored| ignored.impossible_transition));
        assert!(any(|ignored| ignored.repeated) && any(|ignored| ignored.overtaken));
        assert!(any(|ignored| ignored.stale_slot_wait) && any(|ignored| ignored.stale_restart_delay));
    }
}

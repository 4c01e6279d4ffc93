//! Random lives of a cluster: simulated workers deploy, run, finish, fail, get lost and come back, executors die, leaders
//! change, links repeat, users cancel, snapshots are taken and given up, jobs are stopped and rescaled. After each event the invariants are checked; in the end faults stop, and every job
//! must end and every slot be free. `SEED=n` plays one seed, `SEEDS=n` so many.
//!
//! * `worker`: a simulated worker; `faults`: what goes wrong from outside; `snapshots`: those of the jobs
//! * `random`: chance, and what is chosen by it; `seen`: what happened over all seeds

mod faults;
mod random;
mod seen;
mod snapshots;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_schema::control::TaskState;
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec};

use self::random::Random;
use self::seen::{Seen, is_legal};
use self::snapshots::Snapshots;
pub(in crate::machine::tests) use self::snapshots::last_of;
use self::worker::SimWorker;
use super::offering;
use crate::machine::persist::{decode_event, decode_state, encode_event, encode_state};
use crate::machine::{ClusterState, Effect, Event, JobOutcome, JobState, Limits, apply, check_invariants};

const SEEDS: u64 = 200;
const STEPS: u32 = 600;
const WORKERS_MAX: usize = 5;
const JOBS_MAX: u128 = 25;

#[test]
fn every_job_ends_and_every_slot_is_freed_whatever_happens() {
    let number = |variable| std::env::var(variable).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let whole = seeds.end - seeds.start >= SEEDS;
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
        snapshots,
        ..
    } = &seen;
    println!(
        "finished {finished}, canceled {canceled}, failed: task {failed_by_task}, worker {failed_by_loss}, slots \
         {failed_for_slots}, results {failed_for_results}; restarts of jobs that finished {survived}, partial {partial}; snapshots completed, failed, \
         restored, stops, rescales, refused {snapshots:?}"
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
    world.assert_snapshots_at_rest();
    world
}

/// What the test knows about a job from outside.
struct Life {
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
    /// Whether somebody performs effects.
    leads: bool,
    /// Leaders so far.
    leaders: u32,
    /// Reports that a link may repeat, also of workers that are gone.
    said: Vec<Event>,
    snapshots: Snapshots,
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
            leads: true,
            leaders: 1,
            said: Vec::new(),
            snapshots: Snapshots::default(),
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
            25..27 => self.kill_executor(),
            27..30 => self.reconnect(),
            30 if self.leads => self.change_leader(),
            31..35 => self.request_snapshot(),
            35 if self.random.percent(50) => self.fail_snapshot(),
            36 if self.faults => self.work_in_peace(),
            _ => {
                if let Some(worker) = self.random.pick(self.workers.keys().copied()) {
                    self.run_worker(worker);
                }
            }
        }
    }

    fn apply(&mut self, event: Event) {
        // Now and then beside a replica that was restored from a snapshot and reads the event from its log.
        let replica = self.random.percent(2).then(|| {
            let replica = decode_state(&encode_state(&self.state).unwrap()).unwrap();
            assert_eq!(replica, self.state);
            (replica, decode_event(&encode_event(&event).unwrap()).unwrap())
        });
        let effects = apply(&mut self.state, event);
        check_invariants(&self.state).unwrap();
        if let Some((mut replica, event)) = replica {
            assert_eq!(apply(&mut replica, event), effects);
            assert_eq!(replica, self.state);
            self.state = replica;
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
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
            // Orders and timers are the leader's.
            _ if !self.leads => {}
            Effect::Checkpoint { worker, order } => {
                self.note_order(&order);
                let to = self.workers.get_mut(&worker).expect("effects are for workers that are there");
                to.inbox.push_back(Effect::Checkpoint { worker, order });
            }
            Effect::CheckpointEnded { worker, job, checkpoint, completed, .. } => {
                self.check_ended(job, checkpoint, completed);
                let worker = self.workers.get_mut(&worker).expect("effects are for workers that are there");
                worker.inbox.push_back(effect);
            }
            Effect::Deploy { worker, job, ref restore, .. } => {
                self.check_restore(job, restore.as_ref());
                let worker = self.workers.get_mut(&worker).expect("effects are for workers that are there");
                worker.inbox.push_back(effect);
            }
            Effect::Prepare { worker, .. }
            | Effect::Cancel { worker, .. }
            | Effect::Release { worker, .. } => {
                let worker = self.workers.get_mut(&worker).expect("effects are for workers that are there");
                worker.inbox.push_back(effect);
            }
            Effect::StartSlotWait { job, wait } => self.waits.push((job, wait)),
            Effect::StartRestartDelay { job, number, .. } => self.delays.push((job, number)),
        }
    }

    fn register(&mut self) {
        if self.workers.len() < WORKERS_MAX {
            let slots = 1 + self.random.below(5) as u32;
            self.register_with(slots);
        }
    }

    fn register_with(&mut self, slots: u32) {
        let worker = self.state.next_worker_id();
        assert!(self.workers_ever < worker.0, "no id is given twice");
        self.workers_ever = worker.0;
        self.workers.insert(worker, SimWorker::new(slots));
        self.apply(Event::WorkerRegistered { worker, profile: offering(slots), at_ms: self.now_ms });
    }

    fn submit(&mut self) {
        let job = JobId(self.jobs.len() as u128 + 1);
        if job.0 > JOBS_MAX {
            return;
        }
        let graph = Arc::new(self.random.graph());
        let life = Life { state: JobState::Created, cancelled: false, harmed: false, outcome: None };
        self.jobs.insert(job, life);
        let settings = JobSettings {
            restart: self.random.strategy(self.endless),
            restart_all: self.random.percent(20),
            checkpoints: CheckpointSettings {
                num_retained: 1 + self.random.below(3) as u32,
                tolerable_failures: self.random.below(3) as u32,
                max_concurrent: 1 + self.random.below(2) as u32,
                ..CheckpointSettings::default()
            },
            ..JobSettings::default()
        };
        let spec = Arc::new(JobSpec { settings, ..JobSpec::embedded(graph) });
        self.apply(Event::JobSubmitted { job, spec, at_ms: self.now_ms });
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

    /// For a while nothing goes wrong.
    fn work_in_peace(&mut self) {
        self.faults = false;
        for _ in 0..200 {
            match self.random.below(40) {
                0 => self.end_delay(),
                1 => self.request_snapshot(),
                _ => {
                    if let Some(worker) = self.random.pick(self.workers.keys().copied()) {
                        self.run_worker(worker);
                    }
                }
            }
        }
        self.faults = true;
    }

    /// The worker reads a message, moves a task, or gets a report through.
    fn run_worker(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        match self.random.below(4) {
            0 => {
                if let Some(message) = worker.inbox.pop_front() {
                    worker.obey(message, self.now_ms);
                }
            }
            3 => {
                if let Some((job, checkpoint, attempt)) = worker.parts.pop_front() {
                    self.acknowledge(job, Some(checkpoint), attempt);
                }
            }
            1 => {
                let live = worker.tasks.iter().filter(|(_, (_, state))| !state.is_terminal());
                let Some((job, attempt)) = self.random.pick(live.map(|(task, _)| *task)) else { return };
                let faults = self.faults;
                let Some(event) = worker.advance(job, attempt, &mut self.random, faults, self.now_ms) else {
                    return;
                };
                if let Event::TaskStateChanged { state: TaskState::Failed, .. } = event {
                    self.jobs.get_mut(&job).unwrap().harmed = true;
                }
                worker.outbox.push_back(event);
            }
            _ => {
                if let Some(report) = worker.outbox.pop_front() {
                    self.said.push(report.clone());
                    let last = match &report {
                        Event::LastSnapshot { job, attempt, .. } => Some((*job, *attempt)),
                        _ => None,
                    };
                    self.apply(report);
                    if let Some((job, attempt)) = last {
                        self.acknowledge(job, None, attempt);
                    }
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
        self.workers.values_mut().for_each(|worker| worker.ending = true);
        for _ in 0..1_000_000 {
            self.now_ms += 1;
            if self.random.percent(1) {
                self.fail_snapshot();
            }
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

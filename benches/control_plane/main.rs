//! The job state machine at the size it is built for: 1,000 workers, and a job of 100,000 subtasks that is placed, runs, loses
//! a worker, starts again, and is cancelled. `cargo bench --bench control_plane` prints what each step takes.
//!
//! Times are of one thread: what the clock says, and what the processor worked for it. Memory is what the process holds
//! at most, above what it held before the first event.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use flott::coordinator::JobState;
use flott::coordinator::machine::persist::{decode_state, encode_state};
use flott::coordinator::machine::{ClusterState, Effect, Event, Limits, apply};
use flott::schema::control::TaskState;
use flott::schema::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};
use flott::schema::ids::{AttemptId, JobId, OperatorId};
use flott::schema::job::{JobSettings, JobSpec, RestartStrategy};
use flott::schema::stats::WorkerProfile;

const WORKERS: u64 = 1_000;
const SLOTS: u32 = 100;
const PARALLELISM: u32 = 25_000;
const VERTICES: [&str; 4] = ["source", "parse", "count", "sink"];
const JOB: JobId = JobId(1);

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo passes `--bench`; there is nothing to choose.
    let before = memory_bytes("VmRSS")?;
    let mut cluster = Cluster { state: ClusterState::new(Limits::default()), now_ms: 0 };
    println!("{WORKERS} workers with {SLOTS} slots, and one to spare; {} subtasks", cluster.subtasks());
    println!("{:<44} {:>10} {:>10} {:>10}", "step", "events", "ms", "cpu ms");

    measure("workers register", || cluster.register())?;
    measure("job is placed", || cluster.submit())?;
    cluster.expect(JobState::Running, TaskState::Deploying)?;
    measure("subtasks run: two reports each", || {
        cluster.report(&[TaskState::Initializing, TaskState::Running])
    })?;
    cluster.expect(JobState::Running, TaskState::Running)?;

    let mut stored = Vec::new();
    measure("state to bytes", || {
        stored = encode_state(&cluster.state).map_err(|error| error.to_string())?;
        Ok(1)
    })?;
    let mut restored = None;
    measure("bytes to state", || {
        restored = Some(decode_state(&stored).map_err(|error| error.to_string())?);
        Ok(1)
    })?;
    if restored.as_ref() != Some(&cluster.state) {
        return Err("a restored state differs from the original".into());
    }
    drop(restored);
    let stored_bytes = std::mem::take(&mut stored).len();

    measure("a worker is lost, the others stop", || cluster.lose_worker())?;
    measure("subtasks are cancelled: a report each", || cluster.report(&[TaskState::Canceled]))?;
    measure("job is placed again", || cluster.end_delay())?;
    cluster.expect(JobState::Running, TaskState::Deploying)?;
    measure("subtasks run again", || cluster.report(&[TaskState::Initializing, TaskState::Running]))?;
    measure("job is cancelled", || cluster.cancel())?;
    measure("subtasks are cancelled: a report each", || cluster.report(&[TaskState::Canceled]))?;
    cluster.expect(JobState::Canceled, TaskState::Canceled)?;

    let peak = memory_bytes("VmHWM")?;
    println!(
        "memory at most {} MiB above the start; a snapshot {} MiB",
        peak.saturating_sub(before) >> 20,
        stored_bytes >> 20
    );
    Ok(())
}

type Step = Result<usize, Box<dyn Error>>;

/// Prints what a step takes; it says how many events it was.
fn measure(name: &str, step: impl FnOnce() -> Step) -> Result<(), Box<dyn Error>> {
    let (start, start_cpu_ms) = (Instant::now(), cpu_ms()?);
    let events = step()?;
    let (wall_ms, cpu_ms) = (start.elapsed().as_millis(), cpu_ms()? - start_cpu_ms);
    println!("{name:<44} {events:>10} {wall_ms:>10} {cpu_ms:>10}");
    Ok(())
}

struct Cluster {
    state: ClusterState,
    now_ms: u64,
}

impl Cluster {
    fn subtasks(&self) -> usize {
        VERTICES.len() * PARALLELISM as usize
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 1;
        apply(&mut self.state, event)
    }

    fn register(&mut self) -> Step {
        for _ in 0..WORKERS {
            self.register_one();
        }
        Ok(WORKERS as usize)
    }

    fn register_one(&mut self) {
        let worker = self.state.next_worker_id();
        let profile = WorkerProfile {
            name: format!("worker-{}", worker.0),
            data_address: format!("10.0.{}.{}:6122", worker.0 >> 8, worker.0 & 0xff),
            slots: SLOTS,
            ..WorkerProfile::default()
        };
        self.apply(Event::WorkerRegistered { worker, profile, at_ms: self.now_ms });
    }

    /// A slot for each subtask: the vertices share none.
    fn submit(&mut self) -> Step {
        let vertex = |name: &&str| {
            let id = OperatorId::of_uid(name);
            Vertex {
                id: id.into(),
                name: name.to_string(),
                operators: vec![OperatorSpec { id, uid: name.to_string(), name: name.to_string() }],
                parallelism: PARALLELISM,
                max_parallelism: 32_768,
                slot_sharing_group: name.to_string(),
                is_source: *name == VERTICES[0],
            }
        };
        let edges = VERTICES.windows(2).map(|pair| Edge {
            source: OperatorId::of_uid(pair[0]).into(),
            target: OperatorId::of_uid(pair[1]).into(),
            input: 0,
            partitioning: Partitioning::KeyGroup,
            exchange: Exchange::Pipelined,
        });
        let graph = JobGraph {
            name: "large".to_string(),
            mode: ExecutionMode::Streaming,
            vertices: VERTICES.iter().map(vertex).collect(),
            edges: edges.collect(),
        };
        let settings = JobSettings {
            restart: RestartStrategy::FixedDelay { attempts: 1, delay_ms: 1_000 },
            ..JobSettings::default()
        };
        let spec = Arc::new(JobSpec { settings, ..JobSpec::embedded(graph) });
        let effects = self.apply(Event::JobSubmitted { job: JOB, spec, at_ms: self.now_ms });
        self.all_are_deployed(&effects)?;
        Ok(1)
    }

    fn all_are_deployed(&self, effects: &[Effect]) -> Result<(), Box<dyn Error>> {
        let deployed = effects.iter().map(|effect| match effect {
            Effect::Deploy { tasks, .. } => tasks.len(),
            _ => 0,
        });
        let deployed: usize = deployed.sum();
        match deployed == self.subtasks() {
            true => Ok(()),
            false => Err(format!("{deployed} of {} subtasks were deployed", self.subtasks()).into()),
        }
    }

    /// Every task that lives reports these states.
    fn report(&mut self, states: &[TaskState]) -> Step {
        let job = self.state.job(JOB).ok_or("the job is gone")?;
        let tasks = job.vertices().iter().flat_map(|vertex| vertex.tasks());
        let live: Vec<AttemptId> =
            tasks.filter(|task| !task.state().is_terminal()).map(|task| task.attempt()).collect();
        let mut events = 0;
        for state in states {
            for attempt in &live {
                let (attempt, state, at_ms) = (*attempt, *state, self.now_ms);
                self.apply(Event::TaskStateChanged { job: JOB, attempt, state, failure: None, at_ms });
                events += 1;
            }
        }
        Ok(events)
    }

    /// One worker joins, so that there are slots enough, and one of the others is lost.
    fn lose_worker(&mut self) -> Step {
        self.register_one();
        let worker = *self.state.workers().keys().next().ok_or("no worker is registered")?;
        self.apply(Event::WorkerLost { worker, at_ms: self.now_ms });
        Ok(2)
    }

    fn end_delay(&mut self) -> Step {
        let job = self.state.job(JOB).ok_or("the job is gone")?;
        let number = job.pending_restart().ok_or("no restart is on its way")?.number;
        let effects = self.apply(Event::RestartDelayExpired { job: JOB, number, at_ms: self.now_ms });
        self.all_are_deployed(&effects)?;
        Ok(1)
    }

    fn cancel(&mut self) -> Step {
        self.apply(Event::CancelRequested { job: JOB, at_ms: self.now_ms });
        Ok(1)
    }

    /// What a step must have led to.
    fn expect(&self, state: JobState, tasks: TaskState) -> Result<(), Box<dyn Error>> {
        let job = self.state.job(JOB).ok_or("the job is gone")?;
        let there = job.counts().of(tasks) as usize;
        if job.state() != state || there != self.subtasks() {
            let (is, word) = (job.state().word(), tasks.word());
            return Err(format!("the job is {is}, and {there} subtasks are {word}").into());
        }
        Ok(())
    }
}

/// Processor time of this thread so far, of which there is one.
fn cpu_ms() -> Result<u64, Box<dyn Error>> {
    let line = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = line.split_whitespace().next().ok_or("the kernel tells no processor time")?;
    Ok(nanoseconds.parse::<u64>()? / 1_000_000)
}

/// A line of what the kernel tells about the memory of this process.
fn memory_bytes(field: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes =
        line.and_then(|line| line.split_whitespace().next()).ok_or("the kernel tells no memory")?;
    Ok(kilobytes.parse::<u64>()? << 10)
}

//! The embedded cluster: a coordinator and a worker in this process, connected by queues instead of sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use flott_coordinator::machine::{ClusterState, JobException};
use flott_coordinator::{Coordinator, CoordinatorError, Handle, InMemoryLink, JobOutcome, JobState};
use flott_dataflow::program::Program;
use flott_schema::config::options::CheckpointRetention;
use flott_schema::config::{Configuration, options};
use flott_schema::control::{TaskState, ToCoordinator};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec};
use flott_schema::snapshot::{MANIFEST_FILE, RestoreFrom};
use flott_schema::stable_hash::stable_hash;
use flott_schema::{Error, ErrorKind, Result};
use flott_storage::Storage;
use flott_worker::{JobMetrics, Worker, WorkerHandle};
use tokio::sync::mpsc;

use crate::interrupt::Interrupts;
use crate::progress::{self, Progress};
use crate::restarts::{self, Failure, Restarts, Restored};
use crate::result::JobResult;

/// Messages that may be under way between coordinator and worker.
const QUEUE_CAPACITY: usize = 1024;
/// Slots, and so threads, of an embedded cluster.
const SLOTS_MAX: u32 = 1024;

/// How an embedded cluster is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Number of slots; `None` gives each job as many as it needs.
    pub slots: Option<u32>,
    /// Batches a channel takes before it blocks its sender.
    pub channel_capacity: usize,
    /// Bytes of spooled results kept in memory.
    pub spool_memory_bytes: usize,
    /// Where spooled results overflow to.
    pub scratch: PathBuf,
    /// Encodes every batch between tasks as between processes.
    pub encode_local: bool,
    /// Shows a progress line on a terminal, and the summary at the end, on the standard error.
    pub show_progress: bool,
    /// How jobs run: restarts, checkpoints, state.
    pub settings: JobSettings,
    /// The snapshot that jobs start from.
    pub restore: Option<RestoreFrom>,
    /// Cancels the job on Ctrl-C and on SIGTERM; a second one ends the process at once.
    pub cancel_on_ctrl_c: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        EmbeddedOptions {
            slots: None,
            channel_capacity: 8,
            spool_memory_bytes: 64 << 20,
            scratch: std::env::temp_dir(),
            encode_local: false,
            show_progress: false,
            settings: JobSettings::default(),
            restore: None,
            cancel_on_ctrl_c: false,
        }
    }
}

impl EmbeddedOptions {
    /// Options from a configuration, for a program run by a person.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        Ok(EmbeddedOptions {
            slots: match configuration.is_set(&options::WORKER_SLOTS) {
                true => Some(configuration.get(&options::WORKER_SLOTS)?),
                false => None,
            },
            channel_capacity: configuration.get(&options::WORKER_CHANNEL_CAPACITY)? as usize,
            spool_memory_bytes: configuration.get(&options::WORKER_SPOOL_MEMORY)?.bytes() as usize,
            scratch: configuration
                .get(&options::TMP_DIRS)?
                .0
                .first()
                .filter(|_| configuration.is_set(&options::TMP_DIRS))
                .map_or_else(std::env::temp_dir, PathBuf::from),
            show_progress: true,
            settings: JobSettings::from_configuration(configuration)?,
            cancel_on_ctrl_c: true,
            ..EmbeddedOptions::default()
        })
    }
}

/// Runs jobs in this process.
pub struct EmbeddedCluster {
    options: EmbeddedOptions,
}

impl EmbeddedCluster {
    /// A cluster with these options.
    pub fn new(options: EmbeddedOptions) -> Self {
        EmbeddedCluster { options }
    }

    /// Runs a program to its end. The cluster lives as long as the call; its threads end with it.
    pub fn run(&self, program: impl Into<Arc<Program>>) -> Result<JobResult> {
        let (program, options) = (program.into(), self.options.clone());
        let slots = options.slots.unwrap_or_else(|| program.graph.slots_needed());
        if slots > SLOTS_MAX {
            return Err(Error::new(
                ErrorKind::Resources,
                format!(
                    "job '{}' needs {slots} slots, one thread each; one process has {SLOTS_MAX} at most",
                    program.graph.name
                ),
            ));
        }
        // A job that needs more will say so when it fails.
        let _ = flott_worker::open_files::raise_limit();
        // A thread of its own: the caller may be inside another runtime.
        let thread = std::thread::Builder::new().name("flott-cluster".into()).spawn(move || {
            let system = actix::System::new();
            system.block_on(run_job(program, options))
        });
        let thread = thread.map_err(|error| Error::io("cluster thread", error))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the cluster thread panicked")))
    }
}

/// An id that no other job has.
pub(crate) fn new_job_id() -> JobId {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seed = (since_epoch.as_nanos() as u64, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    JobId(u128::from(stable_hash(&(seed, "high"))) << 64 | u128::from(stable_hash(&(seed, "low"))))
}

async fn run_job(program: Arc<Program>, options: EmbeddedOptions) -> Result<JobResult> {
    let started = Instant::now();
    let job = new_job_id();
    let worker_id = WorkerId(1);
    let link = InMemoryLink::new();
    let orders = link.attach(worker_id, QUEUE_CAPACITY);
    // No further worker can come, so there is nothing to wait for.
    let checkpoints = options.scratch.join(format!("flott-checkpoints-{job}"));
    let coordinator_options = flott_coordinator::Options {
        slot_wait_ms: 0,
        checkpoint_directory: checkpoints.display().to_string(),
        ..flott_coordinator::Options::default()
    };
    let (coordinator, handle) = Coordinator::new(coordinator_options, link);
    let service = actix::spawn(coordinator.run());

    let worker_options = flott_worker::Options {
        channel_capacity: options.channel_capacity,
        spool_memory_bytes: options.spool_memory_bytes,
        scratch: options.scratch.clone(),
        encode_local: options.encode_local,
        ..flott_worker::Options::new(worker_id, options.slots.unwrap_or_else(|| program.graph.slots_needed()))
    };
    let (reports, mut inbox) = mpsc::channel(QUEUE_CAPACITY);
    let (worker, worker_handle) = Worker::start(worker_options, reports);
    let worker = actix::spawn(worker.run(orders));
    // The registration comes first; a job submitted before it would find no slots.
    if let Some(registration) = inbox.recv().await {
        handle.worker_message(registration).await.map_err(|error| error.into_error())?;
    }
    let forward = actix::spawn(forward(inbox, handle.clone()));

    let result = drive(&handle, &worker_handle, job, &program, &options, started).await;
    let _ = handle.stop().await;
    let _ = service.await;
    let _ = worker.await;
    let _ = forward.await;
    // Of a job that names no folder, and does not want its checkpoints kept, nothing is left.
    if is_deleted_at_the_end(&options) {
        let _ = std::fs::remove_dir_all(checkpoints);
    }
    result
}

/// Whether the job's checkpoints go with it.
fn is_deleted_at_the_end(options: &EmbeddedOptions) -> bool {
    options.settings.checkpoints.retention == CheckpointRetention::NoExternalizedCheckpoints
}

/// Carries the worker's reports to the coordinator.
async fn forward(mut inbox: mpsc::Receiver<ToCoordinator>, handle: Handle) {
    while let Some(message) = inbox.recv().await {
        if handle.worker_message(message).await.is_err() {
            break;
        }
    }
}

async fn drive(
    handle: &Handle,
    worker: &WorkerHandle,
    job: JobId,
    program: &Arc<Program>,
    options: &EmbeddedOptions,
    started: Instant,
) -> Result<JobResult> {
    let metrics = worker.add_program(job, program.clone());
    let graph = &program.graph;
    // Listens before the first task runs: what the job prints must not invite a Ctrl-C that nobody hears.
    let interrupts = options.cancel_on_ctrl_c.then(Interrupts::listen).transpose()?;
    let spec = JobSpec {
        settings: options.settings.clone(),
        restore: options.restore.clone(),
        ..JobSpec::embedded(program.graph.clone())
    };
    handle.submit(job, spec).await.map_err(|error| error.into_error())?;
    let outcome = wait(handle, job, program, &metrics, options, interrupts).await?;
    match outcome {
        JobOutcome::Finished => {
            let result = JobResult {
                job,
                name: graph.name.clone(),
                runtime: started.elapsed(),
                vertices: metrics.summary(graph),
                finished: true,
            };
            if options.show_progress {
                eprintln!("{result}");
            }
            Ok(result)
        }
        JobOutcome::Canceled => {
            Err(Error::new(ErrorKind::Cancelled, format!("job '{}' was cancelled", graph.name)))
        }
        JobOutcome::Failed(failure) => {
            // A failure of the snapshot itself names another one.
            if options.show_progress
                && failure.kind() != ErrorKind::Snapshot
                && !is_deleted_at_the_end(options)
                && let Some(folder) = newest_snapshot(handle, job).await
            {
                eprintln!("{}", restarts::advice(&folder));
            }
            Err(failure.to_error().at(format!("job '{}' failed", graph.name)))
        }
    }
}

async fn wait(
    handle: &Handle,
    job: JobId,
    program: &Arc<Program>,
    metrics: &JobMetrics,
    options: &EmbeddedOptions,
    interrupts: Option<Interrupts>,
) -> Result<JobOutcome> {
    let interrupted = async {
        match &interrupts {
            Some(interrupts) => interrupts.requested().await,
            None => std::future::pending().await,
        }
    };
    let name = &program.graph.name;
    let mut progress = Progress::start(name, options.show_progress);
    let mut tick = tokio::time::interval(progress::INTERVAL);
    let mut ended = std::pin::pin!(handle.wait(job));
    let mut interrupted = std::pin::pin!(interrupted);
    let mut cancelled = false;
    let mut restarts = Restarts::default();
    let outcome = loop {
        tokio::select! {
            outcome = &mut ended => break outcome.map_err(|error| error.into_error()),
            _ = tick.tick() => {
                progress.update(&program.graph, metrics);
                say_what_went_wrong(handle, job, &mut restarts, &progress).await;
            }
            () = &mut interrupted, if !cancelled => {
                cancelled = true;
                progress.say(&format!("cancelling job '{name}'; a second Ctrl-C ends the program at once"));
                match handle.cancel(job).await {
                    // The outcome is on its way.
                    Ok(()) | Err(CoordinatorError::JobEnded { .. }) => {}
                    Err(error) => break Err(error.into_error()),
                }
            }
        }
    };
    say_what_went_wrong(handle, job, &mut restarts, &progress).await;
    progress.finish();
    outcome
}

/// Says each restart once: why, and what the job goes on from.
async fn say_what_went_wrong(handle: &Handle, job: JobId, restarts: &mut Restarts, progress: &Progress) {
    let look = move |state: &ClusterState| {
        let record = state.job(job)?;
        let restarted = record.exceptions().latest().filter(|exception| exception.restarted);
        let failure =
            |one: &JobException| Failure { at_ms: one.at_ms, message: one.cause.to_error().to_string() };
        let failures: Vec<Failure> = restarted.map(failure).collect();
        let counts = record.counts();
        let is_deployed = counts.of(TaskState::Created) + counts.of(TaskState::Scheduled) == 0;
        let is_down = matches!(record.state(), JobState::Restarting | JobState::Failing | JobState::Failed);
        let goes_on = is_deployed && !is_down;
        let restored = record.checkpoints().restored().map(|restored| Restored {
            checkpoint: restored.from.checkpoint,
            folder: restored.from.folder.clone(),
            at_ms: restored.at_ms,
        });
        Some((failures, goes_on, restored))
    };
    // A cluster that is gone has nothing to say.
    let Ok(Some((failures, goes_on, restored))) = handle.read("failures", look).await else { return };
    restarts.failed(failures).iter().for_each(|line| progress.say(line));
    if goes_on && let Some(line) = restarts.goes_on(restored) {
        progress.say(&line);
    }
}

/// Of a job that has failed: what it can be started from again.
async fn newest_snapshot(handle: &Handle, job: JobId) -> Option<String> {
    let look = move |state: &ClusterState| {
        let checkpoints = state.job(job)?.checkpoints();
        let known = checkpoints.retained().chain(checkpoints.savepoints());
        known.max_by_key(|one| one.id).map(|one| one.folder.clone())
    };
    let folder = handle.read("snapshots", look).await.ok()??;
    let is_there = Storage::open(&folder).is_ok_and(|place| place.exists(MANIFEST_FILE).unwrap_or(false));
    is_there.then_some(folder)
}

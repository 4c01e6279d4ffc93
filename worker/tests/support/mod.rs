//! A supervisor with a coordinator played by the test.

// Each test binary uses its share of these.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flott_schema::config::options::ExchangeCompression;
use flott_schema::control::{Order, Placement, PrepareOrder, TaskReport, TaskState, ToCoordinator, ToWorker};
use flott_schema::graph::JobGraph;
use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, ProgramDigest, ProgramRef};
use flott_schema::security::Token;
use flott_schema::{Error, Result};
use flott_worker::executor::RuntimeOptions;
use flott_worker::supervisor::machine::Deadlines;
use flott_worker::supervisor::program_cache::{ProgramPart, ProgramSource};
use flott_worker::supervisor::rotate::Rotation;
use flott_worker::supervisor::statistics::Statistics;
use flott_worker::supervisor::{Options, Supervisor};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(120);
/// Set in a test binary that is a worker process for another test.
const WORKER_PROCESS: &str = "EXECUTORS_TEST_IS_WORKER";
/// The id of the worker.
pub const WORKER: WorkerId = WorkerId(5);

/// The program of `examples/executor_job.rs`.
pub fn program() -> &'static (PathBuf, ProgramDigest) {
    static PROGRAM: OnceLock<(PathBuf, ProgramDigest)> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        let path = this.parent().and_then(Path::parent).unwrap().join("examples/executor_job");
        let bytes = std::fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; cargo build -p flott-worker --example executor_job", path.display())
        });
        (path, ProgramDigest(Sha256::digest(bytes).into()))
    })
}

/// The coordinator's programs: that one.
struct Programs;

impl ProgramSource for Programs {
    fn read(&self, digest: ProgramDigest, offset: u64, length: u32) -> ProgramPart {
        let (path, known) = program();
        Box::pin(async move {
            if digest != *known {
                return Err(Error::bad_input("no such program"));
            }
            let file = std::fs::File::open(path)?;
            let size = file.metadata()?.len();
            let mut part = vec![0; (size - offset).min(u64::from(length)) as usize];
            file.read_exact_at(&mut part, offset)?;
            Ok((part, size))
        })
    }
}

/// A worker under test.
pub struct Worker {
    orders: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Vec<ToCoordinator>>,
    seen: Vec<TaskReport>,
    folder: tempfile::TempDir,
    specs: Vec<(JobId, Arc<JobSpec>)>,
}

/// Runs a test with a worker; it and its executors are gone afterwards.
pub fn run(change: impl FnOnce(Options) -> Options, test: impl AsyncFnOnce(&mut Worker)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = async {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            runtime: RuntimeOptions {
                slots: 2,
                channel_capacity: 8,
                window_bytes: 1 << 20,
                compression: ExchangeCompression::None,
                connect_timeout_ms: 60_000,
                spool_memory_bytes: 1 << 20,
                scratch: folder.path().join("tmp"),
                storage: Default::default(),
            },
            slot_memory_bytes: 0,
            logs: folder.path().join("logs"),
            rotation: Rotation::default(),
            jobs_logged_max: 100,
            programs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs"),
            programs_bytes_max: 1 << 30,
            program_patience_ms: 10_000,
            token: Token::none(),
            // The machine may be busy with other tests.
            deadlines: Deadlines { hello_ms: 60_000, ..Deadlines::default() },
        };
        let data_port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let statistics = Statistics::default();
        let supervisor =
            Supervisor::start(change(options), Rc::new(Programs), data_port, statistics).unwrap();
        let (orders, waiting) = mpsc::channel(16);
        let (sender, reports) = mpsc::channel(16);
        let service = spawn_local(supervisor.run(waiting, sender));
        let mut worker = Worker { orders, reports, seen: Vec::new(), folder, specs: Vec::new() };
        test(&mut worker).await;
        let (jobs, folder) = (worker.specs, worker.folder);
        drop((worker.orders, worker.reports));
        service.await.unwrap();
        for (job, _) in jobs {
            assert!(executors_of(job).is_empty(), "an executor was left behind");
        }
        let left: Vec<_> = std::fs::read_dir(folder.path().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "left in the scratch folder: {left:?}");
    };
    let ended = LocalSet::new().block_on(&runtime, async { timeout(DEADLINE, body).await });
    ended.expect("the test takes too long");
}

impl Worker {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Deploys the program under a new job.
    pub async fn deploy(&mut self, arguments: &[&str]) -> JobId {
        let job = new_job();
        self.deploy_again(job, arguments).await;
        job
    }

    /// Deploys the program under this job.
    pub async fn deploy_again(&mut self, job: JobId, arguments: &[&str]) {
        self.specs.retain(|(known, _)| *known != job);
        self.seen.retain(|report| report.job != job);
        self.deploy_program(job, arguments, program().1).await;
    }

    /// Says that the program may be deployed under a new job, and waits for its executor.
    pub async fn prepare(&mut self, arguments: &[&str]) -> JobId {
        let job = new_job();
        let (_, order) = deployment(job, arguments, program().1);
        let ToWorker::Deploy { spec, tasks, hosts, restore, .. } = order else { unreachable!("it is one") };
        self.order(ToWorker::Prepare(PrepareOrder { job, spec, tasks, hosts, restore })).await;
        eventually(|| !executors_of(job).is_empty()).await;
        job
    }

    /// Deploys a program that the coordinator does not have.
    pub async fn deploy_unknown_program(&mut self) -> JobId {
        let job = new_job();
        self.deploy_program(job, &["counts"], ProgramDigest([9; 32])).await;
        job
    }

    async fn deploy_program(&mut self, job: JobId, arguments: &[&str], digest: ProgramDigest) {
        let (spec, order) = deployment(job, arguments, digest);
        self.specs.push((job, spec));
        self.order(order).await;
    }

    pub async fn cancel(&mut self, job: JobId) {
        let spec = &self.specs.iter().find(|(known, _)| *known == job).unwrap().1;
        let attempts = attempts(spec);
        self.order(ToWorker::Cancel { job, attempts }).await;
    }

    pub async fn release(&mut self, job: JobId) {
        self.order(ToWorker::Release { job }).await;
    }

    async fn order(&mut self, message: ToWorker) {
        self.orders.send(Order { term: 1, message }).await.unwrap();
    }

    /// Waits until the reports so far fulfil `holds`.
    pub async fn until(&mut self, holds: impl Fn(&[TaskReport]) -> bool) -> Vec<TaskReport> {
        while !holds(&self.seen) {
            let more = timeout(DEADLINE / 2, self.reports.recv()).await;
            match more {
                Ok(more) => {
                    let more = more.expect("the supervisor has ended").into_iter();
                    self.seen.extend(more.filter_map(|word| match word {
                        ToCoordinator::TaskState(report) => Some(report),
                        _ => None,
                    }));
                }
                Err(_) => panic!("what is waited for does not come; so far: {:#?}", self.seen),
            }
        }
        self.seen.clone()
    }

    pub async fn until_running(&mut self, job: JobId) {
        let is_running = |report: &&TaskReport| report.job == job && report.state == TaskState::Running;
        self.until(|reports| reports.iter().filter(is_running).count() == 4).await;
    }

    /// Waits until a task has failed and all have ended.
    pub async fn until_failed(&mut self, job: JobId) -> Vec<TaskReport> {
        self.until(|reports| {
            let ended = ended(reports, job);
            ended.len() == 4 && ended.iter().any(|report| report.state == TaskState::Failed)
        })
        .await
    }

    /// What stands in the log files of a job's executors.
    pub fn log(&self, job: JobId, ending: &str) -> String {
        let files = std::fs::read_dir(self.folder().join("logs")).unwrap().map(|file| file.unwrap().path());
        let of_job = files.filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&format!("flott-executor-{job}-")) && name.ends_with(ending)
        });
        of_job.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

/// The order to start the program's tasks, each in the slot with the number of its subtask.
pub fn deployment(job: JobId, arguments: &[&str], digest: ProgramDigest) -> (Arc<JobSpec>, ToWorker) {
    let program = ProgramRef {
        digest,
        name: "executor_job".into(),
        arguments: arguments.iter().map(|argument| argument.to_string()).collect(),
        execution: 0,
        configuration: Vec::new(),
    };
    let settings = JobSettings { cancellation_timeout_ms: 500, ..JobSettings::default() };
    let graph = Arc::new(graph(arguments));
    let spec = Arc::new(JobSpec { program: Some(program), settings, ..JobSpec::embedded(graph) });
    let slot = |attempt: &AttemptId| SlotId { worker: WORKER, index: attempt.task.subtask };
    let attempts = attempts(&spec).into_iter();
    let tasks: Vec<_> = attempts.map(|attempt| Placement { attempt, slot: slot(&attempt) }).collect();
    let peers = tasks.clone().into();
    (spec.clone(), ToWorker::Deploy { job, spec, tasks, peers, hosts: Arc::new([]), restore: None })
}

fn new_job() -> JobId {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    JobId(u128::from(std::process::id()) << 64 | u128::from(count) << 32 | 0xf10f)
}

fn graph(arguments: &[&str]) -> JobGraph {
    let output = Command::new(&program().0)
        .args(arguments)
        .env("EXECUTOR_JOB_GRAPH_ONLY", "1")
        .output()
        .expect("the program runs");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn attempts(spec: &JobSpec) -> Vec<AttemptId> {
    let tasks = spec
        .graph
        .vertices
        .iter()
        .flat_map(|vertex| (0..vertex.parallelism).map(|subtask| TaskId { vertex: vertex.id, subtask }));
    tasks.map(|task| AttemptId { task, job_epoch: 0, attempt: 0 }).collect()
}

/// The last word about each task of a job that has ended: one that has finished fails after all when its executor is gone.
pub fn ended(reports: &[TaskReport], job: JobId) -> Vec<TaskReport> {
    let ended = reports.iter().filter(|report| report.job == job && report.state.is_terminal());
    let last: BTreeMap<AttemptId, &TaskReport> = ended.map(|report| (report.attempt, report)).collect();
    last.into_values().cloned().collect()
}

/// The message of the first failure.
pub fn message(reports: &[TaskReport], job: JobId) -> String {
    let ended = ended(reports, job);
    ended.iter().find_map(|report| report.failure.as_ref()).map_or(String::new(), |f| f.message.clone())
}

/// The living processes that were started for a job: its executor, and what that has started.
pub fn executors_of(job: JobId) -> Vec<u32> {
    let job = job.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let has_variable =
            environment.split(|byte| *byte == 0).any(|pair| pair.starts_with(b"FLOTT_EXECUTOR="));
        if has_variable && String::from_utf8_lossy(&environment).contains(&job) {
            found.push(process);
        }
    }
    found
}

/// Waits until a condition that no event tells of holds.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(5)).await;
    }
}

pub async fn with_executor_gone(job: JobId) {
    eventually(|| executors_of(job).is_empty()).await;
}

/// kill -9.
pub fn kill(process: u32) {
    signal("KILL", process);
}

/// Sends a signal.
pub fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A worker in a process of its own.
pub struct WorkerProcess {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// What it cannot tidy up when it is killed.
    _scratch: tempfile::TempDir,
}

/// Starts this test binary with one test, which plays the worker.
pub fn start_worker_process(test: &str) -> WorkerProcess {
    let scratch = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(WORKER_PROCESS, "1")
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    WorkerProcess { child, lines, _scratch: scratch }
}

pub fn is_worker_process() -> bool {
    std::env::var_os(WORKER_PROCESS).is_some()
}

/// Says which jobs the worker process runs.
pub fn announce(jobs: &[JobId]) {
    let mut out = std::io::stdout();
    jobs.iter().try_for_each(|job| writeln!(out, "job {job}")).unwrap();
    out.flush().unwrap();
}

impl WorkerProcess {
    /// Waits for the jobs that it announces.
    pub fn jobs(&mut self, count: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        while jobs.len() < count {
            let line = self.lines.next().expect("the worker process has ended").unwrap();
            if let Some(job) = line.strip_prefix("job ").or(line.split("job ").nth(1)) {
                let parsed: Result<JobId> = job.trim().parse();
                jobs.extend(parsed.ok());
            }
        }
        jobs
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

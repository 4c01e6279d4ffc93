//! Sessions over real connections of the loopback, with a coordinator every step of which a test decides.

mod coordinator;
mod reconnecting;
mod registered;
mod searching;
mod snapshots;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::control::{Order, Placement, TaskReport, TaskState, ToWorker};
use flott_schema::error::{Error, Result};
use flott_schema::graph::{ExecutionMode, JobGraph};
use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, VertexId, WorkerId};
use flott_schema::job::{JobSpec, ProgramRef};
use flott_schema::security::Token;
use flott_schema::stats::{LogFile, TaskStats, WorkerProfile, WorkerStats, WorkerUsage};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::{Options, SessionHandle, WorkerSide, start};

const JOB: JobId = JobId(7);

/// Long enough that no test comes near it unless something hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a test on a thread of its own kind: calls over connections are bound to a thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { soon("the test", test).await });
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// A worker that has one log file and counts its heartbeats.
#[derive(Default)]
struct Side {
    heartbeats: AtomicU64,
}

impl WorkerSide for Side {
    fn stats(&self) -> WorkerStats {
        let cpu_ms = self.heartbeats.fetch_add(1, Ordering::Relaxed);
        WorkerStats { usage: WorkerUsage { cpu_ms, ..WorkerUsage::default() }, tasks: Vec::new() }
    }

    fn last_stats(&self, tasks: &[(JobId, AttemptId)]) -> WorkerStats {
        let tasks = tasks.iter().map(|(job, attempt)| TaskStats::new(*job, *attempt));
        WorkerStats { tasks: tasks.collect(), ..WorkerStats::default() }
    }

    fn list_logs(&self) -> Result<Vec<LogFile>> {
        Ok(vec![LogFile { name: "worker.log".into(), size: 9, modified_ms: 5 }])
    }

    fn read_log(&self, name: &str, offset: u64, length_max: u32) -> Result<FilePart> {
        if name != "worker.log" {
            return Err(Error::bad_input(format!("there is no log file '{name}'")));
        }
        let bytes = b"nine byte"[offset as usize..].iter().copied().take(length_max as usize).collect();
        Ok(FilePart { bytes, size: 9 })
    }

    fn run_program(
        &self,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>> {
        Box::pin(async move {
            match (program.name.as_str(), plan_only) {
                ("broken", _) => Err(Error::user("the program fell over")),
                (_, true) => Ok(ProgramRun::Plan(rest_address)),
                (_, false) => Ok(ProgramRun::Submitted(vec![JOB, JobId(u128::MAX)])),
            }
        })
    }
}

fn options(addresses: &[&str]) -> Options {
    let profile = WorkerProfile { name: "w".into(), slots: 3, ..WorkerProfile::default() };
    Options::new(addresses.iter().map(ToString::to_string).collect(), Token::none(), profile)
}

fn session(options: Options) -> (SessionHandle, mpsc::Receiver<Order>) {
    start(options, Arc::new(Side::default())).unwrap()
}

fn attempt(subtask: u32) -> AttemptId {
    AttemptId { task: TaskId { vertex: VertexId(1), subtask }, job_epoch: 0, attempt: 0 }
}

fn report(subtask: u32, state: TaskState) -> TaskReport {
    TaskReport { job: JOB, attempt: attempt(subtask), state, failure: None }
}

fn deploy(term: u64, subtasks: std::ops::Range<u32>) -> Order {
    let slot = SlotId { worker: WorkerId(1), index: 0 };
    let graph = JobGraph {
        name: "job".into(),
        mode: ExecutionMode::Streaming,
        vertices: Vec::new(),
        edges: Vec::new(),
    };
    let message = ToWorker::Deploy {
        job: JOB,
        spec: Arc::new(JobSpec::embedded(graph)),
        tasks: subtasks.map(|subtask| Placement { attempt: attempt(subtask), slot }).collect(),
        peers: Arc::new([]),
        hosts: Arc::new([]),
        restore: None,
    };
    Order { term, message }
}

fn release(term: u64, job: u128) -> Order {
    Order { term, message: ToWorker::Release { job: JobId(job) } }
}

//! A cluster for the tests: a coordinator whose workers the test plays, and a client of the server.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::control::{TaskFailure, TaskReport, TaskState, ToCoordinator, ToWorker};
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};
use flott_schema::ids::{JobId, OperatorId, TaskId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy};
use flott_schema::stats::{LogFile, OperatorStats, TaskStats, WorkerProfile, WorkerUsage};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::live::{AskWorkers, ReadStats, Sample, TaskSamples};
use crate::programs::{ProgramPeers, Programs};
use crate::rest::{Options, Server, ServerHandle, Services};
use crate::{Coordinator, Handle, InMemoryLink};

/// When the scripts begin (milliseconds since 1970).
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// What the server takes for now.
pub(super) const NOW_MS: u64 = START_MS + 60_000;

thread_local! {
    /// The coordinator's clock; it runs on the thread of its test.
    static CLOCK: Cell<u64> = const { Cell::new(START_MS) };
}

/// The digest of the program that the jobs of the tests name.
pub(super) const PROGRAM: ProgramDigest = ProgramDigest([0xab; 32]);

/// Size of the largest program that the store of the tests takes, bytes.
pub(super) const PROGRAM_BYTES_MAX: u64 = 1 << 20;

/// Statistics and answers of the workers that the test plays.
struct Played;

/// Text of the log that every worker keeps; longer than what is fetched at once.
pub(super) fn log_text() -> String {
    (0..30_000).map(|line| format!("line {line}\n")).collect()
}

impl ReadStats for Played {
    fn worker(&self, worker: WorkerId) -> Option<Sample<WorkerUsage>> {
        let usage = WorkerUsage {
            resident_bytes: 20 << 20,
            executors_resident_bytes: 100 << 20,
            host_free_bytes: 4 << 30,
            cpu_ms: 12_345,
            executors: 2,
        };
        (worker.0 == 1).then_some(Sample { at_ms: NOW_MS - 500, value: usage })
    }

    fn tasks(&self, job: JobId) -> BTreeMap<TaskId, TaskSamples> {
        let sample = |task: TaskId, at_ms: u64| {
            let grown = (at_ms - START_MS) / 1_000;
            let value = TaskStats {
                job,
                attempt: flott_schema::ids::AttemptId { task, job_epoch: 0, attempt: 0 },
                records_in: 1_000 * grown,
                records_out: 2_000 * grown + u64::from(task.subtask),
                bytes_in: 50_000 * grown,
                bytes_out: 60_000 * grown,
                batches_in: 10 * grown,
                batches_out: 20 * grown,
                busy_ms: 700 * grown,
                idle_ms: 100 * grown,
                backpressured_ms: 200 * grown,
                input_watermark_ms: (task.subtask == 0).then_some(1_234),
                operators: vec![OperatorStats {
                    operator: None,
                    records_in: 1_000 * grown,
                    records_out: 2_000 * grown,
                    late_records_dropped: 3,
                    undecodable_records: 1,
                }],
            };
            Sample { at_ms, value }
        };
        let graph = graph(2);
        let tasks = graph
            .vertices
            .iter()
            .flat_map(|vertex| (0..vertex.parallelism).map(|subtask| TaskId { vertex: vertex.id, subtask }));
        tasks
            .map(|task| {
                let latest = sample(task, START_MS + 20_000);
                (task, TaskSamples { latest, previous: Some(sample(task, START_MS + 10_000)) })
            })
            .collect()
    }
}

impl AskWorkers for Played {
    fn list_logs(&self, worker: WorkerId) -> BoxFuture<'static, Result<Vec<LogFile>>> {
        let file = |name: &str, size| LogFile { name: name.into(), size, modified_ms: START_MS };
        let files = vec![
            file("flott-worker.log", log_text().len() as u64),
            file("flott-executor-1.log", 3),
            file("flott-worker.out", 0),
        ];
        Box::pin(async move {
            if worker.0 == 1 {
                Ok(files)
            } else {
                Err(Error::new(ErrorKind::Io, "the worker does not answer"))
            }
        })
    }

    fn read_log(
        &self,
        _: WorkerId,
        name: String,
        offset: u64,
        length_max: u32,
    ) -> BoxFuture<'static, Result<FilePart>> {
        Box::pin(async move {
            let text = if name == "flott-worker.log" { log_text() } else { String::new() };
            let rest = &text.as_bytes()[offset as usize..];
            let bytes = rest[..rest.len().min(length_max as usize)].to_vec();
            Ok(FilePart { bytes, size: text.len() as u64 })
        })
    }

    fn run_program(
        &self,
        _: WorkerId,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>> {
        Box::pin(async move {
            assert!(rest_address.starts_with("127.0.0.1:"));
            if program.arguments == ["fail"] {
                return Err(Error::user("the program ended with status 1"));
            }
            if plan_only {
                return Ok(ProgramRun::Plan(r#"{"name":"planned"}"#.into()));
            }
            let parallelism = program.configuration.iter().find(|(key, _)| key == "parallelism.default");
            let number = parallelism.map_or(1, |(_, value)| value.parse().unwrap());
            Ok(ProgramRun::Submitted(vec![JobId(number)]))
        })
    }
}

/// A source, a keyed operator and a sink.
pub(super) fn graph(parallelism: u32) -> JobGraph {
    let vertex = |name: &str, is_source| {
        let id = OperatorId::of_uid(name);
        Vertex {
            id: id.into(),
            name: name.into(),
            operators: vec![OperatorSpec { id, uid: name.into(), name: name.into() }],
            parallelism,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            is_source,
        }
    };
    let vertices =
        vec![vertex("Source: words", true), vertex("Count", false), vertex("Sink: <print>", false)];
    let edge = |from: usize, to: usize, partitioning| Edge {
        source: vertices[from].id,
        target: vertices[to].id,
        input: 0,
        partitioning,
        exchange: Exchange::Pipelined,
    };
    let edges = vec![edge(0, 1, Partitioning::KeyGroup), edge(1, 2, Partitioning::Rebalance)];
    JobGraph { name: "word count".into(), mode: ExecutionMode::Streaming, vertices, edges }
}

/// The job of a program that the store of the tests has.
pub(super) fn spec(parallelism: u32, restart: RestartStrategy) -> JobSpec {
    let program = ProgramRef {
        digest: PROGRAM,
        name: "words".into(),
        arguments: vec!["--fast".into()],
        execution: 0,
        configuration: vec![
            ("parallelism.default".into(), "2".into()),
            ("my.password".into(), "hush".into()),
        ],
    };
    let settings = JobSettings { restart, ..JobSettings::default() };
    JobSpec { program: Some(program), settings, ..JobSpec::embedded(graph(parallelism)) }
}

/// The cluster of a test.
pub(super) struct Cluster {
    pub(super) handle: Handle,
    pub(super) server: ServerHandle,
    pub(super) programs: Programs,
    _folder: TempDir,
    link: InMemoryLink,
    orders: Vec<mpsc::Receiver<ToWorker>>,
}

/// Options of a server on any port.
pub(super) fn options() -> Options {
    Options {
        bind_ports: vec![0],
        threads: 1,
        request_deadline_ms: 5_000,
        now_ms: || NOW_MS,
        configuration: vec![("rest.port".into(), "8081".into()), ("security.token".into(), "******".into())],
        ..Options::default()
    }
}

impl Cluster {
    /// A coordinator without workers, and its server.
    pub(super) async fn start(options: Options) -> Self {
        CLOCK.set(START_MS);
        let link = InMemoryLink::new();
        let service = crate::Options { now_ms: || CLOCK.get(), ..crate::Options::default() };
        let (coordinator, handle) = Coordinator::new(service, link.clone());
        tokio::spawn(coordinator.run());
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::open(folder.path(), PROGRAM_BYTES_MAX, ProgramPeers::none()).unwrap();
        handle.program_stored(PROGRAM, "words".into(), 5).await.unwrap();
        let services = Services {
            programs: Some(programs.clone()),
            ..Services::new(handle.clone(), Arc::new(Played), Arc::new(Played))
        };
        let server = Server::start(options, services).unwrap();
        Cluster { handle, server, programs, link, orders: Vec::new(), _folder: folder }
    }

    /// Lets time pass for the coordinator.
    pub(super) fn wait_ms(&self, ms: u64) {
        CLOCK.set(CLOCK.get() + ms);
    }

    /// Registers a worker.
    pub(super) async fn worker(&mut self, number: u64, slots: u32) {
        let worker = WorkerId(number);
        self.orders.push(self.link.attach(worker, 1_024));
        let profile = WorkerProfile {
            name: format!("host{number}:9{number}00-abc"),
            host: format!("host{number}"),
            data_address: format!("10.0.0.{number}:9{number}00"),
            slots,
            cores: 8,
            memory_bytes: 16 << 30,
            slot_memory_bytes: 512 << 20,
            // The first gives no metrics of its own.
            metrics_port: if number == 1 { 0 } else { 9_249 },
            version: "0.1.0".into(),
        };
        self.handle.register_worker(worker, profile).await.unwrap();
    }

    /// Submits a job under this number.
    pub(super) async fn submit(&self, number: u128, parallelism: u32, restart: RestartStrategy) {
        self.handle.submit(JobId(number), spec(parallelism, restart)).await.unwrap();
    }

    /// Reports this state of all tasks of a job, or of those of one vertex.
    pub(super) async fn report(&self, number: u128, state: TaskState, vertex: Option<usize>) {
        let job = JobId(number);
        let record = self.handle.status(job).await.unwrap();
        let reports = record.vertices().iter().enumerate().flat_map(|(index, record)| {
            let wanted = vertex.is_none_or(|vertex| vertex == index);
            record.tasks().iter().filter(move |_| wanted)
        });
        let reports = reports.map(|task| {
            ToCoordinator::TaskState(TaskReport { job, attempt: task.attempt(), state, failure: None })
        });
        self.handle.worker_reports(reports.collect()).await.unwrap();
    }

    /// Reports that a task of the second vertex failed.
    pub(super) async fn fail(&self, number: u128, subtask: u32) {
        let job = JobId(number);
        let record = self.handle.status(job).await.unwrap();
        let failure = TaskFailure {
            kind: ErrorKind::UserCode,
            vertex: "Count".into(),
            subtask,
            parallelism: 2,
            message: "panicked: too many words".into(),
            backtrace: Some("   0: count".into()),
        };
        let attempt = record.vertices()[1].tasks()[subtask as usize].attempt();
        let report = TaskReport { job, attempt, state: TaskState::Failed, failure: Some(failure) };
        self.handle.worker_reports(vec![ToCoordinator::TaskState(report)]).await.unwrap();
    }

    /// Calls the server.
    pub(super) async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[], b"").await
    }

    /// Calls the server with headers and a body.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        send(self.server.address(), method, path, headers, body).await
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The message of an error.
    pub(super) fn error(&self) -> String {
        self.json()["errors"][0].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

/// One request over one connection.
pub(super) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused already may have closed its end.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let text = timeout(Duration::from_secs(20), exchange).await.expect("an answer within the deadline");
    let (head, body) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {path}: '{text}'"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

//! What the first version of each message wrote is read, and written, for ever.

mod frozen;

use std::path::Path;
use std::sync::Arc;

use flott_schema::ErrorKind;
use flott_schema::control::{
    Order, Placement, RunningTask, TaskFailure, TaskReport, TaskState, ToWorker, WorkerHost,
};
use flott_schema::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};
use flott_schema::ids::{AttemptId, JobId, OperatorId, SlotId, TaskId, VertexId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy, Submission};
use flott_schema::stats::{LogFile, OperatorStats, TaskStats, WorkerProfile, WorkerStats, WorkerUsage};

use frozen::sample;

const JOB: JobId = JobId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const SOURCE: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;
const SINK: u128 = 0x9999_aaaa_bbbb_cccc_dddd_eeee_ffff_0000;

fn attempt(vertex: u128, subtask: u32) -> AttemptId {
    AttemptId { task: TaskId { vertex: VertexId(vertex), subtask }, job_epoch: 3, attempt: 2 }
}

fn placement(subtask: u32) -> Placement {
    Placement { attempt: attempt(SOURCE, subtask), slot: SlotId { worker: WorkerId(7), index: subtask } }
}

fn vertex(id: u128, name: &str, is_source: bool) -> Vertex {
    let operator = OperatorSpec { id: OperatorId(id), uid: format!("{name}-1"), name: name.into() };
    Vertex {
        id: VertexId(id),
        name: format!("{name} -> sieve"),
        operators: vec![operator],
        parallelism: 4,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        is_source,
    }
}

fn edge(input: u16, partitioning: Partitioning, exchange: Exchange) -> Edge {
    Edge { source: VertexId(SOURCE), target: VertexId(SINK), input, partitioning, exchange }
}

/// A graph with an edge of every kind.
fn graph() -> JobGraph {
    let pipelined = [
        Partitioning::Forward,
        Partitioning::KeyGroup,
        Partitioning::Rebalance,
        Partitioning::Rescale,
        Partitioning::Broadcast,
        Partitioning::Shuffle,
        Partitioning::Global,
    ];
    let mut edges: Vec<Edge> =
        (0..).zip(pipelined).map(|(input, kind)| edge(input, kind, Exchange::Pipelined)).collect();
    edges.push(edge(7, Partitioning::Custom, Exchange::Blocking));
    let vertices = vec![vertex(SOURCE, "source", true), vertex(SINK, "sink", false)];
    JobGraph { name: "café".into(), mode: ExecutionMode::Batch, vertices, edges }
}

fn program() -> ProgramRef {
    ProgramRef {
        digest: ProgramDigest(std::array::from_fn(|at| at as u8 * 8)),
        name: "words".into(),
        arguments: vec!["--input".into(), "a b".into()],
        execution: 1,
        configuration: vec![("parallelism.default".into(), "4".into())],
    }
}

fn settings(restart: RestartStrategy) -> JobSettings {
    JobSettings {
        restart,
        restart_all: true,
        slot_wait_ms: Some(5_000),
        cancellation_timeout_ms: 180_000,
        ..JobSettings::default()
    }
}

fn spec() -> JobSpec {
    let restart = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 1_000 };
    JobSpec { program: Some(program()), settings: settings(restart), ..JobSpec::embedded(graph()) }
}

fn order(message: ToWorker) -> Order {
    Order { term: 5, message }
}

fn deploy() -> Order {
    order(ToWorker::Deploy {
        job: JOB,
        spec: Arc::new(spec()),
        tasks: vec![placement(0)],
        peers: Arc::new([placement(0), placement(1)]),
        hosts: Arc::new([WorkerHost { worker: WorkerId(7), data_address: "worker-7:6121".into() }]),
        restore: None,
    })
}

fn report(state: TaskState, failure: Option<TaskFailure>) -> TaskReport {
    TaskReport { job: JOB, attempt: attempt(SINK, 1), state, failure }
}

fn failure(kind: ErrorKind, backtrace: Option<&str>) -> TaskFailure {
    TaskFailure {
        kind,
        vertex: "sink".into(),
        subtask: 1,
        parallelism: 4,
        message: "disk full".into(),
        backtrace: backtrace.map(str::to_string),
    }
}

fn worker_stats() -> WorkerStats {
    let operator = OperatorStats {
        operator: Some(OperatorId(SOURCE)),
        records_in: 1,
        records_out: 2,
        late_records_dropped: 3,
        undecodable_records: 4,
    };
    let task = TaskStats {
        job: JOB,
        attempt: attempt(SOURCE, 0),
        records_in: 11,
        records_out: 12,
        bytes_in: 13,
        bytes_out: 14,
        batches_in: 15,
        batches_out: 16,
        busy_ms: 17,
        idle_ms: 18,
        backpressured_ms: 19,
        input_watermark_ms: Some(-20),
        operators: vec![operator, OperatorStats::default()],
    };
    let usage = WorkerUsage {
        resident_bytes: 21,
        executors_resident_bytes: 22,
        host_free_bytes: 23,
        cpu_ms: 24,
        executors: 25,
    };
    WorkerStats { usage, tasks: vec![task] }
}

fn profile() -> WorkerProfile {
    WorkerProfile {
        name: "left".into(),
        host: "left.example".into(),
        data_address: "left.example:6121".into(),
        slots: 4,
        cores: 8,
        memory_bytes: 1 << 34,
        slot_memory_bytes: 1 << 30,
        metrics_port: 9_249,
        version: "0.1.0".into(),
    }
}

#[test]
fn messages_stay_as_they_were_written_first() {
    let submission = Submission { job: JOB, spec: spec() };
    let embedded = JobSpec { program: None, settings: JobSettings::default(), ..spec() };
    let failure_rate =
        settings(RestartStrategy::FailureRate { failures_max: 2, interval_ms: 60_000, delay_ms: 1_500 });
    let exponential_delay = settings(RestartStrategy::ExponentialDelay {
        initial_ms: 1_000,
        max_ms: 60_000,
        multiplier_milli: 1_500,
        jitter_milli: 100,
        reset_ms: 3_600_000,
        attempts: 9,
    });
    let (deploy, release) = (deploy(), order(ToWorker::Release { job: JOB }));
    let cancel = order(ToWorker::Cancel { job: JOB, attempts: vec![attempt(SOURCE, 0), attempt(SINK, 3)] });
    let running = RunningTask { job: JOB, attempt: attempt(SOURCE, 0), state: TaskState::Running };
    let reports = TaskState::ALL.map(|state| report(state, None));
    let kinds = [
        ErrorKind::UserCode,
        ErrorKind::BadInput,
        ErrorKind::Configuration,
        ErrorKind::Graph,
        ErrorKind::Resources,
        ErrorKind::Io,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
        ErrorKind::Snapshot,
    ];
    let failures = kinds.map(|kind| failure(kind, None));
    let failed = report(TaskState::Failed, Some(failure(ErrorKind::Io, Some("at write"))));
    let (stats, profile) = (worker_stats(), profile());
    let log_file = LogFile { name: "worker.log".into(), size: 1 << 20, modified_ms: 1_790_000_000_000 };
    let mut samples = vec![
        sample("submission", &submission),
        sample("job_spec.embedded", &embedded),
        sample("job_settings.failure_rate", &failure_rate),
        sample("job_settings.exponential_delay", &exponential_delay),
        sample("order.deploy", &deploy),
        sample("order.cancel", &cancel),
        sample("order.release", &release),
        sample("running_task", &running),
        sample("task_report.failed", &failed),
        sample("worker_stats", &stats),
        sample("worker_profile", &profile),
        sample("log_file", &log_file),
    ];
    let states = [
        "state.created",
        "state.scheduled",
        "state.deploying",
        "state.initializing",
        "state.running",
        "state.finished",
        "state.canceling",
        "state.canceled",
        "state.failed",
    ];
    samples.extend(states.into_iter().zip(&reports).map(|(name, report)| sample(name, report)));
    let kinds = [
        "failure.user_code",
        "failure.bad_input",
        "failure.configuration",
        "failure.graph",
        "failure.resources",
        "failure.io",
        "failure.cancelled",
        "failure.internal",
        "failure.snapshot",
    ];
    samples.extend(kinds.into_iter().zip(&failures).map(|(name, failure)| sample(name, failure)));
    frozen::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/messages.txt"), &samples);
}

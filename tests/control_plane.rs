//! The control connection of workers, with both of its real ends: the session of a worker and the control port of a coordinator.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flott_coordinator::live::AskWorkers;
use flott_coordinator::rpc::{self, Parts, ReadProgram, RpcHandle, RpcLink};
use flott_coordinator::{Coordinator, Handle, JobOutcome, JobState};
use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::control::{Order, TaskReport, TaskState, ToWorker};
use flott_schema::error::{Error, Result};
use flott_schema::graph::{ExecutionMode, JobGraph, OperatorSpec, Vertex};
use flott_schema::ids::{AttemptId, JobId, OperatorId, WorkerId};
use flott_schema::job::{JobSpec, ProgramDigest, ProgramRef};
use flott_schema::security::Token;
use flott_schema::stats::{LogFile, WorkerProfile, WorkerStats};
use flott_worker::session::{self, SessionEnd, SessionHandle, SessionState, WorkerSide};
use tokio::sync::mpsc;
use tokio::time::timeout;

const TASKS: u32 = 200;

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

struct NoPrograms;

impl ReadProgram for NoPrograms {
    fn read(&self, digest: ProgramDigest, _: u64, _: u32) -> Result<FilePart> {
        Err(Error::bad_input(format!("there is no program {digest}")))
    }

    fn is_here(&self, _: ProgramDigest) -> bool {
        false
    }

    fn fetch(&self, _: ProgramDigest) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

struct Side;

impl WorkerSide for Side {
    fn stats(&self) -> WorkerStats {
        WorkerStats::default()
    }

    fn list_logs(&self) -> Result<Vec<LogFile>> {
        Ok(Vec::new())
    }

    fn read_log(&self, name: &str, _: u64, _: u32) -> Result<FilePart> {
        Err(Error::bad_input(format!("there is no log file '{name}'")))
    }

    fn run_program(
        &self,
        program: ProgramRef,
        _: String,
        _: bool,
    ) -> Pin<Box<dyn Future<Output = Result<ProgramRun>> + Send>> {
        Box::pin(async move { Ok(ProgramRun::Plan(program.name)) })
    }
}

fn token() -> Token {
    Token::new("correct-horse").unwrap()
}

/// A coordinator without a port yet.
fn coordinator() -> (Handle, RpcLink) {
    let link = RpcLink::new();
    let (coordinator, handle) = Coordinator::new(flott_coordinator::Options::default(), link.clone());
    tokio::spawn(coordinator.run());
    (handle, link)
}

fn open(handle: &Handle, link: &RpcLink, port: u16) -> RpcHandle {
    let options = rpc::Options { ports: vec![port], token: token(), ..rpc::Options::default() };
    let (handle, link) = (handle.clone(), link.clone());
    rpc::start(options, Parts { handle, link, programs: Arc::new(NoPrograms), peer: None }).unwrap()
}

fn worker(addresses: Vec<String>, token: Token) -> (SessionHandle, mpsc::Receiver<Order>) {
    let profile = WorkerProfile { name: "w".into(), slots: TASKS, ..WorkerProfile::default() };
    session::start(session::Options::new(addresses, token, profile), Arc::new(Side)).unwrap()
}

async fn submit(handle: &Handle, job: JobId) {
    let id = OperatorId::of_uid("map");
    let vertex = Vertex {
        id: id.into(),
        name: "map".into(),
        operators: vec![OperatorSpec { id, uid: "map".into(), name: "map".into() }],
        parallelism: TASKS,
        max_parallelism: TASKS,
        slot_sharing_group: "default".into(),
        is_source: true,
    };
    let graph = JobGraph {
        name: "job".into(),
        mode: ExecutionMode::Streaming,
        vertices: vec![vertex],
        edges: Vec::new(),
    };
    handle.submit(job, JobSpec::embedded(graph)).await.unwrap();
}

async fn deployed(orders: &mut mpsc::Receiver<Order>) -> Vec<AttemptId> {
    match soon("an order", orders.recv()).await.unwrap().message {
        ToWorker::Deploy { tasks, .. } => tasks.into_iter().map(|task| task.attempt).collect(),
        other => panic!("not to deploy: {other:?}"),
    }
}

async fn report_all(session: &SessionHandle, job: JobId, attempts: &[AttemptId], state: TaskState) {
    for attempt in attempts {
        let report = TaskReport { job, attempt: *attempt, state, failure: None };
        session.report(vec![report]).await.unwrap();
    }
}

async fn in_state(handle: &Handle, job: JobId, state: JobState) {
    let mut changes = handle.subscribe().unwrap();
    while handle.status(job).await.unwrap().state() != state {
        soon("a change of the job", changes.next()).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_survives_a_control_port_that_goes_away_in_the_middle_of_its_reports() {
    let (handle, link) = coordinator();
    let port = open(&handle, &link, 0);
    let address = port.address();
    let (session, mut orders) = worker(vec![address.to_string()], token());
    let id = soon("registration", session.registered()).await.unwrap();

    let job = JobId(1);
    submit(&handle, job).await;
    let attempts = deployed(&mut orders).await;
    assert_eq!(attempts.len(), TASKS as usize);
    report_all(&session, job, &attempts, TaskState::Initializing).await;
    report_all(&session, job, &attempts, TaskState::Running).await;
    in_state(&handle, job, JobState::Running).await;

    let (first, rest) = attempts.split_at(TASKS as usize / 2);
    report_all(&session, job, first, TaskState::Finished).await;
    // Some of these have arrived by now, and of some nobody knows.
    port.stop();
    soon("the end of the port", port.ended()).await;
    report_all(&session, job, rest, TaskState::Finished).await;
    assert_eq!(handle.status(job).await.unwrap().state(), JobState::Running);

    let port = open(&handle, &link, address.port());
    assert_eq!(soon("the end of the job", handle.wait(job)).await.unwrap(), JobOutcome::Finished);
    assert_eq!(soon("registration", session.registered()).await, Ok(id));
    let error = port.read_log(id, "x".into(), 0, 1).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no log file 'x'");
    let error = session.read_program(ProgramDigest([1; 32]), 0, 1).await.unwrap_err();
    assert!(error.to_string().contains("there is no program"), "{error}");
}

#[tokio::test]
async fn a_worker_that_was_given_up_drops_its_jobs_and_comes_back_as_a_new_one() {
    let (handle, link) = coordinator();
    let port = open(&handle, &link, 0);
    let (session, mut orders) = worker(vec![port.address().to_string()], token());
    let id = soon("registration", session.registered()).await.unwrap();
    let job = JobId(1);
    submit(&handle, job).await;
    let attempts = deployed(&mut orders).await;
    let mut states = session.watch();
    handle.worker_lost(id).await.unwrap();
    assert!(matches!(soon("the end of the job", handle.wait(job)).await.unwrap(), JobOutcome::Failed(_)));

    let known =
        |state: &SessionState, id| matches!(state, SessionState::Registered { worker, .. } if *worker == id);
    soon("the new id", states.wait_for(|state| known(state, WorkerId(id.0 + 1)))).await.unwrap();
    match soon("an order", orders.recv()).await.unwrap().message {
        ToWorker::Cancel { job: of, attempts: all } => {
            assert_eq!(of, job);
            assert_eq!(all.iter().collect::<BTreeSet<_>>(), attempts.iter().collect());
        }
        other => panic!("not to cancel: {other:?}"),
    }
    assert_eq!(soon("an order", orders.recv()).await.unwrap().message, ToWorker::Release { job });

    // Reports of what it had are of no interest any more, and do no harm.
    report_all(&session, job, &attempts, TaskState::Canceled).await;
    let next = JobId(2);
    submit(&handle, next).await;
    let attempts = deployed(&mut orders).await;
    report_all(&session, next, &attempts, TaskState::Finished).await;
    assert_eq!(soon("the end of the job", handle.wait(next)).await.unwrap(), JobOutcome::Finished);
}

#[tokio::test]
async fn a_worker_with_another_token_ends_with_the_reason() {
    let (handle, link) = coordinator();
    let port = open(&handle, &link, 0);
    let (session, _orders) = worker(vec![port.address().to_string()], Token::new("wrong-horse").unwrap());
    match soon("the end", session.ended()).await {
        SessionEnd::Refused { reason, .. } => assert!(reason.contains("security.token"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(port.refused(), 1);
}

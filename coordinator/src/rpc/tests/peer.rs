//! A worker's end of a control connection, every step of which a test decides.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use capnp::message::ReaderOptions;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client_from_rc, rpc_twoparty_capnp};
use flott_schema::control::{
    Order, Placement, Report, RunningTask, SnapshotReport, TaskReport, TaskState, ToWorker,
};
use flott_schema::ids::{AttemptId, WorkerId};
use flott_schema::job::ProgramDigest;
use flott_schema::security::CONTROL_PROTOCOL;
use flott_schema::stats::{LogFile, WorkerProfile, WorkerStats};
use flott_schema::wire::Wire;
use flott_schema::wire::fields::{required, write_list};
use flott_schema::wire::generated::control_capnp::{
    cluster, coordinator, registration, worker, worker_session,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::{JOB, soon};

/// What a peer says first.
pub struct Greeting {
    pub protocol: u32,
    pub token: &'static str,
}

impl Default for Greeting {
    fn default() -> Self {
        Greeting { protocol: CONTROL_PROTOCOL, token: "" }
    }
}

/// A connection. It breaks when this is dropped.
pub struct Line {
    task: JoinHandle<capnp::Result<()>>,
}

impl Line {
    /// Waits until the other side has closed it.
    pub async fn closed(&mut self) {
        let _ = soon("the end of the connection", &mut self.task).await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects and says hello.
pub async fn connect(address: &str, greeting: Greeting) -> (Line, capnp::Result<cluster::Client>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (reader, writer) = stream.into_split();
    let side = rpc_twoparty_capnp::Side::Client;
    let network = VatNetwork::new(reader.compat(), writer.compat_write(), side, ReaderOptions::new());
    let mut rpc = RpcSystem::new(Box::new(network), None);
    let coordinator: coordinator::Client = rpc.bootstrap(rpc_twoparty_capnp::Side::Server);
    let line = Line { task: spawn_local(rpc) };
    let mut request = coordinator.connect_request();
    let mut hello = request.get().init_hello();
    hello.set_protocol(greeting.protocol);
    hello.set_version("test");
    hello.set_token(greeting.token);
    let answer = soon("the answer to hello", request.send().promise).await;
    (line, answer.and_then(|answer| answer.get()?.get_cluster()))
}

/// How a test worker behaves where it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Obedient,
    /// Never answers an order or a question.
    Deaf,
    /// Refuses every order.
    Stubborn,
}

struct Object {
    orders: mpsc::Sender<Order>,
    manner: Manner,
    asked: Rc<Cell<u32>>,
}

impl worker::Server for Object {
    async fn order(
        self: Rc<Self>,
        params: worker::OrderParams,
        _: worker::OrderResults,
    ) -> capnp::Result<()> {
        match self.manner {
            Manner::Deaf => return std::future::pending().await,
            Manner::Stubborn => return Err(capnp::Error::failed("no".into())),
            Manner::Obedient => {}
        }
        let form = params.get()?;
        let order = required("order", form.has_order(), form.get_order()).unwrap();
        self.orders.try_send(order).unwrap();
        Ok(())
    }

    async fn list_logs(
        self: Rc<Self>,
        _: worker::ListLogsParams,
        mut results: worker::ListLogsResults,
    ) -> capnp::Result<()> {
        self.asked.set(self.asked.get() + 1);
        if self.manner == Manner::Deaf {
            return std::future::pending().await;
        }
        let files = [LogFile { name: "worker.log".into(), size: 9, modified_ms: 5 }];
        let form = results.get();
        write_list("files", &files, |length| form.init_files(length)).unwrap();
        Ok(())
    }

    async fn read_log(
        self: Rc<Self>,
        params: worker::ReadLogParams,
        mut results: worker::ReadLogResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        if form.get_name()?.to_str()? != "worker.log" {
            return Err(capnp::Error::failed("there is no such log file".into()));
        }
        let text = &b"nine byte"[form.get_offset() as usize..];
        let mut form = results.get();
        form.set_part(text);
        form.set_size(9);
        Ok(())
    }

    async fn run_program(
        self: Rc<Self>,
        params: worker::RunProgramParams,
        mut results: worker::RunProgramResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let mut result = results.get().init_result();
        if form.get_plan_only() {
            result.set_plan("{}");
        } else if form.get_program()?.get_name()?.to_str()? == "broken" {
            result.set_failed("the program fell over");
        } else {
            let mut jobs = result.init_submitted(1);
            JOB.write(jobs.reborrow().get(0)).unwrap();
        }
        Ok(())
    }
}

/// What came of a registration.
pub enum Outcome {
    Accepted(TestWorker),
    NotLeader(String),
    Refused(String),
}

/// A registered worker.
pub struct TestWorker {
    pub id: WorkerId,
    pub term: u64,
    pub heartbeat_interval_ms: u64,
    pub line: Line,
    pub orders: mpsc::Receiver<Order>,
    pub asked: Rc<Cell<u32>>,
    session: worker_session::Client,
    cluster: cluster::Client,
    reported: RefCell<Vec<TaskReport>>,
}

/// Connects and asks to be registered.
pub async fn apply(
    address: &str,
    slots: u32,
    previous: u64,
    tasks: &[RunningTask],
    manner: Manner,
) -> Outcome {
    let (line, cluster) = connect(address, Greeting::default()).await;
    let cluster = cluster.unwrap();
    let (sender, orders) = mpsc::channel(64);
    let asked = Rc::new(Cell::new(0));
    let object = Rc::new(Object { orders: sender, manner, asked: asked.clone() });
    let mut request = cluster.register_request();
    let mut form = request.get();
    WorkerProfile { slots, name: "w".into(), ..WorkerProfile::default() }
        .write(form.reborrow().init_profile())
        .unwrap();
    form.set_previous(previous);
    write_list("tasks", tasks, |length| form.reborrow().init_tasks(length)).unwrap();
    form.set_worker(new_client_from_rc(object));
    let answer = soon("registration", request.send().promise).await.unwrap();
    match answer.get().unwrap().get_registration().unwrap().which().unwrap() {
        registration::Accepted(form) => Outcome::Accepted(TestWorker {
            id: WorkerId(form.get_worker()),
            term: form.get_term(),
            heartbeat_interval_ms: form.get_heartbeat_interval_ms(),
            line,
            orders,
            asked,
            session: form.get_session().unwrap(),
            cluster,
            reported: RefCell::default(),
        }),
        registration::NotLeader(form) => Outcome::NotLeader(form.get_leader().unwrap().to_string().unwrap()),
        registration::Refused(reason) => Outcome::Refused(reason.unwrap().to_string().unwrap()),
    }
}

/// A worker that must be accepted.
pub async fn registered(address: &str, slots: u32) -> TestWorker {
    accepted(apply(address, slots, 0, &[], Manner::Obedient).await)
}

pub fn accepted(outcome: Outcome) -> TestWorker {
    match outcome {
        Outcome::Accepted(worker) => worker,
        Outcome::NotLeader(leader) => panic!("sent to the leader '{leader}'"),
        Outcome::Refused(reason) => panic!("refused: {reason}"),
    }
}

impl TestWorker {
    pub async fn heartbeat(&self, stats: &WorkerStats) -> capnp::Result<()> {
        let mut request = self.session.heartbeat_request();
        stats.write(request.get().init_stats()).unwrap();
        soon("the answer to a heartbeat", request.send().promise).await.map(drop)
    }

    pub async fn report(&self, attempt: AttemptId, state: TaskState) -> capnp::Result<()> {
        let report = TaskReport { job: JOB, attempt, state, failure: None };
        self.reported.borrow_mut().push(report.clone());
        let mut request = self.session.report_request();
        let form = request.get();
        write_list("reports", &[report], |length| form.init_reports(length)).unwrap();
        soon("the answer to a report", request.send().promise).await.map(drop)
    }

    /// Reports of tasks with last snapshots among them.
    pub async fn report_all(&self, reports: &[Report]) -> capnp::Result<()> {
        let mut request = self.session.report_request();
        let form = request.get();
        write_list("mixed", reports, |length| form.init_mixed(length)).unwrap();
        soon("the answer to reports", request.send().promise).await.map(drop)
    }

    pub async fn hand_in(&self, parts: &[SnapshotReport]) -> capnp::Result<()> {
        let mut request = self.session.snapshots_request();
        let form = request.get();
        write_list("reports", parts, |length| form.init_reports(length)).unwrap();
        soon("the answer to parts of snapshots", request.send().promise).await.map(drop)
    }

    pub async fn want_snapshot(&self, attempt: AttemptId) -> capnp::Result<()> {
        let mut request = self.session.snapshots_wanted_request();
        let form = request.get();
        write_list("tasks", &[(JOB, attempt)], |length| form.init_tasks(length)).unwrap();
        soon("the answer to tasks that wait", request.send().promise).await.map(drop)
    }

    pub async fn order(&mut self) -> Order {
        soon("an order", self.orders.recv()).await.expect("the worker is still there")
    }

    /// The tasks of the next order, which must be to deploy.
    pub async fn deployed(&mut self) -> Vec<Placement> {
        match self.order().await.message {
            ToWorker::Deploy { tasks, .. } => tasks,
            other => panic!("not to deploy: {other:?}"),
        }
    }

    pub async fn read_program(
        &self,
        digest: ProgramDigest,
        offset: u64,
        length: u32,
    ) -> capnp::Result<(usize, u64)> {
        let mut request = self.cluster.read_program_request();
        let mut form = request.get();
        form.set_digest(&digest.0);
        form.set_offset(offset);
        form.set_length(length);
        let answer = soon("a part of a program", request.send().promise).await?;
        let form = answer.get()?;
        Ok((form.get_part()?.len(), form.get_size()))
    }

    pub async fn raft(&self) -> capnp::Result<()> {
        soon("the answer", self.cluster.raft_request().send().promise).await.map(drop)
    }
}

/// A task that runs.
pub fn running(attempt: AttemptId, state: TaskState) -> RunningTask {
    RunningTask { job: JOB, attempt, state }
}

/// A time that does not come in a test.
pub const NEVER_MS: u64 = Duration::from_secs(3_600).as_millis() as u64;

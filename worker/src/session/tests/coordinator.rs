//! A coordinator's control port that asks the test what to do.

use std::net::SocketAddr;
use std::rc::Rc;

use capnp::message::ReaderOptions;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client, rpc_twoparty_capnp};
use flott_schema::control::{Order, Report, RunningTask, SnapshotReport, TaskReport};
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::stats::{WorkerProfile, WorkerStats};
use flott_schema::wire::Wire;
use flott_schema::wire::fields::{list, required};
use flott_schema::wire::generated::control_capnp::{cluster, coordinator, worker, worker_session};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::soon;

/// What a registration is answered with.
pub enum Answer {
    Accepted { worker: u64, term: u64, heartbeat_interval_ms: u64, heartbeat_timeout_ms: u64 },
    NotLeader(String),
    Refused(String),
}

impl Answer {
    /// Accepted, with heartbeats that never come late.
    pub fn accepted(worker: u64, term: u64) -> Self {
        Answer::Accepted { worker, term, heartbeat_interval_ms: 3_600_000, heartbeat_timeout_ms: 3_600_000 }
    }
}

/// A worker that wants to be registered.
pub struct Applicant {
    pub protocol: u32,
    pub token: String,
    pub profile: WorkerProfile,
    pub previous: u64,
    pub tasks: Vec<RunningTask>,
    pub client: worker::Client,
    answer: oneshot::Sender<Answer>,
    line: AbortHandle,
    events: mpsc::Receiver<Event>,
}

/// What a registered worker says. Reports are acknowledged by the test; heartbeats of a coordinator that is not deaf at once.
pub enum Event {
    Reports(Vec<TaskReport>, oneshot::Sender<()>),
    Mixed(Vec<Report>, oneshot::Sender<()>),
    Snapshots(Vec<SnapshotReport>, oneshot::Sender<()>),
    Waiting(Vec<(JobId, AttemptId)>, oneshot::Sender<()>),
    Heartbeat(WorkerStats, oneshot::Sender<()>),
}

/// A registered worker.
pub struct Registered {
    pub client: worker::Client,
    pub events: mpsc::Receiver<Event>,
    line: AbortHandle,
}

/// A port.
pub struct Port {
    pub address: SocketAddr,
    applicants: mpsc::Receiver<Applicant>,
    accepting: JoinHandle<()>,
}

impl Port {
    pub async fn open() -> Self {
        Port::open_at("127.0.0.1:0").await
    }

    pub async fn open_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, applicants) = mpsc::channel(16);
        let accepting = spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, sender.clone());
            }
        });
        Port { address, applicants, accepting }
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Closes the port, so that it can be opened again; connections stay.
    pub async fn close(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    pub async fn applicant(&mut self) -> Applicant {
        soon("a registration", self.applicants.recv()).await.expect("the port is open")
    }

    /// Registers the next worker that asks.
    pub async fn register(&mut self, worker: u64, term: u64) -> Registered {
        self.applicant().await.answer(Answer::accepted(worker, term))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Applicant {
    pub fn answer(self, answer: Answer) -> Registered {
        let _ = self.answer.send(answer);
        Registered { client: self.client, events: self.events, line: self.line }
    }
}

impl Registered {
    /// Gives an order and waits until the worker has taken it.
    pub async fn order(&self, order: &Order) -> capnp::Result<()> {
        let mut request = self.client.order_request();
        order.write(request.get().init_order()).unwrap();
        soon("the answer to an order", request.send().promise).await.map(drop)
    }

    /// The next reports, without an answer yet.
    pub async fn reports(&mut self) -> (Vec<TaskReport>, oneshot::Sender<()>) {
        loop {
            match soon("reports", self.events.recv()).await.expect("the connection is there") {
                Event::Reports(reports, acknowledge) => return (reports, acknowledge),
                Event::Heartbeat(_, answer) => answer.send(()).unwrap_or_default(),
                _ => panic!("something else than reports"),
            }
        }
    }

    /// What the worker says next but numbers.
    pub async fn word(&mut self) -> Event {
        loop {
            match soon("a word", self.events.recv()).await.expect("the connection is there") {
                Event::Heartbeat(_, answer) => answer.send(()).unwrap_or_default(),
                word => return word,
            }
        }
    }

    /// The next heartbeat, without an answer yet.
    pub async fn heartbeat(&mut self) -> (WorkerStats, oneshot::Sender<()>) {
        loop {
            if let Event::Heartbeat(stats, answer) = soon("a heartbeat", self.events.recv()).await.unwrap() {
                return (stats, answer);
            }
        }
    }

    /// Breaks the connection.
    pub fn cut(self) {
        self.line.abort();
    }

    /// Waits until the worker has closed the connection.
    pub async fn closed(mut self) {
        let until_closed = async { while self.events.recv().await.is_some() {} };
        soon("the end of the connection", until_closed).await;
    }
}

fn serve(stream: TcpStream, applicants: mpsc::Sender<Applicant>) {
    let (reader, writer) = stream.into_split();
    let side = rpc_twoparty_capnp::Side::Server;
    let network = VatNetwork::new(reader.compat(), writer.compat_write(), side, ReaderOptions::new());
    let (mine, line) = oneshot::channel();
    let greeter: coordinator::Client =
        new_client(Greeter { applicants, line: std::cell::Cell::new(Some(line)) });
    let rpc = RpcSystem::new(Box::new(network), Some(greeter.client));
    let task = spawn_local(rpc);
    let _ = mine.send(task.abort_handle());
}

struct Greeter {
    applicants: mpsc::Sender<Applicant>,
    line: std::cell::Cell<Option<oneshot::Receiver<AbortHandle>>>,
}

impl coordinator::Server for Greeter {
    async fn connect(
        self: Rc<Self>,
        params: coordinator::ConnectParams,
        mut results: coordinator::ConnectResults,
    ) -> capnp::Result<()> {
        let hello = params.get()?.get_hello()?;
        let line = self.line.take().expect("one hello a connection").await.unwrap();
        results.get().set_cluster(new_client(Member {
            protocol: hello.get_protocol(),
            token: hello.get_token()?.to_string()?,
            applicants: self.applicants.clone(),
            line,
        }));
        Ok(())
    }
}

struct Member {
    protocol: u32,
    token: String,
    applicants: mpsc::Sender<Applicant>,
    line: AbortHandle,
}

impl cluster::Server for Member {
    async fn register(
        self: Rc<Self>,
        params: cluster::RegisterParams,
        mut results: cluster::RegisterResults,
    ) -> capnp::Result<()> {
        let (answer, answered) = oneshot::channel();
        let (sender, events) = mpsc::channel(64);
        let form = params.get()?;
        let applicant = Applicant {
            protocol: self.protocol,
            token: self.token.clone(),
            profile: required("profile", form.has_profile(), form.get_profile()).unwrap(),
            previous: form.get_previous(),
            tasks: list("tasks", form.get_tasks()).unwrap(),
            client: form.get_worker()?,
            answer,
            line: self.line.clone(),
            events,
        };
        let _ = self.applicants.send(applicant).await;
        let answer = answered.await.map_err(|_| capnp::Error::overloaded("not now".into()))?;
        let mut form = results.get().init_registration();
        match answer {
            Answer::Accepted { worker, term, heartbeat_interval_ms, heartbeat_timeout_ms } => {
                let mut form = form.init_accepted();
                form.set_worker(worker);
                form.set_term(term);
                form.set_heartbeat_interval_ms(heartbeat_interval_ms);
                form.set_heartbeat_timeout_ms(heartbeat_timeout_ms);
                form.set_session(new_client(Session { events: sender }));
            }
            Answer::NotLeader(leader) => form.init_not_leader().set_leader(&leader),
            Answer::Refused(reason) => form.set_refused(&reason),
        }
        Ok(())
    }

    async fn read_program(
        self: Rc<Self>,
        params: cluster::ReadProgramParams,
        mut results: cluster::ReadProgramResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        if form.get_digest()? != [0; 32] {
            return Err(capnp::Error::failed("there is no such program".into()));
        }
        let bytes = vec![7; form.get_length().min(100) as usize];
        let mut form = results.get();
        form.set_part(&bytes);
        form.set_size(100);
        Ok(())
    }
}

struct Session {
    events: mpsc::Sender<Event>,
}

impl Session {
    async fn tell(&self, event: impl FnOnce(oneshot::Sender<()>) -> Event) -> capnp::Result<()> {
        let (answer, answered) = oneshot::channel();
        let _ = self.events.send(event(answer)).await;
        answered.await.map_err(|_| capnp::Error::failed("not taken".into()))
    }
}

impl worker_session::Server for Session {
    async fn heartbeat(
        self: Rc<Self>,
        params: worker_session::HeartbeatParams,
        _: worker_session::HeartbeatResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let stats = required("stats", form.has_stats(), form.get_stats()).unwrap();
        self.tell(|answer| Event::Heartbeat(stats, answer)).await
    }

    async fn report(
        self: Rc<Self>,
        params: worker_session::ReportParams,
        _: worker_session::ReportResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let reports = list("reports", form.get_reports()).unwrap();
        let mixed: Vec<Report> = list("mixed", form.get_mixed()).unwrap();
        match mixed.is_empty() {
            true => self.tell(|answer| Event::Reports(reports, answer)).await,
            false => self.tell(|answer| Event::Mixed(mixed, answer)).await,
        }
    }

    async fn snapshots(
        self: Rc<Self>,
        params: worker_session::SnapshotsParams,
        _: worker_session::SnapshotsResults,
    ) -> capnp::Result<()> {
        let parts = list("reports", params.get()?.get_reports()).unwrap();
        self.tell(|answer| Event::Snapshots(parts, answer)).await
    }

    async fn snapshots_wanted(
        self: Rc<Self>,
        params: worker_session::SnapshotsWantedParams,
        _: worker_session::SnapshotsWantedResults,
    ) -> capnp::Result<()> {
        let tasks = list("tasks", params.get()?.get_tasks()).unwrap();
        self.tell(|answer| Event::Waiting(tasks, answer)).await
    }
}

//! The executor's side of the connection to its worker: hello, orders, reports, numbers.

use std::path::Path;
use std::rc::Rc;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use flott_schema::control::{Order, Report, SnapshotReport, ToWorker};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::stats::TaskStats;
use flott_schema::wire::generated::control_capnp::{executor, executor_session, supervisor};
use flott_schema::wire::{Wire, fields, write_id};
use flott_schema::{Error, Result};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::supervisor::control_socket::{PROTOCOL, reader_options};

/// Orders that may wait for the task runtime.
const ORDERS_MAX: usize = 256;

/// A connection on which the hello has been answered.
pub struct Session {
    /// The worker, as the cluster names it.
    pub worker: WorkerId,
    /// The shared secret.
    pub token: String,
    /// What the worker says.
    pub orders: mpsc::Receiver<ToWorker>,
    /// Ends with the connection: the worker is gone.
    pub closed: JoinHandle<()>,
    /// What the worker is told.
    pub speaker: Speaker,
}

/// Tells the worker.
#[derive(Clone)]
pub struct Speaker(executor_session::Client);

impl Session {
    /// Connects to the worker and says hello. Must be called inside a `LocalSet`.
    pub async fn open(socket: &Path, job: JobId) -> Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| Error::io(format!("socket {}", socket.display()), error))?;
        let (read, write) = stream.into_split();
        let network = VatNetwork::new(read.compat(), write.compat_write(), Side::Client, reader_options());
        let mut system = RpcSystem::new(Box::new(network), None);
        let worker: supervisor::Client = system.bootstrap(Side::Server);
        let closed = spawn_local(async move {
            if let Err(error) = system.await {
                tracing::warn!("connection to the worker: {error}");
            }
        });
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let mut request = worker.register_request();
        let mut params = request.get();
        params.set_executor(new_client(Orders { sender }));
        let mut hello = params.init_hello();
        hello.set_protocol(PROTOCOL);
        hello.set_version(env!("CARGO_PKG_VERSION"));
        write_id(job.0, hello.reborrow().init_job());
        hello.set_pid(std::process::id());
        let answer = request.send().promise.await.map_err(refused)?;
        let answer = answer.get().map_err(refused)?;
        Ok(Session {
            worker: WorkerId(answer.get_worker()),
            token: fields::text("token", answer.get_token())?,
            orders,
            closed,
            speaker: Speaker(answer.get_session().map_err(refused)?),
        })
    }
}

impl Speaker {
    /// Tells of changes and last snapshots of tasks; returns when the worker has taken them in.
    pub async fn report(&self, reports: &[Report]) -> Result<()> {
        let mut request = self.0.report_request();
        match Report::of_tasks_alone(reports) {
            Some(tasks) => {
                fields::write_list("reports", &tasks, |length| request.get().init_reports(length))?;
            }
            None => fields::write_list("mixed", reports, |length| request.get().init_mixed(length))?,
        }
        request.send().promise.await.map(drop).map_err(refused)
    }

    /// Hands in parts of snapshots; returns when the worker has taken them in.
    pub async fn snapshots(&self, parts: &[SnapshotReport]) -> Result<()> {
        let mut request = self.0.snapshots_request();
        fields::write_list("reports", parts, |length| request.get().init_reports(length))?;
        request.send().promise.await.map(drop).map_err(refused)
    }

    /// Says which tasks wait for a snapshot.
    pub async fn snapshots_wanted(&self, tasks: &[(JobId, AttemptId)]) -> Result<()> {
        let mut request = self.0.snapshots_wanted_request();
        fields::write_list("tasks", tasks, |length| request.get().init_tasks(length))?;
        request.send().promise.await.map(drop).map_err(refused)
    }

    /// Tells how the tasks do.
    pub async fn stats(&self, tasks: &[TaskStats]) -> Result<()> {
        let mut request = self.0.stats_request();
        fields::write_list("tasks", tasks, |length| request.get().init_tasks(length))?;
        request.send().promise.await.map(drop).map_err(refused)
    }
}

fn refused(error: capnp::Error) -> Error {
    Error::new(ErrorKind::Io, format!("the worker: {}", error.extra))
}

/// What the worker calls.
struct Orders {
    sender: mpsc::Sender<ToWorker>,
}

impl executor::Server for Orders {
    async fn order(
        self: Rc<Self>,
        params: executor::OrderParams,
        _results: executor::OrderResults,
    ) -> capnp::Result<()> {
        let order = params.get()?.get_order()?;
        let order = Order::read(order).map_err(|error| capnp::Error::failed(error.to_string()))?;
        let sent = self.sender.send(order.message).await;
        sent.map_err(|_| capnp::Error::failed("the executor is ending".into()))
    }
}

//! The Unix socket on which executors say hello, take orders and report. Who is at the other end is asked of
//! the kernel: only processes that this worker has started as executors are let in.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use flott_schema::control::{Order, Report, SnapshotReport, TaskReport, ToWorker};
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::stats::TaskStats;
use flott_schema::wire::generated::control_capnp::{executor, executor_session, supervisor};
use flott_schema::wire::{Wire, fields, read_id};
use flott_schema::{Error, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::supervisor::links::{Known, Links};
use crate::supervisor::machine::{Event, ExecutorNumber};

/// The protocol spoken on the socket; another is refused with the reason.
pub const PROTOCOL: u32 = 1;
/// Orders that may wait for an executor; one that lets more of them pile up is of no use.
const ORDERS_MAX: usize = 256;
/// How long after the deadline of its silence an executor may still be heard.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// Words of a message: orders of large jobs name many placements.
const MESSAGE_WORDS_MAX: usize = 64 << 20;

/// How messages between a worker and its executors are read.
pub fn reader_options() -> ReaderOptions {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(MESSAGE_WORDS_MAX));
    options
}

/// Listens at `path`.
pub fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).map_err(|error| {
        let hint = match path.as_os_str().len() > 107 {
            true => " (the path of a socket may have 107 bytes; choose a shorter io.tmp.dirs)",
            false => "",
        };
        Error::io(format!("socket {}{hint}", path.display()), error)
    })
}

/// Takes executors in, for ever.
pub async fn serve(listener: UnixListener, links: Rc<Links>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(spawn_local(serve_one(stream, links.clone()))),
            Err(error) => pause(&error).await,
        }
    }
}

/// After a failure to accept: out of descriptors, most likely, which passes.
pub async fn pause(error: &std::io::Error) {
    tracing::warn!("a connection could not be accepted: {error}");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

async fn serve_one(stream: UnixStream, links: Rc<Links>) {
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let Some(known) = links.process(process) else {
        tracing::warn!("a process that is no executor of this worker wanted to be one: {process:?}");
        return;
    };
    let (read, write) = stream.into_split();
    let network = VatNetwork::new(read.compat(), write.compat_write(), Side::Server, reader_options());
    let registered = Rc::new(Cell::new(false));
    let heard = Rc::new(Cell::new(Instant::now()));
    let door = Door { known, links: links.clone(), registered: registered.clone(), heard: heard.clone() };
    let bootstrap: supervisor::Client = new_client(door);
    let system = RpcSystem::new(Box::new(network), Some(bootstrap.client));
    tokio::select! {
        biased;
        end = system => {
            tracing::debug!(executor = known.executor.0, "control connection closed: {end:?}");
        }
        () = silence(&heard, links.silence_max) => {
            tracing::warn!(executor = known.executor.0, "an executor says nothing any more");
            let _ = links.events.send(Event::Silent(known.executor)).await;
            return;
        }
    }
    if registered.get() {
        let _ = links.events.send(Event::Disconnected(known.executor)).await;
    }
}

/// Waits until nothing was heard for too long. What was said meanwhile may wait to be read, as after a pause of this process
/// itself, so there is a last chance.
async fn silence(heard: &Cell<Instant>, silence_max: Duration) {
    loop {
        sleep_until(heard.get() + silence_max).await;
        if heard.get().elapsed() >= silence_max {
            sleep(LAST_CHANCE).await;
            if heard.get().elapsed() >= silence_max {
                return;
            }
        }
    }
}

/// The bootstrap capability.
struct Door {
    known: Known,
    links: Rc<Links>,
    registered: Rc<Cell<bool>>,
    heard: Rc<Cell<Instant>>,
}

impl supervisor::Server for Door {
    async fn register(
        self: Rc<Self>,
        params: supervisor::RegisterParams,
        mut results: supervisor::RegisterResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let hello = params.get_hello()?;
        let Known { executor, job, worker } = self.known;
        let refused = if hello.get_protocol() != PROTOCOL {
            let version = fields::text("version", hello.get_version()).unwrap_or_default();
            Some(format!(
                "the program is built with flott {version}, which speaks protocol {} with its worker; \
                 this one speaks {PROTOCOL}: build the program with flott {}",
                hello.get_protocol(),
                env!("CARGO_PKG_VERSION")
            ))
        } else if JobId(read_id(hello.get_job()?)) != job {
            Some("the program says hello for another job than it was started for".into())
        } else {
            None
        };
        if let Some(reason) = refused {
            let _ = self.links.events.send(Event::Refused { executor, reason: reason.clone() }).await;
            return Err(capnp::Error::failed(reason));
        }
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        if !self.links.connect(executor, orders) {
            return Err(capnp::Error::failed("this executor has said hello before".into()));
        }
        self.registered.set(true);
        spawn_local(deliver(executor, params.get_executor()?, waiting, self.links.clone()));
        self.heard.set(Instant::now());
        let session = Session { executor, links: self.links.clone(), heard: self.heard.clone() };
        let mut answer = results.get();
        answer.set_session(new_client(session));
        answer.set_worker(worker.0);
        answer.set_token(self.links.token.reveal());
        // The orders that wait for this are sent behind the answer.
        let _ = self.links.events.send(Event::Connected(executor)).await;
        Ok(())
    }
}

/// Hands orders to an executor, one after the other.
async fn deliver(
    executor: ExecutorNumber,
    client: executor::Client,
    mut orders: mpsc::Receiver<Order>,
    links: Rc<Links>,
) {
    while let Some(order) = orders.recv().await {
        let mut request = client.order_request();
        let sent = match order.write(request.get().init_order()) {
            Ok(()) => request.send().promise.await.map(|_| ()),
            Err(error) => Err(capnp::Error::failed(error.to_string())),
        };
        match sent {
            Ok(()) => {}
            // Its end is noticed elsewhere.
            Err(error) if error.kind == capnp::ErrorKind::Disconnected => return,
            // A program may be built with an older Flott, which has no such order; its tasks begin without.
            Err(error) if matches!(order.message, ToWorker::Prepare(_)) => {
                tracing::debug!(executor = executor.0, "it does not make ready: {}", error.extra);
            }
            Err(error) => {
                let reason = format!("the executor does not take an order: {}", error.extra);
                let _ = links.events.send(Event::Refused { executor, reason }).await;
            }
        }
    }
}

/// What an executor says after its hello.
struct Session {
    executor: ExecutorNumber,
    links: Rc<Links>,
    heard: Rc<Cell<Instant>>,
}

impl Session {
    /// Returns when it is taken in, so that an executor cannot flood its worker.
    async fn tell(&self, event: Event) -> capnp::Result<()> {
        self.links.events.send(event).await.map_err(|_| stopped())
    }
}

impl executor_session::Server for Session {
    async fn report(
        self: Rc<Self>,
        params: executor_session::ReportParams,
        _results: executor_session::ReportResults,
    ) -> capnp::Result<()> {
        self.heard.set(Instant::now());
        let form = params.get()?;
        let executor = self.executor;
        let reports: Vec<TaskReport> = fields::list("reports", form.get_reports()).map_err(failed)?;
        let mixed: Vec<Report> = fields::list("mixed", form.get_mixed()).map_err(failed)?;
        for report in reports.into_iter().map(Report::Task).chain(mixed) {
            self.tell(match report {
                Report::Task(report) => Event::Report { executor, report },
                Report::LastSnapshot(report) => Event::Snapshot { executor, report },
            })
            .await?;
        }
        Ok(())
    }

    async fn snapshots(
        self: Rc<Self>,
        params: executor_session::SnapshotsParams,
        _results: executor_session::SnapshotsResults,
    ) -> capnp::Result<()> {
        self.heard.set(Instant::now());
        let parts: Vec<SnapshotReport> =
            fields::list("reports", params.get()?.get_reports()).map_err(failed)?;
        for part in parts {
            self.tell(Event::Snapshot { executor: self.executor, report: Box::new(part) }).await?;
        }
        Ok(())
    }

    async fn snapshots_wanted(
        self: Rc<Self>,
        params: executor_session::SnapshotsWantedParams,
        _results: executor_session::SnapshotsWantedResults,
    ) -> capnp::Result<()> {
        self.heard.set(Instant::now());
        let tasks: Vec<(JobId, AttemptId)> =
            fields::list("tasks", params.get()?.get_tasks()).map_err(failed)?;
        for (_, attempt) in tasks {
            self.tell(Event::SnapshotWanted { executor: self.executor, attempt }).await?;
        }
        Ok(())
    }

    async fn stats(
        self: Rc<Self>,
        params: executor_session::StatsParams,
        _results: executor_session::StatsResults,
    ) -> capnp::Result<()> {
        self.heard.set(Instant::now());
        let tasks: Vec<TaskStats> = fields::list("tasks", params.get()?.get_tasks()).map_err(failed)?;
        self.links.statistics.note_tasks(self.executor, tasks);
        Ok(())
    }

    async fn refuse(
        self: Rc<Self>,
        params: executor_session::RefuseParams,
        _results: executor_session::RefuseResults,
    ) -> capnp::Result<()> {
        let reason = fields::text("reason", params.get()?.get_reason()).map_err(failed)?;
        self.tell(Event::Refused { executor: self.executor, reason }).await
    }
}

fn failed(error: Error) -> capnp::Error {
    capnp::Error::failed(error.to_string())
}

fn stopped() -> capnp::Error {
    capnp::Error::failed("the worker is stopping".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flott_schema::control::PrepareOrder;
    use flott_schema::graph::{ExecutionMode, JobGraph};
    use flott_schema::job::JobSpec;
    use flott_schema::security::Token;
    use tokio::task::LocalSet;

    use super::*;
    use crate::supervisor::statistics::Statistics;

    const JOB: JobId = JobId(7);

    /// An executor that knows no order.
    struct Strange;

    impl executor::Server for Strange {
        async fn order(
            self: Rc<Self>,
            _params: executor::OrderParams,
            _results: executor::OrderResults,
        ) -> capnp::Result<()> {
            Err(capnp::Error::failed("order: unknown".into()))
        }
    }

    #[test]
    fn an_executor_that_knows_no_order_to_make_ready_goes_on_and_one_that_knows_no_other_does_not() {
        let graph = JobGraph {
            name: "job".into(),
            mode: ExecutionMode::Streaming,
            vertices: Vec::new(),
            edges: Vec::new(),
        };
        let spec = Arc::new(JobSpec::embedded(graph));
        let (tasks, hosts) = (Vec::new(), Arc::new([]));
        let prepare = ToWorker::Prepare(PrepareOrder { job: JOB, spec, tasks, hosts, restore: None });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (sender, mut events) = mpsc::channel(8);
            let links = Links::new(sender, Token::default(), Statistics::default(), Duration::from_secs(60));
            let (orders, outbox) = mpsc::channel(8);
            for message in [prepare, ToWorker::Release { job: JOB }] {
                orders.send(Order { term: 1, message }).await.unwrap();
            }
            drop(orders);
            let executor = ExecutorNumber(1);
            deliver(executor, new_client(Strange), outbox, links.clone()).await;
            let told = events.try_recv().unwrap();
            assert!(matches!(told, Event::Refused { executor: ExecutorNumber(1), .. }), "{told:?}");
            assert!(events.try_recv().is_err(), "the order to make ready counts for nothing");
        });
    }
}

//! One attempt to register with a coordinator.

use std::rc::Rc;
use std::time::Duration;

use capnp::message::ReaderOptions;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client_from_rc, rpc_twoparty_capnp};
use flott_schema::control::RunningTask;
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::ids::WorkerId;
use flott_schema::security::{CONTROL_PROTOCOL, Token};
use flott_schema::stats::WorkerProfile;
use flott_schema::wire::fields::{text, write_list};
use flott_schema::wire::generated::control_capnp::{cluster, coordinator, registration, worker_session};
use flott_schema::wire::{Wire, broken};
use tokio::io::{BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::answers::Answers;

/// Words of the largest message that a coordinator may send: the deployment of a very large job. 64 Mi words are 512 MiB.
const MESSAGE_WORDS_MAX: usize = 64 << 20;

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Miss {
    /// It may succeed later.
    Later(String),
    /// Another coordinator leads; empty: it is not known which.
    NotLeader(String),
    /// This worker is not wanted.
    Refused(String),
}

/// A registration that was accepted.
pub(super) struct Registered {
    pub worker: WorkerId,
    pub term: u64,
    pub heartbeat_interval: Duration,
    pub heartbeat_timeout: Duration,
    pub session: worker_session::Client,
    pub connection: Connection,
}

/// A connection to a coordinator that has let this process in. It is closed when this is dropped.
pub(super) struct Connection {
    pub cluster: cluster::Client,
    pub line: Line,
}

/// The task that reads and writes a connection. It ends with the connection, and the connection when this is dropped.
pub(super) struct Line(JoinHandle<capnp::Result<()>>);

impl Line {
    /// Waits until the connection is closed, and says why.
    pub(super) async fn closed(&mut self) -> String {
        match (&mut self.0).await {
            Ok(Ok(())) => "it was closed".into(),
            Ok(Err(error)) => said(&error),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a worker says of itself.
pub(super) struct Introduction<'a> {
    pub token: &'a Token,
    pub profile: &'a WorkerProfile,
    pub previous: Option<WorkerId>,
    pub tasks: &'a [RunningTask],
}

/// Connects to a coordinator and registers there, all within `deadline`.
pub(super) async fn register(
    address: &str,
    introduction: Introduction<'_>,
    answers: Rc<Answers>,
    deadline: Duration,
) -> std::result::Result<Registered, Miss> {
    let work = async {
        let connection = open(address, introduction.token).await?;
        ask(connection, introduction, answers).await
    };
    let late = |_| Err(Miss::Later(format!("no answer within {} ms", deadline.as_millis())));
    timeout(deadline, work).await.unwrap_or_else(late)
}

/// Connects and says hello.
async fn open(address: &str, token: &Token) -> std::result::Result<Connection, Miss> {
    let stream = TcpStream::connect(address).await.map_err(|error| Miss::Later(error.to_string()))?;
    // Calls are small, and each is waited for.
    stream.set_nodelay(true).map_err(|error| Miss::Later(error.to_string()))?;
    let (reader, writer) = stream.into_split();
    let options = *ReaderOptions::new().traversal_limit_in_words(Some(MESSAGE_WORDS_MAX));
    let network = VatNetwork::new(
        BufReader::new(reader).compat(),
        BufWriter::new(writer).compat_write(),
        rpc_twoparty_capnp::Side::Client,
        options,
    );
    let mut rpc = RpcSystem::new(Box::new(network), None);
    let coordinator: coordinator::Client = rpc.bootstrap(rpc_twoparty_capnp::Side::Server);
    let line = Line(spawn_local(rpc));

    let mut request = coordinator.connect_request();
    let mut hello = request.get().init_hello();
    hello.set_protocol(CONTROL_PROTOCOL);
    hello.set_version(env!("CARGO_PKG_VERSION"));
    hello.set_token(token.reveal());
    let response = request.send().promise.await.map_err(|error| match error.kind {
        capnp::ErrorKind::Failed => Miss::Refused(said(&error)),
        _ => Miss::Later(said(&error)),
    })?;
    let cluster = response.get().and_then(|results| results.get_cluster()).map_err(unclear)?;
    Ok(Connection { cluster, line })
}

async fn ask(
    connection: Connection,
    introduction: Introduction<'_>,
    answers: Rc<Answers>,
) -> std::result::Result<Registered, Miss> {
    let mut request = connection.cluster.register_request();
    fill(request.get(), &introduction, answers).map_err(|error| Miss::Later(error.to_string()))?;
    let response = request.send().promise.await.map_err(|error| Miss::Later(said(&error)))?;
    let form = response.get().and_then(|results| results.get_registration()).map_err(unclear)?;
    match form.which() {
        Ok(registration::Accepted(form)) => Ok(Registered {
            worker: WorkerId(form.get_worker()),
            term: form.get_term(),
            heartbeat_interval: Duration::from_millis(form.get_heartbeat_interval_ms().max(1)),
            heartbeat_timeout: Duration::from_millis(form.get_heartbeat_timeout_ms().max(1)),
            session: form.get_session().map_err(unclear)?,
            connection,
        }),
        Ok(registration::NotLeader(form)) => {
            Err(Miss::NotLeader(text("leader", form.get_leader()).map_err(unclear)?))
        }
        Ok(registration::Refused(reason)) => Err(Miss::Refused(text("refused", reason).map_err(unclear)?)),
        Err(error) => Err(unclear(error)),
    }
}

fn fill(
    mut form: cluster::register_params::Builder<'_>,
    introduction: &Introduction<'_>,
    answers: Rc<Answers>,
) -> Result<()> {
    introduction.profile.write(form.reborrow().init_profile())?;
    form.set_previous(introduction.previous.map_or(0, |worker| worker.0));
    write_list("tasks", introduction.tasks, |length| form.reborrow().init_tasks(length))?;
    form.set_worker(new_client_from_rc(answers));
    Ok(())
}

fn unclear(error: impl std::fmt::Display) -> Miss {
    Miss::Later(format!("its answer cannot be read: {error}"))
}

/// What a peer said in an error, without the words that the library puts in front.
pub(super) fn said(error: &capnp::Error) -> String {
    let text = if error.extra.is_empty() { error.to_string() } else { error.extra.clone() };
    text.strip_prefix("remote exception: ").map(str::to_string).unwrap_or(text)
}

/// An error of a call as one of this process: of the kind `Io` where the call came to nothing, and may be made again; what the
/// coordinator itself said is its answer.
pub(super) fn call_failed(error: capnp::Error) -> Error {
    match error.kind {
        capnp::ErrorKind::Failed => Error::new(ErrorKind::BadInput, said(&error)),
        _ => broken(error),
    }
}

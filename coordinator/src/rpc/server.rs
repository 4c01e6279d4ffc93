//! The thread of the control port.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::answer::FilePart;
use flott_schema::config::{Configuration, options};
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::ids::WorkerId;
use flott_schema::job::ProgramDigest;
use flott_schema::security::{Token, check_binding, check_bound_address};
use flott_schema::wire::generated::raft_capnp::raft_peer;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::connection::{self, Caller};
use super::handle::{Ask, RpcHandle};
use super::link::RpcLink;
use super::refusals::Refusals;
use super::session::Session;
use super::stats::LiveStats;
use crate::service::Handle;

/// Questions to workers that are under way or wait at the same time.
const ASKS_MAX: usize = 64;

/// Pause after a connection that could not be accepted, for example because there are too many open files.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Settings of the control port.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host to bind to. One that is not of the loopback is refused without a token.
    pub bind_host: String,
    /// Ports of which the first free one is taken; 0 takes any.
    pub ports: Vec<u16>,
    /// The secret of the cluster.
    pub token: Token,
    /// Time between two heartbeats of a worker.
    pub heartbeat_interval_ms: u64,
    /// Silence after which a worker is given up.
    pub heartbeat_timeout_ms: u64,
    /// Orders that a worker may leave unread before it is given up. No checkpoint begins on one that leaves a sixteenth of them
    /// unread, so that checkpoints cost no worker its place.
    pub orders_capacity: usize,
    /// How long a caller may take to say hello.
    pub hello_timeout_ms: u64,
    /// Connections at the same time; further callers are turned away.
    pub connections_max: usize,
    /// Deadline of a question to a worker.
    pub ask_timeout_ms: u64,
    /// Deadline of a program that a worker runs on request.
    pub program_timeout_ms: u64,
    /// Milliseconds since 1970, for the time stamps of statistics.
    pub now_ms: fn() -> u64,
}

impl Default for Options {
    /// Flink's heartbeats; any port of the loopback.
    fn default() -> Self {
        Options {
            bind_host: "127.0.0.1".into(),
            ports: vec![0],
            token: Token::none(),
            heartbeat_interval_ms: 10_000,
            heartbeat_timeout_ms: 50_000,
            orders_capacity: 8_192,
            hello_timeout_ms: 10_000,
            connections_max: 8_192,
            ask_timeout_ms: 10_000,
            program_timeout_ms: 120_000,
            now_ms: || {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
            },
        }
    }
}

impl Options {
    /// What `config` says. `token` is the one that it names.
    pub fn from_configuration(config: &Configuration, token: Token) -> Result<Self> {
        let interval = config.get(&options::HEARTBEAT_INTERVAL)?;
        let timeout = config.get(&options::HEARTBEAT_TIMEOUT)?;
        if timeout <= interval {
            return Err(Error::configuration(format!(
                "{} must be longer than {}",
                options::HEARTBEAT_TIMEOUT.key(),
                options::HEARTBEAT_INTERVAL.key()
            )));
        }
        Ok(Options {
            bind_host: config.get(&options::COORDINATOR_BIND_HOST)?,
            ports: config.get(&options::COORDINATOR_PORT)?.iter().collect(),
            token,
            heartbeat_interval_ms: interval.as_millis() as u64,
            heartbeat_timeout_ms: timeout.as_millis() as u64,
            ..Options::default()
        })
    }
}

/// Reads stored programs.
pub trait ReadProgram: Send + Sync {
    /// At most `length_max` bytes from `offset`. May block.
    fn read(&self, digest: ProgramDigest, offset: u64, length_max: u32) -> Result<FilePart>;

    /// Whether the program is stored here. May block.
    fn is_here(&self, digest: ProgramDigest) -> bool;

    /// Gets a program that is not here from the other coordinators, if they have it.
    fn fetch(&self, digest: ProgramDigest) -> BoxFuture<'static, ()>;
}

/// What the control port gives access to.
pub struct Parts {
    /// The service.
    pub handle: Handle,
    /// The link that the service sends its orders by.
    pub link: RpcLink,
    /// The stored programs.
    pub programs: Arc<dyn ReadProgram>,
    /// Makes the object that other coordinators call, on the thread of the port. Nothing: this coordinator is alone.
    pub peer: Option<Box<dyn FnOnce() -> raft_peer::Client + Send>>,
}

/// What the connections share, on the thread of the port.
pub(super) struct Server {
    pub options: Options,
    pub handle: Handle,
    pub link: RpcLink,
    pub programs: Arc<dyn ReadProgram>,
    pub peer: Option<raft_peer::Client>,
    pub stats: LiveStats,
    pub sessions: RefCell<BTreeMap<WorkerId, Rc<Session>>>,
    refusals: RefCell<Refusals>,
    refused: Arc<AtomicU64>,
    accept_failed: Cell<bool>,
}

impl Server {
    /// Notes that a caller is turned away.
    pub(super) fn refuse(&self, caller: &Caller, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.refusals.borrow_mut().note(caller.peer.ip(), reason) {
            tracing::warn!(peer = %caller.peer, reason, "turned away at the control port");
        }
    }
}

/// Binds the control port and serves it on a thread of its own, until the handle says stop or its last clone is gone.
pub fn start(options: Options, parts: Parts) -> Result<RpcHandle> {
    check_binding(options::COORDINATOR_BIND_HOST.key(), &options.bind_host, &options.token)?;
    let listener = bind(&options)?;
    let place = || format!("control port of {}", options.bind_host);
    let address = listener.local_addr().map_err(|error| Error::io(place(), error))?;
    check_bound_address(options::COORDINATOR_BIND_HOST.key(), address, &options.token)?;
    listener.set_nonblocking(true).map_err(|error| Error::io(place(), error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("the runtime of the control port", error))?;

    let (asks, questions) = mpsc::channel(ASKS_MAX);
    let (stop, stopped) = watch::channel(false);
    let (ending, ended) = watch::channel(());
    let stats = LiveStats::new();
    let refused = Arc::new(AtomicU64::new(0));
    let handle = RpcHandle {
        address,
        asks,
        stop,
        ended,
        stats: stats.clone(),
        refused: refused.clone(),
        ask_timeout_ms: options.ask_timeout_ms,
        program_timeout_ms: options.program_timeout_ms,
    };
    let body = move || {
        let Parts { handle, link, programs, peer } = parts;
        let serve = async move {
            let server = Rc::new(Server {
                options,
                handle,
                link,
                programs,
                peer: peer.map(|make| make()),
                stats,
                sessions: RefCell::new(BTreeMap::new()),
                refusals: RefCell::new(Refusals::default()),
                refused,
                accept_failed: Cell::new(false),
            });
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(server, listener, questions, stopped).await,
                Err(error) => tracing::error!(%error, "the control port cannot be served"),
            }
        };
        LocalSet::new().block_on(&runtime, serve);
        // A program that is being read must not hold up the end.
        runtime.shutdown_background();
        drop(ending);
    };
    std::thread::Builder::new()
        .name("flott-control".into())
        .spawn(body)
        .map_err(|error| Error::io("the thread of the control port", error))?;
    tracing::info!(%address, "control port");
    Ok(handle)
}

fn bind(options: &Options) -> Result<StdListener> {
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for port in &options.ports {
        match StdListener::bind((options.bind_host.as_str(), *port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    let place = format!(
        "{}:{} ({}, {})",
        options.bind_host,
        options.ports.first().copied().unwrap_or_default(),
        options::COORDINATOR_BIND_HOST.key(),
        options::COORDINATOR_PORT.key()
    );
    let error = Error::io(place, last);
    Err(if options.ports.len() > 1 {
        error.at(format!("none of {} ports is free", options.ports.len()))
    } else {
        error
    })
}

async fn accept(
    server: Rc<Server>,
    listener: TcpListener,
    mut questions: mpsc::Receiver<Ask>,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(server.options.connections_max));
    let answers = Arc::new(Semaphore::new(ASKS_MAX));
    loop {
        tokio::select! {
            biased;
            // An error means that all handles are gone.
            _ = stopped.wait_for(|stop| *stop) => return,
            Some(ask) = questions.recv(), if answers.available_permits() > 0 => {
                // There is room: only this loop takes it.
                let room = answers.clone().try_acquire_owned().ok();
                let server = server.clone();
                spawn_local(async move {
                    ask.answer(&server).await;
                    drop(room);
                });
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    server.accept_failed.set(false);
                    let caller = Rc::new(Caller::new(peer));
                    match connections.clone().try_acquire_owned() {
                        Ok(room) => {
                            let server = server.clone();
                            spawn_local(async move {
                                connection::serve(server, stream, caller).await;
                                drop(room);
                            });
                        }
                        Err(_) => server.refuse(&caller, "there are too many connections"),
                    }
                }
                Err(error) => {
                    if !server.accept_failed.replace(true) {
                        tracing::error!(%error, "the control port cannot accept connections");
                    }
                    sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
            // A free place for an answer wakes nobody; look for it before long.
            () = sleep(Duration::from_millis(ACCEPT_PAUSE_MS)), if answers.available_permits() == 0 => {}
        }
    }
}

/// The error for a worker that is not registered here.
pub(super) fn not_connected(worker: WorkerId) -> Error {
    Error::new(ErrorKind::Io, format!("worker {} is not connected to this coordinator", worker.0))
}

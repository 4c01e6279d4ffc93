//! The exchange of one executor: its thread, its connections, their beginning and end.
//!
//! One connection carries all that one executor sends to another: records of all channels in this direction, and its
//! questions; credit and answers come back on it. It is opened when the first channel is, and tried again within a deadline.
//! A connection that is lost is never mended: what was under way is gone, so the tasks that used it end, and those deployed
//! in their place open a new one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use flott_dataflow::context::Congestion;
use flott_dataflow::time::alignment::AlignmentRegistry;
use flott_schema::control::WorkerHost;
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::{Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::body::{AlignmentReport, value_frame};
use super::connection;
use super::handshake::{self, Handshake, HandshakeReply, PROTOCOL};
use super::header::{ChannelId, Compression, FrameHeader, Kind};
use super::inbox::{InputPlan, RemoteInput};
use super::peer::Peer;
use super::route::Router;
use super::splits::ask_remote;
use super::spooled::RemoteSpool;
use super::writer::RemoteWriter;
use crate::enumerator::AskSplit;
use crate::metrics::Traffic;
use crate::spool::SpoolStore;

/// Losses of connections that may wait to be told.
const EVENTS_CAPACITY: usize = 64;
/// First pause between two attempts to connect; doubled up to the longest.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long an accepted connection may take to be answered.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// What an exchange is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The job.
    pub job: JobId,
    /// The worker of this executor.
    pub worker: WorkerId,
    /// The shared secret; empty where none is configured.
    pub token: String,
    /// Credit with which each channel that this executor opens begins, bytes.
    pub window_bytes: u32,
    /// How batches are compressed; those that do not shrink are sent as they are.
    pub compression: Compression,
    /// How long it may take until a connection stands, with the start of the executor at its other end.
    pub connect_deadline: Duration,
}

impl Options {
    /// Options for a job on a worker, otherwise default ones.
    pub fn new(job: JobId, worker: WorkerId) -> Self {
        Options {
            job,
            worker,
            token: String::new(),
            window_bytes: 1 << 20,
            compression: Compression::None,
            connect_deadline: Duration::from_secs(60),
        }
    }
}

/// A connection that another executor has opened: accepted, its handshake read and its token checked, not yet answered.
pub type Incoming = (Handshake, std::net::TcpStream);

/// A connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The tasks that used it.
    pub attempts: Vec<AttemptId>,
    /// Why, with the host at its other end.
    pub reason: String,
}

/// The running exchange. Dropping it closes all connections and ends its thread.
pub struct Exchange {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Starts the thread. `incoming` gives the connections that other executors open.
    pub fn start(options: Options, incoming: mpsc::Receiver<Incoming>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("flott-exchange-io")
            .build()
            .map_err(|error| Error::io("exchange", error))?;
        let (events_in, events) = mpsc::channel(EVENTS_CAPACITY);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            router: Arc::new(Router::new(options.compression)),
            options,
            state: Mutex::default(),
            wanted: Notify::new(),
            events: events_in,
        });
        let service = shared.clone();
        let thread = std::thread::Builder::new().name("flott-exchange".into()).spawn(move || {
            runtime.block_on(service.run(incoming, stopped));
            // Reads from disk that go on need not be waited for.
            runtime.shutdown_background();
        });
        let thread = Some(thread.map_err(|error| Error::io("exchange thread", error))?);
        Ok(Exchange { handle: Handle { shared }, events, stop, thread })
    }

    /// A handle to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for the next loss of a connection.
    pub async fn next_event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The handle kept here holds a sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens the ends of channels. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    router: Arc<Router>,
    state: Mutex<State>,
    /// A connection is to be opened.
    wanted: Notify,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<WorkerId, String>,
    /// Connections opened from here.
    outgoing: HashMap<WorkerId, Arc<Peer>>,
    /// Of these, the ones that the service has not begun to open.
    unopened: Vec<Arc<Peer>>,
    /// Connections opened from elsewhere.
    incoming: HashMap<WorkerId, Arc<Peer>>,
    /// Who is told of alignment groups, and in which job epoch.
    aligned: (u32, BTreeSet<WorkerId>),
}

impl Handle {
    /// Learns where executors of other workers are reached.
    pub fn learn_hosts(&self, hosts: &[WorkerHost]) {
        let mut state = self.shared.lock();
        for host in hosts.iter().filter(|host| host.worker != self.shared.options.worker) {
            state.hosts.insert(host.worker, host.data_address.clone());
        }
    }

    /// Opens the connections to the executors on these workers that do not stand yet, for what will be sent. One that cannot be opened is
    /// tried again with the first channel that needs it.
    pub fn connect(&self, workers: impl IntoIterator<Item = WorkerId>) {
        for worker in workers.into_iter().filter(|worker| *worker != self.shared.options.worker) {
            if let Err(error) = self.shared.peer(worker) {
                debug!(%error, "no connection is opened ahead");
            }
        }
    }

    /// Names the spooled results of this executor, and its alignment groups.
    pub fn attach(&self, spools: Arc<SpoolStore>, alignment: Arc<AlignmentRegistry>) {
        self.shared.router.spooled.attach(spools);
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        alignment.connect(Box::new(move |group, watermark_ms| {
            if let Some(shared) = shared.upgrade() {
                shared.tell_alignment(group, watermark_ms);
            }
        }));
        let _ = self.shared.router.alignment.set(alignment);
    }

    /// From here on, `workers` are told of the alignment groups here; what was told in older job epochs is forgotten.
    pub fn align(&self, epoch: u32, workers: BTreeSet<WorkerId>) {
        if let Some(alignment) = self.shared.router.alignment.get() {
            alignment.forget_before(epoch);
        }
        self.shared.lock().aligned = (epoch, workers);
    }

    /// The sending end of a channel to a task on `worker`.
    pub fn writer(
        &self,
        worker: WorkerId,
        channel: ChannelId,
        attempt: AttemptId,
        congestion: Arc<Congestion>,
        traffic: Arc<Traffic>,
    ) -> Result<RemoteWriter> {
        let (peer, compression) = (self.shared.peer(worker)?, self.shared.options.compression);
        Ok(RemoteWriter::new(peer, channel, attempt, congestion, traffic, compression))
    }

    /// The receiving end of a channel from another executor.
    pub fn open_input(&self, plan: InputPlan) -> RemoteInput {
        self.shared.router.inbox.open(plan)
    }

    /// A spooled result on `worker`, to be read by a task of job epoch `epoch`; `wrote` is the epoch of its writer.
    pub fn remote_spool(
        &self,
        worker: WorkerId,
        channel: ChannelId,
        epoch: u32,
        wrote: u32,
    ) -> Result<RemoteSpool> {
        Ok(RemoteSpool { peer: self.shared.peer(worker)?, channel, epoch, wrote, requested: false })
    }

    /// How a reader here asks the enumerator on `worker`; `vertex` is the position of the source in the graph.
    pub fn remote_splits(&self, worker: WorkerId, vertex: u16, attempt: AttemptId) -> Result<AskSplit> {
        Ok(ask_remote(self.shared.peer(worker)?, vertex, attempt.job_epoch))
    }

    /// An enumerator lives here from now on.
    pub fn serve_splits(&self, vertex: u16, epoch: u32, ask: AskSplit) {
        self.shared.router.splits.serve(vertex, epoch, ask);
    }

    /// Frames dropped so far because they belonged to an older job epoch.
    pub fn stale_frames(&self) -> u64 {
        self.shared.router.inbox.stale_frames()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every moment, also where a holder of the lock panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a worker; opened now if there is none.
    fn peer(&self, worker: WorkerId) -> Result<Arc<Peer>> {
        let mut state = self.lock();
        if let Some(peer) = state.outgoing.get(&worker) {
            return Ok(peer.clone());
        }
        let address = state.hosts.get(&worker).filter(|address| !address.is_empty());
        let Some(address) = address else {
            return Err(Error::internal(format!("nobody has said where worker {} is reached", worker.0)));
        };
        let peer = Peer::new(worker, address.clone(), self.options.window_bytes);
        state.outgoing.insert(worker, peer.clone());
        state.unopened.push(peer.clone());
        drop(state);
        self.wanted.notify_one();
        Ok(peer)
    }

    fn tell_alignment(&self, group: &str, watermark_ms: Option<i64>) {
        let (epoch, workers) = self.lock().aligned.clone();
        let channel = ChannelId { edge: 0, source: 0, target: 0 };
        let header = FrameHeader::new(Kind::Alignment, channel, epoch, 0);
        let report = AlignmentReport { group: group.to_string(), watermark_ms };
        for worker in workers {
            let told = self.peer(worker).and_then(|peer| {
                peer.outbox.push(epoch, channel, value_frame(header, &report)?);
                Ok(())
            });
            if let Err(error) = told {
                debug!(%error, group, "an alignment group is not told of");
            }
        }
    }

    async fn run(
        self: Arc<Self>,
        mut incoming: mpsc::Receiver<Incoming>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = self.wanted.notified() => {
                    let unopened = std::mem::take(&mut self.lock().unopened);
                    for peer in unopened {
                        tokio::spawn(self.clone().serve_outgoing(peer));
                    }
                }
                Some((handshake, stream)) = incoming.recv() => {
                    tokio::spawn(self.clone().serve_incoming(handshake, stream));
                }
            }
        }
    }

    async fn serve_outgoing(self: Arc<Self>, peer: Arc<Peer>) {
        let reason = match self.connect(&peer).await {
            Ok(stream) => connection::run(stream, peer.clone(), self.router.clone()).await,
            Err(error) => error,
        };
        self.lost(&peer, &reason).await;
    }

    async fn connect(&self, peer: &Peer) -> Result<TcpStream> {
        let deadline = Instant::now() + self.options.connect_deadline;
        let mut pause = RETRY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, self.shake_hands(peer, left)).await {
                Ok(Ok((stream, HandshakeReply::Accepted))) => return Ok(stream),
                Ok(Ok((_, HandshakeReply::Refused(reason)))) => {
                    return Err(Error::new(ErrorKind::Io, format!("{} refuses: {reason}", peer.place())));
                }
                Ok(Ok((_, HandshakeReply::NotYet(reason)))) => Error::new(ErrorKind::Io, reason),
                Ok(Err(error)) => error,
                Err(_) => Error::new(ErrorKind::Io, "it does not answer"),
            };
            if Instant::now() + pause >= deadline {
                let tried_ms = self.options.connect_deadline.as_millis();
                return Err(error.at(format!("{} was not reached within {tried_ms} ms", peer.place())));
            }
            debug!(%error, worker = peer.worker.0, address = peer.address, "connecting is tried again");
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn shake_hands(&self, peer: &Peer, deadline: Duration) -> Result<(TcpStream, HandshakeReply)> {
        let io = |error| Error::io("connect", error);
        let mut stream = TcpStream::connect(&peer.address).await.map_err(io)?;
        connection::prepare(&stream).map_err(io)?;
        let handshake = Handshake {
            protocol: PROTOCOL,
            token: self.options.token.clone(),
            job: self.options.job,
            from: self.options.worker,
            to: peer.worker,
            window_bytes: self.options.window_bytes,
        };
        handshake::write(&mut stream, &handshake, deadline).await?;
        let reply = handshake::read_reply(&mut stream, deadline).await?;
        Ok((stream, reply))
    }

    async fn serve_incoming(self: Arc<Self>, handshake: Handshake, stream: std::net::TcpStream) {
        let (stream, peer) = match self.accept(&handshake, stream).await {
            Ok(accepted) => accepted,
            Err(error) => return warn!(%error, from = handshake.from.0, "a connection is refused"),
        };
        let before = self.lock().incoming.insert(peer.worker, peer.clone());
        if let Some(before) = before {
            // Its executor has been started again, and the end of the first one has not been noticed yet.
            before.outbox.close();
        }
        let reason = connection::run(stream, peer.clone(), self.router.clone()).await;
        self.lost(&peer, &reason).await;
    }

    async fn accept(
        &self,
        handshake: &Handshake,
        stream: std::net::TcpStream,
    ) -> Result<(TcpStream, Arc<Peer>)> {
        let io = |error| Error::io("accept", error);
        stream.set_nonblocking(true).map_err(io)?;
        let mut stream = TcpStream::from_std(stream).map_err(io)?;
        connection::prepare(&stream).map_err(io)?;
        let address = stream.peer_addr().map_err(io)?.to_string();
        let (job, worker) = (self.options.job, self.options.worker);
        let checked = handshake.check(&self.options.token).and_then(|()| {
            if (handshake.job, handshake.to) == (job, worker) {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::Io,
                format!(
                    "this is job {job} on worker {}, not job {} on worker {}",
                    worker.0, handshake.job, handshake.to.0
                ),
            ))
        });
        let reply = match &checked {
            Ok(()) => HandshakeReply::Accepted,
            Err(error) => HandshakeReply::Refused(error.to_string()),
        };
        handshake::write_reply(&mut stream, &reply, REPLY_DEADLINE).await?;
        checked.map(|()| (stream, Peer::new(handshake.from, address, handshake.window_bytes)))
    }

    /// A connection has ended: nobody sends into it any more, and the tasks that used it are told.
    async fn lost(&self, peer: &Arc<Peer>, reason: &Error) {
        let current = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let mut current = false;
            for peers in [&mut state.outgoing, &mut state.incoming] {
                if peers.get(&peer.worker).is_some_and(|known| Arc::ptr_eq(known, peer)) {
                    peers.remove(&peer.worker);
                    current = true;
                }
            }
            current
        };
        let reason = reason.to_string();
        let mut attempts = peer.break_off(&reason);
        // One that a newer connection has replaced says nothing of those who read from the newer one.
        if current {
            attempts.extend(self.router.inbox.readers_from(peer.worker));
        }
        attempts.sort_unstable();
        attempts.dedup();
        if attempts.is_empty() {
            return debug!(reason, "a connection has ended");
        }
        warn!(reason, tasks = attempts.len(), "a connection is lost");
        // Nobody is told where the runtime of the tasks is gone.
        let _ = self.events.send(Event { attempts, reason }).await;
    }
}

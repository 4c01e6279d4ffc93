//! The connections to the other members: one each, made when it is needed and anew when it broke, on a thread of their own,
//! since Cap'n Proto's clients stay on one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use flott_schema::job::ProgramDigest;
use flott_schema::security::{CONTROL_PROTOCOL, Token};
use flott_schema::wire::generated::control_capnp::coordinator;
use flott_schema::wire::generated::raft_capnp as form;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::codec;
use super::network::{Call, CallError, Network, ProgramPart, Request};
use super::types::Types;

/// Calls to one member that may wait or be under way.
const CALLS_PER_MEMBER_MAX: usize = 64;

/// How long a call may take that waits for a disk.
const SLOW_CALL: Duration = Duration::from_secs(30);

/// What this coordinator tells another when it connects.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The secret of the cluster.
    pub token: Token,
    /// `host:port` of the own REST API, once it is known: the others tell it to clients while this one leads.
    pub rest_address: Arc<OnceLock<String>>,
    /// Deadline for making a connection.
    pub connect_timeout_ms: u64,
    /// How long a member may leave signs of life unanswered before its connection is given up: what was sent into a
    /// partition would hold up what is sent after it.
    pub silence_max_ms: u64,
}

/// The way to the other members. A thread of its own carries the calls out, until the last clone of the network is gone.
pub fn connect_peers(options: PeerOptions) -> io::Result<Network> {
    let (network, calls) = Network::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("flott-peers".into()).spawn(move || {
        let connections = PeerConnections { calls, options: Rc::new(options) };
        LocalSet::new().block_on(&runtime, connections.run());
    })?;
    Ok(network)
}

/// Carries out the calls of a [`Network`].
struct PeerConnections {
    calls: mpsc::Receiver<Call>,
    options: Rc<PeerOptions>,
}

impl PeerConnections {
    /// Runs until the network is gone.
    async fn run(mut self) {
        let mut members: BTreeMap<String, mpsc::Sender<Request>> = BTreeMap::new();
        while let Some(Call { address, request }) = self.calls.recv().await {
            let queue = members.entry(address.clone()).or_insert_with(|| {
                let (queue, requests) = mpsc::channel(CALLS_PER_MEMBER_MAX);
                let peer = Peer {
                    address: address.clone(),
                    options: self.options.clone(),
                    link: RefCell::default(),
                };
                spawn_local(serve(Rc::new(peer), requests));
                queue
            });
            // A full queue means that the member does not answer; the caller tries again.
            if let Err(refused) = queue.try_send(request) {
                let reason = "too many calls wait for it".to_string();
                refused.into_inner().fail(CallError { address, reason });
            }
        }
    }
}

struct Peer {
    address: String,
    options: Rc<PeerOptions>,
    link: RefCell<Option<Link>>,
}

/// A connection; its tasks end when it is dropped.
struct Link {
    number: u64,
    client: form::raft_peer::Client,
    pulse: Rc<Pulse>,
    rpc: JoinHandle<()>,
}

/// What is known of the other end of a connection.
struct Pulse {
    /// When it answered last.
    heard: Cell<Instant>,
    /// Calls under way that may take their time, and others with them: parts of snapshots and programs.
    slow: Cell<usize>,
    silence_max: Duration,
}

impl Pulse {
    fn new(silence_max_ms: u64) -> Self {
        let silence_max = Duration::from_millis(silence_max_ms);
        Pulse { heard: Cell::new(Instant::now()), slow: Cell::new(0), silence_max }
    }

    /// Returns when nothing has been answered for too long since `began`.
    async fn stops(&self, began: Instant) {
        loop {
            let limit = match self.slow.get() {
                0 => self.silence_max,
                _ => self.silence_max.max(SLOW_CALL),
            };
            let silent_since = self.heard.get().max(began);
            if silent_since.elapsed() >= limit {
                return;
            }
            sleep_until((silent_since + limit).min(Instant::now() + self.silence_max)).await;
        }
    }

    fn slow_call(self: &Rc<Self>) -> SlowCall {
        self.slow.set(self.slow.get() + 1);
        SlowCall(self.clone())
    }
}

/// Ends with the call.
struct SlowCall(Rc<Pulse>);

impl Drop for SlowCall {
    fn drop(&mut self) {
        self.0.slow.set(self.0.slow.get() - 1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.rpc.abort();
    }
}

async fn serve(peer: Rc<Peer>, mut requests: mpsc::Receiver<Request>) {
    let mut connections = 0;
    while let Some(request) = requests.recv().await {
        if request.is_abandoned() {
            continue;
        }
        if peer.link.borrow().is_none() {
            connections += 1;
            let limit = Duration::from_millis(peer.options.connect_timeout_ms);
            let link = match timeout(limit, peer.connect(connections)).await {
                Ok(link) => link,
                Err(_) => Err(format!("no connection within {} ms", limit.as_millis())),
            };
            match link {
                Ok(link) => *peer.link.borrow_mut() = Some(link),
                Err(reason) => {
                    tracing::debug!(address = peer.address, reason, "coordinator not reached");
                    request.fail(CallError { address: peer.address.clone(), reason });
                    continue;
                }
            }
        }
        let link = peer.link.borrow().as_ref().map(|it| (it.number, it.client.clone(), it.pulse.clone()));
        if let Some((number, client, pulse)) = link {
            let peer = peer.clone();
            spawn_local(async move {
                if carry_out(&peer, client, &pulse, request).await.is_err() {
                    // Made anew by the next call; a newer connection stays.
                    let mut link = peer.link.borrow_mut();
                    drop(link.take_if(|link| link.number == number));
                }
            });
        }
    }
}

impl Peer {
    fn rest_address(&self) -> &str {
        self.options.rest_address.get().map_or("", String::as_str)
    }

    async fn connect(&self, number: u64) -> Result<Link, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        prepare(&stream, self.options.silence_max_ms).map_err(|error| error.to_string())?;
        let (reader, writer) = stream.into_split();
        let network = twoparty::VatNetwork::new(
            futures_util::io::BufReader::new(reader.compat()),
            futures_util::io::BufWriter::new(writer.compat_write()),
            Side::Client,
            capnp::message::ReaderOptions::default(),
        );
        let mut system = RpcSystem::new(Box::new(network), None);
        let coordinator: coordinator::Client = system.bootstrap(Side::Server);
        let rpc = spawn_local(async move {
            // The end of the connection is noticed by its calls.
            let _ = system.await;
        });
        let guard = AbortOnDrop(Some(rpc));
        let mut hello = coordinator.connect_request();
        {
            let mut hello = hello.get().init_hello();
            hello.set_protocol(CONTROL_PROTOCOL);
            hello.set_version(env!("CARGO_PKG_VERSION"));
            hello.set_token(self.options.token.reveal());
        }
        let connected = hello.send().promise.await.map_err(|error| error.to_string())?;
        let cluster = connected.get().and_then(|it| it.get_cluster()).map_err(|error| error.to_string())?;
        let peer = cluster.raft_request().send().promise.await.map_err(|error| error.to_string())?;
        let client = peer.get().and_then(|it| it.get_peer()).map_err(|error| error.to_string())?;
        let pulse = Rc::new(Pulse::new(self.options.silence_max_ms));
        Ok(Link { number, client, pulse, rpc: guard.keep() })
    }
}

/// Messages leave at once, and a host that is gone is noticed: the system stops sending what it has sent in vain for
/// `silence_ms`, instead of ever more rarely.
fn prepare(stream: &TcpStream, silence_ms: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let silence_ms = libc::c_int::try_from(silence_ms).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open as long as `stream`, and the option's value is the four bytes pointed to.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const silence_ms).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the tasks of a connection that did not come about.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().expect("kept once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(rpc) = &self.0 {
            rpc.abort();
        }
    }
}

/// Makes a call and tells who waits; fails if the connection is of no more use.
async fn carry_out(
    peer: &Peer,
    client: form::raft_peer::Client,
    pulse: &Rc<Pulse>,
    request: Request,
) -> Result<(), ()> {
    let began = Instant::now();
    let is_slow = !matches!(request, Request::Append(..) | Request::Vote(..));
    let _slow = is_slow.then(|| pulse.slow_call());
    macro_rules! answer {
        ($reply:ident, $call:expr) => {{
            let mut reply = $reply;
            let outcome = tokio::select! {
                // Who asked has given the call up; so does the other side.
                () = reply.closed(), if is_slow => return Ok(()),
                outcome = $call => outcome,
                // Signs of life are waited for longer than openraft does: their answers tell whether the member is there.
                () = pulse.stops(began), if !is_slow => {
                    let silence_ms = began.elapsed().as_millis();
                    tracing::warn!(address = peer.address, silence_ms, "a coordinator is silent: its connection is given up");
                    Err(capnp::Error::disconnected(format!("it was silent for {silence_ms} ms")))
                }
            };
            let is_lost = outcome.is_err();
            if !is_lost {
                pulse.heard.set(Instant::now());
            }
            let error = |reason: String| CallError { address: peer.address.clone(), reason };
            let _ =
                reply.send(outcome.map_err(|lost| error(lost.to_string())).and_then(|it| it.map_err(error)));
            if is_lost { Err(()) } else { Ok(()) }
        }};
    }
    match request {
        Request::Append(rpc, reply) => answer!(reply, append(&client, &rpc, peer.rest_address())),
        Request::Vote(rpc, reply) => answer!(reply, vote(&client, &rpc)),
        Request::Snapshot(rpc, reply) => answer!(reply, install_snapshot(&client, &rpc)),
        Request::StoreProgram(part, reply) => answer!(reply, store_program(&client, &part)),
        Request::ReadProgram { digest, offset, length, reply } => {
            answer!(reply, read_program(&client, digest, offset, length))
        }
    }
}

/// The inner error is the other side's, the outer one the connection's.
type Outcome<T> = Result<Result<T, String>, capnp::Error>;

fn words(text: capnp::text::Reader<'_>) -> String {
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

async fn append(
    client: &form::raft_peer::Client,
    rpc: &AppendEntriesRequest<Types>,
    rest_address: &str,
) -> Outcome<AppendEntriesResponse<u64>> {
    let mut call = client.append_request();
    let mut request = call.get().init_request();
    codec::write_vote(&rpc.vote, request.reborrow().init_vote());
    if let Some(id) = &rpc.prev_log_id {
        codec::write_log_id(id, request.reborrow().init_previous());
    }
    if let Some(id) = &rpc.leader_commit {
        codec::write_log_id(id, request.reborrow().init_committed());
    }
    let mut entries = request.reborrow().init_entries(rpc.entries.len() as u32);
    for (index, entry) in rpc.entries.iter().enumerate() {
        codec::write_entry(entry, entries.reborrow().get(index as u32));
    }
    request.set_rest_address(rest_address);
    let reply = call.send().promise.await?;
    use form::append_reply::Which;
    Ok(Ok(match reply.get()?.get_reply()?.which()? {
        Which::Success(()) => AppendEntriesResponse::Success,
        Which::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(codec::read_log_id(id?))),
        Which::Conflict(()) => AppendEntriesResponse::Conflict,
        Which::HigherVote(vote) => AppendEntriesResponse::HigherVote(codec::read_vote(vote?)),
        Which::Failed(reason) => return Ok(Err(words(reason?))),
    }))
}

async fn vote(client: &form::raft_peer::Client, rpc: &VoteRequest<u64>) -> Outcome<VoteResponse<u64>> {
    let mut call = client.vote_request();
    codec::write_vote(&rpc.vote, call.get().init_vote());
    if let Some(id) = &rpc.last_log_id {
        codec::write_log_id(id, call.get().init_last_log_id());
    }
    let reply = call.send().promise.await?;
    use form::vote_reply::Which;
    match reply.get()?.get_reply()?.which()? {
        Which::Answer(answer) => {
            let last_log_id = match answer.has_last_log_id() {
                true => Some(codec::read_log_id(answer.get_last_log_id()?)),
                false => None,
            };
            let vote = codec::read_vote(answer.get_vote()?);
            Ok(Ok(VoteResponse { vote, vote_granted: answer.get_granted(), last_log_id }))
        }
        Which::Failed(reason) => Ok(Err(words(reason?))),
    }
}

async fn install_snapshot(
    client: &form::raft_peer::Client,
    rpc: &InstallSnapshotRequest<Types>,
) -> Outcome<Option<InstallSnapshotResponse<u64>>> {
    let mut call = client.install_snapshot_request();
    let mut part = call.get().init_part();
    codec::write_vote(&rpc.vote, part.reborrow().init_vote());
    codec::write_snapshot_meta(&rpc.meta, part.reborrow().init_meta());
    part.set_offset(rpc.offset);
    part.set_data(&rpc.data);
    part.set_done(rpc.done);
    let reply = call.send().promise.await?;
    use form::snapshot_reply::Which;
    match reply.get()?.get_reply()?.which()? {
        Which::Vote(vote) => Ok(Ok(Some(InstallSnapshotResponse { vote: codec::read_vote(vote?) }))),
        Which::StartAgain(()) => Ok(Ok(None)),
        Which::Failed(reason) => Ok(Err(words(reason?))),
    }
}

async fn store_program(client: &form::raft_peer::Client, part: &ProgramPart) -> Outcome<bool> {
    let mut call = client.store_program_request();
    let mut params = call.get();
    params.set_from(part.from);
    params.set_digest(&part.digest.0);
    params.set_offset(part.offset);
    params.set_data(&part.data);
    params.set_done(part.is_last);
    let reply = call.send().promise.await?;
    use form::program_reply::Which;
    Ok(match reply.get()?.get_reply()?.which()? {
        Which::Stored(is_complete) => Ok(is_complete),
        Which::Part(_) => Err("it answered a question that was not asked".to_string()),
        Which::Failed(reason) => Err(words(reason?)),
    })
}

async fn read_program(
    client: &form::raft_peer::Client,
    digest: ProgramDigest,
    offset: u64,
    length: u32,
) -> Outcome<(Vec<u8>, u64)> {
    let mut call = client.read_program_request();
    let mut params = call.get();
    params.set_digest(&digest.0);
    params.set_offset(offset);
    params.set_length(length);
    let reply = call.send().promise.await?;
    use form::program_reply::Which;
    Ok(match reply.get()?.get_reply()?.which()? {
        Which::Part(part) => Ok((part.get_data()?.to_vec(), part.get_size())),
        Which::Stored(_) => Err("it answered a question that was not asked".to_string()),
        Which::Failed(reason) => Err(words(reason?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_counts_from_the_last_answer_or_the_call_and_slow_calls_get_their_time() {
        let limit = Duration::from_millis(30);
        let pulse = Rc::new(Pulse::new(30));
        let began = Instant::now();
        pulse.stops(began).await;
        assert!(began.elapsed() >= limit);
        pulse.heard.set(Instant::now());
        let heard = pulse.heard.get();
        pulse.stops(began).await;
        assert!(heard.elapsed() >= limit);

        let slow = pulse.slow_call();
        assert!(timeout(4 * limit, pulse.stops(began)).await.is_err());
        drop(slow);
        timeout(SLOW_CALL, pulse.stops(began)).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_knows_how_long_it_may_be_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream, u64::MAX).unwrap();
        prepare(&stream, 2_400).unwrap();
        assert!(stream.nodelay().unwrap());
    }
}

//! A whole coordinator: journal, service, control port, REST API and stored programs, put together.

use std::net::SocketAddr;
use std::sync::Arc;

use flott::coordinator::journal::raft::{PeerOptions, RaftJournal, RaftOptions, connect_peers};
use flott::coordinator::programs::{ProgramPeers, Programs};
use flott::coordinator::rest::{Server, ServerHandle, Services};
use flott::coordinator::rpc::{self, Parts, RpcHandle, RpcLink};
use flott::coordinator::{Coordinator, Handle};
use flott::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::directory::Directory;
use super::options::CoordinatorProcess;

/// Deadline for a connection to another member.
const CONNECT_TIMEOUT_MS: u64 = 2_000;
/// Folders of the data directory.
const JOURNAL: &str = "journal";
const PROGRAMS: &str = "programs";

/// Runs a coordinator until it is told to end by SIGTERM, SIGINT or a client. `ready` is called with the address of the REST
/// API as soon as requests are answered.
pub fn run(process: CoordinatorProcess, ready: impl FnOnce(SocketAddr) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("the runtime of the coordinator", error))?;
    let ended = runtime.block_on(serve(process, ready));
    runtime.shutdown_background();
    ended
}

/// What runs.
struct Running {
    handle: Handle,
    service: JoinHandle<()>,
    control: RpcHandle,
    rest: ServerHandle,
    /// Told when a client wants the coordinator to end.
    end: Arc<Notify>,
    /// Goes last.
    _directory: Directory,
}

async fn serve(process: CoordinatorProcess, ready: impl FnOnce(SocketAddr) -> Result<()>) -> Result<()> {
    // Listens before anything is started, so that nothing is cut off.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut running = start(process).await?;
    ready(running.rest.address())?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = running.end.notified() => Ok(()),
        _ = &mut running.service => {
            Err(Error::new(ErrorKind::Io, "the coordinator's log can take nothing any more; its log file says why"))
        }
    };
    if ended.is_ok() {
        tracing::info!("told to end");
    }
    running.stop(ended.is_ok()).await;
    ended
}

async fn start(process: CoordinatorProcess) -> Result<Running> {
    let CoordinatorProcess { service, control, rest, data, address, members, rest_address } = process;
    let directory = Directory::open(data.as_deref())?;
    if directory.is_temporary() {
        tracing::warn!(
            "coordinator.data-dir is not set: jobs and programs are forgotten when this coordinator ends"
        );
    }
    let raft = RaftOptions { members, ..RaftOptions::new(directory.folder(JOURNAL), address) };
    let token = control.token.clone();
    let peers = PeerOptions { token, rest_address, connect_timeout_ms: CONNECT_TIMEOUT_MS };
    let network =
        connect_peers(peers).map_err(|error| Error::io("the thread of the other coordinators", error))?;
    let program_peers: ProgramPeers = raft.program_peers(&network)?;
    let programs = Programs::open(directory.folder(PROGRAMS), rest.content_length_max_bytes, program_peers)?;
    let (journal, member) = RaftJournal::start(raft, network).await?;
    let member = member.with_programs(programs.clone());

    let link = RpcLink::new();
    let (coordinator, handle) = Coordinator::with_journal(service, link.clone(), journal);
    let service = tokio::spawn(coordinator.run());
    let parts = Parts {
        handle: handle.clone(),
        link,
        programs: Arc::new(programs.clone()),
        peer: Some(Box::new(move || member.peer())),
    };
    let control = rpc::start(control, parts)?;
    tokio::spawn(programs.clone().keep_swept(handle.clone()));

    let end = Arc::<Notify>::default();
    let stop = end.clone();
    let services = Services {
        programs: Some(programs),
        stop_cluster: Arc::new(move || stop.notify_one()),
        ..Services::new(handle.clone(), Arc::new(control.stats()), Arc::new(control.clone()))
    };
    let rest = Server::start(rest, services)?;
    Ok(Running { handle, service, control, rest, end, _directory: directory })
}

impl Running {
    /// Ends everything: first those who call, then what they call.
    async fn stop(self, service_runs: bool) {
        self.rest.stop().await;
        self.control.stop();
        self.control.ended().await;
        if service_runs {
            if let Err(error) = self.handle.stop().await {
                tracing::debug!(%error, "the service");
            }
            let _ = self.service.await;
        }
    }
}

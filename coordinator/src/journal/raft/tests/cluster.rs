//! Members in one process, each on a thread of its own, that talk over TCP.

use std::net::TcpListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use flott_schema::graph::JobGraph;
use flott_schema::ids::JobId;
use flott_schema::job::JobSpec;
use flott_schema::security::Token;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::super::{JournalError, PeerOptions, RaftJournal, RaftOptions, connect_peers};
use crate::journal::Role;
use crate::link::InMemoryLink;
use crate::machine::tests::graph::streaming;
use crate::programs::Programs;
use crate::rpc::{self, RpcLink};
use crate::service::{Coordinator, CoordinatorError, Handle, Options};

pub const DEADLINE: Duration = Duration::from_secs(30);

fn secret() -> Token {
    Token::new("a-secret-of-this-group").unwrap()
}

/// A running member.
pub struct Node {
    pub handle: Handle,
    pub link: InMemoryLink,
    pub programs: Programs,
    pub sync_count: Arc<AtomicU64>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a member that has the service's options, too.
    pub fn start(raft: RaftOptions, service: Options) -> Result<Node, JournalError> {
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let peers = PeerOptions {
                    token: secret(),
                    rest_address: Arc::new(format!("rest-of-{}", raft.address).into()),
                    connect_timeout_ms: 1_000,
                    silence_max_ms: 2_000,
                };
                let network = connect_peers(peers).unwrap();
                let programs = raft.directory.join("programs");
                let address = raft.address.clone();
                let program_peers = raft.program_peers(&network);
                let (journal, member) = match RaftJournal::start(raft, network).await {
                    Ok(started) => started,
                    Err(error) => return started.send(Err(error)).unwrap(),
                };
                let programs = Programs::open(programs, 1 << 30, program_peers.unwrap()).unwrap();
                let sync_count = journal.sync_count();
                let link = InMemoryLink::new();
                let (service, handle) = Coordinator::with_journal(service, link.clone(), journal);
                let member = member.with_programs(programs.clone());
                let port = rpc::start(
                    rpc::Options {
                        ports: vec![address.rsplit(':').next().unwrap().parse().unwrap()],
                        token: secret(),
                        ..rpc::Options::default()
                    },
                    rpc::Parts {
                        handle: handle.clone(),
                        link: RpcLink::new(),
                        programs: Arc::new(programs.clone()),
                        peer: Some(Box::new(move || member.peer())),
                    },
                )
                .unwrap();
                started.send(Ok((handle, link, programs, sync_count))).unwrap();
                tokio::select! {
                    () = service.run() => {}
                    _ = killed => {}
                }
                port.stop();
                port.ended().await;
            });
        });
        let (handle, link, programs, sync_count) = outcome.recv_timeout(DEADLINE).unwrap()?;
        Ok(Node { handle, link, programs, sync_count, kill: Some(kill), thread: Some(thread) })
    }

    /// Ends it as a killed process ends: nobody is told, nothing is finished.
    pub async fn kill(mut self) {
        drop(self.kill.take());
        self.join().await;
    }

    /// Ends it in good order.
    pub async fn stop(mut self) {
        self.handle.stop().await.unwrap();
        self.join().await;
    }

    async fn join(&mut self) {
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(move || thread.join());
        timeout(DEADLINE, joined).await.expect("it ends").unwrap().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until the role is as wanted.
pub async fn role_when(roles: &mut watch::Receiver<Role>, wanted: impl Fn(&Role) -> bool) -> Role {
    timeout(DEADLINE, roles.wait_for(|role| wanted(role))).await.expect("a role in time").unwrap().clone()
}

/// Waits until the node leads, and gives its term.
pub async fn leads(node: &Node) -> u64 {
    role_when(&mut node.handle.watch_role(), |role| role.term().is_some()).await.term().unwrap()
}

/// Waits until one of the nodes leads; its index and term.
pub async fn leader_of(nodes: &[&Node]) -> (usize, u64) {
    let waiting = nodes.iter().enumerate().map(|(index, node)| {
        Box::pin(async move {
            let term = leads(node).await;
            (index, term)
        })
    });
    futures_util::future::select_all(waiting).await.0
}

/// Submits a job to whichever node leads, and returns when it is committed.
pub async fn submit_to(nodes: &[&Node], job: u128) {
    let submitting = async {
        loop {
            let (leader, _) = leader_of(nodes).await;
            match nodes[leader].handle.submit(JobId(job), JobSpec::embedded(graph(1))).await {
                Ok(()) | Err(CoordinatorError::DuplicateJob(_)) => return,
                // The leader has changed meanwhile, and may have committed it nevertheless.
                Err(CoordinatorError::NotLeader { .. } | CoordinatorError::Timeout { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(DEADLINE, submitting).await.expect("a leader takes the job");
}

/// Asks until the answer is yes.
pub async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// Addresses on which nobody listens.
pub fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

pub fn alone(directory: &Path) -> RaftOptions {
    RaftOptions::new(directory, free_addresses(1).remove(0))
}

pub fn graph(parallelism: u32) -> JobGraph {
    streaming("endless", &[("endless", parallelism)], &[])
}

/// Submits a job that waits for slots, and returns when it is committed.
pub async fn submit(node: &Node, job: u128) {
    node.handle.submit(JobId(job), JobSpec::embedded(graph(1))).await.unwrap();
}

pub async fn has_job(node: &Node, job: u128) -> bool {
    node.handle.status(JobId(job)).await.is_ok()
}

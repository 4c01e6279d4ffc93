//! The process of a coordinator: journal, service, programs and control port, put together as a configuration says.
//!
//! Who may call it: the `flott` binary, and tests of the whole. What must never happen here: anything that a part could do
//! by itself. The REST API is started by the caller, beside the process, over [`Process::rest_services`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use flott_schema::config::{Configuration, options};
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::security::Token;
use tokio::sync::{oneshot, watch};

use crate::journal::raft::{JournalError, PeerOptions, RaftJournal, RaftOptions, connect_peers};
use crate::programs::{Library, ProgramError, Programs};
use crate::rest;
use crate::rpc::{self, RpcHandle, RpcLink};
use crate::service::{self, Coordinator, Handle};

/// Deadline for a connection to another coordinator.
const CONNECT_TIMEOUT_MS: u64 = 1_000;

/// A coordinator that runs in this process, on threads of its own.
#[derive(Debug)]
pub struct Process {
    handle: Handle,
    rpc: RpcHandle,
    library: Library,
    rest_address: Arc<OnceLock<String>>,
    ended: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread of the service has begun.
struct Begun {
    handle: Handle,
    rpc: RpcHandle,
    library: Library,
}

impl Process {
    /// Starts a coordinator. `token` is the secret that `configuration` names. Returns when its control port is open; in a
    /// group, a leader is chosen afterwards.
    pub fn start(configuration: &Configuration, token: Token) -> Result<Self> {
        let data = DataDirectory::of(configuration)?;
        let raft = RaftOptions::from_configuration(configuration, data.path())?;
        let service = service::Options {
            checkpoint_directory: path_of_checkpoints(data.path())?,
            ..service::Options::from_configuration(configuration)?
        };
        let mut port = rpc::Options::from_configuration(configuration, token.clone())?;
        if raft.members.len() > 1 {
            // The others know it under one address only.
            port.ports.truncate(1);
        }
        let programs_max = configuration.get(&options::COORDINATOR_PROGRAMS_MAX_SIZE)?.bytes();
        let programs_total = configuration.get(&options::COORDINATOR_PROGRAMS_TOTAL_SIZE)?.bytes();
        let rest_address = Arc::new(OnceLock::new());
        let peers = PeerOptions {
            token,
            rest_address: rest_address.clone(),
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            // Nobody waits for a leader longer than for two elections.
            silence_max_ms: raft.election_timeout_ms.saturating_mul(4).max(CONNECT_TIMEOUT_MS),
        };

        let failed = |error: io::Error| Error::io("the threads of the coordinator", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (begun, outcome) = oneshot::channel();
        let (ending, ended) = watch::channel(());
        let body = move || {
            let _ending = ending;
            runtime.block_on(async {
                match begin(raft, service, port, peers, data.path(), programs_max).await {
                    Ok((coordinator, parts)) => {
                        let rpc = parts.rpc.clone();
                        let files = parts.library.files().clone();
                        tokio::spawn(files.keep_swept(parts.handle.clone(), programs_total));
                        let _ = begun.send(Ok(parts));
                        coordinator.run().await;
                        rpc.stop();
                        rpc.ended().await;
                    }
                    Err(error) => drop(begun.send(Err(error))),
                }
            });
            // Its directory goes last, if it is a temporary one.
            drop(runtime);
            drop(data);
        };
        let thread =
            std::thread::Builder::new().name("flott-coordinator".into()).spawn(body).map_err(failed)?;
        let begun = outcome.blocking_recv();
        let Begun { handle, rpc, library } =
            begun.map_err(|_| Error::internal("the coordinator's thread ended while it started"))??;
        Ok(Process { handle, rpc, library, rest_address, ended, thread: Some(thread) })
    }

    /// The service.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The control port, which also knows the numbers of workers and asks them.
    pub fn rpc(&self) -> &RpcHandle {
        &self.rpc
    }

    /// The stored programs.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// What a REST API of this coordinator answers from. `stop_cluster` ends the processes of the cluster.
    pub fn rest_services(&self, stop_cluster: Arc<dyn Fn() + Send + Sync>) -> rest::Services {
        let stats = Arc::new(self.rpc.stats());
        let workers = Arc::new(self.rpc.clone());
        let programs = self.library.files().clone();
        let services = rest::Services::new(self.handle.clone(), stats, workers);
        let rpc = self.rpc.clone();
        let callers_refused = Arc::new(move || rpc.refused());
        rest::Services { programs: Some(programs), stop_cluster, callers_refused, ..services }
    }

    /// Where the REST API of this coordinator is reached, `host:port`, so that the others can tell clients. Once.
    pub fn set_rest_address(&self, address: String) {
        // The first word stands.
        let _ = self.rest_address.set(address);
    }

    /// Waits until the coordinator has ended: because it was told to ([`Handle::stop`]), or because its log is broken.
    pub async fn ended(&self) {
        // Nothing is ever sent; the other end goes with the thread.
        let _ = self.ended.clone().changed().await;
    }

    /// Tells the coordinator to end, not the jobs, and waits until its log is closed.
    pub async fn stop(mut self) {
        let _ = self.handle.stop().await;
        self.ended().await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Where the checkpoints of jobs go that name no folder: with the things of the coordinator, which is well on one host. Workers on other
/// hosts do not reach it.
fn path_of_checkpoints(data: &Path) -> Result<String> {
    let path = std::path::absolute(data.join("checkpoints"));
    let path = path.map_err(|error| Error::io(data.display().to_string(), error))?;
    Ok(path.display().to_string())
}

async fn begin(
    raft: RaftOptions,
    service: service::Options,
    port: rpc::Options,
    peers: PeerOptions,
    data: &Path,
    programs_max: u64,
) -> Result<(Coordinator<RpcLink, RaftJournal>, Begun)> {
    let network =
        connect_peers(peers).map_err(|error| Error::io("the thread that calls coordinators", error))?;
    let program_peers = raft.program_peers(&network).map_err(JournalError::into_error)?;
    let is_alone = raft.members.len() < 2;
    // Its lock keeps a second coordinator out of the directory, before anything there is touched.
    let (journal, member) = RaftJournal::start(raft, network).await.map_err(JournalError::into_error)?;
    let programs = Programs::open(data.join("programs"), programs_max, program_peers);
    let programs = programs.map_err(ProgramError::into_error)?;
    let member = member.with_programs(programs.clone());
    let link = RpcLink::new();
    let (coordinator, handle) = Coordinator::with_journal(service, link.clone(), journal);
    let parts = rpc::Parts {
        handle: handle.clone(),
        link,
        programs: Arc::new(programs.clone()),
        peer: match is_alone {
            true => None,
            false => Some(Box::new(move || member.peer())),
        },
    };
    let rpc = rpc::start(port, parts)?;
    Ok((coordinator, Begun { library: Library::new(programs, handle.clone()), handle, rpc }))
}

/// Where the coordinator keeps its things.
enum DataDirectory {
    Kept(PathBuf),
    /// Gone with the process.
    Temporary(PathBuf),
}

impl DataDirectory {
    fn of(configuration: &Configuration) -> Result<Self> {
        if let Some(path) = configuration.get(&options::COORDINATOR_DATA_DIR)? {
            return Ok(DataDirectory::Kept(path.into()));
        }
        if configuration.get(&options::COORDINATOR_MEMBERS)?.len() > 1 {
            return Err(Error::configuration(format!(
                "coordinators in a group keep a log: set {} to a directory that survives the process",
                options::COORDINATOR_DATA_DIR.key()
            )));
        }
        let path = std::env::temp_dir().join(format!("flott-coordinator-{}", std::process::id()));
        let unused = (0..).map(|number| match number {
            0 => path.clone(),
            number => path.with_extension(number.to_string()),
        });
        for path in unused.take(100) {
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(DataDirectory::Temporary(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(path.display().to_string(), error)),
            }
        }
        Err(Error::new(ErrorKind::Io, format!("'{}' and the like exist already", path.display())))
    }

    fn path(&self) -> &Path {
        match self {
            DataDirectory::Kept(path) | DataDirectory::Temporary(path) => path,
        }
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if let DataDirectory::Temporary(path) = self {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flott_schema::ids::JobId;
    use flott_schema::job::{JobSpec, ProgramDigest, ProgramRef};
    use tokio::time::timeout;

    use super::*;
    use crate::machine::tests::graph::streaming;
    use crate::programs::shed;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn configuration(pairs: &[&str]) -> Configuration {
        let mut all = vec!["coordinator.port=0"];
        all.extend(pairs);
        Configuration::from_pairs(all).unwrap()
    }

    async fn start(pairs: &[&str]) -> Result<Process> {
        let configuration = configuration(pairs);
        let starting = move || Process::start(&configuration, Token::none());
        tokio::task::spawn_blocking(starting).await.unwrap()
    }

    async fn lead(process: &Process) {
        let mut roles = process.handle().watch_role();
        timeout(DEADLINE, roles.wait_for(|role| role.term().is_some())).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_coordinator_with_a_directory_finds_its_jobs_and_programs_again() {
        let directory = tempfile::tempdir().unwrap();
        let data = format!("coordinator.data-dir={}", directory.path().display());
        let process = start(&[&data]).await.unwrap();
        lead(&process).await;
        let mut upload = process.library().upload().unwrap();
        upload.write(b"a program").unwrap();
        let stored = process.library().add(upload, "job".into(), None).await.unwrap();
        let graph = streaming("job", &[("source", 1)], &[]);
        let program = ProgramRef {
            digest: stored.digest,
            name: "job".into(),
            arguments: Vec::new(),
            execution: 0,
            configuration: Vec::new(),
        };
        let spec = JobSpec { program: Some(program.clone()), ..JobSpec::embedded(graph.clone()) };
        process.handle().submit(JobId(1), spec).await.unwrap();
        process.stop().await;

        let process = start(&[&data]).await.unwrap();
        lead(&process).await;
        assert!(process.handle().status(JobId(1)).await.is_ok());
        assert!(process.library().files().contains(stored.digest));
        let needed = process.library().remove(stored.digest).await.unwrap_err();
        assert!(needed.to_string().contains("is needed by job"), "{needed}");
        let mut upload = process.library().upload().unwrap();
        upload.write(b"another").unwrap();
        let other = process.library().add(upload, "other".into(), None).await.unwrap().digest;
        let listed =
            |digest| process.handle().read("programs", move |it| it.programs().contains_key(&digest));
        timeout(DEADLINE, async {
            // Beyond the budget the one goes that no job needs, once it is older than the moment.
            while listed(other).await.unwrap() {
                shed(process.handle(), 0, Duration::ZERO).await.unwrap();
            }
        })
        .await
        .unwrap();
        assert!(listed(stored.digest).await.unwrap());
        process.handle().cancel(JobId(1)).await.unwrap();
        assert!(process.library().remove(stored.digest).await.unwrap());
        assert!(!process.library().remove(stored.digest).await.unwrap());
        let spec = JobSpec { program: Some(program), ..JobSpec::embedded(graph) };
        let unknown = process.handle().submit(JobId(2), spec).await.unwrap_err();
        assert!(unknown.to_string().contains("upload it first"), "{unknown}");
        process.stop().await;
    }

    #[tokio::test]
    async fn a_coordinator_without_a_directory_leaves_nothing_behind() {
        let process = start(&[]).await.unwrap();
        lead(&process).await;
        let folder = process.library().files().path(ProgramDigest([0; 32]));
        let data = folder.parent().unwrap().parent().unwrap().to_path_buf();
        assert!(data.join("log").is_dir());
        process.stop().await;
        assert!(!data.exists());
    }

    #[tokio::test]
    async fn a_group_without_directories_or_without_this_coordinator_is_refused() {
        let members = "coordinator.members=[a:1, b:1, c:1]";
        let error = start(&[members]).await.unwrap_err();
        assert!(error.to_string().contains("set coordinator.data-dir"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let data = format!("coordinator.data-dir={}", directory.path().display());
        let error = start(&[members, &data]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("which is none of them"), "{error}");
    }
}

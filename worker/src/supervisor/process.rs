//! A whole worker process: session with the cluster, supervisor, data port, and the signals that end it.

use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::config::{Configuration, PortRanges, options};
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::job::{ProgramDigest, ProgramRef};
use flott_schema::security::{Token, check_binding, is_loopback};
use flott_schema::stats::{LogFile, WorkerProfile, WorkerStats};
use flott_schema::{Error, ErrorKind, Result};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

use crate::executor::environment::{RuntimeOptions, StorageKeys};
use crate::session::{self, SessionEnd, SessionHandle, WorkerSide};
use crate::supervisor::clients::ClientRun;
use crate::supervisor::logs::LogFolder;
use crate::supervisor::machine::Deadlines;
use crate::supervisor::metrics_port::{self, MetricsPort};
use crate::supervisor::program_cache::{ProgramPart, ProgramSource};
use crate::supervisor::rotate::Rotation;
use crate::supervisor::service::{Options, Supervisor};
use crate::supervisor::statistics::{Statistics, host_memory_bytes};

/// Calls for reports, and wishes to run programs, that may wait.
const REPORTS_MAX: usize = 64;
const CLIENTS_MAX: usize = 8;
/// Ports of coordinators that are tried at most.
const COORDINATOR_PORTS_MAX: usize = 16;

/// What a worker process is started with.
#[derive(Clone, Debug)]
pub struct WorkerProcess {
    /// The session with the cluster; the profile's data address is filled in when the data port is open.
    pub session: session::Options,
    /// The supervisor.
    pub supervisor: Options,
    /// Address on which the data port listens.
    pub bind_host: String,
    /// Ports for it, of which the first free one is taken.
    pub data_ports: PortRanges,
    /// Ports for metrics, of which the first free one is taken; nothing: no metrics.
    pub metrics_ports: Option<PortRanges>,
}

impl WorkerProcess {
    /// What the configuration says. Refuses to listen to other machines without a secret.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let token = Token::from_configuration(configuration, |path| std::fs::read_to_string(path))?;
        let bind_host = configuration.get(&options::WORKER_BIND_HOST)?;
        check_binding(options::WORKER_BIND_HOST.key(), &bind_host, &token)?;
        let addresses = coordinators(configuration)?;
        let slots = configuration.get(&options::WORKER_SLOTS)?;
        let slot_memory_bytes = configuration.get(&options::WORKER_SLOT_MEMORY)?.bytes();
        let directories = configuration.get(&options::TMP_DIRS)?.0;
        let scratch = match directories.first() {
            Some(first) if configuration.is_set(&options::TMP_DIRS) => PathBuf::from(first),
            _ => std::env::temp_dir(),
        };
        let host = match configuration.get(&options::WORKER_HOST)? {
            Some(host) => host,
            None if is_loopback(&bind_host) => bind_host.clone(),
            None => own_address(&addresses),
        };
        let profile = WorkerProfile {
            name: configuration.get(&options::WORKER_ID)?.unwrap_or_default(),
            host,
            slots,
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            memory_bytes: host_memory_bytes(),
            slot_memory_bytes,
            version: env!("CARGO_PKG_VERSION").into(),
            ..WorkerProfile::default()
        };
        let mut session = session::Options::new(addresses, token.clone(), profile);
        session.registration_timeout_ms = milliseconds(configuration.get(&options::REGISTRATION_TIMEOUT)?);
        let program_patience_ms = session.registration_timeout_ms;
        let runtime = RuntimeOptions {
            slots,
            channel_capacity: configuration.get(&options::WORKER_CHANNEL_CAPACITY)? as usize,
            window_bytes: u32::try_from(configuration.get(&options::WORKER_CHANNEL_BYTES)?.bytes())
                .unwrap_or(u32::MAX),
            compression: configuration.get(&options::WORKER_CHANNEL_COMPRESSION)?,
            connect_timeout_ms: milliseconds(configuration.get(&options::WORKER_CHANNEL_CONNECT_TIMEOUT)?),
            spool_memory_bytes: configuration.get(&options::WORKER_SPOOL_MEMORY)?.as_usize(),
            scratch: scratch.clone(),
            storage: StorageKeys(flott_storage::keys_of(configuration)),
        };
        let files_kept = configuration.get(&options::LOG_FILES_KEPT)?;
        let supervisor = Options {
            runtime,
            slot_memory_bytes,
            logs: configuration.get(&options::LOG_DIR)?.unwrap_or_else(|| "log".into()).into(),
            jobs_logged_max: configuration.get(&options::LOG_JOBS_KEPT)? as usize,
            rotation: Rotation { files_kept, ..Rotation::default() },
            programs: scratch.join(format!("flott-programs-{}", own_user())),
            programs_bytes_max: configuration.get(&options::WORKER_PROGRAMS_SIZE)?.bytes(),
            program_patience_ms,
            token,
            deadlines: Deadlines {
                hello_ms: milliseconds(configuration.get(&options::WORKER_EXECUTOR_START_TIMEOUT)?),
                silence_ms: milliseconds(configuration.get(&options::HEARTBEAT_TIMEOUT)?),
                ..Deadlines::default()
            },
        };
        let data_ports = configuration.get(&options::WORKER_DATA_PORT)?;
        let metrics_ports = configuration.get(&options::METRICS_PROMETHEUS_PORT)?.0;
        Ok(WorkerProcess { session, supervisor, bind_host, data_ports, metrics_ports })
    }
}

/// Runs a worker until it is told to end by SIGTERM or SIGINT, or finds no coordinator for too long. To be
/// called on the main thread: its executors are killed when the thread ends that calls this.
pub fn run(process: WorkerProcess) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("the runtime of the worker", error))?;
    let ended = LocalSet::new().block_on(&runtime, serve(process));
    runtime.shutdown_background();
    ended
}

async fn serve(process: WorkerProcess) -> Result<()> {
    let WorkerProcess { mut session, mut supervisor, bind_host, data_ports, metrics_ports } = process;
    for folder in [&mut supervisor.logs, &mut supervisor.programs, &mut supervisor.runtime.scratch] {
        // Executors may change the folder they are in.
        *folder = std::path::absolute(&*folder).map_err(|error| Error::io(folder.display(), error))?;
    }
    own_folder(&supervisor.programs)?;
    let (data_port, port) = bind(&bind_host, &data_ports).await?;
    let profile = &mut session.profile;
    profile.data_address = address(&profile.host, port);
    if profile.name.is_empty() {
        let random = RandomState::new().hash_one(std::process::id()) & 0xff_ffff;
        profile.name = format!("{}-{random:06x}", profile.data_address);
    }
    tracing::info!(name = %profile.name, slots = profile.slots, data = %profile.data_address, "worker");

    let statistics = Statistics::default();
    if let Some(ports) = metrics_ports
        && let Some((listener, port)) = metrics_port::bind(&bind_host, &ports).await
    {
        profile.metrics_port = port;
        tracing::info!("metrics for Prometheus: http://{}/metrics", address(&bind_host, port));
        let port = MetricsPort {
            host: profile.host.clone(),
            worker: profile.name.clone(),
            slots: profile.slots,
            statistics: statistics.clone(),
            token: supervisor.token.clone(),
        };
        spawn_local(port.serve(listener));
    }
    let (wishes, clients) = mpsc::channel(CLIENTS_MAX);
    let side = Side {
        logs: LogFolder::new(supervisor.logs.clone()),
        statistics: statistics.clone(),
        clients: wishes,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (handle, orders) = session::start(session, Arc::new(side))?;
    let source = Rc::new(FromCluster(handle.clone()));
    let supervisor = Supervisor::start(supervisor, source, data_port, statistics)?;
    spawn_local(supervisor.clients().serve(clients));
    let (reports, mut outbox) = mpsc::channel(REPORTS_MAX);
    let reporter = handle.clone();
    spawn_local(async move {
        while let Some(reports) = outbox.recv().await {
            if reporter.report(reports).await.is_err() {
                return;
            }
        }
    });
    let stopper = handle.clone();
    spawn_local(async move {
        for attempt in 0_u32.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                // The executors go with the process.
                std::process::exit(130);
            }
            tracing::info!("told to end");
            stopper.stop();
        }
    });
    supervisor.run(orders, reports).await;
    match handle.ended().await {
        SessionEnd::Stopped => Ok(()),
        end => Err(end.into_error()),
    }
}

/// What coordinators ask of the worker.
struct Side {
    logs: LogFolder,
    statistics: Statistics,
    clients: mpsc::Sender<ClientRun>,
}

impl WorkerSide for Side {
    fn stats(&self) -> WorkerStats {
        self.statistics.take()
    }

    fn last_stats(&self, tasks: &[(JobId, AttemptId)]) -> WorkerStats {
        self.statistics.of(tasks)
    }

    fn list_logs(&self) -> Result<Vec<LogFile>> {
        self.logs.list()
    }

    fn read_log(&self, name: &str, offset: u64, length_max: u32) -> Result<FilePart> {
        let (bytes, size) = self.logs.read(name, offset, length_max)?;
        Ok(FilePart { bytes, size })
    }

    fn run_program(
        &self,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>> {
        let clients = self.clients.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let stopping = || Error::new(ErrorKind::Cancelled, "the worker is ending");
            let wish = ClientRun { program, rest_address, plan_only, answer };
            clients.send(wish).await.map_err(|_| stopping())?;
            answered.await.map_err(|_| stopping())?
        })
    }
}

/// Programs as the leading coordinator gives them.
struct FromCluster(SessionHandle);

impl ProgramSource for FromCluster {
    fn read(&self, digest: ProgramDigest, offset: u64, length: u32) -> ProgramPart {
        let session = self.0.clone();
        Box::pin(async move {
            let part = session.read_program(digest, offset, length).await?;
            Ok((part.bytes, part.size))
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The control ports to try.
fn coordinators(configuration: &Configuration) -> Result<Vec<String>> {
    let members = configuration.get(&options::COORDINATOR_MEMBERS)?;
    if !members.is_empty() {
        return Ok(members);
    }
    let host = configuration.get(&options::COORDINATOR_HOST)?;
    let ports = configuration.get(&options::COORDINATOR_PORT)?;
    Ok(ports.iter().take(COORDINATOR_PORTS_MAX).map(|port| address(&host, port)).collect())
}

fn address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The address from which this host speaks to the first coordinator that can be resolved; nothing is sent.
fn own_address(coordinators: &[String]) -> String {
    let towards = |coordinator: &String| {
        let peer: SocketAddr = coordinator.to_socket_addrs().ok()?.next()?;
        let any = match peer.is_ipv4() {
            true => "0.0.0.0:0",
            false => "[::]:0",
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    coordinators.iter().find_map(towards).unwrap_or_else(|| "localhost".into())
}

async fn bind(host: &str, ports: &PortRanges) -> Result<(TcpListener, u16)> {
    let mut last = None;
    for port in ports.iter() {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                return Ok((listener, port));
            }
            Err(error) => last = Some(Error::io(format!("data port {}", address(host, port)), error)),
        }
    }
    let none = || Error::configuration("no port is named").at(options::WORKER_DATA_PORT.key());
    Err(last.unwrap_or_else(none))
}

fn own_user() -> u32 {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() }
}

/// Makes a folder that others cannot write to: what lies there is executed.
fn own_folder(path: &Path) -> Result<()> {
    let prepare = || -> std::io::Result<bool> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let metadata = std::fs::symlink_metadata(path)?;
        let is_own = metadata.is_dir() && metadata.uid() == own_user();
        Ok(is_own && metadata.permissions().mode() & 0o022 == 0)
    };
    match prepare() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::configuration(format!(
            "{}: others may write to the folder of programs, or own it; remove it, or name another in \
             io.tmp.dirs",
            path.display()
        ))),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(pairs: &[&str]) -> Configuration {
        Configuration::from_pairs(pairs.iter().map(|pair| pair.to_string())).unwrap()
    }

    #[test]
    fn a_worker_is_what_its_configuration_says() {
        let process = WorkerProcess::from_configuration(&configuration(&[
            "worker.slots=3",
            "worker.slot.memory=64mb",
            "coordinator.host=far",
            "coordinator.port=7000,7001",
            "io.tmp.dirs=/scratch",
            "env.log.dir=/logs",
            "env.log.max=2",
            "worker.log.jobs=7",
            "worker.executor.start-timeout=9 s",
        ]))
        .unwrap();
        assert_eq!(process.session.addresses, ["far:7000", "far:7001"]);
        assert_eq!(process.session.profile.host, "127.0.0.1");
        assert_eq!((process.session.profile.slots, process.supervisor.runtime.slots), (3, 3));
        assert_eq!(process.supervisor.slot_memory_bytes, 64 << 20);
        assert!(process.supervisor.programs.starts_with("/scratch"));
        assert_eq!(process.supervisor.logs, Path::new("/logs"));
        assert_eq!(process.supervisor.rotation.files_kept, 2);
        assert_eq!(process.supervisor.jobs_logged_max, 7);
        assert_eq!(process.supervisor.deadlines.hello_ms, 9_000);
        let members = configuration(&["coordinator.members=a:6123,b:6123,c:6123"]);
        assert_eq!(WorkerProcess::from_configuration(&members).unwrap().session.addresses.len(), 3);
    }

    #[test]
    fn other_machines_are_not_listened_to_without_a_secret() {
        let open = configuration(&["worker.bind-host=0.0.0.0"]);
        let error = WorkerProcess::from_configuration(&open).unwrap_err().to_string();
        assert!(error.contains("worker.bind-host") && error.contains("security.token"), "{error}");
        let closed = configuration(&["worker.bind-host=0.0.0.0", "security.token=long-enough?"]);
        let process = WorkerProcess::from_configuration(&closed).unwrap();
        assert_eq!(process.supervisor.token.reveal(), "long-enough?");
        assert!(!format!("{process:?}").contains("long-enough?"));
    }

    #[test]
    fn programs_are_not_kept_where_others_can_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("programs");
        own_folder(&path).unwrap();
        own_folder(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own_folder(&path).unwrap_err().to_string().contains("others may write"));
    }
}

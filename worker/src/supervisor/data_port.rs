//! The port at which executors of other workers reach those of this one. A connection is read up to its
//! handshake, which says for which job it is, and then handed over to that job's executor; no record passes
//! through the worker.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::ids::WorkerId;
use flott_schema::wire::to_bytes;
use flott_schema::{Error, ErrorKind, Result};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::exchange::{Handshake, HandshakeReply, handshake};
use crate::fd_passing;
use crate::supervisor::control_socket::pause;
use crate::supervisor::links::Links;
use crate::supervisor::machine::Machine;

/// How long a connection may take to say what it wants.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long it waits for its executor, which may be about to start; then it is to be tried again, for the other end may have more
/// time.
const EXECUTOR_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that may wait for either.
const WAITING_MAX: usize = 4096;

/// The port.
pub struct DataPort {
    links: Rc<Links>,
    machine: Rc<RefCell<Machine>>,
    waiting: Arc<Semaphore>,
    executor_deadline: Duration,
}

impl DataPort {
    /// A port that hands over to the executors of `links`.
    pub fn new(links: Rc<Links>, machine: Rc<RefCell<Machine>>) -> Self {
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        DataPort { links, machine, waiting, executor_deadline: EXECUTOR_DEADLINE }
    }

    /// Takes connections, for ever.
    pub async fn serve(self, listener: TcpListener) {
        let port = Rc::new(self);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let port = port.clone();
                    spawn_local(async move {
                        let Ok(_place) = port.waiting.clone().try_acquire_owned() else {
                            tracing::warn!(
                                "too many connections wait for executors; one from {peer} is closed"
                            );
                            return;
                        };
                        if let Err(error) = port.take(stream).await {
                            tracing::warn!("connection from {peer} refused: {error}");
                        }
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn take(&self, mut stream: TcpStream) -> Result<()> {
        let _ = stream.set_nodelay(true);
        let handshake = handshake::read(&mut stream, HANDSHAKE_DEADLINE).await?;
        let handed = match handshake.check(self.links.token.reveal()) {
            Ok(()) => match timeout(self.executor_deadline, self.executor(&handshake)).await {
                Ok((socket, worker)) => hand_over(&handshake, &stream, &socket, worker).await,
                Err(_) => return self.not_yet(&handshake, &mut stream).await,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = &handed {
            let reply = HandshakeReply::Refused(error.to_string());
            handshake::write_reply(&mut stream, &reply, HANDSHAKE_DEADLINE).await?;
        }
        handed
    }

    async fn not_yet(&self, handshake: &Handshake, stream: &mut TcpStream) -> Result<()> {
        let waited_ms = self.executor_deadline.as_millis();
        let text = format!("no executor of job {} has come up there within {waited_ms} ms", handshake.job);
        handshake::write_reply(stream, &HandshakeReply::NotYet(text), HANDSHAKE_DEADLINE).await
    }

    /// The socket of the job's executor, once there is one, and the id of the worker that it has been told.
    async fn executor(&self, handshake: &Handshake) -> (Rc<UnixStream>, WorkerId) {
        loop {
            let changed = self.links.data_changed().notified();
            let current = self.machine.borrow().current(handshake.job);
            if let Some(found) = current.and_then(|executor| self.links.data(executor)) {
                return found;
            }
            changed.await;
        }
    }
}

/// Gives the connection to the executor, which answers the handshake.
async fn hand_over(
    handshake: &Handshake,
    stream: &TcpStream,
    socket: &UnixStream,
    worker: WorkerId,
) -> Result<()> {
    if worker != handshake.to {
        let text = format!("this is worker {}, not worker {}", worker.0, handshake.to.0);
        return Err(Error::new(ErrorKind::Io, text));
    }
    let message = to_bytes(handshake)?;
    let send = || fd_passing::send(socket.as_fd(), &message, stream.as_fd());
    let sent = timeout(HANDSHAKE_DEADLINE, socket.async_io(Interest::WRITABLE, send)).await;
    let sent = sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    sent.map_err(|error| Error::io(format!("handing over to the executor of job {}", handshake.job), error))
}

/// Takes the sockets over which executors want connections, for ever.
pub async fn serve_executors(listener: UnixListener, links: Rc<Links>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                match links.process(process) {
                    Some(known) => links.connect_data(known, stream),
                    None => tracing::warn!("a process that is no executor wanted connections: {process:?}"),
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc as Shared;

    use flott_schema::control::{Placement, ToWorker};
    use flott_schema::graph::{ExecutionMode, JobGraph};
    use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, VertexId};
    use flott_schema::job::{JobSpec, ProgramDigest, ProgramRef};
    use flott_schema::security::Token;
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    use super::*;
    use crate::exchange::handshake::PROTOCOL;
    use crate::executor::incoming::incoming;
    use crate::supervisor::control_socket::listen;
    use crate::supervisor::links::Known;
    use crate::supervisor::machine::{Action, Deadlines, Event};
    use crate::supervisor::statistics::Statistics;

    const JOB: JobId = JobId(7);
    const WORKER: WorkerId = WorkerId(2);
    const DEADLINE: Duration = Duration::from_secs(60);

    fn handshake(token: &str, to: WorkerId) -> Handshake {
        let token = token.to_string();
        Handshake { protocol: PROTOCOL, token, job: JOB, from: WorkerId(1), to, window_bytes: 1 }
    }

    fn deploy() -> ToWorker {
        let graph = JobGraph {
            name: "job".into(),
            mode: ExecutionMode::Streaming,
            vertices: Vec::new(),
            edges: Vec::new(),
        };
        let program = ProgramRef {
            digest: ProgramDigest([0; 32]),
            name: String::new(),
            arguments: Vec::new(),
            execution: 0,
            configuration: Vec::new(),
        };
        let task = TaskId { vertex: VertexId(1), subtask: 0 };
        let placement = Placement {
            attempt: AttemptId { task, job_epoch: 0, attempt: 0 },
            slot: SlotId { worker: WORKER, index: 0 },
        };
        let spec = JobSpec { program: Some(program), ..JobSpec::embedded(graph) };
        let (peers, hosts) = (Shared::new([]), Shared::new([]));
        let (spec, tasks) = (Shared::new(spec), vec![placement]);
        ToWorker::Deploy { job: JOB, spec, tasks, peers, hosts, restore: None }
    }

    /// Runs a test with a data port whose executor is this process, once it connects to the socket given.
    fn with_port(test: impl AsyncFnOnce(std::net::SocketAddr, std::path::PathBuf)) {
        with_patient_port(EXECUTOR_DEADLINE, test);
    }

    fn with_patient_port(
        executor_deadline: Duration,
        test: impl AsyncFnOnce(std::net::SocketAddr, std::path::PathBuf),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let folder = tempfile::tempdir().unwrap();
            let (events, _waiting) = mpsc::channel(1);
            let token = Token::new("long-enough?").unwrap();
            let links = Links::new(events, token, Statistics::default(), std::time::Duration::from_secs(60));
            let machine = Rc::new(RefCell::new(Machine::new(Deadlines::default())));
            let actions = machine.borrow_mut().apply(Event::Order(deploy()));
            let Action::Start { executor, .. } = actions[0] else { panic!("no executor is started") };
            links.add_process(std::process::id(), Known { executor, job: JOB, worker: WORKER });
            let path = folder.path().join("data");
            spawn_local(serve_executors(listen(&path).unwrap(), links.clone()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let port = DataPort { executor_deadline, ..DataPort::new(links, machine) };
            spawn_local(port.serve(listener));
            timeout(DEADLINE, test(address, path)).await.expect("the test takes too long");
        });
    }

    #[test]
    fn a_connection_waits_for_its_executor_and_goes_over_to_it_with_all_that_follows() {
        with_port(async |address, path| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let hello = handshake("long-enough?", WORKER);
            handshake::write(&mut stream, &hello, DEADLINE).await.unwrap();
            let mut stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"frames").unwrap();
            let mut connections = incoming(&path).unwrap();
            let (received, mut taken) = connections.recv().await.unwrap();
            assert_eq!(received, hello);
            let ours = tokio::task::spawn_blocking(move || {
                taken.set_nonblocking(false).unwrap();
                let mut frames = [0; 6];
                taken.read_exact(&mut frames).unwrap();
                assert_eq!(&frames, b"frames");
                taken.write_all(b"credit").unwrap();
            });
            ours.await.unwrap();
            let mut credit = Vec::new();
            stream.read_to_end(&mut credit).unwrap();
            assert_eq!(credit, b"credit");
        });
    }

    #[test]
    fn a_connection_whose_executor_does_not_come_is_to_be_tried_again_and_not_refused() {
        with_patient_port(Duration::ZERO, async |address, _path| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let hello = handshake("long-enough?", WORKER);
            handshake::write(&mut stream, &hello, DEADLINE).await.unwrap();
            let reply = handshake::read_reply(&mut stream, DEADLINE).await.unwrap();
            let HandshakeReply::NotYet(text) = reply else { panic!("{reply:?}") };
            assert!(text.contains("has come up there"), "{text}");
        });
    }

    #[test]
    fn a_wrong_token_and_another_worker_are_refused_with_the_reason() {
        with_port(async |address, path| {
            let _connections = incoming(&path).unwrap();
            for (hello, reason) in [
                (handshake("guessed", WORKER), "token"),
                (handshake("long-enough?", WorkerId(3)), "this is worker 2, not worker 3"),
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                handshake::write(&mut stream, &hello, DEADLINE).await.unwrap();
                let reply = handshake::read_reply(&mut stream, DEADLINE).await.unwrap();
                let HandshakeReply::Refused(text) = reply else { panic!("{hello:?} was accepted") };
                assert!(text.contains(reason), "{text}");
            }
        });
    }
}

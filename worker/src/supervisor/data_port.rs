//! The port at which executors of other workers reach those of this one. A connection is read up to its handshake, which says for
//! which job it is, and then handed over to that job's executor; no record passes through the worker.

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
/// How long it waits for its executor, which may be about to start.
const EXECUTOR_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that may wait for either.
const WAITING_MAX: usize = 4096;

/// The port.
pub struct DataPort {
    links: Rc<Links>,
    machine: Rc<RefCell<Machine>>,
    waiting: Arc<Semaphore>,
}

impl DataPort {
    /// A port that hands over to the executors of `links`.
    pub fn new(links: Rc<Links>, machine: Rc<RefCell<Machine>>) -> Self {
        DataPort { links, machine, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
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
        let handed = match handshake.check(&self.links.token) {
            Ok(()) => self.hand_over(&handshake, &stream).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &handed {
            let reply = HandshakeReply::Refused(error.to_string());
            handshake::write_reply(&mut stream, &reply, HANDSHAKE_DEADLINE).await?;
        }
        handed
    }

    /// Gives the connection to the executor, which answers the handshake.
    async fn hand_over(&self, handshake: &Handshake, stream: &TcpStream) -> Result<()> {
        let waited = timeout(EXECUTOR_DEADLINE, self.executor(handshake)).await;
        let (socket, worker) = waited.map_err(|_| {
            let seconds = EXECUTOR_DEADLINE.as_secs();
            let text = format!("no executor of job {} has come up here within {seconds} s", handshake.job);
            Error::new(ErrorKind::Io, text)
        })?;
        if worker != handshake.to {
            let text = format!("this is worker {}, not worker {}", worker.0, handshake.to.0);
            return Err(Error::new(ErrorKind::Io, text));
        }
        let message = to_bytes(handshake)?;
        let send = || fd_passing::send(socket.as_fd(), &message, stream.as_fd());
        let sent = timeout(HANDSHAKE_DEADLINE, socket.async_io(Interest::WRITABLE, send)).await;
        let sent = sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        sent.map_err(|error| {
            Error::io(format!("handing over to the executor of job {}", handshake.job), error)
        })
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

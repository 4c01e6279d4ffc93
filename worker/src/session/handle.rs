//! The worker's side of its session.

use std::time::Duration;

use flott_schema::answer::FilePart;
use flott_schema::control::ToCoordinator;
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::ids::WorkerId;
use flott_schema::job::ProgramDigest;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Why a session is over.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SessionEnd {
    /// It was told to stop.
    #[error("the session was stopped")]
    Stopped,
    /// No coordinator took the worker for too long.
    #[error("no coordinator took this worker within {waited_ms} ms; the last reason: {reason}")]
    NoCoordinator {
        /// How long was waited.
        waited_ms: u64,
        /// What the last attempt came to.
        reason: String,
    },
    /// A coordinator does not want this worker, and never had it.
    #[error("the coordinator at {address} refuses this worker: {reason}")]
    Refused {
        /// Its address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The orders are no longer read.
    #[error("the worker no longer reads its orders")]
    Deserted,
    /// A bug ended the thread of the session.
    #[error("the session's thread has ended unexpectedly")]
    Broken,
}

impl SessionEnd {
    /// The end in the form that crosses rooms.
    pub fn into_error(self) -> Error {
        let kind = match self {
            SessionEnd::Stopped => ErrorKind::Cancelled,
            SessionEnd::NoCoordinator { .. } => ErrorKind::Io,
            SessionEnd::Refused { .. } => ErrorKind::Configuration,
            SessionEnd::Deserted | SessionEnd::Broken => ErrorKind::Internal,
        };
        Error::from(self).with_kind(kind)
    }
}

/// What a session is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Looks for the coordinator that leads. What the worker runs goes on.
    Searching,
    /// Registered.
    Registered {
        /// The id that the cluster has given the worker. Another one than before means that the cluster had given the worker up;
        /// orders to end its former jobs are in the queue then.
        worker: WorkerId,
        /// Term of the leader.
        term: u64,
        /// `host:port` of its control port.
        leader: String,
    },
    /// It is over.
    Ended(SessionEnd),
}

/// A part of a program that the worker wants to read.
pub(super) struct ReadProgram {
    pub digest: ProgramDigest,
    pub offset: u64,
    pub length_max: u32,
    pub reply: oneshot::Sender<Result<FilePart>>,
}

/// Talks to a session. Cheap to clone; when all clones are gone, the session ends.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pub(super) reports: mpsc::Sender<Vec<ToCoordinator>>,
    pub(super) reads: mpsc::Sender<ReadProgram>,
    pub(super) state: watch::Receiver<SessionState>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) read_timeout_ms: u64,
}

impl SessionHandle {
    /// Reports what becomes of tasks. Their changes and last snapshots reach the cluster in the order of the calls, across any
    /// number of broken connections, unless the cluster gives the worker up; parts of a snapshot reach the leader that the worker
    /// has now or next, or none. Waits while too much is unsent.
    pub async fn report<T: Into<ToCoordinator>>(&self, reports: Vec<T>) -> Result<(), SessionEnd> {
        if reports.is_empty() {
            return Ok(());
        }
        // The queue may outlive the session's last word by a moment.
        if let SessionState::Ended(end) = &*self.state.borrow() {
            return Err(end.clone());
        }
        let reports = reports.into_iter().map(Into::into).collect();
        self.reports.send(reports).await.map_err(|_| self.end())
    }

    /// What the session is doing, now and later.
    pub fn watch(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// The id that the cluster has given the worker last; nothing while it is not registered.
    pub fn worker(&self) -> Option<WorkerId> {
        match &*self.state.borrow() {
            SessionState::Registered { worker, .. } => Some(*worker),
            _ => None,
        }
    }

    /// Waits until the worker is registered.
    pub async fn registered(&self) -> Result<WorkerId, SessionEnd> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                SessionState::Registered { worker, .. } => return Ok(*worker),
                SessionState::Ended(end) => return Err(end.clone()),
                SessionState::Searching => {}
            }
            if state.changed().await.is_err() {
                return Err(self.end());
            }
        }
    }

    /// Reads a part of a stored program from the cluster: at most `length_max` bytes from `offset`. Fails after a deadline,
    /// also while there is no connection.
    pub async fn read_program(
        &self,
        digest: ProgramDigest,
        offset: u64,
        length_max: u32,
    ) -> Result<FilePart> {
        let work = async {
            let (reply, answer) = oneshot::channel();
            let read = ReadProgram { digest, offset, length_max, reply };
            self.reads.send(read).await.map_err(|_| self.end().into_error())?;
            answer.await.map_err(|_| Error::new(ErrorKind::Io, "the connection to the coordinator broke"))?
        };
        timeout(Duration::from_millis(self.read_timeout_ms), work)
            .await
            .unwrap_or_else(|_| {
                let text = format!("no coordinator has answered within {} ms", self.read_timeout_ms);
                Err(Error::new(ErrorKind::Io, text))
            })
            .map_err(|error| error.at(format!("program {digest}")))
    }

    /// Ends the session. The cluster notices at once that the worker is gone.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end of the session.
    pub async fn ended(&self) -> SessionEnd {
        let mut state = self.state.clone();
        // An error means that the thread is gone; its last word counts.
        let _ = state.wait_for(|state| matches!(state, SessionState::Ended(_))).await;
        self.end()
    }

    fn end(&self) -> SessionEnd {
        match &*self.state.borrow() {
            SessionState::Ended(end) => end.clone(),
            _ => SessionEnd::Broken,
        }
    }
}

//! The way from the coordinator to its workers.
//!
//! The service knows the trait alone. Here is the link of the embedded cluster, whose workers live in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flott_schema::control::ToWorker;
use flott_schema::ids::WorkerId;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Why a message cannot reach a worker. The coordinator gives the worker up in each case.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// Nobody of that id is connected.
    #[error("worker {} is not connected", .0.0)]
    Unknown(WorkerId),
    /// It does not read its messages.
    #[error("worker {} has left {capacity} messages unread", .worker.0)]
    Full {
        /// The worker.
        worker: WorkerId,
        /// Messages its queue holds.
        capacity: usize,
    },
    /// It is gone.
    #[error("worker {} has hung up", .0.0)]
    Closed(WorkerId),
}

/// The part of a worker's queue that may be full before snapshots wait: one of so many.
const BEHIND_SHARE: usize = 16;

/// Whether a queue with so much room left is fuller than snapshots may make it.
pub(crate) fn is_behind(room: usize, capacity: usize) -> bool {
    capacity - room > capacity / BEHIND_SHARE
}

/// Carries messages to workers, in order for each worker.
pub trait WorkerLink {
    /// Hands over a message. It must not block: the link holds a bounded queue for each worker, and an error means that
    /// the worker is to be given up.
    fn send(&mut self, worker: WorkerId, message: ToWorker) -> Result<(), LinkError>;

    /// The coordinator has given the worker up: close the way to it. A worker that notices must stop its tasks; it may
    /// come back under a new id.
    fn forget(&mut self, worker: WorkerId);

    /// The return of the worker is applied next: it has said what it runs, so orders given to it before are void, and those that
    /// follow count. False: it is not connected any more, and has to be expected again.
    fn returned(&mut self, worker: WorkerId) -> bool {
        let _ = worker;
        true
    }

    /// Whether somebody watches over the worker's connection, and tells when it is lost.
    fn is_connected(&self, worker: WorkerId) -> bool {
        let _ = worker;
        false
    }

    /// Whether so many orders wait for the worker that no snapshot should begin on it: each is two orders more, and neither may be lost. The
    /// rest of its queue is for the orders that end things; those are no more than it has tasks and snapshots.
    fn is_behind(&self, worker: WorkerId) -> bool {
        let _ = worker;
        false
    }

    /// The coordinator leads from now on, in the given term, or (nothing) does no longer: orders carry the term, and who
    /// does not lead gives none, so its workers are to be sent to the leader. Called before the first order of a term.
    fn lead(&mut self, term: Option<u64>) {
        let _ = term;
    }
}

/// The link to workers in the same process: a bounded queue for each. Clones share the queues.
#[derive(Clone, Debug, Default)]
pub struct InMemoryLink {
    queues: Arc<Mutex<BTreeMap<WorkerId, mpsc::Sender<ToWorker>>>>,
}

impl InMemoryLink {
    /// A link without workers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a worker, to be called before it registers, and gives the queue it has to read. Of `capacity` messages
    /// left unread, or when the receiver is dropped, the worker counts as lost. The queue ends when the coordinator has
    /// given the worker up.
    pub fn attach(&self, worker: WorkerId, capacity: usize) -> mpsc::Receiver<ToWorker> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.lock().insert(worker, sender);
        receiver
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, mpsc::Sender<ToWorker>>> {
        // The map is whole at every moment, also where a holder of the lock panicked.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerLink for InMemoryLink {
    fn send(&mut self, worker: WorkerId, message: ToWorker) -> Result<(), LinkError> {
        let queues = self.lock();
        let queue = queues.get(&worker).ok_or(LinkError::Unknown(worker))?;
        queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => LinkError::Full { worker, capacity: queue.max_capacity() },
            TrySendError::Closed(_) => LinkError::Closed(worker),
        })
    }

    fn forget(&mut self, worker: WorkerId) {
        self.lock().remove(&worker);
    }

    fn is_behind(&self, worker: WorkerId) -> bool {
        self.lock().get(&worker).is_some_and(|queue| is_behind(queue.capacity(), queue.max_capacity()))
    }
}

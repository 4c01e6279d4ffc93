//! The way of orders to the workers that are registered at the control port.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_schema::control::{Order, ToWorker};
use flott_schema::ids::WorkerId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::link::{LinkError, WorkerLink, is_behind};

/// The link to workers in other processes: a bounded queue for each, which its session empties. Clones share the queues.
///
/// An order to a worker that is not connected is dropped: either its loss is on its way to the service, or it has not returned
/// to a new leader yet. Then it says what it runs when it does, and what it missed is settled by that; if it does not, the service
/// gives it up.
#[derive(Clone, Debug, Default)]
pub struct RpcLink {
    queues: Arc<Mutex<Queues>>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Of this coordinator, while it leads.
    term: Option<u64>,
    of: BTreeMap<WorkerId, Queue>,
    /// Counts the sessions, so that the end of an old one does no harm to a new one of the same worker.
    last_session: u64,
}

#[derive(Debug)]
struct Queue {
    session: u64,
    orders: mpsc::Sender<Order>,
    /// Its return has not been applied: orders of before are void, since it has said already what it runs.
    returning: bool,
    /// Dropped with the queue, which the session hears also while it waits for the worker to take an order.
    _connected: watch::Sender<()>,
}

/// A worker's end of the link.
#[derive(Debug)]
pub(super) struct Attached {
    /// Tells this session from others of the same worker.
    pub session: u64,
    /// The orders.
    pub orders: mpsc::Receiver<Order>,
    connected: watch::Receiver<()>,
}

impl Attached {
    /// Waits until the service has given the worker up, this coordinator leads no longer, or the worker has come by another
    /// connection.
    pub(super) async fn disconnected(connected: &mut watch::Receiver<()>) {
        // Nothing is ever sent.
        let _ = connected.changed().await;
    }

    /// The orders, and what [`Attached::disconnected`] wants.
    pub(super) fn split(self) -> (mpsc::Receiver<Order>, watch::Receiver<()>) {
        (self.orders, self.connected)
    }
}

impl RpcLink {
    /// A link without workers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a worker, before its registration or its return is committed. Nothing if this coordinator does not lead in that
    /// term.
    pub(super) fn attach(
        &self,
        worker: WorkerId,
        term: u64,
        capacity: usize,
        returning: bool,
    ) -> Option<Attached> {
        let mut queues = self.lock();
        if queues.term != Some(term) {
            return None;
        }
        let (sender, orders) = mpsc::channel(capacity.max(1));
        queues.last_session += 1;
        let session = queues.last_session;
        let (alive, connected) = watch::channel(());
        queues.of.insert(worker, Queue { session, orders: sender, returning, _connected: alive });
        Some(Attached { session, orders, connected })
    }

    /// Disconnects a worker, unless it has come by another connection since. True: it was connected by this one.
    pub(super) fn detach(&self, worker: WorkerId, session: u64) -> bool {
        let mut queues = self.lock();
        match queues.of.get(&worker) {
            Some(queue) if queue.session == session => queues.of.remove(&worker).is_some(),
            _ => false,
        }
    }

    /// The term in which this coordinator leads.
    pub(super) fn term(&self) -> Option<u64> {
        self.lock().term
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // The queues are whole at every moment, also where a holder of the lock panicked.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerLink for RpcLink {
    fn send(&mut self, worker: WorkerId, message: ToWorker) -> Result<(), LinkError> {
        let queues = self.lock();
        let (Some(term), Some(queue)) = (queues.term, queues.of.get(&worker)) else {
            tracing::debug!(worker = worker.0, "an order is dropped: the worker is not connected");
            return Ok(());
        };
        if queue.returning {
            return Ok(());
        }
        queue.orders.try_send(Order { term, message }).map_err(|error| match error {
            TrySendError::Full(_) => LinkError::Full { worker, capacity: queue.orders.max_capacity() },
            TrySendError::Closed(_) => LinkError::Closed(worker),
        })
    }

    fn forget(&mut self, worker: WorkerId) {
        self.lock().of.remove(&worker);
    }

    fn returned(&mut self, worker: WorkerId) -> bool {
        match self.lock().of.get_mut(&worker) {
            Some(queue) => {
                queue.returning = false;
                true
            }
            None => false,
        }
    }

    fn is_connected(&self, worker: WorkerId) -> bool {
        self.lock().of.contains_key(&worker)
    }

    fn is_behind(&self, worker: WorkerId) -> bool {
        let queues = self.lock();
        queues
            .of
            .get(&worker)
            .is_some_and(|queue| is_behind(queue.orders.capacity(), queue.orders.max_capacity()))
    }

    fn lead(&mut self, term: Option<u64>) {
        let mut queues = self.lock();
        queues.term = term;
        // Every worker has to register with the leader of the new term.
        queues.of.clear();
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::JobId;

    use super::*;

    const WORKER: WorkerId = WorkerId(7);

    fn release(job: u128) -> ToWorker {
        ToWorker::Release { job: JobId(job) }
    }

    fn leading() -> RpcLink {
        let mut link = RpcLink::new();
        link.lead(Some(3));
        link
    }

    #[test]
    fn orders_carry_the_term_and_come_in_order() {
        let mut link = leading();
        let mut attached = link.attach(WORKER, 3, 8, false).unwrap();
        link.send(WORKER, release(1)).unwrap();
        link.send(WORKER, release(2)).unwrap();
        assert_eq!(attached.orders.try_recv(), Ok(Order { term: 3, message: release(1) }));
        assert_eq!(attached.orders.try_recv(), Ok(Order { term: 3, message: release(2) }));
    }

    #[test]
    fn a_worker_that_leaves_its_orders_unread_or_has_hung_up_is_to_be_given_up() {
        let mut link = leading();
        let attached = link.attach(WORKER, 3, 2, false).unwrap();
        link.send(WORKER, release(1)).unwrap();
        link.send(WORKER, release(2)).unwrap();
        assert_eq!(link.send(WORKER, release(3)), Err(LinkError::Full { worker: WORKER, capacity: 2 }));
        drop(attached);
        assert_eq!(link.send(WORKER, release(3)), Err(LinkError::Closed(WORKER)));
    }

    #[test]
    fn a_worker_is_behind_long_before_its_queue_is_full() {
        let mut link = leading();
        let mut attached = link.attach(WORKER, 3, 32, false).unwrap();
        for job in 1..=2 {
            link.send(WORKER, release(job)).unwrap();
            assert!(!link.is_behind(WORKER));
        }
        link.send(WORKER, release(3)).unwrap();
        assert!(link.is_behind(WORKER));
        attached.orders.try_recv().unwrap();
        assert!(!link.is_behind(WORKER) && !link.is_behind(WorkerId(8)));
    }

    #[test]
    fn an_order_to_a_worker_that_is_not_connected_is_dropped() {
        let mut link = leading();
        link.send(WORKER, release(1)).unwrap();
        let mut attached = link.attach(WORKER, 3, 2, false).unwrap();
        assert!(attached.orders.try_recv().is_err());
    }

    #[test]
    fn nobody_is_connected_to_a_coordinator_that_does_not_lead_in_that_term() {
        let mut link = leading();
        assert!(link.attach(WORKER, 2, 2, false).is_none());
        let mut attached = link.attach(WORKER, 3, 2, false).unwrap();
        link.lead(Some(5));
        assert_eq!(attached.orders.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        link.lead(None);
        assert!(link.attach(WORKER, 5, 2, false).is_none());
    }

    #[test]
    fn the_end_of_an_old_connection_does_not_disconnect_a_new_one() {
        let mut link = leading();
        let old = link.attach(WORKER, 3, 2, false).unwrap();
        let mut new = link.attach(WORKER, 3, 2, false).unwrap();
        assert!(!link.detach(WORKER, old.session));
        link.send(WORKER, release(1)).unwrap();
        assert!(new.orders.try_recv().is_ok());
        assert!(link.detach(WORKER, new.session));
    }

    #[test]
    fn orders_given_before_a_return_is_applied_are_void() {
        let mut link = leading();
        let mut attached = link.attach(WORKER, 3, 2, true).unwrap();
        link.send(WORKER, release(1)).unwrap();
        assert!(link.returned(WORKER));
        link.send(WORKER, release(2)).unwrap();
        assert_eq!(attached.orders.try_recv(), Ok(Order { term: 3, message: release(2) }));
    }
}

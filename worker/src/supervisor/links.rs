//! What the parts of a supervisor know of each other's executors. All of them run on one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use flott_schema::control::Order;
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::security::Token;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};

use crate::supervisor::machine::{Event, ExecutorNumber};
use crate::supervisor::statistics::Statistics;

/// A process that was started as an executor.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its number.
    pub executor: ExecutorNumber,
    /// Its job.
    pub job: JobId,
    /// This worker, as the cluster names it.
    pub worker: WorkerId,
}

/// The executors by what they are reached by.
pub struct Links {
    /// Where incidents are told.
    pub events: mpsc::Sender<Event>,
    /// The shared secret.
    pub token: Token,
    /// What executors say of their tasks.
    pub statistics: Statistics,
    /// How long an executor may say nothing.
    pub silence_max: Duration,
    /// By process id.
    processes: RefCell<HashMap<u32, Known>>,
    orders: RefCell<HashMap<ExecutorNumber, mpsc::Sender<Order>>>,
    data: RefCell<HashMap<ExecutorNumber, (Rc<UnixStream>, WorkerId)>>,
    data_changed: Notify,
}

impl Links {
    /// Without executors.
    pub fn new(
        events: mpsc::Sender<Event>,
        token: Token,
        statistics: Statistics,
        silence_max: Duration,
    ) -> Rc<Self> {
        Rc::new(Links {
            events,
            token,
            statistics,
            silence_max,
            processes: RefCell::default(),
            orders: RefCell::default(),
            data: RefCell::default(),
            data_changed: Notify::new(),
        })
    }

    /// A process was started.
    pub fn add_process(&self, id: u32, known: Known) {
        self.processes.borrow_mut().insert(id, known);
    }

    /// The executor that this process is.
    pub fn process(&self, id: Option<i32>) -> Option<Known> {
        let id = u32::try_from(id?).ok()?;
        self.processes.borrow().get(&id).copied()
    }

    /// The processes of executors, with their jobs.
    pub fn processes(&self) -> Vec<(u32, JobId)> {
        self.processes.borrow().iter().map(|(id, known)| (*id, known.job)).collect()
    }

    /// The executor takes orders here. False if it has done so before.
    pub fn connect(&self, executor: ExecutorNumber, orders: mpsc::Sender<Order>) -> bool {
        self.orders.borrow_mut().insert(executor, orders).is_none()
    }

    /// Hands an order on. False if the executor takes none.
    pub fn order(&self, executor: ExecutorNumber, order: Order) -> bool {
        self.orders.borrow().get(&executor).is_some_and(|orders| orders.try_send(order).is_ok())
    }

    /// The executor takes connections here.
    pub fn connect_data(&self, known: Known, socket: UnixStream) {
        self.data.borrow_mut().insert(known.executor, (Rc::new(socket), known.worker));
        self.data_changed.notify_waiters();
    }

    /// Where an executor takes connections, and the worker's id that it has been told.
    pub fn data(&self, executor: ExecutorNumber) -> Option<(Rc<UnixStream>, WorkerId)> {
        self.data.borrow().get(&executor).cloned()
    }

    /// Wakes when another executor takes connections.
    pub fn data_changed(&self) -> &Notify {
        &self.data_changed
    }

    /// The executor is gone.
    pub fn forget(&self, executor: ExecutorNumber) {
        self.processes.borrow_mut().retain(|_, known| known.executor != executor);
        self.orders.borrow_mut().remove(&executor);
        self.data.borrow_mut().remove(&executor);
        self.statistics.forget(executor);
    }
}

//! The thread of a session: search, registration, service of the connection, and again.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flott_schema::control::{Order, ToCoordinator};
use flott_schema::error::{Error, Result};
use flott_schema::ids::WorkerId;
use flott_schema::security::Token;
use flott_schema::stats::WorkerProfile;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::answers::{Answers, Shared};
use super::book::Book;
use super::connect::{Introduction, Miss, Registered, register};
use super::connected::{Served, serve};
use super::handle::{ReadProgram, SessionEnd, SessionHandle, SessionState};
use super::search::Search;
use super::side::WorkerSide;

/// Parts of programs that may be asked for at the same time.
const READS_CAPACITY: usize = 16;

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of the coordinators' control ports; any that can be reached names the one that leads.
    pub addresses: Vec<String>,
    /// The secret of the cluster.
    pub token: Token,
    /// What the worker offers.
    pub profile: WorkerProfile,
    /// How long the session looks for a coordinator before it ends (`worker.registration.timeout`).
    pub registration_timeout_ms: u64,
    /// How long one attempt to register may take, and one read of a program.
    pub attempt_timeout_ms: u64,
    /// Orders that may wait for the worker.
    pub orders_capacity: usize,
    /// Calls of [`SessionHandle::report`] that may wait to be sent; further callers wait for room.
    pub reports_capacity: usize,
}

impl Options {
    /// Options for these addresses, and for the rest what suits most clusters.
    pub fn new(addresses: Vec<String>, token: Token, profile: WorkerProfile) -> Self {
        Options {
            addresses,
            token,
            profile,
            registration_timeout_ms: 300_000,
            attempt_timeout_ms: 10_000,
            orders_capacity: 256,
            reports_capacity: 1_024,
        }
    }
}

/// Starts a session on a thread of its own. Gives the handle, and the orders of the coordinators that led, in order; the orders
/// end with the session.
pub fn start(options: Options, side: Arc<dyn WorkerSide>) -> Result<(SessionHandle, mpsc::Receiver<Order>)> {
    if options.addresses.is_empty() {
        return Err(Error::configuration("a worker needs the address of a coordinator; none is given"));
    }
    let (order_sender, orders) = mpsc::channel(options.orders_capacity.max(1));
    let (report_sender, reports) = mpsc::channel(options.reports_capacity.max(1));
    let (read_sender, reads) = mpsc::channel(READS_CAPACITY);
    let (state, watched) = watch::channel(SessionState::Searching);
    let (stop, stopped) = watch::channel(false);
    let handle = SessionHandle {
        reports: report_sender,
        reads: read_sender,
        state: watched,
        stop,
        read_timeout_ms: options.attempt_timeout_ms,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("the runtime of the worker's session", error))?;
    let body = move || {
        let search = Search::new(options.addresses.clone());
        let shared = Rc::new(Shared {
            book: RefCell::new(Book::default()),
            term: Cell::new(0),
            orders: order_sender,
            side,
        });
        let queues = Queues { reports, reads, stopped };
        let mut session = Session { options, search, shared, queues, state, worker: None };
        let end = LocalSet::new().block_on(&runtime, session.run());
        tracing::info!(reason = %end, "session with the cluster ended");
        session.state.send_replace(SessionState::Ended(end));
        // A log file that is being read must not hold up the end.
        runtime.shutdown_background();
    };
    std::thread::Builder::new()
        .name("flott-session".into())
        .spawn(body)
        .map_err(|error| Error::io("the thread of the worker's session", error))?;
    Ok((handle, orders))
}

/// What the rest of the worker wants of the session.
pub(super) struct Queues {
    pub reports: mpsc::Receiver<Vec<ToCoordinator>>,
    pub reads: mpsc::Receiver<ReadProgram>,
    pub stopped: watch::Receiver<bool>,
}

impl Queues {
    /// Waits until the session has to stop: it was told to, or nobody holds its handle any more.
    pub(super) async fn stop(stopped: &mut watch::Receiver<bool>) {
        // An error means that all handles are gone.
        let _ = stopped.wait_for(|stop| *stop).await;
    }
}

struct Session {
    options: Options,
    search: Search,
    shared: Rc<Shared>,
    queues: Queues,
    state: watch::Sender<SessionState>,
    /// The id that the cluster gave last.
    worker: Option<WorkerId>,
}

impl Session {
    async fn run(&mut self) -> SessionEnd {
        let mut searching_since = Instant::now();
        loop {
            let address = self.search.address();
            let mut stopped = self.queues.stopped.clone();
            let orders = self.shared.orders.clone();
            let reason = tokio::select! {
                biased;
                () = Queues::stop(&mut stopped) => return SessionEnd::Stopped,
                () = orders.closed() => return SessionEnd::Deserted,
                attempt = self.attempt(&address) => match attempt {
                    Ok((registered, gate)) => {
                        match self.serve(&address, registered, gate).await {
                            Served::Over(end) => return end,
                            Served::Broken(reason) => {
                                self.search.left(&address);
                                searching_since = Instant::now();
                                reason
                            }
                        }
                    }
                    Err(Miss::NotLeader(leader)) => {
                        if self.search.follow(&leader) {
                            continue;
                        }
                        "it does not lead, and knows no leader".to_string()
                    }
                    Err(Miss::Refused(reason)) if self.worker.is_none() => {
                        return SessionEnd::Refused { address, reason };
                    }
                    Err(Miss::Refused(reason) | Miss::Later(reason)) => reason,
                },
            };
            if self.search.is_news(&address, &reason) {
                tracing::warn!(address, reason, "not registered; looking for the coordinator that leads");
            }
            let waited_ms = searching_since.elapsed().as_millis() as u64;
            if waited_ms >= self.options.registration_timeout_ms {
                return SessionEnd::NoCoordinator { waited_ms, reason };
            }
            let left_ms = self.options.registration_timeout_ms - waited_ms;
            let delay_ms = self.search.delay_ms(RandomState::new().hash_one(())).min(left_ms);
            tokio::select! {
                biased;
                () = Queues::stop(&mut stopped) => return SessionEnd::Stopped,
                () = orders.closed() => return SessionEnd::Deserted,
                () = sleep(Duration::from_millis(delay_ms)) => {}
            }
        }
    }

    /// One attempt to register. Gives the gate too, behind which orders wait.
    async fn attempt(&self, address: &str) -> std::result::Result<(Registered, watch::Sender<bool>), Miss> {
        let (gate, open) = watch::channel(false);
        let answers = Rc::new(Answers::new(self.shared.clone(), open));
        let tasks = self.shared.book.borrow().running();
        let introduction = Introduction {
            token: &self.options.token,
            profile: &self.options.profile,
            previous: self.worker,
            tasks: &tasks,
        };
        let deadline = Duration::from_millis(self.options.attempt_timeout_ms);
        let registered = register(address, introduction, answers, deadline).await?;
        let seen = self.shared.term.get();
        if registered.term < seen {
            let term = registered.term;
            return Err(Miss::Later(format!("it leads in term {term}, but term {seen} has begun")));
        }
        Ok((registered, gate))
    }

    /// A registered worker, until the connection breaks.
    async fn serve(
        &mut self,
        address: &str,
        mut registered: Registered,
        gate: watch::Sender<bool>,
    ) -> Served {
        let (worker, term) = (registered.worker, registered.term);
        self.search.found(address);
        self.shared.term.set(term);
        if self.worker != Some(worker) {
            let orders = self.shared.book.borrow_mut().start_anew(term);
            if let Some(former) = self.worker {
                tracing::warn!(
                    former = former.0,
                    worker = worker.0,
                    "the cluster had given this worker up; its tasks are ended"
                );
            }
            self.worker = Some(worker);
            for order in orders {
                if self.shared.orders.send(order).await.is_err() {
                    return Served::Over(SessionEnd::Deserted);
                }
            }
        }
        registered.heartbeat_timeout = patience(registered.heartbeat_timeout, self.options.addresses.len());
        tracing::info!(worker = worker.0, term, address, "registered");
        self.state.send_replace(SessionState::Registered { worker, term, leader: address.to_string() });
        gate.send_replace(true);
        let served = serve(&self.shared, &mut self.queues, registered).await;
        // Nothing of the old connection may come through any more.
        gate.send_replace(false);
        self.shared.book.borrow_mut().connection_lost();
        self.state.send_replace(SessionState::Searching);
        served
    }
}

/// How long a coordinator may leave a call unanswered. In a group the worker must have looked for the next leader before that one
/// gives it up, one heartbeat timeout after its election. A coordinator that is alone may sleep for a while: there is nobody else.
fn patience(heartbeat_timeout: Duration, coordinators: usize) -> Duration {
    if coordinators > 1 { heartbeat_timeout / 3 } else { heartbeat_timeout * 3 }
}

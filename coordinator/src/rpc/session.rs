//! A registered worker: its registration, the orders to it, its heartbeats and reports.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use capnp_rpc::new_client_from_rc;
use flott_schema::control::{
    Order, Report, RunningTask, SnapshotReport, TaskReport, ToCoordinator, ToWorker,
};
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::stats::{WorkerProfile, WorkerStats};
use flott_schema::wire::Wire;
use flott_schema::wire::fields::{list, required};
use flott_schema::wire::generated::control_capnp::{worker, worker_session};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cluster::failed;
use super::connection::Caller;
use super::link::Attached;
use super::server::Server;
use crate::journal::{LeaderAddresses, Role};
use crate::machine::ClusterState;
use crate::service::CoordinatorError;

/// How often a new worker is offered another id when two leaders have given the same one.
const REGISTRATIONS_MAX: usize = 3;

/// Pause before something is tried again for which the service had no time.
const RETRY_PAUSE_MS: u64 = 50;

/// How long after the deadline of its silence a worker may still be heard.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// What a worker applies with.
pub(super) struct Application {
    pub profile: WorkerProfile,
    pub previous: Option<WorkerId>,
    pub tasks: Vec<RunningTask>,
    pub client: worker::Client,
}

/// What comes of it.
pub(super) enum Admission {
    Accepted { worker: WorkerId, term: u64, session: worker_session::Client },
    NotLeader(String),
    Refused(String),
}

/// A registered worker.
pub(super) struct Session {
    server: Rc<Server>,
    worker: WorkerId,
    number: u64,
    term: u64,
    /// The worker itself.
    pub client: worker::Client,
    /// When it was heard of last.
    heard: Cell<Instant>,
    over: Cell<bool>,
}

/// Registers a worker, or takes it back under the id it had.
pub(super) async fn admit(
    server: Rc<Server>,
    caller: Rc<Caller>,
    application: Application,
) -> Result<Admission, CoordinatorError> {
    let term = match server.handle.role() {
        Role::Leader { term } => term,
        Role::Follower { leader } => return Ok(Admission::NotLeader(control_address(leader))),
    };
    let Application { profile, previous, tasks, client } = application;
    // An id is given back to the worker that had it alone: a coordinator that has lost its memory gives the same ones again.
    let previous = match previous {
        Some(worker) if !had_id(&server, worker, &profile.name).await? => None,
        previous => previous,
    };
    if let Some(worker) = previous {
        let Some(attached) = server.link.attach(worker, term, server.options.orders_capacity, true) else {
            return Ok(Admission::NotLeader(String::new()));
        };
        match server.handle.worker_returned(worker, tasks).await {
            Ok(()) => return Ok(open(server, caller, worker, term, client, attached)),
            // The cluster has given it up: it is as good as new.
            Err(CoordinatorError::RefusedWorker { .. }) => drop(server.link.detach(worker, attached.session)),
            Err(error) => {
                // Its former session has ended without a word, and its return may be committed: somebody has to watch it.
                if server.link.detach(worker, attached.session) {
                    expect(&server, worker, term).await;
                }
                return not_taken(error);
            }
        }
    }
    let mut refusal = String::new();
    for _ in 0..REGISTRATIONS_MAX {
        let worker = match server.handle.new_worker_id().await {
            Ok(worker) => worker,
            Err(error) => return not_taken(error),
        };
        let Some(attached) = server.link.attach(worker, term, server.options.orders_capacity, false) else {
            return Ok(Admission::NotLeader(String::new()));
        };
        match server.handle.register_worker(worker, profile.clone()).await {
            Ok(()) => return Ok(open(server, caller, worker, term, client, attached)),
            Err(CoordinatorError::RefusedWorker { reason, .. }) => {
                server.link.detach(worker, attached.session);
                refusal = reason;
            }
            Err(error) => {
                // It may have been committed: nobody is there under this id.
                if server.link.detach(worker, attached.session) {
                    give_up(&server, worker, term).await;
                }
                return not_taken(error);
            }
        }
    }
    Ok(Admission::Refused(refusal))
}

/// Whether the cluster knows a worker of this id, and by this name.
async fn had_id(server: &Server, worker: WorkerId, name: &str) -> Result<bool, CoordinatorError> {
    let name = name.to_string();
    let question = move |state: &ClusterState| {
        state.workers().get(&worker).is_some_and(|record| record.profile().name == name)
    };
    server.handle.read("the worker of an id", question).await
}

fn not_taken(error: CoordinatorError) -> Result<Admission, CoordinatorError> {
    match error {
        CoordinatorError::NotLeader { leader } => Ok(Admission::NotLeader(control_address(leader))),
        other => Err(other),
    }
}

fn control_address(leader: Option<LeaderAddresses>) -> String {
    leader.map(|leader| leader.control).unwrap_or_default()
}

/// Opens the session of a worker whose registration or return is committed.
fn open(
    server: Rc<Server>,
    caller: Rc<Caller>,
    worker: WorkerId,
    term: u64,
    client: worker::Client,
    attached: Attached,
) -> Admission {
    tracing::info!(worker = worker.0, term, peer = %caller.peer, "worker registered");
    let session = Rc::new(Session {
        server: server.clone(),
        worker,
        number: attached.session,
        term,
        client,
        heard: Cell::new(Instant::now()),
        over: Cell::new(false),
    });
    if let Some(former) = server.sessions.borrow_mut().insert(worker, session.clone()) {
        former.over.set(true);
    }
    let object = new_client_from_rc(session.clone());
    spawn_local(session.run(caller, attached));
    Admission::Accepted { worker, term, session: object }
}

/// Has the loss of a worker noted, for as long as this coordinator leads: who leads next finds out by itself.
async fn give_up(server: &Server, worker: WorkerId, term: u64) {
    while server.link.term() == Some(term) {
        match server.handle.worker_lost(worker).await {
            Ok(()) | Err(CoordinatorError::Stopped) => return,
            Err(error) => {
                tracing::warn!(worker = worker.0, %error, "the loss of a worker could not be told yet")
            }
        }
        sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
    }
}

/// Has a worker that is not connected expected back, for as long as this coordinator leads.
async fn expect(server: &Server, worker: WorkerId, term: u64) {
    while server.link.term() == Some(term) {
        match server.handle.expect_worker(worker).await {
            Ok(()) | Err(CoordinatorError::Stopped) => return,
            Err(error) => tracing::warn!(worker = worker.0, %error, "a worker could not be expected yet"),
        }
        sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
    }
}

impl Session {
    /// Gives orders until the session is over, one after the other: the next one when the worker has taken the last.
    async fn run(self: Rc<Self>, caller: Rc<Caller>, attached: Attached) {
        let (mut orders, mut connected) = attached.split();
        let silence_max = Duration::from_millis(self.server.options.heartbeat_timeout_ms);
        // Set when the worker was silent for too long: what it has said meanwhile may wait to be read, as after a pause of
        // this process itself.
        let mut last_chance: Option<Instant> = None;
        let lost = loop {
            tokio::select! {
                biased;
                () = caller.ended() => break Some("its connection broke".to_string()),
                () = Attached::disconnected(&mut connected) => break None,
                () = sleep_until(last_chance.unwrap_or(self.heard.get() + silence_max)) => {
                    let silent = self.heard.get().elapsed() >= silence_max;
                    last_chance = match last_chance {
                        _ if !silent => None,
                        None => Some(Instant::now() + LAST_CHANCE),
                        Some(_) => break Some(format!("it was silent for {} ms", silence_max.as_millis())),
                    };
                }
                order = orders.recv() => match order {
                    None => break None,
                    Some(order) => {
                        let given = tokio::select! {
                            biased;
                            () = caller.ended() => Err("its connection broke".to_string()),
                            () = Attached::disconnected(&mut connected) => break None,
                            given = self.give(order, silence_max) => given,
                        };
                        if let Err(reason) = given {
                            break Some(reason);
                        }
                    }
                },
            }
        };
        self.close(&caller, lost).await;
    }

    async fn give(&self, order: Order, deadline: Duration) -> Result<(), String> {
        // One that need not be taken: a worker of the version before does not know it.
        let is_advice = matches!(order.message, ToWorker::Prepare(_));
        let mut request = self.client.order_request();
        order.write(request.get().init_order()).map_err(|error| error.to_string())?;
        drop(order);
        match timeout(deadline, request.send().promise).await {
            Ok(Ok(_)) => {
                self.heard.set(Instant::now());
                Ok(())
            }
            Ok(Err(error)) if is_advice && error.kind != capnp::ErrorKind::Disconnected => {
                tracing::debug!(worker = self.worker.0, %error, "it does not make ready for what is to come");
                Ok(())
            }
            Ok(Err(error)) => Err(format!("it did not take an order: {error}")),
            Err(_) => Err(format!("it took no order for {} ms", deadline.as_millis())),
        }
    }

    async fn close(&self, caller: &Caller, lost: Option<String>) {
        self.over.set(true);
        self.leave();
        let was_connected = self.server.link.detach(self.worker, self.number);
        if !caller.has_ended() {
            caller.close();
        }
        if let (Some(reason), true) = (lost, was_connected) {
            tracing::warn!(worker = self.worker.0, reason, "worker lost");
            give_up(&self.server, self.worker, self.term).await;
        }
    }

    /// Leaves the table of sessions, unless a new one of the same worker has taken the place.
    fn leave(&self) {
        let mut sessions = self.server.sessions.borrow_mut();
        if sessions.get(&self.worker).is_some_and(|current| current.number == self.number) {
            sessions.remove(&self.worker);
            self.server.stats.forget(self.worker);
        }
    }

    fn check(&self) -> capnp::Result<()> {
        if self.over.get() {
            return Err(capnp::Error::disconnected("this session is over".into()));
        }
        self.heard.set(Instant::now());
        Ok(())
    }

    /// Returns when the service has taken the messages in, and committed those that are events. A service that is behind is waited
    /// for; the worker has a deadline of its own.
    async fn deliver(&self, messages: Vec<ToCoordinator>) -> capnp::Result<()> {
        loop {
            match self.server.handle.worker_reports(messages.clone()).await {
                Ok(()) => return self.check(),
                Err(CoordinatorError::Busy { .. } | CoordinatorError::Timeout { .. }) => self.check()?,
                Err(error) => return Err(capnp::Error::disconnected(error.to_string())),
            }
            sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
        }
    }
}

impl worker_session::Server for Session {
    async fn heartbeat(
        self: Rc<Self>,
        params: worker_session::HeartbeatParams,
        _: worker_session::HeartbeatResults,
    ) -> capnp::Result<()> {
        self.check()?;
        let form = params.get()?;
        let stats: WorkerStats = required("stats", form.has_stats(), form.get_stats()).map_err(failed)?;
        self.server.stats.note(self.worker, stats, (self.server.options.now_ms)());
        Ok(())
    }

    async fn report(
        self: Rc<Self>,
        params: worker_session::ReportParams,
        _: worker_session::ReportResults,
    ) -> capnp::Result<()> {
        self.check()?;
        let messages = {
            let form = params.get()?;
            let reports: Vec<TaskReport> = list("reports", form.get_reports()).map_err(failed)?;
            let mixed: Vec<Report> = list("mixed", form.get_mixed()).map_err(failed)?;
            let reports = reports.into_iter().map(Report::Task);
            reports.chain(mixed).map(ToCoordinator::from).collect()
        };
        self.deliver(messages).await
    }

    async fn snapshots(
        self: Rc<Self>,
        params: worker_session::SnapshotsParams,
        _: worker_session::SnapshotsResults,
    ) -> capnp::Result<()> {
        self.check()?;
        let parts: Vec<SnapshotReport> = list("reports", params.get()?.get_reports()).map_err(failed)?;
        let messages = parts.into_iter().map(|part| ToCoordinator::Snapshot(Box::new(part))).collect();
        self.deliver(messages).await
    }

    async fn snapshots_wanted(
        self: Rc<Self>,
        params: worker_session::SnapshotsWantedParams,
        _: worker_session::SnapshotsWantedResults,
    ) -> capnp::Result<()> {
        self.check()?;
        let tasks: Vec<(JobId, AttemptId)> = list("tasks", params.get()?.get_tasks()).map_err(failed)?;
        let wanted = |(job, attempt)| ToCoordinator::SnapshotWanted { job, attempt };
        self.deliver(tasks.into_iter().map(wanted).collect()).await
    }
}

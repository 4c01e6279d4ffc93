//! The loop of a supervisor: orders and incidents go into the machine, what it decides is done here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use flott_schema::control::{Order, ToCoordinator, ToWorker};
use flott_schema::error::ErrorKind;
use flott_schema::job::ProgramRef;
use flott_schema::security::Token;
use flott_schema::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::executor::environment::{Environment, RuntimeOptions, VARIABLE};
use crate::leftovers;
use crate::supervisor::child::{self, Process, Start, describe};
use crate::supervisor::clients::Clients;
use crate::supervisor::control_socket;
use crate::supervisor::data_port::{self, DataPort};
use crate::supervisor::limits::{ExecutorLimit, Limits};
use crate::supervisor::links::{Known, Links};
use crate::supervisor::machine::{Action, Deadlines, Event, ExecutorNumber, Machine};
use crate::supervisor::old_logs::remove_old;
use crate::supervisor::program_cache::{ProgramCache, ProgramSource};
use crate::supervisor::rotate::Rotation;
use crate::supervisor::statistics::{Statistics, usage};

/// Incidents that may wait for the loop.
const EVENTS_MAX: usize = 1024;
/// How the name of a worker's own folder begins.
const FOLDER_PREFIX: &str = "flott-worker-";
/// How often it is looked up what processes use.
const USAGE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after their killing the executors of a worker that stops are waited for.
const LAST_END: Duration = Duration::from_secs(3);

/// What a supervisor is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the task runtimes of its executors.
    pub runtime: RuntimeOptions,
    /// Memory that a slot's share of an executor may take; 0: not limited.
    pub slot_memory_bytes: u64,
    /// Folder of the executors' log files.
    pub logs: PathBuf,
    /// How large they grow.
    pub rotation: Rotation,
    /// Jobs of which log files are kept, and clients.
    pub jobs_logged_max: usize,
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Bytes that programs may take there which no executor uses.
    pub programs_bytes_max: u64,
    /// How long the fetch of a program waits for a coordinator that gives more of it.
    pub program_patience_ms: u64,
    /// The shared secret of the cluster.
    pub token: Token,
    /// How long executors may take.
    pub deadlines: Deadlines,
}

/// The service. It has to run on a thread that lives as long as the process, in a `LocalSet`.
pub struct Supervisor {
    inner: Rc<Inner>,
    events: mpsc::Receiver<Event>,
    executors: HashMap<ExecutorNumber, Held>,
    /// Reports that wait for room in the queue to the coordinator.
    reports: Vec<ToCoordinator>,
    last_term: u64,
    listeners: Vec<JoinHandle<()>>,
}

/// What the tasks of the service share.
struct Inner {
    options: Options,
    machine: Rc<RefCell<Machine>>,
    links: Rc<Links>,
    programs: Rc<ProgramCache>,
    source: Rc<dyn ProgramSource>,
    limits: Limits,
    sizes: RefCell<BTreeMap<ExecutorNumber, Size>>,
    /// Holds the sockets; it goes with the service.
    folder: tempfile::TempDir,
    /// Tells other workers that the folder is used.
    _held: leftovers::Held,
}

/// How large an executor may become.
struct Size {
    slots: u32,
    limit: Option<ExecutorLimit>,
    process: Option<Rc<Process>>,
}

/// An executor that has not been forgotten.
struct Held {
    /// Gives its start up, where its process does not run yet.
    give_up: Option<oneshot::Sender<()>>,
    fate: Rc<Fate>,
    timers: Vec<JoinHandle<()>>,
}

/// Whether an executor is to be killed, and how.
#[derive(Default)]
struct Fate {
    killed: Cell<bool>,
    process: RefCell<Option<Rc<Process>>>,
}

impl Fate {
    fn kill(&self) {
        self.killed.set(true);
        if let Some(process) = &*self.process.borrow() {
            process.kill();
        }
    }

    /// The process runs: it is killed now if it was to be before.
    fn runs(&self, process: Rc<Process>) {
        if self.killed.get() {
            process.kill();
        }
        *self.process.borrow_mut() = Some(process);
    }
}

impl Supervisor {
    /// A supervisor whose executors can be reached at `data_port`. Must be called inside a `LocalSet`.
    pub fn start(
        options: Options,
        source: Rc<dyn ProgramSource>,
        data_port: TcpListener,
        statistics: Statistics,
    ) -> Result<Self> {
        for folder in [&options.logs, &options.runtime.scratch] {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
        }
        let scratch = &options.runtime.scratch;
        leftovers::sweep(scratch, FOLDER_PREFIX);
        // Only the owner may enter the folder, and with it reach the sockets.
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(scratch);
        let folder = folder.map_err(|error| Error::io(scratch.display(), error))?;
        let held = leftovers::hold(folder.path())?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let links = Links::new(
            sender,
            options.token.clone(),
            statistics,
            Duration::from_millis(options.deadlines.silence_ms),
        );
        let machine = Rc::new(RefCell::new(Machine::new(options.deadlines)));
        let control = control_socket::listen(&folder.path().join("control"))?;
        let data = control_socket::listen(&folder.path().join("data"))?;
        let port = DataPort::new(links.clone(), machine.clone());
        let listeners = vec![
            spawn_local(control_socket::serve(control, links.clone())),
            spawn_local(data_port::serve_executors(data, links.clone())),
            spawn_local(port.serve(data_port)),
        ];
        let inner = Inner {
            programs: ProgramCache::open(
                options.programs.clone(),
                options.programs_bytes_max,
                Duration::from_millis(options.program_patience_ms),
            )?,
            limits: Limits::detect(options.slot_memory_bytes),
            options,
            machine,
            links,
            source,
            sizes: RefCell::default(),
            folder,
            _held: held,
        };
        Ok(Supervisor {
            inner: Rc::new(inner),
            events,
            executors: HashMap::new(),
            reports: Vec::new(),
            last_term: 0,
            listeners,
        })
    }

    /// What runs programs as clients, beside the executors.
    pub fn clients(&self) -> Clients {
        let Options { logs, rotation, jobs_logged_max, token, .. } = &self.inner.options;
        Clients {
            programs: self.inner.programs.clone(),
            source: self.inner.source.clone(),
            folder: self.inner.folder.path().to_path_buf(),
            logs: logs.clone(),
            rotation: *rotation,
            jobs_logged_max: *jobs_logged_max,
            token: token.clone(),
        }
    }

    /// Obeys until `orders` ends; then ends all executors, and returns when they are gone.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, reports: mpsc::Sender<Vec<ToCoordinator>>) {
        let mut usage_tick = interval(USAGE_INTERVAL);
        usage_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order { term, message }) => {
                        self.last_term = self.last_term.max(term);
                        self.note_job(&message);
                        self.apply(Event::Order(message));
                    }
                    None => break,
                },
                Some(event) = self.events.recv() => self.apply(event),
                room = reports.reserve(), if !self.reports.is_empty() => match room {
                    Ok(room) => room.send(std::mem::take(&mut self.reports)),
                    // Nobody wants to hear of them; the orders end as well.
                    Err(_) => self.reports.clear(),
                },
                _ = usage_tick.tick() => self.look_up_usage(),
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        self.apply(Event::EndAll);
        let deadline = Instant::now() + Duration::from_millis(self.inner.options.deadlines.end_ms) + LAST_END;
        while self.inner.machine.borrow().executors() > 0 {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => self.apply(event),
                _ => {
                    tracing::warn!("executors did not end although they were killed; the kernel holds them");
                    break;
                }
            }
        }
        self.listeners.iter().for_each(JoinHandle::abort);
    }

    fn note_job(&self, order: &ToWorker) {
        let statistics = &self.inner.links.statistics;
        match order {
            ToWorker::Deploy { job, spec, .. } => statistics.note_job(*job, spec.graph.clone()),
            ToWorker::Release { job } => statistics.forget_job(*job),
            ToWorker::Prepare(_)
            | ToWorker::Cancel { .. }
            | ToWorker::Checkpoint(_)
            | ToWorker::CheckpointEnded { .. } => {}
        }
    }

    fn look_up_usage(&self) {
        let links = &self.inner.links;
        let (usage, executors) = usage(&links.processes());
        let slots_used = self.inner.sizes.borrow().values().map(|size| size.slots).sum();
        links.statistics.set_usage(usage, executors, slots_used);
    }

    fn apply(&mut self, event: Event) {
        tracing::debug!(?event, "supervisor");
        let actions = self.inner.machine.borrow_mut().apply(event);
        actions.into_iter().for_each(|action| self.perform(action));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { executor, job, worker, program, slots } => {
                let (give_up, given_up) = oneshot::channel();
                let fate = Rc::<Fate>::default();
                let held = Held { give_up: Some(give_up), fate: fate.clone(), timers: Vec::new() };
                self.executors.insert(executor, held);
                let size = Size { slots, limit: None, process: None };
                self.inner.sizes.borrow_mut().insert(executor, size);
                let known = Known { executor, job, worker };
                spawn_local(self.inner.clone().execute(known, program, given_up, fate));
            }
            Action::Resize(executor, slots) => self.inner.resize(executor, slots),
            Action::Send(executor, message) => {
                let order = Order { term: self.last_term, message };
                if !self.inner.links.order(executor, order) {
                    let links = self.inner.links.clone();
                    let reason = "the executor does not take orders any more".to_string();
                    spawn_local(async move {
                        let _ = links.events.send(Event::Refused { executor, reason }).await;
                    });
                }
            }
            Action::Report(report) => self.reports.push(ToCoordinator::TaskState(report)),
            Action::Snapshot(report) => self.reports.push(ToCoordinator::Snapshot(report)),
            Action::SnapshotWanted(job, attempt) => {
                self.reports.push(ToCoordinator::SnapshotWanted { job, attempt });
            }
            Action::SetTimer(executor, timer, after_ms) => {
                let Some(held) = self.executors.get_mut(&executor) else { return };
                let events = self.inner.links.events.clone();
                held.timers.retain(|timer| !timer.is_finished());
                held.timers.push(spawn_local(async move {
                    sleep(Duration::from_millis(after_ms)).await;
                    let _ = events.send(Event::Due(executor, timer)).await;
                }));
            }
            Action::Kill(executor) => {
                let Some(held) = self.executors.get_mut(&executor) else { return };
                held.fate.kill();
                held.give_up = None;
            }
            Action::Forget(executor) => {
                if let Some(held) = self.executors.remove(&executor) {
                    held.timers.iter().for_each(JoinHandle::abort);
                }
                self.inner.sizes.borrow_mut().remove(&executor);
                self.inner.links.forget(executor);
            }
        }
    }
}

impl Inner {
    /// An executor's whole life.
    async fn execute(
        self: Rc<Self>,
        known: Known,
        program: ProgramRef,
        given_up: oneshot::Receiver<()>,
        fate: Rc<Fate>,
    ) {
        let executor = known.executor;
        let digest = program.digest;
        let fetched = tokio::select! {
            held = self.programs.acquire(digest, &*self.source) => held,
            _ = given_up => Err(Error::new(ErrorKind::Cancelled, "cancelled before its program was there")),
        };
        let started = match fetched {
            Ok(held) => self.spawn(known, &program, held.path()).await.map(|running| (running, held)),
            Err(error) => Err(error),
        };
        let (running, held) = match started {
            Ok(started) => started,
            Err(error) => {
                let text = format!("program '{}' could not be started: {error}", program.name);
                tracing::warn!(job = %known.job, "{text}");
                let event = Event::NotStarted { executor, kind: error.kind(), reason: text };
                let _ = self.links.events.send(event).await;
                return;
            }
        };
        fate.runs(running.process());
        let _ = self.links.events.send(Event::Spawned(executor)).await;
        let ended = running.ended().await;
        drop(held);
        let (logs, jobs_max) = (self.options.logs.clone(), self.options.jobs_logged_max);
        drop(spawn_blocking(move || remove_old(&logs, jobs_max)));
        let (how, details, out_of_memory) = match ended {
            Ok((status, tail)) => {
                let sizes = self.sizes.borrow();
                let limit = sizes.get(&executor).and_then(|sized| sized.limit.as_ref());
                let exceeded = limit.and_then(|limit| limit.exceeded(status.signal(), &tail));
                let mut details = Vec::from_iter(exceeded.clone());
                if !tail.is_empty() {
                    details.push(format!("the last lines of its standard error:\n{tail}"));
                }
                (describe(status), details.join("; "), exceeded.is_some())
            }
            Err(error) => (format!("ended in an unknown way: {error}"), String::new(), false),
        };
        tracing::info!(job = %known.job, executor = executor.0, "executor {how}");
        let _ = self.links.events.send(Event::Exited { executor, how, details, out_of_memory }).await;
    }

    async fn spawn(
        &self,
        known: Known,
        program: &ProgramRef,
        path: &std::path::Path,
    ) -> Result<child::Running> {
        let Known { executor, job, .. } = known;
        let slots = self.sizes.borrow().get(&executor).map_or(1, |sized| sized.slots);
        let limit =
            self.limits.executor(executor.0, slots).map_err(|error| Error::io("memory limit", error))?;
        let sockets = self.folder.path();
        let (control, data) = (sockets.join("control"), sockets.join("data"));
        let environment = Environment::new(control, data, job, program.execution, &self.options.runtime);
        let log = self.options.logs.join(format!("flott-executor-{job}-{}", executor.0));
        let start = Start {
            path,
            program,
            variables: &[(VARIABLE, &environment.to_variable()?)],
            limit: &limit,
            log: &log,
            rotation: self.options.rotation,
        };
        let running = child::spawn(start).await.map_err(|error| Error::io(path.display(), error))?;
        if let Some(id) = running.process().id() {
            self.links.add_process(id as u32, known);
            tracing::info!(%job, executor = executor.0, process = id, "executor started: '{}'", program.name);
        }
        let slots_now = match self.sizes.borrow_mut().get_mut(&executor) {
            Some(sized) => {
                sized.limit = Some(limit);
                sized.process = Some(running.process());
                sized.slots
            }
            None => slots,
        };
        if slots_now != slots {
            self.resize(executor, slots_now);
        }
        Ok(running)
    }

    fn resize(&self, executor: ExecutorNumber, slots: u32) {
        let mut sizes = self.sizes.borrow_mut();
        let Some(sized) = sizes.get_mut(&executor) else { return };
        sized.slots = slots;
        let process = sized.process.as_ref().and_then(|process| process.id());
        if let Some(limit) = &mut sized.limit
            && let Err(error) = self.limits.resize(limit, slots, process)
        {
            tracing::warn!(executor = executor.0, "its memory limit could not be changed: {error}");
        }
    }
}

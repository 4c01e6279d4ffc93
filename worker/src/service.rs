//! The worker as a service: deploys and cancels tasks on the coordinator's orders, and reports their states.
//!
//! [`Worker::run`] is the loop; it owns everything that belongs to jobs. It runs inside an actix system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use flott_dataflow::context::{Congestion, Settings, TaskContext};
use flott_dataflow::program::Program;
use flott_dataflow::time::alignment::AlignmentRegistry;
use flott_schema::control::{
    CheckpointOrder, Placement, PrepareOrder, TaskFailure, TaskReport, TaskState, ToCoordinator, ToWorker,
    WorkerHost,
};
use flott_schema::graph::{JobGraph, Vertex};
use flott_schema::ids::{AttemptId, JobId, VertexId, WorkerId};
use flott_schema::job::{JobSpec, RestartStrategy};
use flott_schema::snapshot::RestoreFrom;
use flott_schema::stats::WorkerProfile;
use flott_schema::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::enumerator::{AskSplit, AskState, Enumerator, SplitRequest};
use crate::exchange::{self, Exchange};
use crate::links::{LinkOptions, Links};
use crate::metrics::{JobMetrics, TaskMetrics, Traffic};
use crate::panics;
use crate::pump::{Origin, Pump, Splits};
use crate::slot::Slot;
use crate::snapshots::{Reporter, TaskSnapshots};
use crate::spool::{SpoolBudget, SpoolStore};
use crate::state::{FetchedState, JobState, TaskState as StateOfTask};
use crate::subtask::{Build, Cancel, Fail, Report, SnapshotEnded, Subtask, SubtaskPlan, TakeSnapshot};
use crate::wiring::{ChannelSpec, channel_number, channels_into};

/// How often, and after which time each, the end of a process looks whether its working files are gone.
const TIDY_UP_STEPS: u32 = 2_000;
const TIDY_UP_STEP: Duration = Duration::from_millis(5);

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its id.
    pub worker: WorkerId,
    /// Number of slots, one thread each.
    pub slots: u32,
    /// Batches a channel takes before it blocks its sender.
    pub channel_capacity: usize,
    /// Bytes of spooled results kept in memory, a job.
    pub spool_memory_bytes: usize,
    /// Where spooled results overflow to.
    pub scratch: PathBuf,
    /// Where working files of state go, unless the job says; `scratch` without.
    pub state_folder: Option<PathBuf>,
    /// Encodes and decodes every batch between tasks, as between processes: for tests of the codecs.
    pub encode_local: bool,
}

impl Options {
    /// A worker with `slots` slots and otherwise default options.
    pub fn new(worker: WorkerId, slots: u32) -> Self {
        Options {
            worker,
            slots,
            channel_capacity: 8,
            spool_memory_bytes: 64 << 20,
            scratch: std::env::temp_dir(),
            state_folder: None,
            encode_local: false,
        }
    }
}

/// Talks to a worker in the same process: hands it programs, reads its metrics.
#[derive(Clone, Default)]
pub struct WorkerHandle {
    jobs: Arc<Mutex<HashMap<JobId, (Arc<Program>, Arc<JobMetrics>)>>>,
}

impl WorkerHandle {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, (Arc<Program>, Arc<JobMetrics>)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the worker the program of a job, before the job is submitted.
    pub fn add_program(&self, job: JobId, program: Arc<Program>) -> Arc<JobMetrics> {
        let metrics = Arc::<JobMetrics>::default();
        self.lock().insert(job, (program, metrics.clone()));
        metrics
    }

    fn program(&self, job: JobId) -> Option<(Arc<Program>, Arc<JobMetrics>)> {
        self.lock().get(&job).cloned()
    }

    fn remove(&self, job: JobId) {
        self.lock().remove(&job);
    }
}

/// The service.
pub struct Worker {
    options: Options,
    handle: WorkerHandle,
    clock: Clock,
    slots: Vec<Slot>,
    /// The thread of split enumerators.
    enumerators: Slot,
    jobs: HashMap<JobId, Job>,
    coordinator: mpsc::Sender<ToCoordinator>,
    /// Folders of working files of jobs that are over.
    leftovers: Vec<PathBuf>,
    /// The way to other executors of the job; an embedded cluster has none.
    exchange: Option<Exchange>,
}

/// What is kept for a job.
struct Job {
    program: Arc<Program>,
    graph: Arc<JobGraph>,
    metrics: Arc<JobMetrics>,
    alignment: Arc<AlignmentRegistry>,
    links: Links,
    /// With the job epoch each was made for: one that has handed out splits is of no use to readers deployed again.
    enumerators: HashMap<VertexId, (u32, Addr<Enumerator>)>,
    subtasks: HashMap<AttemptId, Addr<Subtask>>,
    /// What keeps the state of its tasks; none in batch execution.
    state: Option<JobState>,
}

impl Worker {
    /// A worker that reports to `coordinator`. Starts its slots; an actix system must be running.
    pub fn start(options: Options, coordinator: mpsc::Sender<ToCoordinator>) -> (Self, WorkerHandle) {
        panics::install_hook();
        let handle = WorkerHandle::default();
        let worker = Worker {
            slots: (0..options.slots).map(|_| Slot::start()).collect(),
            enumerators: Slot::start(),
            options,
            handle: handle.clone(),
            clock: Clock::default(),
            jobs: HashMap::new(),
            coordinator,
            leftovers: Vec::new(),
            exchange: None,
        };
        (worker, handle)
    }

    /// Connects the tasks with those of other executors: of the one job that `exchange` was started for.
    pub fn with_exchange(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Registers, then obeys until `orders` ends; then stops everything.
    pub async fn run(mut self, mut orders: mpsc::Receiver<ToWorker>) {
        let profile = WorkerProfile { slots: self.options.slots, ..WorkerProfile::default() };
        let register = ToCoordinator::Register { worker: self.options.worker, profile };
        if self.coordinator.send(register).await.is_ok() {
            loop {
                let broken = async {
                    match &mut self.exchange {
                        Some(exchange) => exchange.next_event().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(order) => self.obey(order).await,
                        None => break,
                    },
                    event = broken => self.fail(&event),
                }
            }
        }
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.release(job));
        for folder in std::mem::take(&mut self.leftovers) {
            tidy_up(&folder).await;
        }
        self.slots.iter().for_each(Slot::stop);
        self.enumerators.stop();
    }

    async fn obey(&mut self, order: ToWorker) {
        match order {
            ToWorker::Deploy { job, spec, tasks, peers, hosts, restore } => {
                self.deploy(job, &spec, tasks, &peers, &hosts, restore).await;
            }
            ToWorker::Prepare(order) => self.prepare(&order),
            ToWorker::Checkpoint(order) => self.checkpoint(order),
            ToWorker::CheckpointEnded { job, checkpoint, completed, attempts } => {
                self.checkpoint_ended(job, checkpoint, completed, &attempts);
            }
            ToWorker::Cancel { job, attempts } => self.cancel(job, &attempts).await,
            ToWorker::Release { job } => self.release(job),
        }
    }

    async fn deploy(
        &mut self,
        job: JobId,
        spec: &JobSpec,
        tasks: Vec<Placement>,
        peers: &[Placement],
        hosts: &[WorkerHost],
        restore: Option<Arc<RestoreFrom>>,
    ) {
        let graph = &spec.graph;
        if let Err(error) = self.prepare_job(job, spec) {
            return self.refuse(job, graph, &tasks, &error).await;
        }
        if let Some(job) = self.jobs.get_mut(&job) {
            job.rewire(spec.effective_graph());
            job.learn(peers, hosts, &tasks, self.exchange.as_ref().map(Exchange::handle));
        }
        // All tasks are planned before the first one starts, so that a mistake starts none.
        let plans: Result<Vec<_>> = tasks
            .iter()
            .map(|placement| Ok((placement.slot.index, self.plan(job, placement.attempt, restore.as_ref())?)))
            .collect();
        match plans {
            Ok(plans) => plans.into_iter().for_each(|(slot, plan)| self.start_subtask(job, slot, plan)),
            Err(error) => self.refuse(job, graph, &tasks, &error).await,
        }
    }

    /// Makes ready for tasks that may be deployed here. What cannot be done now is done, or refused, when they are.
    fn prepare(&mut self, order: &PrepareOrder) {
        if let Err(error) = self.prepare_job(order.job, &order.spec) {
            return tracing::debug!(%error, "not made ready");
        }
        if let Some(exchange) = self.exchange.as_ref().map(Exchange::handle) {
            exchange.learn_hosts(&order.hosts);
            exchange.connect(order.hosts.iter().map(|host| host.worker));
        }
    }

    /// A connection is lost: the tasks that used it end.
    fn fail(&mut self, event: &exchange::Event) {
        for attempt in &event.attempts {
            if let Some(subtask) = self.jobs.values().find_map(|job| job.subtasks.get(attempt)) {
                subtask.do_send(Fail(Error::new(ErrorKind::Io, event.reason.as_str())));
            }
        }
    }

    fn prepare_job(&mut self, id: JobId, spec: &JobSpec) -> Result<()> {
        let graph = &spec.graph;
        if self.jobs.contains_key(&id) {
            return Ok(());
        }
        let Some((program, metrics)) = self.handle.program(id) else {
            return Err(Error::internal(format!(
                "worker {} has no program for job {id}",
                self.options.worker.0
            )));
        };
        let (submitted, own) = (graph.fingerprint(), program.graph.fingerprint());
        if submitted != own {
            return Err(Error::graph(format!(
                "the program builds another job graph here (fingerprint {own:016x}) than where it was submitted \
                 ({submitted:016x}); a job graph must not depend on the host, the time or chance"
            )));
        }
        let alignment = Arc::<AlignmentRegistry>::default();
        let budget = SpoolBudget::new(self.options.spool_memory_bytes, self.options.scratch.clone());
        let spools = Arc::new(SpoolStore::new(budget, spec.settings.restart != RestartStrategy::None));
        let exchange = self.exchange.as_ref().map(Exchange::handle);
        if let Some(exchange) = &exchange {
            exchange.attach(spools.clone(), alignment.clone());
        }
        let options = LinkOptions {
            worker: self.options.worker,
            capacity: self.options.channel_capacity,
            encode: self.options.encode_local,
        };
        let links = Links::new(graph.clone(), options, exchange, spools);
        let state_folder = self.options.state_folder.as_ref().unwrap_or(&self.options.scratch);
        let state = JobState::start(id, spec, state_folder, self.options.worker)?;
        let job = Job {
            program,
            graph: graph.clone(),
            metrics,
            alignment,
            links,
            enumerators: HashMap::new(),
            subtasks: HashMap::new(),
            state,
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    fn plan(
        &mut self,
        id: JobId,
        attempt: AttemptId,
        restore: Option<&Arc<RestoreFrom>>,
    ) -> Result<SubtaskPlan> {
        let job = self.jobs.get_mut(&id).ok_or_else(|| Error::internal("a task of an unknown job"))?;
        let task = attempt.task;
        let graph = job.graph.clone();
        let vertex = graph
            .vertex(task.vertex)
            .ok_or_else(|| Error::graph(format!("vertex {} is not in the job graph", task.vertex)))?;
        let (congestion, traffic) = (Arc::<Congestion>::default(), Arc::<Traffic>::default());
        let mut outputs = job.links.outputs(attempt, &congestion, &traffic)?;
        let inputs = match vertex.is_source {
            true => None,
            false => Some(job.links.inputs(attempt, &traffic)?),
        };
        let ask_split = match vertex.is_source {
            true => Some(job.splits(vertex, attempt, restore, &self.enumerators)?),
            false => None,
        };
        let ask_state = job.enumerator_state(vertex, attempt);
        let enumerator = ask_state.as_ref().map(|_| vertex.operators[0].id);
        let state =
            job.state.as_ref().map(|state| state.of_task(id, &graph, vertex, attempt, restore.cloned()));
        let reporter_of_snapshots = Reporter { job: id, attempt, sender: self.coordinator.clone() };
        let vertex_name = vertex.name.clone();
        let (program, metrics, alignment) = (job.program.clone(), job.metrics.clone(), job.alignment.clone());
        let (clock, scratch) = (self.clock, self.options.scratch.clone());
        let report = reporter(self.coordinator.clone(), id);
        let (name, parallelism, max) = (vertex.name.clone(), vertex.parallelism, vertex.max_parallelism);
        let build = move |state: Option<FetchedState>| {
            let settings = Settings { scratch, ..program.settings.clone() };
            // Of one task that is all of its vertex, those of the state it starts from.
            let max = state.as_ref().map_or(max, FetchedState::max_parallelism);
            let mut ctx = TaskContext::new(
                program.graph.name.as_str(),
                name.as_str(),
                task.subtask,
                parallelism,
                max,
                settings,
            );
            ctx.job = id;
            ctx.attempt = attempt.attempt;
            ctx.congestion = congestion;
            ctx.alignment = alignment;
            let mut opened = state.map(FetchedState::open);
            if let Some(opened) = &mut opened {
                ctx.snapshots = std::mem::take(&mut opened.snapshots);
            }
            ctx.set_now_ms(clock.now_ms());
            let ctx = Rc::new(ctx);
            let built = program
                .build_task(task.vertex, &ctx, &mut |edge| outputs.remove(&edge).unwrap_or_default())?;
            let task_metrics =
                Arc::new(TaskMetrics::new(attempt, built.metrics, ctx.records_sent.clone(), traffic));
            metrics.add(task_metrics.clone());
            let origin = match inputs {
                Some(inputs) => {
                    let mut gate = inputs.gate(&program, task.vertex)?;
                    for (edge, source, frames) in opened.iter().flat_map(|opened| &opened.channels) {
                        let known = ChannelSpec { edge: *edge as usize, source: *source };
                        if !channels_into(&graph, task).contains(&known) {
                            return Err(Error::configuration(format!(
                                "the checkpoint has records in flight on a channel (edge {edge}, from subtask {source}) that the job                                  does not have now; start from a savepoint or from an aligned checkpoint"
                            )));
                        }
                        gate.restore(channel_number(&graph, task, *edge as usize, *source), frames)?;
                    }
                    Origin::Gate(Box::new(gate))
                }
                None => Origin::Source(Splits::default()),
            };
            let snapshots = opened.map(|opened| {
                TaskSnapshots::new(opened.keeper, reporter_of_snapshots, enumerator, opened.overtaking)
            });
            Ok(Pump::new(built.task, origin, ctx, clock, task_metrics).with_snapshots(snapshots))
        };
        Ok(SubtaskPlan {
            attempt,
            vertex_name,
            parallelism,
            cancelled: state.as_ref().map(StateOfTask::cancelled).unwrap_or_default(),
            fetch: Box::new(move || {
                let state = state.map(StateOfTask::fetch).transpose()?;
                Ok(Box::new(move || build(state)) as Build)
            }),
            ask_split,
            ask_state,
            report,
        })
    }

    fn start_subtask(&mut self, id: JobId, slot: u32, plan: SubtaskPlan) {
        let attempt = plan.attempt;
        let slot = &self.slots[slot as usize % self.slots.len()];
        let address = slot.start_actor(move || Subtask::new(plan));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.subtasks.insert(attempt, address);
        }
    }

    fn checkpoint(&self, order: CheckpointOrder) {
        let Some(job) = self.jobs.get(&order.job) else { return };
        let order = Arc::new(order);
        // A task that has ended has said what belongs into all snapshots.
        let subtasks = order.attempts.iter().filter_map(|attempt| job.subtasks.get(attempt));
        subtasks.for_each(|subtask| subtask.do_send(TakeSnapshot(order.clone())));
    }

    fn checkpoint_ended(&self, job: JobId, checkpoint: u64, completed: bool, attempts: &[AttemptId]) {
        let Some(job) = self.jobs.get(&job) else { return };
        let subtasks = attempts.iter().filter_map(|attempt| job.subtasks.get(attempt));
        subtasks.for_each(|subtask| subtask.do_send(SnapshotEnded { checkpoint, completed }));
    }

    async fn refuse(&self, job: JobId, graph: &JobGraph, tasks: &[Placement], error: &Error) {
        for placement in tasks {
            let vertex = graph.vertex(placement.attempt.task.vertex);
            let failure = TaskFailure {
                kind: error.kind(),
                vertex: vertex.map_or_else(String::new, |vertex| vertex.name.clone()),
                subtask: placement.attempt.task.subtask,
                parallelism: vertex.map_or(0, |vertex| vertex.parallelism),
                message: error.to_string(),
                backtrace: None,
            };
            self.report(job, placement.attempt, TaskState::Failed, Some(failure)).await;
        }
    }

    async fn report(&self, job: JobId, attempt: AttemptId, state: TaskState, failure: Option<TaskFailure>) {
        // A coordinator that is gone needs no report; the orders end as well then.
        let _ = self
            .coordinator
            .send(ToCoordinator::TaskState(TaskReport { job, attempt, state, failure }))
            .await;
    }

    async fn cancel(&mut self, id: JobId, attempts: &[AttemptId]) {
        for attempt in attempts {
            match self.jobs.get(&id).and_then(|job| job.subtasks.get(attempt)) {
                // An actor that has ended has reported its last state already.
                Some(subtask) => subtask.do_send(Cancel),
                None => self.report(id, *attempt, TaskState::Canceled, None).await,
            }
        }
    }

    fn release(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            job.subtasks.values().for_each(|subtask| subtask.do_send(Cancel));
            self.leftovers.extend(job.state.as_ref().map(|state| state.release(id)));
        }
        self.handle.remove(id);
    }
}

impl Job {
    /// Takes in the parallelism that the job has now.
    fn rewire(&mut self, graph: Arc<JobGraph>) {
        if self.graph != graph {
            self.links.rewire(graph.clone());
            self.graph = graph;
        }
    }

    /// Takes in where tasks run, and forgets deployments that newer ones have replaced.
    fn learn(
        &mut self,
        peers: &[Placement],
        hosts: &[WorkerHost],
        tasks: &[Placement],
        exchange: Option<exchange::Handle>,
    ) {
        self.links.learn(peers, hosts);
        let newest: HashMap<_, _> =
            tasks.iter().map(|placement| (placement.attempt.task, placement)).collect();
        self.subtasks.retain(|attempt, _| {
            newest.get(&attempt.task).is_none_or(|placement| placement.attempt.attempt <= attempt.attempt)
        });
        let epoch = tasks.iter().map(|placement| placement.attempt.job_epoch).max();
        if let (Some(epoch), Some(exchange)) = (epoch, exchange) {
            exchange.align(epoch, self.links.other_workers());
        }
    }

    /// How a source task asks for splits: of the enumerator, which lives where subtask 0 of the source runs.
    fn splits(
        &mut self,
        vertex: &Vertex,
        attempt: AttemptId,
        restore: Option<&Arc<RestoreFrom>>,
        thread: &Slot,
    ) -> Result<AskSplit> {
        let position = self.graph.vertices.iter().position(|other| other.id == vertex.id).unwrap_or_default();
        let position =
            u16::try_from(position).map_err(|_| Error::graph("a job graph of more than 65535 vertices"))?;
        if let Some((worker, exchange)) = self.links.enumerator_host(vertex.id)? {
            return exchange.remote_splits(worker, position, attempt);
        }
        let enumerator = self.enumerator(vertex, attempt.job_epoch, restore, thread);
        let ask = move |enumerator: Addr<Enumerator>| -> AskSplit {
            Box::new(move |subtask, epoch, reply| enumerator.do_send(SplitRequest { subtask, epoch, reply }))
        };
        if let Some(exchange) = self.links.exchange() {
            exchange.serve_splits(position, attempt.job_epoch, ask(enumerator.clone()));
        }
        Ok(ask(enumerator))
    }

    /// How the subtask with which the enumerator lives asks for its state.
    fn enumerator_state(&self, vertex: &Vertex, attempt: AttemptId) -> Option<AskState> {
        if !vertex.is_source || attempt.task.subtask != 0 || self.state.is_none() {
            return None;
        }
        let (_, enumerator) = self.enumerators.get(&vertex.id)?;
        let enumerator = enumerator.clone();
        Some(Box::new(move |wanted| enumerator.do_send(wanted)))
    }

    fn enumerator(
        &mut self,
        vertex: &Vertex,
        epoch: u32,
        restore: Option<&Arc<RestoreFrom>>,
        thread: &Slot,
    ) -> Addr<Enumerator> {
        if let Some((made, enumerator)) = self.enumerators.get(&vertex.id)
            && *made == epoch
        {
            return enumerator.clone();
        }
        let (program, id, parallelism) = (self.program.clone(), vertex.id, vertex.parallelism);
        let state = self.state.clone().zip(restore.cloned());
        let operator = vertex.operators[0].id;
        let make = move || {
            let mut enumerator = program.enumerator(id, parallelism)?;
            if let Some((state, restore)) = state
                && let Some(bytes) = state.enumerator(&restore, operator)?
            {
                enumerator.restore(&bytes).map_err(|error| error.at(restore.to_string()))?;
            }
            Ok(enumerator)
        };
        let enumerator = thread.start_actor(move || Enumerator::new(parallelism, make));
        self.enumerators.insert(vertex.id, (epoch, enumerator.clone()));
        enumerator
    }
}

/// Waits until the folder of a job that is over is gone: its tasks let go of it on their own threads, which takes a moment. A process that ended
/// meanwhile would pull RocksDB away from under them.
async fn tidy_up(folder: &Path) {
    for _ in 0..TIDY_UP_STEPS {
        if !folder.exists() {
            return;
        }
        tokio::time::sleep(TIDY_UP_STEP).await;
    }
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::warn!("{}: cannot be deleted: {error}", folder.display());
    }
}

/// Reports task states to the coordinator from a slot's thread, without blocking it.
fn reporter(coordinator: mpsc::Sender<ToCoordinator>, job: JobId) -> Box<dyn FnOnce() -> Report + Send> {
    Box::new(move || {
        Box::new(move |attempt, state, failure| {
            let message = ToCoordinator::TaskState(TaskReport { job, attempt, state, failure });
            if let Err(mpsc::error::TrySendError::Full(message)) = coordinator.try_send(message) {
                // It waits aside. Should a later report overtake it, the coordinator ignores the stale one.
                let coordinator = coordinator.clone();
                actix::spawn(async move {
                    let _ = coordinator.send(message).await;
                });
            }
        })
    })
}

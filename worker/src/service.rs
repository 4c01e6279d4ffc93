//! The worker as a service: deploys and cancels tasks on the coordinator's orders, and reports their states.
//!
//! [`Worker::run`] is the loop; it owns everything that belongs to jobs. It runs inside an actix system.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use actix::Addr;
use flott_dataflow::context::{Congestion, Settings, TaskContext};
use flott_dataflow::exchange::ChannelWriter;
use flott_dataflow::program::Program;
use flott_dataflow::time::alignment::AlignmentRegistry;
use flott_schema::control::{Placement, TaskFailure, TaskReport, TaskState, ToCoordinator, ToWorker};
use flott_schema::graph::{Exchange, JobGraph};
use flott_schema::ids::{AttemptId, JobId, TaskId, VertexId, WorkerId};
use flott_schema::stats::WorkerProfile;
use flott_schema::{Error, Result};
use tokio::sync::mpsc;

use crate::channel::{Credit, GateQueue, LocalWriter};
use crate::clock::Clock;
use crate::enumerator::Enumerator;
use crate::gate::InputGate;
use crate::metrics::{JobMetrics, TaskMetrics};
use crate::panics;
use crate::pump::{Origin, Pump, Splits};
use crate::slot::Slot;
use crate::spool::{Spool, SpoolBudget, SpoolReader, SpoolWriter};
use crate::subtask::{Cancel, Report, Subtask, SubtaskPlan};
use crate::wiring::{channel_number, channels_into, targets};

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
}

/// What is kept for a job.
struct Job {
    program: Arc<Program>,
    graph: Arc<JobGraph>,
    metrics: Arc<JobMetrics>,
    alignment: Arc<AlignmentRegistry>,
    links: Links,
    enumerators: HashMap<VertexId, Addr<Enumerator>>,
    subtasks: HashMap<AttemptId, Addr<Subtask>>,
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
        };
        (worker, handle)
    }

    /// Registers, then obeys until `orders` ends; then stops everything.
    pub async fn run(mut self, mut orders: mpsc::Receiver<ToWorker>) {
        let profile = WorkerProfile { slots: self.options.slots, ..WorkerProfile::default() };
        let register = ToCoordinator::Register { worker: self.options.worker, profile };
        if self.coordinator.send(register).await.is_ok() {
            while let Some(order) = orders.recv().await {
                match order {
                    ToWorker::Deploy { job, spec, tasks, .. } => {
                        self.deploy(job, spec.graph.clone(), tasks).await
                    }
                    ToWorker::Cancel { job, attempts } => self.cancel(job, &attempts).await,
                    ToWorker::Release { job } => self.release(job),
                }
            }
        }
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.release(job));
        self.slots.iter().for_each(Slot::stop);
        self.enumerators.stop();
    }

    async fn deploy(&mut self, job: JobId, graph: Arc<JobGraph>, tasks: Vec<Placement>) {
        if let Err(error) = self.prepare_job(job, &graph) {
            return self.refuse(job, &graph, &tasks, &error).await;
        }
        // All tasks are planned before the first one starts, so that a mistake starts none.
        let plans: Result<Vec<_>> = tasks
            .iter()
            .map(|placement| Ok((placement.slot.index, self.plan(job, placement.attempt)?)))
            .collect();
        match plans {
            Ok(plans) => plans.into_iter().for_each(|(slot, plan)| self.start_subtask(job, slot, plan)),
            Err(error) => self.refuse(job, &graph, &tasks, &error).await,
        }
    }

    fn prepare_job(&mut self, id: JobId, graph: &Arc<JobGraph>) -> Result<()> {
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
        let budget = SpoolBudget::new(self.options.spool_memory_bytes, self.options.scratch.clone());
        let links = Links {
            graph: graph.clone(),
            capacity: self.options.channel_capacity,
            encode: self.options.encode_local,
            queues: HashMap::new(),
            credits: HashMap::new(),
            spools: HashMap::new(),
            budget: Arc::new(budget),
        };
        let job = Job {
            program,
            graph: graph.clone(),
            metrics,
            alignment: Arc::default(),
            links,
            enumerators: HashMap::new(),
            subtasks: HashMap::new(),
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    fn plan(&mut self, id: JobId, attempt: AttemptId) -> Result<SubtaskPlan> {
        let job = self.jobs.get_mut(&id).ok_or_else(|| Error::internal("a task of an unknown job"))?;
        let task = attempt.task;
        let graph = job.graph.clone();
        let vertex = graph
            .vertex(task.vertex)
            .ok_or_else(|| Error::graph(format!("vertex {} is not in the job graph", task.vertex)))?;
        let congestion = Arc::<Congestion>::default();
        let mut outputs = job.links.outputs(task, &congestion);
        let inputs = (!vertex.is_source).then(|| job.links.inputs(task));
        let enumerator =
            vertex.is_source.then(|| job.enumerator(task.vertex, vertex.parallelism, &self.enumerators));
        let (program, metrics, alignment) = (job.program.clone(), job.metrics.clone(), job.alignment.clone());
        let (clock, scratch) = (self.clock, self.options.scratch.clone());
        let report = reporter(self.coordinator.clone(), id);
        let (name, parallelism, max) = (vertex.name.clone(), vertex.parallelism, vertex.max_parallelism);
        let build = move || {
            let settings = Settings { scratch, ..program.settings.clone() };
            let mut ctx = TaskContext::new(
                program.graph.name.as_str(),
                name.as_str(),
                task.subtask,
                parallelism,
                max,
                settings,
            );
            ctx.attempt = attempt.attempt;
            ctx.congestion = congestion;
            ctx.alignment = alignment;
            ctx.set_now_ms(clock.now_ms());
            let ctx = Rc::new(ctx);
            let built = program
                .build_task(task.vertex, &ctx, &mut |edge| outputs.remove(&edge).unwrap_or_default())?;
            let task_metrics = Arc::new(TaskMetrics::new(task, built.metrics, ctx.records_sent.clone()));
            metrics.add(task_metrics.clone());
            let origin = match inputs {
                Some(inputs) => Origin::Gate(inputs.gate(&program, task.vertex)?),
                None => Origin::Source(Splits::default()),
            };
            Ok(Pump::new(built.task, origin, ctx, clock, task_metrics))
        };
        Ok(SubtaskPlan {
            attempt,
            vertex_name: vertex.name.clone(),
            parallelism,
            build: Box::new(build),
            enumerator,
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
        }
        self.handle.remove(id);
    }
}

impl Job {
    fn enumerator(&mut self, vertex: VertexId, parallelism: u32, thread: &Slot) -> Addr<Enumerator> {
        let program = self.program.clone();
        let start =
            || thread.start_actor(move || Enumerator::new(|| program.enumerator(vertex, parallelism)));
        self.enumerators.entry(vertex).or_insert_with(start).clone()
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

/// The ends of all channels of a job in this process; made when the first of both ends is deployed.
struct Links {
    graph: Arc<JobGraph>,
    capacity: usize,
    encode: bool,
    queues: HashMap<TaskId, Arc<GateQueue>>,
    credits: HashMap<(TaskId, u32), Arc<Credit>>,
    spools: HashMap<(usize, u32, u32), Arc<Spool>>,
    budget: Arc<SpoolBudget>,
}

/// Writers by edge.
type Outputs = HashMap<usize, Vec<Box<dyn ChannelWriter>>>;

impl Links {
    fn queue(&mut self, task: TaskId) -> Arc<GateQueue> {
        self.queues.entry(task).or_default().clone()
    }

    fn credit(&mut self, task: TaskId, channel: u32) -> Arc<Credit> {
        let capacity = self.capacity;
        self.credits.entry((task, channel)).or_insert_with(|| Arc::new(Credit::new(capacity))).clone()
    }

    fn spool(&mut self, edge: usize, source: u32, target: u32) -> Arc<Spool> {
        let budget = &self.budget;
        self.spools.entry((edge, source, target)).or_insert_with(|| Spool::new(budget.clone())).clone()
    }

    fn outputs(&mut self, task: TaskId, congestion: &Arc<Congestion>) -> Outputs {
        let graph = self.graph.clone();
        let mut outputs = Outputs::new();
        for (index, edge) in graph.outputs(task.vertex) {
            let writers = targets(&graph, edge, task.subtask).map(|target| -> Box<dyn ChannelWriter> {
                if edge.exchange == Exchange::Blocking {
                    return Box::new(SpoolWriter(self.spool(index, task.subtask, target)));
                }
                let receiver = TaskId { vertex: edge.target, subtask: target };
                let number = channel_number(&graph, receiver, index, task.subtask);
                let credit = self.credit(receiver, number);
                credit.connect(congestion.clone());
                Box::new(LocalWriter::new(self.queue(receiver), number, credit, self.encode))
            });
            outputs.insert(index, writers.collect());
        }
        outputs
    }

    fn inputs(&mut self, task: TaskId) -> Inputs {
        let graph = self.graph.clone();
        let mut channels = Vec::new();
        for (number, channel) in channels_into(&graph, task).into_iter().enumerate() {
            let edge = &graph.edges[channel.edge];
            channels.push(if edge.exchange == Exchange::Blocking {
                let spool = self.spool(channel.edge, channel.source, task.subtask);
                (edge.input, None, Some(spool))
            } else {
                (edge.input, Some(self.credit(task, number as u32)), None)
            });
        }
        Inputs { queue: self.queue(task), channels }
    }
}

/// The receiving ends of a task's channels, on their way to its slot.
struct Inputs {
    queue: Arc<GateQueue>,
    channels: Vec<(u16, Option<Arc<Credit>>, Option<Arc<Spool>>)>,
}

impl Inputs {
    fn gate(self, program: &Program, vertex: VertexId) -> Result<InputGate> {
        let mut gate = InputGate::new(self.queue);
        for (input, credit, spool) in self.channels {
            gate.add(input, program.decoder(vertex, input)?, credit, spool.map(SpoolReader::new));
        }
        Ok(gate)
    }
}

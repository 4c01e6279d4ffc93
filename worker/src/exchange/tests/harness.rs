//! Executors with a task runtime each, deployed to by hand in the coordinator's stead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flott_dataflow::program::Program;
use flott_schema::control::{
    CheckpointOrder, LAST_SNAPSHOT, Placement, TaskFailure, TaskState, ToCoordinator, ToWorker, WorkerHost,
};
use flott_schema::graph::Exchange as EdgeExchange;
use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, VertexId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSpec, RestartStrategy};
use flott_schema::snapshot::{
    Barrier, Manifest, ManifestOperator, ManifestVertex, RestoreFrom, TaskSnapshot,
};
use flott_storage::{Storage, manifest};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{Exchange, Handle, Options, handshake};
use crate::metrics::JobMetrics;
use crate::service::{Options as WorkerOptions, Worker, WorkerHandle};

pub const JOB: JobId = JobId(7);
/// Nothing in these tests takes as long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// One executor: its data port, its exchange, its task runtime.
pub struct Executor {
    pub worker: WorkerId,
    pub address: SocketAddr,
    pub exchange: Handle,
    pub metrics: Arc<JobMetrics>,
    orders: Option<mpsc::Sender<ToWorker>>,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    /// Ends all connections that others have opened to it, once records have come: before, it would be tried again.
    pub fn cut_incoming(&self) {
        let started = Instant::now();
        while self.metrics.stats(JOB).iter().all(|task| task.bytes_in == 0) {
            assert!(started.elapsed() < DEADLINE, "no records have come");
            std::thread::yield_now();
        }
        for stream in self.accepted.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

type Started = (SocketAddr, Handle, WorkerHandle);

fn start(
    options: Options,
    slots: u32,
    reports: mpsc::Sender<ToCoordinator>,
    program: &Arc<Program>,
) -> Executor {
    let (orders, inbox) = mpsc::channel(64);
    let (started, start) = std::sync::mpsc::sync_channel::<Started>(1);
    let accepted = Arc::<Mutex<Vec<TcpStream>>>::default();
    let (kept, worker) = (accepted.clone(), options.worker);
    let thread = std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (incoming, accepted) = mpsc::channel(8);
            actix::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let Ok(handshake) = handshake::read(&mut stream, DEADLINE).await else { continue };
                    let stream = stream.into_std().unwrap();
                    let copy = stream.try_clone().unwrap();
                    kept.lock().unwrap().push(copy);
                    let _ = incoming.send((handshake, stream)).await;
                }
            });
            let exchange = Exchange::start(options, accepted).unwrap();
            let scratch = tempfile::tempdir().unwrap();
            let mut worker_options = WorkerOptions::new(worker, slots);
            worker_options.scratch = scratch.path().to_path_buf();
            worker_options.spool_memory_bytes = 40_000;
            let (service, handle) = Worker::start(worker_options, reports);
            started.send((address, exchange.handle(), handle)).unwrap();
            service.with_exchange(exchange).run(inbox).await;
        });
    });
    let (address, exchange, handle) = start.recv().unwrap();
    let metrics = handle.add_program(JOB, program.clone());
    Executor { worker, address, exchange, metrics, orders: Some(orders), accepted, thread: Some(thread) }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Executors of one job, and what they report.
pub struct Cluster {
    pub executors: Vec<Executor>,
    pub program: Arc<Program>,
    pub restart: RestartStrategy,
    pub checkpoints: CheckpointSettings,
    /// What tasks are deployed to start from.
    pub restore: Option<Arc<RestoreFrom>>,
    /// Parts of snapshots.
    pub parts: BTreeMap<(u64, TaskId), Result<TaskSnapshot, String>>,
    /// Tasks that wait for a snapshot.
    pub waiting: BTreeSet<AttemptId>,
    /// Hosts beside the executors, which a test plays.
    pub others: Vec<WorkerHost>,
    reports: mpsc::Receiver<ToCoordinator>,
    runtime: tokio::runtime::Runtime,
    pub states: BTreeMap<AttemptId, (TaskState, Option<TaskFailure>)>,
    pub placed: BTreeMap<TaskId, Placement>,
}

impl Cluster {
    /// `count` executors, on the workers 1 and so on; `change` changes the options of each exchange.
    pub fn start(count: u64, program: Program, change: impl Fn(&mut Options)) -> Self {
        let program = Arc::new(program);
        let (sender, reports) = mpsc::channel(4096);
        let executors = (1..=count).map(|number| {
            let mut options = Options::new(JOB, WorkerId(number));
            options.window_bytes = 64 << 10;
            change(&mut options);
            start(options, 4, sender.clone(), &program)
        });
        Cluster {
            executors: executors.collect(),
            program: program.clone(),
            restart: RestartStrategy::None,
            checkpoints: CheckpointSettings::default(),
            restore: None,
            parts: BTreeMap::new(),
            waiting: BTreeSet::new(),
            others: Vec::new(),
            reports,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            states: BTreeMap::new(),
            placed: BTreeMap::new(),
        }
    }

    /// All tasks of a vertex, by name.
    pub fn vertex(&self, name: &str) -> VertexId {
        let vertices = &self.program.graph.vertices;
        vertices.iter().find(|vertex| vertex.name.contains(name)).unwrap().id
    }

    /// Says where the tasks of `vertices` run in this epoch: subtask i on executor i modulo their number, or as `place` says.
    pub fn place(
        &mut self,
        vertices: &[VertexId],
        job_epoch: u32,
        place: impl Fn(TaskId) -> Option<WorkerId>,
    ) -> Vec<Placement> {
        let graph = &self.program.graph;
        let mut tasks = Vec::new();
        for vertex in graph.vertices.iter().filter(|vertex| vertices.contains(&vertex.id)) {
            for subtask in 0..vertex.parallelism {
                let task = TaskId { vertex: vertex.id, subtask };
                let usual = WorkerId(u64::from(subtask) % self.executors.len() as u64 + 1);
                let slot = SlotId { worker: place(task).unwrap_or(usual), index: subtask };
                let attempt = AttemptId { task, job_epoch, attempt: job_epoch };
                tasks.push(Placement { attempt, slot });
            }
        }
        self.placed.extend(tasks.iter().map(|placement| (placement.attempt.task, *placement)));
        tasks
    }

    /// Deploys what is placed on one executor.
    pub fn deploy_to(&self, number: usize, tasks: &[Placement]) {
        let executor = &self.executors[number];
        let mine: Vec<Placement> =
            tasks.iter().filter(|placement| placement.slot.worker == executor.worker).copied().collect();
        if mine.is_empty() {
            return;
        }
        let hosts = self.executors.iter().map(|executor| WorkerHost {
            worker: executor.worker,
            data_address: executor.address.to_string(),
        });
        let mut spec = JobSpec::embedded(self.program.graph.clone());
        spec.settings.restart = self.restart;
        spec.settings.checkpoints = self.checkpoints.clone();
        let order = ToWorker::Deploy {
            job: JOB,
            spec: Arc::new(spec),
            tasks: mine,
            peers: self.placed.values().copied().collect(),
            hosts: hosts.chain(self.others.iter().cloned()).collect(),
            restore: self.restore.clone(),
        };
        executor.orders.as_ref().unwrap().blocking_send(order).unwrap();
    }

    pub fn deploy(&self, tasks: &[Placement]) {
        (0..self.executors.len()).for_each(|number| self.deploy_to(number, tasks));
    }

    pub fn cancel(&mut self, tasks: &[Placement]) {
        for executor in &self.executors {
            let attempts = tasks.iter().filter(|placement| placement.slot.worker == executor.worker);
            let attempts = attempts.map(|placement| placement.attempt).collect();
            executor.orders.as_ref().unwrap().blocking_send(ToWorker::Cancel { job: JOB, attempts }).unwrap();
        }
        self.wait_for_end(tasks);
    }

    /// Waits until `reached` holds of the states reported so far.
    pub fn wait(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let next = self.runtime.block_on(async { timeout(DEADLINE, self.reports.recv()).await });
            let report = next.unwrap_or_else(|_| {
                let failed = self.states.values().filter_map(|(_, failure)| failure.as_ref());
                panic!("waiting for {what}: {:?}, {:?}", failed.collect::<Vec<_>>(), self.parts.keys())
            });
            let report = report.unwrap();
            match report {
                ToCoordinator::TaskState(report) => {
                    self.states.insert(report.attempt, (report.state, report.failure));
                }
                ToCoordinator::Snapshot(report) => {
                    self.parts.insert((report.checkpoint, report.attempt.task), report.result);
                }
                ToCoordinator::SnapshotWanted { attempt, .. } => drop(self.waiting.insert(attempt)),
                ToCoordinator::Register { .. } => {}
            }
        }
    }

    fn tell_all(&self, tasks: &[Placement], message: impl Fn(Vec<AttemptId>) -> ToWorker) {
        for executor in &self.executors {
            let mine = tasks.iter().filter(|placement| placement.slot.worker == executor.worker);
            let attempts = mine.map(|placement| placement.attempt).collect();
            executor.orders.as_ref().unwrap().blocking_send(message(attempts)).unwrap();
        }
    }

    /// Orders a snapshot.
    pub fn order_snapshot(&self, tasks: &[Placement], barrier: Barrier, folder: &Path) {
        self.tell_all(tasks, |attempts| {
            ToWorker::Checkpoint(CheckpointOrder {
                job: JOB,
                barrier,
                folder: folder.join(format!("chk-{}", barrier.checkpoint)).display().to_string(),
                shared_folder: Some(folder.join("shared").display().to_string()),
                attempts,
            })
        });
    }

    /// Waits for all parts of a snapshot and writes its manifest; gives how to start from it.
    pub fn complete_snapshot(&mut self, tasks: &[Placement], barrier: Barrier, folder: &Path) -> RestoreFrom {
        let checkpoint = barrier.checkpoint;
        let part = |cluster: &Self, task: TaskId| {
            let parts = &cluster.parts;
            parts.get(&(checkpoint, task)).or_else(|| parts.get(&(LAST_SNAPSHOT, task))).cloned()
        };
        self.wait("all parts", |cluster| {
            tasks.iter().all(|placement| part(cluster, placement.attempt.task).is_some())
        });
        let parts =
            tasks.iter().map(|placement| part(self, placement.attempt.task).unwrap().unwrap()).collect();
        let vertices = self.program.graph.vertices.iter().map(|vertex| ManifestVertex {
            vertex: vertex.id,
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            operators: vertex
                .operators
                .iter()
                .map(|operator| ManifestOperator {
                    operator: operator.id,
                    uid: operator.uid.clone(),
                    name: operator.name.clone(),
                })
                .collect(),
        });
        let manifest = Manifest {
            job: JOB,
            job_name: "test".into(),
            checkpoint,
            kind: barrier.kind,
            timestamp_ms: barrier.timestamp_ms,
            vertices: vertices.collect(),
            tasks: parts,
        };
        let folder = folder.join(format!("chk-{checkpoint}")).display().to_string();
        let storage = Storage::open(&folder).unwrap();
        storage.create().unwrap();
        manifest::write(&storage, &manifest).unwrap();
        RestoreFrom { folder, checkpoint, ignore_unclaimed: false, own: true }
    }

    /// Tells that a snapshot has ended.
    pub fn end_snapshot(&self, tasks: &[Placement], checkpoint: u64, completed: bool) {
        self.tell_all(tasks, |attempts| ToWorker::CheckpointEnded {
            job: JOB,
            checkpoint,
            completed,
            attempts,
        });
    }

    pub fn state(&self, attempt: AttemptId) -> Option<TaskState> {
        self.states.get(&attempt).map(|(state, _)| *state)
    }

    /// Waits until all of these have ended, however.
    pub fn wait_for_end(&mut self, tasks: &[Placement]) {
        self.wait("all to end", |cluster| {
            tasks.iter().all(|placement| cluster.state(placement.attempt).is_some_and(TaskState::is_terminal))
        });
    }

    pub fn wait_for_running(&mut self, tasks: &[Placement]) {
        // Some may have read all of their input before the last one begins.
        let runs = |state| matches!(state, Some(TaskState::Running | TaskState::Finished));
        self.wait("all to run", |cluster| {
            tasks.iter().all(|placement| runs(cluster.state(placement.attempt)))
        });
    }

    /// The messages of the failures among these.
    pub fn failures(&self, tasks: &[Placement]) -> Vec<String> {
        let failures = tasks.iter().filter_map(|placement| self.states.get(&placement.attempt)?.1.as_ref());
        failures.map(|failure| failure.message.clone()).collect()
    }

    /// The vertices in the order in which they can be placed: at once, or stage by stage behind blocking edges.
    fn stages(&self) -> Vec<Vec<VertexId>> {
        let graph = &self.program.graph;
        let mut stage: BTreeMap<VertexId, usize> = BTreeMap::new();
        for vertex in &graph.vertices {
            let above = graph
                .inputs(vertex.id)
                .map(|(_, edge)| stage[&edge.source] + usize::from(edge.exchange == EdgeExchange::Blocking));
            let own = above.max().unwrap_or(0);
            stage.insert(vertex.id, own);
        }
        let numbers: BTreeSet<usize> = stage.values().copied().collect();
        numbers
            .into_iter()
            .map(|number| stage.iter().filter(|(_, own)| **own == number).map(|(id, _)| *id).collect())
            .collect()
    }

    /// Runs the job to its end, stage by stage, and expects all of its tasks to finish.
    pub fn run(&mut self, job_epoch: u32) {
        for stage in self.stages() {
            let tasks = self.place(&stage, job_epoch, |_| None);
            self.deploy(&tasks);
            self.wait_for_end(&tasks);
            for placement in &tasks {
                let reported = &self.states[&placement.attempt];
                assert_eq!(reported.0, TaskState::Finished, "{reported:?}");
            }
        }
    }
}

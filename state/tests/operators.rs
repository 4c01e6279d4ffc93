//! Operators with keyed state over both backends: what they give over snapshots and restarts, at changing parallelism and with little memory,
//! is what they give alone.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use flott_dataflow::context::Settings;
use flott_dataflow::harness::{Harness, HarnessBuilder};
use flott_dataflow::key::{ByRef, stable_hash};
use flott_dataflow::operators::keyed_process::{KeyedContext, KeyedProcess, KeyedProcessFunction};
use flott_dataflow::operators::open::OpenContext;
use flott_dataflow::operators::reduce::RollingReduce;
use flott_dataflow::state::{ListState, MapState, Timer, ValueState};
use flott_schema::Result;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
use flott_schema::key_group::{key_group_of, owner_of};
use flott_schema::snapshot::{
    Barrier, Manifest, ManifestOperator, ManifestVertex, RestoreFrom, TaskSnapshot,
};
use flott_state::{
    Backend, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras, TaskIdentity,
};

const JOB: JobId = JobId(1);
const VERTEX: VertexId = VertexId(2);
const KEY_GROUPS: u32 = 16;
/// The harness calls its operator so.
const UID: &str = "test";

/// Key, what to do, a number.
type Order = (String, u8, i64);
type Op = Harness<Order, (), Order>;
type Make = fn(HarnessBuilder<Order>) -> Result<Op>;

#[derive(Clone, Default)]
struct Everything {
    value: ValueState<i64>,
    list: ListState<i64>,
    map: MapState<u8, String>,
}

impl KeyedProcessFunction<String, Order, Order> for Everything {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.value = ctx.value_state("value")?;
        self.list = ctx.list_state("list")?;
        self.map = ctx.map_state("map")?;
        Ok(())
    }

    fn process(
        &mut self,
        (key, what, number): Order,
        ctx: &mut KeyedContext<'_, String, Order>,
    ) -> Result<()> {
        let small = (number % 5) as u8;
        let result = match what {
            0 | 1 => self.value.update(ctx, |value| {
                *value = value.wrapping_mul(7).wrapping_add(number);
                *value
            }),
            2 => self.value.take(ctx).unwrap_or(-1),
            3 | 4 => {
                self.list.add(ctx, number);
                self.list.iter(ctx).sum()
            }
            5 => self.list.take(ctx).len() as i64,
            6 => {
                self.map.put(ctx, small, "x".repeat(number as usize % 50));
                self.map.len(ctx) as i64
            }
            7 => self.map.remove(ctx, &small).map_or(-1, |text| text.len() as i64),
            8 => {
                ctx.register_event_timer(number);
                0
            }
            _ => {
                ctx.delete_event_timer(number);
                0
            }
        };
        ctx.collect((key, what, result));
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedContext<'_, String, Order>) -> Result<()> {
        let value = self.value.take(ctx).unwrap_or(-1);
        let key = ctx.key().clone();
        ctx.collect((key, 255, value.wrapping_add(timer.timestamp_ms)));
        Ok(())
    }
}

fn key() -> ByRef<fn(&Order) -> &String, String> {
    ByRef::new(|order: &Order| &order.0)
}

fn function(builder: HarnessBuilder<Order>) -> Result<Op> {
    builder.one_input(|ctx| Ok(KeyedProcess::new(key(), Everything::default(), ctx)))
}

fn reduce(builder: HarnessBuilder<Order>) -> Result<Op> {
    builder.one_input(|_| {
        Ok(RollingReduce::new(key(), |sum: &mut Order, next: &mut Order| {
            sum.2 = sum.2.wrapping_mul(7).wrapping_add(next.2);
        }))
    })
}

/// Tasks of one operator.
struct Tasks {
    directory: tempfile::TempDir,
    service: Arc<StateService>,
    memory_bytes: usize,
    make: Make,
    backends: Vec<Rc<TaskBackend>>,
    tasks: Vec<Op>,
    checkpoint: u64,
    attempt: u32,
}

/// A snapshot on its way.
struct Taking {
    checkpoint: u64,
    parts: Vec<Receiver<Result<TaskSnapshot>>>,
}

impl Tasks {
    fn new(backend: Backend, memory_bytes: usize, make: Make) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StateOptions { backend, ..StateOptions::new(directory.path().join("work")) };
        let service = StateService::start(options).unwrap();
        let (backends, tasks) = (Vec::new(), Vec::new());
        let mut tasks =
            Tasks { directory, service, memory_bytes, make, backends, tasks, checkpoint: 0, attempt: 0 };
        tasks.start(2, None);
        tasks
    }

    fn start(&mut self, parallelism: u32, from: Option<&RestoreFrom>) {
        self.tasks.clear();
        self.backends.clear();
        for subtask in 0..parallelism {
            self.attempt += 1;
            let identity = TaskIdentity {
                job: JOB,
                attempt: AttemptId {
                    task: TaskId { vertex: VERTEX, subtask },
                    job_epoch: 1,
                    attempt: self.attempt,
                },
                parallelism,
                max_parallelism: KEY_GROUPS,
                operators: vec![OperatorId::of_uid(UID)],
                memory_bytes: self.memory_bytes,
                cancelled: Arc::default(),
            };
            let backend = TaskBackend::open(&self.service, identity, from).unwrap();
            let place = (subtask, parallelism, KEY_GROUPS);
            let builder = HarnessBuilder::with_task_state(Settings::default(), backend.clone(), place);
            self.tasks.push((self.make)(builder).unwrap());
            backend.check_claimed().unwrap();
            self.backends.push(backend);
        }
    }

    fn push(&mut self, orders: &[Order]) {
        let parallelism = self.tasks.len() as u32;
        for (subtask, task) in (0..).zip(&mut self.tasks) {
            let own = orders.iter().filter(|order| {
                owner_of(key_group_of(stable_hash(&order.0), KEY_GROUPS), KEY_GROUPS, parallelism) == subtask
            });
            task.push_all(own.map(|order| (order.clone(), 0))).unwrap();
        }
    }

    fn watermark(&mut self, to: i64) {
        self.tasks.iter_mut().for_each(|task| task.watermark(to).unwrap());
    }

    fn take(&mut self) -> Vec<Order> {
        let mut records: Vec<Order> = self.tasks.iter_mut().flat_map(|task| task.take_records()).collect();
        records.sort();
        records
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join("snapshots").join(name).to_string_lossy().into_owned()
    }

    /// The barrier passes; what has to be handed in may come later.
    fn barrier(&mut self) -> Taking {
        self.checkpoint += 1;
        let checkpoint = self.checkpoint;
        let target = SnapshotTarget {
            folder: self.path(&format!("chk-{checkpoint}")),
            shared_folder: Some(self.path("shared")),
        };
        let begin = |(task, backend): (&mut Op, &Rc<TaskBackend>)| {
            backend.begin(&Barrier::of_checkpoint(checkpoint)).unwrap();
            task.barrier(checkpoint).unwrap();
            let (send, part) = sync_channel(1);
            // Nobody listens any more when a snapshot is given up at the end.
            let told = Box::new(move |result| drop(send.send(result)));
            backend.passed(checkpoint, false);
            backend.end(checkpoint, target.clone(), TaskExtras::default(), told);
            part
        };
        let parts = self.tasks.iter_mut().zip(&self.backends).map(begin).collect();
        Taking { checkpoint, parts }
    }

    fn complete(&mut self, taking: Taking) -> RestoreFrom {
        let checkpoint = taking.checkpoint;
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut parts = Vec::new();
        for (task, part) in self.tasks.iter_mut().zip(taking.parts) {
            parts.push(loop {
                task.poll().unwrap();
                match part.recv_timeout(Duration::from_millis(1)) {
                    Ok(part) => break part.unwrap(),
                    Err(_) => assert!(Instant::now() < deadline, "the snapshot does not end"),
                }
            });
        }
        let operator =
            ManifestOperator { operator: OperatorId::of_uid(UID), uid: UID.into(), name: UID.into() };
        let vertex = ManifestVertex {
            vertex: VERTEX,
            name: "vertex".into(),
            parallelism: parts.len() as u32,
            max_parallelism: KEY_GROUPS,
            operators: vec![operator],
        };
        let manifest = Manifest {
            job: JOB,
            job_name: "job".into(),
            checkpoint,
            kind: Barrier::of_checkpoint(checkpoint).kind,
            timestamp_ms: 0,
            vertices: vec![vertex],
            tasks: parts,
        };
        let folder = self.path(&format!("chk-{checkpoint}"));
        let storage = flott_storage::Storage::open(&folder).unwrap();
        storage.create().unwrap();
        flott_storage::manifest::write(&storage, &manifest).unwrap();
        self.backends.iter().for_each(|backend| backend.completed(checkpoint));
        RestoreFrom { folder, checkpoint, ignore_unclaimed: false, own: true }
    }
}

/// Numbers that look random and are the same every time (Marsaglia: *Xorshift RNGs*, 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn check(backend: Backend, memory_bytes: usize, keys: u64, make: Make, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut tasks = Tasks::new(backend, memory_bytes, make);
    let mut alone = make(HarnessBuilder::new(Settings::default())).unwrap();
    let mut watermark = 0;
    let mut taking: Option<Taking> = None;
    let mut behind: Vec<(Vec<Order>, i64)> = Vec::new();
    for step in 0..120 {
        let order = |numbers: &mut Numbers| {
            (format!("key {}", numbers.below(keys)), numbers.below(10) as u8, numbers.below(2_000) as i64)
        };
        let orders: Vec<Order> = (0..numbers.below(200)).map(|_| order(&mut numbers)).collect();
        watermark += numbers.below(20) as i64;
        tasks.push(&orders);
        tasks.watermark(watermark);
        alone.push_all(orders.iter().map(|order| (order.clone(), 0))).unwrap();
        alone.watermark(watermark).unwrap();
        let mut expected = alone.take_records();
        expected.sort();
        assert_eq!(tasks.take(), expected, "step {step} of seed {seed}");
        behind.push((orders, watermark));
        match numbers.below(6) {
            0 => {
                if let Some(before) = taking.take() {
                    tasks.complete(before);
                }
                taking = Some(tasks.barrier());
                behind.clear();
            }
            1 => {
                // From the snapshot; what came behind it comes again.
                let Some(taken) = taking.take() else { continue };
                let from = tasks.complete(taken);
                tasks.start(1 + numbers.below(4) as u32, Some(&from));
                for (orders, watermark) in &behind {
                    tasks.push(orders);
                    tasks.watermark(*watermark);
                }
                tasks.take();
            }
            _ => {}
        }
    }
}

#[test]
fn operators_go_on_over_the_backend_in_memory() {
    for seed in 1..3 {
        check(Backend::HashMap, 0, 300, function, seed);
        check(Backend::HashMap, 0, 300, reduce, seed);
    }
}

#[test]
fn operators_go_on_over_rocksdb() {
    for seed in 11..13 {
        check(Backend::RocksDb, 0, 300, function, seed);
        check(Backend::RocksDb, 0, 300, reduce, seed);
    }
}

#[test]
fn operators_go_on_over_rocksdb_with_little_memory() {
    for seed in 21..23 {
        check(Backend::RocksDb, 60_000, 2_000, function, seed);
        check(Backend::RocksDb, 60_000, 2_000, reduce, seed);
    }
}

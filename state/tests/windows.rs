//! Windows over RocksDB whose state is more than ten times the memory that it may take: they give what they should, memory does not grow, and a
//! restart loads nothing.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use flott_dataflow::api::{DataStream, StreamEnv};
use flott_dataflow::batch::Batch;
use flott_dataflow::context::{OperatorContext, Settings, TaskContext};
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_dataflow::snapshot::Snapshots;
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_dataflow::stage::Flow;
use flott_dataflow::task::Task;
use flott_dataflow::time::AggregateFunction;
use flott_dataflow::window::{EventTimeSessionWindows, SlidingEventTimeWindows, TumblingEventTimeWindows};
use flott_schema::Result;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
use flott_schema::snapshot::{
    Barrier, Manifest, ManifestOperator, ManifestVertex, RestoreFrom, TaskSnapshot,
};
use flott_state::{
    Backend, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras, TaskIdentity,
};

const UID: &str = "windows";
const KEYS: u64 = 60_000;
const BATCH: u64 = 1024;
/// A quarter is for caches.
const MEMORY_BYTES: usize = 3 << 20;
/// What an accumulator holds besides its sum.
const PADDING_BYTES: usize = 500;
/// Keys that may be in memory at a time, copies among them: those that the memory has room for, a page of a firing, the rows of a page that are
/// gone, a batch and what it misses, and rows on their way.
const HELD_MAX: usize = 20_000;

static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most that were held at a time.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// A key that is counted as long as it is held in memory.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Counted(u64);

impl Counted {
    fn new(id: u64) -> Self {
        let held = HELD.fetch_add(1, Ordering::Relaxed) + 1;
        MOST.fetch_max(held, Ordering::Relaxed);
        Counted(id)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Counted::new(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Counted::new)
    }
}

/// Sums, with much beside the sum.
#[derive(Clone)]
struct Large;

impl AggregateFunction for Large {
    type In = (u64, u64);
    type Accumulator = (u64, String);
    type Out = u64;

    fn create(&self) -> (u64, String) {
        (0, "x".repeat(PADDING_BYTES))
    }

    fn add(&self, accumulator: &mut (u64, String), record: (u64, u64)) {
        accumulator.0 += record.1;
    }

    fn merge(&self, accumulator: &mut (u64, String), other: &(u64, String)) {
        accumulator.0 += other.0;
    }

    fn result(&self, accumulator: &(u64, String)) -> u64 {
        assert_eq!(accumulator.1.len(), PADDING_BYTES);
        accumulator.0
    }
}

/// A source without records: the test feeds the operator behind it.
struct Nothing<T>(PhantomData<fn() -> T>);

impl<T> Clone for Nothing<T> {
    fn clone(&self) -> Self {
        Nothing(PhantomData)
    }
}

impl Source for Nothing<(u64, u64)> {
    type Record = (u64, u64);
    type Split = ();
    type Enumerator = Self;
    type Reader = Self;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> Result<Self> {
        Ok(self.clone())
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl SplitEnumerator for Nothing<(u64, u64)> {
    type Split = ();

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<()>> {
        Ok(Assignment::NoMore)
    }
}

impl SourceReader for Nothing<(u64, u64)> {
    type Record = (u64, u64);
    type Split = ();

    fn add_split(&mut self, _split: ()) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<(u64, u64)>> {
        Ok(Poll::Ready(None))
    }

    fn snapshot(&self) -> Vec<()> {
        Vec::new()
    }
}

/// Key, end of the window, sum.
type Sum = (u64, i64, u64);

struct Capture(Arc<Mutex<Vec<Sum>>>);

impl ChannelWriter for Capture {
    fn send(&mut self, element: Element) -> Result<()> {
        if let Element::Batch(batch) = element {
            let batch = batch.into_any().downcast::<Batch<Sum>>().expect("a batch of sums");
            self.0.lock().unwrap().extend(batch.into_iter().map(|(sum, _)| sum));
        }
        Ok(())
    }
}

type Build = fn(&DataStream<(u64, u64)>) -> DataStream<Sum>;

struct Job {
    directory: tempfile::TempDir,
    service: Arc<StateService>,
    build: Build,
    attempt: u32,
}

struct Running {
    task: Box<dyn Task>,
    backend: Rc<TaskBackend>,
    sums: Arc<Mutex<Vec<Sum>>>,
}

impl Job {
    fn new(build: Build) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StateOptions {
            backend: Backend::RocksDb,
            buffer_bytes: 1 << 20,
            ..StateOptions::new(directory.path().join("work"))
        };
        Job { service: StateService::start(options).unwrap(), directory, build, attempt: 0 }
    }

    fn start(&mut self, from: Option<&RestoreFrom>) -> Running {
        let env = StreamEnv::new();
        let windows = (self.build)(&env.add_source(Nothing(PhantomData), "nothing")).uid(UID);
        let _ = windows.map(|sum: Sum| sum);
        // So that the operator under test heads its task.
        env.disable_operator_chaining();
        let program = env.compile("windows").unwrap();
        let graph = &program.graph;
        let is_read = |vertex: &VertexId| graph.edges.iter().any(|edge| edge.source == *vertex);
        let vertex =
            graph.vertices.iter().rfind(|vertex| !vertex.is_source && is_read(&vertex.id)).unwrap().id;
        self.attempt += 1;
        let identity = TaskIdentity {
            job: JobId(1),
            attempt: AttemptId { task: TaskId { vertex, subtask: 0 }, job_epoch: 1, attempt: self.attempt },
            parallelism: 1,
            max_parallelism: 128,
            operators: vec![OperatorId::of_uid(UID)],
            memory_bytes: MEMORY_BYTES,
            cancelled: Arc::default(),
        };
        let backend = TaskBackend::open(&self.service, identity, from).unwrap();
        let mut ctx = TaskContext::new("windows", "windows", 0, 1, 128, Settings::default());
        ctx.snapshots = Snapshots::new(backend.clone(), false);
        let sums: Arc<Mutex<Vec<Sum>>> = Arc::default();
        let writer = || -> Box<dyn ChannelWriter> { Box::new(Capture(sums.clone())) };
        let mut task = program.build_task(vertex, &Rc::new(ctx), &mut |_| vec![writer()]).unwrap().task;
        task.open().unwrap();
        backend.check_claimed().unwrap();
        Running { task, backend, sums }
    }

    fn checkpoint(&self, running: &mut Running, checkpoint: u64) -> RestoreFrom {
        let folder =
            |name: &str| self.directory.path().join("snapshots").join(name).to_string_lossy().into_owned();
        let target =
            SnapshotTarget { folder: folder(&checkpoint.to_string()), shared_folder: Some(folder("shared")) };
        let barrier = Barrier::of_checkpoint(checkpoint);
        running.backend.begin(&barrier).unwrap();
        running.signal(Signal::Barrier(barrier));
        running.backend.passed(checkpoint, false);
        let (send, part) = sync_channel(1);
        let told = Box::new(move |result| send.send(result).unwrap());
        running.backend.end(checkpoint, target.clone(), TaskExtras::default(), told);
        while running.task.next_deadline_ms() == i64::MIN {
            running.poll();
        }
        let part: TaskSnapshot =
            part.recv_timeout(Duration::from_secs(120)).expect("the snapshot ends").unwrap();
        let operator =
            ManifestOperator { operator: OperatorId::of_uid(UID), uid: UID.into(), name: UID.into() };
        let vertex = ManifestVertex {
            vertex: part.task.vertex,
            name: UID.into(),
            parallelism: 1,
            max_parallelism: 128,
            operators: vec![operator],
        };
        let manifest = Manifest {
            job: JobId(1),
            job_name: "windows".into(),
            checkpoint,
            kind: barrier.kind,
            timestamp_ms: 0,
            vertices: vec![vertex],
            tasks: vec![part],
        };
        let storage = flott_storage::Storage::open(&target.folder).unwrap();
        storage.create().unwrap();
        flott_storage::manifest::write(&storage, &manifest).unwrap();
        running.backend.completed(checkpoint);
        RestoreFrom { folder: target.folder, checkpoint, ignore_unclaimed: false, own: true }
    }
}

impl Running {
    /// A record of each key.
    fn push_all(&mut self, timestamp_ms: i64, number: u64) {
        for first in (0..KEYS).step_by(BATCH as usize) {
            let mut batch: Batch<(u64, u64)> = Batch::default();
            // Far apart, so that no two batches meet in the same blocks.
            let keys = (first..KEYS.min(first + BATCH)).map(|key| key * 7919 % KEYS);
            keys.for_each(|key| batch.push((key, number + key), timestamp_ms));
            self.task.push(0, Box::new(batch)).unwrap();
            self.poll();
        }
    }

    fn poll(&mut self) {
        let _ = self.task.poll(0, &mut Context::from_waker(Waker::noop())).unwrap();
    }

    fn signal(&mut self, signal: Signal) {
        while self.task.signal(signal).unwrap() == Flow::Again {
            self.poll();
        }
    }

    fn watermark(&mut self, watermark_ms: i64) -> BTreeMap<(i64, u64), u64> {
        self.signal(Signal::Watermark(watermark_ms));
        self.task.flush().unwrap();
        let mut sums = BTreeMap::new();
        for (key, end_ms, sum) in std::mem::take(&mut *self.sums.lock().unwrap()) {
            assert!(sums.insert((end_ms, key), sum).is_none(), "key {key} has one result a window");
        }
        sums
    }
}

/// What windows that end at these times give, where each key's sum is that of `numbers` and its own for each of them.
fn expected(windows: &[(i64, &[u64])]) -> BTreeMap<(i64, u64), u64> {
    let sum = |key: u64, numbers: &[u64]| numbers.iter().map(|number| number + key).sum();
    windows
        .iter()
        .flat_map(|(end_ms, numbers)| (0..KEYS).map(move |key| ((*end_ms, key), sum(key, numbers))))
        .collect()
}

fn check(build: Build, expected_at: &[(i64, &[(i64, &[u64])])]) {
    assert_eq!(HELD.load(Ordering::Relaxed), 0);
    let mut job = Job::new(build);
    let mut running = job.start(None);
    running.push_all(1000, 1);
    running.push_all(11_000, 20);
    let first = job.checkpoint(&mut running, 1);
    running.push_all(12_000, 300);
    drop(running);
    // What came behind the checkpoint comes again.
    let mut running = job.start(Some(&first));
    assert_eq!(HELD.load(Ordering::Relaxed), 0, "a restart loads nothing");
    running.push_all(2000, 300);
    let mut later: Option<RestoreFrom> = None;
    for (number, (watermark_ms, windows)) in (2..).zip(expected_at) {
        if let Some(from) = later.take() {
            running = job.start(Some(&from));
        }
        assert!(running.watermark(*watermark_ms) == expected(windows), "the windows up to {watermark_ms}");
        later = Some(job.checkpoint(&mut running, number));
    }
    let most = MOST.swap(0, Ordering::Relaxed);
    assert!((1000..HELD_MAX).contains(&most), "{most} keys in memory");
    assert!(running.watermark(i64::MAX - 1).is_empty(), "all windows have fired");
    drop(running);
    assert_eq!(HELD.load(Ordering::Relaxed), 0);
}

// One test: all count the same keys.
#[test]
fn windows_of_more_than_ten_times_the_memory_fire_exactly_and_do_not_grow() {
    const TEN: Duration = Duration::from_secs(10);
    // Two slices of as many states as there are keys.
    assert!(2 * KEYS as usize * PADDING_BYTES > 10 * (MEMORY_BYTES - MEMORY_BYTES / 4));
    check(
        |stream| {
            let windows =
                stream.key_by(|record| Counted::new(record.0)).window(TumblingEventTimeWindows::of(TEN));
            windows.aggregate_with(Large, |key: &Counted, window, sum| (key.0, window.end_ms, sum))
        },
        &[(9_999, &[(10_000, &[1, 300])]), (19_999, &[(20_000, &[20])])],
    );
    check(
        |stream| {
            let windows = SlidingEventTimeWindows::of(TEN * 2, TEN);
            let windows = stream.key_by(|record| Counted::new(record.0)).window(windows);
            windows.aggregate_with(Large, |key: &Counted, window, sum| (key.0, window.end_ms, sum))
        },
        &[
            (9_999, &[(10_000, &[1, 300])]),
            (19_999, &[(20_000, &[1, 300, 20])]),
            (29_999, &[(30_000, &[20])]),
        ],
    );
    check(
        |stream| {
            let windows = EventTimeSessionWindows::with_gap(TEN / 2);
            let windows = stream.key_by(|record| Counted::new(record.0)).window(windows);
            windows.aggregate_with(Large, |key: &Counted, window, sum| (key.0, window.end_ms, sum))
        },
        &[(6_999, &[(7000, &[1, 300])]), (15_999, &[(16_000, &[20])])],
    );
}

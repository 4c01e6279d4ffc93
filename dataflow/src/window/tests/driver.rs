//! Builds the task of a window operator from a program, drives it, and captures what it sends.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use flott_schema::Result;
use flott_schema::graph::ExecutionMode;
use flott_schema::ids::VertexId;
use flott_schema::key_group::{key_group_of, owner_of};

use crate::api::{DataStream, StreamEnv};
use crate::batch::{Batch, Record};
use crate::context::{Congestion, OperatorContext, OperatorMetrics, Settings, TaskContext};
use crate::element::{Barrier, Element, MAX_WATERMARK, Signal};
use crate::exchange::ChannelWriter;
use crate::function::Function;
use crate::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use crate::operator::OutputTag;
use crate::program::Program;
use crate::snapshot::Snapshots;
use crate::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use crate::stage::Flow;
use crate::task::Task;

/// A source without records: the driver feeds the operator behind it.
struct Nothing<T>(PhantomData<fn() -> T>);

impl<T> Clone for Nothing<T> {
    fn clone(&self) -> Self {
        Nothing(PhantomData)
    }
}

impl<T: Record> Source for Nothing<T> {
    type Record = T;
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

impl<T: 'static> SplitEnumerator for Nothing<T> {
    type Split = ();

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<()>> {
        Ok(Assignment::NoMore)
    }
}

impl<T: 'static> SourceReader for Nothing<T> {
    type Record = T;
    type Split = ();

    fn add_split(&mut self, _split: ()) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<T>> {
        Ok(Poll::Ready(None))
    }

    fn snapshot(&self) -> Vec<()> {
        Vec::new()
    }
}

/// What was sent on an edge.
struct Sent<T> {
    records: Vec<(T, i64)>,
    watermarks: Vec<i64>,
    idle: Vec<bool>,
    batches: usize,
    /// Batches that may still be sent before the task is held back.
    credit: usize,
}

/// Channel writers can be sent to other threads.
struct Shared<T>(Arc<Mutex<Sent<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> Shared<T> {
    fn get(&self) -> MutexGuard<'_, Sent<T>> {
        self.0.lock().unwrap()
    }
}

struct CapturingWriter<T> {
    sent: Shared<T>,
    congestion: Arc<Congestion>,
}

impl<T: Record> ChannelWriter for CapturingWriter<T> {
    fn send(&mut self, element: Element) -> Result<()> {
        let mut sent = self.sent.get();
        match element {
            Element::Batch(batch) => {
                let batch = batch.into_any().downcast::<Batch<T>>().expect("a batch of the edge's type");
                sent.records.extend(*batch);
                sent.batches += 1;
                if sent.credit > 0 {
                    sent.credit -= 1;
                    if sent.credit == 0 {
                        self.congestion.block();
                    }
                }
            }
            Element::Signal(Signal::Watermark(watermark)) => sent.watermarks.push(watermark),
            Element::Signal(Signal::Idle(idle)) => sent.idle.push(idle),
            Element::Signal(_) => {}
        }
        Ok(())
    }
}

/// Drives a task that reads `I` and sends `O`; or several, if it is told how records find them.
pub struct Driver<I, O> {
    tasks: Vec<Running>,
    program: Program,
    vertex: VertexId,
    conditions: Conditions,
    congestion: Arc<Congestion>,
    now_ms: i64,
    sent: Shared<O>,
    late: Shared<I>,
    /// Of all tasks there have been.
    metrics: Vec<Arc<OperatorMetrics>>,
    /// The stable hash of a record's key.
    route: Option<fn(&I) -> u64>,
    /// The last barrier.
    checkpoint: u64,
    /// When it came.
    barrier_ms: i64,
    /// What it has, once that was needed.
    parts: Option<Vec<MemorySnapshot>>,
    /// What was done since.
    log: Vec<Logged<I, O>>,
}

/// A task under test.
struct Running {
    task: Box<dyn Task>,
    ctx: Rc<TaskContext>,
    state: Option<Rc<MemoryState>>,
}

/// What was done with a driver.
#[derive(Clone)]
enum Logged<I, O> {
    Push(Vec<(I, i64)>),
    Signal(Signal),
    Time(i64),
    Took(Vec<(O, i64)>),
    TookLate(Vec<(I, i64)>),
}

/// Results and late records since the last barrier.
type Results<I, O> = (Vec<(O, i64)>, Vec<(I, i64)>);

/// What came out between the last barrier and a crash, and what came out when that was repeated behind it.
pub struct Repeated<I, O> {
    pub before: Results<I, O>,
    pub after: Results<I, O>,
}

/// The tag of late records that drivers read.
pub fn late<T>() -> OutputTag<T> {
    OutputTag::new("late")
}

fn sent<T>() -> Shared<T> {
    Shared(Arc::new(Mutex::new(Sent {
        records: Vec::new(),
        watermarks: Vec::new(),
        idle: Vec::new(),
        batches: 0,
        credit: 0,
    })))
}

/// How a driver runs its task.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    pub mode: ExecutionMode,
    pub batch_size: usize,
    /// Batches that may be sent at a time; 0 for any number.
    pub credit: usize,
    /// What snapshots take, if there are any.
    pub snapshots: Option<MemoryKind>,
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions { mode: ExecutionMode::Streaming, batch_size: 1024, credit: 0, snapshots: None }
    }
}

impl<I: Record, O: Record> Driver<I, O> {
    /// The task of the last operator that `build` adds.
    pub fn new(build: impl FnOnce(&DataStream<I>) -> DataStream<O>) -> Self {
        Self::under(Conditions::default(), build)
    }

    /// Like [`Self::new`], under special conditions.
    pub fn under(conditions: Conditions, build: impl FnOnce(&DataStream<I>) -> DataStream<O>) -> Self {
        Self::try_under(conditions, build).unwrap()
    }

    /// Like [`Self::new`], for programs that are refused.
    pub fn refused(build: impl FnOnce(&DataStream<I>) -> DataStream<O>) -> String {
        let refused = Self::try_under(Conditions::default(), build);
        refused.err().expect("the program is refused").message().to_string()
    }

    fn try_under(
        conditions: Conditions,
        build: impl FnOnce(&DataStream<I>) -> DataStream<O>,
    ) -> Result<Self> {
        let env = StreamEnv::new();
        let windows = build(&env.add_source(Nothing(PhantomData), "nothing"));
        Self::of(conditions, &env, &windows)
    }

    /// The task of the last operator of a program with two sources.
    pub fn of_two<L: Record, R: Record>(
        build: impl FnOnce(&DataStream<L>, &DataStream<R>) -> DataStream<O>,
    ) -> Self {
        let env = StreamEnv::new();
        let left = env.add_source(Nothing(PhantomData), "left");
        let windows = build(&left, &env.add_source(Nothing(PhantomData), "right"));
        Self::of(Conditions::default(), &env, &windows).unwrap()
    }

    fn of(conditions: Conditions, env: &StreamEnv, windows: &DataStream<O>) -> Result<Self> {
        fn keep<T: Record>() -> impl FnMut(T) -> T + Function {
            |record| record
        }
        let _ = windows.map(keep());
        let _ = windows.side_output(&late::<I>()).map(keep());
        // So that the operator under test heads its task.
        env.disable_operator_chaining();
        let program = env.compile("windows")?;
        let graph = &program.graph;
        let is_read = |vertex: &VertexId| graph.edges.iter().any(|edge| edge.source == *vertex);
        let vertex = graph.vertices.iter().rfind(|vertex| !vertex.is_source && is_read(&vertex.id)).unwrap();
        let vertex = vertex.id;
        let congestion = Arc::<Congestion>::default();
        let (sent, late) = (sent::<O>(), sent::<I>());
        sent.get().credit = conditions.credit;
        let mut driver = Driver {
            tasks: Vec::new(),
            program,
            vertex,
            conditions,
            congestion,
            now_ms: 0,
            sent,
            late,
            metrics: Vec::new(),
            route: None,
            checkpoint: 0,
            barrier_ms: 0,
            parts: None,
            log: Vec::new(),
        };
        driver.start(1, None)?;
        Ok(driver)
    }

    /// Starts so many tasks, from a snapshot or from nothing.
    fn start(&mut self, parallelism: u32, parts: Option<&[MemorySnapshot]>) -> Result<()> {
        self.tasks.clear();
        for subtask in 0..parallelism {
            let settings = Settings {
                mode: self.conditions.mode,
                batch_size: self.conditions.batch_size,
                buffer_timeout_ms: -1,
                ..Settings::default()
            };
            let mut ctx = TaskContext::new("windows", "windows", subtask, parallelism, 128, settings);
            let state = self.conditions.snapshots.map(|kind| match parts {
                None => MemoryState::new(kind, subtask, parallelism, 128),
                Some(parts) => MemoryState::restored_from(parts, kind, subtask, parallelism, 128),
            });
            if let Some(state) = &state {
                ctx.snapshots = Snapshots::new(state.clone(), false);
            }
            ctx.congestion = self.congestion.clone();
            ctx.set_now_ms(self.now_ms);
            let ctx = Rc::new(ctx);
            let mut edges = 0;
            let (congestion, sent, late) = (&self.congestion, &self.sent, &self.late);
            let built = self.program.build_task(self.vertex, &ctx, &mut |_edge| {
                edges += 1;
                let congestion = congestion.clone();
                match edges {
                    1 => vec![Box::new(CapturingWriter { sent: sent.clone(), congestion })],
                    _ => vec![Box::new(CapturingWriter { sent: late.clone(), congestion })],
                }
            })?;
            let mut task = built.task;
            task.open()?;
            self.metrics.push(built.metrics[0].1.clone());
            self.tasks.push(Running { task, ctx, state });
        }
        Ok(())
    }

    /// From now on records go to the task of their key, of which this gives the stable hash.
    pub fn routed(self, route: fn(&I) -> u64) -> Self {
        Driver { route: Some(route), ..self }
    }

    /// Whether there was one.
    pub fn has_barrier(&self) -> bool {
        self.checkpoint > 0
    }

    /// A barrier in every task; what is frozen stays where it is until something copies it.
    pub fn barrier(&mut self) {
        self.checkpoint += 1;
        self.barrier_ms = self.now_ms;
        self.log.clear();
        self.parts = None;
        for running in &self.tasks {
            running.state.as_ref().expect("the driver takes snapshots").begin(self.checkpoint);
        }
        self.signal_all(Signal::Barrier(Barrier::of_checkpoint(self.checkpoint)));
    }

    /// All tasks are gone; so many start from the last barrier, and do all again that was done since.
    pub fn crash(&mut self, parallelism: u32) -> Repeated<I, O> {
        let parts = self.parts.take().unwrap_or_else(|| self.snapshot());
        // What the old tasks have sent since it was last taken is repeated as well.
        let unseen: Results<I, O> = (self.take_sent(), std::mem::take(&mut self.late.get().records));
        let log = std::mem::take(&mut self.log);
        self.now_ms = self.barrier_ms;
        self.start(parallelism, Some(&parts)).unwrap();
        self.parts = Some(parts);
        self.repeat(log, unseen)
    }

    /// The tasks hand in what they have to for the last barrier, and go on.
    pub fn snapshot_and_go_on(&mut self) {
        self.parts = Some(self.snapshot());
    }

    /// Rows that the first task has looked up, and written outside of snapshots.
    pub fn fetched_and_written(&self) -> (usize, usize) {
        self.tasks[0].state.as_ref().expect("the driver takes snapshots").fetched_and_written()
    }

    /// Starts from the last barrier of another driver.
    pub fn start_from(&mut self, other: &Self) -> Result<()> {
        self.start(1, other.parts.as_deref())
    }

    /// What the tasks hand in for the last barrier.
    fn snapshot(&mut self) -> Vec<MemorySnapshot> {
        let mut parts = Vec::new();
        for running in &mut self.tasks {
            let state = running.state.as_ref().expect("the driver takes snapshots");
            let cx = &mut Context::from_waker(Waker::noop());
            let mut polls = 0;
            while !state.is_complete(self.checkpoint) {
                assert!(
                    running.task.next_deadline_ms() <= self.now_ms,
                    "a task that has rows to copy is due"
                );
                let _ = running.task.poll(i64::MIN, cx).unwrap();
                polls += 1;
                assert!(polls < 1000, "a snapshot comes to an end");
            }
            parts.push(state.snapshot(self.checkpoint).unwrap());
        }
        parts
    }

    fn repeat(&mut self, log: Vec<Logged<I, O>>, unseen: Results<I, O>) -> Repeated<I, O> {
        let mut before: Results<I, O> = (Vec::new(), Vec::new());
        for logged in log {
            match logged {
                Logged::Push(records) => self.push(records),
                Logged::Signal(signal) => self.signal(signal),
                Logged::Time(now_ms) => self.move_time(now_ms),
                Logged::Took(records) => before.0.extend(records),
                Logged::TookLate(records) => before.1.extend(records),
            }
        }
        before.0.extend(unseen.0);
        before.1.extend(unseen.1);
        let after = (self.take_sent(), std::mem::take(&mut self.late.get().records));
        self.log.push(Logged::Took(after.0.clone()));
        self.log.push(Logged::TookLate(after.1.clone()));
        Repeated { before, after }
    }

    /// A batch of records with timestamps.
    pub fn push(&mut self, records: impl IntoIterator<Item = (I, i64)>) {
        self.try_push(records).unwrap();
    }

    pub fn try_push(&mut self, records: impl IntoIterator<Item = (I, i64)>) -> Result<()> {
        let records: Vec<(I, i64)> = records.into_iter().collect();
        self.log(|| Logged::Push(records.clone()));
        let count = self.tasks.len() as u32;
        let mut batches: Vec<Batch<I>> = self.tasks.iter().map(|_| Batch::default()).collect();
        for (record, timestamp) in records {
            let owner = match self.route {
                Some(route) => owner_of(key_group_of(route(&record), 128), 128, count),
                None => 0,
            };
            batches[owner as usize].push(record, timestamp);
        }
        for (running, batch) in self.tasks.iter_mut().zip(batches) {
            if !batch.is_empty() || count == 1 {
                running.task.push(0, Box::new(batch))?;
            }
        }
        Ok(())
    }

    fn log(&mut self, logged: impl FnOnce() -> Logged<I, O>) {
        if self.conditions.snapshots.is_some() {
            let logged = logged();
            self.log.push(logged);
        }
    }

    /// The runner waits until the outputs have room again.
    fn make_room(&mut self) {
        let mut sent = self.sent.get();
        if self.conditions.credit > 0 && sent.credit == 0 {
            sent.credit = self.conditions.credit;
            drop(sent);
            self.congestion.unblock();
        }
    }

    pub fn signal(&mut self, signal: Signal) {
        self.log(|| Logged::Signal(signal));
        self.signal_all(signal);
    }

    fn signal_all(&mut self, signal: Signal) {
        for index in 0..self.tasks.len() {
            self.make_room();
            while self.tasks[index].task.signal(signal).unwrap() == Flow::Again {
                assert!(
                    self.conditions.credit > 0,
                    "a task waits for room though it has all the room it wants"
                );
                // As the runner does: whatever waits is polled in between.
                let cx = &mut Context::from_waker(Waker::noop());
                let _ = self.tasks[index].task.poll(self.now_ms, cx).unwrap();
                self.make_room();
            }
        }
    }

    pub fn watermark_only(&mut self, watermark: i64) {
        self.signal(Signal::Watermark(watermark));
    }

    /// A watermark; gives what came out since the last call of this kind.
    pub fn watermark(&mut self, watermark: i64) -> Vec<(O, i64)> {
        self.signal(Signal::Watermark(watermark));
        self.take()
    }

    /// Moves the clock.
    pub fn time(&mut self, now_ms: i64) -> Vec<(O, i64)> {
        self.move_time(now_ms);
        self.take()
    }

    fn move_time(&mut self, now_ms: i64) {
        self.log(|| Logged::Time(now_ms));
        self.now_ms = now_ms;
        self.make_room();
        let cx = &mut Context::from_waker(Waker::noop());
        for index in 0..self.tasks.len() {
            self.tasks[index].ctx.set_now_ms(now_ms);
            while self.tasks[index].task.poll(now_ms, cx).unwrap() == Flow::Again {
                self.make_room();
            }
        }
    }

    /// Moves the clock, and lets each task do one step of what is due then.
    pub fn step(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        let cx = &mut Context::from_waker(Waker::noop());
        for running in &mut self.tasks {
            running.ctx.set_now_ms(now_ms);
            let _ = running.task.poll(now_ms, cx).unwrap();
        }
    }

    /// The input ends.
    pub fn end(&mut self) -> Vec<(O, i64)> {
        self.signal(Signal::Watermark(MAX_WATERMARK));
        self.signal(Signal::EndOfInput);
        self.take()
    }

    /// What came out since the last call.
    pub fn take(&mut self) -> Vec<(O, i64)> {
        let taken = self.take_sent();
        self.log(|| Logged::Took(taken.clone()));
        taken
    }

    /// The same, and the outputs stay as full as they are.
    pub fn take_leaving_no_room(&mut self) -> Vec<(O, i64)> {
        std::mem::take(&mut self.sent.get().records)
    }

    fn take_sent(&mut self) -> Vec<(O, i64)> {
        self.tasks.iter_mut().for_each(|running| running.task.flush().unwrap());
        self.make_room();
        std::mem::take(&mut self.sent.get().records)
    }

    /// The late records since the last call.
    pub fn take_late(&mut self) -> Vec<(I, i64)> {
        self.tasks.iter_mut().for_each(|running| running.task.flush().unwrap());
        let taken = std::mem::take(&mut self.late.get().records);
        self.log(|| Logged::TookLate(taken.clone()));
        taken
    }

    /// When the task next wants to be polled.
    pub fn deadline(&self) -> i64 {
        self.tasks[0].task.next_deadline_ms()
    }

    pub fn late_dropped(&self) -> u64 {
        let dropped = |metrics: &Arc<OperatorMetrics>| {
            metrics.late_records_dropped.load(std::sync::atomic::Ordering::Relaxed)
        };
        self.metrics.iter().map(dropped).sum()
    }

    /// The changes between idle and active that were passed on.
    pub fn idle(&self) -> Vec<bool> {
        self.sent.get().idle.clone()
    }

    /// The task under test.
    pub fn task(&mut self) -> &mut dyn Task {
        &mut *self.tasks[0].task
    }

    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// Batches and watermarks sent so far.
    pub fn sent(&self) -> (usize, Vec<i64>) {
        let sent = self.sent.get();
        (sent.batches, sent.watermarks.clone())
    }
}

/// In an order that does not depend on the operator.
pub fn sorted<T: Ord>(results: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut results: Vec<T> = results.into_iter().collect();
    results.sort();
    results
}

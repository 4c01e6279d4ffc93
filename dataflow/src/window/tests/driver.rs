//! Builds the task of a window operator from a program, drives it, and captures what it sends.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use flott_schema::Result;
use flott_schema::graph::ExecutionMode;

use crate::api::{DataStream, StreamEnv};
use crate::batch::{Batch, Record};
use crate::context::{Congestion, OperatorContext, OperatorMetrics, Settings, TaskContext};
use crate::element::{Element, MAX_WATERMARK, Signal};
use crate::exchange::ChannelWriter;
use crate::function::Function;
use crate::operator::OutputTag;
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

/// Drives a task that reads `I` and sends `O`.
pub struct Driver<I, O> {
    task: Box<dyn Task>,
    ctx: Rc<TaskContext>,
    sent: Shared<O>,
    late: Shared<I>,
    metrics: Arc<OperatorMetrics>,
    /// Credit given whenever the task is held back.
    credit: usize,
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
}

impl Default for Conditions {
    fn default() -> Self {
        Conditions { mode: ExecutionMode::Streaming, batch_size: 1024, credit: 0 }
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
        let is_read =
            |vertex: &flott_schema::ids::VertexId| graph.edges.iter().any(|edge| edge.source == *vertex);
        let vertex = graph.vertices.iter().rfind(|vertex| !vertex.is_source && is_read(&vertex.id)).unwrap();
        let settings = Settings {
            mode: conditions.mode,
            batch_size: conditions.batch_size,
            buffer_timeout_ms: -1,
            ..Settings::default()
        };
        let ctx = Rc::new(TaskContext::new("windows", &*vertex.name, 0, 1, 128, settings));
        let (sent, late) = (sent::<O>(), sent::<I>());
        sent.get().credit = conditions.credit;
        let mut edges = 0;
        let built = program.build_task(vertex.id, &ctx, &mut |_edge| {
            edges += 1;
            let congestion = ctx.congestion.clone();
            match edges {
                1 => vec![Box::new(CapturingWriter { sent: sent.clone(), congestion })],
                _ => vec![Box::new(CapturingWriter { sent: late.clone(), congestion })],
            }
        })?;
        let mut task = built.task;
        task.open()?;
        let metrics = built.metrics[0].1.clone();
        Ok(Driver { task, ctx, sent, late, metrics, credit: conditions.credit })
    }

    /// A batch of records with timestamps.
    pub fn push(&mut self, records: impl IntoIterator<Item = (I, i64)>) {
        self.try_push(records).unwrap();
    }

    pub fn try_push(&mut self, records: impl IntoIterator<Item = (I, i64)>) -> Result<()> {
        let mut batch = Batch::default();
        records.into_iter().for_each(|(record, timestamp)| batch.push(record, timestamp));
        self.task.push(0, Box::new(batch))
    }

    /// The runner waits until the outputs have room again.
    fn make_room(&mut self) {
        let mut sent = self.sent.get();
        if self.credit > 0 && sent.credit == 0 {
            sent.credit = self.credit;
            drop(sent);
            self.ctx.congestion.unblock();
        }
    }

    pub fn signal(&mut self, signal: Signal) {
        self.make_room();
        while self.task.signal(signal).unwrap() == Flow::Again {
            assert!(self.credit > 0, "a task waits for room though it has all the room it wants");
            // As the runner does: whatever waits is polled in between.
            let _ = self.task.poll(self.ctx.now_ms(), &mut Context::from_waker(Waker::noop())).unwrap();
            self.make_room();
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
        self.ctx.set_now_ms(now_ms);
        self.make_room();
        let cx = &mut Context::from_waker(Waker::noop());
        while self.task.poll(now_ms, cx).unwrap() == Flow::Again {
            self.make_room();
        }
        self.take()
    }

    /// The input ends.
    pub fn end(&mut self) -> Vec<(O, i64)> {
        self.signal(Signal::Watermark(MAX_WATERMARK));
        self.signal(Signal::EndOfInput);
        self.take()
    }

    /// What came out since the last call.
    pub fn take(&mut self) -> Vec<(O, i64)> {
        self.task.flush().unwrap();
        self.make_room();
        std::mem::take(&mut self.sent.get().records)
    }

    /// The late records since the last call.
    pub fn take_late(&mut self) -> Vec<(I, i64)> {
        self.task.flush().unwrap();
        std::mem::take(&mut self.late.get().records)
    }

    /// When the task next wants to be polled.
    pub fn deadline(&self) -> i64 {
        self.task.next_deadline_ms()
    }

    pub fn late_dropped(&self) -> u64 {
        self.metrics.late_records_dropped.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The changes between idle and active that were passed on.
    pub fn idle(&self) -> Vec<bool> {
        self.sent.get().idle.clone()
    }

    /// The task under test.
    pub fn task(&mut self) -> &mut dyn Task {
        &mut *self.task
    }

    pub fn congestion(&self) -> &Congestion {
        &self.ctx.congestion
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

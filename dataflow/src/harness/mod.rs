//! Runs one operator alone, under the control of a test: feed records, watermarks and time, look at what comes out.
//!
//! What lives here: the harness; [`memory`], a state backend in memory; [`parallel`], several tasks of one operator, which can be
//! started again from a snapshot, also as more or fewer. Who may call it: tests, those of job authors among them. What must never
//! happen here: threads, clocks.
//!
//! ```
//! use flott_dataflow::harness::Harness;
//! use flott_dataflow::operators::basic::Map;
//!
//! let mut doubled = Harness::one_input(|_| Ok(Map::new(|n: i32| n * 2))).unwrap();
//! doubled.push(21, 0).unwrap();
//! assert_eq!(doubled.take(), [(42, 0)]);
//! ```

pub mod memory;
pub mod parallel;

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use flott_schema::{Error, Result};

use crate::batch::{Batch, Record};
use crate::context::{OperatorContext, Settings, TaskContext};
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::harness::memory::{MemorySnapshot, MemoryState};
use crate::operator::{Collector, Operator, OperatorStage, OutputTag, SideOutputs};
use crate::snapshot::{Snapshots, TaskState};
use crate::stage::{Flow, Stage};
use crate::task::{OneInputTask, Task};
use crate::two_input::{TwoInputOperator, TwoInputTask};

/// An operator under test: `L` is its (first) input, `R` its second, `O` its output.
pub struct Harness<L, R, O> {
    task: Box<dyn Task>,
    ctx: OperatorContext,
    out: Rc<RefCell<Captured<O>>>,
    sides: HashMap<Arc<str>, Box<dyn Any>>,
    state: Option<Rc<MemoryState>>,
    inputs: PhantomData<fn(L, R)>,
}

/// How often a snapshot may be polled for.
const SNAPSHOT_POLLS: usize = 1_000_000;

/// What came out of an operator.
struct Captured<O> {
    records: Vec<(O, i64)>,
    signals: Vec<Signal>,
}

impl<O> Default for Captured<O> {
    fn default() -> Self {
        Captured { records: Vec::new(), signals: Vec::new() }
    }
}

struct Capture<O>(Rc<RefCell<Captured<O>>>);

impl<O> Stage<Batch<O>> for Capture<O> {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<O>) -> Result<()> {
        self.0.borrow_mut().records.extend(batch);
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        self.0.borrow_mut().signals.push(signal);
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Prepares a harness: settings and side outputs first, then the operator.
pub struct HarnessBuilder<O> {
    ctx: OperatorContext,
    out: Rc<RefCell<Captured<O>>>,
    side_outputs: SideOutputs,
    sides: HashMap<Arc<str>, Box<dyn Any>>,
    state: Option<Rc<MemoryState>>,
}

impl<O: Record> HarnessBuilder<O> {
    /// For a task with these settings, alone in its vertex.
    pub fn new(settings: Settings) -> Self {
        Self::of_task(TaskContext::new("harness", "operator under test", 0, 1, 128, settings))
    }

    /// For a task whose operators hand in their state, and have it from there.
    pub fn with_state(settings: Settings, state: &Rc<MemoryState>) -> Self {
        let builder = Self::with_task_state(settings, state.clone(), state.place());
        HarnessBuilder { state: Some(state.clone()), ..builder }
    }

    /// The same with any other backend: the test begins a snapshot itself, sends the barrier, and polls until the backend has all.
    pub fn with_task_state(
        settings: Settings,
        state: Rc<dyn TaskState>,
        (subtask, parallelism, max_parallelism): (u32, u32, u32),
    ) -> Self {
        let name = "operator under test";
        let mut task = TaskContext::new("harness", name, subtask, parallelism, max_parallelism, settings);
        task.snapshots = Snapshots::new(state, false);
        Self::of_task(task)
    }

    fn of_task(task: TaskContext) -> Self {
        HarnessBuilder {
            ctx: OperatorContext::new(Rc::new(task), "operator under test", "test"),
            out: Rc::default(),
            side_outputs: SideOutputs::default(),
            sides: HashMap::new(),
            state: None,
        }
    }

    /// Processing time when the operator is opened, epoch milliseconds.
    pub fn at_time(self, now_ms: i64) -> Self {
        self.ctx.task.set_now_ms(now_ms);
        self
    }

    /// Captures a side output as well.
    pub fn side<S: Record>(mut self, tag: &OutputTag<S>) -> Self {
        let captured: Rc<RefCell<Captured<S>>> = Rc::default();
        self.side_outputs.add::<S>(&self.ctx, tag.name().into(), Box::new(Capture(captured.clone())));
        self.sides.insert(tag.name().into(), Box::new(captured));
        self
    }

    /// Opens a one-input operator.
    pub fn one_input<I: Record, Op: Operator<In = I, Out = O> + 'static>(
        self,
        make: impl FnOnce(&OperatorContext) -> Result<Op>,
    ) -> Result<Harness<I, (), O>> {
        let operator = make(&self.ctx)?;
        let out = Collector::new(self.ctx.clone(), Box::new(Capture(self.out.clone())), self.side_outputs);
        let task = OneInputTask::<Batch<I>>::new(Box::new(OperatorStage::new(operator, out)));
        Harness::opened(Box::new(task), self.ctx, self.out, self.sides, self.state)
    }

    /// Opens a two-input operator.
    pub fn two_inputs<L: Record, R: Record, Op: TwoInputOperator<Left = L, Right = R, Out = O> + 'static>(
        self,
        make: impl FnOnce(&OperatorContext) -> Result<Op>,
    ) -> Result<Harness<L, R, O>> {
        let operator = make(&self.ctx)?;
        let out = Collector::new(self.ctx.clone(), Box::new(Capture(self.out.clone())), self.side_outputs);
        Harness::opened(
            Box::new(TwoInputTask::new(operator, out)),
            self.ctx,
            self.out,
            self.sides,
            self.state,
        )
    }
}

impl<I: Record, O: Record> Harness<I, (), O> {
    /// A one-input operator with default settings and no side outputs.
    pub fn one_input<Op: Operator<In = I, Out = O> + 'static>(
        make: impl FnOnce(&OperatorContext) -> Result<Op>,
    ) -> Result<Self> {
        HarnessBuilder::new(Settings::default()).one_input(make)
    }
}

impl<L: Record, R: Record, O: Record> Harness<L, R, O> {
    fn opened(
        mut task: Box<dyn Task>,
        ctx: OperatorContext,
        out: Rc<RefCell<Captured<O>>>,
        sides: HashMap<Arc<str>, Box<dyn Any>>,
        state: Option<Rc<MemoryState>>,
    ) -> Result<Self> {
        task.open()?;
        Ok(Harness { task, ctx, out, sides, state, inputs: PhantomData })
    }

    /// A record of the first input.
    pub fn push(&mut self, record: L, timestamp: i64) -> Result<()> {
        self.push_all([(record, timestamp)])
    }

    /// A batch of the first input.
    pub fn push_all(&mut self, records: impl IntoIterator<Item = (L, i64)>) -> Result<()> {
        let mut batch = Batch::default();
        records.into_iter().for_each(|(record, timestamp)| batch.push(record, timestamp));
        self.task.push(0, Box::new(batch))
    }

    /// A record of the second input.
    pub fn push_right(&mut self, record: R, timestamp: i64) -> Result<()> {
        let mut batch = Batch::default();
        batch.push(record, timestamp);
        self.task.push(1, Box::new(batch))
    }

    /// A signal, repeated until the operator is done with it, with polls in between.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        while self.task.signal(signal)? == Flow::Again {
            self.poll()?;
        }
        Ok(())
    }

    /// A watermark.
    pub fn watermark(&mut self, timestamp: i64) -> Result<()> {
        self.signal(Signal::Watermark(timestamp))
    }

    /// The barrier of a checkpoint, without waiting until all of the state is handed in.
    pub fn barrier(&mut self, checkpoint: u64) -> Result<()> {
        self.state.iter().for_each(|state| state.begin(checkpoint));
        self.signal(Signal::Barrier(Barrier::of_checkpoint(checkpoint)))
    }

    /// Polls until all of the state is handed in for a checkpoint whose barrier has passed, and gives it.
    pub fn handed_in(&mut self, checkpoint: u64) -> Result<MemorySnapshot> {
        let state =
            self.state.clone().ok_or_else(|| Error::internal("the harness was built without state"))?;
        for _ in 0..SNAPSHOT_POLLS {
            if state.is_complete(checkpoint) {
                return state.snapshot(checkpoint);
            }
            if self.task.next_deadline_ms() > self.ctx.task.now_ms() {
                return Err(Error::internal(format!(
                    "snapshot {checkpoint} is not complete, but the task asks for no further poll"
                )));
            }
            self.poll()?;
        }
        Err(Error::internal(format!("snapshot {checkpoint} does not end")))
    }

    /// A checkpoint: its barrier, and what is handed in.
    pub fn snapshot(&mut self, checkpoint: u64) -> Result<MemorySnapshot> {
        self.barrier(checkpoint)?;
        self.handed_in(checkpoint)
    }

    /// The end of the input: the final watermark, the end of each input, the end of all.
    pub fn end(&mut self) -> Result<()> {
        self.task.input_ended(0)?;
        self.task.input_ended(1)?;
        self.watermark(MAX_WATERMARK)?;
        self.signal(Signal::EndOfInput)
    }

    /// Moves processing time, firing what becomes due.
    pub fn set_time(&mut self, now_ms: i64) -> Result<()> {
        self.ctx.task.set_now_ms(now_ms);
        self.poll()
    }

    /// Polls, as a woken task does.
    pub fn poll(&mut self) -> Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        while self.task.poll(self.ctx.task.now_ms(), &mut cx)? == Flow::Again {}
        Ok(())
    }

    /// The task under test, for what the harness has no method for.
    pub fn task(&mut self) -> &mut dyn Task {
        &mut *self.task
    }

    /// The operator's context: metrics, congestion, settings.
    pub fn context(&self) -> &OperatorContext {
        &self.ctx
    }

    /// The records emitted since the last call, with timestamps.
    pub fn take(&mut self) -> Vec<(O, i64)> {
        std::mem::take(&mut self.out.borrow_mut().records)
    }

    /// The records emitted since the last call.
    pub fn take_records(&mut self) -> Vec<O> {
        self.take().into_iter().map(|(record, _)| record).collect()
    }

    /// The signals passed on since the last call.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.out.borrow_mut().signals)
    }

    /// The records of a side output since the last call; none if the builder was not told to capture it.
    pub fn take_side<S: Record>(&mut self, tag: &OutputTag<S>) -> Vec<(S, i64)> {
        let captured =
            self.sides.get(tag.name()).and_then(|side| side.downcast_ref::<Rc<RefCell<Captured<S>>>>());
        captured.map_or_else(Vec::new, |captured| std::mem::take(&mut captured.borrow_mut().records))
    }
}

#[cfg(test)]
mod tests;

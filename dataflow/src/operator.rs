//! Operators with one input, and the stage that runs one inside a chain.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Context;

use flott_schema::{Error, Result};

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::context::{OperatorContext, count};
use crate::element::{Barrier, Signal};
use crate::stage::{Flow, Stage};

/// A typed operator that reads batches of `In` and emits `Out`.
///
/// It lives on one thread; it never blocks. The rules of [`Stage`] hold for `signal` and `poll`.
pub trait Operator {
    /// Records read.
    type In: 'static;
    /// Records emitted.
    type Out: 'static;

    /// Called once before anything else.
    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        Ok(())
    }

    /// Processes a batch.
    fn process(&mut self, batch: Batch<Self::In>, out: &mut Collector<Self::Out>) -> Result<()>;

    /// Processes a signal and passes it on with `out.signal(signal)` when its own work for it is done.
    fn signal(&mut self, signal: Signal, out: &mut Collector<Self::Out>) -> Result<Flow> {
        out.signal(signal)
    }

    /// Hands in its state, to the `state` of the context it was opened with: lists, and the frozen parts of all tables. Called once a barrier,
    /// before `signal` passes it on, behind everything that came before it.
    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Ok(())
    }

    /// The task is about to go idle: emit what is held back.
    fn flush(&mut self, _out: &mut Collector<Self::Out>) -> Result<()> {
        Ok(())
    }

    /// Does what has become due at `now_ms`; `cx` wakes the task.
    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>, _out: &mut Collector<Self::Out>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    /// When `poll` next has something to do; `i64::MAX` for never.
    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    /// Whether the operator takes no more for now; see [`Stage::is_blocked`]. It has blocked the task's input as well.
    fn is_blocked(&self) -> bool {
        false
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Names a side output and the type of its records.
pub struct OutputTag<T> {
    name: Arc<str>,
    record: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// A tag; within one operator the name must be unique.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        OutputTag { name: name.into(), record: PhantomData }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        OutputTag { name: self.name.clone(), record: PhantomData }
    }
}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTag({:?})", self.name)
    }
}

/// Where an operator puts its results: gathers records into batches and hands them to the next stage.
pub struct Collector<T> {
    buffer: Batch<T>,
    /// Timestamp of the records collected next.
    timestamp: i64,
    limit: usize,
    next: Box<dyn Stage<Batch<T>>>,
    sides: SideOutputs,
    ctx: OperatorContext,
    /// A failure downstream that `collect` could not return.
    failure: Option<Error>,
    main_signalled: bool,
    /// Whether something behind took no more after the last batch.
    blocked: bool,
    /// Whether something behind is not done with the signal that was passed on last.
    signal_waits: bool,
}

impl<T: 'static> Collector<T> {
    /// A collector in front of `next`.
    pub fn new(ctx: OperatorContext, next: Box<dyn Stage<Batch<T>>>, sides: SideOutputs) -> Self {
        Collector {
            buffer: Batch::default(),
            timestamp: NO_TIMESTAMP,
            limit: ctx.task.settings.batch_size,
            next,
            sides,
            ctx,
            failure: None,
            main_signalled: false,
            blocked: false,
            signal_waits: false,
        }
    }

    /// Emits a record with the timestamp of the record being processed.
    #[inline]
    pub fn collect(&mut self, record: T) {
        self.collect_at(record, self.timestamp);
    }

    /// Emits a record with this timestamp.
    #[inline]
    pub fn collect_at(&mut self, record: T, timestamp: i64) {
        self.buffer.push(record, timestamp);
        if self.buffer.len() >= self.limit {
            self.hand_on();
        }
    }

    /// The timestamp that `collect` gives.
    #[inline]
    pub fn set_timestamp(&mut self, timestamp: i64) {
        self.timestamp = timestamp;
    }

    /// The timestamp that `collect` gives.
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Emits a record to a side output; dropped if nobody reads that output.
    pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, record: S) {
        self.side_at(tag, record, self.timestamp);
    }

    /// Emits a record to a side output with this timestamp.
    pub fn side_at<S: 'static>(&mut self, tag: &OutputTag<S>, record: S, timestamp: i64) {
        match self.sides.collector::<S>(tag.name()) {
            Ok(Some(side)) => side.collect_at(record, timestamp),
            Ok(None) => {}
            Err(error) => self.failure = self.failure.take().or(Some(error)),
        }
    }

    /// Emits a whole batch, behind what was collected before.
    pub fn push_batch(&mut self, batch: Batch<T>) -> Result<()> {
        if !self.buffer.is_empty() {
            self.hand_on();
        }
        self.check()?;
        count(&self.ctx.metrics.records_out, batch.len());
        self.next.push(batch)?;
        self.blocked = self.next.is_blocked();
        Ok(())
    }

    /// Hands on what was collected; called after each batch, signal and timer.
    pub fn hand_on_buffer(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.hand_on();
        }
        self.sides.hand_on()?;
        self.check()
    }

    /// Passes a signal on, behind what was collected before.
    pub fn signal(&mut self, signal: Signal) -> Result<Flow> {
        self.hand_on_buffer()?;
        self.signal_waits = true;
        if !self.main_signalled {
            if self.next.signal(signal)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.main_signalled = true;
        }
        let flow = self.sides.signal(signal)?;
        if flow == Flow::Done {
            (self.main_signalled, self.signal_waits) = (false, false);
        }
        Ok(flow)
    }

    /// Whether something behind is not done with the signal that was passed on last.
    pub fn signal_waits(&self) -> bool {
        self.signal_waits
    }

    /// Whether the task's outputs are out of credit or an operator behind this one takes no more: a long emission
    /// pauses here and answers [`Flow::Again`].
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.ctx.task.congestion.is_congested() || self.is_blocked_behind()
    }

    /// Asked for once a batch; only while the answer was yes, every time.
    #[inline]
    fn is_blocked_behind(&self) -> bool {
        self.blocked && self.next.is_blocked()
    }

    fn hand_on(&mut self) {
        let batch = self.buffer.take(self.limit.min(self.buffer.len() * 2));
        if self.failure.is_none() {
            count(&self.ctx.metrics.records_out, batch.len());
            self.failure = self.next.push(batch).err();
            self.blocked = self.next.is_blocked();
        }
    }

    fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// The side outputs of an operator that somebody reads.
#[derive(Default)]
pub struct SideOutputs {
    outputs: Vec<(Arc<str>, Box<dyn SideStage>)>,
    signalled: usize,
}

impl SideOutputs {
    /// Adds a reader of the side output `tag`.
    pub fn add<S: 'static>(&mut self, ctx: &OperatorContext, tag: Arc<str>, next: Box<dyn Stage<Batch<S>>>) {
        // Side outputs do not count as records out: they get counters of their own that nobody reads.
        let ctx = OperatorContext { metrics: Arc::default(), ..ctx.clone() };
        self.outputs.push((tag, Box::new(Collector::new(ctx, next, SideOutputs::default()))));
    }

    fn collector<S: 'static>(&mut self, name: &str) -> Result<Option<&mut Collector<S>>> {
        let Some((_, side)) = self.outputs.iter_mut().find(|(tag, _)| &**tag == name) else {
            return Ok(None);
        };
        side.as_any().downcast_mut().map(Some).ok_or_else(|| {
            Error::user(format!(
                "side output '{name}' is written with records of type {}, but read with another; use one tag for both",
                std::any::type_name::<S>()
            ))
        })
    }

    fn hand_on(&mut self) -> Result<()> {
        self.outputs.iter_mut().try_for_each(|(_, side)| side.stage_hand_on())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        while let Some((_, side)) = self.outputs.get_mut(self.signalled) {
            if side.stage_signal(signal)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.signalled += 1;
        }
        self.signalled = 0;
        Ok(Flow::Done)
    }

    fn stages(&mut self) -> impl Iterator<Item = &mut Box<dyn SideStage>> {
        self.outputs.iter_mut().map(|(_, side)| side)
    }
}

/// A side output's collector without its type.
trait SideStage {
    fn as_any(&mut self) -> &mut dyn Any;
    fn stage_hand_on(&mut self) -> Result<()>;
    fn stage_signal(&mut self, signal: Signal) -> Result<Flow>;
    fn lifecycle(&mut self, call: Lifecycle<'_, '_>) -> Result<Flow>;
    fn deadline_ms(&self) -> i64;
    fn is_blocked(&self) -> bool;
}

enum Lifecycle<'a, 'b> {
    Open,
    Flush,
    Poll(i64, &'a mut Context<'b>),
    Close,
}

impl<S: 'static> SideStage for Collector<S> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn stage_hand_on(&mut self) -> Result<()> {
        self.hand_on_buffer()
    }

    fn stage_signal(&mut self, signal: Signal) -> Result<Flow> {
        self.signal(signal)
    }

    fn lifecycle(&mut self, call: Lifecycle<'_, '_>) -> Result<Flow> {
        match call {
            Lifecycle::Open => self.next.open()?,
            Lifecycle::Flush => self.next.flush()?,
            Lifecycle::Poll(now_ms, cx) => return self.next.poll(now_ms, cx),
            Lifecycle::Close => self.next.close()?,
        }
        Ok(Flow::Done)
    }

    fn deadline_ms(&self) -> i64 {
        self.next.next_deadline_ms()
    }

    fn is_blocked(&self) -> bool {
        self.is_blocked_next()
    }
}

/// What lies behind an operator: its collector, driven through the calls that pass the whole chain.
/// Shared by the stages of one-input and two-input operators.
impl<T: 'static> Collector<T> {
    /// Opens what lies behind.
    pub fn open_next(&mut self) -> Result<()> {
        self.next.open()?;
        self.sides.stages().try_for_each(|side| side.lifecycle(Lifecycle::Open).map(drop))
    }

    /// Flushes what lies behind.
    pub fn flush_next(&mut self) -> Result<()> {
        self.hand_on_buffer()?;
        self.next.flush()?;
        self.sides.stages().try_for_each(|side| side.lifecycle(Lifecycle::Flush).map(drop))
    }

    /// Polls what lies behind. A stage that answered `Done` may be polled again before one that answered `Again`.
    pub fn poll_next(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        self.hand_on_buffer()?;
        let mut flow = self.next.poll(now_ms, cx)?;
        for side in self.sides.stages() {
            if side.lifecycle(Lifecycle::Poll(now_ms, cx))? == Flow::Again {
                flow = Flow::Again;
            }
        }
        Ok(flow)
    }

    /// Polls what lies behind an operator whose own poll gave `flow`: in any case, since it may be what the operator
    /// waits for. If so, the task is woken when the wait is over.
    pub fn poll_behind(&mut self, flow: Flow, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        self.hand_on_buffer()?;
        let waits = flow == Flow::Again && self.is_blocked_next();
        let behind = self.poll_next(now_ms, cx)?;
        if waits && !self.is_blocked_next() {
            cx.waker().wake_by_ref();
        }
        Ok(behind)
    }

    /// The next deadline of what lies behind.
    pub fn next_deadline_ms(&self) -> i64 {
        let sides = self.sides.outputs.iter().map(|(_, side)| side.deadline_ms()).min().unwrap_or(i64::MAX);
        self.next.next_deadline_ms().min(sides)
    }

    /// Whether what lies behind takes no more for now.
    pub fn is_blocked_next(&self) -> bool {
        self.next.is_blocked() || self.sides.outputs.iter().any(|(_, side)| side.is_blocked())
    }

    /// Closes what lies behind, all of it even if one fails.
    pub fn close_next(&mut self) -> Result<()> {
        let mut result = self.next.close();
        for side in self.sides.stages() {
            result = result.and(side.lifecycle(Lifecycle::Close).map(drop));
        }
        result
    }

    /// The context of the operator this collector belongs to.
    pub fn context(&self) -> &OperatorContext {
        &self.ctx
    }
}

/// Where an error happened: an operator could not hand in its state.
pub(crate) fn not_in_snapshot(ctx: &OperatorContext) -> String {
    format!("snapshot of operator '{}'", ctx.name)
}

/// Runs an operator as a stage.
pub struct OperatorStage<Op: Operator> {
    operator: Op,
    out: Collector<Op::Out>,
    /// The last snapshot that the operator has handed its state in for.
    snapshot: u64,
    /// Whether a barrier has come that has not passed the whole chain yet.
    in_barrier: bool,
}

impl<Op: Operator> OperatorStage<Op> {
    /// A stage around `operator`.
    pub fn new(operator: Op, out: Collector<Op::Out>) -> Self {
        OperatorStage { operator, out, snapshot: 0, in_barrier: false }
    }

    /// Whether the operator has let a barrier pass that something behind it keeps waiting. What it did now, because time has come for it, would
    /// go ahead of the barrier and not be in the snapshot.
    fn is_past_barrier(&self) -> bool {
        self.in_barrier && self.out.signal_waits()
    }
}

impl<Op: Operator> Stage<Batch<Op::In>> for OperatorStage<Op> {
    fn open(&mut self) -> Result<()> {
        self.out.open_next()?;
        let ctx = self.out.context().clone();
        self.operator.open(&ctx)
    }

    fn push(&mut self, batch: Batch<Op::In>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        count(&self.out.ctx.metrics.records_in, batch.len());
        self.operator.process(batch, &mut self.out)?;
        self.out.hand_on_buffer()
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if let Signal::Watermark(watermark) = signal {
            self.out.ctx.metrics.watermark_ms.0.store(watermark, std::sync::atomic::Ordering::Relaxed);
        }
        if self.out.ctx.task.snapshots.had_finished() {
            return self.out.signal(signal);
        }
        if let Signal::Barrier(barrier) = signal
            && std::mem::replace(&mut self.snapshot, barrier.checkpoint) != barrier.checkpoint
        {
            self.operator.snapshot(&barrier).map_err(|error| error.at(not_in_snapshot(&self.out.ctx)))?;
        }
        let flow = self.operator.signal(signal, &mut self.out)?;
        self.out.hand_on_buffer()?;
        self.in_barrier = flow == Flow::Again && matches!(signal, Signal::Barrier(_));
        Ok(flow)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.is_past_barrier() {
            self.operator.flush(&mut self.out)?;
        }
        self.out.flush_next()
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        let flow = match self.is_past_barrier() {
            true => Flow::Done,
            false => self.operator.poll(now_ms, cx, &mut self.out)?,
        };
        Ok(flow.and(self.out.poll_behind(flow, now_ms, cx)?))
    }

    fn next_deadline_ms(&self) -> i64 {
        let own_ms = if self.is_past_barrier() { i64::MAX } else { self.operator.next_deadline_ms() };
        own_ms.min(self.out.next_deadline_ms())
    }

    fn is_blocked(&self) -> bool {
        self.operator.is_blocked() || self.out.is_blocked_next()
    }

    fn close(&mut self) -> Result<()> {
        let result = self.operator.close();
        result.and(self.out.close_next())
    }
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;

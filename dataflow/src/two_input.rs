//! Operators with two inputs, and the task that runs one. They head their chain: their inputs come from channels.

use std::sync::atomic::Ordering;
use std::task::Context;

use flott_schema::{Error, Result};

use crate::batch::{Batch, DataBatch, ErasedBatch};
use crate::context::{OperatorContext, count};
use crate::element::{Barrier, Signal};
use crate::operator::{Collector, not_in_snapshot};
use crate::stage::Flow;
use crate::task::{Task, typed_batch};

/// A typed operator that reads batches of `Left` and of `Right`. The rules of [`Operator`](crate::operator::Operator)
/// hold; watermarks, idleness, barriers and the end of input come combined over both inputs.
pub trait TwoInputOperator {
    /// Records of the first input.
    type Left: 'static;
    /// Records of the second input.
    type Right: 'static;
    /// Records emitted.
    type Out: 'static;

    /// Called once before anything else.
    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        Ok(())
    }

    /// Processes a batch of the first input.
    fn process_left(&mut self, batch: Batch<Self::Left>, out: &mut Collector<Self::Out>) -> Result<()>;

    /// Processes a batch of the second input.
    fn process_right(&mut self, batch: Batch<Self::Right>, out: &mut Collector<Self::Out>) -> Result<()>;

    /// An input (0 or 1) has ended; the other may go on.
    fn input_ended(&mut self, _input: u16, _out: &mut Collector<Self::Out>) -> Result<()> {
        Ok(())
    }

    /// Processes a signal and passes it on with `out.signal(signal)`.
    fn signal(&mut self, signal: Signal, out: &mut Collector<Self::Out>) -> Result<Flow> {
        out.signal(signal)
    }

    /// Hands in its state, as an [`Operator`](crate::operator::Operator::snapshot) does.
    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Ok(())
    }

    /// Does what has become due.
    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>, _out: &mut Collector<Self::Out>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    /// When `poll` next has something to do.
    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs a two-input operator at the head of a task.
pub struct TwoInputTask<Op: TwoInputOperator> {
    operator: Op,
    out: Collector<Op::Out>,
    /// The last snapshot that the operator has handed its state in for.
    snapshot: u64,
    /// Whether a barrier has come that has not passed the whole chain yet.
    in_barrier: bool,
}

impl<Op: TwoInputOperator> TwoInputTask<Op> {
    /// A task around `operator`.
    pub fn new(operator: Op, out: Collector<Op::Out>) -> Self {
        TwoInputTask { operator, out, snapshot: 0, in_barrier: false }
    }

    /// See `OperatorStage`: what the operator did now would go ahead of the barrier, and not be in the snapshot.
    fn is_past_barrier(&self) -> bool {
        self.in_barrier && self.out.signal_waits()
    }
}

impl<Op: TwoInputOperator> Task for TwoInputTask<Op>
where
    Batch<Op::Left>: DataBatch,
    Batch<Op::Right>: DataBatch,
{
    fn open(&mut self) -> Result<()> {
        self.out.open_next()?;
        let ctx = self.out.context().clone();
        self.operator.open(&ctx)
    }

    fn push(&mut self, input: u16, batch: Box<dyn ErasedBatch>) -> Result<()> {
        count(&self.out.context().metrics.records_in, batch.record_count());
        match input {
            0 => self.operator.process_left(typed_batch(batch)?, &mut self.out)?,
            1 => self.operator.process_right(typed_batch(batch)?, &mut self.out)?,
            other => {
                return Err(Error::internal(format!("a two-input operator got a batch for input {other}")));
            }
        }
        self.out.hand_on_buffer()
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if let Signal::Watermark(watermark) = signal {
            self.out.context().metrics.watermark_ms.0.store(watermark, Ordering::Relaxed);
        }
        if self.out.context().task.snapshots.had_finished() {
            return self.out.signal(signal);
        }
        if let Signal::Barrier(barrier) = signal
            && std::mem::replace(&mut self.snapshot, barrier.checkpoint) != barrier.checkpoint
        {
            let handed_in = self.operator.snapshot(&barrier);
            handed_in.map_err(|error| error.at(not_in_snapshot(self.out.context())))?;
        }
        let flow = self.operator.signal(signal, &mut self.out)?;
        self.out.hand_on_buffer()?;
        self.in_barrier = flow == Flow::Again && matches!(signal, Signal::Barrier(_));
        Ok(flow)
    }

    fn input_ended(&mut self, input: u16) -> Result<()> {
        if self.out.context().task.snapshots.had_finished() {
            return Ok(());
        }
        self.operator.input_ended(input, &mut self.out)?;
        self.out.hand_on_buffer()
    }

    fn flush(&mut self) -> Result<()> {
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

    fn close(&mut self) -> Result<()> {
        let result = self.operator.close();
        result.and(self.out.close_next())
    }
}

//! In batch execution the broadcast side comes first.

use flott_schema::Result;

use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::operator::Collector;
use crate::operators::bounded::buffer::SpillBuffer;
use crate::operators::bounded::ending::Pace;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Lets an operator see its whole second input before the first one in batch execution, as Flink does: the records of
/// a bounded stream are processed by all that was broadcast, not by what happened to be there. What has to wait goes
/// to disk beyond the operator's memory. In streaming execution it does nothing.
pub struct BroadcastFirst<Op: TwoInputOperator> {
    operator: Op,
    /// What waits; `None` in streaming execution, and when nothing has to wait any more.
    held: Option<SpillBuffer<Op::Left>>,
    /// The next block to process.
    next: usize,
    /// The second input has ended.
    ended: bool,
    /// There is more to process, and nothing else would wake the task.
    paused: bool,
}

impl<Op: TwoInputOperator> BroadcastFirst<Op>
where
    Op::Left: Record,
{
    /// Wraps `operator`.
    pub fn new(operator: Op, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes;
        let held = ctx.task.is_batch().then(|| SpillBuffer::new(ctx, limit_bytes));
        BroadcastFirst { operator, held, next: 0, ended: false, paused: false }
    }

    fn second_input_ended(&mut self) {
        self.paused |= self.held.is_some() && !self.ended;
        self.ended = true;
    }

    /// Processes what waits, as long as the outputs have room.
    fn release(&mut self, out: &mut Collector<Op::Out>) -> Result<Flow> {
        self.paused = false;
        let Some(held) = self.held.as_mut().filter(|_| self.ended) else { return Ok(Flow::Done) };
        held.seal()?;
        let mut pace = Pace::default();
        while self.next < held.blocks() {
            if out.is_congested() {
                return Ok(Flow::Again);
            }
            let batch = held.take_block(self.next)?;
            self.next += 1;
            let records = batch.len();
            self.operator.process_left(batch, out)?;
            if pace.is_spent(records) {
                self.paused = true;
                return Ok(Flow::Again);
            }
        }
        self.held = None;
        Ok(Flow::Done)
    }
}

impl<Op: TwoInputOperator> TwoInputOperator for BroadcastFirst<Op>
where
    Op::Left: Record,
{
    type Left = Op::Left;
    type Right = Op::Right;
    type Out = Op::Out;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.operator.open(ctx)
    }

    fn process_left(&mut self, batch: Batch<Op::Left>, out: &mut Collector<Op::Out>) -> Result<()> {
        match &mut self.held {
            Some(held) => held.push_batch(batch),
            None => self.operator.process_left(batch, out),
        }
    }

    fn process_right(&mut self, batch: Batch<Op::Right>, out: &mut Collector<Op::Out>) -> Result<()> {
        self.operator.process_right(batch, out)
    }

    fn input_ended(&mut self, input: u16, out: &mut Collector<Op::Out>) -> Result<()> {
        if input == 1 {
            self.second_input_ended();
        }
        self.operator.input_ended(input, out)
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<Op::Out>) -> Result<Flow> {
        match signal {
            // The final watermark says that neither input has more; it may come before the end of an input is told.
            Signal::Watermark(MAX_WATERMARK) | Signal::EndOfInput => {
                self.second_input_ended();
                if self.release(out)? == Flow::Again {
                    return Ok(Flow::Again);
                }
            }
            // What waits must not become late.
            Signal::Watermark(_) if self.held.is_some() => return Ok(Flow::Done),
            _ => {}
        }
        self.operator.signal(signal, out)
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.operator.snapshot(barrier)
    }

    fn poll(
        &mut self,
        now_ms: i64,
        cx: &mut std::task::Context<'_>,
        out: &mut Collector<Op::Out>,
    ) -> Result<Flow> {
        let released = self.release(out)?;
        Ok(released.and(self.operator.poll(now_ms, cx, out)?))
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.paused { i64::MIN } else { self.operator.next_deadline_ms() }
    }

    fn close(&mut self) -> Result<()> {
        self.operator.close()
    }
}

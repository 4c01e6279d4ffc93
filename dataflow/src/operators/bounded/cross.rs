//! Every record of one stream with every record of another.

use flott_schema::Result;

use super::buffer::SpillBuffer;
use super::ending::{Ending, holds_input};
use super::product::Product;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::operator::Collector;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Pairs the task's share of the left stream with all of the right stream, which is broadcast to it.
pub struct Cross<L, R, O, F> {
    function: F,
    lefts: SpillBuffer<L>,
    rights: SpillBuffer<R>,
    /// The left block being paired.
    block: usize,
    product: Product,
    ending: Ending,
    results: std::marker::PhantomData<fn() -> O>,
}

impl<L: Record, R: Record, O, F> Cross<L, R, O, F> {
    /// Pairs with `function`.
    pub fn new(function: F, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes / 2;
        Cross {
            function,
            lefts: SpillBuffer::new(ctx, limit_bytes),
            rights: SpillBuffer::new(ctx, limit_bytes),
            block: 0,
            product: Product::default(),
            ending: Ending::default(),
            results: std::marker::PhantomData,
        }
    }
}

impl<L, R, O, F> TwoInputOperator for Cross<L, R, O, F>
where
    L: Record,
    R: Record,
    O: Record,
    F: FnMut(&L, &R, &mut Collector<O>),
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn process_left(&mut self, batch: Batch<L>, _out: &mut Collector<O>) -> Result<()> {
        self.lefts.push_batch(batch)
    }

    fn process_right(&mut self, batch: Batch<R>, _out: &mut Collector<O>) -> Result<()> {
        self.rights.push_batch(batch)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        let Cross { function, lefts, rights, block, product, ending, .. } = self;
        ending.signal(signal, out, |out, pace| {
            lefts.seal()?;
            rights.seal()?;
            while *block < lefts.blocks() {
                let batch = lefts.block(*block)?;
                if product.advance(batch, rights, &mut *function, out, pace)? == Flow::Again {
                    return Ok(Flow::Again);
                }
                *block += 1;
            }
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

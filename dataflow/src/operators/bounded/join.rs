//! Joins of two keyed streams: both are sorted by key and read side by side.

use flott_schema::Result;

use super::buffer::SpillBuffer;
use super::ending::{Ending, Pace, holds_input};
use super::groups::Groups;
use super::order::Arrival;
use super::product::Product;
use super::records::FETCHED;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::key::KeySelector;
use crate::operator::Collector;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Which records without a partner a join emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// Those of the left stream.
    pub left: bool,
    /// Those of the right stream.
    pub right: bool,
}

/// Calls a function with each pair of records of the same key, and with those without a partner that are wanted.
pub struct Join<SL: KeySelector<L>, SR: KeySelector<R>, L, R, O, F> {
    function: F,
    unmatched: Unmatched,
    inputs: Inputs<SL, SR, L, R>,
    /// The key whose pairs are being emitted.
    pairs: Option<(u64, SL::Key)>,
    /// Some of its left records.
    lefts: Batch<L>,
    /// All of its right records.
    rights: SpillBuffer<R>,
    product: Product,
    ending: Ending,
    results: std::marker::PhantomData<fn() -> O>,
}

/// Both sides, by key.
struct Inputs<SL: KeySelector<L>, SR: KeySelector<R>, L, R> {
    lefts: Groups<SL, L, Arrival>,
    rights: Groups<SR, R, Arrival>,
}

impl<SL, SR, L, R, O, F> Join<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: Record,
    R: Record,
    O: Record,
    F: FnMut(Option<&L>, Option<&R>, &mut Collector<O>),
{
    /// Joins with `function`.
    pub fn new(left: SL, right: SR, unmatched: Unmatched, function: F, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes / 3;
        Join {
            function,
            unmatched,
            inputs: Inputs {
                lefts: Groups::new(left, Arrival, ctx, limit_bytes),
                rights: Groups::new(right, Arrival, ctx, limit_bytes),
            },
            pairs: None,
            lefts: Batch::default(),
            product: Product::default(),
            rights: SpillBuffer::new(ctx, limit_bytes),
            ending: Ending::default(),
            results: std::marker::PhantomData,
        }
    }

    /// Emits until all is done or the outputs have no room.
    fn emit(&mut self, out: &mut Collector<O>, pace: &mut Pace) -> Result<Flow> {
        let Inputs { lefts, rights } = &mut self.inputs;
        if lefts.prepare(pace)? == Flow::Again || rights.prepare(pace)? == Flow::Again {
            return Ok(Flow::Again);
        }
        loop {
            if self.emit_pairs(out, pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            let Inputs { lefts, rights } = &mut self.inputs;
            match lefts.compare_heads(rights) {
                None => return Ok(Flow::Done),
                Some(std::cmp::Ordering::Equal) => self.begin_pairs()?,
                Some(std::cmp::Ordering::Less) => {
                    if let (Some((record, timestamp)), true) = (lefts.take()?, self.unmatched.left) {
                        out.set_timestamp(timestamp);
                        (self.function)(Some(&record), None, out);
                    }
                }
                Some(std::cmp::Ordering::Greater) => {
                    if let (Some((record, timestamp)), true) = (rights.take()?, self.unmatched.right) {
                        out.set_timestamp(timestamp);
                        (self.function)(None, Some(&record), out);
                    }
                }
            }
            if pace.must_pause(1, out) {
                return Ok(Flow::Again);
            }
        }
    }

    /// Gathers the right records of a key that both sides have.
    fn begin_pairs(&mut self) -> Result<()> {
        let Some((hash, key)) = self.inputs.lefts.head_key() else { return Ok(()) };
        self.rights.drop_sealed();
        while let Some((record, timestamp)) = self.inputs.rights.take_of(hash, &key)? {
            self.rights.push(record, timestamp)?;
        }
        self.rights.seal()?;
        self.pairs = Some((hash, key));
        Ok(())
    }

    fn emit_pairs(&mut self, out: &mut Collector<O>, pace: &mut Pace) -> Result<Flow> {
        let Join { function, inputs, pairs, lefts, rights, product, .. } = self;
        let Some((hash, key)) = pairs else { return Ok(Flow::Done) };
        loop {
            // Adds nothing to those whose pairs are half emitted: they are as many as fit, or the last.
            while lefts.len() < FETCHED {
                match inputs.lefts.take_of(*hash, key)? {
                    Some((record, timestamp)) => lefts.push(record, timestamp),
                    None => break,
                }
            }
            if lefts.is_empty() {
                *pairs = None;
                return Ok(Flow::Done);
            }
            let pair = |left: &L, right: &R, out: &mut Collector<O>| function(Some(left), Some(right), out);
            if product.advance(lefts, rights, pair, out, pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            lefts.clear();
        }
    }
}

impl<SL, SR, L, R, O, F> TwoInputOperator for Join<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: Record,
    R: Record,
    O: Record,
    F: FnMut(Option<&L>, Option<&R>, &mut Collector<O>),
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn process_left(&mut self, batch: Batch<L>, _out: &mut Collector<O>) -> Result<()> {
        self.inputs.lefts.push_batch(batch)
    }

    fn process_right(&mut self, batch: Batch<R>, _out: &mut Collector<O>) -> Result<()> {
        self.inputs.rights.push_batch(batch)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        // Out of the way while the rest of the operator is at work.
        let mut ending = std::mem::take(&mut self.ending);
        let flow = ending.signal(signal, out, |out, pace| self.emit(out, pace));
        self.ending = ending;
        flow
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

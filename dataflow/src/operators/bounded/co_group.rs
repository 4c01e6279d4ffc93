//! One function call for all records that two streams have of a key.

use std::cell::Cell;
use std::cmp::Ordering;

use flott_schema::Result;

use super::ending::{Ending, holds_input};
use super::groups::{Group, Groups};
use super::order::Arrival;
use super::records::{Reading, Records};
use super::results::{Results, Spool};
use crate::batch::{Batch, NO_TIMESTAMP, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::key::KeySelector;
use crate::operator::Collector;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Calls a function for each key that one of two streams has.
pub struct CoGroup<SL: KeySelector<L>, SR: KeySelector<R>, L, R, O, F> {
    function: F,
    lefts: Groups<SL, L, Arrival>,
    rights: Groups<SR, R, Arrival>,
    reading_left: Reading<L>,
    reading_right: Reading<R>,
    spool: Spool<O>,
    ending: Ending,
}

impl<SL, SR, L, R, O, F> CoGroup<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: Record,
    R: Record,
    O: Record,
{
    /// Groups with `function`.
    pub fn new(left: SL, right: SR, function: F, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes / 8;
        CoGroup {
            function,
            lefts: Groups::new(left, Arrival, ctx, limit_bytes * 3),
            rights: Groups::new(right, Arrival, ctx, limit_bytes * 3),
            reading_left: Reading::default(),
            reading_right: Reading::default(),
            spool: Spool::new(ctx, limit_bytes * 2),
            ending: Ending::default(),
        }
    }
}

impl<SL, SR, L, R, O, F> TwoInputOperator for CoGroup<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: Record,
    R: Record,
    O: Record,
    F: FnMut(&SL::Key, Records<'_, L>, Records<'_, R>, &mut Results<'_, O>),
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
        let CoGroup { function, lefts, rights, reading_left, reading_right, spool, ending } = self;
        ending.signal(signal, out, |out, pace| {
            if lefts.prepare(pace)? == Flow::Again || rights.prepare(pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            loop {
                if spool.emit_full(out, pace)? == Flow::Again {
                    return Ok(Flow::Again);
                }
                let lowest = match lefts.compare_heads(rights) {
                    Some(Ordering::Less | Ordering::Equal) => lefts.head_key(),
                    Some(Ordering::Greater) => rights.head_key(),
                    None => break,
                };
                let Some((hash, key)) = lowest else { break };
                let largest = Cell::new(NO_TIMESTAMP);
                let mut left = Group::new(lefts, hash, &key);
                let mut right = Group::new(rights, hash, &key);
                function(
                    &key,
                    reading_left.records(&mut left, &largest),
                    reading_right.records(&mut right, &largest),
                    &mut spool.results(&largest),
                );
                reading_left.finish(&mut left)?;
                reading_right.finish(&mut right)?;
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
            spool.emit_all(out, pace)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

//! Sorting what each task holds.

use flott_schema::Result;

use super::ending::{Ending, holds_input};
use super::order::Comparator;
use super::sorter::Sorter;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::operator::{Collector, Operator};
use crate::stage::Flow;

/// Emits the records of the task in order; equal ones in order of arrival.
pub struct SortPartition<T, C> {
    sorter: Sorter<T, C>,
    ending: Ending,
}

impl<T: Record, C: Comparator<T>> SortPartition<T, C> {
    /// Sorts by `order`.
    pub fn new(order: C, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes;
        SortPartition { sorter: Sorter::new(order, ctx, limit_bytes), ending: Ending::default() }
    }
}

impl<T: Record, C: Comparator<T>> Operator for SortPartition<T, C> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, _out: &mut Collector<T>) -> Result<()> {
        batch.into_iter().try_for_each(|(record, timestamp)| self.sorter.push(record, timestamp))
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        let sorter = &mut self.sorter;
        self.ending.signal(signal, out, |out, pace| {
            if sorter.prepare(pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            while let Some((record, timestamp)) = sorter.take_next()? {
                out.collect_at(record, timestamp);
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

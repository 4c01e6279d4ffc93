//! One result for a whole stream: in part in each task, whole in one task behind them.

use flott_schema::Result;

use super::ending::{Ending, holds_input};
use crate::batch::{Batch, NO_TIMESTAMP, Record};
use crate::element::{Barrier, Signal};
use crate::operator::{Collector, Operator};
use crate::stage::Flow;
use crate::time::AggregateFunction;

/// Reduces the records of its task into one, emitted at the end of the input; nothing if there were none. Serves as
/// the part and as the whole.
pub struct ReduceAll<T, F> {
    reduce: F,
    so_far: Option<(T, i64)>,
    ending: Ending,
}

impl<T, F> ReduceAll<T, F> {
    /// Reduces with `reduce`.
    pub fn new(reduce: F) -> Self {
        ReduceAll { reduce, so_far: None, ending: Ending::default() }
    }
}

impl<T: Record, F: FnMut(&mut T, &mut T)> Operator for ReduceAll<T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, _out: &mut Collector<T>) -> Result<()> {
        for (mut record, timestamp) in batch {
            match &mut self.so_far {
                Some((so_far, largest)) => {
                    (self.reduce)(so_far, &mut record);
                    *largest = timestamp.max(*largest);
                }
                None => self.so_far = Some((record, timestamp)),
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        let so_far = &mut self.so_far;
        self.ending.signal(signal, out, |out, _| {
            if let Some((reduced, timestamp)) = so_far.take() {
                out.collect_at(reduced, timestamp);
            }
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

/// In each task: adds its records to one accumulator, emitted at the end of the input even if there were none.
pub struct AggregatePart<A: AggregateFunction> {
    function: A,
    accumulator: A::Accumulator,
    largest: i64,
    ending: Ending,
}

impl<A: AggregateFunction> AggregatePart<A> {
    /// Aggregates with `function`.
    pub fn new(function: A) -> Self {
        let accumulator = function.create();
        AggregatePart { function, accumulator, largest: NO_TIMESTAMP, ending: Ending::default() }
    }
}

impl<A: AggregateFunction> Operator for AggregatePart<A>
where
    A::In: Record,
{
    type In = A::In;
    type Out = A::Accumulator;

    fn process(&mut self, batch: Batch<A::In>, _out: &mut Collector<A::Accumulator>) -> Result<()> {
        self.largest = self.largest.max(batch.timestamps.max(batch.len()).unwrap_or(NO_TIMESTAMP));
        batch.records.into_iter().for_each(|record| self.function.add(&mut self.accumulator, record));
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<A::Accumulator>) -> Result<Flow> {
        let AggregatePart { function, accumulator, largest, ending } = self;
        ending.signal(signal, out, |out, _| {
            out.collect_at(std::mem::replace(accumulator, function.create()), *largest);
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

/// In one task: merges the accumulators of all tasks, and emits one result.
pub struct AggregateWhole<A: AggregateFunction> {
    function: A,
    accumulator: A::Accumulator,
    largest: i64,
    ending: Ending,
}

impl<A: AggregateFunction> AggregateWhole<A> {
    /// Aggregates with `function`.
    pub fn new(function: A) -> Self {
        let accumulator = function.create();
        AggregateWhole { function, accumulator, largest: NO_TIMESTAMP, ending: Ending::default() }
    }
}

impl<A: AggregateFunction> Operator for AggregateWhole<A>
where
    A::Out: Record,
{
    type In = A::Accumulator;
    type Out = A::Out;

    fn process(&mut self, batch: Batch<A::Accumulator>, _out: &mut Collector<A::Out>) -> Result<()> {
        self.largest = self.largest.max(batch.timestamps.max(batch.len()).unwrap_or(NO_TIMESTAMP));
        batch.records.iter().for_each(|part| self.function.merge(&mut self.accumulator, part));
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<A::Out>) -> Result<Flow> {
        let AggregateWhole { function, accumulator, largest, ending } = self;
        ending.signal(signal, out, |out, _| {
            out.collect_at(function.result(accumulator), *largest);
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

//! One function call for all records of a task.

use std::cell::Cell;
use std::collections::VecDeque;

use flott_schema::Result;

use super::buffer::SpillBuffer;
use super::ending::{Ending, holds_input};
use super::records::{Fetch, Reading, Records};
use super::results::{Results, Spool};
use crate::batch::{Batch, NO_TIMESTAMP, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::operator::{Collector, Operator};
use crate::stage::Flow;

/// Calls a function once, with everything the task has read.
pub struct MapPartition<T, O, F> {
    function: F,
    /// `None` once the function was called.
    partition: Option<SpillBuffer<T>>,
    spool: Spool<O>,
    ending: Ending,
}

impl<T: Record, O: Record, F> MapPartition<T, O, F> {
    /// Maps with `function`.
    pub fn new(function: F, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes / 2;
        MapPartition {
            function,
            partition: Some(SpillBuffer::new(ctx, limit_bytes)),
            spool: Spool::new(ctx, limit_bytes),
            ending: Ending::default(),
        }
    }
}

/// All blocks of a buffer, each for the last time.
struct Blocks<T> {
    buffer: SpillBuffer<T>,
    next: usize,
}

impl<T: Record> Fetch<T> for Blocks<T> {
    fn fetch(&mut self, ready: &mut VecDeque<(T, i64)>) -> Result<()> {
        if self.next < self.buffer.blocks() {
            ready.extend(self.buffer.take_block(self.next)?);
            self.next += 1;
        }
        Ok(())
    }
}

impl<T, O, F> Operator for MapPartition<T, O, F>
where
    T: Record,
    O: Record,
    F: FnMut(Records<'_, T>, &mut Results<'_, O>),
{
    type In = T;
    type Out = O;

    fn process(&mut self, batch: Batch<T>, _out: &mut Collector<O>) -> Result<()> {
        match &mut self.partition {
            Some(partition) => partition.push_batch(batch),
            None => unreachable!("nothing follows the end of the input"),
        }
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        let MapPartition { function, partition, spool, ending } = self;
        ending.signal(signal, out, |out, pace| {
            if let Some(mut buffer) = partition.take() {
                buffer.seal()?;
                let mut blocks = Blocks { buffer, next: 0 };
                let (mut reading, largest) = (Reading::default(), Cell::new(NO_TIMESTAMP));
                function(reading.records(&mut blocks, &largest), &mut spool.results(&largest));
                reading.failed()?;
            }
            spool.emit_all(out, pace)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

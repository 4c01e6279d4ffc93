//! The results of a function that is called once for many records: held until the outputs have room.

use std::cell::Cell;

use flott_schema::{Error, Result};

use super::buffer::SpillBuffer;
use super::ending::Pace;
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::operator::Collector;
use crate::stage::Flow;

/// Where a function on a partition or on the records of a key puts its results. There may be any number of them: what
/// the outputs have no room for is held, on disk if need be.
pub struct Results<'a, O> {
    spool: &'a mut Spool<O>,
    largest: &'a Cell<i64>,
}

impl<O: Record> Results<'_, O> {
    /// Emits a record with the largest timestamp of the records read so far.
    #[inline]
    pub fn collect(&mut self, record: O) {
        self.collect_at(record, self.largest.get());
    }

    /// Emits a record with this timestamp, epoch milliseconds.
    #[inline]
    pub fn collect_at(&mut self, record: O, timestamp: i64) {
        self.spool.push(record, timestamp);
    }
}

/// Results between the function and the outputs.
pub(super) struct Spool<O> {
    buffer: SpillBuffer<O>,
    /// Blocks that have been emitted.
    emitted: usize,
    failure: Option<Error>,
}

impl<O: Record> Spool<O> {
    /// An empty spool that keeps about `limit_bytes` in memory.
    pub fn new(ctx: &OperatorContext, limit_bytes: usize) -> Self {
        Spool { buffer: SpillBuffer::new(ctx, limit_bytes), emitted: 0, failure: None }
    }

    /// For one call of a function.
    pub fn results<'a>(&'a mut self, largest: &'a Cell<i64>) -> Results<'a, O> {
        Results { spool: self, largest }
    }

    #[inline]
    fn push(&mut self, record: O, timestamp: i64) {
        if self.failure.is_none() {
            self.failure = self.buffer.push(record, timestamp).err();
        }
    }

    /// Emits what fills a batch.
    pub fn emit_full(&mut self, out: &mut Collector<O>, pace: &mut Pace) -> Result<Flow> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.buffer.blocks() == 0 {
            return Ok(Flow::Done);
        }
        while self.emitted < self.buffer.blocks() {
            let block = self.buffer.take_block(self.emitted)?;
            let records = block.len();
            self.emitted += 1;
            out.push_batch(block)?;
            if pace.must_pause(records, out) {
                return Ok(Flow::Again);
            }
        }
        self.buffer.drop_sealed();
        self.emitted = 0;
        Ok(Flow::Done)
    }

    /// Emits everything.
    pub fn emit_all(&mut self, out: &mut Collector<O>, pace: &mut Pace) -> Result<Flow> {
        self.buffer.seal()?;
        self.emit_full(out, pace)
    }
}

//! Every record of one side with every record of the other, in pieces.

use flott_schema::Result;

use super::buffer::SpillBuffer;
use super::ending::Pace;
use crate::batch::{Batch, Record};
use crate::operator::Collector;
use crate::stage::Flow;

/// How far the product of a batch and a buffer has come.
#[derive(Default)]
pub struct Product {
    block: usize,
    left: usize,
    right: usize,
}

impl Product {
    /// Goes on: calls `pair` with each pair, the timestamp of its results being the larger one. After
    /// [`Flow::Again`] it must be called with the same sides until it is done; then it is ready for other ones.
    pub fn advance<L: Record, R: Record, O: 'static>(
        &mut self,
        lefts: &Batch<L>,
        rights: &mut SpillBuffer<R>,
        mut pair: impl FnMut(&L, &R, &mut Collector<O>),
        out: &mut Collector<O>,
        pace: &mut Pace,
    ) -> Result<Flow> {
        while self.block < rights.blocks() {
            let block = rights.block(self.block)?;
            while let Some(left) = lefts.records.get(self.left) {
                let left_timestamp = lefts.timestamps.get(self.left);
                while let Some(right) = block.records.get(self.right) {
                    out.set_timestamp(left_timestamp.max(block.timestamps.get(self.right)));
                    pair(left, right, out);
                    self.right += 1;
                    if pace.must_pause(1, out) {
                        return Ok(Flow::Again);
                    }
                }
                self.right = 0;
                self.left += 1;
            }
            self.left = 0;
            self.block += 1;
        }
        *self = Product::default();
        Ok(Flow::Done)
    }
}

//! Records held in order of arrival: in memory up to a limit, beyond it in a file.

use flott_schema::Result;

use super::size::SizeEstimate;
use super::spill::{Block, SpillFile};
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;

/// Records in blocks that can be read in any order, any number of times.
pub struct SpillBuffer<T> {
    ctx: OperatorContext,
    limit_bytes: usize,
    block_records: usize,
    block_bytes: usize,
    size: SizeEstimate<T>,
    /// The block being filled.
    tail: Batch<T>,
    tail_bytes: usize,
    /// The first blocks.
    memory: Vec<Batch<T>>,
    memory_bytes: usize,
    /// The blocks after them.
    file: Option<SpillFile>,
    blocks: Vec<Block>,
    /// The block of the file that was read last.
    loaded: Option<(usize, Batch<T>)>,
}

impl<T: Record> SpillBuffer<T> {
    /// An empty buffer that keeps about `limit_bytes` in memory.
    pub fn new(ctx: &OperatorContext, limit_bytes: usize) -> Self {
        SpillBuffer {
            ctx: ctx.clone(),
            limit_bytes,
            block_records: ctx.task.settings.batch_size.max(1),
            block_bytes: (limit_bytes / 16).clamp(1 << 10, 1 << 20),
            size: SizeEstimate::default(),
            tail: Batch::default(),
            tail_bytes: 0,
            memory: Vec::new(),
            memory_bytes: 0,
            file: None,
            blocks: Vec::new(),
            loaded: None,
        }
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, record: T, timestamp: i64) -> Result<()> {
        self.tail_bytes += self.size.of(&record) + size_of::<i64>();
        self.tail.push(record, timestamp);
        if self.tail.len() >= self.block_records || self.tail_bytes >= self.block_bytes {
            return self.seal();
        }
        Ok(())
    }

    /// Appends records.
    pub fn push_batch(&mut self, batch: Batch<T>) -> Result<()> {
        batch.into_iter().try_for_each(|(record, timestamp)| self.push(record, timestamp))
    }

    /// Makes what was pushed so far readable.
    pub fn seal(&mut self) -> Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.tail_bytes);
        if self.file.is_none() && self.memory_bytes + bytes <= self.limit_bytes {
            self.memory_bytes += bytes;
            self.memory.push(std::mem::take(&mut self.tail));
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(SpillFile::create(&self.ctx)?);
        }
        if let Some(file) = &mut self.file {
            self.blocks.push(file.append(&self.tail)?);
        }
        self.tail.clear();
        Ok(())
    }

    /// Number of readable blocks.
    #[inline]
    pub fn blocks(&self) -> usize {
        self.memory.len() + self.blocks.len()
    }

    /// Whether some of it is in a file.
    pub fn is_spilled(&self) -> bool {
        self.file.is_some()
    }

    /// A block, to be read where it is.
    #[inline]
    pub fn block(&mut self, index: usize) -> Result<&Batch<T>> {
        if index < self.memory.len() {
            return Ok(&self.memory[index]);
        }
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != index) {
            self.loaded = Some((index, self.read(index)?));
        }
        let (_, batch) = self.loaded.as_ref().expect("it was loaded just now");
        Ok(batch)
    }

    /// A block, to be read for the last time.
    pub fn take_block(&mut self, index: usize) -> Result<Batch<T>> {
        match self.memory.get_mut(index) {
            Some(batch) => Ok(std::mem::take(batch)),
            None => self.read(index),
        }
    }

    fn read(&self, index: usize) -> Result<Batch<T>> {
        let file = self.file.as_ref().expect("blocks beyond those in memory are in the file");
        file.read(self.blocks[index - self.memory.len()])
    }

    /// Drops the readable blocks, keeping what was pushed since.
    pub fn drop_sealed(&mut self) {
        let spare = self.memory.pop();
        self.memory.clear();
        self.memory_bytes = 0;
        self.blocks.clear();
        self.loaded = None;
        self.file = None;
        if let (true, Some(mut spare)) = (self.tail.is_empty(), spare) {
            // Small groups come by the million: they share one allocation.
            spare.clear();
            self.tail = spare;
        }
    }
}

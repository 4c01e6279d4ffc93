//! Sorting what may not fit into memory: sorted runs in files, merged as they are read (Knuth, TAOCP 3, 5.4).
//!
//! The sort is stable: records that compare equal keep their order of arrival.

use std::cmp::Ordering;
use std::rc::Rc;

use flott_schema::Result;

use super::ending::Pace;
use super::order::Comparator;
use super::size::SizeEstimate;
use super::spill::{Block, SpillFile};
use crate::batch::{Batch, BatchIntoIter, Record};
use crate::context::OperatorContext;
use crate::stage::Flow;

/// Bounds of a block of a run, bytes in memory.
const BLOCK_BYTES_MIN: usize = 1 << 10;
const BLOCK_BYTES_MAX: usize = 128 << 10;
/// Bounds of the number of runs merged at a time.
const FAN_IN_MIN: usize = 4;
const FAN_IN_MAX: usize = 256;

/// Sorts records with their timestamps. First `push`, then `prepare` until it is done, then `take_next`.
pub struct Sorter<E, C> {
    ctx: OperatorContext,
    order: C,
    /// Half of the limit is for records; sorting and merging need the other half.
    limit_bytes: usize,
    block_bytes: usize,
    fan_in: usize,
    size: SizeEstimate<E>,
    entries: Vec<(E, i64)>,
    entries_bytes: usize,
    /// Where runs are written while records come in.
    file: Option<SpillFile>,
    /// The blocks of each run in it.
    written: Vec<Vec<Block>>,
    /// Runs in order of arrival, once all records are in.
    runs: Vec<Run>,
    phase: Phase<E>,
}

/// A sorted run in a file.
struct Run {
    file: Rc<SpillFile>,
    blocks: Vec<Block>,
}

enum Phase<E> {
    Filling,
    /// Runs are being merged into longer ones, because there are too many.
    Merging(Pass<E>),
    InMemory(std::vec::IntoIter<(E, i64)>),
    Reading(Merge<E>),
}

/// Several runs being merged into one.
struct Pass<E> {
    merge: Merge<E>,
    writer: RunWriter<E>,
    file: SpillFile,
    /// Where the new run goes in the order of arrival.
    position: usize,
}

impl<E: Record, C: Comparator<E>> Sorter<E, C> {
    /// A sorter that keeps about `limit_bytes` in memory.
    pub fn new(order: C, ctx: &OperatorContext, limit_bytes: usize) -> Self {
        let block_bytes = (limit_bytes / 64).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        Sorter {
            ctx: ctx.clone(),
            order,
            limit_bytes: limit_bytes / 2,
            block_bytes,
            fan_in: (limit_bytes / 2 / block_bytes).clamp(FAN_IN_MIN, FAN_IN_MAX),
            size: SizeEstimate::default(),
            entries: Vec::new(),
            entries_bytes: 0,
            file: None,
            written: Vec::new(),
            runs: Vec::new(),
            phase: Phase::Filling,
        }
    }

    /// Adds a record.
    #[inline]
    pub fn push(&mut self, record: E, timestamp: i64) -> Result<()> {
        self.entries_bytes += self.size.of(&record) + size_of::<i64>();
        self.entries.push((record, timestamp));
        if self.entries_bytes > self.limit_bytes { self.write_run() } else { Ok(()) }
    }

    /// Whether some of it is in a file.
    pub fn is_spilled(&self) -> bool {
        self.file.is_some() || !self.runs.is_empty()
    }

    fn sort(&mut self) {
        let order = &self.order;
        self.entries.sort_by(|(a, _), (b, _)| order.compare(a, b));
    }

    fn write_run(&mut self) -> Result<()> {
        self.sort();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(SpillFile::create(&self.ctx)?),
        };
        let mut writer = RunWriter::new(self.block_bytes);
        for (record, timestamp) in self.entries.drain(..) {
            writer.push(record, timestamp, file)?;
        }
        self.written.push(writer.finish(file)?);
        self.entries_bytes = 0;
        Ok(())
    }

    /// Gets ready for [`Self::take_next`]: sorts, and merges runs until they can be read together.
    pub fn prepare(&mut self, pace: &mut Pace) -> Result<Flow> {
        loop {
            match &mut self.phase {
                Phase::Filling => self.end_of_records(),
                Phase::Merging(pass) => {
                    while let Some((record, timestamp)) = pass.merge.next(&self.order)? {
                        pass.writer.push(record, timestamp, &mut pass.file)?;
                        if pace.is_spent(1) {
                            return Ok(Flow::Again);
                        }
                    }
                    self.end_of_pass()?;
                }
                Phase::InMemory(_) | Phase::Reading(_) => return Ok(Flow::Done),
            }
            if matches!(self.phase, Phase::Filling) {
                self.next_pass()?;
            }
        }
    }

    /// Sorts the records still in memory; they stay there, as the last run.
    fn end_of_records(&mut self) {
        self.sort();
        if let Some(file) = self.file.take() {
            let file = Rc::new(file);
            let written = std::mem::take(&mut self.written);
            self.runs = written.into_iter().map(|blocks| Run { file: file.clone(), blocks }).collect();
        }
    }

    fn end_of_pass(&mut self) -> Result<()> {
        if let Phase::Merging(mut pass) = std::mem::replace(&mut self.phase, Phase::Filling) {
            let blocks = pass.writer.finish(&mut pass.file)?;
            self.runs.insert(pass.position, Run { file: Rc::new(pass.file), blocks });
        }
        Ok(())
    }

    /// Starts to read, or to merge runs that are neighbours: the shortest, and no more than must be.
    fn next_pass(&mut self) -> Result<()> {
        if self.runs.is_empty() {
            self.phase = Phase::InMemory(std::mem::take(&mut self.entries).into_iter());
            return Ok(());
        }
        if self.runs.len() <= self.fan_in {
            let mut sources: Vec<Source<E>> = self.runs.drain(..).map(Source::of_run).collect();
            sources.push(Source::in_memory(std::mem::take(&mut self.entries)));
            self.phase = Phase::Reading(Merge::new(sources, &self.order)?);
            return Ok(());
        }
        let width = self.fan_in.min(self.runs.len() - self.fan_in + 1);
        let bytes =
            |runs: &[Run]| -> usize { runs.iter().flat_map(|run| &run.blocks).map(Block::len_bytes).sum() };
        let (position, _) = self
            .runs
            .windows(width)
            .enumerate()
            .min_by_key(|(_, runs)| bytes(runs))
            .expect("there are more runs than are merged");
        let sources = self.runs.drain(position..position + width).map(Source::of_run).collect();
        self.phase = Phase::Merging(Pass {
            merge: Merge::new(sources, &self.order)?,
            writer: RunWriter::new(self.block_bytes),
            file: SpillFile::create(&self.ctx)?,
            position,
        });
        Ok(())
    }

    /// The next record in order.
    #[inline]
    pub fn take_next(&mut self) -> Result<Option<(E, i64)>> {
        match &mut self.phase {
            Phase::InMemory(entries) => Ok(entries.next()),
            Phase::Reading(merge) => merge.next(&self.order),
            Phase::Filling | Phase::Merging(_) => unreachable!("prepare() was not done"),
        }
    }
}

/// Writes a run in blocks.
struct RunWriter<E> {
    block: Batch<E>,
    bytes: usize,
    size: SizeEstimate<E>,
    block_bytes: usize,
    blocks: Vec<Block>,
}

impl<E: Record> RunWriter<E> {
    fn new(block_bytes: usize) -> Self {
        RunWriter {
            block: Batch::default(),
            bytes: 0,
            size: SizeEstimate::default(),
            block_bytes,
            blocks: Vec::new(),
        }
    }

    fn push(&mut self, record: E, timestamp: i64, file: &mut SpillFile) -> Result<()> {
        self.bytes += self.size.of(&record) + size_of::<i64>();
        self.block.push(record, timestamp);
        if self.bytes >= self.block_bytes { self.write(file) } else { Ok(()) }
    }

    fn write(&mut self, file: &mut SpillFile) -> Result<()> {
        self.blocks.push(file.append(&self.block)?);
        self.block.clear();
        self.bytes = 0;
        Ok(())
    }

    fn finish(&mut self, file: &mut SpillFile) -> Result<Vec<Block>> {
        if !self.block.is_empty() {
            self.write(file)?;
        }
        Ok(std::mem::take(&mut self.blocks))
    }
}

/// One of the sorted sequences that are merged.
struct Source<E> {
    /// The record it stands at.
    head: Option<(E, i64)>,
    current: Current<E>,
    file: Option<Rc<SpillFile>>,
    blocks: std::vec::IntoIter<Block>,
}

enum Current<E> {
    Block(BatchIntoIter<E>),
    Memory(std::vec::IntoIter<(E, i64)>),
}

impl<E: Record> Source<E> {
    fn of_run(run: Run) -> Self {
        Source {
            head: None,
            current: Current::Block(Batch::default().into_iter()),
            file: Some(run.file),
            blocks: run.blocks.into_iter(),
        }
    }

    fn in_memory(entries: Vec<(E, i64)>) -> Self {
        let current = Current::Memory(entries.into_iter());
        Source { head: None, current, file: None, blocks: Vec::new().into_iter() }
    }

    fn advance(&mut self) -> Result<()> {
        self.head = match &mut self.current {
            Current::Memory(entries) => entries.next(),
            Current::Block(records) => match (records.next(), &self.file) {
                (None, Some(file)) => match self.blocks.next() {
                    Some(block) => {
                        *records = file.read(block)?.into_iter();
                        records.next()
                    }
                    None => None,
                },
                (record, _) => record,
            },
        };
        Ok(())
    }
}

/// Sorted sequences read as one: a binary heap of their heads.
struct Merge<E> {
    sources: Vec<Source<E>>,
    /// Sources that have a head, the least first.
    heap: Vec<usize>,
}

impl<E: Record> Merge<E> {
    fn new(mut sources: Vec<Source<E>>, order: &impl Comparator<E>) -> Result<Self> {
        sources.iter_mut().try_for_each(Source::advance)?;
        let heap: Vec<usize> = (0..sources.len()).filter(|source| sources[*source].head.is_some()).collect();
        let mut merge = Merge { sources, heap };
        for position in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(position, order);
        }
        Ok(merge)
    }

    fn next(&mut self, order: &impl Comparator<E>) -> Result<Option<(E, i64)>> {
        let Some(first) = self.heap.first().copied() else { return Ok(None) };
        let source = &mut self.sources[first];
        let record = source.head.take();
        source.advance()?;
        if source.head.is_none() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0, order);
        Ok(record)
    }

    /// Whether source `a` comes before source `b`; of equal heads the one that arrived first.
    fn is_before(&self, a: usize, b: usize, order: &impl Comparator<E>) -> bool {
        match (&self.sources[a].head, &self.sources[b].head) {
            (Some((first, _)), Some((second, _))) => match order.compare(first, second) {
                Ordering::Less => true,
                Ordering::Equal => a < b,
                Ordering::Greater => false,
            },
            _ => unreachable!("sources without a head are not in the heap"),
        }
    }

    fn sift_down(&mut self, mut position: usize, order: &impl Comparator<E>) {
        loop {
            let mut least = position;
            for child in [2 * position + 1, 2 * position + 2] {
                if child < self.heap.len() && self.is_before(self.heap[child], self.heap[least], order) {
                    least = child;
                }
            }
            if least == position {
                return;
            }
            self.heap.swap(position, least);
            position = least;
        }
    }
}

//! Sources: a split enumerator that hands out work, and readers that read it.
//!
//! The shape is Flink's (FLIP-27): the enumerator runs once per job, a reader in every source task; a reader asks for
//! a split when it has none. Positions live in the splits, so that a checkpoint can hold them.

use std::cell::OnceCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::{Error, Result};

use crate::batch::{Batch, ErasedBatch, Record};
use crate::codec::{decode_value, encode_value};
use crate::context::{OperatorContext, count};
use crate::element::Signal;
use crate::snapshot::ListMode;
use crate::stage::{Flow, Stage};
use crate::task::{Read, Task};
use crate::types::Shape;

/// Whether a source ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundedness {
    /// It ends by itself.
    Bounded,
    /// It goes on until the job is stopped.
    Unbounded,
}

/// A source of records.
pub trait Source: Clone + Send + 'static {
    /// What it reads.
    type Record: Record;
    /// A piece of work for one reader, with the position inside it.
    type Split: Clone + Send + Serialize + DeserializeOwned + 'static;
    /// Hands out splits.
    type Enumerator: SplitEnumerator<Split = Self::Split>;
    /// Reads splits.
    type Reader: SourceReader<Record = Self::Record, Split = Self::Split>;

    /// Whether it ends.
    fn boundedness(&self) -> Boundedness;
    /// Refuses what cannot be read, before the job runs.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// The enumerator for `parallelism` readers.
    fn enumerator(&self, parallelism: u32) -> Result<Self::Enumerator>;
    /// A reader.
    fn reader(&self, ctx: &OperatorContext) -> Result<Self::Reader>;
}

/// An enumerator's answer to a reader that asks for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment<S> {
    /// Read this.
    Split(S),
    /// Nothing yet: ask again after so many milliseconds.
    Later(u64),
    /// There will be no more for this reader; others may get some yet.
    NoMore,
}

/// Hands out splits; one per job.
pub trait SplitEnumerator: Send + 'static {
    /// A piece of work for one reader.
    type Split;
    /// Work for reader `subtask`. May do short blocking I/O (list a folder): it runs aside from the tasks.
    fn next_split(&mut self, subtask: u32) -> Result<Assignment<Self::Split>>;
    /// What it needs to go on from here, in a wire form of its own: the splits that are not handed out yet, what it has seen.
    fn snapshot(&self) -> Result<Vec<u8>> {
        Err(no_snapshots())
    }
    /// Goes on from there; called before anything else. The number of readers may have changed. Splits that were handed out are with the readers.
    fn restore(&mut self, _state: &[u8]) -> Result<()> {
        Err(no_snapshots())
    }
}

fn no_snapshots() -> Error {
    Error::user(
        "this source cannot take part in checkpoints: its split enumerator does not implement snapshot() and restore()",
    )
}

/// A batch, the end of the splits given so far, or nothing yet (the waker is registered).
pub type ReadBatch<T> = Poll<Option<Batch<T>>>;

/// Reads splits.
pub trait SourceReader: 'static {
    /// What it reads.
    type Record;
    /// A piece of work.
    type Split;
    /// Gives it a split to read.
    fn add_split(&mut self, split: Self::Split) -> Result<()>;
    /// The next batch, of about `max_records`; `None` when all splits are read.
    fn read(&mut self, max_records: usize, cx: &mut Context<'_>) -> Result<ReadBatch<Self::Record>>;
    /// The splits not yet read to the end, with their positions.
    fn snapshot(&self) -> Vec<Self::Split>;
    /// Releases what is held.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A [`SplitEnumerator`] without its types: splits in wire form.
pub trait ErasedEnumerator: Send {
    /// Work for reader `subtask`.
    fn next_split(&mut self, subtask: u32) -> Result<Assignment<Vec<u8>>>;
    /// See [`SplitEnumerator::snapshot`].
    fn snapshot(&self) -> Result<Vec<u8>>;
    /// See [`SplitEnumerator::restore`].
    fn restore(&mut self, state: &[u8]) -> Result<()>;
}

/// Erases an enumerator's types.
pub struct EnumeratorBox<E>(pub E);

impl<E: SplitEnumerator> ErasedEnumerator for EnumeratorBox<E>
where
    E::Split: Serialize,
{
    fn next_split(&mut self, subtask: u32) -> Result<Assignment<Vec<u8>>> {
        Ok(match self.0.next_split(subtask)? {
            Assignment::Split(split) => {
                let mut bytes = Vec::new();
                encode_value(&split, &mut bytes)?;
                Assignment::Split(bytes)
            }
            Assignment::Later(ms) => Assignment::Later(ms),
            Assignment::NoMore => Assignment::NoMore,
        })
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        self.0.snapshot()
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.0.restore(state)
    }
}

/// List state of the splits that a reader has not read to the end; frozen.
const SPLITS: &str = "splits";

/// Names the state of a source with splits of this type.
pub fn declare<S: DeserializeOwned + 'static>(ctx: &OperatorContext) -> Result<()> {
    let Some(state) = &ctx.state else { return Ok(()) };
    state.list_as(SPLITS, &Shape::of::<S>().canonical_text()).map(drop)
}

/// The task of a source: its reader, and the chain behind it.
pub struct SourceTask<R: SourceReader> {
    reader: R,
    next: Box<dyn Stage<Batch<R::Record>>>,
    ctx: OperatorContext,
    no_more_splits: bool,
    batch_size: usize,
    /// The last snapshot that the splits were handed in for.
    snapshot: u64,
    /// Text of the type of splits, once it is known.
    split_type: OnceCell<String>,
}

impl<R: SourceReader> SourceTask<R> {
    /// A task that pushes what `reader` reads into `next`.
    pub fn new(reader: R, next: Box<dyn Stage<Batch<R::Record>>>, ctx: OperatorContext) -> Self {
        let batch_size = ctx.task.settings.batch_size;
        let split_type = OnceCell::new();
        SourceTask { reader, next, ctx, no_more_splits: false, batch_size, snapshot: 0, split_type }
    }

    /// The task's context.
    pub fn context(&self) -> &Rc<crate::context::TaskContext> {
        &self.ctx.task
    }
}

impl<R: SourceReader> SourceTask<R>
where
    R::Split: Serialize + DeserializeOwned,
{
    /// Hands in the splits, with the positions behind what was pushed into the chain.
    fn hand_in_splits(&self) -> Result<()> {
        let Some(state) = &self.ctx.state else { return Ok(()) };
        let mut items = Vec::new();
        for split in self.reader.snapshot() {
            let mut item = Vec::new();
            encode_value(&split, &mut item)?;
            items.push(item);
        }
        state.set_list(SPLITS, ListMode::Split, self.split_type(), items)
    }

    fn split_type(&self) -> &str {
        self.split_type.get_or_init(|| Shape::of::<R::Split>().canonical_text())
    }
}

impl<R: SourceReader> Task for SourceTask<R>
where
    R::Split: Serialize + DeserializeOwned,
{
    fn open(&mut self) -> Result<()> {
        self.next.open()?;
        if self.ctx.task.snapshots.had_finished() {
            self.no_more_splits = true;
            return Ok(());
        }
        let Some(state) = &self.ctx.state else { return Ok(()) };
        if !state.is_restored() {
            return Ok(());
        }
        let splits = state.list_as(SPLITS, self.split_type())?;
        splits.iter().try_for_each(|split| self.reader.add_split(decode_value(split)?))
    }

    fn push(&mut self, _input: u16, _batch: Box<dyn ErasedBatch>) -> Result<()> {
        Err(Error::internal("a source has no input"))
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if let Signal::Barrier(barrier) = signal
            && std::mem::replace(&mut self.snapshot, barrier.checkpoint) != barrier.checkpoint
            && !self.ctx.task.snapshots.had_finished()
        {
            self.hand_in_splits()?;
        }
        self.next.signal(signal)
    }

    fn flush(&mut self) -> Result<()> {
        self.next.flush()
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        self.next.poll(now_ms, cx)
    }

    fn next_deadline_ms(&self) -> i64 {
        self.next.next_deadline_ms()
    }

    fn close(&mut self) -> Result<()> {
        let result = self.reader.close();
        result.and(self.next.close())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<Poll<Read>> {
        if self.ctx.task.snapshots.had_finished() {
            return Ok(Poll::Ready(Read::Ended));
        }
        Ok(match self.reader.read(self.batch_size, cx)? {
            Poll::Ready(Some(batch)) => {
                count(&self.ctx.metrics.records_out, batch.len());
                self.next.push(batch)?;
                Poll::Ready(Read::Batch)
            }
            Poll::Ready(None) if self.no_more_splits => Poll::Ready(Read::Ended),
            Poll::Ready(None) => Poll::Ready(Read::NeedsSplit),
            Poll::Pending => Poll::Pending,
        })
    }

    fn add_split(&mut self, split: Option<&[u8]>) -> Result<()> {
        match split {
            Some(bytes) => self.reader.add_split(decode_value(bytes)?),
            None => {
                self.no_more_splits = true;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

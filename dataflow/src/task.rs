//! A task as the worker sees it: a whole chain without its types.

use std::task::{Context, Poll};

use flott_schema::{Error, Result};

use crate::batch::{Batch, DataBatch, ErasedBatch};
use crate::element::Signal;
use crate::stage::{Flow, Stage};

/// The operators of one subtask. The rules of [`Stage`] hold.
pub trait Task {
    /// Opens all operators.
    fn open(&mut self) -> Result<()>;
    /// Processes a batch of logical input `input`.
    fn push(&mut self, input: u16, batch: Box<dyn ErasedBatch>) -> Result<()>;
    /// Processes a signal, combined over all channels.
    fn signal(&mut self, signal: Signal) -> Result<Flow>;
    /// All channels of one logical input have ended; called before the combined end of input, for tasks with several.
    fn input_ended(&mut self, _input: u16) -> Result<()> {
        Ok(())
    }
    /// The task is about to go idle.
    fn flush(&mut self) -> Result<()>;
    /// Does what has become due.
    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow>;
    /// When `poll` next has something to do.
    fn next_deadline_ms(&self) -> i64;
    /// Whether barriers neither overtake records nor are overtaken by any, whatever the job says: for operators whose records belong to the
    /// barrier behind them.
    fn is_strictly_aligned(&self) -> bool {
        false
    }
    /// Closes all operators.
    fn close(&mut self) -> Result<()>;
    /// Reads from outside, for a source: pushes at most one batch through the chain.
    fn read(&mut self, _cx: &mut Context<'_>) -> Result<Poll<Read>> {
        Err(Error::internal("a task that is no source was asked to read"))
    }
    /// Gives a source a split (in the wire form of its split type), or `None` when there are no more.
    fn add_split(&mut self, _split: Option<&[u8]>) -> Result<()> {
        Err(Error::internal("a task that is no source was given a split"))
    }
}

/// What a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Pushed a batch.
    Batch,
    /// Has no split left and needs one.
    NeedsSplit,
    /// Has read all of its splits, and there are no more.
    Ended,
}

/// A task with one input.
pub struct OneInputTask<B> {
    stage: Box<dyn Stage<B>>,
    strictly_aligned: bool,
}

impl<B> OneInputTask<B> {
    /// A task whose first operator is `stage`.
    pub fn new(stage: Box<dyn Stage<B>>) -> Self {
        OneInputTask { stage, strictly_aligned: false }
    }

    /// See [`Task::is_strictly_aligned`].
    pub fn strictly_aligned(self) -> Self {
        OneInputTask { strictly_aligned: true, ..self }
    }
}

/// Gives an erased batch its type back.
pub fn typed_batch<B: DataBatch>(batch: Box<dyn ErasedBatch>) -> Result<B> {
    batch.into_any().downcast::<B>().map(|batch| *batch).map_err(|_| {
        Error::internal(format!(
            "a batch of another type arrived where {} was expected",
            std::any::type_name::<B>()
        ))
    })
}

impl<B: DataBatch> Task for OneInputTask<B> {
    fn open(&mut self) -> Result<()> {
        self.stage.open()
    }

    fn push(&mut self, _input: u16, batch: Box<dyn ErasedBatch>) -> Result<()> {
        self.stage.push(typed_batch(batch)?)
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        self.stage.signal(signal)
    }

    fn flush(&mut self) -> Result<()> {
        self.stage.flush()
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        self.stage.poll(now_ms, cx)
    }

    fn next_deadline_ms(&self) -> i64 {
        self.stage.next_deadline_ms()
    }

    fn is_strictly_aligned(&self) -> bool {
        self.strictly_aligned
    }

    fn close(&mut self) -> Result<()> {
        self.stage.close()
    }
}

/// Erases a typed batch.
pub fn erased<T: crate::batch::Record>(batch: Batch<T>) -> Box<dyn ErasedBatch> {
    Box::new(batch)
}

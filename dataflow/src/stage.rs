//! The inside of a task: typed stages that hand whole batches to each other by direct calls.

use std::any::Any;
use std::task::Context;

use flott_schema::{Error, Result};

use crate::batch::DataBatch;
use crate::element::Signal;

/// Whether a call has done all of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// All done.
    Done,
    /// Something is waited for (room in the outputs, calls in flight): call again with the same arguments after the
    /// next poll.
    Again,
}

impl Flow {
    /// Done if both are.
    pub fn and(self, other: Flow) -> Flow {
        if self == Flow::Done { other } else { Flow::Again }
    }
}

/// Consumes the batches and signals of one place in a task.
///
/// Calls come from one thread, in stream order. `signal` may answer [`Flow::Again`]; then nothing but the same call
/// may follow until it answers [`Flow::Done`]. That is how a large firing stays within the credits of its outputs.
pub trait Stage<B> {
    /// Called once, before any other call; downstream stages are opened first.
    fn open(&mut self) -> Result<()>;
    /// Processes a batch.
    fn push(&mut self, batch: B) -> Result<()>;
    /// Processes a signal and passes it on.
    fn signal(&mut self, signal: Signal) -> Result<Flow>;
    /// Sends on what is held back to fill a batch: the task is about to go idle.
    fn flush(&mut self) -> Result<()>;
    /// Does what has become due: processing-time timers, completed asynchronous calls, buffer timeouts.
    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow>;
    /// When `poll` next has something to do, epoch milliseconds; `i64::MAX` for never.
    fn next_deadline_ms(&self) -> i64;
    /// Whether this stage or one behind it takes no more for now, for another reason than outputs without credit: a
    /// sink or a service is waited for. What is pushed nevertheless is kept; a long emission in front should pause.
    fn is_blocked(&self) -> bool {
        false
    }
    /// Called once, also after a failure; releases what is held.
    fn close(&mut self) -> Result<()>;
}

/// A `Box<dyn Stage<B>>` whose `B` the graph does not know.
pub struct StageBox(Box<dyn Any>);

impl StageBox {
    /// Erases the type.
    pub fn new<B: 'static>(stage: Box<dyn Stage<B>>) -> Self {
        StageBox(Box::new(stage))
    }

    /// Gives the type back; an error means the graph connected operators of different types.
    pub fn typed<B: 'static>(self) -> Result<Box<dyn Stage<B>>> {
        self.0.downcast::<Box<dyn Stage<B>>>().map(|stage| *stage).map_err(|_| {
            Error::internal(format!(
                "operators of different types are connected: {} expected",
                std::any::type_name::<B>()
            ))
        })
    }
}

/// Joins the consumers of one output: none, one, or several that each get a copy.
pub fn join_stages<B: DataBatch>(mut stages: Vec<StageBox>) -> Result<Box<dyn Stage<B>>> {
    match stages.len() {
        1 => stages.remove(0).typed(),
        _ => Ok(Box::new(Tee {
            stages: stages.into_iter().map(StageBox::typed).collect::<Result<_>>()?,
            signalled: 0,
        })),
    }
}

/// Copies to several consumers; with none, drops.
struct Tee<B> {
    stages: Vec<Box<dyn Stage<B>>>,
    /// Consumers that have already answered `Done` to the signal being repeated.
    signalled: usize,
}

impl<B: DataBatch> Stage<B> for Tee<B> {
    fn open(&mut self) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.open())
    }

    fn push(&mut self, batch: B) -> Result<()> {
        let Some((last, others)) = self.stages.split_last_mut() else { return Ok(()) };
        for stage in others {
            stage.push(batch.duplicate())?;
        }
        last.push(batch)
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        while let Some(stage) = self.stages.get_mut(self.signalled) {
            if stage.signal(signal)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.signalled += 1;
        }
        self.signalled = 0;
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.flush())
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        // One that waits must not keep the others waiting.
        self.stages.iter_mut().try_fold(Flow::Done, |flow, stage| Ok(flow.and(stage.poll(now_ms, cx)?)))
    }

    fn next_deadline_ms(&self) -> i64 {
        self.stages.iter().map(|stage| stage.next_deadline_ms()).min().unwrap_or(i64::MAX)
    }

    fn is_blocked(&self) -> bool {
        self.stages.iter().any(|stage| stage.is_blocked())
    }

    fn close(&mut self) -> Result<()> {
        let results: Vec<Result<()>> = self.stages.iter_mut().map(|stage| stage.close()).collect();
        results.into_iter().collect()
    }
}

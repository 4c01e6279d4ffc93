//! The end of a chain: a sink's writer, and when what it has prepared is committed.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::control::LAST_SNAPSHOT;
use flott_schema::{Error, Result};

use crate::batch::Batch;
use crate::codec::encode_value;
use crate::context::{OperatorContext, count};
use crate::element::Signal;
use crate::operators::commits::Commits;
use crate::operators::global_commits::Prepared;
use crate::sink::{Committer, SinkWriter};
use crate::snapshot::AfterBarrier;
use crate::stage::{Flow, Stage};

/// Makes the writer of a task from what writers handed in for the snapshot that the task starts from.
pub type MakeWriter<W> = Box<dyn FnOnce(&OperatorContext, Vec<Vec<u8>>) -> Result<W>>;

/// Writes batches. In a job that takes snapshots it commits what was prepared at a barrier when that snapshot is complete; in others
/// at the end of the input. Where the sink has a global committer, what was prepared goes there instead, in front of the barrier.
pub struct SinkStage<W, C: Committer> {
    make_writer: Option<MakeWriter<W>>,
    /// None before the task is opened, and in one that had finished.
    writer: Option<W>,
    commits: Rc<RefCell<Commits<C>>>,
    /// The way to the global committer.
    global: Option<Box<dyn Stage<Batch<Prepared>>>>,
    /// Whether the writer has prepared for the signal at hand, which is yet to pass on.
    has_prepared: bool,
    ctx: OperatorContext,
    /// Whether the writer has said that it takes no more for now.
    blocked: bool,
    /// Whether it said so without knowing whom to wake.
    unpolled: bool,
}

impl<W, C: Committer> SinkStage<W, C> {
    /// A stage around a committer and the writer that `make_writer` gives.
    pub fn new(make_writer: MakeWriter<W>, committer: C, ctx: OperatorContext) -> Self {
        let commits = Rc::new(RefCell::new(Commits::new(committer, ctx.state.clone())));
        SinkStage {
            make_writer: Some(make_writer),
            writer: None,
            commits,
            global: None,
            has_prepared: false,
            ctx,
            blocked: false,
            unpolled: false,
        }
    }

    /// Sends what is prepared to a global committer.
    pub fn with_global_committer(self, global: Box<dyn Stage<Batch<Prepared>>>) -> Self {
        SinkStage { global: Some(global), ..self }
    }

    fn set_blocked(&mut self, blocked: bool) {
        match (self.blocked, blocked) {
            (false, true) => self.ctx.task.congestion.block_input(),
            (true, false) => self.ctx.task.congestion.unblock_input(),
            _ => {}
        }
        self.blocked = blocked;
    }
}

impl<W, C: Committer> SinkStage<W, C>
where
    C::Committable: Serialize + DeserializeOwned + 'static,
{
    /// Has the writer prepare, if that is due at this signal.
    fn prepare<T>(&mut self, signal: Signal) -> Result<Flow>
    where
        W: SinkWriter<T, Committable = C::Committable>,
    {
        let Some(writer) = &mut self.writer else { return Ok(Flow::Done) };
        let ends = match signal {
            Signal::EndOfInput => true,
            Signal::Barrier(barrier) => barrier.after == AfterBarrier::Drain,
            Signal::Watermark(_) | Signal::Idle(_) => return Ok(Flow::Done),
        };
        // What the writer still holds must be out first.
        if self.blocked {
            return Ok(Flow::Again);
        }
        flott_faults::point("sink.prepare");
        let mut prepared = writer.prepare_commit(ends)?;
        flott_faults::point("sink.prepared");
        match (writer.unfinished(), signal, &self.ctx.state) {
            (Some(work), Signal::Barrier(_), Some(state)) => state.complete_later(work)?,
            (Some(work), ..) => work()?,
            (None, ..) => {}
        }
        if let Some(global) = &mut self.global {
            let checkpoint = match signal {
                Signal::Barrier(barrier) => Some(barrier.checkpoint),
                _ => None,
            };
            let prepared = std::mem::take(&mut prepared);
            count(&self.ctx.metrics.records_out, prepared.len());
            let records = prepared.iter().map(|committable| {
                let mut bytes = Vec::new();
                encode_value(committable, &mut bytes)?;
                Ok(Prepared { checkpoint, committable: bytes })
            });
            let records = records.collect::<Result<Vec<_>>>()?;
            if !records.is_empty() {
                global.push(Batch::of(records))?;
            }
        }
        let mut commits = self.commits.borrow_mut();
        match signal {
            Signal::Barrier(barrier) => {
                let state = writer.snapshot(barrier.checkpoint)?;
                commits.prepared(barrier.checkpoint, prepared, state)?;
            }
            _ if self.ctx.task.snapshots.last_commit_waits() => {
                commits.prepared_last(prepared, writer.snapshot(LAST_SNAPSHOT)?)
            }
            _ => commits.commit_all(prepared)?,
        }
        Ok(Flow::Done)
    }
}

impl<T, W, C> Stage<Batch<T>> for SinkStage<W, C>
where
    W: SinkWriter<T>,
    C: Committer<Committable = W::Committable>,
    C::Committable: Serialize + DeserializeOwned + 'static,
{
    fn open(&mut self) -> Result<()> {
        self.global.as_mut().map_or(Ok(()), |global| global.open())?;
        let restored = self.commits.borrow_mut().open()?;
        let snapshots = &self.ctx.task.snapshots;
        if snapshots.are_taken() {
            snapshots.listen(self.commits.clone());
        }
        match self.make_writer.take() {
            Some(make_writer) if !snapshots.had_finished() => {
                self.writer = Some(make_writer(&self.ctx, restored)?);
            }
            _ => self.commits.borrow_mut().prepared_last(Vec::new(), restored),
        }
        Ok(())
    }

    fn push(&mut self, batch: Batch<T>) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::internal(format!("sink '{}' got records and has no writer", self.ctx.name)));
        };
        count(&self.ctx.metrics.records_in, batch.len());
        writer.write(batch)?;
        // Without a waker of the task at hand: if the writer is not ready, a poll is due at once, and registers one.
        let ready = writer.poll_ready(&mut Context::from_waker(Waker::noop()))?;
        self.unpolled = ready.is_pending();
        self.set_blocked(ready.is_pending());
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if !self.has_prepared && self.prepare::<T>(signal)? == Flow::Again {
            return Ok(Flow::Again);
        }
        let flow = self.global.as_mut().map_or(Ok(Flow::Done), |global| global.signal(signal))?;
        self.has_prepared = flow == Flow::Again;
        Ok(flow)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), SinkWriter::flush)?;
        self.global.as_mut().map_or(Ok(()), |global| global.flush())
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        let flow = self.global.as_mut().map_or(Ok(Flow::Done), |global| global.poll(now_ms, cx))?;
        self.unpolled = false;
        let Some(writer) = &mut self.writer else { return Ok(flow) };
        let ready = if self.blocked { writer.poll_ready(cx)? } else { Poll::Ready(()) };
        if now_ms >= writer.next_deadline_ms() {
            writer.on_deadline(now_ms)?;
        }
        self.set_blocked(ready.is_pending());
        Ok(flow)
    }

    fn next_deadline_ms(&self) -> i64 {
        let of_global = self.global.as_ref().map_or(i64::MAX, |global| global.next_deadline_ms());
        match &self.writer {
            Some(_) if self.unpolled => i64::MIN,
            Some(writer) => writer.next_deadline_ms().min(of_global),
            None => of_global,
        }
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn close(&mut self) -> Result<()> {
        self.set_blocked(false);
        let closed = self.writer.as_mut().map_or(Ok(()), SinkWriter::close);
        closed.and(self.global.as_mut().map_or(Ok(()), |global| global.close()))
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod snapshot_tests;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::context::{Settings, TaskContext};
    use crate::sink::NothingToCommit;

    /// Ready when told so.
    struct Slow(Rc<Cell<bool>>);

    impl SinkWriter<u8> for Slow {
        type Committable = ();

        fn write(&mut self, _batch: Batch<u8>) -> Result<()> {
            Ok(())
        }

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Result<Poll<()>> {
            Ok(if self.0.get() { Poll::Ready(()) } else { Poll::Pending })
        }

        fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_writer_that_takes_no_more_blocks_the_input_and_is_polled_at_once_to_learn_whom_to_wake() {
        let ready = Rc::new(Cell::new(false));
        let task = Rc::new(TaskContext::new("job", "vertex", 0, 1, 128, Settings::default()));
        let ctx = OperatorContext::new(task.clone(), "sink", "sink");
        let slow = Slow(ready.clone());
        let mut stage = SinkStage::new(Box::new(|_, _| Ok(slow)), NothingToCommit, ctx);
        stage.open().unwrap();
        stage.push(Batch::of(vec![1])).unwrap();
        assert!(stage.is_blocked() && task.congestion.is_input_blocked());
        assert_eq!(stage.next_deadline_ms(), i64::MIN);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(stage.poll(0, &mut cx).unwrap(), Flow::Done);
        assert_eq!(stage.next_deadline_ms(), i64::MAX);
        assert_eq!(stage.signal(Signal::EndOfInput).unwrap(), Flow::Again);
        ready.set(true);
        assert_eq!(stage.poll(0, &mut cx).unwrap(), Flow::Done);
        assert!(!stage.is_blocked() && !task.congestion.is_input_blocked());
        assert_eq!(stage.signal(Signal::EndOfInput).unwrap(), Flow::Done);
    }

    #[test]
    fn closing_a_blocked_sink_releases_the_input() {
        let task = Rc::new(TaskContext::new("job", "vertex", 0, 1, 128, Settings::default()));
        let ctx = OperatorContext::new(task.clone(), "sink", "sink");
        let mut stage = SinkStage::new(Box::new(|_, _| Ok(Slow(Rc::default()))), NothingToCommit, ctx);
        stage.open().unwrap();
        stage.push(Batch::of(vec![1])).unwrap();
        stage.close().unwrap();
        assert!(!task.congestion.is_input_blocked());
    }
}

//! The end of a chain: a sink's writer and committer.

use std::task::{Context, Poll, Waker};

use flott_schema::Result;

use crate::batch::Batch;
use crate::context::{OperatorContext, count};
use crate::element::Signal;
use crate::sink::{Committer, SinkWriter};
use crate::stage::{Flow, Stage};

/// Writes batches; commits at the end of the input.
pub struct SinkStage<W, C> {
    writer: W,
    committer: C,
    ctx: OperatorContext,
    /// Whether the writer has said that it takes no more for now.
    blocked: bool,
    /// Whether it said so without knowing whom to wake.
    unpolled: bool,
}

impl<W, C> SinkStage<W, C> {
    /// A stage around a writer and its committer.
    pub fn new(writer: W, committer: C, ctx: OperatorContext) -> Self {
        SinkStage { writer, committer, ctx, blocked: false, unpolled: false }
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

impl<T, W, C> Stage<Batch<T>> for SinkStage<W, C>
where
    W: SinkWriter<T>,
    C: Committer<Committable = W::Committable>,
{
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<T>) -> Result<()> {
        count(&self.ctx.metrics.records_in, batch.len());
        self.writer.write(batch)?;
        // Without a waker of the task at hand: if the writer is not ready, a poll is due at once, and registers one.
        let ready = self.writer.poll_ready(&mut Context::from_waker(Waker::noop()))?;
        self.unpolled = ready.is_pending();
        self.set_blocked(ready.is_pending());
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if signal == Signal::EndOfInput {
            if self.blocked {
                return Ok(Flow::Again);
            }
            let committables = self.writer.prepare_commit(true)?;
            self.committer.commit(committables)?;
        }
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>) -> Result<Flow> {
        self.unpolled = false;
        if self.blocked {
            let ready = self.writer.poll_ready(cx)?;
            self.set_blocked(matches!(ready, Poll::Pending));
        }
        if now_ms >= self.writer.next_deadline_ms() {
            self.writer.on_deadline(now_ms)?;
        }
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.unpolled { i64::MIN } else { self.writer.next_deadline_ms() }
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn close(&mut self) -> Result<()> {
        self.set_blocked(false);
        self.writer.close()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

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
        let mut stage = SinkStage::new(Slow(ready.clone()), NothingToCommit, ctx);
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
        let mut stage = SinkStage::new(Slow(Rc::default()), NothingToCommit, ctx);
        stage.push(Batch::of(vec![1])).unwrap();
        stage.close().unwrap();
        assert!(!task.congestion.is_input_blocked());
    }
}

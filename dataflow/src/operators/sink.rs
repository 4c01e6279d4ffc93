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
}

impl<W, C> SinkStage<W, C> {
    /// A stage around a writer and its committer.
    pub fn new(writer: W, committer: C, ctx: OperatorContext) -> Self {
        SinkStage { writer, committer, ctx, blocked: false }
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
        // Without a waker of the task at hand: if the writer is not ready, `poll` comes next and registers one.
        let ready = self.writer.poll_ready(&mut Context::from_waker(Waker::noop()))?;
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
        self.writer.next_deadline_ms()
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn close(&mut self) -> Result<()> {
        self.set_blocked(false);
        self.writer.close()
    }
}

//! Process functions on streams without keys.

use std::marker::PhantomData;

use flott_schema::Result;

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::function::Function;
use crate::operator::{Collector, Operator, OutputTag};
use crate::operators::list_state::SnapshotContext;
use crate::operators::open::OpenContext;
use crate::stage::Flow;

/// Any number of records out for each one in, with side outputs (Flink's `ProcessFunction`).
pub trait ProcessFunction<I, O>: Function {
    /// Called once before the first record.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record.
    fn process(&mut self, record: I, ctx: &mut ProcessContext<'_, O>) -> Result<()>;

    /// A snapshot is taken: sets list states.
    fn snapshot(&mut self, _ctx: &mut SnapshotContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a process function can do with a record.
pub struct ProcessContext<'a, O> {
    out: &'a mut Collector<O>,
    watermark_ms: i64,
    now_ms: i64,
}

impl<'a, O: 'static> ProcessContext<'a, O> {
    /// A context over `out`, whose timestamp is that of the record.
    pub(crate) fn new(out: &'a mut Collector<O>, watermark_ms: i64, now_ms: i64) -> Self {
        ProcessContext { out, watermark_ms, now_ms }
    }

    /// Emits a record with the timestamp of the current one.
    #[inline]
    pub fn collect(&mut self, record: O) {
        self.out.collect(record);
    }

    /// Emits a record to a side output.
    pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, record: S) {
        self.out.side(tag, record);
    }

    /// The timestamp of the current record, epoch milliseconds.
    pub fn timestamp(&self) -> Option<i64> {
        Some(self.out.timestamp()).filter(|timestamp| *timestamp != NO_TIMESTAMP)
    }

    /// The watermark; `i64::MIN` before the first.
    pub fn watermark(&self) -> i64 {
        self.watermark_ms
    }

    /// Processing time, epoch milliseconds.
    pub fn processing_time(&self) -> i64 {
        self.now_ms
    }
}

/// Runs a [`ProcessFunction`].
pub struct Process<I, O, F> {
    function: F,
    ctx: OperatorContext,
    watermark_ms: i64,
    records: PhantomData<fn(I) -> O>,
}

impl<I, O, F> Process<I, O, F> {
    /// An operator around `function`.
    pub fn new(function: F, ctx: &OperatorContext) -> Self {
        Process { function, ctx: ctx.clone(), watermark_ms: i64::MIN, records: PhantomData }
    }
}

impl<I: 'static, O: 'static, F: ProcessFunction<I, O>> Operator for Process<I, O, F> {
    type In = I;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.function.open(&mut OpenContext::plain(ctx))
    }

    fn process(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            self.function.process(record, &mut ProcessContext::new(out, self.watermark_ms, now_ms))?;
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        if let Signal::Watermark(watermark) = signal {
            self.watermark_ms = watermark;
        }
        out.signal(signal)
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.function.snapshot(&mut SnapshotContext::new(&self.ctx, barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

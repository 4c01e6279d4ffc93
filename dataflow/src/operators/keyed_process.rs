//! Process functions on keyed streams: state and timers.

use std::marker::PhantomData;
use std::task::Context;

use flott_schema::Result;

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::function::Function;
use crate::key::{Key, KeySelector};
use crate::operator::{Collector, Operator, OutputTag};
use crate::operators::keyed::KeyedCore;
use crate::operators::list_state::SnapshotContext;
use crate::operators::open::OpenContext;
use crate::stage::Flow;
use crate::state::{KeyedScope, KeyedState, StateStore, TimeDomain, Timer};

/// Any number of records out for each one in, with state and timers of the record's key
/// (Flink's `KeyedProcessFunction`).
pub trait KeyedProcessFunction<K, I, O>: Function {
    /// Called once before the first record: registers states.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record.
    fn process(&mut self, record: I, ctx: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// A timer of a key has fired.
    fn on_timer(&mut self, _timer: Timer, _ctx: &mut KeyedContext<'_, K, O>) -> Result<()> {
        Ok(())
    }

    /// A snapshot is taken: sets list states.
    fn snapshot(&mut self, _ctx: &mut SnapshotContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a keyed function can do with a record or timer.
pub struct KeyedContext<'a, K, O> {
    slot: u32,
    state: &'a mut KeyedState<K>,
    out: &'a mut Collector<O>,
    watermark_ms: i64,
    now_ms: i64,
}

impl<K: Key, O> KeyedScope for KeyedContext<'_, K, O> {
    #[inline]
    fn states(&mut self) -> &mut StateStore {
        self.state.store()
    }
}

impl<'a, K: Key, O: 'static> KeyedContext<'a, K, O> {
    pub(crate) fn new(
        slot: u32,
        state: &'a mut KeyedState<K>,
        out: &'a mut Collector<O>,
        watermark_ms: i64,
        now_ms: i64,
    ) -> Self {
        KeyedContext { slot, state, out, watermark_ms, now_ms }
    }

    /// The key of the record or timer.
    pub fn key(&self) -> &K {
        self.state.key(self.slot)
    }

    /// Emits a record with the timestamp of the current record or timer.
    #[inline]
    pub fn collect(&mut self, record: O) {
        self.out.collect(record);
    }

    /// Emits a record to a side output.
    pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, record: S) {
        self.out.side(tag, record);
    }

    /// The timestamp of the current record or timer, epoch milliseconds.
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

    /// Has `on_timer` called for the current key when the watermark reaches `timestamp_ms`.
    pub fn register_event_timer(&mut self, timestamp_ms: i64) {
        self.state.register_timer(TimeDomain::Event, timestamp_ms, self.slot);
    }

    /// Has `on_timer` called for the current key when the clock reaches `timestamp_ms`.
    pub fn register_processing_timer(&mut self, timestamp_ms: i64) {
        self.state.register_timer(TimeDomain::Processing, timestamp_ms, self.slot);
    }

    /// Deletes an event-time timer of the current key.
    pub fn delete_event_timer(&mut self, timestamp_ms: i64) {
        self.state.delete_timer(TimeDomain::Event, timestamp_ms, self.slot);
    }

    /// Deletes a processing-time timer of the current key.
    pub fn delete_processing_timer(&mut self, timestamp_ms: i64) {
        self.state.delete_timer(TimeDomain::Processing, timestamp_ms, self.slot);
    }
}

/// Runs a [`KeyedProcessFunction`].
pub struct KeyedProcess<S: KeySelector<I>, I, O, F> {
    selector: S,
    function: F,
    core: KeyedCore<S::Key>,
    records: PhantomData<fn(I) -> O>,
}

impl<S: KeySelector<I>, I, O, F> KeyedProcess<S, I, O, F> {
    /// An operator around `function`.
    pub fn new(selector: S, function: F, ctx: &OperatorContext) -> Self {
        KeyedProcess { selector, function, core: KeyedCore::new(ctx), records: PhantomData }
    }
}

impl<S, I, O, F> Operator for KeyedProcess<S, I, O, F>
where
    S: KeySelector<I>,
    I: 'static,
    O: 'static,
    F: KeyedProcessFunction<S::Key, I, O>,
{
    type In = I;
    type Out = O;

    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        self.core.open(|ctx| self.function.open(ctx))
    }

    fn process(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let function = &mut self.function;
        self.core.process(&self.selector, batch, out, |record, mut ctx| function.process(record, &mut ctx))
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        self.core.signal(signal, out, |timer, mut ctx| self.function.on_timer(timer, &mut ctx))
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<O>) -> Result<Flow> {
        self.core.poll(now_ms, out, |timer, mut ctx| self.function.on_timer(timer, &mut ctx))
    }

    fn next_deadline_ms(&self) -> i64 {
        self.core.next_deadline_ms()
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.core.snapshot();
        self.function.snapshot(&mut SnapshotContext::new(self.core.context(), barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

#[cfg(test)]
mod tests;

//! Broadcast state beside a keyed stream.

use std::marker::PhantomData;
use std::task::Context;

use flott_schema::Result;

use super::state::{BroadcastMap, BroadcastState, BroadcastStates, DeclaredState};
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::function::Function;
use crate::key::{Key, KeySelector};
use crate::operator::{Collector, OutputTag};
use crate::operators::keyed::KeyedCore;
use crate::operators::keyed_process::KeyedContext;
use crate::operators::list_state::SnapshotContext;
use crate::operators::open::OpenContext;
use crate::operators::process::ProcessContext;
use crate::stage::Flow;
use crate::state::{KeyedScope, KeyedState, StateStore, Timer};
use crate::two_input::TwoInputOperator;

/// Processes records by what a broadcast stream has said, with state and timers of the record's key (Flink's
/// `KeyedBroadcastProcessFunction`).
pub trait KeyedBroadcastProcessFunction<K, I, B, O>: Function {
    /// Called once before the first record: registers keyed states.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record; broadcast state can be read.
    fn process(&mut self, record: I, ctx: &mut KeyedReadOnlyContext<'_, K, O>) -> Result<()>;

    /// Processes a record of the broadcast stream, in every task; broadcast state can be changed. What is written
    /// must depend on the record and the broadcast state alone, so that all tasks write the same.
    fn process_broadcast(&mut self, record: B, ctx: &mut KeyedBroadcastContext<'_, K, O>) -> Result<()>;

    /// A timer of a key has fired; broadcast state can be read.
    fn on_timer(&mut self, _timer: Timer, _ctx: &mut KeyedReadOnlyContext<'_, K, O>) -> Result<()> {
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

/// What a function can do with a record of the keyed stream or a timer.
pub struct KeyedReadOnlyContext<'a, K, O> {
    inner: KeyedContext<'a, K, O>,
    states: &'a BroadcastStates,
}

impl<'a, K: Key, O: 'static> KeyedReadOnlyContext<'a, K, O> {
    record_methods!(O);

    /// The key of the record or timer.
    pub fn key(&self) -> &K {
        self.inner.key()
    }

    /// Has `on_timer` called for the current key when the watermark reaches `timestamp_ms`.
    pub fn register_event_timer(&mut self, timestamp_ms: i64) {
        self.inner.register_event_timer(timestamp_ms);
    }

    /// Has `on_timer` called for the current key when the clock reaches `timestamp_ms`.
    pub fn register_processing_timer(&mut self, timestamp_ms: i64) {
        self.inner.register_processing_timer(timestamp_ms);
    }

    /// Deletes an event-time timer of the current key.
    pub fn delete_event_timer(&mut self, timestamp_ms: i64) {
        self.inner.delete_event_timer(timestamp_ms);
    }

    /// Deletes a processing-time timer of the current key.
    pub fn delete_processing_timer(&mut self, timestamp_ms: i64) {
        self.inner.delete_processing_timer(timestamp_ms);
    }

    /// A map of broadcast state; fails if the broadcast stream was not given it. The context stays free, so results
    /// can be emitted and keyed state changed while the map is read.
    #[inline]
    pub fn broadcast_state<BK: Key, V: Record>(
        &self,
        state: &BroadcastState<BK, V>,
    ) -> Result<&'a BroadcastMap<BK, V>> {
        self.states.get(state)
    }
}

impl<K: Key, O> KeyedScope for KeyedReadOnlyContext<'_, K, O> {
    #[inline]
    fn states(&mut self) -> &mut StateStore {
        self.inner.states()
    }
}

/// What a function can do with a record of the broadcast stream. There is no current key, and so neither keyed state
/// nor timers, except by [`Self::apply_to_keyed_state`].
pub struct KeyedBroadcastContext<'a, K, O> {
    states: &'a mut BroadcastStates,
    keyed: &'a mut KeyedState<K>,
    inner: ProcessContext<'a, O>,
}

impl<K: Key, O: 'static> KeyedBroadcastContext<'_, K, O> {
    record_methods!(O);

    /// A map of broadcast state, to be changed; fails if the broadcast stream was not given it.
    pub fn broadcast_state<BK: Key, V: Record>(
        &mut self,
        state: &BroadcastState<BK, V>,
    ) -> Result<&mut BroadcastMap<BK, V>> {
        self.states.get_mut(state)
    }

    /// Calls `apply` for each key of this task that has state or a timer, with its states; ends with the first error.
    pub fn apply_to_keyed_state(
        &mut self,
        mut apply: impl FnMut(&K, &mut OtherKeyContext<'_, '_, O>) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        self.keyed.for_each_key(|key, store| {
            if result.is_ok() {
                result = apply(key, &mut OtherKeyContext { store, inner: &mut self.inner });
            }
        });
        result
    }
}

/// The states of one key among all, for [`KeyedBroadcastContext::apply_to_keyed_state`].
pub struct OtherKeyContext<'a, 'b, O> {
    store: &'a mut StateStore,
    inner: &'a mut ProcessContext<'b, O>,
}

impl<O: 'static> OtherKeyContext<'_, '_, O> {
    record_methods!(O);
}

impl<O> KeyedScope for OtherKeyContext<'_, '_, O> {
    fn states(&mut self) -> &mut StateStore {
        self.store
    }
}

/// Runs a [`KeyedBroadcastProcessFunction`].
pub struct KeyedBroadcastProcess<S: KeySelector<I>, I, B, O, F> {
    selector: S,
    function: F,
    states: BroadcastStates,
    core: KeyedCore<S::Key>,
    records: PhantomData<fn(I, B) -> O>,
}

impl<S: KeySelector<I>, I, B, O, F> KeyedBroadcastProcess<S, I, B, O, F> {
    /// An operator around `function`, with the maps `declared`.
    pub fn new(selector: S, function: F, declared: &[DeclaredState], ctx: &OperatorContext) -> Self {
        KeyedBroadcastProcess {
            selector,
            function,
            states: BroadcastStates::new(declared, &ctx.name),
            core: KeyedCore::new(ctx),
            records: PhantomData,
        }
    }
}

impl<S, I, B, O, F> TwoInputOperator for KeyedBroadcastProcess<S, I, B, O, F>
where
    S: KeySelector<I>,
    I: 'static,
    B: 'static,
    O: 'static,
    F: KeyedBroadcastProcessFunction<S::Key, I, B, O>,
{
    type Left = I;
    type Right = B;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.states.restore(ctx)?;
        // A broadcast record may ask for all keys.
        self.core.open_resident(|ctx| self.function.open(ctx))
    }

    fn process_left(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let (function, states) = (&mut self.function, &self.states);
        self.core.process(&self.selector, batch, out, |record, inner| {
            function.process(record, &mut KeyedReadOnlyContext { inner, states })
        })
    }

    fn process_right(&mut self, batch: Batch<B>, out: &mut Collector<O>) -> Result<()> {
        let (watermark_ms, now_ms) = (self.core.watermark_ms(), self.core.now_ms());
        let keyed = self.core.state();
        keyed.begin(now_ms);
        let records = batch.len();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            let inner = ProcessContext::new(out, watermark_ms, now_ms);
            let ctx = &mut KeyedBroadcastContext { states: &mut self.states, keyed, inner };
            self.function.process_broadcast(record, ctx)?;
        }
        keyed.end();
        keyed.drain_some(records);
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        let (function, states) = (&mut self.function, &self.states);
        self.core.signal(signal, out, |timer, inner| {
            function.on_timer(timer, &mut KeyedReadOnlyContext { inner, states })
        })
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<O>) -> Result<Flow> {
        let (function, states) = (&mut self.function, &self.states);
        self.core.poll(now_ms, out, |timer, inner| {
            function.on_timer(timer, &mut KeyedReadOnlyContext { inner, states })
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.core.next_deadline_ms()
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.states.snapshot(self.core.context())?;
        self.core.snapshot();
        self.function.snapshot(&mut SnapshotContext::new(self.core.context(), barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

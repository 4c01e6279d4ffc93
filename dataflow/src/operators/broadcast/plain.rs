//! Broadcast state beside a stream without keys.

use std::marker::PhantomData;

use flott_schema::Result;

use super::state::{BroadcastMap, BroadcastState, BroadcastStates, DeclaredState};
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::function::Function;
use crate::key::Key;
use crate::operator::{Collector, OutputTag};
use crate::operators::list_state::SnapshotContext;
use crate::operators::open::OpenContext;
use crate::operators::process::ProcessContext;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Processes records by what a broadcast stream has said (Flink's `BroadcastProcessFunction`).
pub trait BroadcastProcessFunction<I, B, O>: Function {
    /// Called once before the first record.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record; broadcast state can be read.
    fn process(&mut self, record: I, ctx: &mut ReadOnlyContext<'_, O>) -> Result<()>;

    /// Processes a record of the broadcast stream, in every task; broadcast state can be changed. What is written
    /// must depend on the record and the state alone, so that all tasks write the same.
    fn process_broadcast(&mut self, record: B, ctx: &mut BroadcastContext<'_, O>) -> Result<()>;

    /// A snapshot is taken: sets list states.
    fn snapshot(&mut self, _ctx: &mut SnapshotContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a function can do with a record of the stream that is not broadcast.
pub struct ReadOnlyContext<'a, O> {
    inner: ProcessContext<'a, O>,
    states: &'a BroadcastStates,
}

impl<'a, O: 'static> ReadOnlyContext<'a, O> {
    record_methods!(O);

    /// A map of broadcast state; fails if the broadcast stream was not given it. The context stays free, so results
    /// can be emitted while the map is read. It can be read:
    ///
    /// ```
    /// # use flott_dataflow::operators::broadcast::{BroadcastState, ReadOnlyContext};
    /// fn process(state: &BroadcastState<u8, u8>, ctx: &mut ReadOnlyContext<'_, u8>) -> flott_schema::Result<()> {
    ///     ctx.broadcast_state(state)?.iter().for_each(|(_, value)| ctx.collect(*value));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// and not changed:
    ///
    /// ```compile_fail,E0596
    /// # use flott_dataflow::operators::broadcast::{BroadcastState, ReadOnlyContext};
    /// fn process(state: &BroadcastState<u8, u8>, ctx: &mut ReadOnlyContext<'_, u8>) -> flott_schema::Result<()> {
    ///     ctx.broadcast_state(state)?.put(1, 2);
    ///     Ok(())
    /// }
    /// ```
    #[inline]
    pub fn broadcast_state<K: Key, V: Record>(
        &self,
        state: &BroadcastState<K, V>,
    ) -> Result<&'a BroadcastMap<K, V>> {
        self.states.get(state)
    }
}

/// What a function can do with a record of the broadcast stream.
pub struct BroadcastContext<'a, O> {
    inner: ProcessContext<'a, O>,
    states: &'a mut BroadcastStates,
}

impl<O: 'static> BroadcastContext<'_, O> {
    record_methods!(O);

    /// A map of broadcast state, to be changed; fails if the broadcast stream was not given it.
    pub fn broadcast_state<K: Key, V: Record>(
        &mut self,
        state: &BroadcastState<K, V>,
    ) -> Result<&mut BroadcastMap<K, V>> {
        self.states.get_mut(state)
    }
}

/// Runs a [`BroadcastProcessFunction`].
pub struct BroadcastProcess<I, B, O, F> {
    function: F,
    states: BroadcastStates,
    ctx: OperatorContext,
    watermark_ms: i64,
    records: PhantomData<fn(I, B) -> O>,
}

impl<I, B, O, F> BroadcastProcess<I, B, O, F> {
    /// An operator around `function`, with the maps `declared`.
    pub fn new(function: F, declared: &[DeclaredState], ctx: &OperatorContext) -> Self {
        BroadcastProcess {
            function,
            states: BroadcastStates::new(declared, &ctx.name),
            ctx: ctx.clone(),
            watermark_ms: i64::MIN,
            records: PhantomData,
        }
    }
}

impl<I, B, O, F> TwoInputOperator for BroadcastProcess<I, B, O, F>
where
    I: 'static,
    B: 'static,
    O: 'static,
    F: BroadcastProcessFunction<I, B, O>,
{
    type Left = I;
    type Right = B;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.states.restore(ctx)?;
        self.function.open(&mut OpenContext::plain(ctx))
    }

    fn process_left(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            let inner = ProcessContext::new(out, self.watermark_ms, now_ms);
            self.function.process(record, &mut ReadOnlyContext { inner, states: &self.states })?;
        }
        Ok(())
    }

    fn process_right(&mut self, batch: Batch<B>, out: &mut Collector<O>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            let inner = ProcessContext::new(out, self.watermark_ms, now_ms);
            self.function
                .process_broadcast(record, &mut BroadcastContext { inner, states: &mut self.states })?;
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
        self.states.snapshot(&self.ctx)?;
        self.function.snapshot(&mut SnapshotContext::new(&self.ctx, barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

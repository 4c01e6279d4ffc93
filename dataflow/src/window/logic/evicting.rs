//! Windows that keep their records for an evictor to choose from.

use flott_schema::Result;

use super::{Emit, EmitElements, WindowLogic};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::operator::Collector;
use crate::window::fold::Fold;
use crate::window::function::{Firing, FunctionStates};
use crate::window::trigger::Clocks;
use crate::window::{Elements, Evictor, Timestamped};

/// Keeps the records of a key and window with their timestamps, and has an evictor choose from them.
pub(crate) struct Evicting<Ev, E> {
    pub(crate) evictor: Ev,
    pub(crate) emit: E,
}

impl<K, T, W, Ev, E> WindowLogic<K, T, W> for Evicting<Ev, E>
where
    T: Record,
    Ev: Evictor<T, W>,
    E: EmitElements<K, T, W>,
{
    type State = Vec<Timestamped<T>>;
    type Out = E::Out;

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.emit.open(ctx, merges)
    }

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        self.emit.states()
    }

    fn start(&mut self, record: T, timestamp_ms: i64) -> Self::State {
        vec![(record, timestamp_ms)]
    }

    fn add(&mut self, state: &mut Self::State, record: T, timestamp_ms: i64) {
        state.push((record, timestamp_ms));
    }

    fn merge(&mut self, state: &mut Self::State, mut later: Self::State) {
        state.append(&mut later);
    }

    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        state: &mut Self::State,
        out: &mut Collector<E::Out>,
    ) -> Result<()> {
        let window = firing.window;
        self.evictor.evict_before(state, window);
        let records = state.iter().map(|(record, _)| record.clone()).collect();
        self.emit.emit(firing, Elements::owned(records), out)?;
        self.evictor.evict_after(state, window);
        Ok(())
    }

    fn emit_last(
        &mut self,
        firing: Firing<'_, K, W>,
        mut state: Self::State,
        out: &mut Collector<E::Out>,
    ) -> Result<()> {
        self.evictor.evict_before(&mut state, firing.window);
        let records = state.into_iter().map(|(record, _)| record).collect();
        self.emit.emit(firing, Elements::owned(records), out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.emit.expire(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.emit.close()
    }
}

/// Aggregates records only when the window fires, because an evictor must see them all.
pub(crate) struct Folded<F, E> {
    pub(crate) fold: F,
    pub(crate) emit: E,
}

impl<K, T, W, F, E> EmitElements<K, T, W> for Folded<F, E>
where
    T: Record,
    F: Fold<T>,
    E: Emit<K, F::Result, W>,
{
    type Out = E::Out;

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.emit.open(ctx, merges)
    }

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        self.emit.states()
    }

    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        elements: Elements<'_, T>,
        out: &mut Collector<Self::Out>,
    ) -> Result<()> {
        let mut records = elements.into_iter();
        let Some(first) = records.next() else { return Ok(()) };
        let mut accumulator = self.fold.start(first);
        for record in records {
            self.fold.add(&mut accumulator, record);
        }
        let result = self.fold.final_result(accumulator);
        self.emit.emit(firing, result, out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.emit.expire(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.emit.close()
    }
}

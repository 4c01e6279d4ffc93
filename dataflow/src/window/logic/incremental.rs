//! Windows that keep one value a key, aggregated record by record.

use flott_schema::Result;

use super::{Emit, SlicedLogic, WindowLogic};
use crate::context::OperatorContext;
use crate::operator::Collector;
use crate::window::fold::Fold;
use crate::window::function::{Firing, FunctionStates};
use crate::window::panes::TwoStacks;
use crate::window::trigger::Clocks;

/// Keeps an accumulator a key and window.
pub(crate) struct Incremental<F, E> {
    pub(crate) fold: F,
    pub(crate) emit: E,
}

impl<K, T, W, F, E> WindowLogic<K, T, W> for Incremental<F, E>
where
    F: Fold<T>,
    E: Emit<K, F::Result, W>,
{
    type State = F::Accumulator;
    type Out = E::Out;

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.emit.open(ctx, merges)
    }

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        self.emit.states()
    }

    #[inline]
    fn start(&mut self, record: T, _timestamp_ms: i64) -> F::Accumulator {
        self.fold.start(record)
    }

    #[inline]
    fn add(&mut self, state: &mut F::Accumulator, record: T, _timestamp_ms: i64) {
        self.fold.add(state, record);
    }

    fn merge(&mut self, state: &mut F::Accumulator, later: F::Accumulator) {
        self.fold.merge(state, &later);
    }

    #[inline]
    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        state: &mut F::Accumulator,
        out: &mut Collector<Self::Out>,
    ) -> Result<()> {
        let result = self.fold.result(state);
        self.emit.emit(firing, result, out)
    }

    #[inline]
    fn emit_last(
        &mut self,
        firing: Firing<'_, K, W>,
        state: F::Accumulator,
        out: &mut Collector<Self::Out>,
    ) -> Result<()> {
        let result = self.fold.final_result(state);
        self.emit.emit(firing, result, out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.emit.expire(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.emit.close()
    }
}

impl<K, T, W, F, E> SlicedLogic<K, T, W> for Incremental<F, E>
where
    F: Fold<T>,
    E: Emit<K, F::Result, W>,
{
    type Panes = TwoStacks<F::Accumulator>;

    fn new_panes(&mut self, hash: u64, slices_per_window: u64) -> Self::Panes {
        TwoStacks::new(hash, slices_per_window)
    }

    #[inline]
    fn prefetch_push(panes: &Self::Panes) {
        panes.prefetch_back();
    }

    #[inline]
    fn prefetch_emit(panes: &Self::Panes) {
        panes.prefetch_front();
    }

    fn push_pane(&mut self, panes: &mut Self::Panes, end: i64, state: F::Accumulator) {
        panes.push(end, state, &mut |a, b| self.fold.merge(a, b));
    }

    fn add_late(&mut self, panes: &mut Self::Panes, end: i64, state: F::Accumulator) {
        panes.add_late(end, state, &mut |a, b| self.fold.merge(a, b));
    }

    fn evict(&mut self, panes: &mut Self::Panes, start: i64) -> bool {
        panes.evict(start, &mut |a, b| self.fold.merge(a, b))
    }

    #[inline]
    fn emit_panes(
        &mut self,
        firing: Firing<'_, K, W>,
        panes: &Self::Panes,
        out: &mut Collector<Self::Out>,
    ) -> Result<()> {
        let result = match panes.totals() {
            (Some(front), Some(back)) => {
                let mut total = front.clone();
                self.fold.merge(&mut total, back);
                self.fold.final_result(total)
            }
            (Some(total), None) | (None, Some(total)) => self.fold.result(total),
            (None, None) => return Ok(()),
        };
        self.emit.emit(firing, result, out)
    }
}

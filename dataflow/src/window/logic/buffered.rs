//! Windows that keep their records.

use flott_schema::Result;

use super::{EmitElements, SlicedLogic, WindowLogic};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::operator::Collector;
use crate::state::prefetch;
use crate::window::Elements;
use crate::window::elements::ListPanes;
use crate::window::function::{Firing, FunctionStates};
use crate::window::trigger::Clocks;

/// Keeps the records of a key and window.
pub(crate) struct Buffered<E>(pub(crate) E);

impl<K, T: Record, W, E: EmitElements<K, T, W>> WindowLogic<K, T, W> for Buffered<E> {
    type State = Vec<T>;
    type Out = E::Out;

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.0.open(ctx, merges)
    }

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        self.0.states()
    }

    fn start(&mut self, record: T, _timestamp_ms: i64) -> Vec<T> {
        vec![record]
    }

    #[inline]
    fn add(&mut self, state: &mut Vec<T>, record: T, _timestamp_ms: i64) {
        state.push(record);
    }

    fn merge(&mut self, state: &mut Vec<T>, mut later: Vec<T>) {
        state.append(&mut later);
    }

    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        state: &mut Vec<T>,
        out: &mut Collector<E::Out>,
    ) -> Result<()> {
        self.0.emit(firing, Elements::borrowed(state), out)
    }

    fn emit_last(
        &mut self,
        firing: Firing<'_, K, W>,
        state: Vec<T>,
        out: &mut Collector<E::Out>,
    ) -> Result<()> {
        self.0.emit(firing, Elements::owned(state), out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.0.expire(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

/// Every record is kept once, in the list of its slice.
impl<K, T: Record, W, E: EmitElements<K, T, W>> SlicedLogic<K, T, W> for Buffered<E> {
    type Panes = ListPanes<T>;

    fn new_panes(&mut self, _hash: u64, _slices_per_window: u64) -> ListPanes<T> {
        ListPanes::new()
    }

    fn prefetch_push(panes: &ListPanes<T>) {
        panes.back().inspect(|slice| prefetch(*slice));
    }

    fn prefetch_emit(panes: &ListPanes<T>) {
        panes.front().inspect(|slice| prefetch(*slice));
    }

    fn push_pane(&mut self, panes: &mut ListPanes<T>, end: i64, state: Vec<T>) {
        panes.push_back((end, state));
    }

    fn add_late(&mut self, panes: &mut ListPanes<T>, end: i64, mut state: Vec<T>) {
        let position = panes.partition_point(|(other, _)| *other < end);
        match panes.get_mut(position) {
            Some((other, records)) if *other == end => records.append(&mut state),
            _ => panes.insert(position, (end, state)),
        }
    }

    fn evict(&mut self, panes: &mut ListPanes<T>, start: i64) -> bool {
        while panes.front().is_some_and(|(end, _)| *end <= start) {
            panes.pop_front();
        }
        !panes.is_empty()
    }

    fn emit_panes(
        &mut self,
        firing: Firing<'_, K, W>,
        panes: &ListPanes<T>,
        out: &mut Collector<E::Out>,
    ) -> Result<()> {
        self.0.emit(firing, Elements::of_panes(panes), out)
    }
}

//! What becomes of the records of a window: how they are kept, and what comes out when it fires.
//!
//! What lives here: two traits, one for any windows and one for windows put together from slices, and one file a way
//! of keeping records. Who may call it: the operators; the API puts logics together. What must never happen here:
//! knowledge of clocks, triggers and when a window fires.

mod buffered;
mod emit;
mod evicting;
mod incremental;

use flott_schema::Result;

pub(crate) use self::buffered::Buffered;
pub(crate) use self::emit::{Emit, EmitElements, Plain, Process, With};
pub(crate) use self::evicting::{Evicting, Folded};
pub(crate) use self::incremental::Incremental;
use super::function::{Firing, FunctionStates};
use super::trigger::Clocks;
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::operator::Collector;

/// How the records of a key and window are kept and what they become.
pub(crate) trait WindowLogic<K, T, W>: 'static {
    /// What is kept.
    type State: Record;
    /// What comes out.
    type Out: Record;

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()>;
    /// The states of the function that windows are given to, if there is one.
    fn states(&mut self) -> Option<&mut dyn FunctionStates>;
    fn start(&mut self, record: T, timestamp_ms: i64) -> Self::State;
    fn add(&mut self, state: &mut Self::State, record: T, timestamp_ms: i64);
    fn merge(&mut self, state: &mut Self::State, later: Self::State);
    /// The window fires and keeps its state.
    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        state: &mut Self::State,
        out: &mut Collector<Self::Out>,
    ) -> Result<()>;
    /// The window fires and needs its state no longer.
    fn emit_last(
        &mut self,
        firing: Firing<'_, K, W>,
        state: Self::State,
        out: &mut Collector<Self::Out>,
    ) -> Result<()>;
    /// Windows with a max timestamp up to `until_ms` have been dropped.
    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()>;
    fn close(&mut self) -> Result<()>;
}

/// Logic whose windows can be put together from slices.
pub(crate) trait SlicedLogic<K, T, W>: WindowLogic<K, T, W> {
    /// The slices of a key.
    type Panes: Record;

    fn new_panes(&mut self, hash: u64, slices_per_window: u64) -> Self::Panes;
    /// Fetches what `push_pane` will change.
    fn prefetch_push(panes: &Self::Panes);
    /// Fetches what `evict` and `emit_panes` will read.
    fn prefetch_emit(panes: &Self::Panes);
    /// Appends a slice.
    fn push_pane(&mut self, panes: &mut Self::Panes, end: i64, state: Self::State);
    /// Adds to a slice that was appended already, or should have been.
    fn add_late(&mut self, panes: &mut Self::Panes, end: i64, state: Self::State);
    /// Drops slices; whether any are left.
    fn evict(&mut self, panes: &mut Self::Panes, start: i64) -> bool;
    /// The window of all slices fires.
    fn emit_panes(
        &mut self,
        firing: Firing<'_, K, W>,
        panes: &Self::Panes,
        out: &mut Collector<Self::Out>,
    ) -> Result<()>;
}

//! Window assigners: which windows a record belongs to.

use flott_schema::Result;

use super::Window;
use super::slices::SliceLayout;
use super::trigger::Trigger;
use crate::function::Function;
use crate::state::TimeDomain;

/// Assigns records to windows.
pub trait WindowAssigner<T>: Function {
    /// The kind of window.
    type Window: Window;
    /// The trigger of windows whose job names none.
    type Trigger: Trigger<T, Self::Window>;

    /// Whether windows can merge; then [`Self::merge`] says which.
    const MERGES: bool = false;
    /// Whether [`Self::slices`] gives something.
    const SLICED: bool = false;

    /// The clock of the windows.
    fn domain(&self) -> TimeDomain;

    /// The trigger of windows whose job names none.
    fn default_trigger(&self) -> Self::Trigger;

    /// Appends the windows of a record. The timestamp is the record's in event time, else the time of the clock.
    fn assign(&mut self, record: &T, timestamp_ms: i64, windows: &mut Vec<Self::Window>) -> Result<()>;

    /// The window that two windows of a key become, if they merge.
    fn merge(&self, _one: &Self::Window, _other: &Self::Window) -> Option<Self::Window> {
        None
    }

    /// For windows that lie at fixed places in time, and whose default trigger fires once at their end: how they are
    /// put together from slices.
    fn slices(&self) -> Option<Slices<Self::Window>> {
        None
    }

    /// Refuses what cannot work.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// For people.
    fn describe(&self) -> String;
}

/// Where the windows of an assigner lie, and how to make one.
#[derive(Debug)]
pub struct Slices<W> {
    pub(super) layout: SliceLayout,
    /// From start and end.
    pub(super) window: fn(i64, i64) -> W,
}

impl<W> Clone for Slices<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Slices<W> {}

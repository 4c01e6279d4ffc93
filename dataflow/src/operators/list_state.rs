//! List states of functions: what belongs to a task and not to a key (Flink's `CheckpointedFunction`).

use std::marker::PhantomData;
use std::sync::Arc;

use flott_schema::{Error, Result};

use crate::batch::Record;
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::element::Barrier;
use crate::operators::open::OpenContext;
use crate::snapshot::{ListMode, SnapshotKind};
use crate::types::Shape;

/// In front of the name of a list in snapshots, so that it is apart from those of keyed states.
const PREFIX: &str = "operator.";

/// A list state of a function, registered in `open` with [`OpenContext::operator_list_state`] or [`OpenContext::union_list_state`]. The
/// function reads what was restored in `open`, and sets the items in `snapshot`: a list that is not set is empty in that
/// snapshot.
pub struct ListStateHandle<T> {
    name: Arc<str>,
    mode: ListMode,
    items: PhantomData<fn() -> T>,
}

impl<T> Default for ListStateHandle<T> {
    fn default() -> Self {
        ListStateHandle { name: "".into(), mode: ListMode::Split, items: PhantomData }
    }
}

impl<T> Clone for ListStateHandle<T> {
    fn clone(&self) -> Self {
        ListStateHandle { name: self.name.clone(), mode: self.mode, items: PhantomData }
    }
}

impl<T: Record> ListStateHandle<T> {
    pub(super) fn new(name: &str, mode: ListMode) -> Self {
        ListStateHandle { name: format!("{PREFIX}{name}").into(), mode, items: PhantomData }
    }

    /// Makes the state known to the backend, also if the function does not ask for what was restored.
    pub(super) fn declare(&self, operator: &OperatorContext) -> Result<()> {
        match &operator.state {
            Some(state) if !state.is_restored() => {
                state.list_as(&self.name, &Shape::of::<T>().canonical_text()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The items that this task gets from the snapshot it starts from; none if it starts from none.
    pub fn restored(&self, ctx: &OpenContext<'_>) -> Result<Vec<T>> {
        let Some(state) = &ctx.operator().state else { return Ok(Vec::new()) };
        let item_type = Shape::of::<T>().canonical_text();
        state.list_as(&self.name, &item_type)?.iter().map(|item| decode_value(item)).collect()
    }

    /// Sets the items for the snapshot at hand; once.
    pub fn set<'a>(
        &self,
        ctx: &mut SnapshotContext<'_>,
        items: impl IntoIterator<Item = &'a T>,
    ) -> Result<()> {
        if self.name.is_empty() {
            return Err(Error::user("a list state is set but was not registered in open()"));
        }
        let encode = |item: &T| {
            let mut bytes = Vec::new();
            encode_value(item, &mut bytes).map(|()| bytes)
        };
        let items = items.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
        let Some(state) = &ctx.operator.state else { return Ok(()) };
        state.set_list(&self.name, self.mode, &Shape::of::<T>().canonical_text(), items)
    }
}

/// What a function gets when a snapshot is taken.
pub struct SnapshotContext<'a> {
    operator: &'a OperatorContext,
    barrier: &'a Barrier,
}

impl<'a> SnapshotContext<'a> {
    /// For the snapshot of a barrier.
    pub fn new(operator: &'a OperatorContext, barrier: &'a Barrier) -> Self {
        SnapshotContext { operator, barrier }
    }

    /// The id of the snapshot, which grows over the life of the job.
    pub fn checkpoint(&self) -> u64 {
        self.barrier.checkpoint
    }

    /// When it was triggered, epoch milliseconds.
    pub fn timestamp_ms(&self) -> i64 {
        self.barrier.timestamp_ms
    }

    /// Whose it is.
    pub fn kind(&self) -> SnapshotKind {
        self.barrier.kind
    }
}

#[cfg(test)]
mod tests;

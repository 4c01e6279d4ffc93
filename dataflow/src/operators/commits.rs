//! What a sink has prepared and not yet committed.
//!
//! Who may call it: the stage of a sink, and the task when a snapshot is complete. What must never happen here: a commit of what no complete
//! snapshot holds.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::Result;
use flott_schema::snapshot::Barrier;

use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::sink::Committer;
use crate::snapshot::{CheckpointListener, ListMode, StateBackend};
use crate::types::Shape;

/// List state of what is to be committed; frozen.
pub const COMMITTABLES: &str = "committables";
/// List state of the writers; frozen.
pub const WRITER: &str = "writer";

/// Names the states of a sink with committables of this type.
pub fn declare<T: DeserializeOwned + 'static>(ctx: &OperatorContext) -> Result<()> {
    let Some(state) = &ctx.state else { return Ok(()) };
    state.list_as(COMMITTABLES, &Shape::of::<T>().canonical_text())?;
    state.list(WRITER).map(drop)
}

/// The committer of a sink, and what waits for it.
pub struct Commits<C: Committer> {
    /// Commits.
    pub committer: C,
    /// The sink's state, if snapshots are taken.
    pub state: Option<Rc<dyn StateBackend>>,
    /// By the snapshot that must be complete.
    pending: BTreeMap<u64, Vec<C::Committable>>,
    /// Prepared at the end of the input, behind the last barrier.
    last: Vec<C::Committable>,
    /// The writer's state at the end of the input.
    last_writer: Vec<Vec<u8>>,
    /// Text of the committables' type, once it is known.
    item_type: OnceCell<String>,
}

impl<C: Committer> Commits<C> {
    /// Nothing waits.
    pub fn new(committer: C, state: Option<Rc<dyn StateBackend>>) -> Self {
        let (pending, item_type) = (BTreeMap::new(), OnceCell::new());
        Commits { committer, state, pending, last: Vec::new(), last_writer: Vec::new(), item_type }
    }
}

impl<C: Committer> Commits<C>
where
    C::Committable: Serialize + DeserializeOwned + 'static,
{
    /// Commits what the snapshot holds that the task starts from; gives the state of the writers in it.
    pub fn open(&mut self) -> Result<Vec<Vec<u8>>> {
        let Some(state) = &self.state else { return Ok(Vec::new()) };
        if !state.is_restored() {
            return Ok(Vec::new());
        }
        let restored = state.list_as(COMMITTABLES, self.item_type())?;
        let restored: Vec<_> = restored.iter().map(|item| decode_value(item)).collect::<Result<_>>()?;
        if !restored.is_empty() {
            flott_faults::point("sink.recommit");
            self.committer.commit_restored(restored)?;
        }
        state.list(WRITER)
    }

    /// Keeps what was prepared at a barrier, and hands in all that waits.
    pub fn prepared(
        &mut self,
        checkpoint: u64,
        prepared: Vec<C::Committable>,
        writer: Vec<Vec<u8>>,
    ) -> Result<()> {
        self.keep(checkpoint, prepared);
        self.hand_in(writer)
    }

    /// Keeps what was prepared at the end of the input, until a last snapshot is asked for.
    pub fn prepared_last(&mut self, prepared: Vec<C::Committable>, writer: Vec<Vec<u8>>) {
        self.last.extend(prepared);
        self.last_writer = writer;
    }

    fn item_type(&self) -> &str {
        self.item_type.get_or_init(|| Shape::of::<C::Committable>().canonical_text())
    }

    /// Commits what was prepared at the end of the input, and what waits: no snapshot is going to come.
    pub fn commit_all(&mut self, prepared: Vec<C::Committable>) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.committer.commit(pending.into_values().flatten().chain(prepared).collect())
    }

    fn keep(&mut self, checkpoint: u64, prepared: Vec<C::Committable>) {
        if !prepared.is_empty() {
            self.pending.entry(checkpoint).or_default().extend(prepared);
        }
    }

    fn hand_in(&self, writer: Vec<Vec<u8>>) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut items = Vec::new();
        for committable in self.pending.values().flatten() {
            let mut item = Vec::new();
            encode_value(committable, &mut item)?;
            items.push(item);
        }
        state.set_list(COMMITTABLES, ListMode::Split, self.item_type(), items)?;
        state.set_list(WRITER, ListMode::Split, "", writer)
    }
}

impl<C: Committer> CheckpointListener for Commits<C>
where
    C::Committable: Serialize + DeserializeOwned + 'static,
{
    fn completed(&mut self, checkpoint: u64) -> Result<()> {
        let later =
            checkpoint.checked_add(1).map_or_else(BTreeMap::new, |next| self.pending.split_off(&next));
        let due: Vec<_> = std::mem::replace(&mut self.pending, later).into_values().flatten().collect();
        if due.is_empty() {
            return Ok(());
        }
        flott_faults::point("sink.commit");
        self.committer.commit(due)?;
        flott_faults::point("sink.committed");
        Ok(())
    }

    fn last_snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        let last = std::mem::take(&mut self.last);
        self.keep(barrier.checkpoint, last);
        self.hand_in(self.last_writer.clone())
    }

    fn has_uncommitted(&self) -> bool {
        !self.pending.is_empty() || !self.last.is_empty()
    }
}

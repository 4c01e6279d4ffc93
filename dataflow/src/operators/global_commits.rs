//! The one committer of a sink: gets what all of its writers have prepared, and commits what belongs to a snapshot together.
//!
//! Committables come as records in front of the barrier for which they were prepared, so when that barrier has come on all channels, all of
//! them are here and go into the snapshot of this task. Who may call it: the API, which puts it behind a sink that names a global committer.
//! What must never happen here: a commit of what no complete snapshot holds; barriers that overtake what they stand for.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::Context;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use flott_schema::snapshot::Barrier;
use flott_schema::{Error, Result};

use crate::batch::{Batch, BatchDecoder, Record, decoder_of};
use crate::codec::{decode_value, encode_value};
use crate::context::{OperatorContext, count};
use crate::element::Signal;
use crate::function::Prototype;
use crate::program::{Built, NodeFactory, NodeOutputs};
use crate::sink::{CommitId, GlobalCommitter, Sink};
use crate::snapshot::{CheckpointListener, ListMode};
use crate::stage::{Flow, Stage, StageBox};
use crate::task::{OneInputTask, Task};
use crate::types::Shape;

/// List state of what is to be committed; frozen.
pub const GLOBAL_COMMITTABLES: &str = "global-committables";

/// A committable on its way from a writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The barrier for which it was prepared; none at the end of the writer's input: then it belongs to the next one.
    pub checkpoint: Option<u64>,
    /// In its wire form.
    pub committable: Vec<u8>,
}

/// A committable that waits, in snapshots; frozen.
#[derive(Serialize, Deserialize)]
struct Waiting<C> {
    id: CommitId,
    committable: C,
}

/// The committer of a sink, and what waits for it.
struct GlobalCommits<C> {
    committer: Box<dyn GlobalCommitter<Committable = C>>,
    ctx: OperatorContext,
    pending: BTreeMap<CommitId, Vec<C>>,
    /// Prepared at the end of a writer's input, and not yet behind a barrier.
    last: Vec<C>,
    /// Text of the type of items, once it is known.
    item_type: OnceCell<String>,
}

impl<C: Serialize + DeserializeOwned + 'static> GlobalCommits<C> {
    /// Commits what the snapshot holds that the task starts from.
    fn open(&mut self) -> Result<()> {
        self.committer.open(&self.ctx)?;
        let Some(state) = &self.ctx.state else { return Ok(()) };
        let mut restored: BTreeMap<CommitId, Vec<C>> = BTreeMap::new();
        for item in state.list_as(GLOBAL_COMMITTABLES, self.item_type())? {
            let Waiting { id, committable } = decode_value(&item)?;
            restored.entry(id).or_default().push(committable);
        }
        for (id, committables) in restored {
            flott_faults::point("sink.recommit");
            self.committer.commit_restored(id, committables)?;
        }
        Ok(())
    }

    fn take(&mut self, Prepared { checkpoint, committable }: Prepared) -> Result<()> {
        let committable = decode_value(&committable)?;
        match checkpoint {
            Some(checkpoint) => self.pending.entry(self.id(checkpoint)).or_default().push(committable),
            None => self.last.push(committable),
        }
        Ok(())
    }

    fn id(&self, checkpoint: u64) -> CommitId {
        CommitId { job: self.ctx.task.job, checkpoint }
    }

    /// Hands in all that waits; what came at the end of an input belongs to this snapshot.
    fn hand_in(&mut self, checkpoint: u64) -> Result<()> {
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            self.pending.entry(self.id(checkpoint)).or_default().extend(last);
        }
        let Some(state) = &self.ctx.state else { return Ok(()) };
        let mut items = Vec::new();
        for (id, committables) in &self.pending {
            for committable in committables {
                let mut item = Vec::new();
                encode_value(&Waiting { id: *id, committable }, &mut item)?;
                items.push(item);
            }
        }
        state.set_list(GLOBAL_COMMITTABLES, ListMode::Split, self.item_type(), items)
    }

    fn item_type(&self) -> &str {
        self.item_type.get_or_init(|| Shape::of::<Waiting<C>>().canonical_text())
    }
}

impl<C: Serialize + DeserializeOwned + 'static> CheckpointListener for GlobalCommits<C> {
    fn completed(&mut self, checkpoint: u64) -> Result<()> {
        while let Some(first) =
            self.pending.first_entry().filter(|first| first.key().checkpoint <= checkpoint)
        {
            let (id, committables) = first.remove_entry();
            flott_faults::point("sink.commit");
            self.committer.commit(id, committables)?;
            flott_faults::point("sink.committed");
        }
        Ok(())
    }

    fn last_snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.hand_in(barrier.checkpoint)
    }

    fn has_uncommitted(&self) -> bool {
        !self.pending.is_empty() || !self.last.is_empty()
    }
}

/// Gathers committables, and commits them when their snapshot is complete; in a job without snapshots at the end of the input.
pub struct GlobalCommitStage<C> {
    commits: Rc<RefCell<GlobalCommits<C>>>,
    ctx: OperatorContext,
}

impl<C> GlobalCommitStage<C> {
    /// A stage around `committer`.
    pub fn new(committer: Box<dyn GlobalCommitter<Committable = C>>, ctx: OperatorContext) -> Self {
        let commits = GlobalCommits {
            committer,
            ctx: ctx.clone(),
            pending: BTreeMap::new(),
            last: Vec::new(),
            item_type: OnceCell::new(),
        };
        GlobalCommitStage { commits: Rc::new(RefCell::new(commits)), ctx }
    }
}

impl<C: Serialize + DeserializeOwned + 'static> Stage<Batch<Prepared>> for GlobalCommitStage<C> {
    fn open(&mut self) -> Result<()> {
        if self.ctx.task.parallelism > 1 {
            return Err(Error::internal(format!("there are several tasks of '{}'", self.ctx.name)));
        }
        self.commits.borrow_mut().open()?;
        let snapshots = &self.ctx.task.snapshots;
        if snapshots.are_taken() {
            snapshots.listen(self.commits.clone());
        }
        Ok(())
    }

    fn push(&mut self, batch: Batch<Prepared>) -> Result<()> {
        count(&self.ctx.metrics.records_in, batch.len());
        let mut commits = self.commits.borrow_mut();
        batch.records.into_iter().try_for_each(|prepared| commits.take(prepared))
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        let snapshots = &self.ctx.task.snapshots;
        let mut commits = self.commits.borrow_mut();
        match signal {
            Signal::Barrier(barrier) if !snapshots.had_finished() => commits.hand_in(barrier.checkpoint)?,
            Signal::EndOfInput if !snapshots.last_commit_waits() => {
                // No snapshot is going to come: what waits since a savepoint is due as well.
                commits.completed(u64::MAX)?;
                let last = std::mem::take(&mut commits.last);
                let id = commits.id(CommitId::NO_CHECKPOINT);
                if !last.is_empty() {
                    commits.committer.commit(id, last)?;
                }
            }
            _ => {}
        }
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes the global committer of a sink.
pub struct GlobalCommitterFactory<T, S> {
    sink: Prototype<S>,
    record: PhantomData<fn(T)>,
}

impl<T: Record, S: Sink<T>> GlobalCommitterFactory<T, S> {
    /// A factory.
    pub fn new(sink: S) -> Self {
        GlobalCommitterFactory { sink: Prototype::new(sink), record: PhantomData }
    }
}

impl<T: Record, S: Sink<T>> NodeFactory for GlobalCommitterFactory<T, S> {
    fn build(&self, ctx: &OperatorContext, _outputs: NodeOutputs) -> Result<Built> {
        let committer = self.sink.get().global_committer().ok_or_else(|| {
            Error::user("a sink that has named a global committer does not name one any more")
        })?;
        let stage = GlobalCommitStage::new(committer, ctx.clone());
        Ok(Built::Stage(StageBox::new::<Batch<Prepared>>(Box::new(stage))))
    }

    fn head(&self, stage: StageBox) -> Result<Box<dyn Task>> {
        Ok(Box::new(OneInputTask::<Batch<Prepared>>::new(stage.typed()?).strictly_aligned()))
    }

    fn decoder(&self, _input: u16) -> BatchDecoder {
        decoder_of::<Batch<Prepared>>()
    }

    fn declare(&self, ctx: &OperatorContext) -> Result<()> {
        let Some(state) = &ctx.state else { return Ok(()) };
        state.list_as(GLOBAL_COMMITTABLES, &Shape::of::<Waiting<S::Committable>>().canonical_text()).map(drop)
    }
}

#[cfg(test)]
#[path = "global_commits_tests.rs"]
mod tests;

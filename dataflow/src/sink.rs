//! Sinks: a writer in every task, and a committer that makes what was prepared visible.
//!
//! The shape is Flink's Sink V2: a writer turns what it wrote since the last checkpoint into committables; they are
//! committed once the checkpoint is complete, or at the end of the input of a job without checkpoints. Until then they
//! are part of the checkpoint, so a job that starts from it commits them first: each record is visible exactly once.
//!
//! A sink may name a **global committer**: then what all of its tasks have prepared for a checkpoint goes to one committer, which commits it
//! together, once; for instance with a file that lists all the others.

use std::task::{Context, Poll};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use flott_schema::Result;
use flott_schema::ids::JobId;

use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::snapshot::Background;

/// A sink of records.
pub trait Sink<T: Record>: Clone + Send + 'static {
    /// What a commit needs to know: a file to rename, a transaction to end. Nothing: `()`.
    type Committable: Send + Serialize + DeserializeOwned + 'static;
    /// Writes records.
    type Writer: SinkWriter<T, Committable = Self::Committable>;
    /// Makes them visible.
    type Committer: Committer<Committable = Self::Committable>;

    /// Refuses what cannot be written to, before the job runs.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// The writer of one task.
    fn writer(&self, ctx: &OperatorContext) -> Result<Self::Writer>;
    /// The writer of a task that starts from a snapshot in which writers handed in `state` ([`SinkWriter::snapshot`]): what one task or
    /// several had, all of it or a part; never nothing.
    fn restore_writer(&self, ctx: &OperatorContext, _state: Vec<Vec<u8>>) -> Result<Self::Writer> {
        self.writer(ctx)
    }
    /// The committer of one task.
    fn committer(&self, ctx: &OperatorContext) -> Result<Self::Committer>;
    /// The committer of all tasks, which takes the place of those of each task; for these only what was prepared without a global committer
    /// is left, in a snapshot that the job starts from. Whether there is one must not change between calls.
    fn global_committer(&self) -> Option<Box<dyn GlobalCommitter<Committable = Self::Committable>>> {
        None
    }
}

/// Writes the records of one task.
pub trait SinkWriter<T>: 'static {
    /// See [`Sink::Committable`].
    type Committable;
    /// Writes a batch, or takes it over to write later.
    fn write(&mut self, batch: Batch<T>) -> Result<()>;
    /// Whether the next batch may come: a writer that waits for an outside system answers `Pending`, and the task
    /// takes no more input. Called after each batch and when woken.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Result<Poll<()>> {
        Ok(Poll::Ready(()))
    }
    /// The task goes idle: hand over to the operating system what a reader would like to see.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
    /// Something to do at this time (roll a file), epoch milliseconds.
    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }
    /// Called when the deadline has come; may give committables for a job without checkpoints.
    fn on_deadline(&mut self, _now_ms: i64) -> Result<()> {
        Ok(())
    }
    /// Ends what was written since the last call, so that it can be committed: at a barrier and at the end of the input. What is not part of a
    /// committable must be safe in the outside system when this returns, or [unfinished](SinkWriter::unfinished) work is done: it is not written again.
    fn prepare_commit(&mut self, end_of_input: bool) -> Result<Vec<Self::Committable>>;
    /// What has still to be done before all that was prepared is safe, and takes time that the task's thread should not spend: nothing is
    /// committed before, and no snapshot complete. Called behind `prepare_commit`. If it fails, the writer must not prepare any more: its
    /// next call is to fail.
    fn unfinished(&mut self) -> Option<Background> {
        None
    }
    /// What a later writer has to know to go on from here, as items that may be dealt out to several writers. Called behind
    /// `prepare_commit`, for the checkpoint with this id.
    fn snapshot(&mut self, _checkpoint: u64) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
    /// Releases what is held; what was not prepared is discarded.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes committables visible. Committing one twice must be the same as once.
pub trait Committer: 'static {
    /// See [`Sink::Committable`].
    type Committable;
    /// Commits what a snapshot holds that is complete, or what was written by a job without snapshots.
    fn commit(&mut self, committables: Vec<Self::Committable>) -> Result<()>;
    /// Commits what comes out of a snapshot that the job starts from: some of it, or all, may have been committed long ago.
    fn commit_restored(&mut self, committables: Vec<Self::Committable>) -> Result<()> {
        self.commit(committables)
    }
}

/// What a global committer does at once: the same when it is done again after a failure, and never given to anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitId {
    /// The job for which it was prepared; a job that starts from another one's savepoint may have to finish its commits.
    pub job: JobId,
    /// The checkpoint or savepoint for which it was prepared, or [`CommitId::NO_CHECKPOINT`]. Numbers grow over the life of a job.
    pub checkpoint: u64,
}

impl CommitId {
    /// At the end of the input of a job without checkpoints.
    pub const NO_CHECKPOINT: u64 = 0;
}

/// Makes visible what all tasks of a sink have prepared, in one task. Committing something twice must be the same as once.
pub trait GlobalCommitter: 'static {
    /// See [`Sink::Committable`].
    type Committable;
    /// The task opens; called first.
    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        Ok(())
    }
    /// Commits all that was prepared for one checkpoint, which is complete; or all that was written by a job without checkpoints. Nothing
    /// was prepared: it is not called.
    fn commit(&mut self, id: CommitId, committables: Vec<Self::Committable>) -> Result<()>;
    /// Commits what comes out of a snapshot that the job starts from: some of it, or all, may have been committed long ago.
    fn commit_restored(&mut self, id: CommitId, committables: Vec<Self::Committable>) -> Result<()> {
        self.commit(id, committables)
    }
}

/// The committer of sinks that have nothing to commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingToCommit;

impl Committer for NothingToCommit {
    type Committable = ();

    fn commit(&mut self, _committables: Vec<()>) -> Result<()> {
        Ok(())
    }
}

//! What is known of workers and tasks beside the replicated state: numbers that come with heartbeats, and what workers
//! answer when asked.
//!
//! The REST API reads through these traits, so that it knows neither the control port nor the way to the workers. Nothing
//! here is a fact to decide by.

use std::collections::BTreeMap;

use flott_schema::error::{Error, Result};
use flott_schema::ids::{JobId, TaskId, WorkerId};
use flott_schema::job::ProgramRef;
use flott_schema::stats::{LogFile, WorkerUsage};
use futures_util::future::BoxFuture;

pub use flott_schema::answer::{FilePart, ProgramRun};
pub use flott_schema::samples::{Sample, TaskSamples};

/// Reads the latest statistics. Answers at once, from memory.
pub trait ReadStats: Send + Sync {
    /// What a worker used when it sent its last heartbeat; nothing before the first.
    fn worker(&self, worker: WorkerId) -> Option<Sample<WorkerUsage>>;

    /// The statistics of a job's tasks. Those of jobs that have ended may be gone.
    fn tasks(&self, job: JobId) -> BTreeMap<TaskId, TaskSamples>;
}

/// Asks workers for what only they have. Every call has a deadline of its own and fails after it.
pub trait AskWorkers: Send + Sync {
    /// The log files a worker keeps.
    fn list_logs(&self, worker: WorkerId) -> BoxFuture<'static, Result<Vec<LogFile>>>;

    /// A piece of one of them, at most `length_max` bytes from `offset`.
    fn read_log(
        &self,
        worker: WorkerId,
        name: String,
        offset: u64,
        length_max: u32,
    ) -> BoxFuture<'static, Result<FilePart>>;

    /// Runs a stored program's main on the worker's host, as a client would; it submits to `rest_address`.
    fn run_program(
        &self,
        worker: WorkerId,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>>;
}

/// A cluster whose workers send no statistics and answer no questions: the embedded one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl ReadStats for Silent {
    fn worker(&self, _: WorkerId) -> Option<Sample<WorkerUsage>> {
        None
    }

    fn tasks(&self, _: JobId) -> BTreeMap<TaskId, TaskSamples> {
        BTreeMap::new()
    }
}

impl AskWorkers for Silent {
    fn list_logs(&self, worker: WorkerId) -> BoxFuture<'static, Result<Vec<LogFile>>> {
        Box::pin(async move { Err(not_connected(worker)) })
    }

    fn read_log(&self, worker: WorkerId, _: String, _: u64, _: u32) -> BoxFuture<'static, Result<FilePart>> {
        Box::pin(async move { Err(not_connected(worker)) })
    }

    fn run_program(
        &self,
        worker: WorkerId,
        _: ProgramRef,
        _: String,
        _: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>> {
        Box::pin(async move { Err(not_connected(worker)) })
    }
}

fn not_connected(worker: WorkerId) -> Error {
    Error::new(
        flott_schema::error::ErrorKind::Io,
        format!("worker {} lives in this process and cannot be asked", worker.0),
    )
}

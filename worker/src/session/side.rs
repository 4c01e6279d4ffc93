//! What a worker is asked beside orders.

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::error::Result;
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::job::ProgramRef;
use flott_schema::stats::{LogFile, WorkerStats};
use futures_util::future::BoxFuture;

/// Answers what coordinators ask of a worker beside orders.
pub trait WorkerSide: Send + Sync + 'static {
    /// The numbers that go with a heartbeat. Called on the thread of the session, so it must not wait.
    fn stats(&self) -> WorkerStats;

    /// The numbers of these tasks, which have just ended; they are sent before the word that they have. As [`Self::stats`], which
    /// is what is given by default.
    fn last_stats(&self, tasks: &[(JobId, AttemptId)]) -> WorkerStats {
        let _ = tasks;
        self.stats()
    }

    /// The log files that the worker keeps. Called where blocking is allowed.
    fn list_logs(&self) -> Result<Vec<LogFile>>;

    /// A piece of one of them: at most `length_max` bytes from `offset`. Called where blocking is allowed.
    fn read_log(&self, name: &str, offset: u64, length_max: u32) -> Result<FilePart>;

    /// Runs a stored program's main on this host, as a client would; it submits to `rest_address`, or gives its plan only. The
    /// future is polled on the thread of the session, so it must not block; it is dropped when nobody waits for the answer.
    fn run_program(
        &self,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>>;
}

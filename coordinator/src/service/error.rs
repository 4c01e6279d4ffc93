//! What a call of a handle may fail with.

use flott_schema::error::{Error, ErrorKind};
use flott_schema::ids::JobId;

use crate::machine::JobState;

/// Why the coordinator did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The graph cannot run; nothing was submitted.
    #[error("{0}")]
    Graph(Error),
    /// No such job, or one that ended so long ago that it is forgotten.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// Job ids are given once.
    #[error("there is a job {0} already; submit under a new id")]
    DuplicateJob(JobId),
    /// What was asked for makes no sense for a job that is over.
    #[error("job {job} is over: it is {}", state.word())]
    JobEnded {
        /// The job.
        job: JobId,
        /// How it ended.
        state: JobState,
    },
    /// The coordinator has stopped.
    #[error("the coordinator has stopped")]
    Stopped,
    /// The coordinator did not answer; what was asked may still happen.
    #[error("the coordinator did not answer '{call}' within {timeout_ms} ms; it may still act on it")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        timeout_ms: u64,
    },
}

impl CoordinatorError {
    /// Who may act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CoordinatorError::Graph(error) => error.kind(),
            CoordinatorError::UnknownJob(_)
            | CoordinatorError::DuplicateJob(_)
            | CoordinatorError::JobEnded { .. } => ErrorKind::BadInput,
            CoordinatorError::Stopped | CoordinatorError::Timeout { .. } => ErrorKind::Io,
        }
    }

    /// The error in the form that crosses rooms.
    pub fn into_error(self) -> Error {
        match self {
            CoordinatorError::Graph(error) => error,
            other => {
                let kind = other.kind();
                Error::from(other).with_kind(kind)
            }
        }
    }
}

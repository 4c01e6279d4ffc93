//! What a call of a handle may fail with.

use flott_schema::error::{Error, ErrorKind};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::ProgramDigest;

use crate::journal::LeaderAddresses;
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
    /// A job names a program that nobody has stored, or that was removed.
    #[error("there is no program {0}; upload it first")]
    UnknownProgram(ProgramDigest),
    /// A program that is still needed.
    #[error("program {digest} is needed by job {job}; cancel the job first")]
    ProgramInUse {
        /// The program.
        digest: ProgramDigest,
        /// A job that is not over.
        job: JobId,
    },
    /// What was asked for makes no sense for a job that is over.
    #[error("job {job} is over: it is {}", state.word())]
    JobEnded {
        /// The job.
        job: JobId,
        /// How it ended.
        state: JobState,
    },
    /// A worker that cannot be taken.
    #[error("worker {} cannot be taken: {reason}", .worker.0)]
    RefusedWorker {
        /// The worker.
        worker: WorkerId,
        /// What is wrong with it.
        reason: String,
    },
    /// Another coordinator leads the group, or none at the moment. What was asked may have happened, if it was asked
    /// while the leader changed.
    #[error("this coordinator does not lead its group; {}", leader_hint(.leader))]
    NotLeader {
        /// Who leads; nothing while that is being decided.
        leader: Option<LeaderAddresses>,
    },
    /// More is waiting to be committed than there is room for; nothing was done.
    #[error("the coordinators' log is behind: {waiting} events wait to be committed; try again")]
    Busy {
        /// Events that wait.
        waiting: usize,
    },
    /// More than the coordinators commit at once, most likely a job with a huge graph or settings; nothing was done.
    #[error(
        "{size_bytes} bytes are too many for an entry of the coordinators' log, which may have {max_bytes}; make the job \
         smaller: pass large settings in files, or split it into several jobs"
    )]
    TooLarge {
        /// What it would take.
        size_bytes: usize,
        /// What it may take.
        max_bytes: usize,
    },
    /// The job keeps its parallelism.
    #[error("job {job} cannot be rescaled: {reason}")]
    NotRescaled {
        /// The job.
        job: JobId,
        /// Why not.
        reason: String,
    },
    /// The storage of snapshots, or where they are to go.
    #[error("{0}")]
    Storage(Error),
    /// It has no stored form; nothing was done.
    #[error("it cannot be stored: {0}")]
    Unstorable(Error),
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
            CoordinatorError::Graph(error) | CoordinatorError::Storage(error) => error.kind(),
            CoordinatorError::UnknownJob(_)
            | CoordinatorError::UnknownProgram(_)
            | CoordinatorError::ProgramInUse { .. }
            | CoordinatorError::DuplicateJob(_)
            | CoordinatorError::TooLarge { .. }
            | CoordinatorError::Unstorable(_)
            | CoordinatorError::NotRescaled { .. }
            | CoordinatorError::JobEnded { .. } => ErrorKind::BadInput,
            CoordinatorError::RefusedWorker { .. } => ErrorKind::BadInput,
            CoordinatorError::NotLeader { .. }
            | CoordinatorError::Busy { .. }
            | CoordinatorError::Stopped
            | CoordinatorError::Timeout { .. } => ErrorKind::Io,
        }
    }

    /// The error in the form that crosses rooms.
    pub fn into_error(self) -> Error {
        match self {
            CoordinatorError::Graph(error) | CoordinatorError::Storage(error) => error,
            other => {
                let kind = other.kind();
                Error::from(other).with_kind(kind)
            }
        }
    }
}

fn leader_hint(leader: &Option<LeaderAddresses>) -> String {
    match leader {
        Some(leader) => format!("ask the one at {}", leader.control),
        None => "its members are choosing a leader; try again".to_string(),
    }
}

//! What processes answer when they are asked for what only they have.

use crate::ids::JobId;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// The bytes from the offset that was asked for; fewer than asked for at the end of the file.
    pub bytes: Vec<u8>,
    /// Bytes in the whole file.
    pub size: u64,
}

/// What came of a program that a worker ran on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramRun {
    /// It submitted these jobs.
    Submitted(Vec<JobId>),
    /// It was asked for its plan only: Flink's `plan` object as JSON.
    Plan(String),
}

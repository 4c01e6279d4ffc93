//! What a job is submitted as: its graph, the program that holds its operators, and what its author settled.

mod checkpoints;
mod rescaled;
mod settings;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::JobGraph;
use crate::ids::{JobId, VertexId};
use crate::snapshot::RestoreFrom;

pub use checkpoints::CheckpointSettings;
pub use state::StateSettings;

/// SHA-256 of a stored program; printed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProgramDigest(pub [u8; 32]);

impl fmt::Display for ProgramDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProgramDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProgramDigest({self})")
    }
}

impl FromStr for ProgramDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::bad_input(format!("'{text}' is no SHA-256: 64 hex digits wanted"));
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(ProgramDigest(digest))
    }
}

/// A stored program and how it is started: the same on the client that built the graph and on every worker that rebuilds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRef {
    /// The stored file.
    pub digest: ProgramDigest,
    /// Its file name, for people.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Which of its calls of `execute` made this job, from 0.
    pub execution: u32,
    /// Configuration that the client gave it (`-D`), as key and value.
    pub configuration: Vec<(String, String)>,
}

/// When a failed job is started again (Flink: *Task Failure Recovery*). Factors are given in thousandths, so that every
/// replica of a coordinator computes the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// Never.
    #[default]
    None,
    /// A number of times, each after the same delay.
    FixedDelay {
        /// Restarts before the job fails for good.
        attempts: u32,
        /// Delay before each.
        delay_ms: u64,
    },
    /// Unless it fails too often in an interval.
    FailureRate {
        /// Failures in the interval that the job survives.
        failures_max: u32,
        /// The interval.
        interval_ms: u64,
        /// Delay before each restart.
        delay_ms: u64,
    },
    /// After delays that grow with each failure and go back after a quiet time.
    ExponentialDelay {
        /// Delay before the first restart.
        initial_ms: u64,
        /// Longest delay.
        max_ms: u64,
        /// Factor from one delay to the next, in thousandths.
        multiplier_milli: u32,
        /// Share by which a delay is shortened or lengthened at random, in thousandths.
        jitter_milli: u32,
        /// Time without a failure after which the delay starts small again.
        reset_ms: u64,
        /// Restarts without such a quiet time before the job fails for good.
        attempts: u32,
    },
}

/// What the author or the client of a job settled about how it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// What follows a failure.
    pub restart: RestartStrategy,
    /// Whether a failure restarts all tasks rather than the region it happened in.
    pub restart_all: bool,
    /// How long the job may wait for slots; nothing: as the coordinator is configured.
    pub slot_wait_ms: Option<u64>,
    /// How long a task may take to end when it is cancelled before its executor is killed; 0 waits for ever.
    pub cancellation_timeout_ms: u64,
    /// Its checkpoints.
    pub checkpoints: CheckpointSettings,
    /// Its state.
    pub state: StateSettings,
}

/// A job as it is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What it does, as data.
    pub graph: Arc<JobGraph>,
    /// Where its operators come from; nothing in an embedded cluster, which has them at hand.
    pub program: Option<ProgramRef>,
    /// How it runs.
    pub settings: JobSettings,
    /// The snapshot that it starts from, until it has taken one of its own. Its id is 0 where the client could not read it; it is the
    /// job's `own` if the user has given it to the job (`CLAIM`), which then may share its files, and deletes them in the end.
    pub restore: Option<RestoreFrom>,
    /// Vertices that have been given another parallelism than the graph says, see [`JobSpec::effective_graph`].
    pub parallelism: BTreeMap<VertexId, u32>,
}

impl JobSpec {
    /// A job of an embedded cluster: no stored program, no restarts, nothing to start from.
    pub fn embedded(graph: impl Into<Arc<JobGraph>>) -> Self {
        JobSpec {
            graph: graph.into(),
            program: None,
            settings: JobSettings::default(),
            restore: None,
            parallelism: BTreeMap::new(),
        }
    }
}

/// A submission: a job under the id that the client chose for it, so that a repeated call submits it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The job.
    pub job: JobId,
    /// What it is.
    pub spec: JobSpec,
}

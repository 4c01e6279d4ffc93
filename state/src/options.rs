//! What is settled for the state of an executor, and which task a backend is for.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flott_schema::config::options::StateBackend;
use flott_schema::ids::{AttemptId, JobId, OperatorId};
use flott_schema::job::JobSettings;
use flott_schema::key_group::KeyGroupRange;

/// Rows in memory, of each operator in a task, before they are written to a file.
const BUFFER_BYTES: usize = 64 << 20;

/// Where tasks keep keyed state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In memory; every snapshot holds all rows.
    HashMap,
    /// In memory and in RocksDB: rows that memory has no room for can be fetched, and snapshots hold what has
    /// changed.
    #[default]
    RocksDb,
}

/// Settings of the state of all tasks of an executor.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Where tasks keep keyed state.
    pub backend: Backend,
    /// Working files of this executor alone. What is in it when the service starts is deleted, but for the
    /// backups of checkpoints.
    pub directory: PathBuf,
    /// Threads that encode, sort and write rows; RocksDB has as many for compactions.
    pub threads: usize,
    /// Threads that move files to and from the storage of snapshots.
    pub transfer_threads: usize,
    /// Bytes of rows on their way into files that an operator in a task keeps in memory at most, about.
    pub buffer_bytes: usize,
    /// Bytes that a list state may have in the manifest; one with more is put into a file.
    pub inline_bytes: usize,
    /// Whether files of rows are compressed.
    pub compress: bool,
    /// Whether a lookup asks a Bloom filter before it reads a block.
    pub bloom_filter: bool,
    /// Whether the files of the last completed checkpoint are kept here.
    pub local_backup: bool,
    /// Whether a restart takes them, instead of fetching files.
    pub recover_from_local: bool,
}

impl StateOptions {
    /// Settings with working files in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        StateOptions {
            backend: Backend::default(),
            directory: directory.into(),
            threads: 2,
            transfer_threads: 4,
            buffer_bytes: BUFFER_BYTES,
            inline_bytes: 20 << 10,
            compress: false,
            bloom_filter: true,
            local_backup: false,
            recover_from_local: false,
        }
    }

    /// What the settings of a job say, with working files in `directory`.
    pub fn of_job(settings: &JobSettings, directory: impl Into<PathBuf>) -> Self {
        let JobSettings { checkpoints, state, .. } = settings;
        StateOptions {
            backend: match state.backend {
                StateBackend::HashMap => Backend::HashMap,
                StateBackend::RocksDb | StateBackend::ForSt => Backend::RocksDb,
            },
            directory: directory.into(),
            threads: state.threads as usize,
            transfer_threads: state.transfer_threads as usize,
            buffer_bytes: BUFFER_BYTES,
            inline_bytes: usize::try_from(checkpoints.inline_threshold_bytes).unwrap_or(usize::MAX),
            compress: checkpoints.compress,
            bloom_filter: state.bloom_filter,
            local_backup: state.local_backup,
            recover_from_local: state.recover_from_local,
        }
    }
}

/// The task that a backend is for.
#[derive(Clone, Debug)]
pub struct TaskIdentity {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// Number of tasks of the vertex.
    pub parallelism: u32,
    /// Number of key groups of the vertex.
    pub max_parallelism: u32,
    /// The operators of its chain.
    pub operators: Vec<OperatorId>,
    /// Memory for its state, its share of that of the slot: for caches of RocksDB, and for what the tables of
    /// operators keep. 0: unlimited. Tables that cannot be fetched from are not bounded by it.
    pub memory_bytes: usize,
    /// Set when the task is gone: what it starts from is not fetched any further.
    pub cancelled: Arc<AtomicBool>,
}

impl TaskIdentity {
    /// The key groups that the task owns.
    pub fn key_groups(&self) -> KeyGroupRange {
        KeyGroupRange::of_subtask(self.attempt.task.subtask, self.max_parallelism, self.parallelism)
    }

    /// What tells the files of this deployment from those of any other of the job.
    pub(crate) fn file_stem(&self, operator: OperatorId) -> String {
        let AttemptId { task, job_epoch, attempt } = self.attempt;
        format!("{operator}-{}-{job_epoch}.{attempt}", task.subtask)
    }
}

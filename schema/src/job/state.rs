//! Where the state of a job's tasks lives while they run.

use serde::{Deserialize, Serialize};

use super::settings::thousandths;
use crate::config::Configuration;
use crate::config::options::{
    LOCAL_BACKUP_DIRS, LOCAL_BACKUP_ENABLED, RECOVER_FROM_LOCAL, ROCKSDB_BLOOM_FILTER,
    ROCKSDB_HIGH_PRIORITY_POOL_RATIO, ROCKSDB_LOCAL_DIR, ROCKSDB_MEMORY_PER_SLOT, ROCKSDB_THREADS,
    ROCKSDB_TRANSFER_THREADS, ROCKSDB_WRITE_BUFFER_RATIO, STATE_BACKEND, StateBackend,
};
use crate::error::Result;

/// Memory for state in each slot, unless it is configured.
const MEMORY_BYTES: u64 = 256 << 20;

/// Where the state of a job's tasks lives while they run. Shares are given in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSettings {
    /// What keeps it; never [`StateBackend::ForSt`], which means RocksDB.
    pub backend: StateBackend,
    /// With RocksDB, in each slot: memory for rows at hand, cached blocks and what is not written yet. Rows in `hashmap` are not
    /// bounded.
    pub memory_bytes: u64,
    /// Folders of working state, of which each task takes one; none: those of the worker for temporary files.
    pub local_directories: Vec<String>,
    /// Whether a worker keeps its part of the last checkpoint on its own disk.
    pub local_backup: bool,
    /// Folders for that; none: as for working state.
    pub local_backup_directories: Vec<String>,
    /// Whether a task that comes back on the same worker starts from there.
    pub recover_from_local: bool,
    /// Share of RocksDB's memory for what is not written to a file yet.
    pub write_buffer_milli: u32,
    /// Share of it for indexes and filters.
    pub high_priority_milli: u32,
    /// RocksDB's threads for flushes and compactions; at least 1.
    pub threads: u32,
    /// Threads that move the files of a snapshot, for each task with state; at least 1.
    pub transfer_threads: u32,
    /// Whether lookups ask a Bloom filter before they read a block.
    pub bloom_filter: bool,
}

impl Default for StateSettings {
    /// What a configuration without a word about state settles.
    fn default() -> Self {
        StateSettings {
            backend: StateBackend::RocksDb,
            memory_bytes: MEMORY_BYTES,
            local_directories: Vec::new(),
            local_backup: false,
            local_backup_directories: Vec::new(),
            recover_from_local: false,
            write_buffer_milli: 500,
            high_priority_milli: 100,
            threads: 2,
            transfer_threads: 4,
            bloom_filter: true,
        }
    }
}

impl StateSettings {
    /// What `configuration` settles.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let backend = match configuration.get(&STATE_BACKEND)? {
            StateBackend::HashMap => StateBackend::HashMap,
            StateBackend::RocksDb | StateBackend::ForSt => StateBackend::RocksDb,
        };
        let memory = configuration.get(&ROCKSDB_MEMORY_PER_SLOT)?;
        let local = configuration.get(&ROCKSDB_LOCAL_DIR)?;
        let backup = configuration.get(&LOCAL_BACKUP_DIRS)?;
        Ok(StateSettings {
            backend,
            memory_bytes: memory.map_or(MEMORY_BYTES, |memory| memory.bytes()),
            local_directories: local.map(|directories| directories.0).unwrap_or_default(),
            local_backup: configuration.get(&LOCAL_BACKUP_ENABLED)?,
            local_backup_directories: backup.map(|directories| directories.0).unwrap_or_default(),
            recover_from_local: configuration.get(&RECOVER_FROM_LOCAL)?,
            write_buffer_milli: thousandths(configuration.get(&ROCKSDB_WRITE_BUFFER_RATIO)?),
            high_priority_milli: thousandths(configuration.get(&ROCKSDB_HIGH_PRIORITY_POOL_RATIO)?),
            threads: configuration.get(&ROCKSDB_THREADS)?,
            transfer_threads: configuration.get(&ROCKSDB_TRANSFER_THREADS)?,
            bloom_filter: configuration.get(&ROCKSDB_BLOOM_FILTER)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str)]) -> StateSettings {
        let mut configuration = Configuration::new();
        entries.iter().for_each(|(key, value)| configuration.set(key, value).unwrap());
        StateSettings::from_configuration(&configuration).unwrap()
    }

    #[test]
    fn without_a_word_there_are_the_defaults() {
        assert_eq!(settings(&[]), StateSettings::default());
    }

    #[test]
    fn what_is_set_counts() {
        let expected = StateSettings {
            backend: StateBackend::HashMap,
            memory_bytes: 64 << 20,
            local_directories: vec!["/disk1".into(), "/disk2".into()],
            local_backup: true,
            local_backup_directories: vec!["/disk3".into()],
            recover_from_local: true,
            write_buffer_milli: 250,
            high_priority_milli: 200,
            threads: 3,
            transfer_threads: 8,
            bloom_filter: true,
        };
        let settings = settings(&[
            ("state.backend.type", "hashmap"),
            ("state.backend.rocksdb.memory.fixed-per-slot", "64 mb"),
            ("state.backend.rocksdb.localdir", "/disk1,/disk2"),
            ("execution.checkpointing.local-backup.enabled", "true"),
            ("execution.checkpointing.local-backup.dirs", "/disk3"),
            ("execution.state-recovery.from-local", "true"),
            ("state.backend.rocksdb.memory.write-buffer-ratio", "0.25"),
            ("state.backend.rocksdb.memory.high-prio-pool-ratio", "0.2"),
            ("state.backend.rocksdb.thread.num", "3"),
            ("state.backend.rocksdb.checkpoint.transfer.thread.num", "8"),
            ("state.backend.rocksdb.use-bloom-filter", "true"),
        ]);
        assert_eq!(settings, expected);
    }

    #[test]
    fn flinks_store_with_remote_files_means_rocksdb() {
        assert_eq!(settings(&[("state.backend.type", "forst")]), StateSettings::default());
    }
}

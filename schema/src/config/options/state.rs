//! Keyed state and temporary files.

use crate::config::MemorySize;
use crate::config::list::Directories;
use crate::config::option::{checks, options};
use crate::config::words::words;

words! {
    /// What keeps state while a job runs, as Flink names it.
    StateBackend {
        /// Tables in memory alone: the fastest, for state that fits.
        HashMap = "hashmap",
        /// A cache in memory over RocksDB: state may be larger than memory, and checkpoints share files.
        RocksDb = "rocksdb",
        /// Flink's store with remote files; means RocksDB.
        ForSt = "forst",
    }
}

options! {
    "State and temporary files";

    /// What keeps state while a job runs: tables in memory alone, or a cache in memory over RocksDB (Flink: hashmap).
    STATE_BACKEND: StateBackend = "state.backend.type", default("rocksdb"), deprecated(&["state.backend"]);

    /// Directories for working state. Not set: the directories for temporary files.
    ROCKSDB_LOCAL_DIR: Option<Directories> = "state.backend.rocksdb.localdir";

    /// Whether the memory of RocksDB comes out of the budget of the slot.
    ROCKSDB_MEMORY_MANAGED: bool = "state.backend.rocksdb.memory.managed", default("true");

    /// Memory for state over RocksDB in each slot: rows at hand, cached blocks, what is not written yet. Not set: 256 mb.
    ROCKSDB_MEMORY_PER_SLOT: Option<MemorySize> = "state.backend.rocksdb.memory.fixed-per-slot";

    /// Share of that memory for what has not been written to a file yet.
    ROCKSDB_WRITE_BUFFER_RATIO: f64 = "state.backend.rocksdb.memory.write-buffer-ratio", default("0.5"),
        check(checks::fraction, checks::FRACTION);

    /// Share of that memory kept for indexes and filters.
    ROCKSDB_HIGH_PRIORITY_POOL_RATIO: f64 = "state.backend.rocksdb.memory.high-prio-pool-ratio", default("0.1"),
        check(checks::fraction, checks::FRACTION);

    /// Threads of RocksDB for flushes and compactions.
    ROCKSDB_THREADS: u32 = "state.backend.rocksdb.thread.num", default("2"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Threads that move the files of a checkpoint, for each subtask with state.
    ROCKSDB_TRANSFER_THREADS: u32 = "state.backend.rocksdb.checkpoint.transfer.thread.num", default("4"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Whether lookups ask a Bloom filter before they read a block (Flink: false).
    ROCKSDB_BLOOM_FILTER: bool = "state.backend.rocksdb.use-bloom-filter", default("true");

    /// Directories for temporary files: spooled results, sorting, working state.
    TMP_DIRS: Directories = "io.tmp.dirs", default("/tmp"), deprecated(&["taskmanager.tmp.dirs"]);

    /// Scheme of paths that have none. Not set: local files.
    DEFAULT_SCHEME: Option<String> = "fs.default-scheme";
}

//! Checkpoints, savepoints and starting from them.

use std::time::Duration;

use crate::config::MemorySize;
use crate::config::list::Directories;
use crate::config::option::{checks, options};
use crate::config::words::words;

words! {
    /// What a failure may do to results.
    CheckpointingMode {
        /// State counts every record once.
        ExactlyOnce = "EXACTLY_ONCE",
        /// State may count a record again; barriers are not aligned.
        AtLeastOnce = "AT_LEAST_ONCE",
    }
}

words! {
    /// What becomes of a job's checkpoints when it ends without having finished.
    CheckpointRetention {
        /// They go with the job.
        NoExternalizedCheckpoints = "NO_EXTERNALIZED_CHECKPOINTS",
        /// They stay when the job fails, and go when it is cancelled.
        DeleteOnCancellation = "DELETE_ON_CANCELLATION",
        /// They stay.
        RetainOnCancellation = "RETAIN_ON_CANCELLATION",
    }
}

words! {
    /// Where checkpoints are kept.
    CheckpointStorage {
        /// In the coordinators' memory; for tests.
        Coordinator = "jobmanager",
        /// In the checkpoint directory.
        FileSystem = "filesystem",
    }
}

words! {
    /// To whom a snapshot belongs after a job has started from it.
    ClaimMode {
        /// To the user: the job never deletes its files and does not build on them.
        NoClaim = "NO_CLAIM",
        /// To the job, which deletes it once it is no longer needed.
        Claim = "CLAIM",
    }
}

options! {
    "Checkpoints, savepoints and recovery";

    /// Time between the starts of two checkpoints. Not set: none are taken.
    CHECKPOINTING_INTERVAL: Option<Duration> = "execution.checkpointing.interval",
        check(checks::longer_than_zero_if_set, checks::LONGER_THAN_ZERO);

    /// The same while a source works through a backlog; 0 takes none meanwhile. Not set: as otherwise.
    CHECKPOINTING_INTERVAL_DURING_BACKLOG: Option<Duration> = "execution.checkpointing.interval-during-backlog";

    /// Whether a record may be counted again in state after a failure.
    CHECKPOINTING_MODE: CheckpointingMode = "execution.checkpointing.mode", default("EXACTLY_ONCE");

    /// Time after which a checkpoint that is not complete is given up.
    CHECKPOINTING_TIMEOUT: Duration = "execution.checkpointing.timeout", default("10 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Least time between the end of a checkpoint and the start of the next.
    CHECKPOINTING_MIN_PAUSE: Duration = "execution.checkpointing.min-pause", default("0 ms");

    /// Number of checkpoints that may be under way at once.
    CHECKPOINTING_MAX_CONCURRENT: u32 = "execution.checkpointing.max-concurrent-checkpoints", default("1"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Number of checkpoints in a row that may fail before the job does.
    CHECKPOINTING_TOLERABLE_FAILURES: u32 = "execution.checkpointing.tolerable-failed-checkpoints", default("0");

    /// Number of completed checkpoints that are kept.
    CHECKPOINTING_NUM_RETAINED: u32 = "execution.checkpointing.num-retained", default("1"),
        deprecated(&["state.checkpoints.num-retained"]), check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// What becomes of the checkpoints when the job is cancelled or fails for good.
    CHECKPOINTING_RETENTION: CheckpointRetention = "execution.checkpointing.externalized-checkpoint-retention",
        default("NO_EXTERNALIZED_CHECKPOINTS");

    /// Where checkpoints are kept. Not set: in files if a checkpoint directory is set, else with the coordinators.
    CHECKPOINTING_STORAGE: Option<CheckpointStorage> = "execution.checkpointing.storage",
        deprecated(&["state.checkpoint-storage"]);

    /// Directory of the checkpoints, reachable from every process, as path or URI.
    CHECKPOINTING_DIR: Option<String> = "execution.checkpointing.dir",
        deprecated(&["state.checkpoints.dir", "state.backend.fs.checkpointdir"]);

    /// Directory for savepoints that are taken without naming one.
    SAVEPOINT_DIR: Option<String> = "execution.checkpointing.savepoint-dir",
        deprecated(&["state.savepoints.dir", "savepoints.state.backend.fs.dir"]);

    /// Whether a checkpoint shares the files of those before it and uploads only what changed (Flink: false).
    CHECKPOINTING_INCREMENTAL: bool = "execution.checkpointing.incremental", default("true"),
        deprecated(&["state.backend.incremental"]);

    /// Whether barriers overtake the records in flight, which become part of the checkpoint.
    UNALIGNED_ENABLED: bool = "execution.checkpointing.unaligned.enabled", default("false"),
        deprecated(&["execution.checkpointing.unaligned"]);

    /// With unaligned checkpoints: how long to try an aligned one first; 0 does not try.
    ALIGNED_CHECKPOINT_TIMEOUT: Duration = "execution.checkpointing.aligned-checkpoint-timeout", default("0 ms"),
        deprecated(&["execution.checkpointing.alignment-timeout"]);

    /// Whether checkpoints go on once some tasks have finished.
    CHECKPOINTS_AFTER_TASKS_FINISH: bool = "execution.checkpointing.checkpoints-after-tasks-finish", default("true"),
        deprecated(&["execution.checkpointing.checkpoints-after-tasks-finish.enabled"]);

    /// State smaller than this is written into the checkpoint's manifest and not into a file of its own.
    CHECKPOINTING_INLINE_THRESHOLD: MemorySize = "execution.checkpointing.data-inline-threshold", default("20 kb"),
        deprecated(&["state.storage.fs.memory-threshold", "state.backend.fs.memory-threshold"]),
        check(|size| size.bytes() <= 1 << 20, "a memory size of at most 1 mb");

    /// Whether the files of full snapshots are compressed.
    SNAPSHOT_COMPRESSION: bool = "execution.checkpointing.snapshot-compression", default("false");

    /// Whether a worker keeps its part of the last checkpoint on its own disk.
    LOCAL_BACKUP_ENABLED: bool = "execution.checkpointing.local-backup.enabled", default("false"),
        deprecated(&["state.backend.local-recovery"]);

    /// Directories for that. Not set: below the directories for temporary files.
    LOCAL_BACKUP_DIRS: Option<Directories> = "execution.checkpointing.local-backup.dirs",
        deprecated(&["taskmanager.state.local.root-dirs"]);

    /// Whether a task that comes back on the same worker starts from that copy.
    RECOVER_FROM_LOCAL: bool = "execution.state-recovery.from-local", default("false"),
        deprecated(&["state.backend.local-recovery"]);

    /// Savepoint or checkpoint from which the job starts.
    RECOVERY_PATH: Option<String> = "execution.state-recovery.path", deprecated(&["execution.savepoint.path"]);

    /// To whom the files of that snapshot belong afterwards.
    RECOVERY_CLAIM_MODE: ClaimMode = "execution.state-recovery.claim-mode", default("NO_CLAIM"),
        deprecated(&["execution.savepoint-restore-mode"]);

    /// Whether state of that snapshot which no operator of the job claims may be dropped.
    RECOVERY_IGNORE_UNCLAIMED: bool = "execution.state-recovery.ignore-unclaimed-state", default("false"),
        deprecated(&["execution.savepoint.ignore-unclaimed-state"]);
}

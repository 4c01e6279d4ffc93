//! When a job takes checkpoints, how, and what is kept of them.

use serde::{Deserialize, Serialize};

use super::settings::milliseconds;
use crate::config::Configuration;
use crate::config::options::{
    ALIGNED_CHECKPOINT_TIMEOUT, CHECKPOINTING_DIR, CHECKPOINTING_INCREMENTAL, CHECKPOINTING_INLINE_THRESHOLD,
    CHECKPOINTING_INTERVAL, CHECKPOINTING_MAX_CONCURRENT, CHECKPOINTING_MIN_PAUSE, CHECKPOINTING_MODE,
    CHECKPOINTING_NUM_RETAINED, CHECKPOINTING_RETENTION, CHECKPOINTING_TIMEOUT,
    CHECKPOINTING_TOLERABLE_FAILURES, CHECKPOINTS_AFTER_TASKS_FINISH, CheckpointRetention, CheckpointingMode,
    SAVEPOINT_DIR, SNAPSHOT_COMPRESSION, UNALIGNED_ENABLED,
};
use crate::error::{Error, Result};
use crate::snapshot::{Alignment, SnapshotKind};

/// When a job takes checkpoints, how, and what is kept of them. By default none are taken; savepoints can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSettings {
    /// Time between the starts of two; nothing: none are taken.
    pub interval_ms: Option<u64>,
    /// What a failure may do to results.
    pub mode: CheckpointingMode,
    /// How long one may take before it is given up; never 0.
    pub timeout_ms: u64,
    /// Least time between the end of one and the start of the next.
    pub min_pause_ms: u64,
    /// How many may be under way at once; at least 1.
    pub max_concurrent: u32,
    /// How many in a row may fail before the job does.
    pub tolerable_failures: u32,
    /// How many completed ones are kept; at least 1.
    pub num_retained: u32,
    /// What becomes of them when the job ends without having finished.
    pub retention: CheckpointRetention,
    /// Folder of the checkpoints, path or URI; nothing: the coordinator's own choice.
    pub directory: Option<String>,
    /// Folder of savepoints that are taken without naming one.
    pub savepoint_directory: Option<String>,
    /// Whether a checkpoint shares the files of those before it.
    pub incremental: bool,
    /// Whether barriers overtake records in flight.
    pub unaligned: bool,
    /// If so: how long to try without.
    pub aligned_timeout_ms: u64,
    /// Whether checkpoints go on once some tasks have finished.
    pub after_tasks_finish: bool,
    /// State smaller than this may stand in the manifest.
    pub inline_threshold_bytes: u64,
    /// Whether files of full snapshots are compressed.
    pub compress: bool,
}

impl Default for CheckpointSettings {
    /// What a configuration without a word about checkpoints settles.
    fn default() -> Self {
        CheckpointSettings {
            interval_ms: None,
            mode: CheckpointingMode::ExactlyOnce,
            timeout_ms: 600_000,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: 0,
            num_retained: 1,
            retention: CheckpointRetention::NoExternalizedCheckpoints,
            directory: None,
            savepoint_directory: None,
            incremental: true,
            unaligned: false,
            aligned_timeout_ms: 0,
            after_tasks_finish: true,
            inline_threshold_bytes: 20 << 10,
            compress: false,
        }
    }
}

impl CheckpointSettings {
    /// What `configuration` settles. An error names the keys that contradict each other.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let settings = CheckpointSettings {
            interval_ms: configuration.get(&CHECKPOINTING_INTERVAL)?.map(milliseconds),
            mode: configuration.get(&CHECKPOINTING_MODE)?,
            timeout_ms: milliseconds(configuration.get(&CHECKPOINTING_TIMEOUT)?),
            min_pause_ms: milliseconds(configuration.get(&CHECKPOINTING_MIN_PAUSE)?),
            max_concurrent: configuration.get(&CHECKPOINTING_MAX_CONCURRENT)?,
            tolerable_failures: configuration.get(&CHECKPOINTING_TOLERABLE_FAILURES)?,
            num_retained: configuration.get(&CHECKPOINTING_NUM_RETAINED)?,
            retention: configuration.get(&CHECKPOINTING_RETENTION)?,
            directory: configuration.get(&CHECKPOINTING_DIR)?,
            savepoint_directory: configuration.get(&SAVEPOINT_DIR)?,
            incremental: configuration.get(&CHECKPOINTING_INCREMENTAL)?,
            unaligned: configuration.get(&UNALIGNED_ENABLED)?,
            aligned_timeout_ms: milliseconds(configuration.get(&ALIGNED_CHECKPOINT_TIMEOUT)?),
            after_tasks_finish: configuration.get(&CHECKPOINTS_AFTER_TASKS_FINISH)?,
            inline_threshold_bytes: configuration.get(&CHECKPOINTING_INLINE_THRESHOLD)?.bytes(),
            compress: configuration.get(&SNAPSHOT_COMPRESSION)?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Records in flight belong to one barrier, and only where each is counted once.
    fn check(&self) -> Result<()> {
        let contradicts = |key: &str, value: &str, wanted: &str| {
            Err(Error::configuration(format!(
                "`{}` is on, but `{key}` is {value}; unaligned checkpoints need {wanted}",
                UNALIGNED_ENABLED.key()
            )))
        };
        if self.unaligned && self.mode == CheckpointingMode::AtLeastOnce {
            return contradicts(CHECKPOINTING_MODE.key(), self.mode.word(), "EXACTLY_ONCE");
        }
        if self.unaligned && self.max_concurrent > 1 {
            return contradicts(CHECKPOINTING_MAX_CONCURRENT.key(), &self.max_concurrent.to_string(), "1");
        }
        Ok(())
    }

    /// Whether checkpoints are taken.
    pub fn are_taken(&self) -> bool {
        self.interval_ms.is_some()
    }

    /// How the barriers of a snapshot pass tasks with several channels. Those of savepoints are always aligned, so that a savepoint
    /// holds no records in flight.
    pub fn alignment(&self, kind: SnapshotKind) -> Alignment {
        match self.mode {
            _ if kind.is_savepoint() => Alignment::Aligned,
            CheckpointingMode::AtLeastOnce => Alignment::None,
            CheckpointingMode::ExactlyOnce if self.unaligned => {
                Alignment::UnalignedAfter(u32::try_from(self.aligned_timeout_ms).unwrap_or(u32::MAX))
            }
            CheckpointingMode::ExactlyOnce => Alignment::Aligned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SavepointFormat;

    fn settings(entries: &[(&str, &str)]) -> Result<CheckpointSettings> {
        let mut configuration = Configuration::new();
        for (key, value) in entries {
            configuration.set(key, value)?;
        }
        CheckpointSettings::from_configuration(&configuration)
    }

    #[test]
    fn without_a_word_there_are_the_defaults() {
        assert_eq!(settings(&[]).unwrap(), CheckpointSettings::default());
    }

    #[test]
    fn what_is_set_counts() {
        let expected = CheckpointSettings {
            interval_ms: Some(3_000),
            mode: CheckpointingMode::AtLeastOnce,
            timeout_ms: 60_000,
            min_pause_ms: 500,
            max_concurrent: 2,
            tolerable_failures: 3,
            num_retained: 4,
            retention: CheckpointRetention::RetainOnCancellation,
            directory: Some("file:///data/checkpoints".into()),
            savepoint_directory: Some("/data/savepoints".into()),
            incremental: false,
            unaligned: false,
            aligned_timeout_ms: 100,
            after_tasks_finish: false,
            inline_threshold_bytes: 1_024,
            compress: true,
        };
        let settings = settings(&[
            ("execution.checkpointing.interval", "3 s"),
            ("execution.checkpointing.mode", "at-least-once"),
            ("execution.checkpointing.timeout", "1 min"),
            ("execution.checkpointing.min-pause", "500 ms"),
            ("execution.checkpointing.max-concurrent-checkpoints", "2"),
            ("execution.checkpointing.tolerable-failed-checkpoints", "3"),
            ("state.checkpoints.num-retained", "4"),
            ("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION"),
            ("state.checkpoints.dir", "file:///data/checkpoints"),
            ("execution.checkpointing.savepoint-dir", "/data/savepoints"),
            ("execution.checkpointing.incremental", "false"),
            ("execution.checkpointing.aligned-checkpoint-timeout", "100 ms"),
            ("execution.checkpointing.checkpoints-after-tasks-finish", "false"),
            ("execution.checkpointing.data-inline-threshold", "1 kb"),
            ("execution.checkpointing.snapshot-compression", "true"),
        ]);
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn barriers_of_checkpoints_pass_as_configured_and_those_of_savepoints_aligned() {
        let alignment = |entries: &[_], kind| settings(entries).unwrap().alignment(kind);
        let unaligned = [
            ("execution.checkpointing.unaligned.enabled", "true"),
            ("execution.checkpointing.aligned-checkpoint-timeout", "2 s"),
        ];
        let at_least_once = [("execution.checkpointing.mode", "AT_LEAST_ONCE")];
        assert_eq!(alignment(&[], SnapshotKind::Checkpoint), Alignment::Aligned);
        assert_eq!(alignment(&unaligned, SnapshotKind::Checkpoint), Alignment::UnalignedAfter(2_000));
        assert_eq!(alignment(&at_least_once, SnapshotKind::FullCheckpoint), Alignment::None);
        for entries in [&unaligned[..], &at_least_once] {
            let kind = SnapshotKind::Savepoint(SavepointFormat::Native);
            assert_eq!(alignment(entries, kind), Alignment::Aligned);
        }
    }

    #[test]
    fn unaligned_checkpoints_are_refused_where_they_could_not_be_restored() {
        let refusal = |key, value| {
            let entries = [("execution.checkpointing.unaligned.enabled", "true"), (key, value)];
            settings(&entries).unwrap_err().to_string()
        };
        assert_eq!(
            refusal("execution.checkpointing.mode", "AT_LEAST_ONCE"),
            "`execution.checkpointing.unaligned.enabled` is on, but `execution.checkpointing.mode` is \
             AT_LEAST_ONCE; unaligned checkpoints need EXACTLY_ONCE"
        );
        let refusal = refusal("execution.checkpointing.max-concurrent-checkpoints", "2");
        assert!(refusal.contains("max-concurrent-checkpoints` is 2"), "{refusal}");
    }
}

//! Whether the places that a job names can be reached by this build.

use flott_schema::config::options::{CHECKPOINTING_DIR, RECOVERY_PATH, SAVEPOINT_DIR};
use flott_schema::job::JobSpec;
use flott_schema::{Context, Result};

use crate::storage::Storage;

/// Refuses a job whose snapshots are to go where this build cannot write, or that is to start from where it cannot read. Nothing is
/// reached for: only what cannot be right anywhere is refused.
pub fn check_places(spec: &JobSpec) -> Result<()> {
    let settings = &spec.settings.checkpoints;
    let places = [
        (CHECKPOINTING_DIR.key(), settings.directory.as_deref()),
        (SAVEPOINT_DIR.key(), settings.savepoint_directory.as_deref()),
        (RECOVERY_PATH.key(), spec.restore.as_ref().map(|restore| restore.folder.as_str())),
    ];
    places
        .into_iter()
        .filter_map(|(key, place)| Some((key, place?)))
        .try_for_each(|(key, place)| Storage::open(place).map(drop).at(|| key.into()))
}

#[cfg(test)]
mod tests {
    use flott_schema::graph::{ExecutionMode, JobGraph};

    use super::*;

    #[test]
    fn a_job_with_a_place_that_nobody_can_reach_is_refused_with_the_key() {
        let (name, mode) = ("job".to_string(), ExecutionMode::Streaming);
        let mut spec = JobSpec::embedded(JobGraph { name, mode, vertices: vec![], edges: vec![] });
        check_places(&spec).unwrap();
        spec.settings.checkpoints.directory = Some("s3://bucket/checkpoints".into());
        check_places(&spec).unwrap();
        spec.settings.checkpoints.savepoint_directory = Some("hdfs://host/savepoints".into());
        let refused = check_places(&spec).unwrap_err().to_string();
        assert!(refused.contains("execution.checkpointing.savepoint-dir"), "{refused}");
        assert!(
            refused.contains("scheme 'hdfs' is not built in; there are plain paths and file://, s3://"),
            "{refused}"
        );
    }
}

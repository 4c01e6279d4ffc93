//! Where snapshots go.

use flott_schema::error::{Error, Result};
use flott_schema::ids::JobId;
use flott_schema::job::CheckpointSettings;
use flott_storage::Storage;

/// Where the snapshots of jobs go that do not say so themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Path or URI of the folder for checkpoints.
    pub checkpoints: String,
}

impl Places {
    /// The folder of all checkpoints of a job.
    pub fn of_job(&self, job: JobId, settings: &CheckpointSettings) -> String {
        format!("{}/{job}", whole(settings.directory.as_deref().unwrap_or(&self.checkpoints)))
    }

    /// The folder of a savepoint: a new one below `target`, or below what the job says. `random` is a number of 48 bits.
    pub fn of_savepoint(
        &self,
        job: JobId,
        settings: &CheckpointSettings,
        target: Option<&str>,
        random: u64,
    ) -> Result<String> {
        let target = target.filter(|target| !target.is_empty()).or(settings.savepoint_directory.as_deref());
        let target = target.ok_or_else(|| {
            Error::bad_input(
                "no savepoint directory is configured: name one with the request, or set execution.checkpointing.savepoint-dir",
            )
        })?;
        Storage::open(target)?;
        let number = format!("{job}");
        let random = random & 0xffff_ffff_ffff;
        Ok(format!("{}/savepoint-{}-{random:012x}", whole(target), &number[..6]))
    }
}

/// The folder in words that mean the same in every process: a relative path counts from the folder of the coordinator.
fn whole(folder: &str) -> String {
    let is_path = !folder.contains("://") && !folder.starts_with("file:");
    let whole = std::path::absolute(folder).ok().filter(|_| is_path).map(|path| path.display().to_string());
    whole.as_deref().unwrap_or(folder).trim_end_matches('/').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(0xabcd_ef01 << 96);

    #[test]
    fn checkpoints_go_below_the_directory_of_the_job_or_of_the_coordinator() {
        let places = Places { checkpoints: "/data/checkpoints".into() };
        let mut settings = CheckpointSettings { directory: None, ..CheckpointSettings::default() };
        assert_eq!(places.of_job(JOB, &settings), format!("/data/checkpoints/{JOB}"));
        settings.directory = Some("file:///shared/".into());
        assert_eq!(places.of_job(JOB, &settings), format!("file:///shared/{JOB}"));
    }

    #[test]
    fn a_savepoint_gets_a_folder_of_its_own_where_the_user_wants_it() {
        let places = Places { checkpoints: "/data".into() };
        let mut settings = CheckpointSettings { savepoint_directory: None, ..CheckpointSettings::default() };
        let refused = places.of_savepoint(JOB, &settings, None, 7).unwrap_err();
        assert!(refused.to_string().contains("execution.checkpointing.savepoint-dir"), "{refused}");
        settings.savepoint_directory = Some("/mine/".into());
        let refused = places.of_savepoint(JOB, &settings, Some("hdfs://host/a"), 7).unwrap_err();
        assert!(refused.to_string().contains("scheme 'hdfs' is not built in"), "{refused}");
        let folder = |target| places.of_savepoint(JOB, &settings, target, u64::MAX).unwrap();
        let here = std::path::absolute("mine").unwrap();
        let relative = folder(Some("mine"));
        assert!(relative.starts_with(here.to_str().unwrap()), "{relative}");
        assert_eq!(folder(None), "/mine/savepoint-abcdef-ffffffffffff");
        assert_eq!(folder(Some("/other")), "/other/savepoint-abcdef-ffffffffffff");
    }
}

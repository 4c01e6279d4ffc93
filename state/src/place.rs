//! Where the keyed state of an operator in a task is worked on.

use std::path::PathBuf;
use std::sync::Arc;

use flott_schema::ids::OperatorId;
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::SnapshotFile;
use flott_schema::{Error, Result};

use crate::files;
use crate::options::TaskIdentity;
use crate::service::{StateService, WorkDirectory, range_name, range_of};
use crate::snapshot::SnapshotTarget;

/// An operator in a task, and its working files.
pub(crate) struct Place {
    pub(crate) service: Arc<StateService>,
    pub(crate) operator: OperatorId,
    pub(crate) key_groups: KeyGroupRange,
    /// What tells its files from all others of the job.
    pub(crate) stem: String,
    /// Goes with the last one who knows this place.
    pub(crate) directory: Arc<WorkDirectory>,
    /// Where the files of completed checkpoints are kept.
    pub(crate) backup: PathBuf,
    /// The key groups of the whole task.
    of_task: KeyGroupRange,
}

impl Place {
    pub(crate) fn new(
        service: &Arc<StateService>,
        task: &TaskIdentity,
        operator: OperatorId,
    ) -> Result<Self> {
        Ok(Place {
            service: service.clone(),
            operator,
            key_groups: task.key_groups(),
            stem: task.file_stem(operator),
            directory: service.work_directory(&task.file_stem(operator))?,
            backup: service.backup(task.job, task.attempt.task, operator, task.key_groups()),
            of_task: task.key_groups(),
        })
    }

    /// A place beside this one for some of its key groups; `number` tells it from others.
    pub(crate) fn member(&self, number: usize, key_groups: KeyGroupRange) -> Result<Self> {
        let stem = format!("{}.{number}", self.stem);
        Ok(Place {
            service: self.service.clone(),
            operator: self.operator,
            key_groups,
            directory: self.service.work_directory(&stem)?,
            stem,
            backup: self.backup.with_file_name(range_name(key_groups)),
            of_task: self.of_task,
        })
    }

    /// A path among the working files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Moves working files of a completed checkpoint to the backup, in place of those of earlier ones.
    pub(crate) fn keep_backup(&self, checkpoint: u64, folder: &std::path::Path) -> Result<()> {
        let backup = &self.backup;
        let refused = |error| Error::io(backup.display(), error);
        if backup.exists() {
            std::fs::remove_dir_all(backup).map_err(refused)?;
        }
        std::fs::create_dir_all(backup).map_err(refused)?;
        self.discard_other_backups();
        std::fs::rename(folder, backup.join(checkpoint.to_string())).map_err(refused)
    }
}

impl Place {
    /// Deletes backups of the task that are in the way: of key groups that it shares out in another way now, or does not have any more.
    fn discard_other_backups(&self) {
        let (own, task) = (self.key_groups, self.of_task);
        let folder = self.backup.parent().map(std::fs::read_dir);
        for entry in folder.into_iter().flatten().flatten().flatten() {
            let Some(other) = entry.file_name().to_str().and_then(range_of) else { continue };
            let is_outside = other.start < task.start || other.end > task.end;
            let overlaps = other != own && other.start < own.end && own.start < other.end;
            if is_outside || overlaps {
                discard(&entry.path());
            }
        }
    }
}

/// Deletes a folder of working files; what stays behind goes with the task.
pub(crate) fn discard(folder: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("{}: cannot be deleted: {error}", folder.display());
    }
}

/// Puts a local file into the folder of a snapshot.
pub(crate) fn put_own(
    target: &SnapshotTarget,
    stem: &str,
    name: &str,
    local: &std::path::Path,
) -> Result<SnapshotFile> {
    let path = format!("{stem}.{name}");
    let file = files::put_file(&target.folder, &path, local)?;
    Ok(SnapshotFile { name: name.into(), ..file })
}

//! What the tasks of an executor share for their state: threads, memory, working files, and the manifest they
//! start from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flott_schema::ids::{JobId, OperatorId, TaskId};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{Manifest, RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, Result};

use crate::checks::Unchecked;
use crate::files;
use crate::manifests::Manifests;
use crate::options::StateOptions;
use crate::pool::Pool;
use crate::restored::RestoredPart;
use crate::rocks::Tuning;

/// Working files of deployments, below the directory of the executor.
const WORK: &str = "work";
/// Files of the last completed checkpoint of each task.
const BACKUP: &str = "backup";

/// How long a task waits for the manifest that it starts from. A manifest of a large job is read within a second.
const MANIFEST_WAIT: Duration = Duration::from_secs(120);

/// What the tasks of an executor share for their state.
#[derive(Debug)]
pub struct StateService {
    pub(crate) options: StateOptions,
    /// Encodes, sorts, writes rows.
    pub(crate) compute: Arc<Pool>,
    /// Moves files. Apart from `compute`, so that slow storage does not hold up tables.
    pub(crate) transfer: Arc<Pool>,
    pub(crate) tuning: Tuning,
    manifests: Arc<Manifests>,
    /// Numbers the folders of working files: one that is being closed is never in the way of another.
    folders: AtomicUsize,
}

impl StateService {
    /// Starts the threads, and empties the working directory. It goes with the service, but for backups of
    /// jobs that were not released.
    pub fn start(options: StateOptions) -> Result<Arc<Self>> {
        let work = options.directory.join(WORK);
        if work.exists() {
            fs::remove_dir_all(&work).map_err(|error| Error::io(work.display(), error))?;
        }
        fs::create_dir_all(&work).map_err(|error| Error::io(work.display(), error))?;
        Ok(Arc::new(StateService {
            compute: Arc::new(Pool::start("state", options.threads)?),
            transfer: Arc::new(Pool::start("state-transfer", options.transfer_threads)?),
            tuning: Tuning::new(&options),
            manifests: Arc::default(),
            folders: AtomicUsize::new(0),
            options,
        }))
    }

    /// The manifest of a snapshot. The one that was read last is kept, since all tasks of an executor start
    /// from the same. Waits for it for two minutes.
    pub fn manifest(&self, from: &RestoreFrom) -> Result<Arc<Manifest>> {
        let folder = from.folder.clone();
        self.manifests.get(from, MANIFEST_WAIT, move || files::read_manifest(&folder))
    }

    /// Deletes the local backups of checkpoints: the job has ended.
    pub fn release(&self, job: JobId) -> Result<()> {
        let folder = self.options.directory.join(BACKUP).join(job.to_string());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(folder.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// An empty folder for working files; `name` is for people.
    pub(crate) fn work_directory(&self, name: &str) -> Result<Arc<WorkDirectory>> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let path = self.options.directory.join(WORK).join(format!("{name}-{number}"));
        fs::create_dir(&path).map_err(|error| Error::io(path.display(), error))?;
        Ok(Arc::new(WorkDirectory(path)))
    }

    /// Where the backup of a completed checkpoint of an operator in a task is, of these key groups.
    pub(crate) fn backup(
        &self,
        job: JobId,
        task: TaskId,
        operator: OperatorId,
        key_groups: KeyGroupRange,
    ) -> PathBuf {
        let task = format!("{}-{}", task.vertex, task.subtask);
        let folder = self.options.directory.join(BACKUP).join(job.to_string()).join(task);
        folder.join(operator.to_string()).join(range_name(key_groups))
    }

    /// Gets a file of a snapshot: from the backup, if it is there and looks the same, else from where the
    /// snapshot is. What is given back is yet to be checked. Refused once the task of `part` is gone.
    pub(crate) fn get_file(
        &self,
        part: &RestoredPart,
        from: &RestoreFrom,
        file: &SnapshotFile,
        to: &Path,
    ) -> Result<Option<Unchecked>> {
        flott_faults::point("restore.file");
        part.check_wanted()?;
        let mut backup = Some(&*part.backup).filter(|_| self.options.recover_from_local);
        let kept = backup.map(|backup| backup.join(from.checkpoint.to_string()));
        let is_checked = match kept.and_then(|kept| files::get_backup(&kept, file, to, &part.cancelled)) {
            Some(is_checked) => is_checked,
            None => {
                backup = None;
                part.check_wanted()?;
                files::get_file(&from.folder, file, to, &part.cancelled).at(|| from.to_string())?
            }
        };
        let (file, local, backup) = (file.clone(), to.to_owned(), backup.map(Path::to_owned));
        Ok(if is_checked { None } else { Some(Unchecked { file, local, backup }) })
    }
}

/// The name of a folder for what belongs to these key groups.
pub(crate) fn range_name(key_groups: KeyGroupRange) -> String {
    format!("{}-{}", key_groups.start, key_groups.end)
}

/// What [`range_name`] has named.
pub(crate) fn range_of(name: &str) -> Option<KeyGroupRange> {
    let (start, end) = name.split_once('-')?;
    Some(KeyGroupRange { start: start.parse().ok()?, end: end.parse().ok()? })
}

impl Drop for StateService {
    fn drop(&mut self) {
        let directory = &self.options.directory;
        let work = directory.join(WORK);
        if let Err(error) = fs::remove_dir_all(&work)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{}: cannot be deleted: {error}", work.display());
        }
        // What else is in it, backups or the files of somebody, stays.
        let _ = fs::remove_dir(directory.join(BACKUP));
        let _ = fs::remove_dir(directory);
    }
}

/// A folder that goes with the last one who needs it.
#[derive(Debug)]
pub(crate) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{}: cannot be deleted: {error}", self.0.display());
        }
    }
}

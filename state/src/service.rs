//! What the tasks of an executor share for their state: threads, memory, working files, and the manifest they
//! start from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flott_schema::ids::{JobId, OperatorId, TaskId};
use flott_schema::snapshot::{Manifest, RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, Result};

use crate::files;
use crate::options::StateOptions;
use crate::pool::{Pool, lock};
use crate::rocks::Tuning;

/// Working files of deployments, below the directory of the executor.
const WORK: &str = "work";
/// Files of the last completed checkpoint of each task.
const BACKUP: &str = "backup";

/// What the tasks of an executor share for their state.
#[derive(Debug)]
pub struct StateService {
    pub(crate) options: StateOptions,
    /// Encodes, sorts, writes rows.
    pub(crate) compute: Arc<Pool>,
    /// Moves files. Apart from `compute`, so that slow storage does not hold up tables.
    pub(crate) transfer: Arc<Pool>,
    pub(crate) tuning: Tuning,
    /// The manifest that was read last.
    manifest: Mutex<Option<(RestoreFrom, Arc<Manifest>)>>,
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
            manifest: Mutex::default(),
            folders: AtomicUsize::new(0),
            options,
        }))
    }

    /// The manifest of a snapshot. The one that was read last is kept, since all tasks of an executor start
    /// from the same.
    pub fn manifest(&self, from: &RestoreFrom) -> Result<Arc<Manifest>> {
        let mut last = lock(&self.manifest);
        if let Some((known, manifest)) = &*last
            && known == from
        {
            return Ok(manifest.clone());
        }
        let manifest = Arc::new(files::read_manifest(&from.folder).at(|| from.to_string())?);
        *last = Some((from.clone(), manifest.clone()));
        Ok(manifest)
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

    /// Where the backup of a completed checkpoint of an operator in a task is.
    pub(crate) fn backup(&self, job: JobId, task: TaskId, operator: OperatorId) -> PathBuf {
        let task = format!("{}-{}", task.vertex, task.subtask);
        self.options.directory.join(BACKUP).join(job.to_string()).join(task).join(operator.to_string())
    }

    /// Gets a file of a snapshot: from the backup, if it is there and is the same, else from where the
    /// snapshot is.
    pub(crate) fn get_file(
        &self,
        backup: &Path,
        from: &RestoreFrom,
        file: &SnapshotFile,
        to: &Path,
    ) -> Result<()> {
        flott_faults::point("restore.file");
        if self.options.recover_from_local {
            let kept = backup.join(from.checkpoint.to_string());
            if files::get_backup(&kept, file, to) {
                return Ok(());
            }
        }
        files::get_file(&from.folder, file, to).at(|| from.to_string())
    }
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

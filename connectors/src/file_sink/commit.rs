//! Makes finished files visible.

use std::fs::{self, File};
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use flott_dataflow::sink::Committer;
use flott_schema::{Error, Result};

use super::lineage::remove_if_there;

/// A finished file under the name that hides it, and the name it is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCommittable {
    /// Where it is.
    pub in_progress: PathBuf,
    /// Where it is to be, in the same folder.
    pub finished: PathBuf,
    /// Whether it may replace a file.
    pub replace: bool,
    /// Hidden files that are of no use when it has its name.
    pub superseded: Vec<PathBuf>,
}

impl FileCommittable {
    /// Renames the file, for good: it is on disk under its new name when this returns. A file that was renamed before is
    /// left alone. One that is nowhere is an error, except where it `may_be_gone`: committed long ago, and taken away since by
    /// whoever reads the files.
    pub fn commit(&self, may_be_gone: bool) -> Result<()> {
        let FileCommittable { in_progress, finished, replace, superseded } = self;
        if !replace && exists(finished)? && exists(in_progress)? {
            return Err(Error::new(
                flott_schema::ErrorKind::Io,
                format!(
                    "'{}' is there already and is not written over; do two jobs write to one folder? The new file is '{}'",
                    finished.display(),
                    in_progress.display()
                ),
            ));
        }
        flott_faults::write("sink.rename").map_err(|error| failed(finished, error))?;
        match fs::rename(in_progress, finished) {
            Ok(()) => {
                flott_faults::point("sink.renamed");
                finished.parent().map_or(Ok(()), sync_folder)?;
            }
            Err(error) if error.kind() == IoErrorKind::NotFound => {
                if !exists(finished)? {
                    // Nobody takes away the folder as well: it is on another machine.
                    let folder = finished.parent().filter(|folder| !folder.as_os_str().is_empty());
                    let is_elsewhere =
                        folder.map_or(Ok(false), |folder| exists(folder).map(|there| !there))?;
                    if !may_be_gone || is_elsewhere {
                        return Err(Error::new(
                            flott_schema::ErrorKind::Io,
                            format!(
                                "'{}' is lost: '{}', which was to get that name, is not there any more; do all workers see \
                                 that folder, and who else removes files there?",
                                finished.display(),
                                in_progress.display()
                            ),
                        ));
                    }
                    tracing::warn!(file = %finished.display(), "a file of the snapshot is neither pending nor finished; \
                        taken to be committed and moved since");
                }
            }
            Err(error) => return Err(failed(finished, error)),
        }
        superseded.iter().try_for_each(|path| remove_if_there(path))
    }
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| failed(path, error))
}

/// An error of writing at `path`.
pub fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write '{}'", path.display()), error)
}

/// Writes a folder's entries to disk.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(|error| failed(folder, error))
}

/// Makes a folder and those above it, for good.
pub fn create_folder(folder: &Path) -> Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    create_folder(parent)?;
    match fs::create_dir(folder) {
        // Another task was quicker.
        Err(error) if error.kind() == IoErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(failed(folder, error)),
        Ok(()) => sync_folder(parent),
    }
}

/// Refuses a folder in which no file can be made. It need not exist, if it can be made.
pub fn check_writable(folder: &Path) -> Result<()> {
    let mut ancestors = folder.ancestors().map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    });
    // The root, or the working folder, exists.
    let Some(nearest) = ancestors.find(|path| path.exists()) else { return Ok(()) };
    if !nearest.is_dir() {
        return Err(Error::configuration(format!(
            "cannot write to folder '{}': '{}' is no folder",
            folder.display(),
            nearest.display()
        )));
    }
    let probe = nearest.join(format!(".flott-probe-{}", super::part_file::unique_token()));
    File::create_new(&probe).map_err(|error| failed(folder, error))?;
    fs::remove_file(&probe).map_err(|error| failed(folder, error))
}

/// Commits files by renaming them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileCommitter;

impl Committer for FileCommitter {
    type Committable = FileCommittable;

    fn commit(&mut self, committables: Vec<FileCommittable>) -> Result<()> {
        committables.iter().try_for_each(|committable| committable.commit(false))
    }

    fn commit_restored(&mut self, committables: Vec<FileCommittable>) -> Result<()> {
        committables.iter().try_for_each(|committable| committable.commit(true))
    }
}

//! Files that are written and have yet to be brought to the disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_dataflow::snapshot::Background;
use flott_schema::{Error, ErrorKind, Result};

use super::commit::{failed, sync_folder};

/// Files that may wait: more than a writer has open, so that those of a barrier never reach it. One more, and all of them are brought to the disk at
/// once: each is open.
const WAITING_MAX: usize = 320;

/// The files of one writer that have yet to be brought to the disk, with their folders. A snapshot waits for it on another thread.
///
/// After a failure nobody can tell what is on the disk: then no snapshot will be complete, and the task fails at the next barrier.
#[derive(Clone, Default)]
pub struct Unsynced(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Held by who is at work: a later snapshot holds the files of an earlier one too, so it waits for that work.
    at_work: Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    files: Vec<(File, PathBuf)>,
    failed: Option<String>,
}

impl Unsynced {
    /// A file that is complete, or will be written on behind what counts.
    pub fn add(&self, file: File, path: PathBuf) -> Result<()> {
        let mut waiting = lock(&self.0.waiting);
        waiting.files.push((file, path));
        let is_full = waiting.files.len() > WAITING_MAX;
        drop(waiting);
        if is_full { self.sync() } else { Ok(()) }
    }

    /// An error if a file could not be brought to the disk.
    pub fn check(&self) -> Result<()> {
        lock(&self.0.waiting).check()
    }

    /// Brings all that waits to the disk.
    pub fn sync(&self) -> Result<()> {
        let _at_work = lock(&self.0.at_work);
        let files = std::mem::take(&mut lock(&self.0.waiting).files);
        let synced = sync_all(&files);
        let mut waiting = lock(&self.0.waiting);
        if let Err(error) = &synced {
            waiting.failed.get_or_insert_with(|| error.to_string());
        }
        synced.and_then(|()| waiting.check())
    }

    /// The same as work for another thread.
    pub fn work(&self) -> Background {
        let unsynced = self.clone();
        Box::new(move || unsynced.sync())
    }
}

impl Waiting {
    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => {
                Err(Error::new(ErrorKind::Io, format!("a file could not be brought to the disk: {reason}")))
            }
        }
    }
}

fn sync_all(files: &[(File, PathBuf)]) -> Result<()> {
    for (file, path) in files {
        flott_faults::write("sink.sync").map_err(|error| failed(path, error))?;
        file.sync_all().map_err(|error| failed(path, error))?;
    }
    // Its name is as much part of a file as its bytes.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|(_, path)| path.parent()).collect();
    folders.into_iter().try_for_each(sync_folder)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole at every moment, also where a holder of the lock panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_to_every_later_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let (unsynced, path) = (Unsynced::default(), folder.path().join("gone/part"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        unsynced.add(File::create(&path).unwrap(), path.clone()).unwrap();
        unsynced.work()().unwrap();
        assert!(unsynced.check().is_ok());

        unsynced.add(File::open(&path).unwrap(), path.clone()).unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let error = unsynced.work()().unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("gone"), "{error}");
        assert!(unsynced.sync().is_err() && unsynced.check().is_err(), "it may be lost for good");
    }

    #[test]
    fn no_more_files_are_open_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let unsynced = Unsynced::default();
        for number in 0..=WAITING_MAX {
            assert_eq!(lock(&unsynced.0.waiting).files.len(), number);
            let path = folder.path().join(number.to_string());
            unsynced.add(File::create(&path).unwrap(), path).unwrap();
        }
        assert!(lock(&unsynced.0.waiting).files.is_empty());
    }
}

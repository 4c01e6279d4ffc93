//! Files of a snapshot that a task works with before they have been read to the end.
//!
//! A link to a file takes no time, reading a gigabyte does. So a task starts at once, and its files are compared with their checksums meanwhile. Nothing is
//! built on them before that: no snapshot is handed in while files are unchecked, and damage fails the task. What the task reads earlier is covered by the
//! checksums of RocksDB's blocks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use flott_schema::snapshot::{RestoreFrom, SnapshotFile};
use flott_schema::{Error, ErrorKind, Result};

use crate::files;
use crate::place::discard;
use crate::pool::{lock, wait_until};

/// How long a snapshot waits for the check.
const DEADLINE: Duration = Duration::from_secs(3_600);

/// A file that has not been compared with its checksum.
#[derive(Clone, Debug)]
pub(crate) struct Unchecked {
    pub(crate) file: SnapshotFile,
    /// The link to it.
    pub(crate) local: PathBuf,
    /// Where it was found, if not where the snapshot is.
    pub(crate) backup: Option<PathBuf>,
}

impl Unchecked {
    /// Reads it. A backup that is damaged is deleted, so that it is not found again.
    pub(crate) fn check(&self, from: &RestoreFrom) -> Result<()> {
        files::verify(&self.file, &self.local).map_err(|error| self.refused(from, error))
    }

    /// What it means that it cannot be read.
    fn refused(&self, from: &RestoreFrom, error: Error) -> Error {
        let is_damage = error.kind() == ErrorKind::BadInput;
        match &self.backup {
            Some(backup) => {
                discard(backup);
                // The snapshot itself may be whole: the task can be tried again.
                error.with_kind(ErrorKind::Io).at(format!("{from}, the copy in {}", backup.display()))
            }
            None if is_damage => error.with_kind(ErrorKind::Snapshot).at(from.to_string()),
            None => error.at(from.to_string()),
        }
    }
}

/// The check of some files, on another thread.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// What is to be checked.
    files: OnceLock<(RestoreFrom, Vec<Unchecked>)>,
    /// What it came to.
    result: Mutex<Option<std::result::Result<(), (ErrorKind, String)>>>,
    changed: Condvar,
    is_closed: AtomicBool,
}

impl Checks {
    /// Nothing is to be checked.
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Checks { result: Mutex::new(Some(Ok(()))), ..Checks::default() })
    }

    /// Says what is to be checked; to be called once, before anything is read.
    pub(crate) fn begin(&self, from: RestoreFrom, files: Vec<Unchecked>) {
        self.files.get_or_init(|| (from, files));
    }

    /// Checks the files, until the first that is damaged; to be called once.
    pub(crate) fn run(&self) -> Result<()> {
        let Some((from, files)) = self.files.get() else { return Ok(()) };
        let one = |file: &Unchecked| match self.is_closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Cancelled, "the task is gone")),
            false => file.check(from),
        };
        let result = files.iter().try_for_each(one);
        let told = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err((error.kind(), error.to_string())),
        };
        *lock(&self.result) = Some(told);
        self.changed.notify_all();
        result
    }

    /// The task is gone: what has not been read need not be.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Waits for the end; an error names the damaged file.
    pub(crate) fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut result = lock(&self.result);
        loop {
            match &*result {
                Some(Ok(())) => return Ok(()),
                Some(Err((kind, text))) => return Err(Error::new(*kind, text.clone())),
                None => {}
            }
            let (guard, is_early) = wait_until(&self.changed, result, deadline);
            result = guard;
            if !is_early {
                let text = format!("the files that the task started from are not read after {DEADLINE:?}");
                return Err(Error::new(ErrorKind::Io, text));
            }
        }
    }

    /// What could not be read, in the words of the damaged file if it is one of these. Does not wait for the check: whoever reads is the
    /// slot's thread, and RocksDB names the file whose checksum is wrong.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::BadInput {
            return error;
        }
        match &*lock(&self.result) {
            Some(Ok(())) => return error,
            Some(Err((kind, text))) => return Error::new(*kind, text.clone()),
            None => {}
        }
        let Some((from, files)) = self.files.get() else { return error };
        let text = error.to_string();
        let is_named = |file: &&Unchecked| text.contains(&format!("/{} ", file.file.name));
        match files.iter().find(is_named) {
            Some(file) => file.refused(from, error.at(file.file.path.clone())),
            None => error,
        }
    }
}

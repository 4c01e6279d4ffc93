//! A program on its way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use flott_schema::job::ProgramDigest;
use sha2::{Digest, Sha256};

use super::error::ProgramError;
use super::files::{Programs, StoredProgram};

/// A file that is being written, and hashed meanwhile. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size_bytes: u64,
    max_bytes: u64,
    is_kept: bool,
}

impl Upload {
    pub(super) fn begin(path: PathBuf, max_bytes: u64) -> Result<Self, ProgramError> {
        match File::create(&path) {
            Ok(file) => {
                Ok(Upload { path, file, hash: Sha256::new(), size_bytes: 0, max_bytes, is_kept: false })
            }
            Err(reason) => Err(ProgramError::Disk { path, reason }),
        }
    }

    /// Bytes that have come.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next bytes. They go to the system's cache; the disk is waited for at the end.
    pub fn write(&mut self, part: &[u8]) -> Result<(), ProgramError> {
        self.size_bytes += part.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(ProgramError::TooLarge { max_bytes: self.max_bytes });
        }
        self.hash.update(part);
        self.file.write_all(part).map_err(|reason| self.disk(reason))
    }

    /// [`Upload::write`] on a thread that may wait: the system makes who writes much wait for the disk.
    pub(super) async fn write_aside(mut self, part: Vec<u8>) -> Result<Self, ProgramError> {
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || self.write(&part).map(|()| self));
        match writing.await {
            Ok(written) => written,
            Err(error) => Err(ProgramError::Disk { path, reason: io::Error::other(error) }),
        }
    }

    /// Stores what has come, on the disk when the call returns. `expected` is what the sender says it is. Blocks for as
    /// long as the disk takes: not for a thread that others wait for, see [`Upload::finish`].
    pub fn finish_as(
        mut self,
        programs: &Programs,
        expected: Option<ProgramDigest>,
    ) -> Result<StoredProgram, ProgramError> {
        let digest = ProgramDigest(self.hash.finalize_reset().into());
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(ProgramError::WrongDigest { expected, found: digest });
        }
        self.file.sync_all().map_err(|reason| self.disk(reason))?;
        let target = programs.path(digest);
        // One that is there already is the same.
        fs::rename(&self.path, &target).map_err(|reason| self.disk(reason))?;
        self.is_kept = true;
        let directory = programs.directory();
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|reason| ProgramError::Disk { path: directory.into(), reason })?;
        Ok(StoredProgram { digest, size_bytes: self.size_bytes })
    }

    /// [`Upload::finish_as`] on a thread that may wait.
    pub async fn finish(
        self,
        programs: &Programs,
        expected: Option<ProgramDigest>,
    ) -> Result<StoredProgram, ProgramError> {
        let programs = programs.clone();
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || self.finish_as(&programs, expected)).await {
            Ok(stored) => stored,
            Err(error) => Err(ProgramError::Disk { path, reason: io::Error::other(error) }),
        }
    }

    fn disk(&self, reason: io::Error) -> ProgramError {
        ProgramError::Disk { path: self.path.clone(), reason }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is when the store is opened again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

//! A folder, wherever it is.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;

use flott_schema::error::ErrorKind;
use flott_schema::snapshot::SnapshotFile;
use flott_schema::{Error, Result};

use crate::local;
use crate::location::{self, Location};
use crate::sum::Sum;

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name in the folder.
    pub name: String,
    /// Bytes of a file; 0 of a folder.
    pub size: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// A folder at a path or URI. Names are paths below it, divided by `/`. Cheap to clone; calls block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    uri: String,
    location: Location,
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Storage {
    /// The folder at a path or URI, whether it is there or not: `/data/a`, `file:///data/a`. A relative path counts from the
    /// process's folder.
    pub fn open(uri: &str) -> Result<Self> {
        let location = location::parse(uri)?;
        Ok(Storage { uri: uri_of(&location), location })
    }

    /// Its URI (`file:///data/a`), the same for all ways of writing it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its path, where it is in the file system.
    pub fn local_path(&self) -> Option<&Path> {
        let Location::Local(path) = &self.location;
        Some(path)
    }

    /// A folder by its path from this one; `..` leads upwards.
    pub fn folder(&self, path: &str) -> Result<Storage> {
        let location = Location::Local(self.place(path)?);
        Ok(Storage { uri: uri_of(&location), location })
    }

    /// The same folder without links on the way to it; an error if it is not there.
    pub fn resolved(&self) -> Result<Storage> {
        let path = local::resolved(self.root())?
            .ok_or_else(|| Error::bad_input(format!("there is no folder '{self}'")))?;
        let location = Location::Local(path);
        Ok(Storage { uri: uri_of(&location), location })
    }

    /// Whether a name means a file of this folder: not what a link leads to, and nothing beyond one. What is not there is no other's. To be
    /// asked of a [`resolved`](Self::resolved) folder.
    pub fn is_own(&self, name: &str) -> Result<bool> {
        let path = self.below(name)?;
        Ok(local::resolved(&path)?.is_none_or(|resolved| resolved == path))
    }

    /// Makes the folder and those above it, unless they are there.
    pub fn create(&self) -> Result<()> {
        local::create(self.root())
    }

    /// Writes a file, whole and brought to the disk before this returns; one of that name is replaced. The folder has to be there;
    /// folders that the name goes through are made.
    pub fn put_atomic(&self, name: &str, bytes: &[u8]) -> Result<SnapshotFile> {
        local::write(self.root(), &self.below(name)?, bytes)?;
        Ok(snapshot_file(name, Sum::of(bytes)))
    }

    /// The same with the content of a local file, which must not be changed afterwards: it may become the very file, by a link.
    pub fn put_file(&self, name: &str, source: &Path) -> Result<SnapshotFile> {
        let sum = local::link(self.root(), source, &self.below(name)?)?;
        Ok(snapshot_file(name, sum))
    }

    /// A whole file, unchecked; for files with a checksum of their own.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        local::read(&self.place(name)?)
    }

    /// A whole file of a snapshot in this folder, checked. The error names one that is missing or not what was written.
    pub fn read(&self, file: &SnapshotFile) -> Result<Vec<u8>> {
        let path = self.place(&file.path)?;
        let bytes = local::read(&path).map_err(|error| self.damaged(error))?;
        self.check(&path, file, Sum::of(&bytes))?;
        Ok(bytes)
    }

    /// `length` bytes of a file of a snapshot, unchecked but for its length; for files whose parts have checksums of their own.
    pub fn read_at(&self, file: &SnapshotFile, offset: u64, length: usize) -> Result<Vec<u8>> {
        let path = self.place(&file.path)?;
        local::read_at(&path, offset, length).map_err(|error| self.damaged(error))
    }

    /// Checks a file of a snapshot without keeping it.
    pub fn verify(&self, file: &SnapshotFile) -> Result<()> {
        let path = self.place(&file.path)?;
        let read = local::open(&path).and_then(|file| local::sum(&file));
        let sum = read.map_err(|error| self.damaged(local::failed(&path, error)))?;
        self.check(&path, file, sum)
    }

    /// Copies a file of a snapshot to a local path, checked: what is wrong is not seen there. The folder of `target` has to be there.
    /// Ends with an error soon after `cancelled` is set.
    pub fn get_file(&self, file: &SnapshotFile, target: &Path, cancelled: &AtomicBool) -> Result<()> {
        let path = self.place(&file.path)?;
        let folder = target.parent().unwrap_or(target);
        local::copy_checked(folder, &path, target, cancelled, |sum| self.check(&path, file, sum))
            .map_err(|error| self.damaged(error))
    }

    /// Makes `target` a file of a snapshot that is never changed and whose parts have checksums of their own. Where it can be the very file,
    /// by a link, it is not read: only its length is checked, the answer is `false`, and it is the caller's to [`verify`](Self::verify) it
    /// soon. Else it is copied, checked, and the answer is `true`. The folder of `target` has to be there.
    /// A copy ends with an error soon after `cancelled` is set.
    pub fn link_file(&self, file: &SnapshotFile, target: &Path, cancelled: &AtomicBool) -> Result<bool> {
        let path = self.place(&file.path)?;
        match local::link_unread(&path, target).map_err(|error| self.damaged(error))? {
            Some(size) => {
                let known = self.check(&path, file, Sum { size, crc32c: file.crc32c });
                if known.is_err() {
                    // What is damaged is not seen.
                    let _ = local::delete(target);
                }
                known.map(|()| false)
            }
            None => self.get_file(file, target, cancelled).map(|()| true),
        }
    }

    /// What stands in the folder, in the order of the names; an error if it is not there.
    pub fn list(&self) -> Result<Vec<Entry>> {
        local::list(self.root())
    }

    /// Whether there is a file or folder of that name.
    pub fn exists(&self, name: &str) -> Result<bool> {
        let path = self.place(name)?;
        path.try_exists().map_err(|error| local::failed(&path, error))
    }

    /// Deletes a file; says whether there was one.
    pub fn delete(&self, name: &str) -> Result<bool> {
        flott_faults::point("storage.delete");
        local::delete(&self.below(name)?)
    }

    /// Deletes files, each of which may be gone already. Gives those that may still be there, with the first reason.
    pub fn delete_all<'a>(&self, names: &[&'a str]) -> Option<(Vec<&'a str>, Error)> {
        let mut kept: Option<(Vec<&str>, Error)> = None;
        for name in names {
            if let Err(error) = self.delete(name) {
                kept.get_or_insert_with(|| (Vec::new(), error)).0.push(name);
            }
        }
        kept
    }

    /// Deletes the folder and all there is in it; says whether there was one.
    pub fn delete_tree(&self) -> Result<bool> {
        if self.root().parent().is_none() {
            return Err(Error::bad_input(format!("'{self}' is the whole file system; it is not deleted")));
        }
        local::delete_tree(self.root())
    }

    /// Deletes the folder if nothing is in it; says whether it is gone.
    pub fn delete_if_empty(&self) -> Result<bool> {
        match self.list() {
            Ok(entries) if entries.is_empty() => self.delete_tree(),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn root(&self) -> &Path {
        let Location::Local(path) = &self.location;
        path
    }

    /// The path that a name means, which may lead upwards: files that snapshots share stand beside their folders.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let relative = Path::new(name);
        if relative.is_absolute() {
            return Err(Error::bad_input(format!("'{name}' is no path from the folder '{self}'")));
        }
        Ok(location::plain(&self.root().join(relative)))
    }

    /// The path of a file below the folder.
    fn below(&self, name: &str) -> Result<PathBuf> {
        let is_plain = |component| matches!(component, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(is_plain) {
            return Err(Error::bad_input(format!("'{name}' is no name of a file below the folder '{self}'")));
        }
        Ok(self.root().join(name))
    }

    fn check(&self, path: &Path, file: &SnapshotFile, sum: Sum) -> Result<()> {
        let reason = if sum.size != file.size {
            format!("it has {} bytes where {} were written", sum.size, file.size)
        } else if sum.crc32c != file.crc32c {
            "its checksum is not that of what was written".to_string()
        } else {
            return Ok(());
        };
        let text = format!("file {} of the snapshot is damaged: {reason}", path.display());
        Err(Error::new(ErrorKind::BadInput, text))
    }

    /// A file that is missing is no failure that a retry can help.
    fn damaged(&self, error: Error) -> Error {
        let cause = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        match cause.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof) => {
                let text = format!("a file of the snapshot is missing or cut short: {error}");
                Error::new(ErrorKind::BadInput, text)
            }
            _ => error,
        }
    }
}

fn uri_of(location: &Location) -> String {
    let Location::Local(path) = location;
    format!("file://{}", path.display())
}

fn snapshot_file(name: &str, sum: Sum) -> SnapshotFile {
    SnapshotFile { name: name.into(), path: name.into(), size: sum.size, crc32c: sum.crc32c }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;

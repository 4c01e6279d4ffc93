//! A folder, wherever it is.

use std::fmt;
use std::path::{Component, Path};
use std::sync::atomic::AtomicBool;

use flott_schema::error::ErrorKind;
use flott_schema::snapshot::SnapshotFile;
use flott_schema::{Error, Result};

use crate::local;
use crate::location::{self, Location};
use crate::s3::Bucket;
use crate::sum::Sum;

/// An invariant of places below a folder.
const BELOW: &str = "what is below a bucket is in the bucket";

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
    /// The folder at a path or URI, whether it is there or not: `/data/a`, `file:///data/a`, `s3://bucket/a`. A relative path counts
    /// from the process's folder.
    pub fn open(uri: &str) -> Result<Self> {
        Ok(Self::at(location::parse(uri)?))
    }

    fn at(location: Location) -> Self {
        Storage { uri: uri_of(&location), location }
    }

    /// Its URI (`file:///data/a`), the same for all ways of writing it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its path, where it is in the file system.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.location {
            Location::Local(path) => Some(path),
            Location::Bucket(_) => None,
        }
    }

    /// A folder by its path from this one; `..` leads upwards.
    pub fn folder(&self, path: &str) -> Result<Storage> {
        self.place(path).map(Self::at)
    }

    /// The same folder without links on the way to it; an error if it is not there. In a bucket there are no links.
    pub fn resolved(&self) -> Result<Storage> {
        match &self.location {
            Location::Local(root) => {
                let path = local::resolved(root)?;
                let path = path.ok_or_else(|| Error::bad_input(format!("there is no folder '{self}'")))?;
                Ok(Self::at(Location::Local(path)))
            }
            Location::Bucket(_) => Ok(self.clone()),
        }
    }

    /// Whether a name means a file of this folder: not what a link leads to, and nothing beyond one. What is not there is no other's. To be
    /// asked of a [`resolved`](Self::resolved) folder.
    pub fn is_own(&self, name: &str) -> Result<bool> {
        match self.below(name)? {
            Location::Local(path) => Ok(local::resolved(&path)?.is_none_or(|resolved| resolved == path)),
            Location::Bucket(_) => Ok(true),
        }
    }

    /// Makes the folder and those above it, unless they are there. In a bucket there is nothing to make.
    pub fn create(&self) -> Result<()> {
        match &self.location {
            Location::Local(root) => local::create(root),
            Location::Bucket(_) => Ok(()),
        }
    }

    /// Writes a file, whole and brought to the disk before this returns; one of that name is replaced. The folder has to be there;
    /// folders that the name goes through are made.
    pub fn put_atomic(&self, name: &str, bytes: &[u8]) -> Result<SnapshotFile> {
        match (&self.location, self.below(name)?) {
            (Location::Local(root), Location::Local(path)) => local::write(root, &path, bytes)?,
            (_, Location::Bucket(object)) => object.put(bytes)?,
            (Location::Bucket(_), Location::Local(_)) => unreachable!("{BELOW}"),
        }
        Ok(snapshot_file(name, Sum::of(bytes)))
    }

    /// The same with the content of a local file, which must not be changed afterwards: it may become the very file, by a link.
    pub fn put_file(&self, name: &str, source: &Path) -> Result<SnapshotFile> {
        let sum = match (&self.location, self.below(name)?) {
            (Location::Local(root), Location::Local(path)) => local::link(root, source, &path)?,
            (_, Location::Bucket(object)) => object.put_file(source)?,
            (Location::Bucket(_), Location::Local(_)) => unreachable!("{BELOW}"),
        };
        Ok(snapshot_file(name, sum))
    }

    /// A whole file, unchecked; for files with a checksum of their own.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        match self.place(name)? {
            Location::Local(path) => local::read(&path),
            Location::Bucket(object) => bytes_of(&object, None),
        }
    }

    /// A whole file of a snapshot in this folder, checked. The error names one that is missing or not what was written.
    pub fn read(&self, file: &SnapshotFile) -> Result<Vec<u8>> {
        let place = self.place(&file.path)?;
        let bytes = match &place {
            Location::Local(path) => local::read(path),
            Location::Bucket(object) => bytes_of(object, Some(file.size)),
        };
        let bytes = bytes.map_err(|error| self.damaged(error))?;
        self.check(&place, file, Sum::of(&bytes))?;
        Ok(bytes)
    }

    /// `length` bytes of a file of a snapshot, unchecked but for its length; for files whose parts have checksums of their own.
    pub fn read_at(&self, file: &SnapshotFile, offset: u64, length: usize) -> Result<Vec<u8>> {
        let piece = match self.place(&file.path)? {
            Location::Local(path) => local::read_at(&path, offset, length),
            Location::Bucket(object) => object.get_piece(offset, length),
        };
        piece.map_err(|error| self.damaged(error))
    }

    /// Checks a file of a snapshot without keeping it.
    pub fn verify(&self, file: &SnapshotFile) -> Result<()> {
        let place = self.place(&file.path)?;
        let sum = match &place {
            Location::Local(path) => {
                let read = local::open(path).and_then(|file| local::sum(&file));
                read.map_err(|error| local::failed(path, error))
            }
            Location::Bucket(object) => {
                let mut sum = Sum::default();
                let mut add = |bytes: &[u8]| {
                    sum.add(bytes);
                    Ok(())
                };
                object.get(Some(file.size), &mut add).map(|()| sum)
            }
        };
        self.check(&place, file, sum.map_err(|error| self.damaged(error))?)
    }

    /// Copies a file of a snapshot to a local path, checked: what is wrong is not seen there. The folder of `target` has to be there.
    /// Ends with an error soon after `cancelled` is set.
    pub fn get_file(&self, file: &SnapshotFile, target: &Path, cancelled: &AtomicBool) -> Result<()> {
        let place = self.place(&file.path)?;
        let folder = target.parent().unwrap_or(target);
        let check = |sum| self.check(&place, file, sum);
        let got = match &place {
            Location::Local(path) => local::copy_checked(folder, path, target, cancelled, check),
            Location::Bucket(object) => {
                local::receive(folder, target, cancelled, |take| object.get(Some(file.size), take), check)
            }
        };
        got.map_err(|error| self.damaged(error))
    }

    /// Makes `target` a file of a snapshot that is never changed and whose parts have checksums of their own. Where it can be the very file,
    /// by a link, it is not read: only its length is checked, the answer is `false`, and it is the caller's to [`verify`](Self::verify) it
    /// soon. Else it is copied, checked, and the answer is `true`. The folder of `target` has to be there.
    /// A copy ends with an error soon after `cancelled` is set.
    pub fn link_file(&self, file: &SnapshotFile, target: &Path, cancelled: &AtomicBool) -> Result<bool> {
        let place = self.place(&file.path)?;
        let linked = match &place {
            Location::Local(path) => local::link_unread(path, target).map_err(|error| self.damaged(error))?,
            Location::Bucket(_) => None,
        };
        match linked {
            Some(size) => {
                let known = self.check(&place, file, Sum { size, crc32c: file.crc32c });
                if known.is_err() {
                    // What is damaged is not seen.
                    let _ = local::delete(target);
                }
                known.map(|()| false)
            }
            None => self.get_file(file, target, cancelled).map(|()| true),
        }
    }

    /// What stands in the folder, in the order of the names. In the file system it is an error if the folder is not there; a bucket has
    /// no empty folders, so there it is one in which nothing stands.
    pub fn list(&self) -> Result<Vec<Entry>> {
        match &self.location {
            Location::Local(root) => local::list(root),
            Location::Bucket(folder) => folder.list(),
        }
    }

    /// Whether there is a file of that name; in the file system also, whether there is such a folder.
    pub fn exists(&self, name: &str) -> Result<bool> {
        match self.place(name)? {
            Location::Local(path) => path.try_exists().map_err(|error| local::failed(&path, error)),
            Location::Bucket(object) => object.exists(),
        }
    }

    /// Deletes a file; says whether there was one.
    pub fn delete(&self, name: &str) -> Result<bool> {
        flott_faults::point("storage.delete");
        match self.below(name)? {
            Location::Local(path) => local::delete(&path),
            Location::Bucket(object) => object.delete(),
        }
    }

    /// Deletes files, each of which may be gone already. Gives those that may still be there, with the first reason.
    pub fn delete_all<'a>(&self, names: &[&'a str]) -> Option<(Vec<&'a str>, Error)> {
        let mut kept: Option<(Vec<&str>, Error)> = None;
        let mut keep = |names: &[&'a str], error| {
            kept.get_or_insert_with(|| (Vec::new(), error)).0.extend(names);
        };
        let mut objects = Vec::new();
        for name in names {
            match self.below(name) {
                Ok(Location::Bucket(_)) => objects.push(*name),
                Ok(Location::Local(path)) => {
                    flott_faults::point("storage.delete");
                    if let Err(error) = local::delete(&path) {
                        keep(&[*name], error);
                    }
                }
                Err(error) => keep(&[*name], error),
            }
        }
        if let Location::Bucket(folder) = &self.location
            && let Some((names, error)) = folder.delete_all(&objects)
        {
            keep(&names, error);
        }
        kept
    }

    /// Deletes the folder and all there is in it; says whether there was one.
    pub fn delete_tree(&self) -> Result<bool> {
        let whole = |what: &str| Error::bad_input(format!("'{self}' is the whole {what}; it is not deleted"));
        match &self.location {
            Location::Local(root) if root.parent().is_none() => Err(whole("file system")),
            Location::Local(root) => local::delete_tree(root),
            Location::Bucket(folder) if folder.is_root() => Err(whole("bucket")),
            Location::Bucket(folder) => folder.delete_tree(),
        }
    }

    /// Deletes the folder if nothing is in it; says whether it is gone.
    pub fn delete_if_empty(&self) -> Result<bool> {
        match self.list() {
            Ok(entries) if entries.is_empty() => match self.location {
                Location::Local(_) => self.delete_tree(),
                Location::Bucket(_) => Ok(true),
            },
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The place that a name means, which may lead upwards: files that snapshots share stand beside their folders.
    fn place(&self, name: &str) -> Result<Location> {
        let wrong = || Error::bad_input(format!("'{name}' is no path from the folder '{self}'"));
        let relative = Path::new(name);
        if relative.is_absolute() {
            return Err(wrong());
        }
        match &self.location {
            Location::Local(root) => Ok(Location::Local(location::plain(&root.join(relative)))),
            Location::Bucket(folder) => folder.folder(name).map(Location::Bucket).ok_or_else(wrong),
        }
    }

    /// The place of a file below the folder.
    fn below(&self, name: &str) -> Result<Location> {
        let is_plain = |component| matches!(component, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(is_plain) {
            return Err(Error::bad_input(format!("'{name}' is no name of a file below the folder '{self}'")));
        }
        self.place(name)
    }

    fn check(&self, place: &Location, file: &SnapshotFile, sum: Sum) -> Result<()> {
        let reason = if sum.size != file.size {
            format!("it has {} bytes where {} were written", sum.size, file.size)
        } else if sum.crc32c != file.crc32c {
            "its checksum is not that of what was written".to_string()
        } else {
            return Ok(());
        };
        let place = match place {
            Location::Local(path) => path.display().to_string(),
            Location::Bucket(object) => object.uri(),
        };
        let text = format!("file {place} of the snapshot is damaged: {reason}");
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
    match location {
        Location::Local(path) => format!("file://{}", path.display()),
        Location::Bucket(bucket) => bucket.uri(),
    }
}

/// A whole object; `size` is what it should have, if that is known.
fn bytes_of(object: &Bucket, size: Option<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    object.get(size, &mut take)?;
    Ok(bytes)
}

fn snapshot_file(name: &str, sum: Sum) -> SnapshotFile {
    SnapshotFile { name: name.into(), path: name.into(), size: sum.size, crc32c: sum.crc32c }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;

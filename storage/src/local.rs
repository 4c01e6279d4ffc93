//! Files and folders of the file system. A file is written under another name, brought to the disk and renamed, so that it is never
//! seen in part; folders are brought to the disk too.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flott_schema::{Error, Result};

use crate::storage::Entry;
use crate::sum::{CopyError, Sum, copy};

/// With it begin the names of files that are not whole yet; they are not listed.
const UNFINISHED: &str = ".unfinished-";

/// The error of a failure at `path`.
pub(crate) fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(path.display(), error)
}

/// Makes the folder and those above it, and brings them to the disk.
pub(crate) fn create(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create(above)?;
    }
    create_one(folder)
}

/// Makes one folder in one that is there.
fn create_one(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(failed(folder, error)),
    }
}

/// Makes the folders from `root` to the file; `root` itself has to be there: what was in it would be missing in a new one.
fn create_between(root: &Path, file: &Path) -> Result<()> {
    let Some(folder) = file.parent().filter(|folder| *folder != root && !folder.is_dir()) else {
        return Ok(());
    };
    create_between(root, folder)?;
    create_one(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
}

/// A file that is being written. It goes when this is dropped, unless it was finished.
struct Unfinished<'a> {
    path: PathBuf,
    target: &'a Path,
}

impl<'a> Unfinished<'a> {
    /// A name beside `target` that nobody has.
    fn beside(target: &'a Path) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{}-{number}", std::process::id());
        Unfinished { path: target.with_file_name(name), target }
    }

    /// Brings it to the disk under its own name.
    fn finish(self, file: &File) -> Result<()> {
        file.sync_all().map_err(|error| failed(self.target, error))?;
        flott_faults::write("storage.rename").map_err(|error| failed(self.target, error))?;
        fs::rename(&self.path, self.target).map_err(|error| failed(self.target, error))?;
        flott_faults::point("storage.renamed");
        self.target.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // After a rename there is nothing under this name, except if both were links to one file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a file, in place of one that is there.
pub(crate) fn write(root: &Path, target: &Path, bytes: &[u8]) -> Result<()> {
    create_between(root, target)?;
    let unfinished = Unfinished::beside(target);
    let file = create_with(&unfinished.path, bytes).map_err(|error| failed(target, error))?;
    unfinished.finish(&file)
}

fn create_with(path: &Path, bytes: &[u8]) -> io::Result<File> {
    flott_faults::write("storage.create")?;
    let mut file = File::create_new(path)?;
    let (first, rest) = flott_faults::halves(bytes);
    file.write_all(first)?;
    flott_faults::write("storage.half")?;
    file.write_all(rest)?;
    Ok(file)
}

/// Makes `target` the same file as `source`, by a link if the file system has one, else by a copy.
pub(crate) fn link(root: &Path, source: &Path, target: &Path) -> Result<Sum> {
    create_between(root, target)?;
    flott_faults::write("storage.link").map_err(|error| failed(target, error))?;
    let unfinished = Unfinished::beside(target);
    if fs::hard_link(source, &unfinished.path).is_err() {
        // Another file system, most likely, or one without links.
        return copy_file(source, target, unfinished, &AtomicBool::new(false), |_| Ok(()));
    }
    let file = File::open(&unfinished.path).map_err(|error| failed(source, error))?;
    let sum = sum(&file).map_err(|error| failed(source, error))?;
    unfinished.finish(&file)?;
    Ok(sum)
}

/// Makes `target` the same file as `source`, unread, and gives its length; none if there is no link between the two. It need not outlive
/// the machine: nothing is brought to the disk.
pub(crate) fn link_unread(source: &Path, target: &Path) -> Result<Option<u64>> {
    match fs::hard_link(source, target) {
        Ok(()) => {
            let metadata = fs::metadata(target).map_err(|error| failed(source, error))?;
            Ok(Some(metadata.len()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(failed(source, error)),
        Err(_) => Ok(None),
    }
}

/// Makes a file of what `fill` writes, which is to pass `check` before the file can be seen. Ends with an error soon after `cancelled` is set.
pub(crate) fn receive(
    root: &Path,
    target: &Path,
    cancelled: &AtomicBool,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    check: impl FnOnce(Sum) -> Result<()>,
) -> Result<()> {
    create_between(root, target)?;
    let unfinished = Unfinished::beside(target);
    let mut file = File::create_new(&unfinished.path).map_err(|error| failed(target, error))?;
    let mut sum = Sum::default();
    fill(&mut |bytes| {
        if cancelled.load(Ordering::Acquire) {
            return Err(failed(target, unwanted()));
        }
        sum.add(bytes);
        file.write_all(bytes).map_err(|error| failed(target, error))
    })?;
    check(sum)?;
    unfinished.finish(&file)
}

/// Copies a file that is to pass `check`, which is told what was copied before the copy can be seen.
pub(crate) fn copy_checked(
    root: &Path,
    source: &Path,
    target: &Path,
    cancelled: &AtomicBool,
    check: impl FnOnce(Sum) -> Result<()>,
) -> Result<()> {
    create_between(root, target)?;
    copy_file(source, target, Unfinished::beside(target), cancelled, check).map(drop)
}

/// A file that is read until nobody waits for it any more.
struct Watched<'a> {
    file: &'a File,
    cancelled: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(unwanted());
        }
        self.file.read(piece)
    }
}

fn unwanted() -> io::Error {
    io::Error::other("nobody waits for it any more")
}

fn copy_file(
    source: &Path,
    target: &Path,
    unfinished: Unfinished<'_>,
    cancelled: &AtomicBool,
    check: impl FnOnce(Sum) -> Result<()>,
) -> Result<Sum> {
    let from = open(source).map_err(|error| failed(source, error))?;
    let to = File::create_new(&unfinished.path).map_err(|error| failed(target, error))?;
    let sum = copy(Watched { file: &from, cancelled }, &to).map_err(|error| match error {
        CopyError::Source(error) => failed(source, error),
        CopyError::Target(error) => failed(target, error),
    })?;
    check(sum)?;
    unfinished.finish(&to)?;
    Ok(sum)
}

/// Bytes and checksum of a file.
pub(crate) fn sum(file: &File) -> io::Result<Sum> {
    copy(file, io::sink()).map_err(|error| match error {
        CopyError::Source(error) | CopyError::Target(error) => error,
    })
}

/// Opens a file to read it. What is no regular file is refused: to open a pipe would wait for somebody to write, and a device may have no end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match fs::metadata(path)? {
        metadata if metadata.is_file() => File::open(path),
        metadata if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file, and is not read")),
    }
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| failed(path, error))?;
    Ok(bytes)
}

/// The path without links in it; `None` if nothing is there.
pub(crate) fn resolved(path: &Path) -> Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// A piece of a file; one that ends before is an error.
pub(crate) fn read_at(path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = open(path).and_then(|file| file.read_exact_at(&mut bytes, offset));
    read.map_err(|error| failed(path, error))?;
    Ok(bytes)
}

/// What stands in a folder, in the order of the names.
pub(crate) fn list(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(UNFINISHED) {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => {
                let is_folder = metadata.is_dir();
                entries.push(Entry { name, size: if is_folder { 0 } else { metadata.len() }, is_folder });
            }
            // It went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&entry.path(), error)),
        }
    }
    entries.sort();
    Ok(entries)
}

/// Whether it was there is not an error.
pub(crate) fn delete(file: &Path) -> Result<bool> {
    gone(file, fs::remove_file(file))
}

/// Whether it was there is not an error.
pub(crate) fn delete_tree(folder: &Path) -> Result<bool> {
    gone(folder, fs::remove_dir_all(folder))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, error)),
    }
}

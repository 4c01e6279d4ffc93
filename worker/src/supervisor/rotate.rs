//! Log files that stay small: when one is full it becomes `NAME.1`, the former `NAME.1` becomes `NAME.2`, and
//! so on; the oldest goes.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How large a log file grows, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes after which a file is put aside.
    pub file_bytes_max: u64,
    /// Files that are kept beside the one that is written.
    pub files_kept: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { file_bytes_max: 16 << 20, files_kept: 3 }
    }
}

/// A log file that is put aside when it is full. A line is never split between two files, unless a writer
/// splits it.
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    /// Opens a log file, to go on where it ends.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> Result<Self> {
        let path = path.into();
        let file = open_locked(&path)?;
        let bytes = file.metadata()?.len();
        Ok(RotatingFile { path, rotation, file, bytes })
    }

    fn rotate(&mut self) -> Result<()> {
        let aside = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        // Where a rename fails the file simply grows on; a log must not be lost for that.
        for number in (1..self.rotation.files_kept).rev() {
            let _ = std::fs::rename(aside(number), aside(number + 1));
        }
        match self.rotation.files_kept {
            0 => std::fs::remove_file(&self.path)?,
            _ => std::fs::rename(&self.path, aside(1))?,
        }
        self.file = open_locked(&self.path)?;
        self.bytes = 0;
        Ok(())
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens a file to append to, and says to others that it is written to: until it is closed it holds a shared lock.
fn open_locked(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    // Where files cannot be locked, none is removed for being old.
    let _ = file.try_lock_shared();
    Ok(file)
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > self.rotation.file_bytes_max {
            let _ = self.rotate();
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

/// A writer of one [`RotatingFile`] that threads share: what the log of a process is written to
/// (`fmt().with_writer(move || writer.clone())` in `tracing_subscriber`).
#[derive(Clone)]
pub struct SharedLog(Arc<Mutex<RotatingFile>>);

impl SharedLog {
    /// Shares a file.
    pub fn new(file: RotatingFile) -> Self {
        SharedLog(Arc::new(Mutex::new(file)))
    }
}

impl Write for SharedLog {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        let rotation = Rotation { file_bytes_max: 10, files_kept: 2 };
        let mut log = SharedLog::new(RotatingFile::open(&path, rotation).unwrap());
        for line in ["one 67890", "two 6789", "three 789", "four 6789"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("worker.log"), "four 6789");
        assert_eq!(read("worker.log.1"), "three 789");
        assert_eq!(read("worker.log.2"), "two 6789");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_is_there_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.log");
        std::fs::write(&path, "before ").unwrap();
        let mut log = RotatingFile::open(&path, Rotation::default()).unwrap();
        log.write_all(b"after").unwrap();
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), "before after");
    }
}

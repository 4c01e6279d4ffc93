//! The log folder as others see it: which files there are, and what stands in them. A name never leads out of
//! the folder.

use std::fs::File;
use std::io::Result;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flott_schema::nearest::nearest;
use flott_schema::stats::LogFile;
use flott_schema::{Error, ErrorKind};

/// Most bytes that one call reads.
pub const PART_BYTES_MAX: u32 = 1 << 20;

/// Most files that are listed.
const FILES_MAX: usize = 1000;

/// The log folder of a worker.
#[derive(Clone, Debug)]
pub struct LogFolder(PathBuf);

impl LogFolder {
    /// The log folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LogFolder(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The files, those written last first.
    pub fn list(&self) -> flott_schema::Result<Vec<LogFile>> {
        let mut files = self.files().map_err(|error| Error::io(self.0.display(), error))?;
        files.sort_by(|a, b| b.modified_ms.cmp(&a.modified_ms).then_with(|| a.name.cmp(&b.name)));
        files.truncate(FILES_MAX);
        Ok(files)
    }

    fn files(&self) -> Result<Vec<LogFile>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            // A file may go between the listing and the question.
            let Ok(metadata) = entry.metadata() else { continue };
            let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) else { continue };
            let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let modified_ms = modified.map_or(0, |since| since.as_millis() as u64);
            files.push(LogFile { name, size: metadata.len(), modified_ms });
        }
        Ok(files)
    }

    /// At most `length` bytes of a file from `offset`, and the size of the file.
    pub fn read(&self, name: &str, offset: u64, length: u32) -> flott_schema::Result<(Vec<u8>, u64)> {
        // A name without a separator which is a plain file cannot lead out of the folder.
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !is_name {
            return Err(Error::bad_input(format!("'{name}' is no name of a log file")));
        }
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(self.0.join(name));
        let file = match opened {
            Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => file,
            _ => return Err(self.unknown(name)),
        };
        let read = || -> Result<(Vec<u8>, u64)> {
            let size = file.metadata()?.len();
            let wanted = u64::from(length.min(PART_BYTES_MAX)).min(size.saturating_sub(offset));
            let mut part = vec![0; wanted as usize];
            let mut filled = 0;
            while filled < part.len() {
                match file.read_at(&mut part[filled..], offset + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            part.truncate(filled);
            Ok((part, size))
        };
        read().map_err(|error| Error::io(format!("log file '{name}'"), error))
    }

    fn unknown(&self, name: &str) -> Error {
        let files = self.files().unwrap_or_default();
        let near = nearest(name, files.iter().map(|file| file.name.as_str()));
        let hint = near.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
        Error::new(ErrorKind::BadInput, format!("there is no log file '{name}'{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_and_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogFolder::new(folder.path());
        std::fs::write(folder.path().join("worker.log"), "0123456789").unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let files = logs.list().unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].name.as_str(), files[0].size), ("worker.log", 10));
        assert_eq!(logs.read("worker.log", 3, 4).unwrap(), (b"3456".to_vec(), 10));
        assert_eq!(logs.read("worker.log", 8, 100).unwrap(), (b"89".to_vec(), 10));
        assert_eq!(logs.read("worker.log", 100, 100).unwrap(), (Vec::new(), 10));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.join("link.log")).unwrap();
        std::fs::write(folder.join("worker.log"), "").unwrap();
        let logs = LogFolder::new(&folder);
        let absolute = outside.path().join("secret");
        for name in ["../secret", "..", ".", "", "a/../../secret", "link.log", absolute.to_str().unwrap()] {
            assert!(logs.read(name, 0, 10).is_err(), "{name} was read");
        }
        let error = logs.read("worker.lgo", 0, 10).unwrap_err();
        assert_eq!(error.to_string(), "there is no log file 'worker.lgo'; did you mean 'worker.log'?");
        assert!(logs.list().unwrap().iter().all(|file| file.name != "link.log"));
    }
}

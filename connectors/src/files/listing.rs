//! What files there are under a path.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use flott_schema::{Error, Result};

/// Folders within folders; more than any sane tree has, so a loop of symbolic links ends here.
const DEPTH_MAX: usize = 64;

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// When it was changed last, nanoseconds since the epoch; 0 where the file system does not say.
    pub modified_ns: u128,
}

/// The file at `root`, or all files under the folder `root`, sorted by path. Within a folder, names that begin with `.` or
/// `_` are left out: they are hidden, or not yet complete.
pub fn list_files(root: &Path) -> Result<Vec<FileEntry>> {
    let metadata = fs::metadata(root).map_err(|error| unreadable(root, error))?;
    if metadata.is_file() {
        return Ok(vec![entry(root.to_path_buf(), &metadata)?]);
    }
    if !metadata.is_dir() {
        return Err(Error::configuration(format!("'{}' is neither a file nor a folder", root.display())));
    }
    let mut files = Vec::new();
    list_folder(root, 0, &mut files)?;
    files.sort();
    Ok(files)
}

/// Refuses a path that cannot be read.
pub fn check_readable(root: &Path) -> Result<()> {
    let metadata = fs::metadata(root).map_err(|error| unreadable(root, error))?;
    if metadata.is_dir() {
        fs::read_dir(root).map(drop).map_err(|error| unreadable(root, error))
    } else if metadata.is_file() {
        fs::File::open(root).map(drop).map_err(|error| unreadable(root, error))
    } else {
        Err(Error::configuration(format!("'{}' is neither a file nor a folder", root.display())))
    }
}

/// The error of a path that cannot be read.
pub fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot read '{}'", path.display()), error)
}

fn list_folder(folder: &Path, depth: usize, files: &mut Vec<FileEntry>) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::bad_input(format!(
            "'{}' lies more than {DEPTH_MAX} folders deep; does a symbolic link lead back?",
            folder.display()
        )));
    }
    for child in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let child = child.map_err(|error| unreadable(folder, error))?;
        if child.file_name().as_encoded_bytes().first().is_some_and(|first| matches!(first, b'.' | b'_')) {
            continue;
        }
        let path = child.path();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // Removed since the folder was read; a link that leads nowhere is still there and is an error.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => continue,
            Err(error) => return Err(unreadable(&path, error)),
        };
        if metadata.is_dir() {
            list_folder(&path, depth + 1, files)?;
        } else if metadata.is_file() {
            files.push(entry(path, &metadata)?);
        }
    }
    Ok(())
}

fn entry(path: PathBuf, metadata: &fs::Metadata) -> Result<FileEntry> {
    if path.to_str().is_none() {
        return Err(Error::bad_input(format!("the name of '{}' is not UTF-8; rename it", path.display())));
    }
    let modified = metadata.modified().ok().and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    Ok(FileEntry { path, length: metadata.len(), modified_ns: modified.map_or(0, |since| since.as_nanos()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let files = list_files(root).unwrap();
        files
            .iter()
            .map(|file| file.path.strip_prefix(root).unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn folders_are_read_recursively_in_order_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["b.txt", "a/2.txt", "a/1.txt", ".hidden", "_SUCCESS", "a/.part.inprogress", "_tmp/x", "c/d/e"]
        {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        assert_eq!(names(folder.path()), ["a/1.txt", "a/2.txt", "b.txt", "c/d/e"]);
        let hidden = folder.path().join(".hidden");
        assert_eq!(list_files(&hidden).unwrap()[0].length, 7, "a file that is named is read");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.txt");
        for error in [list_files(&missing).unwrap_err(), check_readable(&missing).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("missing.txt': No such file"), "{text}");
        }
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink(&missing, &dangling).unwrap();
        let error = list_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("dangling"), "{error}");
    }

    #[test]
    fn a_loop_of_links_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        let error = list_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("symbolic link") || error.contains("symbolic links"), "{error}");
    }
}

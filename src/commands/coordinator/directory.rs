//! Where a coordinator keeps its files.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use flott::{Error, Result};

/// A directory, which goes with the process if it is a temporary one.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    is_temporary: bool,
}

impl Directory {
    /// The directory that is named (`coordinator.data-dir`), or a temporary one.
    pub fn open(named: Option<&Path>) -> Result<Self> {
        let (path, is_temporary) = match named {
            Some(path) => {
                (std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?, false)
            }
            None => (std::env::temp_dir().join(format!("flott-coordinator-{}", std::process::id())), true),
        };
        if is_temporary && path.exists() {
            // Of a process that had this number before, and was killed.
            fs::remove_dir_all(&path).map_err(|error| Error::io(path.display(), error))?;
        }
        // The log tells jobs with their arguments, and workers execute the programs: nobody else's business.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| Error::io(path.display(), error))?;
        Ok(Directory { path, is_temporary })
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether it goes with the process.
    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left is in the folder for what may be lost.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_directory_stays_and_a_temporary_one_goes() {
        let place = tempfile::tempdir().unwrap();
        let named = place.path().join("a/b");
        drop(Directory::open(Some(&named)).unwrap());
        assert!(named.is_dir());
        let temporary = Directory::open(None).unwrap();
        let path = temporary.folder("x").parent().unwrap().to_path_buf();
        assert!(path.is_dir() && temporary.is_temporary());
        drop(temporary);
        assert!(!path.exists());
    }
}

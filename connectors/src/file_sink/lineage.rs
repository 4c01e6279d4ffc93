//! Hidden files of a job that takes snapshots: whose they are, and which of them nobody will commit.
//!
//! Every hidden file carries the name of a *lineage*: the writers that follow each other over the restarts of a job. Files of a lineage are
//! numbered, and a snapshot holds the lineage with its next number: whatever has a higher one was written by a writer that is gone, for a
//! snapshot that was never complete, and its records are written again.

use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::key::stable_hash;
use flott_schema::Result;
use flott_schema::ids::JobId;

use super::commit::failed;
use super::part_file::unique_token;

/// State of a writer; frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The job that writes. Another one that starts from the same snapshot leaves its files alone.
    pub job: JobId,
    /// In the names of hidden files.
    pub name: String,
    /// Number of the next file.
    pub next_number: u64,
}

impl Lineage {
    /// That of a writer whose job starts from nothing, or from a snapshot of another job: the same in every attempt. None of its files
    /// is part of a snapshot yet.
    pub fn first(ctx: &OperatorContext) -> Self {
        let job = ctx.task.job;
        let name = format!("{:016x}", stable_hash(&(job, &*ctx.uid, ctx.task.subtask)));
        Lineage { job, name, next_number: 0 }
    }

    /// That of a writer which the snapshot its job starts from knows nothing of.
    pub fn fresh(ctx: &OperatorContext) -> Self {
        Lineage { job: ctx.task.job, name: unique_token(), next_number: 0 }
    }

    /// Its form in snapshots.
    pub fn encoded(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(self, &mut bytes)?;
        Ok(bytes)
    }

    /// From that form.
    pub fn decoded(bytes: &[u8]) -> Result<Self> {
        decode_value(bytes)
    }

    /// Removes the files in `folder` that nobody will commit; `deep`: those in folders below it too.
    pub fn remove_leftovers(&self, folder: &Path, deep: bool) -> Result<()> {
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == IoErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed(&folder, error))?;
                let kind = entry.file_type().map_err(|error| failed(&folder, error))?;
                if kind.is_dir() && deep {
                    folders.push(entry.path());
                } else if kind.is_file() && self.is_leftover(&entry.file_name().to_string_lossy()) {
                    remove_if_there(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Whether it is the name of a hidden file of this lineage that is not in the snapshot.
    fn is_leftover(&self, name: &str) -> bool {
        let number = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(&self.name))
            .and_then(|name| name.strip_suffix(".inprogress."))
            .and_then(|name| name.rsplit('-').next())
            .and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number >= self.next_number)
    }
}

/// Removes a file; one that is gone is none the worse.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

/// The files beside `path` whose names begin with `start`.
pub fn siblings(path: &Path, start: &str) -> Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(folder, error))?.file_name();
        if name.to_string_lossy().starts_with(start) {
            found.push(path.with_file_name(name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_hidden_files_of_the_lineage_from_its_next_number_on() {
        let lineage = Lineage { job: JobId(1), name: "aa".into(), next_number: 10 };
        for (name, expected) in [
            (".part-0-12345678-10.inprogress.aa", true),
            (".part-3-12345678-11.inprogress.aa", true),
            (".part-0-12345678-9.inprogress.aa", false),
            (".part-0-12345678-10.inprogress.bb", false),
            ("part-0-12345678-10", false),
            (".part-0-x.inprogress.aa", false),
        ] {
            assert_eq!(lineage.is_leftover(name), expected, "{name}");
        }
        assert_eq!(Lineage::decoded(&lineage.encoded().unwrap()).unwrap(), lineage);
    }
}

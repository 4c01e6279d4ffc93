//! The log files of executors and clients that go: a worker that runs for years keeps those of the last jobs only.
//!
//! A file that is written to is locked by its writer, in whichever process that is: workers may share a log folder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The log files of one job, or of one program that was run as a client.
struct Group {
    written: SystemTime,
    files: Vec<PathBuf>,
}

/// Removes the log files in `folder` of all but the `jobs_max` jobs whose executors wrote last, and likewise of clients. Those
/// that are still written to stay. May wait for the disk.
pub fn remove_old(folder: &Path, jobs_max: usize) {
    for of in [job_of, client_of] {
        let mut groups: Vec<Group> = groups(folder, of).into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.written));
        for group in groups.into_iter().skip(jobs_max) {
            if group.files.iter().any(|file| is_written_to(file)) {
                continue;
            }
            for file in &group.files {
                // One that stays is tried again next time.
                if let Err(error) = std::fs::remove_file(file) {
                    tracing::debug!(file = %file.display(), %error, "an old log file stays");
                }
            }
        }
    }
}

fn groups(folder: &Path, of: fn(&str) -> Option<&str>) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(group) = name.to_str().and_then(of) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let none = || Group { written, files: Vec::new() };
        let group = groups.entry(group.to_string()).or_insert_with(none);
        group.written = group.written.max(written);
        group.files.push(entry.path());
    }
    groups
}

/// The job in `flott-executor-JOB-N.log.1`.
fn job_of(name: &str) -> Option<&str> {
    name.strip_prefix("flott-executor-")?.split_once('-').map(|(job, _)| job)
}

/// Worker and number in `flott-client-PROCESS-N.log`.
fn client_of(name: &str) -> Option<&str> {
    name.strip_prefix("flott-client-")?.split_once('.').map(|(client, _)| client)
}

/// Also true where that cannot be found out.
fn is_written_to(file: &Path) -> bool {
    match File::open(file) {
        Ok(file) => match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        },
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::supervisor::rotate::{RotatingFile, Rotation};

    #[test]
    fn the_files_of_the_last_jobs_stay_and_those_that_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, age_s: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
        };
        let jobs = ["aa", "bb", "cc", "dd"];
        for (age, job) in (1..).zip(jobs) {
            for end in ["1.out", "1.log", "1.log.1", "2.log"] {
                write(&format!("flott-executor-{job}-{end}"), age * 1000);
            }
        }
        // What a job wrote last counts.
        write("flott-executor-cc-3.log", 10);
        write("flott-client-77-0.log", 9000);
        write("flott-client-77-1.log", 8000);
        write("flott-client-77-1.out", 8000);
        write("flott-worker.log", 99_000);
        let quiet = folder.path().join("flott-executor-dd-1.log");
        let quiet = RotatingFile::open(quiet, Rotation::default()).unwrap();
        let left = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let before = left();
        remove_old(folder.path(), 4);
        assert_eq!(left(), before);
        remove_old(folder.path(), 1);
        let of = |job: &str| left().iter().filter(|name| name.starts_with(job)).count();
        let counts = jobs.map(|job| of(&format!("flott-executor-{job}-")));
        assert_eq!(counts, [0, 0, 5, 4]);
        assert_eq!((of("flott-client-77-0"), of("flott-client-77-1"), of("flott-worker.log")), (0, 2, 1));
        drop(quiet);
        remove_old(folder.path(), 1);
        assert_eq!(of("flott-executor-dd-"), 0);
    }
}

//! Folders of processes that were killed and could not tidy up.
//!
//! What lives here: locks by which a folder is known to be used, and the deletion of folders whose lock nobody holds. Who may call it: a worker, and the
//! state of a job, when they begin. What must never happen here: the deletion of a folder that a process uses, on whatever host, or of one that is not
//! marked as ours.
//!
//! A process locks the file `lock` in its folder for as long as it lives; the kernel unlocks it when the process is gone, however. A folder that outlives
//! the process which made it, because its worker starts another one to go on with it, names the worker's lock in a file `owner` instead.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use flott_schema::{Error, Result};

/// Locked by the process that uses the folder.
const LOCK: &str = "lock";
/// Names the lock of another folder: who can tell by that path (see [`place`]), and the path on the next line.
const OWNER: &str = "owner";

/// Holds a folder for this process.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "it is locked as long as it is open")] File);

/// Marks a folder as used by this process.
pub fn hold(folder: &Path) -> Result<Held> {
    let lock = folder.join(LOCK);
    // Locked before it has its name, so that nobody finds it unlocked meanwhile.
    let unnamed = folder.join(format!("{LOCK}-{}", std::process::id()));
    let held = || {
        let file = File::create(&unnamed)?;
        file.lock()?;
        fs::rename(&unnamed, &lock)?;
        Ok(file)
    };
    held().map(Held).map_err(|error: io::Error| Error::io(lock.display(), error))
}

/// Marks a folder as used for as long as the process lives that holds `by`; nothing if nobody holds that.
pub fn mark(folder: &Path, by: &Path) -> Result<()> {
    let lock = by.join(LOCK);
    if !lock.exists() {
        return Ok(());
    }
    let owner = folder.join(OWNER);
    let text = format!("{}\n{}", place()?, lock.display());
    fs::write(&owner, text).map_err(|error| Error::io(owner.display(), error))
}

/// The folder is about to be deleted by its owner, where nothing is left in it.
pub fn unmark(folder: &Path) {
    // What is not there was not marked.
    let _ = fs::remove_file(folder.join(OWNER));
}

/// Deletes the folders in `parent` whose names begin with `prefix`, and whose process is gone. Gives how many. What cannot be looked at or deleted stays:
/// it may be another user's.
pub fn sweep(parent: &Path, prefix: &str) -> usize {
    let folders = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let own = named.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut swept = 0;
    for folder in own.map(|entry| entry.path()).filter(|folder| is_abandoned(folder)) {
        match fs::remove_dir_all(&folder) {
            Ok(()) => {
                tracing::info!("{}: left behind by a process that is gone; deleted", folder.display());
                swept += 1;
            }
            // Somebody else may sweep at the same time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(
                    "{}: left behind by a process that is gone, and cannot be deleted: {error}",
                    folder.display()
                );
            }
        }
    }
    swept
}

fn is_abandoned(folder: &Path) -> bool {
    match is_locked(&folder.join(LOCK)) {
        Some(locked) => !locked,
        // A lock that is gone was the worker's whose folder has been deleted. One that cannot be looked at may be held.
        None => owner_of(folder).is_some_and(|lock| {
            is_locked(&lock) == Some(false) || lock.try_exists().is_ok_and(|there| !there)
        }),
    }
}

/// Whether a process holds the lock; nothing if there is none, or it cannot be told.
fn is_locked(lock: &Path) -> Option<bool> {
    match File::open(lock).ok()?.try_lock() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// The lock that a folder names, where its path means here what it meant there.
fn owner_of(folder: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(folder.join(OWNER)).ok()?;
    let (of, lock) = text.split_once('\n')?;
    (of == place().ok()?).then(|| PathBuf::from(lock))
}

/// Where a path means the same file, and a lock is seen by all: this run of this machine, and the mounts that the process sees. Containers may share a
/// host's name and a folder, and nothing else.
fn place() -> Result<String> {
    let of = |path: &str, read: fn(&str) -> io::Result<String>| {
        read(path).map(|text| text.trim().to_owned()).map_err(|error| Error::io(path, error))
    };
    let boot = of("/proc/sys/kernel/random/boot_id", |path| fs::read_to_string(path))?;
    let mounts = of("/proc/self/ns/mnt", |path| Ok(fs::read_link(path)?.display().to_string()))?;
    Ok(format!("{boot} {mounts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(parent: &Path, name: &str) -> PathBuf {
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("rows"), "rows").unwrap();
        folder
    }

    #[test]
    fn folders_of_processes_that_are_gone_are_swept_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let [used, gone, unmarked, other] = ["flott-worker-a", "flott-worker-b", "flott-worker-c", "mine"]
            .map(|name| folder(parent.path(), name));
        let held = hold(&used).unwrap();
        drop(hold(&gone).unwrap());
        drop(hold(&other).unwrap());
        assert_eq!(sweep(parent.path(), "flott-worker-"), 1);
        assert!(used.exists() && !gone.exists() && unmarked.exists() && other.exists());
        drop(held);
        assert_eq!(sweep(parent.path(), "flott-worker-"), 1);
        assert!(!used.exists() && unmarked.exists());
        assert_eq!(sweep(&parent.path().join("none"), "flott-worker-"), 0);
    }

    #[test]
    fn a_folder_that_names_a_lock_lives_as_long_as_who_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let [worker, state, of_nobody] =
            ["worker", "flott-state-1", "flott-state-2"].map(|name| folder(parent.path(), name));
        mark(&of_nobody, &worker).unwrap();
        assert!(!of_nobody.join(OWNER).exists());
        let held = hold(&worker).unwrap();
        mark(&state, &worker).unwrap();
        assert_eq!(sweep(parent.path(), "flott-state-"), 0);
        drop(held);
        assert_eq!(sweep(parent.path(), "flott-state-"), 1);
        assert!(!state.exists() && of_nobody.exists());

        // The worker's folder has been swept before: then there is no lock any more.
        let state = folder(parent.path(), "flott-state-3");
        let _held = hold(&worker).unwrap();
        mark(&state, &worker).unwrap();
        fs::remove_dir_all(&worker).unwrap();
        assert_eq!(sweep(parent.path(), "flott-state-"), 1);
        // What another machine or container has written is not judged here, nor is a lock that cannot be looked at.
        let elsewhere = folder(parent.path(), "flott-state-4");
        fs::write(elsewhere.join(OWNER), "another boot mnt:[1]\n/nowhere/lock").unwrap();
        let unseen = folder(parent.path(), "flott-state-5");
        fs::write(unseen.join(OWNER), format!("{}\n{}/rows/lock", place().unwrap(), unseen.display()))
            .unwrap();
        assert_eq!(sweep(parent.path(), "flott-state-"), 0);
    }
}

//! Deleting a snapshot that another job has taken and this one has claimed.
//!
//! Who may call it: the thread of snapshots. What must never happen here: the deletion of a file that another snapshot of the job that took it names.

use std::collections::BTreeSet;

use flott_schema::error::{ErrorKind, Result};
use flott_schema::snapshot::{MANIFEST_FILE, Manifest};
use flott_storage::{Storage, manifest};

use super::registry::shared_names;

/// The folder, beside those of checkpoints, with the files that they share.
const SHARED: &str = "shared";

/// Deletes the snapshot in the folder and what it alone needed. One that is gone is no error: the leader before may have been here.
pub(super) fn discard(folder: &str) -> Result<()> {
    let folder = Storage::open(folder)?;
    if !folder.exists(MANIFEST_FILE)? {
        return Ok(());
    }
    let content = match manifest::read(&folder) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::BadInput => {
            tracing::warn!(%folder, %error, "a snapshot that a job has claimed cannot be read, and is left as it is");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if content.kind.is_savepoint() {
        return manifest::dispose(&folder);
    }
    let above = folder.folder("..")?;
    if let Some(shared) = unneeded(&folder, &content, &above)? {
        let place = above.folder(SHARED)?;
        shared.iter().try_for_each(|name| place.delete(name).map(drop))?;
        folder.delete_tree()?;
        // Of the job that took it nothing else may be left.
        if place.list().is_ok() {
            place.delete_if_empty()?;
        }
        above.delete_if_empty()?;
        return Ok(());
    }
    folder.delete_tree().map(drop)
}

/// Names of the shared files that no other checkpoint beside this one names; nothing if that cannot be told, since one of them cannot be read.
fn unneeded(folder: &Storage, content: &Manifest, above: &Storage) -> Result<Option<BTreeSet<String>>> {
    let mut names: BTreeSet<String> = names_of(content).collect();
    for entry in above.list()?.into_iter().filter(|entry| entry.is_folder) {
        let other = above.folder(&entry.name)?;
        if other.uri() == folder.uri() || !other.exists(MANIFEST_FILE)? {
            continue;
        }
        match manifest::read(&other) {
            Ok(other) => {
                let kept: BTreeSet<String> = names_of(&other).collect();
                names.retain(|name| !kept.contains(name));
            }
            Err(error) => {
                tracing::warn!(%other, %error, "a checkpoint cannot be read: files that it may share are kept");
                return Ok(None);
            }
        }
    }
    Ok(Some(names))
}

fn names_of(content: &Manifest) -> impl Iterator<Item = String> + '_ {
    content.tasks.iter().flat_map(shared_names).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::{JobId, OperatorId, TaskId};
    use flott_schema::key_group::KeyGroupRange;
    use flott_schema::snapshot::{
        KeyedSnapshot, OperatorSnapshot, SavepointFormat, SnapshotFile, SnapshotKind, SnapshotTimes,
        TaskSnapshot,
    };

    use super::*;

    /// Writes a snapshot with these files, each with a byte in it.
    fn snapshot(root: &std::path::Path, name: &str, kind: SnapshotKind, paths: &[&str]) -> Storage {
        let folder = Storage::open(root.join(name).to_str().unwrap()).unwrap();
        folder.create().unwrap();
        let file = |path: &&str| {
            let whole = root.join(name).join(path);
            std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
            std::fs::write(whole, "x").unwrap();
            SnapshotFile { name: path.to_string(), path: path.to_string(), size: 1, crc32c: 0 }
        };
        let keyed = KeyedSnapshot {
            key_groups: KeyGroupRange { start: 0, end: 128 },
            format: "rocksdb-1".into(),
            tables: Vec::new(),
            files: paths.iter().map(file).collect(),
        };
        let operator = OperatorId::of_uid("sum");
        let state =
            OperatorSnapshot { operator: Some(operator), keyed: vec![keyed], ..OperatorSnapshot::default() };
        let part = TaskSnapshot {
            task: TaskId { vertex: operator.into(), subtask: 0 },
            finished: false,
            operators: vec![state],
            channels: Vec::new(),
            times: SnapshotTimes::default(),
        };
        let content = Manifest {
            job: JobId(1),
            job_name: "before".into(),
            checkpoint: 1,
            kind,
            timestamp_ms: 0,
            vertices: Vec::new(),
            tasks: vec![part],
        };
        manifest::write(&folder, &content).unwrap();
        folder
    }

    #[test]
    fn files_that_another_checkpoint_names_stay() {
        let root = tempfile::tempdir().unwrap();
        let job = root.path().join("job");
        let claimed =
            snapshot(&job, "chk-2", SnapshotKind::Checkpoint, &["own", "../shared/a", "../shared/b"]);
        let other = snapshot(&job, "chk-1", SnapshotKind::Checkpoint, &["../shared/b"]);
        discard(claimed.uri()).unwrap();
        assert!(!job.join("chk-2").exists() && !job.join("shared/a").exists());
        assert!(job.join("shared/b").exists() && other.exists(MANIFEST_FILE).unwrap());
        // Once more, as another leader would.
        discard(claimed.uri()).unwrap();
        // With the last one the folders go.
        discard(other.uri()).unwrap();
        assert!(!job.exists() && root.path().exists());
    }

    #[test]
    fn what_a_damaged_checkpoint_may_name_stays() {
        let root = tempfile::tempdir().unwrap();
        let claimed = snapshot(root.path(), "chk-2", SnapshotKind::Checkpoint, &["../shared/a"]);
        snapshot(root.path(), "chk-1", SnapshotKind::Checkpoint, &["../shared/a"]);
        std::fs::write(root.path().join("chk-1").join(MANIFEST_FILE), "damaged").unwrap();
        discard(claimed.uri()).unwrap();
        assert!(!root.path().join("chk-2").exists() && root.path().join("shared/a").exists());
    }

    #[test]
    fn of_a_savepoint_goes_what_it_names() {
        let root = tempfile::tempdir().unwrap();
        let kind = SnapshotKind::Savepoint(SavepointFormat::Native);
        let claimed = snapshot(root.path(), "savepoint-1", kind, &["rows"]);
        std::fs::write(root.path().join("notes.txt"), "mine").unwrap();
        discard(claimed.uri()).unwrap();
        assert!(!root.path().join("savepoint-1").exists() && root.path().join("notes.txt").exists());
    }
}

//! Which files of a database the storage of snapshots holds.
//!
//! A file of sorted rows never changes, so a checkpoint names again what the last completed one has stored.
//! What a pending checkpoint has stored is not named by another one: it may be given up, and its files are
//! deleted then.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flott_schema::snapshot::{SnapshotFile, SnapshotKind};

/// Snapshots that are remembered when a later one is complete: the word that they were given up comes soon
/// or not at all.
const SUPERSEDED_MAX: usize = 16;

/// What is known of stored files.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// The shared folder, and the files of the last completed checkpoint in it by the names in the database.
    completed: Option<(String, BTreeMap<String, SnapshotFile>)>,
    pending: BTreeMap<u64, PendingUpload>,
}

#[derive(Debug, Default)]
struct PendingUpload {
    /// The user's snapshots share nothing, and checkpoints nothing with them.
    is_savepoint: bool,
    shared_folder: Option<String>,
    /// Files it names again, by their names in the database.
    reused: BTreeMap<String, SnapshotFile>,
    is_given_up: bool,
    /// Once it is stored.
    stored: Option<Stored>,
}

/// A stored snapshot.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// All of its files that may be shared.
    pub(super) shared: Vec<SnapshotFile>,
    /// Folder and name of every file that it wrote.
    pub(super) written: Vec<(String, String)>,
    /// Working files of the snapshot, if they are to be kept when it is complete.
    pub(super) local: Option<PathBuf>,
}

impl Uploads {
    /// For a database that begins with these files, which are in this shared folder.
    pub(super) fn restored(shared_folder: String, files: Vec<SnapshotFile>) -> Self {
        let files = files.into_iter().map(|file| (file.name.clone(), file)).collect();
        Uploads { completed: Some((shared_folder, files)), pending: BTreeMap::new() }
    }

    /// Begins a snapshot of files with these names, where it is not yet known where it goes.
    ///
    /// A file must outlive the snapshot that names it again. When a checkpoint that is pending now is
    /// completed, the one before it may go with all files that no completed one names. So a file is named
    /// again only if all pending checkpoints do so too.
    pub(super) fn begin<'a>(
        &mut self,
        checkpoint: u64,
        kind: SnapshotKind,
        names: impl Iterator<Item = &'a str>,
    ) {
        let mut pending = PendingUpload { is_savepoint: kind.is_savepoint(), ..PendingUpload::default() };
        if let (SnapshotKind::Checkpoint, Some((_, completed))) = (kind, &self.completed) {
            let is_kept = |name: &str| {
                let is_harmless = |one: &PendingUpload| one.is_savepoint || one.is_given_up;
                self.pending.values().all(|one| is_harmless(one) || one.reused.contains_key(name))
            };
            let files = names.filter(|name| is_kept(name)).filter_map(|name| completed.get(name));
            pending.reused = files.map(|file| (file.name.clone(), file.clone())).collect();
            pending.shared_folder = self.completed.as_ref().map(|(folder, _)| folder.clone());
        }
        self.pending.insert(checkpoint, pending);
    }

    /// The snapshot goes to this shared folder, if it shares anything; gives the files that it need not
    /// store.
    pub(super) fn aim(
        &mut self,
        checkpoint: u64,
        shared_folder: Option<&str>,
    ) -> BTreeMap<String, SnapshotFile> {
        let Some(pending) = self.pending.get_mut(&checkpoint) else { return BTreeMap::new() };
        if pending.shared_folder.as_deref() != shared_folder {
            pending.reused.clear();
            pending.shared_folder = shared_folder.map(str::to_owned);
        }
        pending.reused.clone()
    }

    /// The snapshot is stored. Given back if it was given up meanwhile: then its files are to be deleted.
    pub(super) fn stored(&mut self, checkpoint: u64, stored: Stored) -> Option<Stored> {
        match self.pending.get_mut(&checkpoint) {
            Some(pending) if !pending.is_given_up => {
                pending.stored = Some(stored);
                None
            }
            _ => {
                self.pending.remove(&checkpoint);
                Some(stored)
            }
        }
    }

    /// The snapshot is complete. Gives its working files, if there are any to be kept.
    pub(super) fn completed(&mut self, checkpoint: u64) -> Option<PathBuf> {
        let pending = self.pending.remove(&checkpoint).filter(|pending| !pending.is_given_up)?;
        let stored = pending.stored?;
        if !pending.is_savepoint {
            // One that shares nothing leaves nothing to share.
            self.completed = pending.shared_folder.map(|folder| {
                (folder, stored.shared.into_iter().map(|file| (file.name.clone(), file)).collect())
            });
        }
        stored.local
    }

    /// A later snapshot is complete, and nobody has said what became of this one. If it was handed in it may be
    /// complete too: then its files stay, unless it is said yet that it was given up. Gives its working files.
    pub(super) fn superseded(&mut self, checkpoint: u64) -> Option<PathBuf> {
        let pending = self.pending.get_mut(&checkpoint)?;
        pending.is_given_up = true;
        let local = pending.stored.as_mut()?.local.take();
        let is_over = |one: &PendingUpload| one.is_given_up && one.stored.is_some();
        while self.pending.values().filter(|one| is_over(one)).count() > SUPERSEDED_MAX {
            let oldest = self.pending.iter().find(|(_, one)| is_over(one)).map(|(oldest, _)| *oldest);
            self.pending.remove(&oldest?);
        }
        local
    }

    /// Nothing is or will be stored of the snapshot.
    pub(super) fn forget(&mut self, checkpoint: u64) {
        self.pending.remove(&checkpoint);
    }

    /// The snapshot was given up. What it had stored by now is to be deleted.
    pub(super) fn aborted(&mut self, checkpoint: u64) -> Option<Stored> {
        let pending = self.pending.get_mut(&checkpoint)?;
        pending.is_given_up = true;
        let stored = pending.stored.take()?;
        self.pending.remove(&checkpoint);
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::snapshot::SavepointFormat;

    use super::*;

    fn file(name: &str, by: u64) -> SnapshotFile {
        SnapshotFile { name: name.into(), path: format!("../shared/{name}-{by}"), size: 1, crc32c: 2 }
    }

    fn stored(files: &[(&str, u64)]) -> Stored {
        Stored { shared: files.iter().map(|(name, by)| file(name, *by)).collect(), ..Stored::default() }
    }

    fn begin(uploads: &mut Uploads, checkpoint: u64, names: &[&str]) -> Vec<String> {
        uploads.begin(checkpoint, SnapshotKind::Checkpoint, names.iter().copied());
        uploads.aim(checkpoint, Some("shared")).into_values().map(|file| file.path).collect()
    }

    #[test]
    fn what_the_last_completed_checkpoint_has_is_named_again() {
        let mut uploads = Uploads::default();
        assert!(begin(&mut uploads, 1, &["a", "b"]).is_empty());
        assert!(uploads.stored(1, stored(&[("a", 1), ("b", 1)])).is_none());
        uploads.completed(1);
        assert_eq!(begin(&mut uploads, 2, &["b", "c"]), ["../shared/b-1"]);
    }

    #[test]
    fn nothing_of_a_checkpoint_that_was_given_up_is_named_again() {
        let mut uploads = Uploads::default();
        begin(&mut uploads, 1, &["a"]);
        uploads.stored(1, stored(&[("a", 1)]));
        assert_eq!(uploads.aborted(1).unwrap().shared.len(), 1);
        assert!(begin(&mut uploads, 2, &["a"]).is_empty());
        assert!(uploads.aborted(2).is_none());
        assert!(uploads.stored(2, stored(&[("a", 2)])).is_some(), "given up while it was stored");
        assert!(uploads.pending.is_empty());
    }

    #[test]
    fn one_whose_end_was_missed_keeps_its_files_and_hinders_nothing() {
        let mut uploads = Uploads::default();
        begin(&mut uploads, 1, &["a", "b"]);
        uploads.stored(1, stored(&[("a", 1), ("b", 1)]));
        uploads.completed(1);
        begin(&mut uploads, 2, &["b"]);
        uploads.stored(2, Stored { local: Some("local".into()), ..stored(&[("b", 1)]) });
        assert_eq!(begin(&mut uploads, 3, &["a"]), [""; 0], "2 may be complete, and 1 gone");
        assert_eq!(uploads.superseded(2), Some("local".into()));
        assert!(uploads.superseded(2).is_none());
        assert_eq!(begin(&mut uploads, 4, &["a"]), [""; 0], "3 has not named it again");
        assert!(uploads.superseded(3).is_none());
        assert_eq!(begin(&mut uploads, 5, &["a"]), [""; 0], "4 neither");
        assert!(uploads.superseded(4).is_none());
        assert!(uploads.superseded(5).is_none());
        assert_eq!(begin(&mut uploads, 6, &["a"]), ["../shared/a-1"]);
        assert!(uploads.stored(3, stored(&[("a", 3)])).is_some(), "it was given up before it was stored");
        assert_eq!(uploads.aborted(2).unwrap().shared.len(), 1, "the word came late");
        assert!(uploads.aborted(2).is_none());
    }

    #[test]
    fn what_a_pending_checkpoint_stores_anew_may_go_with_the_one_before_it() {
        let mut uploads = Uploads::default();
        begin(&mut uploads, 1, &["a"]);
        begin(&mut uploads, 2, &["a"]);
        uploads.stored(1, stored(&[("a", 1)]));
        uploads.completed(1);
        // When 2 is completed, 1 goes and its file with it.
        assert!(begin(&mut uploads, 3, &["a"]).is_empty());
        uploads.stored(2, stored(&[("a", 2)]));
        uploads.completed(2);
        uploads.stored(3, stored(&[("a", 3)]));
        uploads.completed(3);
        assert_eq!(begin(&mut uploads, 4, &["a"]), ["../shared/a-3"]);
    }

    #[test]
    fn a_full_checkpoint_leaves_nothing_to_name_again_and_a_savepoint_all() {
        let mut uploads = Uploads::default();
        begin(&mut uploads, 1, &["a"]);
        uploads.stored(1, stored(&[("a", 1)]));
        uploads.completed(1);
        uploads.begin(2, SnapshotKind::Savepoint(SavepointFormat::Native), ["a"].into_iter());
        assert!(uploads.aim(2, None).is_empty());
        uploads.stored(2, Stored::default());
        uploads.completed(2);
        assert_eq!(begin(&mut uploads, 3, &["a"]), ["../shared/a-1"]);
        uploads.aborted(3);
        uploads.stored(3, Stored::default());
        uploads.begin(4, SnapshotKind::FullCheckpoint, ["a"].into_iter());
        assert!(uploads.aim(4, None).is_empty());
        uploads.stored(4, Stored::default());
        uploads.completed(4);
        assert!(begin(&mut uploads, 5, &["a"]).is_empty());
    }
}

//! How rows and snapshots of one operator get into its database, and from there to the storage of snapshots.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{KeyedSnapshot, SavepointFormat, SnapshotFile, SnapshotKind, TableSnapshot};
use flott_schema::{Error, Result};

use super::ROCKSDB_FORMAT;
use super::database::Database;
use super::members::is_of;
use super::uploads::{Stored, Uploads};
use crate::checks::Checks;
use crate::files;
use crate::layer::Layer;
use crate::pipeline::{Store, nothing_to_write};
use crate::place::{Place, discard, put_own};
use crate::pool::{guarded, lock};
use crate::rows::{ROWS_FORMAT, RowsWriter, Run, merge};
use crate::snapshot::{Part, Pending, SnapshotTarget};

/// The database of one operator, and what is stored of it.
pub(crate) struct RocksStore {
    /// In front of the place: its folder goes last.
    pub(crate) database: Database,
    place: Arc<Place>,
    uploads: Arc<Mutex<Uploads>>,
    is_closed: Arc<AtomicBool>,
    /// Of the files that the database began with.
    pub(super) checks: Arc<Checks>,
}

/// A snapshot whose files are held, and which waits to know where they go.
struct Held {
    place: Arc<Place>,
    pending: Arc<Pending>,
    tables: Vec<TableSnapshot>,
    /// Links to the files of the database at the barrier.
    folder: PathBuf,
    uploads: Arc<Mutex<Uploads>>,
    is_closed: Arc<AtomicBool>,
    checks: Arc<Checks>,
}

/// A snapshot being written.
struct Writing {
    held: Held,
    target: SnapshotTarget,
}

impl RocksStore {
    /// `reusable`: a shared folder, and the files in it that the database began with. `awaits_checks`: nothing is
    /// handed in before these have been checked.
    pub(crate) fn new(
        place: Arc<Place>,
        database: Database,
        reusable: Option<(String, Vec<SnapshotFile>)>,
        awaits_checks: bool,
    ) -> Self {
        let uploads = reusable.map(|(folder, files)| Uploads::restored(folder, files)).unwrap_or_default();
        let checks = if awaits_checks { Arc::default() } else { Checks::none() };
        let (uploads, is_closed) = (Arc::new(Mutex::new(uploads)), Arc::default());
        RocksStore { database, place, uploads, is_closed, checks }
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The task is gone: what is being written is not finished.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.checks.close();
    }

    /// A snapshot is complete.
    pub(crate) fn completed(&self, checkpoint: u64) {
        let kept = lock(&self.uploads).completed(checkpoint);
        if let Some(folder) = kept {
            let place = self.place.clone();
            let moved = self.place.service.transfer.submit(move || {
                if let Err(error) = place.keep_backup(checkpoint, &folder) {
                    tracing::warn!("the local backup of checkpoint {checkpoint} is not kept: {error}");
                }
            });
            drop(moved);
        }
    }

    /// A later snapshot is complete, and nobody has said what became of this one.
    pub(crate) fn superseded(&self, checkpoint: u64) {
        let local = lock(&self.uploads).superseded(checkpoint);
        if let Some(folder) = local {
            // Refused where too much waits: then it goes with the task's other working files.
            drop(self.place.service.transfer.submit(move || discard(&folder)));
        }
    }

    /// A snapshot was given up.
    pub(crate) fn aborted(&self, checkpoint: u64) {
        let stored = lock(&self.uploads).aborted(checkpoint);
        if let Some(stored) = stored {
            // Refused where too much waits: then its files stay behind.
            drop(self.place.service.transfer.submit(move || delete(stored)));
        }
    }
}

/// Deletes what a snapshot has written that nobody will read.
fn delete(stored: Stored) {
    for (folder, name) in &stored.written {
        if let Err(error) = files::delete(folder, name) {
            tracing::warn!("a file of a snapshot that was given up stays behind: {error}");
        }
    }
    if let Some(folder) = stored.local {
        discard(&folder);
    }
}

impl Store for RocksStore {
    // Rows of a snapshot that is given up stay too: the database is what the task works with.
    fn part(&self, _: &Layer, runs: &[Arc<Run>]) -> Result<()> {
        let key_groups = self.place.key_groups;
        self.database.write(|row| {
            merge(runs.iter().map(|run| &**run), &mut |one| match is_of(key_groups, one.key_group) {
                true => row(one),
                false => Ok(()),
            })
        })
    }

    fn apply(&self, layer: &Layer) -> Result<()> {
        if !layer.is_empty() {
            flott_faults::point("rows.write");
            let key_groups = self.place.key_groups;
            self.database.write(|row| {
                layer.each(&mut |one| if is_of(key_groups, one.key_group) { row(one) } else { Ok(()) })
            })?;
            flott_faults::point("rows.written");
        }
        let Some(pending) = &layer.snapshot else { return Ok(()) };
        let checkpoint = pending.barrier.checkpoint;
        if !pending.is_wanted() {
            self.database.expiry.release(checkpoint);
            nothing_to_write(layer);
            return Ok(());
        }
        let held = Held {
            place: self.place.clone(),
            pending: pending.clone(),
            tables: layer.tables.clone(),
            folder: self.place.path(&format!("checkpoint-{checkpoint}")),
            uploads: self.uploads.clone(),
            is_closed: self.is_closed.clone(),
            checks: self.checks.clone(),
        };
        // From here on an error is one of the snapshot, not of the state.
        let linked = self.database.checkpoint(&held.folder);
        self.database.expiry.release(checkpoint);
        if let Err(error) = linked.and_then(|()| held.begin()) {
            discard(&self.place.path(&format!("checkpoint-{checkpoint}")));
            lock(&self.uploads).forget(checkpoint);
            pending.part_done(Err(error));
        }
        Ok(())
    }

    fn needs_all_layers(&self) -> bool {
        true
    }
}

/// Which files there are in a folder, by their names: those of sorted rows, and the one that says where they
/// belong.
struct Files {
    sorted: Vec<String>,
    manifest: String,
}

fn list(folder: &Path) -> Result<Files> {
    let refused = |error| Error::io(folder.display(), error);
    let mut sorted = Vec::new();
    let mut manifest = None;
    for entry in fs::read_dir(folder).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sst") {
            sorted.push(name);
        } else if name.starts_with("MANIFEST-") {
            manifest = Some(name);
        }
    }
    sorted.sort_unstable();
    let manifest = manifest
        .ok_or_else(|| Error::internal(format!("a checkpoint in {} has no manifest", folder.display())))?;
    Ok(Files { sorted, manifest })
}

impl Held {
    fn checkpoint(&self) -> u64 {
        self.pending.barrier.checkpoint
    }

    /// Decides which files have to be stored, before a later snapshot does, and has that done when it is known
    /// where they go.
    fn begin(self) -> Result<()> {
        let kind = self.pending.barrier.kind;
        let files = match kind {
            SnapshotKind::Savepoint(SavepointFormat::Canonical) => None,
            _ => Some(list(&self.folder)?),
        };
        if let Some(files) = &files {
            let names = files.sorted.iter().map(String::as_str);
            lock(&self.uploads).begin(self.checkpoint(), kind, names);
        }
        let pending = self.pending.clone();
        pending.when_settled(Box::new(move |target| self.submit(target, files)));
        Ok(())
    }

    /// It is known where the files go, if anywhere.
    fn submit(self, target: Option<SnapshotTarget>, files: Option<Files>) {
        let (service, pending, uploads) =
            (self.place.service.clone(), self.pending.clone(), self.uploads.clone());
        let submitted = service.transfer.submit(move || match (target, files) {
            (Some(target), Some(files)) => Writing { held: self, target }.run(files),
            (Some(target), None) => {
                let writing = Writing { held: self, target };
                let checks = writing.held.checks.clone();
                let result = guarded(|| writing.write_rows().and_then(|rows| checks.wait().map(|()| rows)));
                discard(&writing.held.folder);
                writing.held.pending.part_done(result);
            }
            (None, _) => {
                discard(&self.folder);
                lock(&self.uploads).forget(self.checkpoint());
                self.pending.part_done(Ok((Part::None, 0)));
            }
        });
        if let Err(error) = submitted {
            lock(&uploads).forget(pending.barrier.checkpoint);
            pending.part_done(Err(error));
        }
    }
}

impl Writing {
    fn run(self, files: Files) {
        let checkpoint = self.held.checkpoint();
        let is_savepoint = self.held.pending.barrier.kind.is_savepoint();
        let shared = self.shared_folder();
        let mut again = lock(&self.held.uploads).aim(checkpoint, shared.as_deref());
        let writing = Arc::new(self);
        let held = &writing.held;
        let mut stored = Stored::default();
        let result = guarded(|| {
            if let Some(folder) = &shared {
                // What somebody has deleted is stored again: a snapshot names nothing that is not there.
                for name in files::missing(folder, again.values(), checkpoint)? {
                    again.remove(&name);
                }
            }
            let written = writing.store(files, again, shared, &mut stored)?;
            held.checks.wait().map(|()| written)
        });
        if held.place.service.options.local_backup && !is_savepoint && result.is_ok() {
            stored.local = Some(held.folder.clone());
        } else {
            discard(&held.folder);
        }
        // One that nobody waits for was or will be aborted: whoever comes second deletes.
        let mut uploads = lock(&held.uploads);
        let mut unwanted = uploads.stored(checkpoint, stored);
        if unwanted.is_none() && (result.is_err() || held.pending.is_lost()) {
            unwanted = uploads.aborted(checkpoint);
        }
        drop(uploads);
        if let Some(stored) = unwanted {
            delete(stored);
        }
        held.pending.part_done(result);
    }

    /// The folder of shared files, if it lies beside that of the snapshot: so they can be named relative to
    /// it.
    fn shared_folder(&self) -> Option<String> {
        let shared = self
            .target
            .shared_folder
            .as_deref()
            .filter(|_| !self.held.pending.barrier.kind.is_savepoint())?;
        if self.held.pending.barrier.kind != SnapshotKind::Checkpoint {
            return None;
        }
        let (parent, _) = self.target.folder.trim_end_matches('/').rsplit_once('/')?;
        let shared = shared.trim_end_matches('/');
        (shared.rsplit_once('/')?.0 == parent).then(|| shared.to_owned())
    }

    fn snapshot(&self, format: &str, files: Vec<SnapshotFile>) -> Part {
        let key_groups: KeyGroupRange = self.held.place.key_groups;
        let keyed =
            KeyedSnapshot { key_groups, format: format.into(), tables: self.held.tables.clone(), files };
        Part::Keyed(self.held.place.operator, keyed)
    }

    fn store(
        self: &Arc<Self>,
        files: Files,
        again: std::collections::BTreeMap<String, SnapshotFile>,
        shared: Option<String>,
        stored: &mut Stored,
    ) -> Result<(Part, u64)> {
        let new: Vec<String> = files.sorted.into_iter().filter(|name| !again.contains_key(name)).collect();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (writing, folder, log) = (self.clone(), shared.clone(), written.clone());
        let uploaded = self
            .held
            .place
            .service
            .transfer
            .for_each(new, move |name: &String| writing.store_file(name, folder.as_deref(), &log));
        stored.written = std::mem::take(&mut *lock(&written));
        let uploaded = uploaded?;
        let manifest = put_own(
            &self.target,
            &self.held.place.stem,
            &files.manifest,
            &self.held.folder.join(&files.manifest),
        )?;
        stored.written.push((self.target.folder.clone(), manifest.path.clone()));
        let written_bytes = uploaded.iter().chain([&manifest]).map(|file| file.size).sum();
        let mut all: Vec<SnapshotFile> = again.into_values().chain(uploaded).collect();
        all.sort_unstable();
        if shared.is_some() {
            stored.shared = all.clone();
        }
        all.push(manifest);
        Ok((self.snapshot(ROCKSDB_FORMAT, all), written_bytes))
    }

    fn store_file(
        &self,
        name: &str,
        shared: Option<&str>,
        log: &Mutex<Vec<(String, String)>>,
    ) -> Result<SnapshotFile> {
        if self.held.pending.is_lost() || self.held.is_closed.load(Ordering::Acquire) {
            return Err(Error::internal("the snapshot is not wanted any more")
                .with_kind(flott_schema::ErrorKind::Cancelled));
        }
        let local = self.held.folder.join(name);
        let Some(shared) = shared else {
            let file = put_own(&self.target, &self.held.place.stem, name, &local)?;
            lock(log).push((self.target.folder.clone(), file.path.clone()));
            return Ok(file);
        };
        // With the id of the checkpoint: what is given up can be deleted, whatever others have stored since.
        let unique = format!("{}-{}.{name}", self.held.place.stem, self.held.checkpoint());
        let file = files::put_file(shared, &unique, &local)?;
        lock(log).push((shared.to_owned(), unique.clone()));
        let folder = shared.rsplit('/').next().unwrap_or(shared);
        Ok(SnapshotFile { name: name.into(), path: format!("../{folder}/{unique}"), ..file })
    }

    /// Writes all rows in the form that every backend reads.
    fn write_rows(&self) -> Result<(Part, u64)> {
        let service = &self.held.place.service;
        let database = Database::open_to_read(&self.held.folder, &service.tuning)?;
        let path = self.held.folder.join("rows");
        let mut writer = RowsWriter::create(&path, self.held.place.key_groups, service.options.compress)?;
        database.each(self.held.place.key_groups, None, &mut |key_group, table, key, value| {
            writer.row(key_group, table, key, value)
        })?;
        writer.finish()?;
        let file = put_own(&self.target, &self.held.place.stem, "rows", &path)?;
        let size = file.size;
        Ok((self.snapshot(ROWS_FORMAT, vec![file]), size))
    }
}

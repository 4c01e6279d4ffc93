//! Keyed state that is in memory alone: every snapshot holds all rows, in files of rows: one for each
//! operator, or more of a large one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flott_schema::snapshot::{KeyedSnapshot, SnapshotFile, TableSnapshot};
use flott_schema::{Error, Result};

use crate::files;
use crate::layer::Layer;
use crate::pipeline::{Store, nothing_to_write};
use crate::place::{Place, discard, put_own};
use crate::pool::{guarded, lock};
use crate::rows::{ROWS_FORMAT, RowsWriter, Run, merge};
use crate::snapshot::{Part, Pending, SnapshotTarget};

/// Snapshots that are remembered when a later one is complete: the word that they were given up comes soon
/// or not at all.
const SUPERSEDED_MAX: usize = 16;

/// Writes the rows of one operator.
pub(crate) struct HeapStore {
    place: Arc<Place>,
    stored: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

/// A snapshot that is stored.
struct Stored {
    folder: String,
    names: Vec<String>,
    /// Whether the working files are to be kept when the snapshot is complete.
    keep: bool,
    /// Whether a later one is complete.
    is_superseded: bool,
}

impl HeapStore {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        HeapStore { place, stored: Arc::default() }
    }

    /// A snapshot is complete.
    pub(crate) fn completed(&self, checkpoint: u64) {
        let stored = lock(&self.stored).remove(&checkpoint);
        if stored.is_some_and(|stored| stored.keep) {
            let place = self.place.clone();
            // Refused where too much waits: then there is no backup.
            drop(self.place.service.transfer.submit(move || {
                if let Err(error) = place.keep_backup(checkpoint, &folder_of(&place, checkpoint)) {
                    tracing::warn!("the local backup of checkpoint {checkpoint} is not kept: {error}");
                }
            }));
        }
    }

    /// A snapshot was given up.
    pub(crate) fn aborted(&self, checkpoint: u64) {
        let (stored, place) = (self.stored.clone(), self.place.clone());
        // Refused where too much waits: then its files stay behind.
        drop(self.place.service.transfer.submit(move || {
            delete(&stored, checkpoint);
            discard(&folder_of(&place, checkpoint));
        }));
    }

    /// A later snapshot is complete, and nobody has said what became of this one: its files stay, unless it is
    /// said yet that it was given up.
    pub(crate) fn superseded(&self, checkpoint: u64) {
        let mut all = lock(&self.stored);
        let Some(stored) = all.get_mut(&checkpoint) else { return };
        let had_backup = std::mem::take(&mut stored.keep);
        stored.is_superseded = true;
        while all.values().filter(|one| one.is_superseded).count() > SUPERSEDED_MAX {
            let oldest = all.iter().find(|(_, one)| one.is_superseded).map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        drop(all);
        if had_backup {
            let place = self.place.clone();
            // Refused where too much waits: then they go with the task's other working files.
            drop(self.place.service.transfer.submit(move || discard(&folder_of(&place, checkpoint))));
        }
    }

    /// Writes sorted runs into the next file of a snapshot.
    fn write(&self, folder: &Path, runs: &[Arc<Run>]) -> Result<()> {
        let refused = |error| Error::io(folder.display(), error);
        fs::create_dir_all(folder).map_err(refused)?;
        let number = fs::read_dir(folder).map_err(refused)?.count();
        let path = folder.join(format!("{FILE}{number}"));
        flott_faults::write("rows.write").map_err(refused)?;
        let compress = self.place.service.options.compress;
        let mut writer = RowsWriter::create(&path, self.place.key_groups, compress)?;
        merge(runs.iter().map(|run| &**run), &mut |row| match row.value {
            Some(value) => writer.row(row.key_group, row.table, row.key, value),
            None => Ok(()),
        })?;
        writer.finish()?;
        flott_faults::point("rows.written");
        Ok(())
    }
}

/// Begins the names of files of rows; a number follows.
const FILE: &str = "rows-";

/// The working files of a snapshot.
fn folder_of(place: &Place, checkpoint: u64) -> PathBuf {
    place.path(&format!("checkpoint-{checkpoint}"))
}

/// Deletes what a snapshot has stored that nobody will read.
fn delete(stored: &Mutex<BTreeMap<u64, Stored>>, checkpoint: u64) {
    let removed = lock(stored).remove(&checkpoint);
    let Some(Stored { folder, names, .. }) = removed else { return };
    for name in names {
        if let Err(error) = files::delete(&folder, &name) {
            tracing::warn!("a file of a snapshot that was given up stays behind: {error}");
        }
    }
}

impl Store for HeapStore {
    fn part(&self, layer: &Layer, runs: &[Arc<Run>]) -> Result<()> {
        let Some(pending) = layer.snapshot.as_ref().filter(|pending| !pending.is_lost()) else {
            return Ok(());
        };
        self.write(&folder_of(&self.place, pending.barrier.checkpoint), runs)
    }

    fn apply(&self, layer: &Layer) -> Result<()> {
        let Some(pending) = &layer.snapshot else { return Ok(()) };
        let folder = folder_of(&self.place, pending.barrier.checkpoint);
        if !pending.is_wanted() {
            discard(&folder);
            nothing_to_write(layer);
            return Ok(());
        }
        if !layer.is_empty() || !folder.exists() {
            self.write(&folder, &layer.runs())?;
        }
        let storing = Storing {
            place: self.place.clone(),
            pending: pending.clone(),
            tables: layer.tables.clone(),
            folder,
            stored: self.stored.clone(),
        };
        pending.when_settled(Box::new(move |target| storing.submit(target)));
        Ok(())
    }

    fn needs_all_layers(&self) -> bool {
        false
    }
}

/// A snapshot whose files go to where it is kept.
struct Storing {
    place: Arc<Place>,
    pending: Arc<Pending>,
    tables: Vec<TableSnapshot>,
    folder: PathBuf,
    stored: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

impl Storing {
    /// It is known where they go, if anywhere.
    fn submit(self, target: Option<SnapshotTarget>) {
        let (service, pending) = (self.place.service.clone(), self.pending.clone());
        let submitted = service.transfer.submit(move || match target {
            Some(target) => self.run(target),
            None => {
                discard(&self.folder);
                self.pending.part_done(Ok((Part::None, 0)));
            }
        });
        if let Err(error) = submitted {
            pending.part_done(Err(error));
        }
    }

    fn run(self, target: SnapshotTarget) {
        let files = guarded(|| self.store(&target));
        let checkpoint = self.pending.barrier.checkpoint;
        let is_savepoint = self.pending.barrier.kind.is_savepoint();
        let keep = self.place.service.options.local_backup && files.is_ok() && !is_savepoint;
        if !keep {
            discard(&self.folder);
        }
        let part = files.map(|files| {
            let names = files.iter().map(|file| file.path.clone()).collect();
            let stored = Stored { folder: target.folder.clone(), names, keep, is_superseded: false };
            lock(&self.stored).insert(checkpoint, stored);
            if self.pending.is_lost() {
                delete(&self.stored, checkpoint);
            }
            let written_bytes = files.iter().map(|file| file.size).sum();
            let (key_groups, format, tables) =
                (self.place.key_groups, ROWS_FORMAT.into(), self.tables.clone());
            let keyed = KeyedSnapshot { key_groups, format, tables, files };
            (Part::Keyed(self.place.operator, keyed), written_bytes)
        });
        self.pending.part_done(part);
    }

    fn store(&self, target: &SnapshotTarget) -> Result<Vec<SnapshotFile>> {
        let refused = |error| Error::io(self.folder.display(), error);
        let names: std::io::Result<Vec<String>> = fs::read_dir(&self.folder)
            .map_err(refused)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect();
        let mut names = names.map_err(refused)?;
        names.sort_unstable();
        let (target, stem, folder) = (target.clone(), self.place.stem.clone(), self.folder.clone());
        self.place
            .service
            .transfer
            .for_each(names, move |name: &String| put_own(&target, &stem, name, &folder.join(name)))
    }
}

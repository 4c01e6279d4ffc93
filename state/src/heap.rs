//! Keyed state that is in memory alone: every snapshot holds all rows, in files of rows: one for each
//! operator, or more of a large one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flott_schema::snapshot::{KeyedSnapshot, SnapshotFile, TableSnapshot};
use flott_schema::{Error, Result};

use crate::files;
use crate::pipeline::{Layer, Store, nothing_to_write};
use crate::place::{Place, discard, put_own};
use crate::pool::{guarded, lock};
use crate::rows::{ROWS_FORMAT, RowsWriter, Run, merge};
use crate::snapshot::{Part, Pending, SnapshotTarget};

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

    /// Writes sorted runs into the next file of a snapshot.
    fn write(&self, folder: &Path, runs: &[Arc<Run>]) -> Result<()> {
        let refused = |error| Error::io(folder.display(), error);
        fs::create_dir_all(folder).map_err(refused)?;
        let number = fs::read_dir(folder).map_err(refused)?.count();
        let path = folder.join(format!("{FILE}{number}"));
        let compress = self.place.service.options.compress;
        let mut writer = RowsWriter::create(&path, self.place.key_groups, compress)?;
        merge(runs.iter().map(|run| &**run), &mut |row| match row.value {
            Some(value) => writer.row(row.key_group, row.table, row.key, value),
            None => Ok(()),
        })?;
        writer.finish().map(drop)
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
        let Some(target) = pending.target() else {
            discard(&folder);
            nothing_to_write(layer);
            return Ok(());
        };
        if !layer.is_empty() || !folder.exists() {
            self.write(&folder, &layer.runs())?;
        }
        let storing = Storing {
            place: self.place.clone(),
            pending: pending.clone(),
            target,
            tables: layer.tables.clone(),
            folder,
            stored: self.stored.clone(),
        };
        self.place.service.transfer.submit(move || storing.run())
    }

    fn needs_all_layers(&self) -> bool {
        false
    }
}

/// A snapshot whose files go to where it is kept.
struct Storing {
    place: Arc<Place>,
    pending: Arc<Pending>,
    target: SnapshotTarget,
    tables: Vec<TableSnapshot>,
    folder: PathBuf,
    stored: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

impl Storing {
    fn run(self) {
        let files = guarded(|| self.store());
        let checkpoint = self.pending.barrier.checkpoint;
        let is_savepoint = self.pending.barrier.kind.is_savepoint();
        let keep = self.place.service.options.local_backup && files.is_ok() && !is_savepoint;
        if !keep {
            discard(&self.folder);
        }
        let part = files.map(|files| {
            let names = files.iter().map(|file| file.path.clone()).collect();
            let stored = Stored { folder: self.target.folder.clone(), names, keep };
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

    fn store(&self) -> Result<Vec<SnapshotFile>> {
        let refused = |error| Error::io(self.folder.display(), error);
        let names: std::io::Result<Vec<String>> = fs::read_dir(&self.folder)
            .map_err(refused)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect();
        let mut names = names.map_err(refused)?;
        names.sort_unstable();
        let (target, stem, folder) = (self.target.clone(), self.place.stem.clone(), self.folder.clone());
        self.place
            .service
            .transfer
            .for_each(names, move |name: &String| put_own(&target, &stem, name, &folder.join(name)))
    }
}

//! Keyed state that is in memory alone: every snapshot holds all rows, in one file of rows for each operator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use flott_schema::Result;
use flott_schema::snapshot::KeyedSnapshot;

use crate::files;
use crate::pipeline::{Layer, Store, nothing_to_write};
use crate::place::{Place, discard, put_own};
use crate::pool::{guarded, lock};
use crate::rows::{ROWS_FORMAT, RowsWriter};
use crate::snapshot::Part;

/// Name of the file, by which a local backup is found.
const FILE: &str = "rows";

/// Writes the rows of one operator.
pub(crate) struct HeapStore {
    place: Arc<Place>,
    stored: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

/// A snapshot that is stored.
struct Stored {
    folder: String,
    name: String,
    /// The local copy, if it is to be kept when the snapshot is complete.
    local: Option<PathBuf>,
}

impl HeapStore {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        HeapStore { place, stored: Arc::default() }
    }

    /// A snapshot is complete.
    pub(crate) fn completed(&self, checkpoint: u64) {
        let stored = lock(&self.stored).remove(&checkpoint);
        if let Some(local) = stored.and_then(|stored| stored.local) {
            let place = self.place.clone();
            // Refused where too much waits: then there is no backup.
            drop(self.place.service.transfer.submit(move || {
                if let Err(error) = place.keep_backup(checkpoint, &local) {
                    tracing::warn!("the local backup of checkpoint {checkpoint} is not kept: {error}");
                }
            }));
        }
    }

    /// A snapshot was given up.
    pub(crate) fn aborted(&self, checkpoint: u64) {
        if lock(&self.stored).contains_key(&checkpoint) {
            let stored = self.stored.clone();
            drop(self.place.service.transfer.submit(move || delete(&stored, checkpoint)));
        }
    }
}

/// Deletes a snapshot that nobody will read.
fn delete(stored: &Mutex<BTreeMap<u64, Stored>>, checkpoint: u64) {
    let removed = lock(stored).remove(&checkpoint);
    let Some(Stored { folder, name, local }) = removed else { return };
    if let Err(error) = files::delete(&folder, &name) {
        tracing::warn!("a file of a snapshot that was given up stays behind: {error}");
    }
    if let Some(local) = local {
        discard(&local);
    }
}

impl Store for HeapStore {
    fn apply(&self, layer: &Layer) -> Result<()> {
        let Some(pending) = &layer.snapshot else { return Ok(()) };
        let Some(target) = pending.target() else {
            nothing_to_write(layer);
            return Ok(());
        };
        let checkpoint = pending.barrier.checkpoint;
        let folder = self.place.path(&format!("checkpoint-{checkpoint}"));
        let written = self.write(layer, &folder);
        if let Err(error) = written {
            discard(&folder);
            return Err(error);
        }
        let (place, stored, pending, tables) =
            (self.place.clone(), self.stored.clone(), pending.clone(), layer.tables.clone());
        self.place.service.transfer.submit(move || {
            let file = guarded(|| put_own(&target, &place.stem, FILE, &folder.join(FILE)));
            let keep =
                place.service.options.local_backup && file.is_ok() && !pending.barrier.kind.is_savepoint();
            if !keep {
                discard(&folder);
            }
            let part = file.map(|file| {
                let size = file.size;
                let local = keep.then_some(folder);
                let done = Stored { folder: target.folder.clone(), name: file.path.clone(), local };
                lock(&stored).insert(checkpoint, done);
                if pending.is_lost() {
                    delete(&stored, checkpoint);
                }
                let keyed = KeyedSnapshot {
                    key_groups: place.key_groups,
                    format: ROWS_FORMAT.into(),
                    tables,
                    files: vec![file],
                };
                (Part::Keyed(place.operator, keyed), size)
            });
            pending.part_done(part);
        })
    }

    fn needs_all_layers(&self) -> bool {
        false
    }
}

impl HeapStore {
    fn write(&self, layer: &Layer, folder: &std::path::Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|error| flott_schema::Error::io(folder.display(), error))?;
        let compress = self.place.service.options.compress;
        let mut writer = RowsWriter::create(&folder.join(FILE), self.place.key_groups, compress)?;
        layer.each(&mut |row| match row.value {
            Some(value) => writer.row(row.key_group, row.table, row.key, value),
            None => Ok(()),
        })?;
        writer.finish().map(drop)
    }
}

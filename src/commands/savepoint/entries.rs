//! The entries of keyed state, read from the files of a snapshot.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flott::schema::ids::OperatorId;
use flott::schema::snapshot::Manifest;
use flott::state::{StateOptions, StateService, each_row};
use flott::storage::Storage;
use flott::{Error, Result};
use serde_json::Value;

use super::values::Reader;

/// Entries of a table, over all tasks.
#[derive(Default)]
pub struct TableEntries {
    /// How many there are.
    pub count: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Key and value of the first ones.
    pub shown: Vec<(Value, Value)>,
}

/// Entries by operator and name of the table.
pub struct Entries {
    /// How many are shown of each table and list.
    pub limit: usize,
    tables: BTreeMap<(OperatorId, String), TableEntries>,
}

impl Entries {
    /// Reads all keyed state, and keeps the first `limit` entries of each table.
    pub fn read(folder: &Storage, manifest: &Manifest, limit: usize) -> Result<Self> {
        let scratch = Scratch::new()?;
        let service = StateService::start(StateOptions::new(scratch.0.join("state")))?;
        let mut tables: BTreeMap<(OperatorId, String), TableEntries> = BTreeMap::new();
        let mut part = 0;
        for task in &manifest.tasks {
            for operator in &task.operators {
                let Some(id) = operator.operator else { continue };
                for keyed in &operator.keyed {
                    let mut readers = BTreeMap::new();
                    for table in &keyed.tables {
                        let entry = (
                            Reader::new(&table.key_type),
                            Reader::new(&table.value_type),
                            table.name.clone(),
                        );
                        readers.insert(table.number, entry);
                    }
                    part += 1;
                    let own = scratch.0.join(format!("part-{part}"));
                    let row = &mut |_, number, key: &[u8], value: &[u8]| {
                        let Some((keys, values, name)) = readers.get(&number) else {
                            return Err(Error::bad_input(format!(
                                "{folder}: a row is of table {number}, which the manifest does not name"
                            )));
                        };
                        let entries = tables.entry((id, name.clone())).or_default();
                        entries.count += 1;
                        entries.bytes += (key.len() + value.len()) as u64;
                        if entries.shown.len() < limit {
                            entries.shown.push((keys.show(key), values.show(value)));
                        }
                        Ok(())
                    };
                    each_row(&service, folder.uri(), task.task, keyed, &own, row)?;
                }
            }
        }
        Ok(Entries { limit, tables })
    }

    /// Those of a table.
    pub fn of(&self, operator: OperatorId, table: &str) -> Option<&TableEntries> {
        self.tables.get(&(operator, table.to_string()))
    }
}

/// A folder that goes with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("flott-inspect-{}", std::process::id()));
        // Left by another process of this number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).map_err(|error| Error::io(path.display(), error))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! The rows of one task in a snapshot, in whatever form they are.

use std::path::Path;
use std::sync::Arc;

use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::RestoreFrom;
use flott_schema::{Context, Error, Result};

use crate::checks::Unchecked;
use crate::restored::RestoredPart;
use crate::rocks::{Database, ROCKSDB_FORMAT, fetch_database};
use crate::rows::{ROWS_FORMAT, RowBuffer, RowsFile, merge};
use crate::service::StateService;

/// Rows of a part of a snapshot, fetched.
pub(crate) struct RowSource {
    /// Names the snapshot in errors.
    from: RestoreFrom,
    part: RestoredPart,
    rows: Rows,
}

enum Rows {
    Files(Vec<RowsFile>),
    Database(Database),
}

impl RowSource {
    /// Gets the files of a part into `folder`, which is made.
    pub(crate) fn fetch(
        service: &Arc<StateService>,
        from: &RestoreFrom,
        part: &RestoredPart,
        folder: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
        let rows = match part.snapshot.format.as_str() {
            ROWS_FORMAT => {
                let mut files = Vec::new();
                for (index, file) in part.snapshot.files.iter().enumerate() {
                    let local = folder.join(format!("rows-{index}"));
                    // Checked: its name is not that of a file with checksums of its own.
                    service.get_file(part, from, file, &local)?;
                    files.push(RowsFile::open(&local).at(|| format!("{from}: {}", file.path))?);
                }
                Rows::Files(files)
            }
            ROCKSDB_FORMAT => {
                let unchecked = fetch_database(service, from, part, folder)?;
                // All is read, in the order of the keys: damage is named before.
                let snapshot = from.clone();
                let part_of = part.clone();
                let check =
                    move |file: &Unchecked| part_of.check_wanted().and_then(|()| file.check(&snapshot));
                service.transfer.for_each(unchecked, check)?;
                Rows::Database(Database::open_to_read(folder, &service.tuning).at(|| from.to_string())?)
            }
            other => {
                return Err(Error::bad_input(format!(
                    "{from}: keyed state of subtask {} has the form '{other}', and this Flott reads \
                     '{ROWS_FORMAT}' and '{ROCKSDB_FORMAT}'; use a newer one",
                    part.task.subtask
                )));
            }
        };
        Ok(RowSource { from: from.clone(), part: part.clone(), rows })
    }

    /// Gives the rows (key, value) of a table that belong here.
    pub(crate) fn each_of(&self, table: u16, row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let Some(table) = self.part.stored_number(table) else { return Ok(()) };
        let (groups, row) = (self.part.key_groups, &mut |_, _, key: &[u8], value: &[u8]| row(key, value));
        let result = match &self.rows {
            Rows::Files(files) => files.iter().try_for_each(|file| file.each(groups, Some(table), row)),
            Rows::Database(database) => database.each(groups, Some(table), row),
        };
        result.at(|| self.from.to_string())
    }

    /// How many runs of sorted rows there are. No two hold the same key.
    pub(crate) fn runs(&self) -> usize {
        match &self.rows {
            Rows::Files(files) => files.len(),
            Rows::Database(_) => 1,
        }
    }

    /// Gives the rows (key group, table, key, value) of a run that belong here, in their order.
    pub(crate) fn each_sorted(
        &self,
        run: usize,
        row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let each = |key_groups, row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>| {
            let result = match &self.rows {
                Rows::Files(files) => files[run].each(key_groups, None, row),
                Rows::Database(database) => database.each(key_groups, None, row),
            };
            result.at(|| self.from.to_string())
        };
        if self.part.renumbered.is_empty() {
            return each(self.part.key_groups, row);
        }
        // Other numbers, another order: a key group after the other.
        for group in self.part.key_groups.start..self.part.key_groups.end {
            let mut buffer = RowBuffer::default();
            each(KeyGroupRange { start: group, end: group + 1 }, &mut |key_group, table, key, value| {
                buffer.push(key_group, self.part.number(table), key, Some(value))
            })?;
            merge([&buffer.sort()], &mut |one| {
                row(one.key_group, one.table, one.key, one.value.unwrap_or_default())
            })?;
        }
        Ok(())
    }
}

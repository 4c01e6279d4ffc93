//! One database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, DBRawIterator, Options, SstFileWriter, WriteOptions};

use flott_dataflow::snapshot::WantedKey;
use flott_schema::key_group::KeyGroupRange;
use flott_schema::{Error, ErrorKind, Result};

use super::expiry::{DropExpired, Expiry};
use super::tuning::{FILE_BYTES, Tuning};
use crate::ending;
use crate::rows::RowRef;

const COLUMN_FAMILY: &str = "default";
/// Bytes of key group and table in front of a key.
const HEAD_BYTES: usize = 4;
/// Rows looked up at once: each that is found holds a block of its file in memory until it is read.
const FOUND_AT_ONCE: usize = 256;

/// A database with the rows of one operator in one task.
pub(crate) struct Database {
    database: DB,
    options: Options,
    /// Rows that are dropped when files are merged.
    pub(super) expiry: Arc<Expiry>,
    directory: PathBuf,
    next_file: AtomicU64,
}

/// An error of RocksDB.
pub(super) fn refused(directory: &Path, error: &rocksdb::Error) -> Error {
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => ErrorKind::BadInput,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("the database in {}: {error}", directory.display()))
}

fn head(key_group: u16, table: u16) -> [u8; HEAD_BYTES] {
    let (group, table) = (key_group.to_be_bytes(), table.to_be_bytes());
    [group[0], group[1], table[0], table[1]]
}

impl Database {
    /// Opens the database in `directory`, or makes one.
    pub(crate) fn open(directory: &Path, tuning: &Tuning) -> Result<Self> {
        let expiry = Arc::<Expiry>::default();
        let mut options = tuning.options().clone();
        options.set_compaction_filter_factory(DropExpired(expiry.clone()));
        let families = [(COLUMN_FAMILY, options.clone())];
        let database = DB::open_cf_with_opts(&options, directory, families);
        Self::of(database, directory, options, expiry)
    }

    /// Opens a database that nobody writes.
    pub(crate) fn open_to_read(directory: &Path, tuning: &Tuning) -> Result<Self> {
        let options = tuning.options().clone();
        let families = [(COLUMN_FAMILY, options.clone())];
        let database = DB::open_cf_with_opts_for_read_only(&options, directory, families, false);
        Self::of(database, directory, options, Arc::default())
    }

    fn of(
        database: std::result::Result<DB, rocksdb::Error>,
        directory: &Path,
        options: Options,
        expiry: Arc<Expiry>,
    ) -> Result<Self> {
        let database = database.map_err(|error| refused(directory, &error))?;
        ending::wait_at_the_end();
        Ok(Database { database, options, expiry, directory: directory.into(), next_file: AtomicU64::new(0) })
    }

    fn refused(&self, error: &rocksdb::Error) -> Error {
        refused(&self.directory, error)
    }

    /// Writes rows, which `rows` gives in order, as files that become part of the database.
    pub(crate) fn write(
        &self,
        rows: impl FnOnce(&mut dyn FnMut(RowRef<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let name = format!("rows-{}", self.next_file.fetch_add(1, Ordering::Relaxed));
        let mut files = SortedFiles::new(&self.options, &self.directory, name);
        rows(&mut |row| files.row(row))?;
        self.ingest(files.finish()?)
    }

    /// Makes files of sorted rows part of the database. They must not overlap each other.
    pub(crate) fn ingest(&self, files: Vec<PathBuf>) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.database
            .ingest_external_file_opts(&Tuning::ingest(), files)
            .map_err(|error| self.refused(&error))
    }

    /// Links all files as they are now into a new folder.
    pub(crate) fn checkpoint(&self, to: &Path) -> Result<()> {
        Checkpoint::new(&self.database)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(|error| self.refused(&error))
    }

    /// Looks up rows; `found` gets the position of each key that has one, and its value.
    pub(crate) fn get(
        &self,
        table: u16,
        keys: &[WantedKey<'_>],
        positions: &[usize],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        positions.chunks(FOUND_AT_ONCE).try_for_each(|some| self.get_some(table, keys, some, found))
    }

    fn get_some(
        &self,
        table: u16,
        keys: &[WantedKey<'_>],
        positions: &[usize],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(positions.len());
        for &position in positions {
            let (key_group, key) = keys[position];
            bytes.extend_from_slice(&head(key_group, table));
            bytes.extend_from_slice(key);
            ends.push(bytes.len());
        }
        let family = self.database.cf_handle(COLUMN_FAMILY).expect("the column family that was opened");
        let starts = std::iter::once(&0).chain(&ends);
        let wanted: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[*start..*end]).collect();
        let values = self.database.batched_multi_get_cf(family, wanted.iter().copied(), false);
        for (position, value) in positions.iter().zip(values) {
            if let Some(value) = value.map_err(|error| self.refused(&error))? {
                found(*position, &value)?;
            }
        }
        Ok(())
    }

    /// The rows of one table, to be looked through in their order.
    pub(crate) fn rows_of(&self, table: u16) -> TableRows<'_> {
        let iterator = self.database.raw_iterator_opt(Tuning::page());
        TableRows { database: self, iterator, table, sought: Vec::new() }
    }

    /// Gives the rows (key group, table, key, value) of these key groups, and of one table if one is named,
    /// in their order.
    pub(crate) fn each(
        &self,
        key_groups: KeyGroupRange,
        table: Option<u16>,
        row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut iterator = self.database.raw_iterator_opt(Tuning::scan());
        let mut group = key_groups.start;
        while group < key_groups.end {
            iterator.seek(head(group as u16, table.unwrap_or(0)));
            // Without a table all groups follow each other; with one, each has to be looked for.
            let mut next = key_groups.end;
            while let Some((key, value)) = iterator.item() {
                let Some((front, key)) = key.split_first_chunk::<HEAD_BYTES>() else {
                    return Err(Error::bad_input(format!(
                        "the database in {} has a key of {} bytes; it is not one of Flott's",
                        self.directory.display(),
                        key.len()
                    )));
                };
                let key_group = u16::from_be_bytes([front[0], front[1]]);
                let of = u16::from_be_bytes([front[2], front[3]]);
                if u32::from(key_group) >= key_groups.end {
                    break;
                }
                if let Some(table) = table
                    && (u32::from(key_group) != group || of != table)
                {
                    // The key groups in between have no rows at all.
                    next = u32::from(key_group) + u32::from(u32::from(key_group) == group || of > table);
                    break;
                }
                row(key_group, of, key, value)?;
                iterator.next();
            }
            iterator.status().map_err(|error| self.refused(&error))?;
            group = next;
        }
        Ok(())
    }

    /// Deletes the rows of all key groups but these.
    pub(crate) fn keep(&self, key_groups: KeyGroupRange) -> Result<()> {
        let bound = |group: u32| match u16::try_from(group) {
            Ok(group) => group.to_be_bytes().to_vec(),
            Err(_) => vec![0xff; HEAD_BYTES + 1],
        };
        let family = self.database.cf_handle(COLUMN_FAMILY).expect("the column family that was opened");
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        for (from, to) in [(0, key_groups.start), (key_groups.end, u32::MAX)] {
            let (from, to) = (bound(from), bound(to));
            if from < to {
                self.database
                    .delete_file_in_range(&from, &to)
                    .and_then(|()| self.database.delete_range_cf_opt(family, &from, &to, &options))
                    .map_err(|error| self.refused(&error))?;
            }
        }
        self.database.flush().map_err(|error| self.refused(&error))
    }

    /// Deletes the rows of a table.
    pub(crate) fn drop_table(&self, table: u16, key_groups: KeyGroupRange) -> Result<()> {
        let family = self.database.cf_handle(COLUMN_FAMILY).expect("the column family that was opened");
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        for group in key_groups.start..key_groups.end {
            let from = head(group as u16, table);
            let to = table.checked_add(1).map_or(head(group as u16 + 1, 0), |next| head(group as u16, next));
            self.database
                .delete_range_cf_opt(family, from, to, &options)
                .map_err(|error| self.refused(&error))?;
        }
        self.database.flush().map_err(|error| self.refused(&error))
    }

    /// Puts other values in place of those of a table: `value` appends what becomes of one.
    pub(crate) fn rewrite(
        &self,
        table: u16,
        key_groups: KeyGroupRange,
        value: &dyn Fn(&[u8], &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let mut now = Vec::new();
        self.write(|row| {
            self.each(key_groups, Some(table), &mut |key_group, table, key, stored| {
                now.clear();
                value(stored, &mut now)?;
                row(RowRef { key_group, table, key, value: Some(&now) })
            })
        })
    }

    /// Number of files of sorted rows.
    #[cfg(test)]
    pub(crate) fn files(&self) -> usize {
        self.database.live_files().map_or(0, |files| files.len())
    }

    /// Waits until no files are to be merged any more.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        self.database.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).unwrap();
    }

    /// Makes few files of many.
    #[cfg(test)]
    pub(crate) fn compact(&self) {
        self.database.compact_range::<&[u8], &[u8]>(None, None);
    }
}

/// A place among the rows of one table.
pub(crate) struct TableRows<'a> {
    database: &'a Database,
    iterator: DBRawIterator<'a>,
    table: u16,
    sought: Vec<u8>,
}

impl TableRows<'_> {
    /// Goes to the first row of a key group from `key` on, or to what comes behind it; never back.
    pub(crate) fn seek(&mut self, key_group: u16, key: &[u8]) -> Result<()> {
        let is_first = self.sought.is_empty();
        self.sought.clear();
        self.sought.extend_from_slice(&head(key_group, self.table));
        self.sought.extend_from_slice(key);
        // Where key groups in between have no rows it is there already, or at the end.
        let is_there = match self.iterator.key() {
            Some(at) => at >= &self.sought[..],
            None => !is_first,
        };
        if !is_there {
            self.iterator.seek(&self.sought);
        }
        self.check()
    }

    /// The row (key, value), if it is one of this key group and table.
    pub(crate) fn row(&self, key_group: u16) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.iterator.item()?;
        key.strip_prefix(&head(key_group, self.table)).map(|key| (key, value))
    }

    /// Goes to the next row.
    pub(crate) fn next(&mut self) -> Result<()> {
        self.iterator.next();
        self.check()
    }

    fn check(&self) -> Result<()> {
        self.iterator.status().map_err(|error| self.database.refused(&error))
    }
}

/// Sorted rows on their way into files that can be ingested.
pub(super) struct SortedFiles<'a> {
    options: &'a Options,
    directory: &'a Path,
    name: String,
    writer: Option<SstFileWriter<'a>>,
    files: Vec<PathBuf>,
    bytes: u64,
    key: Vec<u8>,
}

impl<'a> SortedFiles<'a> {
    /// Files in `directory` whose names begin with `name`.
    pub(super) fn new(options: &'a Options, directory: &'a Path, name: String) -> Self {
        SortedFiles { options, directory, name, writer: None, files: Vec::new(), bytes: 0, key: Vec::new() }
    }

    fn refused(&self, error: &rocksdb::Error) -> Error {
        refused(self.directory, error)
    }

    /// Adds a row; they come in order.
    pub(super) fn row(&mut self, row: RowRef<'_>) -> Result<()> {
        if self.bytes >= FILE_BYTES {
            self.end_file()?;
        }
        self.key.clear();
        self.key.extend_from_slice(&head(row.key_group, row.table));
        self.key.extend_from_slice(row.key);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let path = self.directory.join(format!("{}-{}.sst", self.name, self.files.len()));
                let writer = SstFileWriter::create(self.options);
                writer.open(&path).map_err(|error| refused(self.directory, &error))?;
                self.files.push(path);
                self.writer.insert(writer)
            }
        };
        let written = match row.value {
            Some(value) => writer.put(&self.key, value),
            None => writer.delete(&self.key),
        };
        self.bytes += (self.key.len() + row.value.map_or(0, <[u8]>::len)) as u64;
        written.map_err(|error| refused(self.directory, &error))
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.finish().map_err(|error| self.refused(&error))?;
        }
        self.bytes = 0;
        Ok(())
    }

    /// The files that were written.
    pub(super) fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.end_file()?;
        Ok(std::mem::take(&mut self.files))
    }
}

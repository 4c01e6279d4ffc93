//! The database of a coordinator: one RocksDB with the log, what belongs beside it, and the latest snapshot.
//!
//! Every record carries a checksum ([`record`]); all are read when the database is opened, so that a damaged one is
//! found before anything is decided on it. The log is short: a snapshot cuts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott_schema::error::Result as SchemaResult;
use flott_schema::wire::generated::raft_capnp as form;
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, IteratorMode,
    LogLevel, Options, WriteBatch,
};
use tokio::sync::{oneshot, watch};

use super::codec;
use super::error::JournalError;
use super::flusher::{Done, Flusher};
use super::record;
use super::types::{Entry, LogId, SnapshotMeta, Vote};

const LOG: &str = "log";
const META: &str = "meta";
const SNAPSHOT: &str = "snapshot";

const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const VOTE_KEY: &[u8] = b"vote";
const COMMITTED_KEY: &[u8] = b"committed";
const PURGED_KEY: &[u8] = b"purged";
const SNAPSHOT_META_KEY: &[u8] = b"meta";
const SNAPSHOT_DATA_KEY: &[u8] = b"data";

/// More than an entry, so that the next write does not wait until a large one is flushed.
const MEMTABLE_BYTES: usize = 8 << 20;
const WAL_BYTES_MAX: u64 = 16 << 20;

type Result<T> = std::result::Result<T, JournalError>;

/// The database. Dropping the last reference closes it.
#[derive(Debug)]
pub(super) struct Store {
    /// In front of the database, so that it ends first.
    flusher: Flusher,
    database: Arc<DB>,
    directory: PathBuf,
    /// Bytes appended to the log since the latest snapshot.
    log_bytes: AtomicU64,
    /// Goes when everything else has gone.
    _open: watch::Sender<()>,
}

impl Store {
    /// Opens the database in `directory`, or makes one, and checks every record. The receiver's channel ends when the
    /// database has been closed.
    pub(super) fn open(directory: &Path) -> Result<(Arc<Self>, watch::Receiver<()>)> {
        let refused = |reason: String| JournalError::Database { directory: directory.into(), reason };
        std::fs::create_dir_all(directory).map_err(|error| refused(error.to_string()))?;
        let families = [LOG, META, SNAPSHOT].map(|name| ColumnFamilyDescriptor::new(name, family_options()));
        let database = DB::open_cf_descriptors(&database_options(), directory, families)
            .map_err(|error| refused(error.to_string()))?;
        let database = Arc::new(database);
        let flusher = Flusher::start(database.clone()).map_err(|error| refused(error.to_string()))?;
        let (open, closed) = watch::channel(());
        let store = Store {
            flusher,
            database,
            directory: directory.into(),
            log_bytes: AtomicU64::new(0),
            _open: open,
        };
        store.check_format()?;
        store.check()?;
        Ok((Arc::new(store), closed))
    }

    fn check_format(&self) -> Result<()> {
        let stored = self.get(META, FORMAT_KEY)?;
        let known = FORMAT.to_le_bytes();
        match stored.as_deref() {
            None => {
                let mut batch = WriteBatch::default();
                batch.put_cf(self.family(META), FORMAT_KEY, record::seal(FORMAT_KEY, &known));
                self.write(batch)
            }
            Some(stored) if stored == known => Ok(()),
            Some(stored) => Err(JournalError::Format {
                directory: self.directory.clone(),
                found: stored
                    .first_chunk()
                    .map_or("unknown".into(), |it| u32::from_le_bytes(*it).to_string()),
                known: FORMAT,
            }),
        }
    }

    /// Reads every record once.
    fn check(&self) -> Result<()> {
        let snapshot = self.snapshot_meta()?.and_then(|meta| meta.last_log_id).map(|id| id.index);
        let mut bytes = 0;
        for record in self.database.iterator_cf(self.family(LOG), IteratorMode::Start) {
            let (key, value) = record.map_err(|error| self.refused(error))?;
            let entry = self.entry(&key, &value)?;
            if snapshot.is_none_or(|last| entry.log_id.index > last) {
                bytes += value.len() as u64;
            }
        }
        self.log_bytes.store(bytes, Ordering::Relaxed);
        self.vote()?;
        self.log_id(COMMITTED_KEY)?;
        self.log_id(PURGED_KEY)?;
        self.get(SNAPSHOT, SNAPSHOT_DATA_KEY).map(|_| ())
    }

    // The log.

    /// Appends entries: readable at once, on the disk when `done` is told.
    pub(super) fn append(&self, entries: impl IntoIterator<Item = Entry>, done: Done) -> Result<()> {
        let mut batch = WriteBatch::default();
        for entry in entries {
            let key = entry.log_id.index.to_be_bytes();
            let message = self.message::<form::entry::Owned>(|form| codec::write_entry(&entry, form))?;
            batch.put_cf(self.family(LOG), key, record::seal(&key, &message));
        }
        self.log_bytes.fetch_add(batch.size_in_bytes() as u64, Ordering::Relaxed);
        self.write(batch)?;
        self.flusher.flush(done);
        Ok(())
    }

    /// Entries from `start` up to `end` (exclusive), in order; stops before `bytes_max`, but not before the first.
    pub(super) fn entries(&self, start: u64, end: Option<u64>, bytes_max: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let from = start.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        for record in self.database.iterator_cf(self.family(LOG), mode) {
            let (key, value) = record.map_err(|error| self.refused(error))?;
            bytes += value.len();
            let is_full = bytes > bytes_max && !entries.is_empty();
            if end.is_some_and(|end| *key >= end.to_be_bytes()[..]) || is_full {
                break;
            }
            entries.push(self.entry(&key, &value)?);
        }
        Ok(entries)
    }

    /// The last entry's id, if there is an entry.
    pub(super) fn last(&self) -> Result<Option<LogId>> {
        match self.database.iterator_cf(self.family(LOG), IteratorMode::End).next() {
            None => Ok(None),
            Some(record) => {
                let (key, value) = record.map_err(|error| self.refused(error))?;
                Ok(Some(self.entry(&key, &value)?.log_id))
            }
        }
    }

    /// Removes the entries from `index` on.
    pub(super) fn truncate(&self, index: u64) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.family(LOG), index.to_be_bytes(), u64::MAX.to_be_bytes());
        self.write(batch)
    }

    /// Removes the entries up to `last` (inclusive), and remembers it.
    pub(super) fn purge(&self, last: &LogId) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.family(LOG), 0u64.to_be_bytes(), (last.index + 1).to_be_bytes());
        self.put_log_id(&mut batch, PURGED_KEY, last)?;
        self.write(batch)
    }

    pub(super) fn purged(&self) -> Result<Option<LogId>> {
        self.log_id(PURGED_KEY)
    }

    /// Bytes appended since the latest snapshot, roughly.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// Counts how often the disk was waited for.
    pub(super) fn sync_count(&self) -> Arc<AtomicU64> {
        self.flusher.sync_count()
    }

    // Beside the log.

    /// Saves a vote; it is on the disk when the receiver is told.
    pub(super) fn save_vote(&self, vote: &Vote) -> Result<oneshot::Receiver<std::io::Result<()>>> {
        let message = self.message::<form::vote::Owned>(|form| codec::write_vote(vote, form))?;
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(META), VOTE_KEY, record::seal(VOTE_KEY, &message));
        self.write(batch)?;
        Ok(self.synced())
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>> {
        self.read::<form::vote::Owned, _>(META, VOTE_KEY, |form| Ok(codec::read_vote(form)))
    }

    /// Remembers what is committed. Not waited for: it may be behind after a crash of the host.
    pub(super) fn save_committed(&self, committed: Option<&LogId>) -> Result<()> {
        let mut batch = WriteBatch::default();
        match committed {
            Some(id) => self.put_log_id(&mut batch, COMMITTED_KEY, id)?,
            None => batch.delete_cf(self.family(META), COMMITTED_KEY),
        }
        self.write(batch)
    }

    pub(super) fn committed(&self) -> Result<Option<LogId>> {
        self.log_id(COMMITTED_KEY)
    }

    // The snapshot.

    /// Replaces the snapshot; it is on the disk when the receiver is told.
    pub(super) fn save_snapshot(
        &self,
        meta: &SnapshotMeta,
        data: &[u8],
    ) -> Result<oneshot::Receiver<std::io::Result<()>>> {
        let message =
            self.message::<form::snapshot_meta::Owned>(|form| codec::write_snapshot_meta(meta, form))?;
        let mut batch = WriteBatch::default();
        let family = self.family(SNAPSHOT);
        batch.put_cf(family, SNAPSHOT_META_KEY, record::seal(SNAPSHOT_META_KEY, &message));
        batch.put_cf(family, SNAPSHOT_DATA_KEY, record::seal(SNAPSHOT_DATA_KEY, data));
        self.write(batch)?;
        self.log_bytes.store(0, Ordering::Relaxed);
        Ok(self.synced())
    }

    pub(super) fn snapshot_meta(&self) -> Result<Option<SnapshotMeta>> {
        self.read::<form::snapshot_meta::Owned, _>(SNAPSHOT, SNAPSHOT_META_KEY, codec::read_snapshot_meta)
    }

    pub(super) fn snapshot_data(&self) -> Result<Option<Vec<u8>>> {
        self.get(SNAPSHOT, SNAPSHOT_DATA_KEY)
    }

    // Records.

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<Entry> {
        let name = || {
            let index = key.first_chunk().map_or("?".to_string(), |it| u64::from_be_bytes(*it).to_string());
            format!("entry {index} of the coordinator's log in '{}'", self.directory.display())
        };
        let message = record::open(key, value, name)?;
        codec::from_message::<form::entry::Owned, _>(message, codec::read_entry)
            .map_err(|error| JournalError::Unreadable { record: name(), reason: error.to_string() })
    }

    fn log_id(&self, key: &[u8]) -> Result<Option<LogId>> {
        self.read::<form::log_id::Owned, _>(META, key, |form| Ok(codec::read_log_id(form)))
    }

    fn put_log_id(&self, batch: &mut WriteBatch, key: &[u8], id: &LogId) -> Result<()> {
        let message = self.message::<form::log_id::Owned>(|form| codec::write_log_id(id, form))?;
        batch.put_cf(self.family(META), key, record::seal(key, &message));
        Ok(())
    }

    fn name(&self, family: &str, key: &[u8]) -> String {
        let key = String::from_utf8_lossy(key);
        format!("record '{family}/{key}' of the coordinator's log in '{}'", self.directory.display())
    }

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value =
            self.database.get_pinned_cf(self.family(family), key).map_err(|error| self.refused(error))?;
        let Some(value) = value else { return Ok(None) };
        record::open(key, &value, || self.name(family, key)).map(|message| Some(message.to_vec()))
    }

    fn read<F: capnp::traits::Owned, T>(
        &self,
        family: &str,
        key: &[u8],
        read: impl FnOnce(F::Reader<'_>) -> SchemaResult<T>,
    ) -> Result<Option<T>> {
        let Some(message) = self.get(family, key)? else { return Ok(None) };
        let unreadable = |error: flott_schema::error::Error| JournalError::Unreadable {
            record: self.name(family, key),
            reason: error.to_string(),
        };
        codec::from_message::<F, T>(&message, read).map(Some).map_err(unreadable)
    }

    fn message<F: capnp::traits::Owned>(&self, write: impl FnOnce(F::Builder<'_>)) -> Result<Vec<u8>> {
        codec::message::<F>(|form| {
            write(form);
            Ok(())
        })
        .map_err(|error| self.refused(error))
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.database.cf_handle(name).expect("the database was opened with all its families")
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.database.write(batch).map_err(|error| self.refused(error))
    }

    fn synced(&self) -> oneshot::Receiver<std::io::Result<()>> {
        let (done, saved) = oneshot::channel();
        self.flusher.flush(Done::Saved(done));
        saved
    }

    fn refused(&self, error: impl ToString) -> JournalError {
        JournalError::Database { directory: self.directory.clone(), reason: error.to_string() }
    }
}

/// Small: a log that is cut at some megabytes needs no caches, and the coordinator's memory is better used elsewhere.
fn database_options() -> Options {
    let mut options = family_options();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(32);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // A torn end is what a crash leaves, and was never promised; damage before it must not go unnoticed.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options
}

fn family_options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.disable_cache();
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_block_based_table_factory(&blocks);
    options
}

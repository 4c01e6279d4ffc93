//! The log as openraft wants it, over the [`Store`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};

use super::flusher::Done;
use super::store::Store;
use super::types::{Entry, LogId, StorageError, Types, Vote};

/// Bytes of entries sent to another member at once, roughly; an entry that is larger goes alone. Signs of life of the leader
/// wait behind them.
const READ_BYTES_MAX: usize = 1 << 20;

/// openraft's hold on the log.
#[derive(Clone, Debug)]
pub struct LogStore {
    store: Arc<Store>,
}

impl LogStore {
    pub(super) fn new(store: Arc<Store>) -> Self {
        LogStore { store }
    }
}

/// Errors of openraft hold the error's text.
fn any(error: impl std::error::Error + 'static) -> AnyError {
    AnyError::new(&error)
}

/// Waits until something is on the disk.
pub(super) async fn on_disk(saved: tokio::sync::oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    saved.await.unwrap_or_else(|_| Err(io::Error::other("the thread of the log has ended")))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => Some(index + 1),
            Bound::Excluded(index) => Some(*index),
            Bound::Unbounded => None,
        };
        self.store
            .entries(start, end, usize::MAX)
            .map_err(|error| StorageIOError::read_logs(any(error)).into())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.store
            .entries(start, Some(end), READ_BYTES_MAX)
            .map_err(|error| StorageIOError::read_logs(any(error)).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let read = || {
            let purged = self.store.purged()?;
            Ok((purged, self.store.last()?.or(purged)))
        };
        let (last_purged_log_id, last_log_id) =
            read().map_err(|error: super::error::JournalError| StorageIOError::read_logs(any(error)))?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.store.save_vote(vote).map_err(|error| StorageIOError::write_vote(any(error)))?;
        on_disk(saved).await.map_err(|error| StorageIOError::write_vote(any(error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.store.vote().map_err(|error| StorageIOError::read_vote(any(error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.store
            .save_committed(committed.as_ref())
            .map_err(|error| StorageIOError::write_logs(any(error)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.store.committed().map_err(|error| StorageIOError::read_logs(any(error)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.store
            .append(entries, Done::Appended(callback))
            .map_err(|error| StorageIOError::write_logs(any(error)).into())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.store.truncate(log_id.index).map_err(|error| StorageIOError::write_logs(any(error)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.store.purge(&log_id).map_err(|error| StorageIOError::write_logs(any(error)).into())
    }
}

//! The records of a partition or of a key, as a function reads them.

use std::cell::Cell;
use std::collections::VecDeque;

use flott_schema::{Error, Result};

use crate::batch::NO_TIMESTAMP;

/// Records fetched at a time.
pub(super) const FETCHED: usize = 1024;

/// Where records come from; asked once for many.
pub(super) trait Fetch<T> {
    /// Appends the next records to `ready`, about [`FETCHED`]; none when there are no more.
    fn fetch(&mut self, ready: &mut VecDeque<(T, i64)>) -> Result<()>;
}

/// The records of a partition or of a key, once each, and owned. They may come from disk: only what the function keeps
/// is in memory.
pub struct Records<'a, T> {
    reading: &'a mut Reading<T>,
    source: &'a mut dyn Fetch<T>,
    largest: &'a Cell<i64>,
    timestamp: i64,
}

/// What stays between the calls of a function.
pub(super) struct Reading<T> {
    ready: VecDeque<(T, i64)>,
    /// Why the records ended early.
    failure: Option<Error>,
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Reading { ready: VecDeque::new(), failure: None }
    }
}

impl<T> Reading<T> {
    /// The records of `source`; `largest` follows the largest timestamp given out.
    pub fn records<'a>(&'a mut self, source: &'a mut dyn Fetch<T>, largest: &'a Cell<i64>) -> Records<'a, T> {
        Records { reading: self, source, largest, timestamp: NO_TIMESTAMP }
    }

    /// After the function: reports why it may have seen too little.
    pub fn failed(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// After the function: reads past what it left unread, and does what [`Self::failed`] does.
    pub fn finish(&mut self, source: &mut dyn Fetch<T>) -> Result<()> {
        self.failed()?;
        loop {
            self.ready.clear();
            source.fetch(&mut self.ready)?;
            if self.ready.is_empty() {
                return Ok(());
            }
        }
    }
}

impl<T> Records<'_, T> {
    /// The timestamp of the record given last, epoch milliseconds.
    pub fn timestamp(&self) -> Option<i64> {
        Some(self.timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP)
    }

    #[cold]
    fn fetch(&mut self) {
        if self.reading.failure.is_none() {
            self.reading.failure = self.source.fetch(&mut self.reading.ready).err();
        }
    }
}

impl<T> Iterator for Records<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.reading.ready.is_empty() {
            self.fetch();
        }
        let (record, timestamp) = self.reading.ready.pop_front()?;
        self.timestamp = timestamp;
        self.largest.set(self.largest.get().max(timestamp));
        Some(record)
    }
}

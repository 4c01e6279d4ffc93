//! A sink that gathers records in memory, for tests and small results.
//!
//! Who may call it: job authors whose job runs in their own process (the embedded cluster), tests. What must never happen
//! here: growth without bound.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_schema::{Error, ErrorKind, Result};

/// Records that are gathered unless [`Collected::with_limit`] says otherwise.
pub const DEFAULT_LIMIT: usize = 10_000_000;

/// The records that the tasks of a sink have gathered. Clones share them.
///
/// Records are there as soon as they are written, in the order in which tasks wrote their batches; a job that restarts
/// from a checkpoint writes those since then again (at least once). On a cluster of several processes each has its own.
pub struct Collected<T> {
    shared: Arc<Shared<T>>,
    limit: usize,
}

struct Shared<T> {
    records: Mutex<Vec<T>>,
    grown: Condvar,
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Collected { shared: self.shared.clone(), limit: self.limit }
    }
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Collected<T> {
    /// Nothing yet, and room for ten million records.
    pub fn new() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
    }

    /// Nothing yet; a job that writes more than `limit` records fails.
    pub fn with_limit(limit: usize) -> Self {
        Collected { shared: Arc::new(Shared { records: Mutex::default(), grown: Condvar::new() }), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // Whoever panicked with the lock held has at most left a batch out, and its job has failed.
        self.shared.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what there is.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until there are `count` records, at most for `timeout`; false if there are fewer then.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut records = self.lock();
        while records.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.grown.wait_timeout(records, left);
            records = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }

    /// A sink that adds to these records.
    pub fn sink(&self) -> Collect<T> {
        Collect(self.clone())
    }
}

impl<T: Clone> Collected<T> {
    /// A copy of what there is.
    pub fn to_vec(&self) -> Vec<T> {
        self.lock().clone()
    }
}

/// The sink of a [`Collected`].
pub struct Collect<T>(Collected<T>);

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Collect(self.0.clone())
    }
}

impl<T: Record> Sink<T> for Collect<T> {
    type Committable = ();
    type Writer = Collect<T>;
    type Committer = NothingToCommit;

    fn writer(&self, _ctx: &OperatorContext) -> Result<Collect<T>> {
        Ok(self.clone())
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

impl<T: Record> SinkWriter<T> for Collect<T> {
    type Committable = ();

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        let mut records = self.0.lock();
        if records.len() + batch.len() > self.0.limit {
            let limit = self.0.limit;
            return Err(Error::new(
                ErrorKind::Resources,
                format!(
                    "more than {limit} records to collect in memory; write them to a file, or raise the limit with \
                     Collected::with_limit"
                ),
            ));
        }
        records.extend(batch.records);
        drop(records);
        self.0.shared.grown.notify_all();
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::context;

    #[test]
    fn tasks_add_to_one_collection() {
        let collected = Collected::new();
        for subtask in 0..2 {
            let mut writer = collected.sink().writer(&context(subtask, 2)).unwrap();
            writer.write(Batch::of(vec![subtask; 2])).unwrap();
        }
        assert_eq!(collected.to_vec(), [0, 0, 1, 1]);
        assert_eq!(collected.take().len(), 4);
        assert!(collected.is_empty());
    }

    #[test]
    fn more_than_the_limit_is_an_error_that_says_what_to_do() {
        let collected = Collected::with_limit(3);
        let mut writer = collected.sink().writer(&context(0, 1)).unwrap();
        writer.write(Batch::of(vec![1, 2, 3])).unwrap();
        let error = writer.write(Batch::of(vec![4])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resources);
        assert!(error.to_string().contains("more than 3 records"), "{error}");
        assert_eq!(collected.len(), 3);
    }

    #[test]
    fn waiting_ends_with_the_last_record_or_the_timeout() {
        let collected = Collected::new();
        assert!(!collected.wait_for(1, Duration::from_millis(1)));
        let sink = collected.sink();
        let thread = std::thread::spawn(move || {
            let mut writer = sink.writer(&context(0, 1)).unwrap();
            for n in 0..3 {
                writer.write(Batch::of(vec![n])).unwrap();
            }
        });
        assert!(collected.wait_for(3, Duration::from_secs(60)));
        thread.join().unwrap();
    }
}

//! The thread that waits for the disk: what was written before a call is on the disk when the call is answered. Calls that
//! wait together share one sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use openraft::storage::LogFlushed;
use rocksdb::DB;
use tokio::sync::oneshot;

use super::types::Types;

/// Calls that may wait. openraft has one append and one vote under way at most.
const CALLS_MAX: usize = 64;

/// Who is told.
pub(super) enum Done {
    /// openraft, of appended entries.
    Appended(LogFlushed<Types>),
    /// A caller.
    Saved(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Appended(callback) => callback.log_io_completed(result),
            // Who called may be gone.
            Done::Saved(reply) => drop(reply.send(result)),
        }
    }
}

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Flusher {
    calls: Option<SyncSender<Done>>,
    thread: Option<JoinHandle<()>>,
    syncs: Arc<AtomicU64>,
}

impl Flusher {
    pub(super) fn start(database: Arc<DB>) -> io::Result<Self> {
        let (calls, waiting) = sync_channel(CALLS_MAX);
        let syncs = Arc::new(AtomicU64::new(0));
        let count = syncs.clone();
        let thread = std::thread::Builder::new()
            .name("flott-log".into())
            .spawn(move || run(&database, &waiting, &count))?;
        Ok(Flusher { calls: Some(calls), thread: Some(thread), syncs })
    }

    /// Has everything that is written brought to the disk, and `done` told.
    pub(super) fn flush(&self, done: Done) {
        let gone = || io::Error::other("the thread of the log has ended");
        match &self.calls {
            Some(calls) => {
                if let Err(refused) = calls.send(done) {
                    refused.0.tell(Err(gone()));
                }
            }
            None => done.tell(Err(gone())),
        }
    }

    /// Counts the syncs.
    pub(super) fn sync_count(&self) -> Arc<AtomicU64> {
        self.syncs.clone()
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(database: &DB, calls: &Receiver<Done>, syncs: &AtomicU64) {
    while let Ok(first) = calls.recv() {
        let mut waiting = vec![first];
        waiting.extend(calls.try_iter());
        let result = database.flush_wal(true);
        syncs.fetch_add(1, Ordering::Relaxed);
        for done in waiting {
            let result = result.clone().map_err(|error| io::Error::other(error.to_string()));
            done.tell(result);
        }
    }
}

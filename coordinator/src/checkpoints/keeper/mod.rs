//! The threads that write manifests and delete files.
//!
//! Manifests, deletions, and what people and new leaders ask have threads of their own: completing a checkpoint never waits for files
//! of an older one to go. Among each of them every job has a place of its own: a storage that does not answer takes one thread, and holds
//! up the jobs that use it. Who may call it: [`crate::service`]. What must never happen here: manifests of one job that are written in
//! another order than they were given; a folder that comes back because it was deleted before its manifest came.
//!
//! * [`Keeper`]: the way to the threads; `pool`: work that waits for them; `work`: what they do; `storing`: manifests under way

mod pool;
mod storing;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::ids::JobId;
use flott_schema::snapshot::Manifest;
use tokio::sync::mpsc;

use self::pool::{Bounds, Pool, Watched};
use self::storing::Storing;
use self::work::{Question, Store};
use super::action::{Deletion, Survey, Surveyed};

/// Manifests: beyond these bounds they fail their snapshots.
const MANIFESTS: Bounds = Bounds { threads: 16, waiting: 1_024, waiting_of_owner: 64 };

/// Files and folders to be deleted. What is beyond these bounds is given back, and tried again with the job's next deletion.
const DELETIONS: Bounds = Bounds { threads: 8, waiting: 200_000, waiting_of_owner: 50_000 };

/// Surveys, which are tried again, and disposals.
const QUESTIONS: Bounds = Bounds { threads: 8, waiting: 256, waiting_of_owner: 4 };

/// How much of what the threads have done may wait to be heard.
const DONE_MAX: usize = 256;

/// How often it is looked for calls that do not return.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// What the threads have done.
#[derive(Debug)]
pub enum Done {
    /// A manifest is stored, in so many bytes, or is not.
    Stored {
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// Bytes, or why not.
        result: std::result::Result<u64, String>,
    },
    /// These files could not be deleted.
    NotDeleted(Deletion),
    /// The snapshot that the job has claimed is deleted.
    ClaimEnded(JobId),
    /// What was found.
    Surveyed(JobId, Surveyed),
}

/// The way to the threads. They end when all clones are gone.
#[derive(Clone, Debug)]
pub struct Keeper {
    manifests: Pool<Store>,
    storing: Arc<Storing>,
    deletions: Pool<Deletion>,
    questions: Pool<Question>,
    /// Numbers the requests.
    requests: Arc<AtomicU64>,
    /// The watch ends with it.
    _watch: SyncSender<()>,
}

impl Keeper {
    /// The way to threads, which are started when there is work for them; gives also what they will have done. If one cannot be started,
    /// what it is given fails.
    pub fn start() -> (Self, mpsc::Receiver<Done>) {
        let (done, finished) = mpsc::channel(DONE_MAX);
        let storing = Arc::new(Storing::default());
        let (under_way, told) = (storing.clone(), done.clone());
        let manifests = Pool::new("manifests", MANIFESTS, move |store| work::write(store, &under_way, &told));
        let told = done.clone();
        let deletions =
            Pool::new("deletions", DELETIONS, move |deletion| work::delete_and_tell(deletion, &told));
        let questions = Pool::new("snapshots", QUESTIONS, move |question| work::answer(question, &done));
        let watched = [manifests.watched(), deletions.watched(), questions.watched()];
        let (watch, ended) = sync_channel(0);
        let thread = std::thread::Builder::new().name("flott-storage".into());
        if let Err(error) = thread.spawn(move || look_for_slow(&watched, &ended)) {
            tracing::error!(%error, "nobody will tell of a storage that does not answer: there is no thread for that");
        }
        let requests = Arc::default();
        (Keeper { manifests, storing, deletions, questions, requests, _watch: watch }, finished)
    }

    /// Writes a manifest. An error says why it was not even begun.
    pub(crate) fn store(
        &self,
        job: JobId,
        checkpoint: u64,
        folder: String,
        manifest: Box<Manifest>,
    ) -> std::result::Result<(), String> {
        self.storing.begin(&folder);
        self.manifests.push(Store { job, checkpoint, folder, manifest }).map_err(|store| {
            self.storing.end(&store.folder);
            "the storage is slow: too many manifests wait for it".to_string()
        })
    }

    /// Deletes files; gives them back if there is no room for the work.
    pub(crate) fn delete(&self, deletion: Deletion) -> std::result::Result<(), Deletion> {
        let deletion = self.storing.without(deletion);
        if deletion.is_empty() { Ok(()) } else { self.deletions.push(deletion) }
    }

    /// Looks at what a leader has left. False: there is no room for the work.
    pub(crate) fn survey(&self, survey: Survey) -> bool {
        self.questions.push(Question::Survey(survey)).is_ok()
    }

    /// Deletes a savepoint, as its owner wants. What is no snapshot is left alone.
    pub async fn dispose(&self, folder: String) -> Result<()> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let unable = |reason: &str| Error::new(ErrorKind::Io, reason);
        let busy = |_| unable("the storage is slow: too many requests wait for it; try again");
        self.questions.push(Question::Dispose { number, folder, reply }).map_err(busy)?;
        answer.await.map_err(|_| {
            unable("the savepoint is deleted in part: the thread that did it has ended; try again")
        })?
    }
}

/// Tells people of calls that do not return, until there is no keeper any more.
fn look_for_slow(watched: &[Box<dyn Watched>], ended: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(WATCH_PAUSE) {
        let now = Instant::now();
        for pool in watched {
            pool.warn(now);
        }
    }
}

//! The threads that write manifests and delete files.
//!
//! Manifests, deletions, and what people and new leaders ask have threads of their own: completing a checkpoint never waits for files
//! of an older one to go. Who may call it: [`crate::service`]. What must never happen here: manifests of one job that are written in
//! another order than they were given; a folder that comes back because it was deleted before its manifest came.
//!
//! * [`Keeper`]: the way to the threads; `deletions`: what waits to be deleted; `storing`: manifests under way

mod deletions;
mod storing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use flott_schema::error::{Error, Result};
use flott_schema::ids::JobId;
use flott_schema::snapshot::Manifest;
use flott_storage::{Storage, manifest};
use tokio::sync::mpsc;

use self::deletions::Deletions;
use self::storing::Storing;
use super::action::{Deletion, Survey, Surveyed};
use super::claimed;
use super::registry::shared_names;

/// Threads that write manifests. Those of one job are written by one of them, in order.
const WRITERS: usize = 4;

/// Manifests that may wait for one thread. More of them fail their snapshots.
const MANIFESTS_MAX: usize = 256;

/// Questions that may wait: surveys, which are tried again, and disposals.
const QUESTIONS_MAX: usize = 256;

/// A manifest to write.
#[derive(Debug)]
struct Store {
    job: JobId,
    checkpoint: u64,
    folder: String,
    manifest: Box<Manifest>,
}

/// What is asked.
#[derive(Debug)]
enum Question {
    Survey(Survey),
    Dispose { folder: String, reply: tokio::sync::oneshot::Sender<Result<()>> },
}

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
    /// What was found.
    Surveyed(JobId, Surveyed),
}

/// The way to the threads. They end when all clones are gone.
#[derive(Clone, Debug)]
pub struct Keeper {
    writers: Arc<[SyncSender<Store>]>,
    storing: Arc<Storing>,
    deletions: Arc<Open>,
    questions: SyncSender<Question>,
}

/// Closes the queue of deletions when nobody is left who could give more.
#[derive(Debug)]
struct Open(Arc<Deletions>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Keeper {
    /// Starts the threads; gives also what they will have done. If one cannot be started, what it is given fails.
    pub fn start() -> (Self, mpsc::Receiver<Done>) {
        let (done, finished) = mpsc::channel(MANIFESTS_MAX);
        let storing = Arc::new(Storing::default());
        let writers = (0..WRITERS).map(|number| {
            let (sender, work) = sync_channel(MANIFESTS_MAX);
            let (storing, done) = (storing.clone(), done.clone());
            spawn(format!("flott-manifests-{number}"), move || write(&work, &storing, &done));
            sender
        });
        let writers = writers.collect();
        let deletions = Arc::new(Deletions::default());
        let (waiting, told) = (deletions.clone(), done.clone());
        spawn("flott-deletions".into(), move || {
            while let Some(deletion) = waiting.next() {
                // Nobody listens when the service has ended; what was to be deleted is, all the same.
                if let Some(failed) = delete(deletion) {
                    let _ = told.blocking_send(Done::NotDeleted(failed));
                }
            }
        });
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        spawn("flott-snapshots".into(), move || answer(&asked, &done));
        (Keeper { writers, storing, deletions: Arc::new(Open(deletions)), questions }, finished)
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
        let writer = &self.writers[(job.0 % WRITERS as u128) as usize];
        writer.try_send(Store { job, checkpoint, folder, manifest }).map_err(|error| match error {
            TrySendError::Full(store) | TrySendError::Disconnected(store) => {
                self.storing.end(&store.folder);
                format!("the storage is slow: {MANIFESTS_MAX} manifests wait for it")
            }
        })
    }

    /// Deletes files; gives them back if there is no room for the work.
    pub(crate) fn delete(&self, deletion: Deletion) -> std::result::Result<(), Deletion> {
        let deletion = self.storing.without(deletion);
        if deletion.is_empty() { Ok(()) } else { self.deletions.0.push(deletion) }
    }

    /// Looks at what a leader has left. False: there is no room for the work.
    pub(crate) fn survey(&self, survey: Survey) -> bool {
        self.questions.try_send(Question::Survey(survey)).is_ok()
    }

    /// Deletes a savepoint, as its owner wants. What is no snapshot is left alone.
    pub async fn dispose(&self, folder: String) -> Result<()> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let unable = |reason: String| flott_schema::Error::new(flott_schema::ErrorKind::Io, reason);
        let busy = || unable(format!("the storage is slow: {QUESTIONS_MAX} requests wait for it; try again"));
        self.questions.try_send(Question::Dispose { folder, reply }).map_err(|_| busy())?;
        answer.await.map_err(|_| unable("the thread of snapshots has ended".into()))?
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name(name.clone());
    if let Err(error) = thread.spawn(run) {
        tracing::error!(%error, name, "a thread of snapshots cannot be started");
    }
}

fn write(work: &Receiver<Store>, storing: &Storing, done: &mpsc::Sender<Done>) {
    while let Ok(Store { job, checkpoint, folder, manifest }) = work.recv() {
        let result = store(&folder, &manifest).map_err(|error| error.to_string());
        let failed = storing.end(&folder).and_then(delete).map(Done::NotDeleted);
        for told in [Some(Done::Stored { job, checkpoint, result }), failed].into_iter().flatten() {
            // Nobody listens when the service has ended.
            let _ = done.blocking_send(told);
        }
    }
}

fn answer(asked: &Receiver<Question>, done: &mpsc::Sender<Done>) {
    while let Ok(question) = asked.recv() {
        match question {
            Question::Survey(survey) => {
                let _ = done.blocking_send(Done::Surveyed(survey.job, look(&survey)));
            }
            Question::Dispose { folder, reply } => {
                // Who asked may be gone.
                let _ = reply.send(dispose(&folder));
            }
        }
    }
}

fn store(folder: &str, content: &Manifest) -> Result<u64> {
    let folder = Storage::open(folder)?;
    // Tasks without files have made none.
    folder.create()?;
    flott_faults::write("leader.manifest").map_err(|error| Error::io(&folder, error))?;
    let stored = manifest::write(&folder, content);
    flott_faults::point("leader.stored");
    stored
}

/// Deletes what it can; gives the rest.
fn delete(deletion: Deletion) -> Option<Deletion> {
    let Deletion { job, files, trees, claimed, empty_folder } = deletion;
    let mut failed = Deletion { job, ..Deletion::default() };
    let mut by_folder: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (folder, name) in files.iter().filter_map(|file| file.rsplit_once('/')) {
        by_folder.entry(folder).or_default().push(name);
    }
    for (folder, names) in by_folder {
        let kept = match Storage::open(folder) {
            Ok(storage) => storage.delete_all(&names),
            Err(error) => Some((names, error)),
        };
        if let Some((names, error)) = kept {
            let count = names.len();
            tracing::warn!(folder, count, %error, "files of snapshots that nobody needs cannot be deleted; it is tried again");
            failed.files.extend(names.iter().map(|name| format!("{folder}/{name}")));
        }
    }
    for tree in trees {
        flott_faults::point("leader.delete-folder");
        if let Err(error) = Storage::open(&tree).and_then(|tree| tree.delete_tree().map(drop)) {
            tracing::warn!(tree, %error, "a snapshot that nobody needs cannot be deleted; it is tried again");
            failed.trees.push(tree);
        }
    }
    if let Some(snapshot) = claimed
        && let Err(error) = claimed::discard(&snapshot.folder)
    {
        tracing::warn!(folder = snapshot.folder, %error, "a snapshot that the job has claimed cannot be deleted; it is tried again");
        failed.claimed = Some(snapshot);
    }
    if let Some(folder) = empty_folder.and_then(|folder| Storage::open(&folder).ok())
        && folder.list().is_ok_and(|entries| entries.is_empty())
        && let Err(error) = folder.delete_tree()
    {
        tracing::warn!(%folder, %error, "an empty folder of snapshots cannot be deleted");
    }
    (!failed.is_empty()).then_some(failed)
}

fn look(survey: &Survey) -> Surveyed {
    let mut found = Surveyed::default();
    let manifests: Result<Vec<(u64, Vec<String>)>> = survey
        .retained
        .iter()
        .map(|(id, folder)| {
            let manifest = manifest::read(&Storage::open(folder)?)?;
            let names = manifest.tasks.iter().flat_map(shared_names).map(str::to_string);
            Ok((*id, names.collect()))
        })
        .collect();
    match manifests {
        Ok(manifests) => found.manifests = Some(manifests),
        Err(error) => {
            let job = survey.job;
            tracing::error!(%job, %error, "a checkpoint cannot be read: files that it may share are kept until it can");
            return found;
        }
    }
    let entries = |folder: &str| Storage::open(folder).and_then(|folder| folder.list()).unwrap_or_default();
    let files = entries(&format!("{}/shared", survey.folder));
    found.files = files.into_iter().filter(|entry| !entry.is_folder).map(|entry| entry.name).collect();
    let folders = entries(&survey.folder).into_iter().filter(|entry| entry.is_folder);
    found.folders = folders.filter_map(|entry| entry.name.strip_prefix("chk-")?.parse().ok()).collect();
    found
}

fn dispose(folder: &str) -> Result<()> {
    manifest::dispose(&manifest::folder_of(folder)?)
}

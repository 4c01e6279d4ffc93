//! The thread that writes manifests and deletes files.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use flott_schema::error::Result;
use flott_schema::ids::JobId;
use flott_schema::snapshot::Manifest;
use flott_storage::{Storage, manifest};
use tokio::sync::mpsc;

use super::ledger::{Deletion, Survey, Surveyed};
use super::registry::shared_names;

/// Tasks that may wait for the thread; manifests beyond it fail their snapshots, deletions are tried again later.
const QUEUE_CAPACITY: usize = 256;

/// What the thread is asked to do.
#[derive(Debug)]
enum Work {
    Store { job: JobId, checkpoint: u64, folder: String, manifest: Box<Manifest> },
    Delete(Deletion),
    Survey(Survey),
    Dispose { folder: String, reply: tokio::sync::oneshot::Sender<Result<()>> },
}

/// What the thread has done.
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

/// The way to the thread. It ends when all clones are gone.
#[derive(Clone, Debug)]
pub struct Keeper {
    work: SyncSender<Work>,
}

impl Keeper {
    /// Starts the thread; gives also what it will have done. If it cannot be started, no snapshot will ever be complete.
    pub fn start() -> (Self, mpsc::Receiver<Done>) {
        let (sender, work) = sync_channel(QUEUE_CAPACITY);
        let (done, finished) = mpsc::channel(QUEUE_CAPACITY);
        let thread = std::thread::Builder::new().name("flott-snapshots".into());
        if let Err(error) = thread.spawn(move || run(&work, &done)) {
            tracing::error!(%error, "the thread of snapshots cannot be started");
        }
        (Keeper { work: sender }, finished)
    }

    /// Writes a manifest. An error says why it was not even begun.
    pub(crate) fn store(
        &self,
        job: JobId,
        checkpoint: u64,
        folder: String,
        manifest: Box<Manifest>,
    ) -> std::result::Result<(), String> {
        self.give(Work::Store { job, checkpoint, folder, manifest }).map_err(|_| busy())
    }

    /// Deletes files; gives them back if there is no room for the work.
    pub(crate) fn delete(&self, deletion: Deletion) -> std::result::Result<(), Deletion> {
        self.give(Work::Delete(deletion)).map_err(|work| match work {
            Work::Delete(deletion) => deletion,
            _ => Deletion::default(),
        })
    }

    /// Looks at what a leader has left. False: there is no room for the work.
    pub(crate) fn survey(&self, survey: Survey) -> bool {
        self.give(Work::Survey(survey)).is_ok()
    }

    /// Deletes a savepoint, as its owner wants. What is no snapshot is left alone.
    pub async fn dispose(&self, folder: String) -> Result<()> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let unable = |reason: String| flott_schema::Error::new(flott_schema::ErrorKind::Io, reason);
        self.give(Work::Dispose { folder, reply }).map_err(|_| unable(busy()))?;
        answer.await.map_err(|_| unable("the thread of snapshots has ended".into()))?
    }

    fn give(&self, work: Work) -> std::result::Result<(), Work> {
        self.work.try_send(work).map_err(|error| match error {
            TrySendError::Full(work) | TrySendError::Disconnected(work) => work,
        })
    }
}

fn busy() -> String {
    format!("the storage is slow: {QUEUE_CAPACITY} writes and deletions wait for it")
}

fn run(work: &Receiver<Work>, done: &mpsc::Sender<Done>) {
    while let Ok(work) = work.recv() {
        let told = match work {
            Work::Store { job, checkpoint, folder, manifest } => {
                let result = store(&folder, &manifest).map_err(|error| error.to_string());
                Some(Done::Stored { job, checkpoint, result })
            }
            Work::Delete(deletion) => delete(deletion).map(Done::NotDeleted),
            Work::Survey(survey) => Some(Done::Surveyed(survey.job, look(&survey))),
            Work::Dispose { folder, reply } => {
                // Who asked may be gone.
                let _ = reply.send(dispose(&folder));
                None
            }
        };
        // Nobody listens when the service has ended.
        if told.is_some_and(|told| done.blocking_send(told).is_err()) {
            return;
        }
    }
}

fn store(folder: &str, content: &Manifest) -> Result<u64> {
    let folder = Storage::open(folder)?;
    // Tasks without files have made none.
    folder.create()?;
    manifest::write(&folder, content)
}

/// Deletes what it can; gives the rest.
fn delete(deletion: Deletion) -> Option<Deletion> {
    let Deletion { job, files, trees, empty_folder } = deletion;
    let mut failed = Deletion { job, ..Deletion::default() };
    for file in files {
        let deleted = match file.rsplit_once('/') {
            Some((folder, name)) => Storage::open(folder).and_then(|folder| folder.delete(name).map(drop)),
            None => Ok(()),
        };
        if let Err(error) = deleted {
            tracing::warn!(file, %error, "a file of a snapshot that nobody needs cannot be deleted; it is tried again");
            failed.files.push(file);
        }
    }
    for tree in trees {
        if let Err(error) = Storage::open(&tree).and_then(|tree| tree.delete_tree().map(drop)) {
            tracing::warn!(tree, %error, "a snapshot that nobody needs cannot be deleted; it is tried again");
            failed.trees.push(tree);
        }
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

//! What the threads do, and how it waits for them.
//!
//! Who may call it: the threads. What must never happen here: a decision about what is deleted.

use std::collections::BTreeMap;

use flott_schema::error::{Error, Result};
use flott_schema::ids::JobId;
use flott_schema::snapshot::Manifest;
use flott_storage::{Storage, manifest};
use tokio::sync::{mpsc, oneshot};

use super::Done;
use super::pool::{Owner, Work};
use super::storing::Storing;
use crate::checkpoints::action::{Deletion, Survey, Surveyed};
use crate::checkpoints::claimed;
use crate::checkpoints::registry::shared_names;

/// A manifest to write.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) job: JobId,
    pub(super) checkpoint: u64,
    pub(super) folder: String,
    pub(super) manifest: Box<Manifest>,
}

impl Work for Store {
    fn owner(&self) -> Owner {
        Owner::Job(self.job)
    }

    fn size(&self) -> usize {
        1
    }

    fn subject(&self) -> String {
        format!("the manifest of a snapshot of job {} in {}", self.job, self.folder)
    }

    fn join(&mut self, later: Self) -> Option<Self> {
        Some(later)
    }
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Question {
    Survey(Survey),
    Dispose { number: u64, folder: String, reply: oneshot::Sender<Result<()>> },
}

impl Work for Question {
    fn owner(&self) -> Owner {
        match self {
            Question::Survey(survey) => Owner::Job(survey.job),
            Question::Dispose { number, .. } => Owner::Request(*number),
        }
    }

    fn size(&self) -> usize {
        1
    }

    fn subject(&self) -> String {
        match self {
            Question::Survey(survey) => format!("the checkpoints of job {} in {}", survey.job, survey.folder),
            Question::Dispose { folder, .. } => format!("the savepoint to be disposed of in {folder}"),
        }
    }

    fn join(&mut self, later: Self) -> Option<Self> {
        Some(later)
    }
}

/// What a job wants deleted later joins what of it still waits: so storage that is slow makes deletions larger, not more.
impl Work for Deletion {
    fn owner(&self) -> Owner {
        self.job.map_or(Owner::Request(0), Owner::Job)
    }

    /// Files and folders that it names.
    fn size(&self) -> usize {
        let Deletion { job: _, files, trees, claimed, empty_folder } = self;
        files.len() + trees.len() + usize::from(claimed.is_some()) + usize::from(empty_folder.is_some())
    }

    fn subject(&self) -> String {
        let first = self.trees.first().or(self.files.first()).or(self.empty_folder.as_ref());
        let claimed = self.claimed.as_ref().map(|claimed| &claimed.folder);
        let job = self.job.map_or_else(String::new, |job| format!(" of job {job}"));
        let first = first.or(claimed).map_or("", String::as_str);
        format!("{} files and folders{job} to be deleted, {first} among them", self.size())
    }

    fn join(&mut self, later: Self) -> Option<Self> {
        let Deletion { job: _, files, trees, claimed, empty_folder } = later;
        self.files.extend(files);
        self.trees.extend(trees);
        self.claimed = claimed.or(self.claimed.take());
        self.empty_folder = empty_folder.or(self.empty_folder.take());
        None
    }
}

pub(super) fn write(store: Store, storing: &Storing, done: &mpsc::Sender<Done>) {
    let Store { job, checkpoint, folder, manifest } = store;
    let result = put(&folder, &manifest).map_err(|error| error.to_string());
    let failed = storing.end(&folder).and_then(delete).map(Done::NotDeleted);
    for told in [Some(Done::Stored { job, checkpoint, result }), failed].into_iter().flatten() {
        // Nobody listens when the service has ended.
        let _ = done.blocking_send(told);
    }
}

pub(super) fn delete_and_tell(deletion: Deletion, done: &mpsc::Sender<Done>) {
    let claim_of = deletion.job.filter(|_| deletion.claimed.is_some());
    let failed = delete(deletion);
    let has_failed = failed.as_ref().is_some_and(|failed| failed.claimed.is_some());
    let claim_ended = claim_of.filter(|_| !has_failed).map(Done::ClaimEnded);
    for told in [claim_ended, failed.map(Done::NotDeleted)].into_iter().flatten() {
        // Nobody listens when the service has ended; what was to be deleted is, all the same.
        let _ = done.blocking_send(told);
    }
}

pub(super) fn answer(question: Question, done: &mpsc::Sender<Done>) {
    match question {
        Question::Survey(survey) => {
            let _ = done.blocking_send(Done::Surveyed(survey.job, look(&survey)));
        }
        Question::Dispose { folder, reply, .. } => {
            // Who asked may be gone.
            let _ = reply.send(dispose(&folder));
        }
    }
}

fn put(folder: &str, content: &Manifest) -> Result<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoints::action::ClaimedSnapshot;

    fn files(job: u128, names: &[&str]) -> Deletion {
        let files = names.iter().map(|name| name.to_string()).collect();
        Deletion { job: Some(JobId(job)), files, ..Deletion::default() }
    }

    #[test]
    fn a_claim_has_ended_when_its_snapshot_is_gone_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("chk-1")).unwrap();
        std::os::unix::fs::symlink("_metadata", root.path().join("chk-1/_metadata")).unwrap();
        let (told, mut done) = mpsc::channel(4);
        for name in ["chk-1", "chk-2"] {
            let folder = root.path().join(name).display().to_string();
            let claimed = Some(Box::new(ClaimedSnapshot { folder }));
            delete_and_tell(Deletion { claimed, ..files(1, &[]) }, &told);
        }
        let failed = done.try_recv().unwrap();
        assert!(matches!(&failed, Done::NotDeleted(failed) if failed.claimed.is_some()), "{failed:?}");
        let ended = done.try_recv().unwrap();
        assert!(matches!(ended, Done::ClaimEnded(JobId(1))), "{ended:?}");
        assert!(done.try_recv().is_err());
    }

    #[test]
    fn what_a_job_wants_deleted_waits_in_one_place() {
        let mut first = files(1, &["a"]);
        for folder in ["/one", "/one"] {
            let more = Deletion { empty_folder: Some(folder.into()), ..files(1, &["b"]) };
            assert_eq!(first.join(more), None);
        }
        assert_eq!(first.files, ["a", "b", "b"]);
        assert_eq!(first.empty_folder.as_deref(), Some("/one"));
        assert_eq!(first.size(), 4);
        assert_ne!(first.owner(), files(2, &[]).owner());
    }
}

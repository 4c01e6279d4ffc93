//! Manifests: for each checkpoint that makes files visible a file which lists them, written when all of them are there.
//!
//! A manifest is what a batch reader or a table format wants to know: which files belong together, and that none of them is missing. It is
//! JSON, `_manifests/<checkpoint, 20 digits>-<job>.json` below the sink's folder, so names sort as checkpoints follow each other; names that begin
//! with `_` are no data to readers of folders. The form is frozen: fields may be added, readers ignore those they do not know.

use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use flott_dataflow::context::OperatorContext;
use flott_dataflow::sink::{CommitId, GlobalCommitter};
use flott_schema::{Error, Result};

use super::commit::{FileCommittable, create_folder, failed, sync_folder};
use super::lineage::{remove_if_there, siblings};
use super::part_file::unique_token;

/// Folder of the manifests, below that of the sink.
pub const MANIFESTS: &str = "_manifests";
/// Version of the form.
const VERSION: u32 = 1;

/// The files that became visible with one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the form; 1.
    pub version: u32,
    /// Id of the job that wrote the files, 32 hexadecimal digits.
    pub job: String,
    /// The checkpoint; 0 for all that a job without checkpoints has written.
    pub checkpoint: u64,
    /// The files, sorted.
    pub files: Vec<ManifestFile>,
}

/// A file in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path below the sink's folder; an absolute one if the file is elsewhere, as after a change of the sink's folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

impl Manifest {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            fs::read(path).map_err(|error| Error::io(format!("cannot read '{}'", path.display()), error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::bad_input(format!("'{}' is no manifest: {error}", path.display())))
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal(format!("a manifest cannot be written: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Gives files their names, and then writes the manifest that lists them.
pub struct ManifestCommitter {
    folder: PathBuf,
}

impl ManifestCommitter {
    /// For the sink that writes to `folder`.
    pub fn new(folder: PathBuf) -> Self {
        ManifestCommitter { folder }
    }

    fn path_of(&self, id: CommitId) -> PathBuf {
        self.folder.join(MANIFESTS).join(format!("{:020}-{}.json", id.checkpoint, id.job))
    }

    fn commit(&self, id: CommitId, committables: &[FileCommittable], is_restored: bool) -> Result<()> {
        let path = self.path_of(id);
        committables.iter().try_for_each(|committable| committable.commit(is_restored))?;
        if is_restored && path.try_exists().map_err(|error| failed(&path, error))? {
            return Ok(());
        }
        let mut files = Vec::with_capacity(committables.len());
        for FileCommittable { finished, .. } in committables {
            match fs::metadata(finished) {
                Ok(metadata) => {
                    files.push(ManifestFile { path: self.relative(finished), bytes: metadata.len() })
                }
                // Taken away since by whoever does not wait for manifests.
                Err(error) if error.kind() == IoErrorKind::NotFound => {
                    tracing::warn!(file = %finished.display(), "a file is gone before its manifest was written");
                }
                Err(error) => return Err(failed(finished, error)),
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        files.sort();
        let manifest =
            Manifest { version: VERSION, job: id.job.to_string(), checkpoint: id.checkpoint, files };
        write_whole(&path, &manifest.to_json()?)
    }

    fn relative(&self, file: &Path) -> String {
        file.strip_prefix(&self.folder).unwrap_or(file).to_string_lossy().into_owned()
    }
}

/// The start of the names of manifests of a commit that are being written.
fn hidden_start(path: &Path) -> String {
    format!(".{}.inprogress.", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Writes a file that is there whole and on disk, or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    create_folder(folder)?;
    // What an attempt that was killed has left.
    siblings(path, &hidden_start(path))?.iter().try_for_each(|left| remove_if_there(left))?;
    let hidden = path.with_file_name(format!("{}{}", hidden_start(path), unique_token()));
    let written = File::create_new(&hidden).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&hidden, path)).map_err(|error| failed(path, error))?;
    sync_folder(folder)
}

impl GlobalCommitter for ManifestCommitter {
    type Committable = FileCommittable;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        // Of a commit that will be done again, or was given up with its checkpoint.
        let folder = self.folder.join(MANIFESTS);
        let of_job = format!("-{}.json.inprogress.", ctx.task.job);
        let left = siblings(&folder.join("any"), ".")?;
        let left = left.iter().filter(|path| path.to_string_lossy().contains(&of_job));
        left.into_iter().try_for_each(|path| remove_if_there(path))
    }

    fn commit(&mut self, id: CommitId, committables: Vec<FileCommittable>) -> Result<()> {
        ManifestCommitter::commit(self, id, &committables, false)
    }

    fn commit_restored(&mut self, id: CommitId, committables: Vec<FileCommittable>) -> Result<()> {
        ManifestCommitter::commit(self, id, &committables, true)
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::JobId;

    use super::*;

    const ID: CommitId = CommitId { job: JobId(0xfeed), checkpoint: 12 };

    fn hidden(folder: &Path, name: &str, content: &str) -> FileCommittable {
        let in_progress = folder.join(format!(".{name}.inprogress.x"));
        create_folder(in_progress.parent().unwrap()).unwrap();
        fs::write(&in_progress, content).unwrap();
        FileCommittable { in_progress, finished: folder.join(name), replace: false, superseded: Vec::new() }
    }

    fn committer(folder: &Path) -> ManifestCommitter {
        ManifestCommitter::new(folder.to_path_buf())
    }

    #[test]
    fn a_manifest_lists_the_files_of_a_checkpoint_in_a_form_that_never_changes() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![
            hidden(&folder.path().join("user=b"), "part-1", "four"),
            hidden(folder.path(), "part-0", "sixsix"),
        ];
        let mut committer = committer(folder.path());
        GlobalCommitter::commit(&mut committer, ID, files.clone()).unwrap();
        let path =
            folder.path().join("_manifests/00000000000000000012-0000000000000000000000000000feed.json");
        let sample = include_str!("../../samples/manifest_v1.json");
        assert_eq!(fs::read_to_string(&path).unwrap(), sample);
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!((manifest.files[0].path.as_str(), manifest.files[1].bytes), ("part-0", 4));
        for file in &files {
            assert!(file.finished.exists() && !file.in_progress.exists());
        }
        // A later form may say more.
        let more = sample.replace("\"version\": 1,", "\"version\": 2,\n  \"rows\": 5,");
        fs::write(&path, more).unwrap();
        assert_eq!(Manifest::read(&path).unwrap().files, manifest.files);
    }

    #[test]
    fn a_commit_that_broke_off_is_completed_and_one_that_did_not_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![hidden(folder.path(), "part-0", "0"), hidden(folder.path(), "part-1", "1")];
        let mut committer = committer(folder.path());
        let path = committer.path_of(ID);
        // It broke off between the two, with half a manifest.
        files[0].commit(false).unwrap();
        create_folder(path.parent().unwrap()).unwrap();
        fs::write(path.with_file_name(format!("{}x", hidden_start(&path))), "{").unwrap();
        committer.commit_restored(ID, files.clone()).unwrap();
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!(manifest.files.len(), 2);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left over");
        // Whoever reads the files may take them away; the manifest tells what was there.
        fs::remove_file(&files[0].finished).unwrap();
        committer.commit_restored(ID, files.clone()).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);
        // Files and manifest are gone: they do not come back.
        fs::remove_file(&files[1].finished).unwrap();
        fs::remove_file(&path).unwrap();
        committer.commit_restored(ID, files).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_lost_before_its_first_commit_fails_it_without_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![hidden(folder.path(), "part-0", "0"), hidden(folder.path(), "part-1", "1")];
        fs::remove_file(&files[1].in_progress).unwrap();
        let mut committer = committer(folder.path());
        let error = GlobalCommitter::commit(&mut committer, ID, files).unwrap_err().to_string();
        assert!(error.contains("part-1' is lost"), "{error}");
        assert!(!folder.path().join(MANIFESTS).exists());
    }

    #[test]
    fn opening_removes_what_a_killed_attempt_has_left_and_nothing_of_another_job() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join(MANIFESTS);
        fs::create_dir(&manifests).unwrap();
        let ctx = crate::test_kit::context(0, 1);
        let own = committer(folder.path()).path_of(CommitId { job: ctx.task.job, checkpoint: 3 });
        let other = committer(folder.path()).path_of(ID);
        for path in [&own, &other] {
            fs::write(path.with_file_name(format!("{}x", hidden_start(path))), "{").unwrap();
            fs::write(path, "{}").unwrap();
        }
        committer(folder.path()).open(&ctx).unwrap();
        let left = fs::read_dir(&manifests).unwrap().count();
        assert_eq!(left, 3);
        assert!(own.exists() && !own.with_file_name(format!("{}x", hidden_start(&own))).exists());
    }
}

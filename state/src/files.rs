//! Files of snapshots: to and from the folders where they are kept.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use flott_schema::snapshot::{ListSnapshot, Manifest, SnapshotFile};
use flott_schema::{Error, Result};
use flott_storage::{Storage, lists, manifest};

/// Puts a local file, which is not changed any more, into `folder`.
pub(crate) fn put_file(folder: &str, name: &str, local: &Path) -> Result<SnapshotFile> {
    let folder = Storage::open(folder)?;
    folder.create()?;
    folder.put_file(name, local)
}

/// Writes a file into `folder`.
pub(crate) fn put_bytes(folder: &str, name: &str, bytes: &[u8]) -> Result<SnapshotFile> {
    let folder = Storage::open(folder)?;
    folder.create()?;
    folder.put_atomic(name, bytes)
}

/// Makes `local` a file of the snapshot in `folder`; whether it has been checked. If not, [`verify`] is yet to be called. Ends with an error soon
/// after `cancelled` is set.
pub(crate) fn get_file(
    folder: &str,
    file: &SnapshotFile,
    local: &Path,
    cancelled: &AtomicBool,
) -> Result<bool> {
    let folder = Storage::open(folder)?;
    // RocksDB goes on writing its manifest, and nothing else; its other files have a checksum for each block.
    if file.name.ends_with(".sst") {
        folder.link_file(file, local, cancelled)
    } else {
        folder.get_file(file, local, cancelled).map(|()| true)
    }
}

/// Checks that `local` is that file of a snapshot. One that is not there any more was read to the end, and its blocks checked, by whoever has
/// replaced it.
pub(crate) fn verify(file: &SnapshotFile, local: &Path) -> Result<()> {
    let no_text = || Error::internal(format!("{}: not a text", local.display()));
    let folder = local.parent().and_then(Path::to_str).ok_or_else(no_text)?;
    let name = local.file_name().and_then(|name| name.to_str()).ok_or_else(no_text)?;
    let here = SnapshotFile { path: name.into(), ..file.clone() };
    match Storage::open(folder)?.verify(&here) {
        Err(error) if local.exists() => Err(error.at(file.path.clone())),
        _ => Ok(()),
    }
}

/// The bytes of a file of the snapshot in `folder`, checked.
pub(crate) fn get_bytes(folder: &str, file: &SnapshotFile) -> Result<Vec<u8>> {
    Storage::open(folder)?.read(file)
}

/// The items of a list state of the snapshot in `folder`, checked where they are in a file.
pub(crate) fn get_items(folder: &str, list: &ListSnapshot) -> Result<Vec<Vec<u8>>> {
    match list.file {
        None => Ok(list.items.clone()),
        Some(_) => lists::items(&Storage::open(folder)?, list),
    }
}

/// Makes `local` the file of that name in a local folder, if it is that of the snapshot; whether it has been checked.
pub(crate) fn get_backup(
    folder: &Path,
    file: &SnapshotFile,
    local: &Path,
    cancelled: &AtomicBool,
) -> Option<bool> {
    let kept = SnapshotFile { path: file.name.clone(), ..file.clone() };
    let got = || {
        let folder = folder.to_str().ok_or_else(|| Error::internal("not a text"))?;
        get_file(folder, &kept, local, cancelled)
    };
    if folder.join(&file.name).exists() { got().ok() } else { None }
}

/// Files asked after at a time where each takes a request.
const ASKED_MAX: usize = 32;

/// Those of these files, which checkpoints have put into `folder`, that somebody has deleted. In a file system all are looked at; in a bucket
/// some, others for another `turn`, so that a checkpoint does not take longer the more files there are.
///
/// # Errors
/// Where the storage does not say.
pub(crate) fn missing<'a>(
    folder: &str,
    files: impl ExactSizeIterator<Item = &'a SnapshotFile>,
    turn: u64,
) -> Result<Vec<String>> {
    let storage = Storage::open(folder)?;
    let turns = if storage.local_path().is_some() { 1 } else { turns_of(files.len()) };
    let mut missing = Vec::new();
    for file in files.skip((turn % turns as u64) as usize).step_by(turns) {
        if !storage.exists(file.path.rsplit('/').next().unwrap_or_default())? {
            missing.push(file.name.clone());
        }
    }
    Ok(missing)
}

/// In how many turns so many files are asked after.
fn turns_of(files: usize) -> usize {
    files.div_ceil(ASKED_MAX).max(1)
}

/// Deletes a file; one that is not there is deleted already.
pub(crate) fn delete(folder: &str, name: &str) -> Result<()> {
    Storage::open(folder)?.delete(name).map(drop)
}

/// The manifest of the snapshot in `folder`.
pub(crate) fn read_manifest(folder: &str) -> Result<Manifest> {
    manifest::read(&Storage::open(folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_missed_and_a_folder_that_cannot_be_looked_into_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().to_str().unwrap();
        let put = |name: &str| put_bytes(uri, name, b"rows").unwrap();
        let files: Vec<SnapshotFile> = (0..100).map(|number| put(&format!("{number}.sst"))).collect();
        assert_eq!(missing(uri, files.iter(), 7).unwrap(), Vec::<String>::new());
        std::fs::remove_file(folder.path().join("33.sst")).unwrap();
        assert_eq!(missing(uri, files.iter(), 7).unwrap(), ["33.sst"]);
        assert!(missing("gopher://nowhere/at/all", files.iter(), 7).is_err());
    }

    #[test]
    fn no_turn_asks_after_more_files_than_one_may_and_all_turns_after_every_file() {
        for files in [0, 1, 32, 33, 1_000] {
            let turns = turns_of(files);
            let of = |turn: usize| (0..files).skip(turn).step_by(turns);
            assert!((0..turns).all(|turn| of(turn).count() <= ASKED_MAX));
            assert_eq!((0..turns).flat_map(of).count(), files);
        }
    }
}

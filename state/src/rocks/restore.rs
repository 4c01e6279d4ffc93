//! How a database begins: with the files of a snapshot, or with the rows of several.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_schema::snapshot::{RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, Result};

use super::ROCKSDB_FORMAT;
use super::database::{Database, SortedFiles};
use crate::place::Place;
use crate::restored::RestoredPart;
use crate::rows::RowRef;
use crate::service::StateService;
use crate::source::RowSource;

/// A database, and a shared folder with files of it that may be named again.
pub(crate) type Begun = (Database, Option<(String, Vec<SnapshotFile>)>);

/// What is made of a part.
enum Fetched {
    /// The files of the database itself.
    Base,
    /// Files that are to be ingested: those of each run together, since runs may overlap.
    Sorted(Vec<Vec<PathBuf>>),
}

/// Makes the database of `place` out of the parts of a snapshot, in its folder `db`.
pub(crate) fn restore(place: &Arc<Place>, from: &RestoreFrom, parts: Vec<RestoredPart>) -> Result<Begun> {
    let directory = place.path("db");
    let tuning = &place.service.tuning;
    // Most of the rows stay in the files they are in; those of the other parts are added.
    let rows_of = |part: &RestoredPart| part.key_groups.end - part.key_groups.start;
    let usable = |part: &RestoredPart| part.snapshot.format == ROCKSDB_FORMAT && part.renumbered.is_empty();
    let base =
        (0..parts.len()).filter(|index| usable(&parts[*index])).max_by_key(|index| rows_of(&parts[*index]));
    let parts: Vec<(usize, RestoredPart)> = parts.into_iter().enumerate().collect();
    let base_part = base.map(|index| parts[index].1.clone());
    let (at, snapshot, base_directory) = (place.clone(), from.clone(), directory.clone());
    let fetched = place.service.transfer.for_each(parts, move |(index, part)| {
        if Some(*index) == base {
            fetch_database(&at.service, &snapshot, part, &base_directory)?;
            return Ok(Fetched::Base);
        }
        sort_part(&at, &snapshot, *index, part).map(Fetched::Sorted)
    })?;
    let database = Database::open(&directory, tuning).at(|| from.to_string())?;
    if let Some(part) = &base_part
        && part.key_groups != part.snapshot.key_groups
    {
        database.keep(place.key_groups)?;
    }
    for fetched in fetched {
        if let Fetched::Sorted(runs) = fetched {
            runs.into_iter().try_for_each(|files| database.ingest(files))?;
        }
    }
    let reusable = base_part.filter(|_| from.own).and_then(|part| shared_files(from, &part.snapshot.files));
    Ok((database, reusable))
}

/// The files in the folder that checkpoints share, and that folder.
fn shared_files(from: &RestoreFrom, files: &[SnapshotFile]) -> Option<(String, Vec<SnapshotFile>)> {
    let (parent, _) = from.folder.trim_end_matches('/').rsplit_once('/')?;
    let folder_of = |file: &SnapshotFile| {
        let (folder, _) = file.path.strip_prefix("../")?.split_once('/')?;
        Some(format!("{parent}/{folder}"))
    };
    let folder = files.iter().find_map(folder_of)?;
    let files = files.iter().filter(|file| folder_of(file).as_deref() == Some(&folder)).cloned().collect();
    Some((folder, files))
}

/// Gets the files of a database into a new folder.
pub(crate) fn fetch_database(
    service: &Arc<StateService>,
    from: &RestoreFrom,
    part: &RestoredPart,
    directory: &Path,
) -> Result<()> {
    fs::create_dir_all(directory).map_err(|error| Error::io(directory.display(), error))?;
    let manifests = part.snapshot.files.iter().filter(|file| file.name.starts_with("MANIFEST-"));
    let names: Vec<&str> = manifests.map(|file| file.name.as_str()).collect();
    let [manifest] = names[..] else {
        return Err(Error::bad_input(format!(
            "{from}: the state of subtask {} names {} manifests of RocksDB, and must name one; the snapshot \
             is damaged",
            part.task.subtask,
            names.len()
        )));
    };
    fs::write(directory.join("CURRENT"), format!("{manifest}\n"))
        .map_err(|error| Error::io(directory.display(), error))?;
    let (state, snapshot, part_of, to) = (service.clone(), from.clone(), part.clone(), directory.to_owned());
    let files = part.snapshot.files.clone();
    service.transfer.for_each(files, move |file| {
        check_name(&snapshot, &file.name)?;
        state.get_file(&part_of.backup, &snapshot, file, &to.join(&file.name))
    })?;
    Ok(())
}

/// Names in a manifest become names of files here: they must stay in their folder.
fn check_name(from: &RestoreFrom, name: &str) -> Result<()> {
    let stem = name.strip_suffix(".sst").or_else(|| name.strip_prefix("MANIFEST-"));
    if stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit())) {
        return Ok(());
    }
    Err(Error::bad_input(format!("{from}: '{name}' is no file of RocksDB; the snapshot is damaged")))
}

/// Writes the rows of a part that belong here into files that can be ingested.
fn sort_part(
    place: &Arc<Place>,
    from: &RestoreFrom,
    index: usize,
    part: &RestoredPart,
) -> Result<Vec<Vec<PathBuf>>> {
    let folder = place.path(&format!("part-{index}"));
    let source = RowSource::fetch(&place.service, from, part, &folder)?;
    let sorted = place.path("sorted");
    fs::create_dir_all(&sorted).map_err(|error| Error::io(sorted.display(), error))?;
    let options = place.service.tuning.options().clone();
    let mut runs = Vec::new();
    for run in 0..source.runs() {
        let mut files = SortedFiles::new(&options, &sorted, format!("part-{index}-{run}"));
        source.each_sorted(run, &mut |key_group, table, key, value| {
            files.row(RowRef { key_group, table, key, value: Some(value) })
        })?;
        runs.push(files.finish()?);
    }
    drop(source);
    crate::place::discard(&folder);
    Ok(runs)
}

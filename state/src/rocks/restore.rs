//! How databases begin: with the files of a snapshot as they are, and with the rows of those that cannot be used
//! as they are.
//!
//! Files are linked where they can be, and none is read before the task goes on. A task that takes over the key
//! groups of several has a database for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, Result};

use super::ROCKSDB_FORMAT;
use super::database::{Database, SortedFiles};
use crate::checks::Unchecked;
use crate::place::Place;
use crate::restored::RestoredPart;
use crate::rows::RowRef;
use crate::service::StateService;
use crate::source::RowSource;

/// Databases that a task goes on with as they are. Rows of further parts are added to them one by one.
const MEMBERS_MAX: usize = 8;

/// A database that has begun.
pub(crate) struct Begun {
    /// Its place, with the key groups that it has from now on.
    pub(crate) place: Arc<Place>,
    pub(crate) database: Database,
    /// A shared folder, and files of the database in it that may be named again.
    pub(crate) reusable: Option<(String, Vec<SnapshotFile>)>,
    /// Files that are yet to be read to the end.
    pub(crate) unchecked: Vec<Unchecked>,
    /// Whether it may hold rows of other key groups, which nobody looks at.
    pub(crate) has_others: bool,
}

impl Begun {
    /// A database without rows.
    pub(crate) fn empty(place: &Arc<Place>) -> Result<Self> {
        let database = Database::open(&place.path("db"), &place.service.tuning)?;
        let (place, unchecked) = (place.clone(), Vec::new());
        Ok(Begun { place, database, reusable: None, unchecked, has_others: false })
    }
}

/// What becomes one database: a part whose files it begins with, and parts whose rows are added.
struct Group {
    base: Option<RestoredPart>,
    key_groups: KeyGroupRange,
    others: Vec<(usize, RestoredPart)>,
}

/// Shares the key groups of a task out to the parts whose files can be used as they are, and the other parts to
/// these.
fn group(key_groups: KeyGroupRange, mut parts: Vec<RestoredPart>) -> Vec<Group> {
    parts.sort_by_key(|part| part.key_groups.start);
    let overlap = parts.windows(2).any(|pair| pair[1].key_groups.start < pair[0].key_groups.end);
    let rows_of = |part: &RestoredPart| part.key_groups.end - part.key_groups.start;
    let usable = |part: &RestoredPart| part.snapshot.format == ROCKSDB_FORMAT && part.renumbered.is_empty();
    let mut bases: Vec<usize> = (0..parts.len()).filter(|index| usable(&parts[*index])).collect();
    // The largest stay as they are. Where parts overlap only one can: a row must be looked for in one place.
    bases.sort_by_key(|index| std::cmp::Reverse(rows_of(&parts[*index])));
    bases.truncate(if overlap { 1 } else { MEMBERS_MAX });
    bases.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    let mut waiting = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        if bases.contains(&index) {
            // The first one has all that comes before it.
            let start = if groups.is_empty() { key_groups.start } else { part.key_groups.start };
            if let Some(last) = groups.last_mut() {
                last.key_groups.end = start;
            }
            let key_groups = KeyGroupRange { start, end: key_groups.end };
            groups.push(Group { base: Some(part), key_groups, others: std::mem::take(&mut waiting) });
        } else if let Some(last) = groups.last_mut() {
            last.others.push((index, part));
        } else {
            waiting.push((index, part));
        }
    }
    if groups.is_empty() {
        groups.push(Group { base: None, key_groups, others: waiting });
    }
    groups
}

/// Makes the databases of an operator out of the parts of a snapshot: each in the folder `db` of its place.
pub(crate) fn restore(
    place: &Arc<Place>,
    from: &RestoreFrom,
    parts: Vec<RestoredPart>,
) -> Result<Vec<Begun>> {
    let groups = group(place.key_groups, parts);
    let alone = groups.len() == 1;
    let mut placed = Vec::with_capacity(groups.len());
    for (number, group) in groups.into_iter().enumerate() {
        let place = if alone { place.clone() } else { Arc::new(place.member(number, group.key_groups)?) };
        placed.push((place, group));
    }
    let snapshot = from.clone();
    place.service.transfer.for_each(placed, move |(place, group)| begin(place, &snapshot, group))
}

/// Begins one database.
fn begin(place: &Arc<Place>, from: &RestoreFrom, group: &Group) -> Result<Begun> {
    let directory = place.path("db");
    let Group { base, key_groups, others } = group;
    let unchecked = match base {
        Some(part) => fetch_database(&place.service, from, part, &directory)?,
        None => Vec::new(),
    };
    let (at, snapshot) = (place.clone(), from.clone());
    let sort = move |(index, part): &(usize, RestoredPart)| sort_part(&at, &snapshot, *index, part);
    let sorted = place.service.transfer.for_each(others.clone(), sort)?;
    let opened = Database::open(&directory, &place.service.tuning);
    let database = opened.map_err(|error| explain(from, &unchecked, error)).at(|| from.to_string())?;
    let mut has_others = false;
    if let Some(part) = base {
        // Where its key groups are more than those of the part, rows of others must not be found among them.
        if part.key_groups != *key_groups || !others.is_empty() {
            database.keep(part.key_groups)?;
        } else {
            has_others = part.key_groups != part.snapshot.key_groups;
        }
    }
    for runs in sorted {
        // Those of each run together, since runs may overlap.
        runs.into_iter().try_for_each(|files| database.ingest(files))?;
    }
    let own = base.as_ref().filter(|_| from.own);
    let reusable = own.and_then(|part| shared_files(from, &part.snapshot.files));
    Ok(Begun { place: place.clone(), database, reusable, unchecked, has_others })
}

/// Why a database cannot be opened, in the words of its damaged file if there is one.
fn explain(from: &RestoreFrom, files: &[Unchecked], error: Error) -> Error {
    files.iter().find_map(|file| file.check(from).err()).unwrap_or(error)
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

/// Gets the files of a database into a new folder; those given back are yet to be checked.
pub(crate) fn fetch_database(
    service: &Arc<StateService>,
    from: &RestoreFrom,
    part: &RestoredPart,
    directory: &Path,
) -> Result<Vec<Unchecked>> {
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
    let got = service.transfer.for_each(files, move |file| {
        check_name(&snapshot, &file.name)?;
        state.get_file(&part_of, &snapshot, file, &to.join(&file.name))
    })?;
    Ok(got.into_iter().flatten().collect())
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
            part.check_wanted()?;
            files.row(RowRef { key_group, table, key, value: Some(value) })
        })?;
        runs.push(files.finish()?);
    }
    drop(source);
    crate::place::discard(&folder);
    Ok(runs)
}

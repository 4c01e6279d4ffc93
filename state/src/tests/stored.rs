//! Databases of the first version are read for ever. The sample of a file of rows is in `rows/tests.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use flott_schema::key_group::KeyGroupRange;

use super::kit::options;
use crate::Backend;
use crate::rocks::{Database, Tuning};
use crate::rows::RowRef;

type Row = (u16, u16, &'static [u8], &'static [u8]);

const ROWS: [Row; 4] =
    [(0, 0, b"a", b"one"), (0, 1, b"", b"an empty key"), (7, 0, b"a", b""), (127, 300, b"z", b"last")];

/// Writes the rows, and deletes one that was there before.
fn write(tuning: &Tuning, folder: &Path) {
    let database = Database::open(folder, tuning).unwrap();
    let gone = RowRef { key_group: 3, table: 0, key: b"gone", value: Some(b"x") };
    database.write(|row| row(gone)).unwrap();
    let written = database.write(|row| {
        let mut rows: Vec<RowRef<'_>> = ROWS
            .iter()
            .map(|(key_group, table, key, value)| RowRef {
                key_group: *key_group,
                table: *table,
                key,
                value: Some(value),
            })
            .collect();
        rows.insert(2, RowRef { value: None, ..gone });
        rows.into_iter().try_for_each(row)
    });
    written.unwrap();
}

/// The files that a snapshot has of a database.
fn files(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_kept = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(".sst") || name.starts_with("MANIFEST-")
    };
    names.filter(is_kept).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_database_of_the_first_version_is_read_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let tuning = Tuning::new(&options(Backend::RocksDb, directory.path()));
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join("rocksdb-1");
    if !sample.exists() && std::env::var_os("UPDATE").is_some() {
        let (made, linked) = (directory.path().join("made"), directory.path().join("linked"));
        write(&tuning, &made);
        Database::open(&made, &tuning).unwrap().checkpoint(&linked).unwrap();
        copy(&linked, &sample);
    }
    let folder = directory.path().join("read");
    copy(&sample, &folder);
    let manifest = files(&folder).into_iter().find(|path| path.extension().is_none()).unwrap();
    let name = manifest.file_name().unwrap().to_string_lossy().into_owned();
    fs::write(folder.join("CURRENT"), format!("{name}\n")).unwrap();
    let mut found = Vec::new();
    let all = KeyGroupRange { start: 0, end: 1 << 15 };
    Database::open_to_read(&folder, &tuning)
        .unwrap()
        .each(all, None, &mut |key_group, table, key, value| {
            found.push((key_group, table, key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    let expected: Vec<_> = ROWS
        .iter()
        .map(|(group, table, key, value)| (*group, *table, key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(found, expected);
}

//! Rows in memory and in files, against sorted maps; and damaged files.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use super::buffer::WantedRow;
use super::{RowBuffer, RowRef, RowsFile, RowsWriter, Run, merge};

type Key = (u16, u16, Vec<u8>);
type Model = BTreeMap<Key, Option<Vec<u8>>>;
type Stored = Vec<(Key, Vec<u8>)>;

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 1 << 15 };

/// Keys that differ in length and behind zeros, around the length of a prefix.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(0..3u8, 0..4), vec(0..2u8, 10..15)]
}

fn rows(count: usize) -> impl Strategy<Value = Vec<(Key, Option<Vec<u8>>)>> {
    vec(((0..4u16, 0..3u16, key()), proptest::option::weighted(0.8, vec(any::<u8>(), 0..20))), 0..count)
}

fn sorted(rows: &[(Key, Option<Vec<u8>>)]) -> Run {
    let mut buffer = RowBuffer::default();
    for ((group, table, key), value) in rows {
        buffer.push(*group, *table, key, value.as_deref()).unwrap();
    }
    buffer.sort()
}

fn write(path: &Path, rows: &Stored, compress: bool) {
    let mut writer = RowsWriter::create(path, ALL, compress).unwrap();
    for ((group, table, key), value) in rows {
        writer.row(*group, *table, key, value).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), rows.len() as u64);
}

fn read(path: &Path, groups: KeyGroupRange, table: Option<u16>) -> Result<Stored> {
    let mut found = Vec::new();
    RowsFile::open(path)?.each(groups, table, &mut |group, table, key, value| {
        found.push(((group, table, key.to_vec()), value.to_vec()));
        Ok(())
    })?;
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merged_runs_are_as_if_all_rows_had_been_put_one_after_the_other(runs in vec(rows(40), 0..5)) {
        let model: Model = runs.iter().flatten().cloned().collect();
        let runs: Vec<Run> = runs.iter().map(|rows| sorted(rows)).collect();
        let mut found = Vec::new();
        merge(&runs, &mut |RowRef { key_group, table, key, value }| {
            found.push(((key_group, table, key.to_vec()), value.map(<[u8]>::to_vec)));
            Ok(())
        }).unwrap();
        prop_assert_eq!(&found, &model.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>());
        for ((group, table, key), value) in &model {
            let last = runs.iter().rev().find_map(|run| run.get(&WantedRow::new(*group, *table, key)));
            prop_assert_eq!(last, Some(value.as_deref()));
        }
        prop_assert!(runs.iter().all(|run| run.get(&WantedRow::new(9, 0, b"")).is_none()));
    }

    #[test]
    fn a_file_gives_the_rows_of_the_key_groups_and_the_table_asked_for(
        rows in rows(60), length in prop_oneof![Just(0usize), Just(20_000)], compress: bool,
        start in 0..5u32, end in 0..6u32, table in proptest::option::of(0..4u16),
    ) {
        let model: Model = rows.into_iter().collect();
        // Long values make several blocks.
        let rows: Stored = model.into_iter().map(|(key, value)| {
            let mut value = value.unwrap_or_default();
            value.resize(value.len() + length, 7);
            (key, value)
        }).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows");
        write(&path, &rows, compress);
        let wanted = |(group, of, _): &Key| {
            (start..end).contains(&u32::from(*group)) && table.is_none_or(|table| table == *of)
        };
        let expected: Stored = rows.into_iter().filter(|(key, _)| wanted(key)).collect();
        prop_assert_eq!(read(&path, KeyGroupRange { start, end }, table).unwrap(), expected);
    }

    #[test]
    fn a_damaged_file_is_refused_and_never_read_wrongly(compress: bool, at: prop::sample::Index, bit in 0..8u8, cut: bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows");
        let rows = sample_rows();
        write(&path, &rows, compress);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1u8 << bit }
        std::fs::write(&path, &bytes).unwrap();
        match read(&path, ALL, None) {
            Err(error) => prop_assert!(error.to_string().contains("rows"), "{}", error),
            // What the header keeps free says nothing.
            Ok(found) => prop_assert!(!cut && (10..16).contains(&at) && found == rows),
        }
    }
}

fn sample_rows() -> Stored {
    let row = |group, table, key: &str, value: &str| ((group, table, key.into()), value.into());
    vec![
        row(0, 0, "a", "one"),
        row(0, 0, "b", ""),
        row(0, 1, "", "an empty key"),
        row(7, 0, "a", &"long ".repeat(100)),
        row(127, 2, "z", "last"),
    ]
}

#[test]
fn files_of_the_first_version_are_read_and_written_as_ever() {
    for (name, compress) in [("rows-1.bin", false), ("rows-1-lz4.bin", true)] {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
        if !sample.exists() && std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(sample.parent().unwrap()).unwrap();
            write(&sample, &sample_rows(), compress);
        }
        assert_eq!(read(&sample, ALL, None).unwrap(), sample_rows(), "{name}");
        if !compress {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("rows");
            write(&path, &sample_rows(), compress);
            assert_eq!(std::fs::read(path).unwrap(), std::fs::read(&sample).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_file_of_a_newer_version_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows");
    write(&path, &sample_rows(), false);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2;
    std::fs::write(&path, &bytes).unwrap();
    let error = read(&path, ALL, None).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("use a newer one"), "{error}");
}

#[test]
fn of_empty_rows_the_last_counts_too() {
    let empty = (1, 1, Vec::new());
    for last in [None, Some(Vec::new())] {
        let rows = [(empty.clone(), Some(Vec::new())), (empty.clone(), None), (empty.clone(), last.clone())];
        assert_eq!(sorted(&rows).row(0).value, last.as_deref());
    }
}

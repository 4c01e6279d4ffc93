//! Temporary files: whose they are, when they go, and what happens when they are damaged.

use std::os::unix::fs::PermissionsExt;

use flott_schema::error::ErrorKind;

use super::*;
use crate::batch::Batch;
use crate::key::ByValue;
use crate::operators::bounded::order::{Arrival, ByValueOf, Order};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::reduce_group::ReduceGroup;
use crate::operators::bounded::results::Results;
use crate::operators::bounded::sort_partition::SortPartition;
use crate::operators::bounded::spill::SpillFile;

fn text(n: u64) -> String {
    format!("record number {n}")
}

#[test]
fn blocks_are_read_back_in_any_order() {
    let scratch = tempfile::tempdir().unwrap();
    let mut file = SpillFile::create(&context(&scratch.path().join("not there yet"))).unwrap();
    let batches: Vec<Batch<String>> = (0..10)
        .map(|block| {
            let mut batch = Batch::default();
            (0..block).for_each(|n| batch.push(text(n), n as i64));
            batch
        })
        .collect();
    let blocks: Vec<_> = batches.iter().map(|batch| file.append(batch).unwrap()).collect();
    for (block, batch) in blocks.iter().zip(&batches).rev() {
        assert_eq!(&file.read::<String>(*block).unwrap(), batch);
    }
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others must not read the records of a job");
    let path = file.path().to_path_buf();
    assert!(path.exists());
    drop(file);
    assert!(!path.exists());
}

#[test]
fn two_operators_of_the_same_name_have_files_of_their_own() {
    let scratch = tempfile::tempdir().unwrap();
    let ctx = context(scratch.path());
    let (first, second) = (SpillFile::create(&ctx).unwrap(), SpillFile::create(&ctx).unwrap());
    assert_ne!(first.path(), second.path());
    assert!(first.path().file_name().unwrap().to_str().unwrap().starts_with("Tested-Operator-0-"));
}

#[test]
fn a_damaged_block_is_an_error_that_names_the_file() {
    let scratch = tempfile::tempdir().unwrap();
    let mut file = SpillFile::create(&context(scratch.path())).unwrap();
    let good = file.append(&Batch::of(vec![text(1)])).unwrap();
    let bad = file.append(&Batch::of(vec![text(2)])).unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(file.path(), &bytes).unwrap();
    assert_eq!(file.read::<String>(good).unwrap().records, [text(1)]);
    let error = file.read::<String>(bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = error.to_string();
    assert!(message.contains(&format!("{} is corrupt", file.path().display())), "{message}");
    assert!(message.contains("offset"), "{message}");

    std::fs::write(file.path(), &bytes[..10]).unwrap();
    let error = file.read::<String>(bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
}

#[test]
fn a_scratch_folder_that_cannot_be_is_an_error_that_names_it() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a file");
    std::fs::write(&file, "no folder").unwrap();
    let error = SpillFile::create(&context(&file)).map(drop).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

/// Flips a bit at the end of every temporary file: in a block that is read when others were read already.
fn damage(scratch: &TempDir) {
    let files = files(scratch);
    assert!(!files.is_empty(), "there is a file to damage");
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn an_operator_fails_when_its_file_is_damaged_and_deletes_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut harness = HarnessBuilder::new(settings(4 << 10, scratch.path()))
        .one_input(|ctx| {
            Ok(SortPartition::new(ByValueOf::new(|text: &String| text.clone(), Order::Ascending), ctx))
        })
        .unwrap();
    harness.push_all((0..500).map(|n| (text(n), 0))).unwrap();
    damage(&scratch);
    let error = harness.end().unwrap_err();
    assert!(error.to_string().contains(&scratch.path().display().to_string()), "{error}");
    assert!(error.to_string().contains("corrupt"), "{error}");
    drop(harness);
    assert!(files(&scratch).is_empty());
}

#[test]
fn a_function_that_sees_too_little_because_of_a_damaged_file_gives_no_result() {
    let scratch = tempfile::tempdir().unwrap();
    let count = |_: &u8, records: Records<'_, String>, out: &mut Results<'_, usize>| {
        out.collect(records.count());
    };
    let mut harness = HarnessBuilder::new(settings(32 << 10, scratch.path()))
        .one_input(|ctx| Ok(ReduceGroup::new(ByValue::new(|_: &String| 0u8), Arrival, count, ctx)))
        .unwrap();
    harness.push_all((0..500).map(|n| (text(n), 0))).unwrap();
    damage(&scratch);
    let error = harness.end().unwrap_err();
    assert!(error.to_string().contains("corrupt"), "{error}");
    assert_eq!(harness.take(), []);
}

#[test]
fn an_operator_dropped_in_the_middle_leaves_no_file() {
    let scratch = tempfile::tempdir().unwrap();
    let mut harness = HarnessBuilder::<u64>::new(settings(1 << 10, scratch.path()))
        .one_input(|ctx| Ok(SortPartition::new(ByValueOf::new(|n: &u64| *n, Order::Ascending), ctx)))
        .unwrap();
    harness.push_all((0..5000).map(|n| (n, 0))).unwrap();
    assert_eq!(files(&scratch).len(), 1);
    drop(harness);
    assert!(files(&scratch).is_empty());
}

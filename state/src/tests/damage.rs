//! Files that are missing, cut or changed; folders that cannot be written.

use std::fs;
use std::path::{Path, PathBuf};

use flott_dataflow::snapshot::{FrozenRows, RowSink, TaskState};
use flott_schema::snapshot::SnapshotKind;
use flott_schema::{Error, Result};

use super::kit::*;
use crate::Backend;

fn filled(backend: Backend) -> (Cluster, Vec<Task>) {
    let mut cluster = Cluster::new(backend);
    let mut tasks = cluster.tasks(2, None);
    for key in 0..100 {
        set(&mut tasks, key % 2 == 0, key, Some(&format!("value {key}")));
    }
    (cluster, tasks)
}

fn error_of(cluster: &mut Cluster, parallelism: u32, taken: &Taken) -> String {
    let opened: Result<Vec<Task>> =
        (0..parallelism).map(|subtask| cluster.try_task(subtask, parallelism, Some(taken))).collect();
    let checked = opened.and_then(|tasks| {
        let check = |task: &Task| task.backend.state_of(keyed_operator()).wait_checked();
        tasks.iter().try_for_each(check)
    });
    checked.expect_err("it is refused").to_string()
}

#[test]
fn every_damage_to_every_file_is_refused_by_the_names_of_the_file_and_the_snapshot() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for kind in [SnapshotKind::Checkpoint, CANONICAL] {
            let (mut cluster, mut tasks) = filled(backend);
            let taken = cluster.take(&mut tasks, kind);
            drop(tasks);
            for file in files(&taken) {
                let path: PathBuf = Path::new(&taken.from.folder).join(&file.path);
                let whole = fs::read(&path).unwrap();
                let mut flipped = whole.clone();
                flipped[whole.len() / 2] ^= 1;
                let longer = [&whole[..], b"x"].concat();
                for (damaged, parallelism) in [
                    (None, 2),
                    (Some(&whole[..whole.len() - 1]), 2),
                    (Some(&whole[..0]), 2),
                    (Some(&flipped), 2),
                    (Some(&flipped), 3),
                    (Some(&longer), 1),
                ] {
                    match damaged {
                        Some(bytes) => fs::write(&path, bytes).unwrap(),
                        None => fs::remove_file(&path).unwrap(),
                    }
                    let error = error_of(&mut cluster, parallelism, &taken);
                    let name = path.file_name().unwrap().to_string_lossy();
                    assert!(error.contains(&*name) && error.contains(&taken.from.to_string()), "{error}");
                }
                fs::write(&path, whole).unwrap();
            }
            cluster.restored(2, &taken);
        }
    }
}

#[test]
fn a_manifest_that_is_missing_or_damaged_is_named() {
    let (mut cluster, mut tasks) = filled(Backend::RocksDb);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let path = Path::new(&taken.from.folder).join("_metadata");
    let whole = fs::read(&path).unwrap();
    for bytes in [None, Some(&whole[..whole.len() / 2])] {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = error_of(&mut cluster, 2, &taken);
        assert!(error.contains("_metadata") && error.contains(&taken.from.folder), "{error}");
    }
}

#[test]
fn a_manifest_cannot_lead_out_of_the_working_folder() {
    let (mut cluster, mut tasks) = filled(Backend::RocksDb);
    let mut taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    for task in &mut taken.manifest.tasks {
        for keyed in task.operators.iter_mut().flat_map(|operator| &mut operator.keyed) {
            keyed.files[0].name = "../../../evil.sst".into();
        }
    }
    write_manifest(&taken.from.folder, &taken.manifest);
    let error = error_of(&mut cluster, 2, &taken);
    assert!(error.contains("'../../../evil.sst' is no file of RocksDB"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_fails_the_snapshot_and_not_the_state() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for kind in [SnapshotKind::Checkpoint, CANONICAL] {
            let (mut cluster, mut tasks) = filled(backend);
            fs::write(cluster.directory.path().join("snapshots"), "a file where a folder should be").unwrap();
            let checkpoint = cluster.begin(&mut tasks, kind);
            let mut results = Vec::new();
            for task in &mut tasks {
                task.first.freeze();
                task.second.freeze();
                let (send, done) = std::sync::mpsc::sync_channel(1);
                let told = Box::new(move |result| send.send(result).unwrap());
                task.backend.passed(checkpoint, false);
                task.backend.end(
                    checkpoint,
                    cluster.target(checkpoint, kind),
                    crate::TaskExtras::default(),
                    told,
                );
                results.push(wait(&done));
            }
            for result in results {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(&cluster.path("")[..10]) && error.contains("snapshots"), "{error}");
            }
            tasks.iter().for_each(|task| task.backend.aborted(checkpoint));
            fs::remove_file(cluster.directory.path().join("snapshots")).unwrap();
            // Nothing of what was handed in got lost.
            let expected = all_rows(&tasks);
            let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
            assert_eq!(cluster.restored(2, &taken), expected);
        }
    }
}

struct Broken {
    panics: bool,
}

impl FrozenRows for Broken {
    fn len(&self) -> usize {
        1
    }

    fn encode(self: Box<Self>, _: &mut dyn RowSink) -> Result<()> {
        if self.panics {
            panic!("a serialiser panicked")
        } else {
            Err(Error::user("a key cannot be serialised"))
        }
    }
}

#[test]
fn rows_that_cannot_be_encoded_fail_the_snapshot_and_where_rows_get_lost_the_task() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for panics in [false, true] {
            let (mut cluster, mut tasks) = filled(backend);
            let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
            let mut sink = tasks[0].first.state.freeze(tasks[0].first.id);
            sink.rows(Box::new(Broken { panics }));
            sink.done();
            let error =
                cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).err().unwrap().to_string();
            let why = if panics { "a serialiser panicked" } else { "a key cannot be serialised" };
            assert!(error.contains(why), "{error}");
            tasks.iter().for_each(|task| task.backend.aborted(checkpoint));
            let checkpoint = cluster.next();
            let begun = tasks[0].backend.begin(&flott_schema::snapshot::Barrier::of_checkpoint(checkpoint));
            match backend {
                Backend::HashMap => begun.unwrap(),
                Backend::RocksDb => assert!(begun.unwrap_err().to_string().contains(why)),
            }
        }
    }
}

#[test]
fn a_table_that_is_not_handed_in_fails_the_snapshot() {
    let (mut cluster, mut tasks) = filled(Backend::HashMap);
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    tasks[0].first.freeze();
    let (send, done) = std::sync::mpsc::sync_channel(1);
    let told = Box::new(move |result| send.send(result).unwrap());
    tasks[0].backend.passed(checkpoint, false);
    tasks[0].backend.end(
        checkpoint,
        cluster.target(checkpoint, SnapshotKind::Checkpoint),
        crate::TaskExtras::default(),
        told,
    );
    let error = wait(&done).unwrap_err().to_string();
    assert!(error.contains("did not hand in its table"), "{error}");
}

#[test]
fn a_sink_that_is_dropped_fails_the_snapshot() {
    let (mut cluster, mut tasks) = filled(Backend::RocksDb);
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    drop(tasks[0].first.state.freeze(tasks[0].first.id));
    let error = cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).err().unwrap().to_string();
    assert!(error.contains("not all of its rows"), "{error}");
    let state = tasks[0].backend.operator(keyed_operator(), "keyed");
    assert!(
        flott_dataflow::snapshot::StateBackend::fetch(
            &*state,
            tasks[0].first.id,
            &[(0, b"k")],
            &mut |_, _| Ok(())
        )
        .is_err()
    );
}

#[test]
fn rows_that_are_handed_in_outside_of_a_snapshot_are_not_lost_silently() {
    let (_cluster, tasks) = filled(Backend::RocksDb);
    let mut sink = tasks[0].first.state.freeze(tasks[0].first.id);
    sink.rows(Box::new(Frozen(vec![(1, None)])));
    sink.done();
    let error = tasks[0].backend.begin(&flott_schema::snapshot::Barrier::of_checkpoint(1)).unwrap_err();
    assert!(error.to_string().contains("outside of a snapshot"), "{error}");
}

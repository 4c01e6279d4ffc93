//! Tasks that go on with the files of others as they are, and read them to the end behind that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use flott_dataflow::snapshot::TaskState;
use flott_schema::ErrorKind;
use flott_schema::snapshot::{Barrier, KeyedSnapshot, SnapshotKind};

use super::kit::*;
use crate::pool::lock;
use crate::{Backend, TaskBackend};

fn keyed(taken: &Taken) -> Vec<&KeyedSnapshot> {
    let operators = taken.manifest.tasks.iter().flat_map(|task| &task.operators);
    operators.flat_map(|operator| &operator.keyed).collect()
}

/// The files of sorted rows.
fn sorted(taken: &Taken) -> BTreeSet<String> {
    files(taken).into_iter().filter(|file| file.name.ends_with(".sst")).map(|file| file.path).collect()
}

#[test]
fn a_task_that_takes_over_others_stores_none_of_their_rows_again() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(4, None);
    for key in 0..200 {
        set(&mut tasks, key % 2 == 0, key, Some(&format!("value {key}")));
    }
    let expected = all_rows(&tasks);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let mut tasks = cluster.tasks(1, Some(&taken));
    let again = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    assert_eq!(sorted(&again), sorted(&taken));
    let parts: Vec<_> =
        keyed(&again).iter().map(|part| (part.key_groups.start, part.key_groups.end)).collect();
    assert_eq!(parts, [(0, 2), (2, 4), (4, 6), (6, 8)], "each keeps its key groups");
    // What changes goes to where it belongs, and comes back from there, also through a savepoint.
    let mut expected = expected;
    for key in [3, 30, 77, 150] {
        set(&mut tasks, false, key, Some("changed"));
        expected.0.insert(key, "changed".into());
    }
    set(&mut tasks, true, 40, None);
    expected.1.remove(&40);
    for kind in [SnapshotKind::Checkpoint, NATIVE, CANONICAL] {
        let taken = cluster.take(&mut tasks, kind);
        for parallelism in [1, 2, 3, 8] {
            assert_eq!(cluster.restored(parallelism, &taken), expected, "{kind:?} {parallelism}");
        }
    }
}

#[test]
fn damage_that_is_found_late_fails_the_task_and_gets_into_no_snapshot() {
    let mut cluster = Cluster::with(Backend::RocksDb, |options| {
        options.local_backup = true;
        options.recover_from_local = true;
    });
    let mut tasks = cluster.tasks(1, None);
    for key in 0..100 {
        set(&mut tasks, false, key, Some(&format!("value {key}")));
    }
    let expected = all_rows(&tasks);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    drop(tasks);
    let file = files(&taken).into_iter().find(|file| file.name.ends_with(".sst")).unwrap();
    let path: PathBuf = Path::new(&taken.from.folder).join(&file.path);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    // In a row, which nobody reads when the database is opened.
    damaged[10] ^= 1;
    // All links to it are damaged with it, as the disk would do it.
    fs::write(&path, &damaged).unwrap();
    let open = |cluster: &Cluster| TaskBackend::open(&cluster.service, identity(0, 1, 9), Some(&taken.from));
    let task = open(&cluster).unwrap();
    let state = task.state_of(keyed_operator());
    let error = state.wait_checked().unwrap_err().to_string();
    assert!(error.contains(&file.path) && error.contains("checksum"), "{error}");
    // The word reaches the task a moment later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while state.check_usable().is_ok() {
        assert!(std::time::Instant::now() < deadline, "the task does not hear of it");
        std::thread::yield_now();
    }
    let error = task.begin(&Barrier::of_checkpoint(7)).unwrap_err().to_string();
    assert!(error.contains(&file.path), "{error}");
    drop((state, task));
    fs::write(&path, whole).unwrap();
    let task = open(&cluster).unwrap();
    let state = task.operator(keyed_operator(), "keyed");
    assert!(task.state_of(keyed_operator()).wait_checked().is_ok());
    drop((state, task));
    assert_eq!(cluster.restored(1, &taken), expected);
}

#[test]
fn damage_that_the_task_reads_itself_is_named_at_once_though_the_check_has_not_begun() {
    for of_copy in [false, true] {
        let mut cluster = Cluster::with(Backend::RocksDb, |options| {
            options.local_backup = of_copy;
            options.recover_from_local = of_copy;
        });
        let mut tasks = cluster.tasks(1, None);
        for key in 0..100 {
            set(&mut tasks, false, key, Some(&format!("value {key}")));
        }
        let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let one = identity(0, 1, 0);
        let backup = cluster.service.backup(JOB, one.attempt.task, keyed_operator(), one.key_groups());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while of_copy && !backup.join(taken.from.checkpoint.to_string()).exists() {
            assert!(std::time::Instant::now() < deadline, "no backup is kept");
            std::thread::yield_now();
        }
        drop(tasks);
        let file = files(&taken).into_iter().find(|file| file.name.ends_with(".sst")).unwrap();
        let path: PathBuf = Path::new(&taken.from.folder).join(&file.path);
        let mut damaged = fs::read(&path).unwrap();
        damaged[10] ^= 1;
        fs::write(&path, damaged).unwrap();

        // The threads on which files are checked have something else to do.
        let (hold, held) = mpsc::sync_channel::<()>(1);
        let held = Arc::new(Mutex::new(held));
        for _ in 0..64 {
            let held = held.clone();
            cluster.service.transfer.submit(move || assert!(lock(&held).recv().is_err())).unwrap();
        }
        let error = cluster.try_task(0, 1, Some(&taken)).err().expect("rows are damaged");
        let text = error.to_string();
        assert!(text.contains(&file.path) && text.contains("checksum"), "{text}");
        assert!(text.contains(&taken.from.to_string()), "{text}");
        assert_eq!(error.kind(), if of_copy { ErrorKind::Io } else { ErrorKind::Snapshot }, "{text}");
        assert_eq!(text.contains("the copy in"), of_copy, "{text}");
        assert!(!backup.exists(), "it would be used again");
        drop(hold);
    }
}

#[test]
fn a_damaged_copy_on_the_local_disk_is_not_used_twice() {
    let mut cluster = Cluster::with(Backend::RocksDb, |options| {
        options.local_backup = true;
        options.recover_from_local = true;
    });
    let mut tasks = cluster.tasks(1, None);
    for key in 0..100 {
        set(&mut tasks, false, key, Some(&format!("value {key}")));
    }
    let expected = all_rows(&tasks);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let one = identity(0, 1, 0);
    let backup = cluster.service.backup(JOB, one.attempt.task, keyed_operator(), one.key_groups());
    let kept = backup.join(taken.from.checkpoint.to_string());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !kept.exists() {
        assert!(std::time::Instant::now() < deadline, "no backup is kept");
        std::thread::yield_now();
    }
    drop(tasks);
    let file = files(&taken).into_iter().find(|file| file.name.ends_with(".sst")).unwrap();
    let copy = kept.join(&file.name);
    let mut damaged = fs::read(&copy).unwrap();
    damaged[10] ^= 1;
    // A file of its own, as on another disk.
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, damaged).unwrap();
    let task = TaskBackend::open(&cluster.service, identity(0, 1, 9), Some(&taken.from)).unwrap();
    let error = task.state_of(keyed_operator()).wait_checked().unwrap_err().to_string();
    assert!(error.contains("the copy in") && error.contains(&backup.display().to_string()), "{error}");
    drop(task);
    assert!(!backup.exists());
    assert_eq!(cluster.restored(1, &taken), expected, "from the storage");
}

//! Several snapshots under way, of which each has what was there at its own barrier, and snapshots that are
//! given up, which hold nothing up.

use std::path::Path;
use std::time::{Duration, Instant};

use flott_dataflow::snapshot::{ListMode, TaskState};
use flott_schema::snapshot::{Barrier, SnapshotKind};

use super::kit::*;
use crate::Backend;

const CHECKPOINT: SnapshotKind = SnapshotKind::Checkpoint;

fn layers_left(task: &Task) -> usize {
    task.backend.state_of(keyed_operator()).layers_left()
}

fn shared(taken: &Taken) -> Vec<String> {
    let paths = files(taken).into_iter().map(|file| file.path);
    paths.filter(|path| path.starts_with("../shared/")).collect()
}

fn is_there(taken: &Taken, path: &str) -> bool {
    Path::new(&taken.from.folder).join(path).exists()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Rows of all sorts, and then others in their places.
fn change(tasks: &mut [Task], to: &str) {
    for key in 0..40 {
        set(tasks, key % 2 == 0, key, (key % 3 > 0 || to.len().is_multiple_of(2)).then_some(to));
    }
}

fn write_out(tasks: &mut [Task], backend: Backend) {
    if backend == Backend::RocksDb {
        for task in tasks {
            task.first.write_out();
            task.second.write_out();
        }
    }
}

#[test]
fn snapshots_that_have_passed_end_in_any_order_and_each_has_its_own() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut cluster = Cluster::new(backend);
            let mut tasks = cluster.tasks(2, None);
            let kinds = [CHECKPOINT, NATIVE, CHECKPOINT];
            let mut passed = Vec::new();
            for (kind, to) in kinds.into_iter().zip(["one", "eleven", "three"]) {
                change(&mut tasks, to);
                let checkpoint = cluster.begin(&mut tasks, kind);
                tasks.iter_mut().for_each(|task| task.hand_in(checkpoint));
                passed.push((checkpoint, all_rows(&tasks)));
            }
            change(&mut tasks, "none of the three");
            write_out(&mut tasks, backend);
            for index in order {
                let (checkpoint, rows) = &passed[index];
                let taken = cluster.store(&tasks, *checkpoint, kinds[index]).unwrap();
                assert_eq!(cluster.restored(2, &taken), *rows, "{checkpoint}");
            }
        }
    }
}

#[test]
fn lists_are_those_of_the_snapshot_that_they_were_set_for() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let tasks = cluster.tasks(1, None);
    let other = tasks[0].backend.operator(other_operator(), "other");
    for (checkpoint, item) in [(1, "first"), (2, "second")] {
        tasks[0].backend.begin(&Barrier::of_checkpoint(checkpoint)).unwrap();
        other.set_list("items", ListMode::Split, "str", vec![item.into()]).unwrap();
        tasks[0].backend.passed(checkpoint, true);
    }
    for (checkpoint, item) in [(2, "second"), (1, "first")] {
        let (send, done) = std::sync::mpsc::sync_channel(1);
        let told = Box::new(move |result| send.send(result).unwrap());
        let extras = crate::TaskExtras { finished: true, ..Default::default() };
        tasks[0].backend.end(checkpoint, cluster.target(checkpoint, CHECKPOINT), extras, told);
        let part = wait(&done).unwrap();
        assert_eq!(part.operators[0].lists[0].items, [item.as_bytes()]);
    }
}

#[test]
fn only_what_has_passed_can_end_and_once() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(1, None);
    let error = |result: flott_schema::Result<Taken>| result.err().expect("it is refused").to_string();
    assert!(error(cluster.store(&tasks, 7, CHECKPOINT)).contains("its barrier has not passed"));
    let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
    assert!(error(cluster.store(&tasks, checkpoint, CHECKPOINT)).contains("its barrier has not passed"));
    tasks[0].backend.passed(checkpoint + 1, false);
    tasks[0].hand_in(checkpoint);
    cluster.store(&tasks, checkpoint, CHECKPOINT).unwrap();
    assert!(error(cluster.store(&tasks, checkpoint, CHECKPOINT)).contains("its barrier has not passed"));
}

#[test]
fn what_is_behind_a_snapshot_is_stored_before_it_ends() {
    let mut cluster = Cluster::with(Backend::RocksDb, |options| options.buffer_bytes = 400);
    let mut tasks = cluster.tasks(1, None);
    change(&mut tasks, "before");
    let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
    tasks[0].hand_in(checkpoint);
    let rows = all_rows(&tasks);
    for _ in 0..20 {
        change(&mut tasks, "behind the barrier");
        write_out(&mut tasks, Backend::RocksDb);
        // The last may still take rows.
        assert!(layers_left(&tasks[0]) <= 1);
    }
    let taken = cluster.store(&tasks, checkpoint, CHECKPOINT).unwrap();
    assert_eq!(cluster.restored(1, &taken), rows);
}

/// Hands in for a snapshot that is given up, by `give_up` and before its first or second table; looks that it
/// holds nothing up and that no row is lost.
fn given_up(backend: Backend, after: usize) {
    let mut cluster = Cluster::with(backend, |options| options.buffer_bytes = 400);
    let mut tasks = cluster.tasks(1, None);
    change(&mut tasks, "before");
    cluster.take(&mut tasks, CHECKPOINT);
    change(&mut tasks, "at the barrier");
    let checkpoint = cluster.next();
    let mut step = 0;
    let mut abort = |task: &Task| {
        if step == after {
            task.backend.aborted(checkpoint);
        }
        step += 1;
    };
    abort(&tasks[0]);
    tasks[0].backend.begin(&Barrier::of_checkpoint(checkpoint)).unwrap();
    abort(&tasks[0]);
    tasks[0].first.freeze();
    abort(&tasks[0]);
    // Rows that are newer than those of the second table, which are on their way yet.
    tasks[0].first.set(5, Some("newer"));
    if backend == Backend::RocksDb {
        tasks[0].first.write_out();
    }
    tasks[0].second.freeze();
    abort(&tasks[0]);
    tasks[0].second.set(6, Some("newer"));
    let other = tasks[0].backend.operator(other_operator(), "other");
    other.set_list("items", ListMode::Split, "str", Vec::new()).unwrap();
    write_out(&mut tasks, backend);
    assert!(layers_left(&tasks[0]) <= 1, "given up after {after}");
    if backend == Backend::RocksDb {
        let found = tasks[0].first.fetch(0..50);
        assert_eq!(found, tasks[0].first.rows, "given up after {after}");
        assert_eq!(tasks[0].second.fetch(0..50), tasks[0].second.rows, "given up after {after}");
    }
    tasks[0].backend.passed(checkpoint, false);
    let error = cluster.store(&tasks, checkpoint, CHECKPOINT).err().unwrap().to_string();
    assert!(error.contains("given up"), "{error}");
    assert!(!Path::new(&cluster.target(checkpoint, CHECKPOINT).folder).exists());
    let next = cluster.take(&mut tasks, CHECKPOINT);
    let expected = all_rows(&tasks);
    assert_eq!(cluster.restored(1, &next), expected, "given up after {after}");
}

#[test]
fn a_snapshot_that_is_given_up_before_its_barrier_holds_nothing_up() {
    given_up(Backend::HashMap, 0);
    given_up(Backend::RocksDb, 0);
}

#[test]
fn a_snapshot_that_is_given_up_while_operators_hand_in_holds_nothing_up() {
    for after in 1..4 {
        given_up(Backend::HashMap, after);
        given_up(Backend::RocksDb, after);
    }
}

#[test]
fn a_snapshot_that_is_given_up_when_it_has_passed_leaves_nothing_behind() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(1, None);
        change(&mut tasks, "before");
        let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
        tasks[0].hand_in(checkpoint);
        assert_eq!(layers_left(&tasks[0]), 0);
        let working = || walk(&cluster.directory.path().join("work"), &format!("checkpoint-{checkpoint}"));
        assert!(working(), "it waits to be told where to go");
        tasks[0].backend.aborted(checkpoint);
        eventually("its working files stay behind", || !working());
        assert!(cluster.store(&tasks, checkpoint, CHECKPOINT).is_err());
        let next = cluster.take(&mut tasks, CHECKPOINT);
        let expected = all_rows(&tasks);
        assert_eq!(cluster.restored(1, &next), expected);
    }
}

/// Whether there is something of this name.
fn walk(folder: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name() == name || walk(&entry.path(), name))
}

#[test]
fn only_the_last_that_were_given_up_are_remembered() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    (1..=70).for_each(|checkpoint| tasks[0].backend.aborted(checkpoint));
    let begins = |tasks: &mut [Task], checkpoint| {
        tasks[0].backend.begin(&Barrier::of_checkpoint(checkpoint)).unwrap();
        tasks[0].hand_in(checkpoint);
        cluster.store(tasks, checkpoint, CHECKPOINT).is_ok()
    };
    assert_eq!([6, 7, 70, 71].map(|checkpoint| begins(&mut tasks, checkpoint)), [true, false, false, true]);
}

#[test]
fn snapshots_whose_end_nobody_tells_are_not_kept_without_bound() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(1, None);
    let begun: Vec<u64> = (0..70)
        .map(|_| {
            let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
            tasks[0].hand_in(checkpoint);
            checkpoint
        })
        .collect();
    let mut ends = |index: usize| cluster.store(&tasks, begun[index], CHECKPOINT).is_ok();
    assert_eq!([0, 5, 6, 69].map(&mut ends), [false, false, true, true]);
}

#[test]
fn a_complete_checkpoint_ends_older_ones_but_no_savepoint() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(1, None);
        let mut passed = Vec::new();
        for kind in [CHECKPOINT, NATIVE, CHECKPOINT] {
            change(&mut tasks, kind.word());
            let checkpoint = cluster.begin(&mut tasks, kind);
            tasks[0].hand_in(checkpoint);
            passed.push((checkpoint, all_rows(&tasks)));
        }
        cluster.store(&tasks, passed[2].0, CHECKPOINT).unwrap();
        tasks[0].backend.completed(passed[2].0);
        let error = cluster.store(&tasks, passed[0].0, CHECKPOINT).err().unwrap().to_string();
        assert!(error.contains("given up"), "{error}");
        let savepoint = cluster.store(&tasks, passed[1].0, NATIVE).unwrap();
        assert_eq!(cluster.restored(1, &savepoint), passed[1].1);
        // And a savepoint ends no checkpoint.
        let first = cluster.begin(&mut tasks, CHECKPOINT);
        tasks[0].hand_in(first);
        cluster.take(&mut tasks, NATIVE);
        cluster.store(&tasks, first, CHECKPOINT).unwrap();
    }
}

#[test]
fn a_checkpoint_whose_end_was_missed_keeps_its_files_and_later_ones_stay_incremental() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    change(&mut tasks, "much");
    cluster.take(&mut tasks, CHECKPOINT);
    let missed = |cluster: &mut Cluster, tasks: &mut [Task], value| {
        set(tasks, false, 1, Some(value));
        let checkpoint = cluster.begin(tasks, CHECKPOINT);
        (checkpoint, cluster.end(tasks, checkpoint, CHECKPOINT).unwrap())
    };
    let (second, files_of_second) = missed(&mut cluster, &mut tasks, "second");
    // All was compacted: what the second has named again is not there any more.
    tasks[0].backend.state_of(keyed_operator()).database().unwrap().database.compact();
    let third = cluster.take(&mut tasks, CHECKPOINT);
    set(&mut tasks, false, 2, Some("fourth"));
    let fourth = cluster.take(&mut tasks, CHECKPOINT);
    assert!(shared(&third).iter().all(|path| shared(&fourth).contains(path)), "it was stored again");
    assert!(shared(&files_of_second).iter().all(|path| is_there(&files_of_second, path)));
    // It was given up after all.
    tasks[0].backend.aborted(second);
    let own = shared(&files_of_second).pop().unwrap();
    eventually("its file stays behind", || !is_there(&files_of_second, &own));
    assert!(shared(&fourth).iter().all(|path| is_there(&fourth, path)));
}

#[test]
fn shared_files_that_somebody_has_deleted_are_stored_again() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    tasks[0].first.set(1, Some("one"));
    let first = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let shared = cluster.target(1, SnapshotKind::Checkpoint).shared_folder.unwrap();
    std::fs::remove_dir_all(&shared).unwrap();
    tasks[0].first.set(2, Some("two"));
    let second = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    drop(tasks);
    let (rows, _) = cluster.restored(1, &second);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(cluster.try_task(0, 1, Some(&first)).is_err(), "that one is lost");
}

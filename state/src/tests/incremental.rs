//! Sequences of checkpoints, of which each one must be what the state was at its barrier.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::Backend;

#[derive(Clone, Debug)]
enum Step {
    Set {
        second: bool,
        key: u32,
        value: Option<u16>,
    },
    /// Rows leave the memory of the tables.
    WriteOut,
    Snapshot(SnapshotKind),
    /// Given up: before its end, or when it is stored.
    Abort {
        early: bool,
    },
    /// Two checkpoints under way at once; the first is completed behind the barrier of the second, or given
    /// up.
    Overlap {
        completes: bool,
        /// The second is stored first.
        swapped: bool,
    },
    /// All tasks fail, and start from the last completed checkpoint at this parallelism.
    Restart(u32),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => Just(SnapshotKind::Checkpoint),
        1 => Just(SnapshotKind::FullCheckpoint),
        1 => Just(CANONICAL),
        1 => Just(NATIVE),
    ];
    prop_oneof![
        40 => (any::<bool>(), 0..30u32, proptest::option::weighted(0.7, any::<u16>()))
            .prop_map(|(second, key, value)| Step::Set { second, key, value }),
        3 => Just(Step::WriteOut),
        5 => kind.prop_map(Step::Snapshot),
        2 => any::<bool>().prop_map(|early| Step::Abort { early }),
        2 => any::<(bool, bool)>().prop_map(|(completes, swapped)| Step::Overlap { completes, swapped }),
        1 => prop_oneof![Just(1u32), Just(2), Just(3)].prop_map(Step::Restart),
        1 => Just(Step::Compact),
    ]
}

/// What has been taken, with the rows at that time.
#[derive(Default)]
struct Kept {
    /// Whether only the last completed checkpoint is kept, as a coordinator may be told to.
    last_alone: bool,
    taken: Vec<(Taken, (Rows, Rows))>,
}

impl Kept {
    fn last(&self) -> Option<&(Taken, (Rows, Rows))> {
        self.taken.iter().rev().find(|(one, _)| !one.manifest.kind.is_savepoint())
    }

    fn completed(&mut self, snapshot: Taken, rows: (Rows, Rows)) {
        if self.last_alone
            && !snapshot.manifest.kind.is_savepoint()
            && let Some(at) = self.taken.iter().position(|(one, _)| !one.manifest.kind.is_savepoint())
        {
            let (before, _) = self.taken.remove(at);
            let still: Vec<String> = files(&snapshot).into_iter().map(|file| file.path).collect();
            // Tasks that began with the rows of one name its files both.
            let paths: BTreeSet<String> = files(&before).into_iter().map(|file| file.path).collect();
            for path in paths.iter().filter(|path| !still.contains(path)) {
                std::fs::remove_file(Path::new(&before.from.folder).join(path)).unwrap();
            }
        }
        self.taken.push((snapshot, rows));
    }
}

fn run(backend: Backend, last_alone: bool, small: bool, steps: &[Step]) {
    let mut cluster = Cluster::with(backend, |options| {
        if small {
            options.buffer_bytes = 400;
        }
    });
    let mut tasks = cluster.tasks(2, None);
    let mut kept = Kept { last_alone, ..Kept::default() };
    for step in steps {
        match step {
            Step::Set { second, key, value } => {
                set(&mut tasks, *second, *key, value.map(|value| value.to_string()).as_deref());
            }
            Step::WriteOut if backend == Backend::RocksDb => {
                tasks.iter_mut().for_each(|task| {
                    task.first.write_out();
                    task.second.write_out();
                });
            }
            Step::WriteOut => {}
            Step::Snapshot(kind) => {
                let snapshot = cluster.take(&mut tasks, *kind);
                kept.completed(snapshot, all_rows(&tasks));
            }
            Step::Abort { early } => {
                let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
                let abort = |tasks: &[Task]| tasks.iter().for_each(|task| task.backend.aborted(checkpoint));
                if *early {
                    abort(&tasks);
                    let error = cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).err().unwrap();
                    assert!(error.to_string().contains("given up"), "{error}");
                } else {
                    cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).unwrap();
                    abort(&tasks);
                }
            }
            Step::Overlap { completes, swapped } => {
                let kind = SnapshotKind::Checkpoint;
                let first = cluster.begin(&mut tasks, kind);
                tasks.iter_mut().for_each(|task| task.hand_in(first));
                let mut first_taken = None;
                if !swapped {
                    first_taken = Some(cluster.store(&tasks, first, kind).unwrap());
                }
                let rows = all_rows(&tasks);
                set(&mut tasks, false, 3, Some("between"));
                let second = cluster.begin(&mut tasks, kind);
                let second_taken = cluster.end(&mut tasks, second, kind).unwrap();
                let first_taken = first_taken.unwrap_or_else(|| cluster.store(&tasks, first, kind).unwrap());
                if *completes {
                    tasks.iter().for_each(|task| task.backend.completed(first));
                    kept.completed(first_taken, rows);
                } else {
                    tasks.iter().for_each(|task| task.backend.aborted(first));
                }
                tasks.iter().for_each(|task| task.backend.completed(second));
                kept.completed(second_taken, all_rows(&tasks));
            }
            Step::Restart(parallelism) => {
                tasks.clear();
                let last = kept.last();
                tasks = cluster.tasks(*parallelism, last.map(|(one, _)| one));
                assert_eq!(all_rows(&tasks), last.map(|(_, rows)| rows.clone()).unwrap_or_default());
            }
            Step::Compact => tasks.iter().for_each(|task| {
                let state = task.backend.state_of(keyed_operator());
                state.drain();
                state.database().inspect(|store| store.database.compact());
            }),
        }
    }
    if backend == Backend::RocksDb {
        for task in &mut tasks {
            task.first.write_out();
            task.second.write_out();
            assert_eq!(task.first.fetch(0..40), task.first.rows);
            assert_eq!(task.second.fetch(0..40), task.second.rows);
        }
    }
    drop(tasks);
    for (snapshot, rows) in &kept.taken {
        assert_eq!(cluster.restored(2, snapshot), *rows, "snapshot {}", snapshot.from.checkpoint);
    }
    if let Some((snapshot, rows)) = kept.taken.last() {
        assert_eq!(cluster.restored(3, snapshot), *rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_holds_the_state_at_its_barrier_in_rocksdb(last_alone: bool, small: bool, steps in vec(step(), 1..120)) {
        run(Backend::RocksDb, last_alone, small, &steps);
    }

    #[test]
    fn every_snapshot_holds_the_state_at_its_barrier_in_memory(last_alone: bool, small: bool, steps in vec(step(), 1..120)) {
        run(Backend::HashMap, last_alone, small, &steps);
    }
}

#[test]
fn a_checkpoint_stores_what_is_new_and_names_the_rest_again() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    for key in 0..50 {
        set(&mut tasks, false, key, Some(&"large".repeat(1_000)));
    }
    let first = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    set(&mut tasks, false, 7, Some("small"));
    let second = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let shared = |taken: &Taken| -> Vec<String> {
        let files = files(taken).into_iter().map(|file| file.path);
        files.filter(|path| path.starts_with("../shared/")).collect()
    };
    assert_eq!((shared(&first).len(), shared(&second).len()), (1, 2));
    assert!(shared(&second).contains(&shared(&first)[0]));
    let written = |taken: &Taken| taken.manifest.tasks[0].times.written_bytes;
    let state = |taken: &Taken| taken.manifest.tasks[0].times.state_bytes;
    assert!(written(&second) < written(&first) && state(&second) > state(&first));

    // One that was given up leaves nothing behind, and nothing builds on it.
    set(&mut tasks, false, 8, Some("small"));
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    let given_up = cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).unwrap();
    let stored = |path: &String| Path::new(&given_up.from.folder).join(path).exists();
    let new: Vec<String> =
        shared(&given_up).into_iter().filter(|path| !shared(&second).contains(path)).collect();
    assert!(new.len() == 1 && stored(&new[0]));
    tasks[0].backend.aborted(checkpoint);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while stored(&new[0]) {
        assert!(std::time::Instant::now() < deadline, "its file stays behind");
        std::thread::yield_now();
    }
    assert!(shared(&second).iter().all(stored));
    let third = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    assert!(shared(&third).iter().all(|path| stored(path) && *path != new[0]));
    let expected = all_rows(&tasks);
    assert_eq!(cluster.restored(1, &third), expected);

    // After a restart too.
    drop(tasks);
    let mut tasks = cluster.tasks(1, Some(&third));
    set(&mut tasks, true, 9, Some("small"));
    let fourth = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    assert!(shared(&third).iter().all(|path| shared(&fourth).contains(path)));
    // But of the user's snapshots nothing is named again.
    let mut foreign = third.clone();
    foreign.from.own = false;
    let mut tasks = cluster.tasks(1, Some(&foreign));
    let fifth = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    assert!(shared(&third).iter().all(|path| !shared(&fifth).contains(path)));
}

#[test]
fn a_snapshot_that_shares_nothing_has_all_files_in_its_folder() {
    for kind in [SnapshotKind::FullCheckpoint, NATIVE, CANONICAL] {
        let mut cluster = Cluster::new(Backend::RocksDb);
        let mut tasks = cluster.tasks(2, None);
        for key in 0..50 {
            set(&mut tasks, false, key, Some("x"));
        }
        cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let mut taken = cluster.take(&mut tasks, kind);
        let expected = all_rows(&tasks);
        let moved = cluster.path("moved/here");
        std::fs::create_dir_all(cluster.path("moved")).unwrap();
        std::fs::rename(&taken.from.folder, &moved).unwrap();
        std::fs::remove_dir_all(cluster.path("shared")).unwrap();
        taken.from.folder = moved;
        assert_eq!(cluster.restored(2, &taken), expected);
    }
}

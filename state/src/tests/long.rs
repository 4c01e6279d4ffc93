//! What holds over a long run: files do not become many, and rows that nobody needs any more go.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use flott_dataflow::codec::encode_value;
use flott_dataflow::snapshot::{FrozenRows, RowSink, StateBackend, TableId, TaskState};
use flott_schema::Result;
use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::{Backend, TaskBackend};

/// Files of a task that a checkpoint names at most: some that overlap each other, and those that hold the rest.
const FILES_MAX: usize = 12;

#[test]
fn a_hundred_small_checkpoints_name_few_files_each_and_what_they_do_not_name_can_go() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    for key in 0..500 {
        set(&mut tasks, false, key, Some("in the beginning"));
    }
    let mut before = BTreeSet::new();
    let mut last = None;
    for round in 0..100u32 {
        for step in 0..3 {
            set(&mut tasks, step == 2, (round * 7 + step) % 500, Some(&format!("round {round}")));
        }
        if round % 10 == 9 {
            set(&mut tasks, false, round, None);
        }
        let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let folder = Path::new(&taken.from.folder);
        let named: BTreeSet<String> =
            files(&taken).into_iter().map(|file| file.path).filter(|path| path.starts_with("../")).collect();
        assert!(named.len() <= FILES_MAX, "checkpoint {round} names {} files", named.len());
        // As a coordinator does that keeps one checkpoint.
        for path in before.difference(&named) {
            std::fs::remove_file(folder.join(path)).unwrap();
        }
        before = named;
        last = Some(taken);
        // Files are merged in the background; what is merged here is in the next one.
        tasks[0].backend.state_of(keyed_operator()).database().unwrap().database.settle();
    }
    let last = last.unwrap();
    let there = std::fs::read_dir(cluster.path("shared")).unwrap().count();
    assert_eq!(there, before.len(), "nothing is left of the others");
    assert_eq!(cluster.restored(2, &last), all_rows(&tasks));
}

/// Rows as state with a time to live stores them: a value, and when it was last renewed.
struct Stamped(Vec<(u32, i64)>);

impl FrozenRows for Stamped {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn encode(self: Box<Self>, rows: &mut dyn RowSink) -> Result<()> {
        self.0.iter().try_for_each(|(key, stamp_ms)| {
            let mut value = Vec::new();
            encode_value(&(format!("value {key}"), stamp_ms), &mut value)?;
            rows.row(group_of(*key), &key.to_be_bytes(), Some(&value))
        })
    }
}

/// A time long ago: tasks do not go by the clock of the machine.
const NOON_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

/// A task with 300 rows in each table, stored at noon, each with the age that `age_ms` says. Those of the first live for an hour.
fn with_rows(cluster: &mut Cluster, age_ms: impl Fn(u32) -> i64) -> [Task; 1] {
    let mut tasks = [cluster.tasks(1, None).remove(0)];
    let [task] = &tasks;
    task.first.state.rows_expire(task.first.id, HOUR_MS);
    for table in [&task.first, &task.second] {
        let rows = (0..300).map(|key| (key, NOON_MS - age_ms(key))).collect();
        table.state.write(table.id, Box::new(Stamped(rows))).unwrap();
    }
    // The last bit of rows waits for more of them: a snapshot has all stored.
    cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    tasks
}

fn count(state: &Rc<dyn StateBackend>, table: TableId) -> usize {
    let mut count = 0;
    let mut row = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok(())
    };
    state.load(table, &mut row).unwrap();
    count
}

/// Rows of both tables that are left when files have been merged at this time.
fn left(task: &Task, now_ms: Option<i64>) -> (usize, usize) {
    let Task { first, second, .. } = task;
    now_ms.into_iter().for_each(|now_ms| first.state.set_time(now_ms));
    task.backend.state_of(keyed_operator()).database().unwrap().database.compact();
    (count(&first.state, first.id), count(&second.state, second.id))
}

#[test]
fn rows_whose_time_is_over_are_dropped_when_files_are_merged() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    // The rows of the second table are as old, and live for ever.
    let age_ms = |key: u32| if key.is_multiple_of(3) { 2 * HOUR_MS } else { 0 };
    let [task] = with_rows(&mut cluster, age_ms);
    assert_eq!(left(&task, None), (300, 300), "the task has not said what time it is");
    assert_eq!(left(&task, Some(NOON_MS)), (200, 300));
    assert_eq!(left(&task, Some(NOON_MS + HOUR_MS - 1)), (200, 300));
    assert_eq!(left(&task, Some(NOON_MS + HOUR_MS)), (0, 300));
}

#[test]
fn a_snapshot_has_the_rows_that_lived_at_its_barrier_though_their_time_is_over_before_it_is_stored() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = with_rows(&mut cluster, |_| 0);
    tasks[0].first.state.set_time(NOON_MS);
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    assert_eq!(left(&tasks[0], Some(NOON_MS + 2 * HOUR_MS)), (300, 300));
    let taken = cluster.end(&mut tasks, checkpoint, SnapshotKind::Checkpoint).unwrap();
    assert_eq!(left(&tasks[0], None), (0, 300), "it has its files");

    let backend = TaskBackend::open(&cluster.service, identity(0, 1, 99), Some(&taken.from)).unwrap();
    let state = backend.operator(keyed_operator(), "keyed");
    let table = state.table(spec("first")).unwrap();
    state.rows_expire(table, HOUR_MS);
    assert_eq!(count(&state, table), 300);
}

#[test]
fn a_snapshot_that_is_given_up_holds_no_rows_back() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = with_rows(&mut cluster, |_| 0);
    tasks[0].first.state.set_time(NOON_MS);
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    tasks[0].backend.aborted(checkpoint);
    tasks[0].hand_in(checkpoint);
    tasks[0].backend.state_of(keyed_operator()).drain();
    assert_eq!(left(&tasks[0], Some(NOON_MS + 2 * HOUR_MS)), (0, 300));
}

//! What holds over a long run: files do not become many, and rows that nobody needs any more go.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use flott_dataflow::codec::encode_value;
use flott_dataflow::snapshot::{FrozenRows, RowSink};
use flott_schema::Result;
use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::Backend;

/// Files of a task that a checkpoint names at most: some that overlap each other, and those that hold the rest.
const FILES_MAX: usize = 12;

#[test]
fn hundreds_of_small_checkpoints_name_few_files_and_what_they_do_not_name_can_go() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    for key in 0..500 {
        set(&mut tasks, false, key, Some("in the beginning"));
    }
    let mut before = BTreeSet::new();
    let mut last = None;
    for round in 0..300u32 {
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

#[test]
fn rows_whose_time_is_over_are_dropped_when_files_are_merged() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let task = cluster.tasks(1, None).remove(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let hour_ms = 3_600_000;
    task.first.state.rows_expire(task.first.id, hour_ms);
    // Every third is two hours old. The rows of the second table are as old, and live for ever.
    let stamp = |key: u32| if key.is_multiple_of(3) { now - 2 * hour_ms } else { now };
    for table in [&task.first, &task.second] {
        let rows = (0..300).map(|key| (key, stamp(key))).collect();
        table.state.write(table.id, Box::new(Stamped(rows))).unwrap();
    }
    // The last bit of rows waits for more of them: a snapshot has all stored.
    let mut tasks = [task];
    cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let [task] = tasks;
    let count = |table: &Table| {
        let mut count = 0;
        table
            .state
            .load(table.id, &mut |_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    };
    assert_eq!((count(&task.first), count(&task.second)), (300, 300));
    task.backend.state_of(keyed_operator()).database().unwrap().database.compact();
    assert_eq!((count(&task.first), count(&task.second)), (200, 300));
}

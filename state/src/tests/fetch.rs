//! Rows that tables forget, and look up again.

use flott_dataflow::snapshot::TaskState;
use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::Backend;

fn rows(rows: &[(u32, &str)]) -> Rows {
    rows.iter().map(|(key, value)| (*key, value.to_string())).collect()
}

#[test]
fn rows_can_be_fetched_wherever_they_are_at_the_moment() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    let table = |tasks: &mut Vec<Task>, key, value| tasks[0].first.set(key, value);
    table(&mut tasks, 1, Some("stored"));
    table(&mut tasks, 2, Some("stored"));
    table(&mut tasks, 3, Some("stored"));
    cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    tasks[0].backend.state_of(keyed_operator()).drain();
    assert_eq!(tasks[0].first.fetch(0..9), rows(&[(1, "stored"), (2, "stored"), (3, "stored")]));

    // Written: in memory, in front of what is stored.
    table(&mut tasks, 2, Some("written"));
    table(&mut tasks, 4, Some("written"));
    tasks[0].first.write_out();
    assert_eq!(
        tasks[0].first.fetch(0..9),
        rows(&[(1, "stored"), (2, "written"), (3, "stored"), (4, "written")])
    );

    // Handed in for a snapshot that cannot go on, since the second table is not handed in.
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    table(&mut tasks, 3, None);
    table(&mut tasks, 4, Some("frozen"));
    tasks[0].first.freeze();
    assert_eq!(tasks[0].first.fetch(0..9), rows(&[(1, "stored"), (2, "written"), (4, "frozen")]));

    // Written behind the barrier: not part of the snapshot.
    let at_barrier = tasks[0].first.fetch(0..9);
    table(&mut tasks, 1, None);
    table(&mut tasks, 4, Some("behind"));
    table(&mut tasks, 5, Some("behind"));
    tasks[0].first.write_out();
    let behind = rows(&[(2, "written"), (4, "behind"), (5, "behind")]);
    assert_eq!(tasks[0].first.fetch(0..9), behind);
    assert!(tasks[0].second.fetch(0..9).is_empty());

    let (mut first, second) = (Vec::new(), &mut tasks[0].second);
    second.freeze();
    let (send, done) = std::sync::mpsc::sync_channel(1);
    let told = Box::new(move |result| send.send(result).unwrap());
    tasks[0].backend.passed(checkpoint, false);
    tasks[0].backend.end(
        checkpoint,
        cluster.target(checkpoint, SnapshotKind::Checkpoint),
        crate::TaskExtras::default(),
        told,
    );
    let snapshot = wait(&done).unwrap();
    let taken = cluster.manifest(checkpoint, SnapshotKind::Checkpoint, vec![snapshot]);
    tasks[0].backend.completed(checkpoint);
    assert_eq!(cluster.restored(1, &taken).0, at_barrier);
    tasks[0].backend.state_of(keyed_operator()).drain();
    assert_eq!(tasks[0].first.fetch(0..9), behind);
    first.extend(tasks[0].first.fetch(0..9));

    // And the next snapshot has them.
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    assert_eq!(cluster.restored(1, &taken).0, first.into_iter().collect());
}

#[test]
fn many_written_rows_go_to_the_database_and_are_found_there() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    let value = "x".repeat(1 << 20);
    for round in 0..80 {
        tasks[0].first.set(round % 30, Some(&format!("{round} {value}")));
        tasks[0].first.write_out();
    }
    tasks[0].backend.state_of(keyed_operator()).drain();
    assert!(tasks[0].backend.state_of(keyed_operator()).database().unwrap().database.files() > 1);
    assert_eq!(tasks[0].first.fetch(0..50), tasks[0].first.rows);
}

#[test]
fn tables_get_what_caches_leave_of_the_memory() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let tasks = cluster.tasks(1, None);
    assert_eq!(tasks[0].first.state.budget_bytes(), 300 << 20);
    let another = tasks[0].backend.operator(other_operator(), "other");
    another.table(spec("table")).unwrap();
    assert_eq!(tasks[0].first.state.budget_bytes(), 150 << 20);
    let mut cluster = Cluster::new(Backend::HashMap);
    let tasks = cluster.tasks(1, None);
    assert!(!tasks[0].first.state.can_fetch() && !tasks[0].first.state.wants_changes());
    assert_eq!(tasks[0].first.state.budget_bytes(), usize::MAX);
    assert!(tasks[0].first.state.write(tasks[0].first.id, Box::new(Frozen(Vec::new()))).is_err());
}

//! Other numbers of tasks: key groups and items find their new owners.

use flott_dataflow::snapshot::TaskState;
use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::{Backend, TaskBackend};

#[test]
fn key_groups_move_with_all_of_their_rows() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for kind in [SnapshotKind::Checkpoint, CANONICAL, NATIVE] {
            let mut cluster = Cluster::new(backend);
            let mut tasks = cluster.tasks(2, None);
            let mut step = 0;
            for parallelism in [3, 1, 5, 2] {
                for key in 0..200 {
                    set(&mut tasks, key % 3 == 0, key + step, Some(&format!("{step}: {key}")));
                }
                set(&mut tasks, false, step, None);
                let taken = cluster.take(&mut tasks, kind);
                let expected = all_rows(&tasks);
                tasks = cluster.tasks(parallelism, Some(&taken));
                assert_eq!(all_rows(&tasks), expected, "{backend:?} {kind:?} to {parallelism}");
                step += 50;
            }
        }
    }
}

/// Window operators over whole streams had as many key groups as any others once, and have one now.
#[test]
fn the_only_task_of_a_vertex_goes_on_with_the_key_groups_of_its_state() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(2, None);
        (0..50).for_each(|key| set(&mut tasks, false, key, Some("x")));
        let mut taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        for kind in [SnapshotKind::Checkpoint, CANONICAL, NATIVE] {
            let expected = all_rows(&tasks);
            tasks = vec![cluster.only_task(Some(&taken))];
            assert_eq!(tasks[0].key_groups.end, KEY_GROUPS);
            assert_eq!(all_rows(&tasks), expected, "{backend:?}");
            set(&mut tasks, false, 60, Some(&format!("{kind:?}")));
            taken = cluster.take(&mut tasks, kind);
            // What the leader says of the vertex is what the graph says.
            taken.manifest.vertices[0].max_parallelism = 1;
            write_manifest(&taken.from.folder, &taken.manifest);
        }
        assert_eq!(cluster.only_task(None).key_groups.end, 1, "a new one has one");
    }
}

#[test]
fn rows_that_went_to_others_are_not_found_any_more() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    for key in 0..50 {
        set(&mut tasks, false, key, Some("x"));
    }
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let tasks = cluster.tasks(2, Some(&taken));
    for task in &tasks {
        let found: Vec<u32> = task.first.fetch(0..60).into_keys().collect();
        let own: Vec<u32> = (0..50).filter(|key| task.key_groups.contains(group_of(*key).into())).collect();
        assert_eq!(found, own);
    }
}

#[test]
fn items_are_spread_as_their_list_says() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(2, None);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let list = |subtask, parallelism, name: &str| -> Vec<String> {
        let task = TaskBackend::open(&cluster.service, identity(subtask, parallelism, 9), Some(&taken.from))
            .unwrap();
        let items = task.operator(other_operator(), "other").list(name).unwrap();
        items.into_iter().map(|item| String::from_utf8(item).unwrap()).collect()
    };
    assert_eq!(list(1, 2, "split"), ["1.0", "1.1", "1.2"]);
    let mut all: Vec<String> = (0..4).flat_map(|subtask| list(subtask, 4, "split")).collect();
    assert_eq!((0..4).map(|subtask| list(subtask, 4, "split").len()).collect::<Vec<_>>(), [2, 2, 1, 1]);
    all.sort();
    assert_eq!(all, ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]);
    for parallelism in [1, 2, 3] {
        assert_eq!(list(0, parallelism, "union"), ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]);
        assert_eq!(list(parallelism - 1, parallelism, "broadcast"), ["all"]);
    }
    assert!(list(0, 1, "unknown").is_empty());
}

#[test]
fn tables_that_tasks_had_numbered_differently_come_together() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(2, None);
        for key in 0..100 {
            set(&mut tasks, key % 2 == 0, key, Some(&format!("{key}")));
        }
        let mut expected = all_rows(&tasks);
        let mut taken = cluster.take(&mut tasks, CANONICAL);
        // As if the second task had met its tables the other way round.
        let tables = &mut taken.manifest.tasks[1].operators;
        let keyed = tables.iter_mut().find(|one| one.operator == Some(keyed_operator())).unwrap();
        for table in &mut keyed.keyed[0].tables {
            table.number = 1 - table.number;
        }
        let swapped = tasks[1].key_groups;
        let of_second = |key: &u32| swapped.contains(group_of(*key).into());
        let (first, second) = expected.clone();
        expected.0.retain(|key, _| !of_second(key));
        expected.1.retain(|key, _| !of_second(key));
        expected.0.extend(second.into_iter().filter(|(key, _)| of_second(key)));
        expected.1.extend(first.into_iter().filter(|(key, _)| of_second(key)));
        write_manifest(&taken.from.folder, &taken.manifest);
        for parallelism in [1, 2, 3] {
            cluster.switch(backend);
            assert_eq!(cluster.restored(parallelism, &taken), expected, "{backend:?} {parallelism}");
        }
    }
}

//! What a snapshot waits for beside the rows of its tables: work that operators have left, and large lists.

use std::sync::mpsc::{TryRecvError, sync_channel};

use flott_dataflow::snapshot::{ListMode, TaskState};
use flott_schema::snapshot::{Barrier, SnapshotKind};
use flott_schema::{Error, ErrorKind};

use super::kit::{Cluster, other_operator, wait};
use crate::{Backend, TaskExtras};

const CHECKPOINT: SnapshotKind = SnapshotKind::Checkpoint;

#[test]
fn a_task_has_handed_in_when_the_work_is_done_that_its_operators_have_left() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(1, None);
    let other = tasks[0].backend.operator(other_operator(), "other");
    let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
    let (begun, begins) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let work = move || {
        begun.send(()).unwrap();
        released.recv().map_err(|error| Error::internal(error.to_string()))
    };
    other.complete_later(Box::new(work)).unwrap();
    tasks[0].hand_in(checkpoint);
    let (send, done) = sync_channel(1);
    let told = Box::new(move |result| send.send(result).unwrap());
    tasks[0].backend.end(checkpoint, cluster.target(checkpoint, CHECKPOINT), TaskExtras::default(), told);
    // All else can be done, and is.
    begins.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    tasks[0].backend.state_of(super::kit::keyed_operator()).drain();
    assert_eq!(done.try_recv().unwrap_err(), TryRecvError::Empty);
    release.send(()).unwrap();
    wait(&done).unwrap();
}

#[test]
fn a_snapshot_fails_with_the_work_that_it_waits_for() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(1, None);
    let other = tasks[0].backend.operator(other_operator(), "other");
    let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
    other.complete_later(Box::new(|| Err(Error::new(ErrorKind::Io, "no disk")))).unwrap();
    let failed = cluster.end(&mut tasks, checkpoint, CHECKPOINT).err().unwrap();
    assert!(failed.to_string().contains("no disk"), "{failed}");
    cluster.take(&mut tasks, CHECKPOINT);
}

/// Items of a list that are more than may stand in the manifest, and fewer.
fn items(count: usize, of: &str) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{of}.{number}").into_bytes()).collect()
}

#[test]
fn lists_that_are_too_large_for_the_manifest_are_in_files_and_come_back_as_others_do() {
    let mut cluster = Cluster::with(Backend::HashMap, |options| options.inline_bytes = 1_000);
    let mut tasks = cluster.tasks(2, None);
    let checkpoint = cluster.begin(&mut tasks, CHECKPOINT);
    for (subtask, task) in tasks.iter().enumerate() {
        let other = task.backend.operator(other_operator(), "other");
        let large = items(500, &subtask.to_string());
        other.set_list("large", ListMode::Split, "str", large.clone()).unwrap();
        other.set_list("large-union", ListMode::Union, "str", large).unwrap();
        other.set_list("large-broadcast", ListMode::Broadcast, "str", items(500, "all")).unwrap();
    }
    let taken = cluster.end(&mut tasks, checkpoint, CHECKPOINT).unwrap();
    drop(tasks);
    for task in &taken.manifest.tasks {
        let lists = task.operators.iter().flat_map(|operator| &operator.lists);
        let (stored, inline): (Vec<_>, Vec<_>) = lists.partition(|list| list.file.is_some());
        assert_eq!((stored.len(), inline.len()), (3, 3));
        assert!(stored.iter().all(|list| list.items.is_empty() && list.name.starts_with("large")));
        assert!(task.inline_bytes() < 1_000 && task.files().count() >= 3);
        assert!(task.times.state_bytes > 10_000 && task.times.written_bytes > 10_000);
    }
    for parallelism in [1, 2, 3] {
        let restored = cluster.tasks(parallelism, Some(&taken));
        let list = |task: &super::kit::Task, name| {
            task.backend.operator(other_operator(), "other").list(name).unwrap()
        };
        let mut all: Vec<_> = restored.iter().flat_map(|task| list(task, "large")).collect();
        all.sort_unstable();
        let mut expected = [items(500, "0"), items(500, "1")].concat();
        if parallelism == 2 {
            assert_eq!(list(&restored[1], "large"), items(500, "1"));
        }
        assert!(restored.iter().all(|task| list(task, "large-union") == expected));
        assert!(restored.iter().all(|task| list(task, "large-broadcast") == items(500, "all")));
        expected.sort_unstable();
        assert!(all == expected);
    }
    // One that is damaged is named.
    let list = taken.manifest.tasks[1].operators.iter().flat_map(|operator| &operator.lists);
    let file = list.filter_map(|list| list.file.clone()).next().unwrap();
    std::fs::write(std::path::Path::new(&taken.from.folder).join(&file.path), b"other").unwrap();
    let error = cluster.try_task(0, 3, Some(&taken)).err().unwrap().to_string();
    assert!(error.contains(&file.path) && error.contains("damaged"), "{error}");
}

#[test]
fn lists_of_a_task_that_has_ended_stand_in_the_manifest() {
    let mut cluster = Cluster::with(Backend::HashMap, |options| options.inline_bytes = 10);
    let tasks = cluster.tasks(1, None);
    let other = tasks[0].backend.operator(other_operator(), "other");
    tasks[0].backend.begin(&Barrier::of_checkpoint(1)).unwrap();
    other.set_list("large", ListMode::Split, "str", items(100, "0")).unwrap();
    tasks[0].backend.passed(1, true);
    let (send, done) = sync_channel(1);
    let told = Box::new(move |result| send.send(result).unwrap());
    let extras = TaskExtras { finished: true, ..TaskExtras::default() };
    tasks[0].backend.end(1, cluster.target(1, CHECKPOINT), extras, told);
    let part = wait(&done).unwrap();
    assert_eq!(part.operators[0].lists[0].items, items(100, "0"));
    assert_eq!(part.files().count(), 0);
}

//! Work that a snapshot waits for, beside the rows of its tables.

use std::sync::mpsc::{TryRecvError, sync_channel};

use flott_dataflow::snapshot::TaskState;
use flott_schema::snapshot::SnapshotKind;
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

//! Snapshots through the whole service: a worker that hands in, manifests on a disk, requests of users.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use flott_schema::config::options::StateBackend;
use flott_schema::control::{
    CheckpointOrder, LAST_SNAPSHOT, SnapshotReport, TaskReport, TaskState, ToCoordinator, ToWorker,
};
use flott_schema::ids::{AttemptId, JobId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec, RestartStrategy, StateSettings};
use flott_schema::snapshot::{SavepointFormat, SnapshotKind, SnapshotTimes, TaskSnapshot};
use flott_schema::stats::WorkerProfile;
use flott_storage::{Storage, manifest};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::link::InMemoryLink;
use crate::machine::tests::graph::streaming;
use crate::machine::{JobOutcome, JobRecord, OperationId, Purpose};

const JOB: JobId = JobId(7);
const DEADLINE: Duration = Duration::from_secs(20);

/// A worker whose tasks run until they are told to stop, and hand in an empty part of every snapshot.
async fn work(handle: Handle, mut inbox: mpsc::Receiver<ToWorker>) {
    let mut suspended: BTreeMap<u64, Vec<AttemptId>> = BTreeMap::new();
    let report = async |job, attempt, state| {
        let message = TaskReport { job, attempt, state, failure: None };
        handle.worker_message(ToCoordinator::TaskState(message)).await.unwrap();
    };
    while let Some(message) = inbox.recv().await {
        match message {
            ToWorker::Deploy { job, tasks, .. } => {
                for task in tasks {
                    report(job, task.attempt, TaskState::Running).await;
                }
            }
            ToWorker::Cancel { job, attempts } => {
                for attempt in attempts {
                    report(job, attempt, TaskState::Canceled).await;
                }
            }
            ToWorker::Checkpoint(CheckpointOrder { job, barrier, attempts, .. }) => {
                if barrier.after.stops() {
                    suspended.insert(barrier.checkpoint, attempts.clone());
                }
                for attempt in attempts {
                    let part = TaskSnapshot {
                        task: attempt.task,
                        finished: false,
                        operators: Vec::new(),
                        channels: Vec::new(),
                        times: SnapshotTimes { state_bytes: 5, ..SnapshotTimes::default() },
                    };
                    let checkpoint = barrier.checkpoint;
                    let report = SnapshotReport { job, attempt, checkpoint, handed_in: 0, result: Ok(part) };
                    handle.worker_message(ToCoordinator::Snapshot(Box::new(report))).await.unwrap();
                }
            }
            ToWorker::CheckpointEnded { job, checkpoint, completed, .. } => {
                for attempt in suspended.remove(&checkpoint).filter(|_| completed).unwrap_or_default() {
                    report(job, attempt, TaskState::Finished).await;
                }
            }
            ToWorker::Release { .. } | ToWorker::Prepare(_) => {}
        }
    }
}

async fn start(folder: &Path, interval_ms: Option<u64>) -> Handle {
    start_with(folder, interval_ms, StateBackend::HashMap).await
}

async fn start_with(folder: &Path, interval_ms: Option<u64>, backend: StateBackend) -> Handle {
    let link = InMemoryLink::new();
    let (coordinator, handle) = Coordinator::new(Options::default(), link.clone());
    tokio::spawn(coordinator.run());
    let inbox = link.attach(WorkerId(1), 64);
    let profile = WorkerProfile { slots: 4, ..WorkerProfile::default() };
    handle.register_worker(WorkerId(1), profile).await.unwrap();
    tokio::spawn(work(handle.clone(), inbox));
    let checkpoints = CheckpointSettings {
        interval_ms,
        directory: Some(folder.join("checkpoints").display().to_string()),
        savepoint_directory: Some(folder.join("savepoints").display().to_string()),
        ..CheckpointSettings::default()
    };
    let restart = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 0 };
    let state = StateSettings { backend, ..StateSettings::default() };
    let settings = JobSettings { restart, checkpoints, state, ..JobSettings::default() };
    let graph = streaming("pipe", &[("source", 1), ("map", 2)], &["source > map"]);
    handle.submit(JOB, JobSpec { settings, ..JobSpec::embedded(graph) }).await.unwrap();
    until(&handle, |job| job.snapshot_obstacle().is_none()).await;
    handle
}

/// Waits until the job is as it should be.
async fn until(handle: &Handle, is_so: impl Fn(&JobRecord) -> bool) -> JobRecord {
    timeout(DEADLINE, async {
        loop {
            let job = handle.status(JOB).await.unwrap();
            if is_so(&job) {
                return job;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it comes to that")
}

fn savepoint(purpose: Purpose, operation: u128) -> SnapshotRequest {
    SnapshotRequest {
        kind: SnapshotKind::Savepoint(SavepointFormat::Canonical),
        purpose,
        target: None,
        parallelism: BTreeMap::new(),
        operation: OperationId(operation),
    }
}

/// What came of a request.
async fn result_of(handle: &Handle, operation: u128) -> Result<String, String> {
    let find = |job: &JobRecord| job.checkpoints().operation(OperationId(operation)).unwrap().result.clone();
    let job = until(handle, |job| find(job).is_some()).await;
    find(&job).unwrap()
}

#[tokio::test]
async fn checkpoints_of_an_interval_have_manifests_and_older_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let handle = start(folder.path(), Some(1)).await;
    let job = until(&handle, |job| job.checkpoints().completed() >= 3).await;
    let kept = job.checkpoints().retained().last().unwrap();
    let first = Storage::open(&kept.folder).unwrap();
    assert!(kept.folder.starts_with(folder.path().to_str().unwrap()), "{}", kept.folder);
    // It may have gone meanwhile; a newer one is there then.
    if let Ok(manifest) = manifest::read(&first) {
        assert_eq!((manifest.job, manifest.checkpoint, manifest.tasks.len()), (JOB, kept.id, 3));
        assert_eq!(manifest.vertices[1].parallelism, 2);
    }
    handle.cancel(JOB).await.unwrap();
    assert_eq!(timeout(DEADLINE, handle.wait(JOB)).await.unwrap().unwrap(), JobOutcome::Canceled);
    let of_job = folder.path().join("checkpoints").join(JOB.to_string());
    timeout(DEADLINE, async {
        while of_job.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nothing is left of a job that was cancelled");
}

#[tokio::test]
async fn a_savepoint_stays_and_is_disposed_of_by_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let handle = start(folder.path(), None).await;
    handle.request_snapshot(JOB, savepoint(Purpose::GoOn, 1)).await.unwrap();
    let place = result_of(&handle, 1).await.unwrap();
    // Asked for once more, it is the same.
    handle.request_snapshot(JOB, savepoint(Purpose::GoOn, 1)).await.unwrap();
    assert_eq!(result_of(&handle, 1).await.unwrap(), place);
    let read = manifest::read(&Storage::open(&place).unwrap()).unwrap();
    assert!(read.kind.is_savepoint());
    let details =
        handle.read_with_ledger("details", |_, ledger| ledger.details(JOB, 1).cloned()).await.unwrap();
    assert_eq!(details.unwrap().parts.len(), 3);

    handle.request_snapshot(JOB, savepoint(Purpose::Stop, 2)).await.unwrap();
    assert_eq!(timeout(DEADLINE, handle.wait(JOB)).await.unwrap().unwrap(), JobOutcome::Finished);
    let stopped = result_of(&handle, 2).await.unwrap();
    assert!(Path::new(&place).exists() && Path::new(&stopped).exists());
    handle.dispose_savepoint(place.clone()).await.unwrap();
    assert!(!Path::new(&place).exists());
    let again = handle.dispose_savepoint(place).await.unwrap_err();
    assert!(again.to_string().contains("there is no snapshot in"), "{again}");
    let left = handle.status(JOB).await.unwrap();
    assert_eq!(left.checkpoints().savepoints().map(|one| one.id).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_job_goes_on_with_another_parallelism_and_says_why_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let handle = start(folder.path(), None).await;
    let map = handle.status(JOB).await.unwrap().graph().vertices[1].id;
    let rescale = |parallelism, operation| SnapshotRequest {
        kind: SnapshotKind::Checkpoint,
        purpose: Purpose::Rescale,
        target: None,
        parallelism: [(map, parallelism)].into(),
        operation: OperationId(operation),
    };
    let refused = handle.request_snapshot(JOB, rescale(5, 1)).await.unwrap_err();
    assert!(
        refused.to_string().contains("it would need 5 slots; it has 2, and 2 more are free"),
        "{refused}"
    );
    handle.request_snapshot(JOB, rescale(4, 2)).await.unwrap();
    result_of(&handle, 2).await.unwrap();
    let job = until(&handle, |job| job.snapshot_obstacle().is_none()).await;
    assert_eq!((job.graph().vertices[1].parallelism, job.restarts()), (4, 0));
    assert_eq!(job.checkpoints().restored().unwrap().from.checkpoint, 1);
    assert_eq!(job.spec().graph.vertices[1].parallelism, 2, "the program is what it was");
}

#[tokio::test]
async fn what_a_rescale_leaves_to_its_own_checkpoint_is_what_has_changed_since_the_one_in_front_of_it() {
    for (interval_ms, backend, expected) in [
        (Some(3_600_000), StateBackend::RocksDb, 2),
        (Some(3_600_000), StateBackend::HashMap, 1),
        (None, StateBackend::RocksDb, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let handle = start_with(folder.path(), interval_ms, backend).await;
        let map = handle.status(JOB).await.unwrap().graph().vertices[1].id;
        let request = SnapshotRequest {
            kind: SnapshotKind::Checkpoint,
            purpose: Purpose::Rescale,
            target: None,
            parallelism: [(map, 4)].into(),
            operation: OperationId(1),
        };
        handle.request_snapshot(JOB, request).await.unwrap();
        result_of(&handle, 1).await.unwrap();
        let job = until(&handle, |job| job.snapshot_obstacle().is_none()).await;
        assert_eq!(job.graph().vertices[1].parallelism, 4);
        let taken: Vec<(u64, Purpose)> =
            job.checkpoints().history().map(|one| (one.id, one.purpose)).collect();
        let all = [(1, Purpose::GoOn), (2, Purpose::Rescale)];
        let own = [(1, Purpose::Rescale)];
        assert_eq!(taken, if expected == 2 { &all[..] } else { &own[..] }, "{interval_ms:?}, {backend:?}");
        assert_eq!(job.checkpoints().restored().unwrap().from.checkpoint, expected);
    }
}

#[tokio::test]
async fn a_task_that_leaves_nothing_fails_where_checkpoints_have_to_follow() {
    for (interval_ms, expected) in [(Some(3_600_000), 1), (None, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let handle = start(folder.path(), interval_ms).await;
        let attempt = handle.status(JOB).await.unwrap().vertices()[0].tasks()[0].attempt();
        let result = Err("the enumerator keeps nothing".to_string());
        let report = SnapshotReport { job: JOB, attempt, checkpoint: LAST_SNAPSHOT, handed_in: 0, result };
        handle.worker_message(ToCoordinator::Snapshot(Box::new(report))).await.unwrap();
        let job = until(&handle, |job| job.snapshot_obstacle().is_none() && job.restarts() == expected).await;
        let failures: Vec<String> =
            job.exceptions().latest().map(|exception| exception.cause.to_error().to_string()).collect();
        assert_eq!(failures.len() as u32, expected);
        assert!(
            failures.iter().all(|failure| failure.contains("the enumerator keeps nothing")),
            "{failures:?}"
        );
    }
}

#[tokio::test]
async fn a_last_part_that_its_tasks_end_has_overtaken_is_kept_and_checkpoints_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let handle = start(folder.path(), Some(10)).await;
    let attempt = handle.status(JOB).await.unwrap().vertices()[0].tasks()[0].attempt();
    let report = TaskReport { job: JOB, attempt, state: TaskState::Finished, failure: None };
    handle.worker_message(ToCoordinator::TaskState(report)).await.unwrap();
    let job = until(&handle, |job| job.snapshot_obstacle().is_some()).await;
    let before = job.checkpoints().completed();
    let result = Ok(TaskSnapshot {
        task: attempt.task,
        finished: true,
        operators: Vec::new(),
        channels: Vec::new(),
        times: SnapshotTimes::default(),
    });
    let report = SnapshotReport { job: JOB, attempt, checkpoint: LAST_SNAPSHOT, handed_in: 0, result };
    handle.worker_message(ToCoordinator::Snapshot(Box::new(report))).await.unwrap();
    // One may have been under way; the others were begun after it.
    until(&handle, |job| job.checkpoints().completed() >= before + 3).await;
}

#[tokio::test]
async fn a_storage_that_cannot_be_written_fails_the_snapshot_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let handle = start(folder.path(), None).await;
    std::fs::write(folder.path().join("file"), b"no folder").unwrap();
    let target = Some(folder.path().join("file").display().to_string());
    handle.request_snapshot(JOB, SnapshotRequest { target, ..savepoint(Purpose::GoOn, 1) }).await.unwrap();
    let reason = result_of(&handle, 1).await.unwrap_err();
    assert!(reason.starts_with("its manifest: ") && reason.contains("/file"), "{reason}");
    // The job does not mind.
    assert_eq!(handle.status(JOB).await.unwrap().state(), crate::machine::JobState::Running);
}

use std::time::Duration;

use flott_schema::control::{Placement, TaskFailure, TaskReport, TaskState, ToCoordinator, ToWorker};
use flott_schema::error::ErrorKind;
use flott_schema::graph::JobGraph;
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::stats::WorkerProfile;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::journal::Role;
use crate::link::InMemoryLink;
use crate::machine::tests::graph::{batch, streaming};
use crate::machine::{JobFailure, JobOutcome, JobState};

const JOB: JobId = JobId(7);

fn start(options: Options) -> (Handle, InMemoryLink) {
    let link = InMemoryLink::new();
    let (coordinator, handle) = Coordinator::new(options, link.clone());
    tokio::spawn(coordinator.run());
    (handle, link)
}

fn offering(slots: u32) -> WorkerProfile {
    WorkerProfile { slots, ..WorkerProfile::default() }
}

/// A worker whose tasks do what the name of their vertex says: `endless` runs until cancelled, `broken` fails, any other
/// finishes.
async fn worker(handle: &Handle, link: &InMemoryLink, id: u64, slots: u32) {
    let worker = WorkerId(id);
    let inbox = link.attach(worker, 16);
    handle.worker_message(ToCoordinator::Register { worker, profile: offering(slots) }).await.unwrap();
    tokio::spawn(work(handle.clone(), inbox));
}

async fn work(handle: Handle, mut inbox: mpsc::Receiver<ToWorker>) {
    while let Some(message) = inbox.recv().await {
        match message {
            ToWorker::Deploy { job, spec, tasks, .. } => {
                for task in tasks {
                    let name = &spec.graph.vertex(task.attempt.task.vertex).unwrap().name;
                    report(&handle, job, task, TaskState::Initializing).await;
                    report(&handle, job, task, TaskState::Running).await;
                    match name.as_str() {
                        "endless" => {}
                        "broken" => report(&handle, job, task, TaskState::Failed).await,
                        _ => report(&handle, job, task, TaskState::Finished).await,
                    }
                }
            }
            ToWorker::Cancel { job, attempts } => {
                for attempt in attempts {
                    let message = TaskReport { job, attempt, state: TaskState::Canceled, failure: None };
                    handle.worker_message(ToCoordinator::TaskState(message)).await.unwrap();
                }
            }
            ToWorker::Release { .. }
            | ToWorker::Prepare(_)
            | ToWorker::Checkpoint(_)
            | ToWorker::CheckpointEnded { .. } => {}
        }
    }
}

async fn report(handle: &Handle, job: JobId, task: Placement, state: TaskState) {
    let failure = (state == TaskState::Failed).then(|| TaskFailure {
        kind: ErrorKind::BadInput,
        vertex: "broken".into(),
        subtask: task.attempt.task.subtask,
        parallelism: 2,
        message: "line 3 is no record".into(),
        backtrace: None,
    });
    let message = TaskReport { job, attempt: task.attempt, state, failure };
    handle.worker_message(ToCoordinator::TaskState(message)).await.unwrap();
}

/// The end of the job, which must come soon.
async fn end(handle: &Handle, job: JobId) -> JobOutcome {
    timeout(Duration::from_secs(10), handle.wait(job)).await.expect("the job ends").unwrap()
}

fn endless(parallelism: u32) -> JobGraph {
    streaming("endless", &[("endless", parallelism)], &[])
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_who_watches_is_told() {
    let (handle, link) = start(Options::default());
    let mut changes = handle.subscribe().unwrap();
    worker(&handle, &link, 1, 2).await;
    worker(&handle, &link, 2, 2).await;
    let graph = batch("stages", &[("scan", 3), ("reduce", 2)], &["scan >> reduce"]);
    handle.submit(JOB, JobSpec::embedded(graph)).await.unwrap();
    assert_eq!(end(&handle, JOB).await, JobOutcome::Finished);
    for expected in [JobState::Created, JobState::Running, JobState::Finished] {
        match changes.next().await {
            Some(Change::State(change)) => assert_eq!((change.job, change.state), (JOB, expected)),
            other => panic!("{other:?}"),
        }
    }
    let status = handle.status(JOB).await.unwrap();
    assert_eq!(status.counts().of(TaskState::Finished), 5);
    assert!(status.entered_ms(JobState::Finished) >= status.entered_ms(JobState::Created));
    assert!(status.entered_ms(JobState::Created) > Some(0));
    // The end of a job can also be asked for afterwards.
    assert_eq!(end(&handle, JOB).await, JobOutcome::Finished);
}

#[tokio::test]
async fn a_failure_comes_back_with_its_task_and_cause() {
    let (handle, link) = start(Options::default());
    worker(&handle, &link, 1, 2).await;
    let graph = streaming("job", &[("endless", 2), ("broken", 1)], &["endless > broken"]);
    handle.submit(JOB, JobSpec::embedded(graph)).await.unwrap();
    let JobOutcome::Failed(failure) = end(&handle, JOB).await else { panic!("it fails") };
    let error = failure.to_error();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!(error.to_string(), "task 'broken' (subtask 1 of 2): line 3 is no record");
}

#[tokio::test]
async fn cancelling_ends_a_running_job_and_one_that_waits_for_slots() {
    let (handle, link) = start(Options::default());
    handle.submit(JOB, JobSpec::embedded(endless(1))).await.unwrap();
    handle.cancel(JOB).await.unwrap();
    assert_eq!(end(&handle, JOB).await, JobOutcome::Canceled);

    worker(&handle, &link, 1, 1).await;
    handle.submit(JobId(8), JobSpec::embedded(endless(1))).await.unwrap();
    assert_eq!(handle.status(JobId(8)).await.unwrap().state(), JobState::Running);
    handle.cancel(JobId(8)).await.unwrap();
    assert_eq!(end(&handle, JobId(8)).await, JobOutcome::Canceled);
}

#[tokio::test]
async fn a_job_that_gets_no_slots_fails_when_its_wait_is_over() {
    let (handle, link) = start(Options { slot_wait_ms: 30, ..Options::default() });
    worker(&handle, &link, 1, 3).await;
    handle.submit(JOB, JobSpec::embedded(endless(4))).await.unwrap();
    let JobOutcome::Failed(failure) = end(&handle, JOB).await else { panic!("it fails") };
    assert!(matches!(failure, JobFailure::Job { kind: ErrorKind::Resources, .. }));
    let text = failure.to_error().to_string();
    assert!(text.starts_with("job 'endless' needs 4 slots, has 3: the cluster has 3 in all"), "{text}");
}

#[tokio::test]
async fn slots_that_come_in_time_end_the_wait() {
    let (handle, link) = start(Options { slot_wait_ms: 500, ..Options::default() });
    handle.submit(JOB, JobSpec::embedded(endless(2))).await.unwrap();
    worker(&handle, &link, 1, 2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(handle.status(JOB).await.unwrap().state(), JobState::Running);
}

#[tokio::test]
async fn a_worker_that_hangs_up_or_reads_nothing_is_given_up_and_its_jobs_fail() {
    let (handle, link) = start(Options::default());
    // Not read: the first message waits in the queue, the second finds it full.
    let unread = link.attach(WorkerId(1), 1);
    handle
        .worker_message(ToCoordinator::Register { worker: WorkerId(1), profile: offering(2) })
        .await
        .unwrap();
    handle.submit(JOB, JobSpec::embedded(endless(1))).await.unwrap();
    handle.submit(JobId(8), JobSpec::embedded(endless(1))).await.unwrap();
    for job in [JOB, JobId(8)] {
        let JobOutcome::Failed(failure) = end(&handle, job).await else { panic!("it fails") };
        assert!(failure.to_error().to_string().contains("worker 1 was lost"), "{failure:?}");
    }
    assert!(unread.is_closed(), "the worker can see that it was given up");

    drop(link.attach(WorkerId(2), 1));
    handle
        .worker_message(ToCoordinator::Register { worker: WorkerId(2), profile: offering(1) })
        .await
        .unwrap();
    handle.submit(JobId(9), JobSpec::embedded(endless(1))).await.unwrap();
    assert!(matches!(end(&handle, JobId(9)).await, JobOutcome::Failed(_)));
}

#[tokio::test]
async fn a_reported_loss_fails_the_tasks_and_frees_the_others() {
    let (handle, link) = start(Options::default());
    worker(&handle, &link, 1, 1).await;
    worker(&handle, &link, 2, 1).await;
    handle.submit(JOB, JobSpec::embedded(endless(2))).await.unwrap();
    handle.worker_lost(WorkerId(2)).await.unwrap();
    assert!(matches!(end(&handle, JOB).await, JobOutcome::Failed(JobFailure::Task(_))));
    handle.submit(JobId(8), JobSpec::embedded(streaming("short", &[("short", 1)], &[]))).await.unwrap();
    assert_eq!(end(&handle, JobId(8)).await, JobOutcome::Finished);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let (handle, link) = start(Options::default());
    let refused = handle.submit(JOB, JobSpec::embedded(streaming("empty", &[], &[]))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Graph);
    assert_eq!(refused.into_error().kind(), ErrorKind::Graph);

    worker(&handle, &link, 1, 1).await;
    handle.submit(JOB, JobSpec::embedded(streaming("short", &[("short", 1)], &[]))).await.unwrap();
    assert!(matches!(
        handle.submit(JOB, JobSpec::embedded(endless(1))).await,
        Err(CoordinatorError::DuplicateJob(JOB))
    ));
    end(&handle, JOB).await;
    let late = handle.cancel(JOB).await.unwrap_err();
    assert!(matches!(late, CoordinatorError::JobEnded { state: JobState::Finished, .. }));
    assert_eq!(late.into_error().kind(), ErrorKind::BadInput);

    let unknown = JobId(99);
    assert!(matches!(handle.cancel(unknown).await, Err(CoordinatorError::UnknownJob(_))));
    assert!(matches!(handle.status(unknown).await, Err(CoordinatorError::UnknownJob(_))));
    assert!(matches!(handle.wait(unknown).await, Err(CoordinatorError::UnknownJob(_))));
}

#[tokio::test]
async fn nobody_waits_for_a_coordinator_that_stopped_or_hangs() {
    let (handle, _link) = start(Options::default());
    handle.submit(JOB, JobSpec::embedded(endless(1))).await.unwrap();
    let mut changes = handle.subscribe().unwrap();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.wait(JOB).await }
    });
    tokio::task::yield_now().await;
    handle.stop().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(CoordinatorError::Stopped)));
    assert!(matches!(handle.status(JOB).await, Err(CoordinatorError::Stopped)));
    while let Some(change) = changes.next().await {
        assert!(matches!(change, Change::State(_)));
    }

    let options = Options { request_timeout_ms: 20, ..Options::default() };
    let (_never_run, handle) = Coordinator::new(options, InMemoryLink::new());
    let late = handle.status(JOB).await.unwrap_err();
    assert!(matches!(late, CoordinatorError::Timeout { call: "status", timeout_ms: 20 }));
}

#[tokio::test]
async fn a_slow_subscriber_learns_that_it_missed_changes() {
    let (handle, _link) = start(Options { changes_kept: 2, ..Options::default() });
    let mut changes = handle.subscribe().unwrap();
    for job in 0..4 {
        handle.submit(JobId(job), JobSpec::embedded(endless(1))).await.unwrap();
    }
    assert_eq!(changes.next().await, Some(Change::Missed(2)));
    assert!(matches!(changes.next().await, Some(Change::State(change)) if change.job == JobId(2)));
}

#[test]
fn it_runs_on_a_local_set_and_ends_with_its_last_handle() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let link = InMemoryLink::new();
        let (coordinator, handle) = Coordinator::new(Options::default(), link.clone());
        let service = tokio::task::spawn_local(coordinator.run());
        worker(&handle, &link, 1, 1).await;
        handle.submit(JOB, JobSpec::embedded(streaming("short", &[("short", 1)], &[]))).await.unwrap();
        assert_eq!(end(&handle, JOB).await, JobOutcome::Finished);
        handle.worker_lost(WorkerId(1)).await.unwrap();
        drop(handle);
        timeout(Duration::from_secs(10), service).await.expect("it ends").unwrap();
    });
}

#[tokio::test]
async fn workers_get_ids_of_their_own_and_a_registration_that_makes_no_sense_is_refused() {
    let (handle, link) = start(Options::default());
    assert_eq!(handle.role(), Role::Leader { term: 1 });
    let first = handle.new_worker_id().await.unwrap();
    let second = handle.new_worker_id().await.unwrap();
    assert_ne!(first, second);
    let _orders = link.attach(second, 4);
    handle.register_worker(second, offering(1)).await.unwrap();
    let again = handle.register_worker(second, offering(1)).await.unwrap_err();
    assert!(matches!(again, CoordinatorError::RefusedWorker { worker, .. } if worker == second), "{again}");
    let absurd = handle.register_worker(first, offering(1 << 20)).await.unwrap_err();
    assert!(absurd.to_string().contains("more slots than a worker may have"), "{absurd}");
    let next = handle.new_worker_id().await.unwrap();
    assert!(next > second);
}

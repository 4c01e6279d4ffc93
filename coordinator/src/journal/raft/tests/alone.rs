//! A coordinator that is alone, and its disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use flott_schema::control::{RunningTask, TaskReport, TaskState, ToCoordinator, ToWorker};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::{JobSpec, ProgramDigest, ProgramRef};
use flott_schema::stats::WorkerProfile;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::RaftOptions;
use super::cluster::{DEADLINE, Node, alone, graph, has_job, leads, submit};
use crate::machine::{JobOutcome, JobState};
use crate::service::{CoordinatorError, Options};

const JOB: JobId = JobId(7);

/// Registers a worker, and gives the orders it gets.
async fn register(node: &Node, slots: u32) -> (WorkerId, mpsc::Receiver<ToWorker>) {
    let worker = node.handle.new_worker_id().await.unwrap();
    let orders = node.link.attach(worker, 64);
    let profile = WorkerProfile { slots, ..WorkerProfile::default() };
    node.handle.register_worker(worker, profile).await.unwrap();
    (worker, orders)
}

/// The tasks of the next order, which is to deploy.
async fn deployed(orders: &mut mpsc::Receiver<ToWorker>) -> Vec<RunningTask> {
    match timeout(DEADLINE, orders.recv()).await.unwrap() {
        Some(ToWorker::Deploy { job, tasks, .. }) => tasks
            .into_iter()
            .map(|task| RunningTask { job, attempt: task.attempt, state: TaskState::Running })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn reports(tasks: &[RunningTask]) -> Vec<ToCoordinator> {
    let report = |task: &RunningTask| TaskReport {
        job: task.job,
        attempt: task.attempt,
        state: task.state,
        failure: None,
    };
    tasks.iter().map(|task| ToCoordinator::TaskState(report(task))).collect()
}

#[tokio::test]
async fn it_leads_and_finds_its_jobs_again_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let options = alone(directory.path());
    let node = Node::start(options.clone(), Options::default()).unwrap();
    let first = leads(&node).await;
    for job in 0..5 {
        submit(&node, job).await;
    }
    node.kill().await;

    // The address may change; what it is, lies in the directory.
    let options = RaftOptions { address: alone(directory.path()).address, ..options };
    let node = Node::start(options.clone(), Options::default()).unwrap();
    let second = leads(&node).await;
    assert!(second >= first);
    for job in 0..5 {
        assert!(has_job(&node, job).await);
    }
    submit(&node, 5).await;
    node.handle.cancel(JobId(5)).await.unwrap();
    assert_eq!(node.handle.wait(JobId(5)).await.unwrap(), JobOutcome::Canceled);
    node.stop().await;

    let node = Node::start(options, Options::default()).unwrap();
    leads(&node).await;
    assert_eq!(node.handle.status(JobId(5)).await.unwrap().state(), JobState::Canceled);
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_and_the_state_comes_from_both() {
    let directory = tempfile::tempdir().unwrap();
    let options = RaftOptions { snapshot_log_entries: 10, ..alone(directory.path()) };
    let node = Node::start(options.clone(), Options::default()).unwrap();
    leads(&node).await;
    for job in 0..55 {
        submit(&node, job).await;
    }
    node.stop().await;
    {
        let (store, _) = super::super::store::Store::open(directory.path()).unwrap();
        let taken = store.snapshot_meta().unwrap().and_then(|meta| meta.last_log_id).unwrap().index;
        let purged = store.purged().unwrap().unwrap().index;
        assert!(taken >= 20 && purged >= 10, "snapshot up to {taken}, log purged up to {purged}");
    }
    let node = Node::start(options, Options::default()).unwrap();
    leads(&node).await;
    for job in 0..55 {
        assert!(has_job(&node, job).await, "job {job}");
    }
    submit(&node, 55).await;
}

#[tokio::test]
async fn a_log_of_few_large_entries_is_cut_too() {
    let directory = tempfile::tempdir().unwrap();
    let options = RaftOptions { snapshot_log_bytes: 4_000, ..alone(directory.path()) };
    let node = Node::start(options, Options::default()).unwrap();
    leads(&node).await;
    for job in 0..60 {
        submit(&node, job).await;
    }
    node.stop().await;
    let (store, _) = super::super::store::Store::open(directory.path()).unwrap();
    assert!(store.snapshot_meta().unwrap().is_some());
    let behind = store.last().unwrap().unwrap().index
        - store.snapshot_meta().unwrap().unwrap().last_log_id.unwrap().index;
    assert!(behind < 40, "{behind} entries follow the snapshot");
}

#[tokio::test]
async fn many_reports_share_a_wait_for_the_disk() {
    const TASKS: u32 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(alone(directory.path()), Options::default()).unwrap();
    leads(&node).await;
    let (_, mut orders) = register(&node, TASKS).await;
    node.handle.submit(JOB, JobSpec::embedded(graph(TASKS))).await.unwrap();
    let tasks = deployed(&mut orders).await;
    assert_eq!(tasks.len(), TASKS as usize);
    let before = node.sync_count.load(Ordering::Relaxed);
    node.handle.worker_reports(reports(&tasks)).await.unwrap();
    let after = node.sync_count.load(Ordering::Relaxed);
    // The entry's, and at most one more for the database's own ends.
    assert!(after - before <= 2, "{} syncs", after - before);
    let running = node.handle.status(JOB).await.unwrap().counts().of(TaskState::Running);
    assert_eq!(running, TASKS);
}

fn with_argument(bytes: usize) -> JobSpec {
    let configuration = vec![("text".to_string(), "x".repeat(1_000)); bytes.div_ceil(1_000)];
    let program = ProgramRef {
        digest: ProgramDigest([1; 32]),
        name: "job".into(),
        arguments: Vec::new(),
        execution: 0,
        configuration,
    };
    JobSpec { program: Some(program), ..JobSpec::embedded(graph(1)) }
}

#[tokio::test]
async fn what_is_too_large_for_an_entry_is_refused_and_the_rest_goes_in_small_ones() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(alone(directory.path()), Options::default()).unwrap();
    leads(&node).await;
    let program = ProgramDigest([1; 32]);
    node.handle.program_stored(program, "job".into(), 1).await.unwrap();
    let refused = node.handle.submit(JOB, with_argument(5 << 20)).await.unwrap_err();
    assert!(matches!(refused, CoordinatorError::TooLarge { .. }), "{refused}");
    assert!(refused.to_string().contains("make the job smaller"), "{refused}");
    // They wait for the first together, and together they are too large for one entry.
    let submitting = (0..12).map(|job| node.handle.submit(JobId(job), with_argument(900 << 10)));
    for submitted in futures_util::future::join_all(submitting).await {
        submitted.unwrap();
    }
    node.stop().await;
    let (store, _) = super::super::store::Store::open(directory.path()).unwrap();
    let first = store.purged().unwrap().map_or(0, |id| id.index + 1);
    for entry in store.entries(first, None, usize::MAX).unwrap() {
        if let openraft::EntryPayload::Normal(proposal) = entry.payload {
            let bytes: usize = proposal.events.iter().map(Vec::len).sum();
            assert!(bytes <= 1 << 20, "an entry of {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn a_worker_that_returns_in_time_keeps_its_tasks() {
    let directory = tempfile::tempdir().unwrap();
    let options = alone(directory.path());
    let node = Node::start(options.clone(), Options::default()).unwrap();
    leads(&node).await;
    let (worker, mut orders) = register(&node, 2).await;
    node.handle.submit(JOB, JobSpec::embedded(graph(2))).await.unwrap();
    let tasks = deployed(&mut orders).await;
    node.handle.worker_reports(reports(&tasks)).await.unwrap();
    node.kill().await;

    let node = Node::start(options.clone(), Options::default()).unwrap();
    leads(&node).await;
    let mut orders = node.link.attach(worker, 64);
    node.handle.worker_returned(worker, tasks.clone()).await.unwrap();
    let status = node.handle.status(JOB).await.unwrap();
    assert_eq!((status.state(), status.counts().of(TaskState::Running)), (JobState::Running, 2));
    assert!(orders.try_recv().is_err(), "there is nothing to order");
    let other = node.handle.new_worker_id().await.unwrap();
    assert!(other > worker);
    node.handle.cancel(JOB).await.unwrap();
    assert!(matches!(timeout(DEADLINE, orders.recv()).await.unwrap(), Some(ToWorker::Cancel { .. })));
    node.kill().await;

    // Now it does not come back.
    let node = Node::start(options, Options { worker_return_ms: 50, ..Options::default() }).unwrap();
    leads(&node).await;
    let outcome = timeout(DEADLINE, node.handle.wait(JOB)).await.expect("it is given up").unwrap();
    assert_eq!(outcome, JobOutcome::Canceled);
    let late = node.handle.worker_returned(worker, tasks).await.unwrap_err();
    assert!(late.to_string().contains("must register as a new worker"), "{late}");
}

#[tokio::test]
async fn a_job_goes_on_waiting_for_slots_under_the_next_coordinator() {
    let directory = tempfile::tempdir().unwrap();
    let options = alone(directory.path());
    let node = Node::start(options.clone(), Options::default()).unwrap();
    leads(&node).await;
    submit(&node, 7).await;
    node.kill().await;
    let node = Node::start(options, Options { slot_wait_ms: 50, ..Options::default() }).unwrap();
    let outcome = timeout(DEADLINE, async {
        leads(&node).await;
        node.handle.wait(JOB).await
    });
    assert!(matches!(outcome.await.expect("the wait ends").unwrap(), JobOutcome::Failed(_)));
}

#[test]
fn a_group_that_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let with = |members: &[&str]| {
        let members = members.iter().map(|member| member.to_string()).collect();
        let options = RaftOptions { members, ..RaftOptions::new(directory.path(), "a:1") };
        Node::start(options, Options::default()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(with(&["a:1", "b:1"]).contains("one, three or five"), "{}", with(&["a:1", "b:1"]));
    assert!(with(&["a:1", "a:1", "c:1"]).contains("named twice"));
    assert!(with(&["b:1", "c:1", "d:1"]).contains("this coordinator is 'a:1', which is none of them"));
}

#[tokio::test]
async fn the_log_of_one_group_is_not_taken_into_another() {
    let directory = tempfile::tempdir().unwrap();
    let options = alone(directory.path());
    let node = Node::start(options.clone(), Options::default()).unwrap();
    leads(&node).await;
    node.stop().await;
    let mut members = super::cluster::free_addresses(2);
    members.push(options.address.clone());
    let error =
        Node::start(RaftOptions { members, ..options }, Options::default()).err().unwrap().to_string();
    assert!(error.contains("is that of a group of 1"), "{error}");
}

#[tokio::test]
async fn a_leader_is_there_at_once_when_there_can_be_no_other() {
    let directory = tempfile::tempdir().unwrap();
    // With timeouts that nobody could wait for.
    let options = RaftOptions {
        heartbeat_interval_ms: 60_000,
        election_timeout_ms: 300_000,
        ..alone(directory.path())
    };
    for _ in 0..2 {
        let node = Node::start(options.clone(), Options::default()).unwrap();
        timeout(Duration::from_secs(20), leads(&node)).await.expect("it does not wait for an election");
        node.stop().await;
    }
}

//! Registered workers: orders, reports, heartbeats, and the ways in which they are lost.

use flott_schema::control::{LAST_SNAPSHOT, Report, SnapshotReport, TaskReport, TaskState, ToWorker};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::snapshot::{SnapshotTimes, TaskSnapshot};
use flott_schema::stats::{WorkerStats, WorkerUsage};

use super::peer::{Manner, NEVER_MS, Outcome, accepted, apply, registered, running};
use super::{Cluster, JOB, Options, run};
use crate::live::ReadStats;
use crate::machine::tests::graph::streaming;
use crate::machine::{JobOutcome, JobState};

/// Only what a test does can make a worker be lost.
fn patient() -> Options {
    Options { heartbeat_timeout_ms: NEVER_MS, ..Options::default() }
}

#[test]
fn a_worker_takes_orders_and_its_reports_are_committed_when_they_are_answered() {
    run(async {
        let cluster = Cluster::start(Options { heartbeat_interval_ms: 1_234, ..patient() });
        let mut worker = registered(&cluster.address(), 2).await;
        assert_eq!((worker.id, worker.term, worker.heartbeat_interval_ms), (WorkerId(1), 1, 1_234));

        cluster.submit(2).await;
        let tasks = worker.deployed().await;
        assert_eq!(tasks.len(), 2);
        for state in [TaskState::Initializing, TaskState::Running] {
            for task in &tasks {
                worker.report(task.attempt, state).await.unwrap();
            }
        }
        assert_eq!(cluster.state().await, JobState::Running);
        for task in &tasks {
            worker.report(task.attempt, TaskState::Finished).await.unwrap();
        }
        assert_eq!(cluster.state().await, JobState::Finished);
        let release = worker.order().await;
        assert_eq!((release.term, release.message), (1, ToWorker::Release { job: JOB }));
    });
}

#[test]
fn parts_of_snapshots_are_taken_in_and_last_ones_with_the_end_of_their_task() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        let attempt = worker.deployed().await[0].attempt;
        worker.report(attempt, TaskState::Running).await.unwrap();
        let snapshot = TaskSnapshot {
            task: attempt.task,
            finished: true,
            operators: Vec::new(),
            channels: Vec::new(),
            times: SnapshotTimes::default(),
        };
        let part = |checkpoint| SnapshotReport {
            job: JOB,
            attempt,
            checkpoint,
            handed_in: 0,
            result: Ok(snapshot.clone()),
        };
        // Of no snapshot that is under way: that is the service's to know.
        worker.hand_in(&[part(7)]).await.unwrap();
        worker.want_snapshot(attempt).await.unwrap();
        let finished = TaskReport { job: JOB, attempt, state: TaskState::Finished, failure: None };
        let last = Report::LastSnapshot(Box::new(part(LAST_SNAPSHOT)));
        worker.report_all(&[last, Report::Task(finished)]).await.unwrap();
        assert_eq!(cluster.state().await, JobState::Finished);
    });
}

#[test]
fn orders_of_many_kinds_arrive_in_the_order_given() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        let attempt = worker.deployed().await[0].attempt;
        cluster.handle.cancel(JOB).await.unwrap();
        assert_eq!(worker.order().await.message, ToWorker::Cancel { job: JOB, attempts: vec![attempt] });
        worker.report(attempt, TaskState::Canceled).await.unwrap();
        assert_eq!(worker.order().await.message, ToWorker::Release { job: JOB });
        assert_eq!(cluster.end().await, JobOutcome::Canceled);
    });
}

#[test]
fn heartbeats_bring_numbers_and_keep_the_worker() {
    run(async {
        let cluster = Cluster::start(patient());
        let worker = registered(&cluster.address(), 1).await;
        assert_eq!(cluster.rpc.stats().worker(worker.id), None);
        let usage = WorkerUsage { resident_bytes: 77, ..WorkerUsage::default() };
        worker.heartbeat(&WorkerStats { usage: usage.clone(), tasks: Vec::new() }).await.unwrap();
        assert_eq!(cluster.rpc.stats().worker(worker.id).map(|sample| sample.value), Some(usage));
    });
}

#[test]
fn a_silent_worker_is_given_up_after_the_timeout() {
    run(async {
        let cluster = Cluster::start(Options { heartbeat_timeout_ms: 200, ..Options::default() });
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        worker.deployed().await;
        let failure = cluster.failure().await;
        assert!(failure.contains("worker"), "{failure}");
        // So that it notices, and can come back as a new one.
        worker.line.closed().await;
        assert!(worker.heartbeat(&WorkerStats::default()).await.is_err());
    });
}

#[test]
fn a_worker_whose_connection_closes_is_given_up_at_once() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        worker.deployed().await;
        drop(worker);
        cluster.failure().await;
    });
}

#[test]
fn a_worker_that_leaves_its_orders_unread_is_given_up() {
    run(async {
        let cluster = Cluster::start(Options { orders_capacity: 1, ..patient() });
        let mut deaf = accepted(apply(&cluster.address(), 3, 0, &[], Manner::Deaf).await);
        // The first order is on its way, the second may wait, and there is no room for the third.
        for job in 1..=3 {
            let graph = streaming("job", &[("map", 1)], &[]);
            cluster.handle.submit(JobId(job), JobSpec::embedded(graph)).await.unwrap();
        }
        deaf.line.closed().await;
        let workers = cluster.handle.read("workers", |state| state.workers().len()).await.unwrap();
        assert_eq!(workers, 0);
    });
}

#[test]
fn a_worker_that_refuses_an_order_is_given_up() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = accepted(apply(&cluster.address(), 1, 0, &[], Manner::Stubborn).await);
        cluster.submit(1).await;
        cluster.failure().await;
        worker.line.closed().await;
    });
}

#[test]
fn a_worker_that_comes_by_another_connection_keeps_its_id_and_its_tasks() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut old = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        let attempt = old.deployed().await[0].attempt;
        old.report(attempt, TaskState::Initializing).await.unwrap();

        let tasks = [running(attempt, TaskState::Running)];
        let new = accepted(apply(&cluster.address(), 1, old.id.0, &tasks, Manner::Obedient).await);
        assert_eq!(new.id, old.id);
        old.line.closed().await;
        assert_eq!(cluster.state().await, JobState::Running);
        new.report(attempt, TaskState::Finished).await.unwrap();
        assert_eq!(cluster.end().await, JobOutcome::Finished);
    });
}

#[test]
fn a_task_that_a_returned_worker_does_not_run_has_failed() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut old = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        let attempt = old.deployed().await[0].attempt;
        old.report(attempt, TaskState::Running).await.unwrap();
        let new = accepted(apply(&cluster.address(), 1, old.id.0, &[], Manner::Obedient).await);
        assert_eq!(new.id, old.id);
        cluster.failure().await;
    });
}

#[test]
fn an_order_that_did_not_arrive_is_given_again_when_the_worker_returns() {
    run(async {
        let cluster = Cluster::start(patient());
        let old = accepted(apply(&cluster.address(), 1, 0, &[], Manner::Deaf).await);
        cluster.submit(1).await;
        let mut new = accepted(apply(&cluster.address(), 1, old.id.0, &[], Manner::Obedient).await);
        assert_eq!(new.id, old.id);
        assert_eq!(new.deployed().await.len(), 1);
    });
}

#[test]
fn a_worker_that_was_given_up_gets_a_new_id() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.handle.worker_lost(worker.id).await.unwrap();
        worker.line.closed().await;
        let back = accepted(apply(&cluster.address(), 1, worker.id.0, &[], Manner::Obedient).await);
        assert_eq!(back.id, WorkerId(2));
    });
}

#[test]
fn a_worker_that_offers_more_slots_than_there_can_be_is_refused() {
    run(async {
        let cluster = Cluster::start(patient());
        match apply(&cluster.address(), u32::MAX, 0, &[], Manner::Obedient).await {
            Outcome::Refused(reason) => assert!(reason.contains("slots"), "{reason}"),
            Outcome::Accepted(_) | Outcome::NotLeader(_) => panic!("not refused"),
        }
        assert_eq!(cluster.rpc.refused(), 1);
    });
}

#[test]
fn workers_outlive_the_control_port_and_return_to_the_next_one() {
    run(async {
        let cluster = Cluster::start(patient());
        let mut worker = registered(&cluster.address(), 1).await;
        cluster.submit(1).await;
        let attempt = worker.deployed().await[0].attempt;
        worker.report(attempt, TaskState::Running).await.unwrap();
        cluster.rpc.stop();
        worker.line.closed().await;
        super::soon("the end of the port", cluster.rpc.ended()).await;

        let next = super::port(patient(), &cluster.handle, &cluster.link);
        let tasks = [running(attempt, TaskState::Running)];
        let address = next.address().to_string();
        let back = accepted(apply(&address, 1, worker.id.0, &tasks, Manner::Obedient).await);
        assert_eq!(back.id, worker.id);
        assert_eq!(cluster.state().await, JobState::Running);
    });
}

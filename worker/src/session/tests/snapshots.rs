//! Parts of snapshots, last ones, and tasks that wait for one.

use flott_schema::control::{LAST_SNAPSHOT, Report, SnapshotReport, TaskState, ToCoordinator};

use super::coordinator::{Event, Port};
use super::*;

fn part(subtask: u32, checkpoint: u64) -> SnapshotReport {
    SnapshotReport {
        job: JOB,
        attempt: attempt(subtask),
        checkpoint,
        handed_in: 0,
        result: Err("no disk".into()),
    }
}

fn snapshot(subtask: u32, checkpoint: u64) -> ToCoordinator {
    ToCoordinator::Snapshot(Box::new(part(subtask, checkpoint)))
}

#[test]
fn a_last_snapshot_is_acknowledged_with_the_end_of_its_task_behind_it() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![snapshot(0, LAST_SNAPSHOT), report(0, TaskState::Finished).into()]).await.unwrap();
        let expected = [
            Report::LastSnapshot(Box::new(part(0, LAST_SNAPSHOT))),
            Report::Task(report(0, TaskState::Finished)),
        ];
        let Event::Mixed(lost, _unanswered) = coordinator.word().await else { panic!("no reports") };
        assert_eq!(lost, expected);
        coordinator.cut();
        let mut coordinator = port.register(1, 1).await;
        let Event::Mixed(again, _unanswered) = coordinator.word().await else { panic!("no reports") };
        assert_eq!(again, expected);
    });
}

#[test]
fn parts_of_snapshots_overtake_reports_that_wait_and_are_sent_once() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![report(0, TaskState::Running)]).await.unwrap();
        let (_, unacknowledged) = coordinator.reports().await;
        handle.report(vec![snapshot(0, 7)]).await.unwrap();
        let Event::Snapshots(parts, answer) = coordinator.word().await else { panic!("no part") };
        assert_eq!(parts, [part(0, 7)]);
        // One call at a time.
        handle.report(vec![snapshot(1, 7), report(1, TaskState::Running).into()]).await.unwrap();
        unacknowledged.send(()).unwrap();
        let (reports, acknowledge) = coordinator.reports().await;
        assert_eq!(reports, [report(1, TaskState::Running)]);
        acknowledge.send(()).unwrap();
        answer.send(()).unwrap();
        let Event::Snapshots(parts, _unanswered) = coordinator.word().await else { panic!("no part") };
        assert_eq!(parts, [part(1, 7)]);
        coordinator.cut();
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![snapshot(2, 7)]).await.unwrap();
        let Event::Snapshots(parts, _unanswered) = coordinator.word().await else { panic!("no part") };
        assert_eq!(parts, [part(2, 7)]);
    });
}

#[test]
fn every_coordinator_is_told_which_tasks_wait_for_a_snapshot() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        let wanted = ToCoordinator::SnapshotWanted { job: JOB, attempt: attempt(3) };
        handle.report(vec![wanted]).await.unwrap();
        for _ in 0..2 {
            let Event::Waiting(tasks, answer) = coordinator.word().await else { panic!("no word of it") };
            assert_eq!(tasks, [(JOB, attempt(3))]);
            answer.send(()).unwrap();
            coordinator.cut();
            coordinator = port.register(1, 1).await;
        }
    });
}

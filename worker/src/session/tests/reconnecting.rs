//! Connections that break.

use flott_schema::control::{RunningTask, TaskState, ToWorker};

use super::coordinator::{Answer, Port};
use super::*;

fn running(subtask: u32, state: TaskState) -> RunningTask {
    RunningTask { job: JOB, attempt: attempt(subtask), state }
}

#[test]
fn a_lost_connection_keeps_the_id_and_unacknowledged_reports_are_sent_again_exactly_in_order() {
    run(async {
        let mut port = Port::open().await;
        let (handle, mut orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(5, 1).await;
        coordinator.order(&deploy(1, 0..3)).await.unwrap();
        soon("the order", orders.recv()).await.unwrap();

        handle.report(vec![report(0, TaskState::Running)]).await.unwrap();
        let (first, acknowledge) = coordinator.reports().await;
        assert_eq!(first, [report(0, TaskState::Running)]);
        acknowledge.send(()).unwrap();
        handle.report(vec![report(0, TaskState::Finished), report(1, TaskState::Running)]).await.unwrap();
        // These two arrive, and nobody will ever know.
        let (lost, _unanswered) = coordinator.reports().await;
        assert_eq!(lost.len(), 2);
        coordinator.cut();
        handle.report(vec![report(1, TaskState::Finished)]).await.unwrap();
        handle.report(vec![report(2, TaskState::Running)]).await.unwrap();

        let applicant = port.applicant().await;
        assert_eq!(applicant.previous, 5);
        // No end is claimed before its report, and no state ahead of one.
        let claimed = [0, 1, 2].map(|subtask| running(subtask, TaskState::Deploying));
        assert_eq!(applicant.tasks, claimed);
        let mut coordinator = applicant.answer(Answer::accepted(5, 1));
        let mut again = Vec::new();
        while again.len() < 4 {
            let (reports, acknowledge) = coordinator.reports().await;
            again.extend(reports);
            acknowledge.send(()).unwrap();
        }
        let expected = [
            report(0, TaskState::Finished),
            report(1, TaskState::Running),
            report(1, TaskState::Finished),
            report(2, TaskState::Running),
        ];
        assert_eq!(again, expected);

        // What has been acknowledged is the truth of the next registration.
        handle.report(vec![report(2, TaskState::Canceling)]).await.unwrap();
        let (_, acknowledge) = coordinator.reports().await;
        acknowledge.send(()).unwrap();
        handle.report(vec![report(9, TaskState::Running)]).await.unwrap();
        let (_, _unanswered) = coordinator.reports().await;
        coordinator.cut();
        assert_eq!(port.applicant().await.tasks, [running(2, TaskState::Canceling)]);
    });
}

#[test]
fn a_report_that_is_not_taken_is_repeated_over_a_new_connection() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let mut coordinator = port.register(1, 1).await;
        handle.report(vec![report(0, TaskState::Running)]).await.unwrap();
        let (_, refuse) = coordinator.reports().await;
        drop(refuse);
        let mut coordinator = port.register(1, 1).await;
        let (again, acknowledge) = coordinator.reports().await;
        assert_eq!(again, [report(0, TaskState::Running)]);
        acknowledge.send(()).unwrap();
    });
}

#[test]
fn a_worker_that_was_given_up_ends_its_jobs_before_it_takes_new_orders() {
    run(async {
        let mut port = Port::open().await;
        let (handle, mut orders) = session(options(&[&port.name()]));
        let coordinator = port.register(5, 1).await;
        coordinator.order(&deploy(1, 0..2)).await.unwrap();
        soon("the order", orders.recv()).await.unwrap();
        handle.report(vec![report(0, TaskState::Running)]).await.unwrap();
        coordinator.cut();

        let mut coordinator = port.register(6, 2).await;
        coordinator.order(&deploy(2, 0..1)).await.unwrap();
        let cancel = ToWorker::Cancel { job: JOB, attempts: vec![attempt(0), attempt(1)] };
        assert_eq!(soon("an order", orders.recv()).await, Some(Order { term: 2, message: cancel }));
        assert_eq!(soon("an order", orders.recv()).await, Some(release(2, JOB.0)));
        assert_eq!(soon("an order", orders.recv()).await, Some(deploy(2, 0..1)));
        assert_eq!(handle.worker(), Some(WorkerId(6)));

        // The old report is void.
        handle.report(vec![report(0, TaskState::Initializing)]).await.unwrap();
        let (reports, _) = coordinator.reports().await;
        assert_eq!(reports, [report(0, TaskState::Initializing)]);
    });
}

#[test]
fn a_coordinator_that_answers_no_heartbeat_is_left() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, _orders) = session(options(&[&port.name()]));
        let answer =
            Answer::Accepted { worker: 1, term: 1, heartbeat_interval_ms: 50, heartbeat_timeout_ms: 100 };
        let mut coordinator = port.applicant().await.answer(answer);
        let (_, _unanswered) = coordinator.heartbeat().await;
        coordinator.closed().await;
        assert_eq!(port.applicant().await.previous, 1);
    });
}

#[test]
fn a_coordinator_that_comes_back_at_the_same_address_is_found() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 1).await;
        handle.registered().await.unwrap();
        let address = port.name();
        port.close().await;
        coordinator.cut();
        let mut port = Port::open_at(&address).await;
        assert_eq!(port.applicant().await.previous, 1);
    });
}

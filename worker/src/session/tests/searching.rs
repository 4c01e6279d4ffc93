//! The search for the coordinator that leads.

use super::coordinator::{Answer, Port};
use super::*;
use crate::session::{SessionEnd, SessionState};

/// An address at which nobody listens.
async fn nobody() -> String {
    let port = Port::open().await;
    let name = port.name();
    port.close().await;
    name
}

#[test]
fn a_follower_sends_it_to_the_leader_which_need_not_be_configured() {
    run(async {
        let mut follower = Port::open().await;
        let mut leader = Port::open().await;
        let (handle, _orders) = session(options(&[&follower.name()]));
        follower.applicant().await.answer(Answer::NotLeader(leader.name()));
        let _registered = leader.register(1, 1).await;
        assert_eq!(handle.registered().await, Ok(WorkerId(1)));
    });
}

#[test]
fn addresses_at_which_nobody_answers_are_passed_over() {
    run(async {
        let mut leader = Port::open().await;
        let (handle, _orders) =
            session(options(&[&nobody().await, "no.such.host.invalid:1", &leader.name()]));
        let _registered = leader.register(1, 1).await;
        assert_eq!(handle.registered().await, Ok(WorkerId(1)));
    });
}

#[test]
fn while_there_is_no_leader_it_goes_on_asking() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        for _ in 0..3 {
            port.applicant().await.answer(Answer::NotLeader(String::new()));
        }
        // One that failed in between makes no difference.
        drop(port.applicant().await);
        let _registered = port.register(1, 1).await;
        assert_eq!(handle.registered().await, Ok(WorkerId(1)));
    });
}

#[test]
fn a_leader_of_an_older_term_than_was_seen_is_left() {
    run(async {
        let mut old = Port::open().await;
        let mut new = Port::open().await;
        let (handle, mut orders) = session(options(&[&new.name(), &old.name()]));
        let coordinator = new.register(1, 5).await;
        coordinator.order(&release(7, 1)).await.unwrap();
        orders.recv().await.unwrap();
        // The leader of before is asked first; it is gone, and the other has not heard that its time is over.
        new.close().await;
        coordinator.cut();
        let stale = old.register(1, 6).await;
        assert!(stale.order(&release(6, 2)).await.is_err());
        stale.closed().await;
        let _registered = old.register(1, 8).await;
        handle
            .watch()
            .wait_for(|state| matches!(state, SessionState::Registered { term: 8, .. }))
            .await
            .unwrap();
        assert!(orders.try_recv().is_err());
    });
}

#[test]
fn a_worker_that_is_refused_ends_with_the_reason() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        port.applicant().await.answer(Answer::Refused("too many slots".into()));
        let end = SessionEnd::Refused { address: port.name(), reason: "too many slots".into() };
        assert_eq!(handle.registered().await, Err(end));
    });
}

#[test]
fn a_worker_that_was_registered_once_is_not_ended_by_a_refusal() {
    run(async {
        let mut port = Port::open().await;
        let (handle, _orders) = session(options(&[&port.name()]));
        let coordinator = port.register(1, 1).await;
        handle.registered().await.unwrap();
        coordinator.cut();
        port.applicant().await.answer(Answer::Refused("another version".into()));
        let _registered = port.register(1, 1).await;
        let mut states = handle.watch();
        states.wait_for(|state| matches!(state, SessionState::Registered { .. })).await.unwrap();
    });
}

#[test]
fn without_any_coordinator_it_ends_after_its_time() {
    run(async {
        let address = nobody().await;
        let (handle, mut orders) = session(Options { registration_timeout_ms: 200, ..options(&[&address]) });
        match soon("the end", handle.ended()).await {
            SessionEnd::NoCoordinator { waited_ms, reason } => {
                assert!(waited_ms >= 200, "{waited_ms}");
                assert!(reason.contains("refused"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(orders.recv().await, None);
    });
}

#[test]
fn a_coordinator_that_does_not_answer_is_left_after_the_deadline() {
    run(async {
        let mut port = Port::open().await;
        let (_handle, _orders) = session(Options { attempt_timeout_ms: 100, ..options(&[&port.name()]) });
        let _unanswered = port.applicant().await;
        port.applicant().await;
    });
}

#[test]
fn a_session_without_addresses_is_refused() {
    assert!(start(options(&[]), Arc::new(Side::default())).is_err());
}

#[test]
fn it_can_be_stopped_while_it_searches() {
    run(async {
        let (handle, _orders) = session(options(&[&nobody().await]));
        handle.stop();
        assert_eq!(soon("the end", handle.ended()).await, SessionEnd::Stopped);
    });
}

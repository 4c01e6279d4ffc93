//! Coordinators that do not lead, or no longer.

use std::future::ready;

use flott_schema::control::{TaskState, ToWorker};
use flott_schema::job::JobSpec;
use flott_schema::stats::WorkerProfile;
use tokio::sync::mpsc;

use super::peer::{Manner, Outcome, accepted, apply, registered, running};
use super::{JOB, Options, port, run, soon};
use crate::journal::{Journal, LeaderAddresses, Notice, Role};
use crate::machine::tests::graph::streaming;
use crate::machine::{Event, JobState};
use crate::rpc::{RpcHandle, RpcLink};
use crate::service::{self, Coordinator, Handle};

/// A journal that commits at once while a test says that its coordinator leads.
#[derive(Debug)]
struct Elected {
    role: Role,
    roles: mpsc::Receiver<Role>,
}

impl Journal for Elected {
    fn role(&self) -> Role {
        self.role.clone()
    }

    fn propose(&mut self, _: u64, events: Vec<Event>) -> Option<Vec<Event>> {
        Some(events)
    }

    async fn next(&mut self) -> Notice {
        match self.roles.recv().await {
            Some(role) => Notice::Role(role),
            None => std::future::pending().await,
        }
    }

    fn close(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

struct Member {
    handle: Handle,
    rpc: RpcHandle,
    roles: mpsc::Sender<Role>,
}

impl Member {
    fn start(role: Role) -> Self {
        let link = RpcLink::new();
        let (roles, changes) = mpsc::channel(8);
        let journal = Elected { role, roles: changes };
        let (coordinator, handle) =
            Coordinator::with_journal(service::Options::default(), link.clone(), journal);
        tokio::spawn(coordinator.run());
        let rpc = port(Options::default(), &handle, &link);
        Member { handle, rpc, roles }
    }

    async fn become_(&self, role: Role) {
        let mut watched = self.handle.watch_role();
        self.roles.send(role.clone()).await.unwrap();
        soon("the change of the role", watched.wait_for(|now| *now == role)).await.unwrap();
    }

    fn address(&self) -> String {
        self.rpc.address().to_string()
    }
}

fn following(control: &str) -> Role {
    let rest = String::new();
    Role::Follower { leader: Some(LeaderAddresses { control: control.into(), rest }) }
}

#[test]
fn a_follower_sends_workers_to_the_leader() {
    run(async {
        for (role, expected) in
            [(following("leader:6123"), "leader:6123"), (Role::Follower { leader: None }, "")]
        {
            let member = Member::start(role);
            match apply(&member.address(), 1, 0, &[], Manner::Obedient).await {
                Outcome::NotLeader(leader) => assert_eq!(leader, expected),
                Outcome::Accepted(_) | Outcome::Refused(_) => panic!("a follower does not register workers"),
            }
        }
    });
}

#[test]
fn a_coordinator_that_ceases_to_lead_closes_its_sessions_and_loses_no_worker() {
    run(async {
        let member = Member::start(Role::Leader { term: 3 });
        let mut worker = registered(&member.address(), 1).await;
        assert_eq!(worker.term, 3);
        member.handle.submit(JOB, JobSpec::embedded(streaming("job", &[("map", 1)], &[]))).await.unwrap();
        let attempt = worker.deployed().await[0].attempt;
        worker.report(attempt, TaskState::Running).await.unwrap();

        member.become_(following("leader:6123")).await;
        worker.line.closed().await;
        match apply(&member.address(), 1, worker.id.0, &[], Manner::Obedient).await {
            Outcome::NotLeader(leader) => assert_eq!(leader, "leader:6123"),
            Outcome::Accepted(_) | Outcome::Refused(_) => panic!("it does not lead"),
        }

        // It leads again: the worker returns with its task, and orders are of the new term.
        member.become_(Role::Leader { term: 5 }).await;
        let tasks = [running(attempt, TaskState::Running)];
        let mut back = accepted(apply(&member.address(), 1, worker.id.0, &tasks, Manner::Obedient).await);
        assert_eq!((back.id, back.term), (worker.id, 5));
        assert_eq!(member.handle.status(JOB).await.unwrap().state(), JobState::Running);
        member.handle.cancel(JOB).await.unwrap();
        let order = back.order().await;
        assert_eq!((order.term, order.message), (5, ToWorker::Cancel { job: JOB, attempts: vec![attempt] }));
    });
}

#[test]
fn orders_to_workers_that_have_not_returned_yet_do_not_make_them_be_given_up() {
    run(async {
        let member = Member::start(Role::Leader { term: 3 });
        let mut worker = registered(&member.address(), 1).await;
        member.handle.submit(JOB, JobSpec::embedded(streaming("job", &[("map", 1)], &[]))).await.unwrap();
        let attempt = worker.deployed().await[0].attempt;
        worker.report(attempt, TaskState::Running).await.unwrap();
        member.become_(Role::Leader { term: 4 }).await;
        worker.line.closed().await;

        member.handle.cancel(JOB).await.unwrap();
        let tasks = [running(attempt, TaskState::Running)];
        let mut back = accepted(apply(&member.address(), 1, worker.id.0, &tasks, Manner::Obedient).await);
        assert_eq!(back.id, worker.id);
        // What it missed is said again.
        assert_eq!(back.order().await.message, ToWorker::Cancel { job: JOB, attempts: vec![attempt] });
        back.report(attempt, TaskState::Canceled).await.unwrap();
        assert_eq!(member.handle.status(JOB).await.unwrap().state(), JobState::Canceled);
    });
}

#[test]
fn a_worker_whose_return_is_committed_after_its_connection_broke_is_given_up() {
    run(async {
        for is_committed in [true, false] {
            let link = RpcLink::new();
            let options = service::Options { worker_return_ms: 50, ..service::Options::default() };
            let (coordinator, handle) = Coordinator::new(options, link.clone());
            tokio::spawn(coordinator.run());
            let worker = handle.new_worker_id().await.unwrap();
            let attached = link.attach(worker, 1, 8, false).unwrap();
            let profile = WorkerProfile { slots: 1, ..WorkerProfile::default() };
            handle.register_worker(worker, profile).await.unwrap();
            handle.submit(JOB, JobSpec::embedded(streaming("job", &[("map", 1)], &[]))).await.unwrap();
            assert!(link.detach(worker, attached.session));
            match is_committed {
                true => handle.worker_returned(worker, Vec::new()).await.unwrap(),
                false => handle.expect_worker(worker).await.unwrap(),
            }
            soon("the end of the job", handle.wait(JOB)).await.unwrap();
            let is_known = handle.read("workers", move |state| state.workers().contains_key(&worker));
            assert!(!soon("the answer", is_known).await.unwrap() || is_committed);
            if is_committed {
                // Its task was not among what it runs: that ended the job. The worker goes when its time is over.
                while handle.read("workers", move |it| it.workers().contains_key(&worker)).await.unwrap() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        }
    });
}

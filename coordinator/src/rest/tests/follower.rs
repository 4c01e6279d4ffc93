//! A follower hands requests on to its leader.

use std::future::{pending, ready};
use std::sync::Arc;

use flott_schema::ids::JobId;
use flott_schema::job::{RestartStrategy, Submission};
use flott_schema::wire;

use super::cluster::{Cluster, log_text, options, send, spec};
use crate::journal::{Journal, LeaderAddresses, Notice, Role};
use crate::live::Silent;
use crate::machine::Event;
use crate::rest::{Options, Server, ServerHandle, Services};
use crate::{Coordinator, InMemoryLink};

/// Of a coordinator that follows for ever.
#[derive(Debug)]
struct Following(Option<LeaderAddresses>);

impl Journal for Following {
    fn role(&self) -> Role {
        Role::Follower { leader: self.0.clone() }
    }

    fn propose(&mut self, _: u64, _: Vec<Event>) -> Option<Vec<Event>> {
        None
    }

    fn next(&mut self) -> impl Future<Output = Notice> + Send {
        pending()
    }

    fn close(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

fn follower(leader: Option<String>, options: Options) -> ServerHandle {
    let leader = leader.map(|rest| LeaderAddresses { control: "127.0.0.1:1".into(), rest });
    let link = InMemoryLink::new();
    let (coordinator, handle) = Coordinator::with_journal(crate::Options::default(), link, Following(leader));
    tokio::spawn(coordinator.run());
    Server::start(options, Services::new(handle, Arc::new(Silent), Arc::new(Silent))).unwrap()
}

#[tokio::test]
async fn what_a_follower_answers_is_what_its_leader_answers() {
    let mut cluster = Cluster::start(options()).await;
    cluster.worker(1, 4).await;
    let follower = follower(Some(cluster.server.address().to_string()), options());
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        send(follower.address(), method, path, headers, body).await
    };

    let body = wire::to_bytes(&Submission { job: JobId(1), spec: spec(2, RestartStrategy::None) }).unwrap();
    let submitted = ask("POST", "/jobs", &[("content-type", "application/x-flott-submission")], &body).await;
    assert_eq!(submitted.status, 202, "{submitted:?}");
    for path in ["/v1/jobs", "/overview", "/jobs/overview?x=1", "/taskmanagers", "/jobs/xyz", "/nothing"] {
        let (own, leaders) = (ask("GET", path, &[], b"").await, cluster.call("GET", path).await);
        assert_eq!((own.status, own.body), (leaders.status, leaders.body), "{path}");
    }
    assert!(ask("GET", "/metrics", &[], b"").await.body.contains("flott_coordinator_leader 0"));
    let log = ask("GET", "/taskmanagers/host1:9100-abc/log", &[], b"").await;
    assert!(log.body == log_text(), "the log came through changed: {} bytes", log.body.len());

    let canceled = ask("PATCH", &format!("/jobs/{}?mode=cancel", JobId(1)), &[], b"").await;
    assert_eq!(canceled.status, 202, "{canceled:?}");
    assert!(cluster.handle.status(JobId(1)).await.unwrap().state() == crate::JobState::Cancelling);
    let uploaded = ask(
        "POST",
        "/jars/upload",
        &[("content-type", "multipart/form-data; boundary=XX")],
        b"--XX\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"words\"\r\n\r\nwords!\r\n--XX--\r\n",
    )
    .await;
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
}

#[tokio::test]
async fn without_a_leader_the_cluster_is_unavailable() {
    let impatient = || Options { request_deadline_ms: 100, ..options() };
    let nobody = follower(None, impatient());
    let answer = send(nobody.address(), "GET", "/jobs", &[], b"").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("leader election"), "{}", answer.error());

    // A port that was just given back: nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let answer = send(follower(Some(gone), impatient()).address(), "GET", "/jobs", &[], b"").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("cannot be reached"), "{}", answer.error());

    // Two that take each other for the leader.
    let first = follower(Some(nobody.address().to_string()), impatient());
    let answer = send(first.address(), "GET", "/jobs", &[], b"").await;
    assert_eq!(answer.status, 503, "{answer:?}");
}

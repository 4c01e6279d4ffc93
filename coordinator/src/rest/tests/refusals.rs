//! Requests that are refused, and how.

use flott_schema::ids::JobId;
use flott_schema::job::{JobSpec, RestartStrategy, Submission};
use flott_schema::security::Token;
use flott_schema::wire;

use super::cluster::{Answer, Cluster, options, spec};
use crate::rest::{Options, Server, Services, StartError};

const SUBMISSION: (&str, &str) = ("content-type", "application/x-flott-submission");

fn submission(job: u128, spec: JobSpec) -> Vec<u8> {
    wire::to_bytes(&Submission { job: JobId(job), spec }).unwrap()
}

async fn submit(cluster: &Cluster, body: &[u8]) -> Answer {
    cluster.send("POST", "/jobs", &[SUBMISSION], body).await
}

#[tokio::test]
async fn a_submission_is_taken_once_and_may_be_repeated() {
    let cluster = Cluster::start(options()).await;
    let body = submission(9, spec(2, RestartStrategy::None));
    for _ in 0..2 {
        let answer = submit(&cluster, &body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json()["jobUrl"], format!("/jobs/{}", JobId(9)));
    }
    let other = submit(&cluster, &submission(9, spec(3, RestartStrategy::None))).await;
    assert_eq!(other.status, 409, "{other:?}");
    assert_eq!(cluster.call("GET", "/jobs").await.json()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn submissions_that_cannot_run_are_refused_with_the_reason() {
    let cluster = Cluster::start(options()).await;
    let whole = submission(9, spec(2, RestartStrategy::None));
    let cut = submit(&cluster, &whole[..whole.len() / 2]).await;
    assert_eq!(cut.status, 400, "{cut:?}");
    assert_eq!(submit(&cluster, b"").await.status, 400);

    let mut unknown = spec(2, RestartStrategy::None);
    unknown.program.as_mut().unwrap().digest.0[31] = 1;
    let unknown = submit(&cluster, &submission(9, unknown)).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error().contains("upload it first"), "{}", unknown.error());

    let nothing = JobSpec { program: None, ..spec(2, RestartStrategy::None) };
    assert_eq!(submit(&cluster, &submission(9, nothing)).await.status, 400);

    let too_many = submit(&cluster, &submission(9, spec(1_000, RestartStrategy::None))).await;
    assert_eq!(too_many.status, 400);
    assert!(too_many.error().contains("max parallelism"), "{}", too_many.error());

    let too_large = submit(&cluster, &vec![0; (4 << 20) + 1]).await;
    assert_eq!(too_large.status, 413);
    assert!(too_large.error().contains("make the job smaller"), "{}", too_large.error());

    let java = [("content-type", "multipart/form-data; boundary=x")];
    let java = cluster.send("POST", "/v1/jobs", &java, b"--x--").await;
    assert_eq!(java.status, 400);
    assert!(java.error().contains("serialised by Java"), "{}", java.error());

    let json = cluster.send("POST", "/jobs", &[("content-type", "application/json")], b"{}").await;
    assert_eq!(json.status, 400);
    assert!(cluster.call("GET", "/jobs").await.json()["jobs"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn large_bodies_are_refused_and_the_next_request_is_answered() {
    let cluster = Cluster::start(Options { content_length_max_bytes: 1_000, ..options() }).await;
    let answer = submit(&cluster, &vec![0; 200_000]).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.error().contains("rest.server.max-content-length"), "{}", answer.error());
    assert_eq!(cluster.call("GET", "/overview").await.status, 200);
}

#[tokio::test]
async fn wrong_methods_are_not_found_and_the_right_ones_named() {
    let cluster = Cluster::start(options()).await;
    for (method, path, allowed) in [
        ("POST", "/overview", "GET"),
        ("DELETE", "/jobs", "GET and POST"),
        ("PUT", "/v1/jars/upload", "POST"),
        ("GET", "/cluster", "DELETE"),
    ] {
        let answer = cluster.call(method, path).await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        assert!(answer.error().ends_with(&format!("answers {allowed} only")), "{}", answer.error());
    }
    let options = cluster.call("OPTIONS", "/jobs").await;
    assert_eq!(options.status, 404, "{options:?}");
}

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let token = "correct-horse";
    let cluster = Cluster::start(Options { token: Token::new(token).unwrap(), ..options() }).await;
    let with =
        async |value: &str| cluster.send("GET", "/overview", &[("authorization", value)], b"").await.status;
    let nothing = cluster.call("GET", "/overview").await;
    assert_eq!(nothing.status, 401);
    assert!(nothing.head.contains("www-authenticate: bearer"), "{}", nothing.head);
    assert!(nothing.error().contains("security.token"), "{}", nothing.error());
    assert_eq!(with("Bearer wrong-horse-").await, 401);
    assert_eq!(with("Basic correct-horse").await, 401);
    assert_eq!(with("Bearer").await, 401);
    assert_eq!(with("Bearer correct-horse").await, 200);
    assert_eq!(with("bearer correct-horse").await, 200);
    assert_eq!(cluster.call("GET", "/metrics").await.status, 401);
}

#[tokio::test]
async fn a_server_that_others_reach_needs_a_token() {
    let cluster = Cluster::start(options()).await;
    let services = || {
        let silent = std::sync::Arc::new(crate::live::Silent);
        Services::new(cluster.handle.clone(), silent.clone(), silent)
    };
    let everywhere = Options { bind_address: "0.0.0.0".into(), ..options() };
    let refused = Server::start(everywhere.clone(), services()).unwrap_err();
    assert!(matches!(refused, StartError::Open(_)), "{refused}");
    let with_token = Options { token: Token::new("correct-horse").unwrap(), ..everywhere };
    Server::start(with_token, services()).unwrap().stop().await;
    let taken = Options { bind_ports: vec![cluster.server.address().port()], ..options() };
    let refused = Server::start(taken, services()).unwrap_err();
    assert!(matches!(refused, StartError::Bind { .. }), "{refused}");
    assert!(refused.to_string().contains("rest.bind-port"), "{refused}");
}

#[tokio::test]
async fn origins_are_told_as_configured() {
    let cluster = Cluster::start(options()).await;
    let answer = cluster.call("GET", "/jobs/xyz").await;
    assert!(answer.head.contains("access-control-allow-origin: *"), "{}", answer.head);

    let own = Cluster::start(Options { allow_origin: "http://dash.example".into(), ..options() }).await;
    let ask = |origin| {
        let own = &own;
        async move { own.send("OPTIONS", "/jobs", &[("origin", origin)], b"").await }
    };
    let allowed = ask("http://dash.example").await;
    assert_eq!(allowed.status, 204);
    assert!(allowed.head.contains("access-control-allow-methods"), "{}", allowed.head);
    assert_eq!(ask("http://evil.example").await.status, 404);
}

#[tokio::test]
async fn without_a_token_a_web_page_can_read_but_change_nothing() {
    let mut cluster = Cluster::start(options()).await;
    cluster.worker(1, 4).await;
    cluster.submit(1, 2, RestartStrategy::None).await;
    let host = cluster.server.address().to_string();
    let own = format!("http://{host}");
    let job = format!("/jobs/{}", JobId(1));
    let (stop, plan) =
        (format!("{job}/yarn-cancel"), format!("/jars/{}_words/plan", super::cluster::PROGRAM));
    let page = [("host", host.as_str()), ("origin", "http://evil.example")];
    let image = [("host", host.as_str()), ("sec-fetch-site", "cross-site")];
    let rebound = [("host", "evil.example:8081")];
    for headers in [&page[..], &image, &rebound] {
        for (method, path) in [
            ("POST", "/jars/upload"),
            ("POST", "/v1/jobs"),
            ("PATCH", &job),
            ("DELETE", "/cluster"),
            ("GET", &stop),
            ("GET", &plan),
            ("HEAD", &plan),
        ] {
            let answer = cluster.send(method, path, headers, b"").await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {answer:?}");
        }
        assert_eq!(cluster.send("GET", &job, headers, b"").await.status, 200, "{headers:?}");
    }
    assert_eq!(cluster.handle.status(JobId(1)).await.unwrap().state(), crate::JobState::Running);
    let dashboard = [("host", host.as_str()), ("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(cluster.send("PATCH", &job, &dashboard, b"").await.status, 202);
}

#[tokio::test]
async fn a_stopped_coordinator_is_unavailable() {
    let cluster = Cluster::start(options()).await;
    cluster.handle.stop().await.unwrap();
    let mut role = cluster.handle.watch_role();
    while role.changed().await.is_ok() {}
    let answer = cluster.call("GET", "/overview").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.error().is_empty());
}

#[tokio::test]
async fn a_url_prefix_stands_in_front_of_every_path() {
    let cluster = Cluster::start(Options { url_prefix: "/proxy/app/".into(), ..options() }).await;
    assert_eq!(cluster.call("GET", "/proxy/app/v1/overview").await.status, 200);
    assert_eq!(cluster.call("GET", "/proxy/app/overview").await.status, 200);
    assert_eq!(cluster.call("GET", "/overview").await.status, 404);
}

#[tokio::test]
async fn a_stopped_server_frees_its_port() {
    let cluster = Cluster::start(options()).await;
    let address = cluster.server.address();
    cluster.server.stop().await;
    drop(std::net::TcpListener::bind(address).unwrap());
}

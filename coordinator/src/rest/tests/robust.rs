//! Whatever is asked, the answer is JSON.

use actix_web::http::Method;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::cluster::{Cluster, options};
use crate::rest::path::{Parameters, segments};
use crate::rest::route::route;

/// Words of the API and what may stand between them.
const WORDS: [&str; 33] = [
    "jobs",
    "overview",
    "v1",
    "config",
    "vertices",
    "subtasks",
    "metrics",
    "attempts",
    "taskmanagers",
    "jobmanager",
    "logs",
    "log",
    "jars",
    "run",
    "plan",
    "upload",
    "checkpoints",
    "savepoints",
    "stop",
    "details",
    "resource-requirements",
    "savepoint-disposal",
    "exceptions",
    "backpressure",
    "00000000000000000000000000000001",
    "0",
    "-1",
    "99999999999999999999",
    "%00",
    "%2e%2e",
    "..",
    "a%20b",
    "é",
];

fn path() -> impl Strategy<Value = String> {
    let part =
        prop_oneof![4 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => "[ -~]{0,12}"];
    proptest::collection::vec(part, 0..7).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    #[test]
    fn no_path_and_no_query_makes_the_router_panic(path in path(), query in "[ -~]{0,40}") {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT, Method::HEAD] {
            if let Ok(Some(parts)) = segments(&path, "/") {
                let _ = route(&method, &parts);
            }
        }
        let parameters = Parameters::parse(&query);
        let _ = (parameters.get("get"), parameters.list("get"), parameters.number::<u32>("get"));
    }
}

#[tokio::test]
async fn any_request_is_answered_with_json() {
    let mut cluster = Cluster::start(options()).await;
    cluster.worker(1, 4).await;
    cluster.submit(1, 2, flott_schema::job::RestartStrategy::None).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for round in 0..300 {
        let path = path().new_tree(&mut runner).unwrap().current();
        // What HTTP does not allow in a request line never reaches the router.
        let path: String =
            path.chars().filter(|sign| sign.is_ascii_graphic() && !"<>\"{}|\\^`#".contains(*sign)).collect();
        let method = ["GET", "POST", "PATCH", "DELETE", "PUT"][round % 5];
        if method == "DELETE" && path.ends_with("cluster") {
            continue;
        }
        let answer = cluster.call(method, &path).await;
        if answer.body.is_empty() {
            // HTTP itself was broken, and says so without a body.
            assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
            continue;
        }
        let is_text = answer.head.contains("text/plain");
        assert!(
            is_text || serde_json::from_str::<serde_json::Value>(&answer.body).is_ok(),
            "{method} {path}: {answer:?}"
        );
        assert!(answer.status != 500, "{method} {path}: {answer:?}");
    }
    assert_eq!(cluster.call("GET", "/overview").await.status, 200);
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::start(options()).await;
    for garbage in
        [&b"\x00\x01\x02\xff"[..], b"GET", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", &[b'a'; 200_000]]
    {
        let mut stream = tokio::net::TcpStream::connect(cluster.server.address()).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    assert_eq!(cluster.call("GET", "/overview").await.status, 200);
}

//! The client against servers that answer what a test tells them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use flott_schema::config::Configuration;
use flott_schema::snapshot::SavepointFormat;

use super::snapshots::{Outcome, Requirement};
use super::views::Overview;
use super::{Addresses, Client, ClientError};

/// What a server was asked: the line of the request with its headers, and the body.
type Asked = (String, Vec<u8>);

/// A server that gives these answers (status line and headers, body), one connection each, and says what it was asked.
fn server(answers: Vec<(String, String)>) -> (String, mpsc::Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, asked) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for (head, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            // Not every test asks what was asked.
            let _ = sender.send(answer(stream, &head, &body));
        }
    });
    (address, asked)
}

fn answer(stream: TcpStream, head: &str, body: &str) -> Asked {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    (request, sent)
}

/// An address at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn client(addresses: &[&str], pairs: &[&str]) -> Client {
    let addresses: Addresses = addresses.join(",").parse().unwrap();
    Client::new(addresses, &Configuration::from_pairs(pairs).unwrap()).unwrap()
}

fn ok(body: &str) -> (String, String) {
    ("200 OK".into(), body.into())
}

#[test]
fn the_next_coordinator_is_asked_when_one_cannot_be_reached_or_has_no_leader() {
    let overview = r#"{"taskmanagers":2,"slots-total":4,"slots-available":3,"unknown":1}"#;
    let (waiting, _) = server(vec![("503 Busy".into(), r#"{"errors":["no leader yet"]}"#.into())]);
    let (answering, asked) = server(vec![ok(overview), ok(overview)]);
    let client = client(&[&nobody(), &waiting, &answering], &[]);
    for _ in 0..2 {
        let overview: Overview = client.get("/overview").unwrap();
        assert_eq!((overview.taskmanagers, overview.slots_total, overview.slots_available), (2, 4, 3));
        assert!(asked.recv().unwrap().0.starts_with("GET /overview HTTP/1.1\r\n"));
    }
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_that_says_what_to_do() {
    let (first, second) = (nobody(), nobody());
    let error = client(&[&first, &second], &[]).get_text("/overview").unwrap_err();
    assert!(error.is_transient());
    let text = error.into_error().to_string();
    assert!(
        text.contains(&format!("{first},{second}")) && text.contains("scripts/start-cluster.sh"),
        "{text}"
    );
}

#[test]
fn what_the_coordinator_says_is_the_error() {
    let (address, _) = server(vec![
        ("404 Not Found".into(), r#"{"errors":["Job 77 not found"]}"#.into()),
        ("500 Oh".into(), "<html>".into()),
    ]);
    let client = client(&[&address], &[]);
    let error = client.get_text("/jobs/77").unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "Job 77 not found");
    let error = client.get_text("/jobs").unwrap_err().to_string();
    assert_eq!(error, "the coordinator answered with HTTP status 500");
}

#[test]
fn an_answer_of_something_else_names_who_gave_it() {
    let (address, _) = server(vec![ok("hello")]);
    let error = client(&[&address], &[]).get::<Overview>("/overview").unwrap_err();
    assert!(matches!(error, ClientError::Strange { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn a_post_follows_a_follower_to_the_leader_with_its_body_and_type() {
    let (leader, asked) = server(vec![ok("{}")]);
    let there = format!("307 There\r\nLocation: http://{leader}/jobs");
    let (follower, _) = server(vec![(there, String::new())]);
    let _: serde_json::Value =
        client(&[&follower], &[]).post("/jobs", "application/x-test", b"a job").unwrap();
    let (request, body) = asked.recv().unwrap();
    assert!(request.to_lowercase().contains("content-type: application/x-test\r\n"), "{request}");
    assert_eq!(body, b"a job");
}

#[test]
fn a_savepoint_is_started_once_and_asked_for_until_it_is_there() {
    let (address, asked) = server(vec![
        ok(r#"{"request-id":"77aa"}"#),
        ok(r#"{"status":{"id":"IN_PROGRESS"}}"#),
        ok(r#"{"status":{"id":"COMPLETED"},"operation":{"location":"file:/sp/savepoint-1"}}"#),
    ]);
    let client = client(&[&address], &[]);
    let operation = client.start_stop("00ff", Some("/sp"), true, SavepointFormat::Native).unwrap();
    assert_eq!(client.outcome(&operation).unwrap(), None);
    assert_eq!(client.outcome(&operation).unwrap(), Some(Outcome::Done("file:/sp/savepoint-1".into())));
    let (request, body) = asked.recv().unwrap();
    assert!(request.starts_with("POST /jobs/00ff/stop HTTP/1.1\r\n"), "{request}");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["targetDirectory"], &body["drain"]), (&"/sp".into(), &true.into()), "{body}");
    assert_eq!(body["formatType"], "NATIVE");
    assert_eq!(body["triggerId"].as_str().unwrap().len(), 32);
    assert!(asked.recv().unwrap().0.starts_with("GET /jobs/00ff/savepoints/77aa HTTP/1.1\r\n"));
}

#[test]
fn parallelism_is_put_as_flink_names_it() {
    let (address, asked) = server(vec![ok("{}")]);
    let requirements = [("00aa".to_string(), Requirement::exactly(3))].into();
    client(&[&address], &[]).set_requirements("00ff", &requirements).unwrap();
    let (request, body) = asked.recv().unwrap();
    assert!(request.starts_with("PUT /jobs/00ff/resource-requirements HTTP/1.1\r\n"), "{request}");
    assert_eq!(body, br#"{"00aa":{"parallelism":{"lowerBound":3,"upperBound":3}}}"#);
}

#[test]
fn paths_stand_behind_the_prefix() {
    let (address, asked) = server(vec![ok("{}")]);
    client(&[&address], &["rest.url-prefix=/flott/"]).get_text("/jobs").unwrap();
    assert!(asked.recv().unwrap().0.starts_with("GET /flott/jobs HTTP/1.1\r\n"));
}

#[test]
fn the_token_of_the_configuration_goes_with_every_call() {
    let (address, asked) = server(vec![ok("{}"), ok("{}")]);
    let client = client(&[&address], &["security.token=tell-nobody"]);
    client.get_text("/jobs").unwrap();
    client.post::<serde_json::Value>("/jobs", "text/plain", b"").unwrap();
    for (request, _) in asked.iter() {
        assert!(request.to_lowercase().contains("authorization: bearer tell-nobody\r\n"), "{request}");
    }
}

#[test]
fn a_silent_coordinator_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = client(&[&address], &["client.timeout=200 ms"]).get_text("/overview").unwrap_err();
    assert!(error.is_transient(), "{error}");
}

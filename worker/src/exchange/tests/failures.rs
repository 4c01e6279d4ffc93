//! Connections that are lost, executors that are not reached, and what is deployed in the place of what failed.

use std::io::{Read, Write};
use std::time::Duration;

use flott_dataflow::program::RuntimeMode;
use flott_schema::ErrorKind;
use flott_schema::control::TaskState;
use flott_schema::ids::WorkerId;
use flott_schema::wire::to_bytes;

use super::super::handshake::HandshakeReply;
use super::harness::Cluster;
use super::programs::{Sunk, program};

#[test]
fn a_lost_connection_fails_the_tasks_at_both_ends_and_names_the_host_then_the_job_runs_again() {
    let sunk = Sunk::new();
    sunk.stall(1);
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers.rebalance().map(|n| n));
    let mut cluster = Cluster::start(2, built, |options| options.window_bytes = 2048);
    let all: Vec<_> = cluster.program.graph.vertices.iter().map(|vertex| vertex.id).collect();
    let tasks = cluster.place(&all, 0, |_| None);
    cluster.deploy(&tasks);
    cluster.wait_for_running(&tasks);
    cluster.executors[1].cut_incoming();
    let (source, map) = (cluster.vertex("numbers"), cluster.vertex("Map"));
    // Sources on executor 1 send to maps on executor 2, which read from them.
    let hit: Vec<_> = tasks
        .iter()
        .filter(|placement| {
            let task = placement.attempt.task;
            (task.vertex == source && task.subtask % 2 == 0) || (task.vertex == map && task.subtask % 2 == 1)
        })
        .copied()
        .collect();
    cluster.wait_for_end(&hit);
    for placement in &hit {
        let (state, failure) = &cluster.states[&placement.attempt];
        assert_eq!(*state, TaskState::Failed, "{placement:?}");
        let failure = failure.as_ref().unwrap();
        assert_eq!(failure.kind, ErrorKind::Io);
        let other = 3 - placement.slot.worker.0;
        assert!(
            failure.message.contains(&format!("the executor of worker {other} at 127.0.0.1:")),
            "{failure:?}"
        );
    }
    cluster.cancel(&tasks);
    sunk.go_on();
    let before = sunk.sorted().len();
    cluster.run(1);
    assert_eq!(
        sunk.sorted().len(),
        before + 20_000,
        "the newer epoch gets all of its own and nothing of the older"
    );
}

#[test]
fn an_executor_that_is_not_reached_fails_the_tasks_that_send_to_it_within_the_deadline() {
    let sunk = Sunk::new();
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers);
    let mut cluster =
        Cluster::start(1, built, |options| options.connect_deadline = Duration::from_millis(300));
    // A port on which nobody listens any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    cluster.others =
        vec![flott_schema::control::WorkerHost { worker: WorkerId(2), data_address: closed.clone() }];
    let (source, sink) = (cluster.vertex("numbers"), cluster.vertex("sunk"));
    let sources = cluster.place(&[source], 0, |_| None);
    cluster.place(&[sink], 0, |_| Some(WorkerId(2)));
    cluster.deploy(&sources);
    cluster.wait("a failure", |cluster| !cluster.failures(&sources).is_empty());
    let failure = &cluster.failures(&sources)[0];
    assert!(failure.contains(&closed) && failure.contains("within 300 ms"), "{failure}");
    assert!(failure.contains("worker 2"), "{failure}");
}

#[test]
fn an_executor_that_has_not_come_up_is_tried_again_and_one_that_refuses_is_not() {
    let sunk = Sunk::new();
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers);
    let mut cluster = Cluster::start(1, built, |_| {});
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    cluster.others = vec![flott_schema::control::WorkerHost { worker: WorkerId(2), data_address: address }];
    let replies = [HandshakeReply::NotYet("soon".into()), HandshakeReply::Refused("never".into())];
    let played = std::thread::spawn(move || {
        for reply in replies {
            let (mut stream, _) = port.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            stream.read_exact(&mut vec![0; u32::from_le_bytes(length) as usize]).unwrap();
            let message = to_bytes(&reply).unwrap();
            stream.write_all(&(message.len() as u32).to_le_bytes()).unwrap();
            stream.write_all(&message).unwrap();
        }
    });
    let (source, sink) = (cluster.vertex("numbers"), cluster.vertex("sunk"));
    let sources = cluster.place(&[source], 0, |_| None);
    cluster.place(&[sink], 0, |_| Some(WorkerId(2)));
    cluster.deploy(&sources);
    cluster.wait("a failure", |cluster| !cluster.failures(&sources).is_empty());
    let failure = &cluster.failures(&sources)[0];
    assert!(failure.contains("refuses: never"), "{failure}");
    played.join().unwrap();
}

#[test]
fn an_executor_that_is_not_named_is_an_error_and_starts_nothing() {
    let sunk = Sunk::new();
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers);
    let mut cluster = Cluster::start(1, built, |_| {});
    let (source, sink) = (cluster.vertex("numbers"), cluster.vertex("sunk"));
    let sources = cluster.place(&[source], 0, |_| None);
    cluster.place(&[sink], 0, |_| Some(WorkerId(2)));
    cluster.deploy(&sources);
    cluster.wait_for_end(&sources);
    assert!(cluster.failures(&sources)[0].contains("where worker 2 is reached"));
}

//! Apache Flink's own command line against our REST API.
//!
//! The client is fetched once into the cache (`scripts/lib/flink-client.sh`). Where Java or the network is missing, the test says
//! why it is left out.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use flott_coordinator::live::Silent;
use flott_coordinator::rest::{Options, Server, Services};
use flott_coordinator::{Coordinator, InMemoryLink, JobState};
use flott_schema::graph::{ExecutionMode, JobGraph, OperatorSpec, Vertex};
use flott_schema::ids::{JobId, OperatorId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::stats::WorkerProfile;

/// Exit code of the script where the client cannot run on this machine.
const LEFT_OUT: i32 = 77;

fn flink(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/flink-client.sh");
    Command::new(script).args(arguments).output().expect("the script can be run")
}

/// A job of one vertex.
fn spec(name: &str) -> JobSpec {
    let id = OperatorId::of_uid("source");
    let vertex = Vertex {
        id: id.into(),
        name: "Source".into(),
        operators: vec![OperatorSpec { id, uid: "source".into(), name: "Source".into() }],
        parallelism: 1,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        is_source: true,
    };
    JobSpec::embedded(JobGraph {
        name: name.into(),
        mode: ExecutionMode::Streaming,
        vertices: vec![vertex],
        edges: Vec::new(),
    })
}

#[test]
fn flink_list_and_flink_cancel_work() {
    let fetched = flink(&["fetch"]);
    if fetched.status.code() == Some(LEFT_OUT) {
        eprintln!("{}", String::from_utf8_lossy(&fetched.stderr));
        return;
    }
    assert!(fetched.status.success(), "{fetched:?}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let link = InMemoryLink::new();
    let (coordinator, handle) = Coordinator::new(flott_coordinator::Options::default(), link.clone());
    runtime.spawn(coordinator.run());
    let worker = WorkerId(1);
    let _orders = link.attach(worker, 100);
    let (running, waiting) = (JobId(0xabc), JobId(0xdef));
    runtime.block_on(async {
        handle.register_worker(worker, WorkerProfile { slots: 1, ..WorkerProfile::default() }).await.unwrap();
        handle.submit(running, spec("counts words")).await.unwrap();
        handle.submit(waiting, spec("waits for slots")).await.unwrap();
    });
    let silent = Arc::new(Silent);
    let services = Services::new(handle.clone(), silent.clone(), silent);
    let options = Options { bind_ports: vec![0], ..Options::default() };
    let server = Server::start(options, services).unwrap();
    let address = server.address().to_string();

    let run = |arguments: &[&str]| {
        let (command, rest) = arguments.split_at(1);
        let output = flink(&[&["run"], command, &["-m", &address], rest].concat());
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (ok, text) = run(&["list"]);
    assert!(ok, "{text}");
    assert!(text.contains(&format!("{running} : counts words (RUNNING)")), "{text}");
    assert!(text.contains(&waiting.to_string()), "{text}");

    let (ok, text) = run(&["cancel", &waiting.to_string()]);
    assert!(ok, "{text}");
    assert!(text.contains(&format!("Cancelled job {waiting}.")), "{text}");
    let state = runtime.block_on(handle.status(waiting)).unwrap().state();
    assert_eq!(state, JobState::Canceled);

    let (ok, text) = run(&["cancel", &JobId(0x123).to_string()]);
    assert!(!ok, "{text}");
    assert!(text.contains("not found"), "{text}");
    runtime.block_on(server.stop());
}

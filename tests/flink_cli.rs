//! Apache Flink's own command line against a cluster of real processes.
//!
//! The client is fetched once into the cache (`scripts/lib/flink-client.sh`). Where Java or the network is missing, the test says
//! why it is left out.

mod cluster_support;
mod process;

use std::path::Path;
use std::process::Command;

use cluster_support::Cluster;
use process::{Ended, example_text, run};

/// Exit code of the script where the client cannot run on this machine.
const LEFT_OUT: i32 = 77;

fn flink(arguments: &[&str]) -> Ended {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/flink-client.sh");
    run(Command::new(script).args(arguments))
}

#[test]
fn flink_list_and_flink_cancel_work() {
    let fetched = flink(&["fetch"]);
    if fetched.code == Some(LEFT_OUT) {
        eprintln!("{}", fetched.stderr);
        return;
    }
    fetched.succeeded();

    let cluster = Cluster::start(1);
    let program = [example_text("test_job"), "endless".into()];
    let program = program.each_ref().map(String::as_str);
    let running = cluster.submit(&["-p", "2"], &program);
    cluster.wait_for(&running, "RUNNING");
    // Both slots are taken.
    let waiting = cluster.submit(&["-p", "2"], &program);
    let call = |command: &str, arguments: &[&str]| {
        let ended = flink(&[&["run", command, "-m", &cluster.address], arguments].concat());
        (ended.code == Some(0), ended.stdout + &ended.stderr)
    };
    let name = "test job";
    let (ok, text) = call("list", &[]);
    assert!(ok, "{text}");
    assert!(text.contains(&format!("{running} : {name} (RUNNING)")), "{text}");
    assert!(text.contains(&waiting), "{text}");

    for job in [&waiting, &running] {
        let (ok, text) = call("cancel", &[job]);
        assert!(ok, "{text}");
        assert!(text.contains(&format!("Cancelled job {job}.")), "{text}");
        cluster.wait_for(job, "CANCELED");
    }
    let (ok, text) = call("list", &["-a"]);
    assert!(ok, "{text}");
    assert!(text.contains(&format!("{running} : {name} (CANCELED)")), "{text}");

    let (ok, text) = call("cancel", &[&"0".repeat(32)]);
    assert!(!ok, "{text}");
    assert!(text.contains("not found"), "{text}");
    cluster.stop();
}

#[test]
fn flink_savepoint_flink_checkpoint_and_flink_stop_work() {
    let fetched = flink(&["fetch"]);
    if fetched.code == Some(LEFT_OUT) {
        eprintln!("{}", fetched.stderr);
        return;
    }
    fetched.succeeded();

    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let savepoints = folder.path().join("savepoints").display().to_string();
    let checkpoints = format!("execution.checkpointing.dir={}", folder.path().join("checkpoints").display());
    let program = [example_text("test_job"), "endless".into()];
    let program = program.each_ref().map(String::as_str);
    let job = cluster.submit(&["-p", "2", "-D", &checkpoints], &program);
    cluster.wait_for(&job, "RUNNING");
    let call = |command: &str, arguments: &[&str]| {
        let ended = flink(&[&["run", command, "-m", &cluster.address], arguments].concat());
        (ended.code == Some(0), ended.stdout + &ended.stderr)
    };

    let (ok, text) = call("savepoint", &[&job, &savepoints]);
    assert!(ok && text.contains("Savepoint completed. Path:"), "{text}");
    let path = text.lines().find_map(|line| line.split("Path:").nth(1)).unwrap().trim().to_string();
    assert!(path.starts_with(&format!("{savepoints}/savepoint-{}-", &job[..6])), "{path}");
    assert!(Path::new(&path).join("_metadata").exists());

    // Where nothing can be written.
    let (ok, text) = call("savepoint", &[&job, "/proc/nothing"]);
    assert!(!ok && text.contains("SnapshotFailed: its manifest: /proc/nothing"), "{text}");

    let (ok, text) = call("checkpoint", &[&job]);
    assert!(ok && text.contains("completed"), "{text}");

    let (ok, text) = call("savepoint", &["-d", &path]);
    assert!(ok && text.contains("disposed"), "{text}");
    assert!(!Path::new(&path).exists());

    let (ok, text) = call("stop", &["--savepointPath", &savepoints, &job]);
    assert!(ok && text.contains("Savepoint completed. Path:"), "{text}");
    cluster.wait_for(&job, "FINISHED");
    assert_eq!(std::fs::read_dir(&savepoints).unwrap().count(), 1);
    cluster.stop();
}

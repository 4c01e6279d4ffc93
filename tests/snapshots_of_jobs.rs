//! Snapshots of a job in a cluster of real processes, as its coordinator sees them: it takes checkpoints, is killed and goes on,
//! rescales the job and stops it behind a savepoint.

mod cluster_support;
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use cluster_support::{Cluster, http_get, kill};
use process::{example_text, run};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

fn get(cluster: &Cluster, path: &str) -> Option<Value> {
    let answer = http_get(&cluster.address, path);
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Waits until the checkpoints of a job are as they should be.
fn checkpoints(cluster: &Cluster, job: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let found = get(cluster, &format!("/jobs/{job}/checkpoints"));
        if let Some(found) = found.as_ref().filter(|found| is_so(found)) {
            return found.clone();
        }
        assert!(began.elapsed() < DEADLINE, "the checkpoints of the job are {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn completed(found: &Value) -> u64 {
    found["counts"]["completed"].as_u64().unwrap_or(0)
}

#[test]
fn checkpoints_go_on_behind_a_killed_coordinator_and_the_job_is_rescaled_and_stopped() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let directory = format!("execution.checkpointing.dir={}", path("checkpoints"));
    let flags = ["-p", "1", "-D", &directory, "-D", "execution.checkpointing.interval=50ms"];
    let program = [example_text("test_job"), "endless".into()];
    let job = cluster.submit(&flags, &program.each_ref().map(String::as_str));
    cluster.wait_for(&job, "RUNNING");
    let before = checkpoints(&cluster, &job, |found| completed(found) >= 3);
    let last_id = before["latest"]["completed"]["id"].as_u64().unwrap();

    kill(cluster.process("coordinator-1"));
    cluster.script("coordinator.sh", &["start"]).succeeded();
    let after = checkpoints(&cluster, &job, |found| completed(found) >= completed(&before) + 3);
    assert!(after["latest"]["completed"]["id"].as_u64().unwrap() > last_id, "no id is given twice: {after}");
    assert_eq!(after["counts"]["restored"], 0, "the tasks have noticed nothing");

    let rescaled = run(&mut cluster.flott(&["rescale", &job, "-p", "2"])).succeeded();
    assert!(rescaled.contains("1 -> 2 tasks"), "{rescaled}");
    let found = get(&cluster, &format!("/jobs/{job}")).unwrap();
    assert_eq!(found["vertices"][0]["parallelism"], 2);
    let now = checkpoints(&cluster, &job, |found| found["latest"]["completed"]["num_subtasks"] == 2);
    assert_eq!(now["counts"]["restored"], 1, "it has gone on from the checkpoint that was taken for it");
    let metrics = get(&cluster, &format!("/jobs/{job}/metrics?get=numRestarts")).unwrap();
    assert_eq!(metrics[0]["value"], "0");

    // More than there are slots: it stays as it is.
    let refused = run(&mut cluster.flott(&["rescale", &job, "-p", "3"]));
    assert!(refused.code == Some(1) && refused.stderr.contains("it would need 3 slots"), "{refused:?}");

    run(&mut cluster.flott(&["stop", &job, "--savepoint-path", &path("savepoints")])).succeeded();
    cluster.wait_for(&job, "FINISHED");
    let savepoints: Vec<_> =
        std::fs::read_dir(path("savepoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(savepoints.len() == 1 && savepoints[0].join("_metadata").exists(), "{savepoints:?}");
    let began = Instant::now();
    while Path::new(&path("checkpoints")).join(&job).exists() {
        assert!(began.elapsed() < DEADLINE, "the checkpoints of a job that has finished stay");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.stop();
}

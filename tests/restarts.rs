//! What people see of failures and restarts, and how they go on after the end.

mod cluster_support;
mod process;

use cluster_support::{Cluster, http_get, kill};
use process::{Started, example_text, flott, run};
use serde_json::Value;

const FIXED_DELAY: [&str; 4] =
    ["-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.delay=1ms"];

#[test]
fn each_restart_is_told_while_the_job_runs_here() {
    let program = [example_text("test_job"), "panic".into()];
    let program = program.each_ref().map(String::as_str);
    let attempts = ["-D", "restart-strategy.fixed-delay.attempts=2"];
    let arguments = [&["run", "-p", "1"], &FIXED_DELAY[..], &attempts, &program].concat();
    let said = run(&mut flott(&arguments)).failed_with(1);
    let told = said.lines().filter(|line| line.starts_with("failure: ") && line.contains("no rule for 500"));
    assert_eq!(told.filter(|line| line.ends_with("the job is restarted")).count(), 2, "{said}");
}

#[test]
fn who_waits_for_a_job_of_a_cluster_is_told_what_it_goes_on_from_and_info_lists_what_it_can_go_back_to() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let directory = format!("execution.checkpointing.dir={}", folder.path().display());
    let checkpoints = ["-D", &directory, "-D", "execution.checkpointing.interval=50ms"];
    let retained = ["-D", "execution.checkpointing.num-retained=2"];
    let program = [example_text("test_job"), "endless".into()];
    let program = program.each_ref().map(String::as_str);
    let arguments = [&["run", "-p", "1"], &FIXED_DELAY[..], &checkpoints, &retained, &program].concat();
    let waiting = Started::new(&mut cluster.flott(&arguments));
    cluster.until("the job is not there", |cluster| !cluster.jobs().is_empty());
    let job = cluster.jobs()[0]["jid"].as_str().unwrap().to_string();
    cluster.wait_for(&job, "RUNNING");
    let count = |which: &str| -> u64 {
        let answer = http_get(&cluster.address, &format!("/jobs/{job}/checkpoints"));
        let body: Option<Value> =
            answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        body.and_then(|body| body["counts"][which].as_u64()).unwrap_or(0)
    };
    cluster.until("no checkpoints are taken", |_| count("completed") >= 3);
    cluster.executors().into_iter().for_each(kill);
    cluster.until("the job does not go on", |_| count("restored") == 1);
    cluster.wait_for(&job, "RUNNING");

    let info = run(&mut cluster.flott(&["info", &job])).succeeded();
    let listed = info.lines().filter(|line| line.contains(" checkpoint, ") && line.contains("/chk-"));
    let listed: Vec<&str> = listed.collect();
    // The older one may go while it is looked at.
    assert!(listed.len() == 2 && !listed[0].contains(", gone"), "{info}");

    run(&mut cluster.flott(&["cancel", &job])).succeeded();
    let said = waiting.wait().stderr;
    assert!(
        said.lines().any(|line| line.starts_with("failure: ") && line.ends_with("the job is restarted")),
        "{said}"
    );
    assert_eq!(said.matches("the job goes on from snapshot ").count(), 1, "{said}");

    // Of a job that has failed it is said how to go on, or that nothing is left.
    let failing = [example_text("test_job"), "panic".into()];
    let job = cluster.submit(&["-p", "1"], &failing.each_ref().map(String::as_str));
    cluster.wait_for(&job, "FAILED");
    let info = run(&mut cluster.flott(&["info", &job])).succeeded();
    assert!(info.contains("no snapshot of it is left"), "{info}");
    cluster.stop();
}

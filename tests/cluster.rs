//! A cluster of real processes, as a team uses it: started through the scripts, asked through the command line, and hurt.

mod cluster_support;
mod process;

use std::process::{Command, Stdio};

use cluster_support::{Cluster, http_get, kill};
use process::{Started, example_text, flott, run};
use serde_json::Value;

const FAST_RESTART: &[&str] = &[
    "-D",
    "restart-strategy.type=fixed-delay",
    "-D",
    "restart-strategy.fixed-delay.attempts=10",
    "-D",
    "restart-strategy.fixed-delay.delay=100 ms",
];

/// A job without end.
fn endless() -> [String; 2] {
    [example_text("test_job"), "endless".into()]
}

fn submit_endless(cluster: &Cluster, flags: &[&str]) -> String {
    let [program, how] = endless();
    let job = cluster.submit(flags, &[&program, &how]);
    cluster.wait_for(&job, "RUNNING");
    job
}

/// What a summary says of the records of each vertex. What the first one hands on depends on who read which file.
fn records(summary: &Value) -> Vec<[Value; 4]> {
    let vertices = summary["vertices"].as_array().unwrap().iter().enumerate();
    let of_vertex = |(index, vertex): (usize, &Value)| {
        let records = if index == 0 { "records_in" } else { "records_out" };
        ["name", "tasks", "source_records", records].map(|number| vertex[number].clone())
    };
    vertices.map(of_vertex).collect()
}

#[test]
fn words_counted_on_two_workers_are_those_of_the_embedded_cluster() {
    let cluster = Cluster::start(2);
    let folder = tempfile::tempdir().unwrap();
    let docs = format!("{}/docs", env!("CARGO_MANIFEST_DIR"));
    let count = |command: &mut dyn FnMut(&[&str]) -> Command, name: &str| {
        let file = folder.path().join(name);
        let program = example_text("word_count");
        let output = file.to_str().unwrap();
        let arguments = ["run", "--json", "-p", "4", &program, "--input", &docs, "--output", output];
        let ended = run(&mut command(&arguments));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let summary: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        (std::fs::read_to_string(file).unwrap(), summary, ended.stderr)
    };
    let (embedded, summary, _) = count(&mut |arguments| flott(arguments), "embedded");
    let (counted, cluster_summary, stderr) = count(&mut |arguments| cluster.flott(arguments), "cluster");
    assert!(embedded.lines().count() > 100, "{embedded}");
    assert_eq!(counted, embedded);
    // The job may be over before anyone has asked how it does: its last numbers count.
    assert_eq!(records(&cluster_summary), records(&summary));
    assert!(summary["source_records"].as_u64() > Some(100), "{summary}");
    let [words, counts, _] = cluster_summary["vertices"].as_array().unwrap().as_slice() else {
        panic!("three vertices: {cluster_summary}")
    };
    assert_eq!(counts["records_in"], words["records_out"]);
    assert!(
        stderr.contains("uploading word_count") && stderr.contains("job 'word count' finished in"),
        "{stderr}"
    );
    // The cluster has the program now.
    let (again, _, stderr) = count(&mut |arguments| cluster.flott(arguments), "again");
    assert_eq!(again, embedded);
    assert!(!stderr.contains("uploading"), "{stderr}");
    assert_eq!(cluster.jobs().len(), 2);
    cluster.until("executors outlive their jobs", |cluster| cluster.executors().is_empty());
    cluster.stop();
}

#[test]
fn jobs_are_listed_shown_and_cancelled_by_the_beginning_of_their_id() {
    let cluster = Cluster::start(1);
    let job = submit_endless(&cluster, &["-n", "numbers"]);
    let listed = run(&mut cluster.flott(&["list"])).succeeded();
    assert!(listed.contains(&job) && listed.contains("numbers") && listed.contains("RUNNING"), "{listed}");
    let shown = run(&mut cluster.flott(&["info", &job[..8]])).succeeded();
    assert!(shown.contains("Source: Numbers") && shown.contains("1 of 1"), "{shown}");
    let status = run(&mut cluster.flott(&["cluster", "status"])).succeeded();
    assert!(status.contains("slots     1 of 2 free"), "{status}");
    let mut other = job.clone();
    other.replace_range(6..8, "zz");
    let stderr = run(&mut cluster.flott(&["cancel", &other])).failed_with(1);
    assert!(stderr.contains(&format!("did you mean {job}")), "{stderr}");
    let cancelled = run(&mut cluster.flott(&["cancel", &job[..8]])).succeeded();
    assert!(cancelled.contains("has ended: CANCELED"), "{cancelled}");
    let stderr = run(&mut cluster.flott(&["cancel", &job])).failed_with(1);
    assert!(stderr.contains("has ended already: CANCELED"), "{stderr}");
    cluster.until("an executor outlives its job", |cluster| cluster.executors().is_empty());
    cluster.stop();
}

#[test]
fn prometheus_reads_the_numbers_of_a_running_task_from_its_worker() {
    let cluster = Cluster::start(1);
    let job = submit_endless(&cluster, &[]);
    let log = cluster.log("worker-1");
    let (_, address) = log.split_once("metrics for Prometheus: http://").expect("a port for metrics");
    let address = address.split('/').next().unwrap();
    let records = |series: &str| {
        let text = http_get(address, "/metrics");
        let of_job = |line: &&str| line.starts_with(&format!("{series}{{")) && line.contains(&job);
        let values = text.lines().filter(of_job).filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
        values.fold(0.0, f64::max)
    };
    for series in ["numRecordsOut", "numRecordsOutPerSecond"] {
        let series = format!("flink_taskmanager_job_task_operator_{series}");
        cluster.until(&series, |_| records(&series) > 0.0);
    }
    cluster.until("no memory", |_| records("flott_executor_resident_bytes") > 0.0);
    let leader = http_get(&cluster.address, "/metrics");
    assert!(
        leader.contains("flink_jobmanager_job_numRunningTasks") && !leader.contains("job_task_"),
        "{leader}"
    );
    run(&mut cluster.flott(&["cancel", &job])).succeeded();
    cluster.until("a job leaves its numbers behind", |_| !http_get(address, "/metrics").contains(&job));
    cluster.stop();
}

#[test]
fn what_is_no_job_is_refused_with_the_reason() {
    let cluster = Cluster::start(1);
    let stderr = run(&mut cluster.flott(&["run", "sh", "-c", "exit 0"])).failed_with(1);
    assert!(stderr.contains("ended without submitting a job"), "{stderr}");
    let stderr = run(&mut cluster.flott(&["run", &example_text("test_job"), "panic"])).failed_with(1);
    assert!(stderr.starts_with("uploading test_job"), "{stderr}");
    assert!(
        stderr.contains("Error: user code: job 'test job' failed: task 'Source: Sequence -> Rules"),
        "{stderr}"
    );
    assert!(stderr.contains("no rule for 500") && stderr.contains("test_job::rule"), "{stderr}");
    assert_eq!(cluster.jobs().len(), 1);
    cluster.stop();
}

#[test]
fn ctrl_c_cancels_an_attached_job() {
    let cluster = Cluster::start(1);
    let [program, how] = endless();
    let job = Started::new(&mut cluster.flott(&["run", &program, &how]));
    cluster.until("the job is not there", |cluster| {
        cluster.jobs().first().is_some_and(|job| job["tasks"]["running"] == 1)
    });
    job.signal_group(libc::SIGINT);
    let stderr = job.wait().failed_with(1);
    assert!(stderr.ends_with("Error: cancelled: job 'test job' was cancelled\n"), "{stderr}");
    assert_eq!(cluster.jobs()[0]["state"], "CANCELED");
    cluster.stop();
}

#[test]
fn a_killed_executor_fails_the_job_or_restarts_it_as_the_strategy_says() {
    let cluster = Cluster::start(1);
    let job = submit_endless(&cluster, &[]);
    let [executor] = cluster.executors()[..] else { panic!("one executor: {:?}", cluster.processes()) };
    kill(executor);
    cluster.wait_for(&job, "FAILED");
    let shown = run(&mut cluster.flott(&["info", &job])).succeeded();
    assert!(shown.contains("executor ended by signal 9 (SIGKILL)"), "{shown}");
    let job = submit_endless(&cluster, FAST_RESTART);
    let [executor] = cluster.executors()[..] else { panic!("one executor: {:?}", cluster.processes()) };
    kill(executor);
    cluster.until("no new executor", |cluster| {
        !cluster.executors().is_empty() && !cluster.executors().contains(&executor)
    });
    cluster.wait_for(&job, "RUNNING");
    run(&mut cluster.flott(&["cancel", &job])).succeeded();
    cluster.stop();
}

#[test]
fn the_executors_of_a_killed_worker_end_and_the_job_goes_on_elsewhere() {
    let cluster = Cluster::start(2);
    let job = submit_endless(&cluster, &[FAST_RESTART, &["-p", "2"]].concat());
    let before = cluster.executors();
    // Whichever worker has tasks is hit; the other has slots enough for all.
    for worker in ["worker-1", "worker-2"] {
        kill(cluster.process(worker));
        cluster.until("an executor outlives its worker", |cluster| {
            cluster.executors().iter().all(|executor| !before.contains(executor))
                || cluster.executors().len() < before.len()
        });
        if worker == "worker-1" {
            cluster.wait_for(&job, "RUNNING");
            break;
        }
    }
    run(&mut cluster.flott(&["cancel", &job])).succeeded();
    cluster.stop();
}

#[test]
fn a_job_goes_on_without_its_coordinator_which_takes_it_over_when_it_comes_back() {
    let cluster = Cluster::start(1);
    let job = submit_endless(&cluster, &[]);
    let executors = cluster.executors();
    kill(cluster.process("coordinator-1"));
    assert_eq!(cluster.executors(), executors);
    let said = cluster.script("coordinator.sh", &["start"]).succeeded();
    assert!(said.contains("REST API: http://"), "{said}");
    cluster.wait_for(&job, "RUNNING");
    run(&mut cluster.flott(&["cluster", "status", "--wait", "1"])).succeeded();
    assert_eq!(cluster.executors(), executors, "the tasks have noticed");
    run(&mut cluster.flott(&["cancel", &job])).succeeded();
    cluster.stop();
}

#[test]
fn scripts_are_idempotent_and_say_what_they_want() {
    let cluster = Cluster::start(1);
    let said = cluster.script("start-cluster.sh", &[]).succeeded();
    assert!(said.contains("coordinator 1 runs already") && said.contains("worker 1 runs already"), "{said}");
    for script in ["start-cluster.sh", "stop-cluster.sh", "coordinator.sh", "worker.sh"] {
        let help = cluster.script(script, &["--help"]).succeeded();
        assert!(help.contains(&format!("usage: scripts/{script}")), "{help}");
    }
    let stderr = cluster.script("worker.sh", &["begin"]).failed_with(2);
    assert!(stderr.contains("'begin'"), "{stderr}");
    cluster.script("stop-cluster.sh", &[]).succeeded();
    let said = cluster.script("stop-cluster.sh", &[]).succeeded();
    assert!(!said.contains("ended (process"), "{said}");
    cluster.stop();
}

#[test]
fn a_start_that_fails_says_why_and_stops_what_it_has_started() {
    let cluster = Cluster::prepare(2);
    let open = ["-D", "worker.bind-host=0.0.0.0"];
    let stderr = cluster.script("start-cluster.sh", &open).failed_with(1);
    assert!(stderr.contains("security.token") && stderr.contains("worker 1 has ended"), "{stderr}");
    cluster.until("something is left", |cluster| cluster.processes().is_empty());
    assert!(!cluster.pid_file("worker-1").exists() && !cluster.pid_file("coordinator-1").exists());

    // What ran before is left alone.
    cluster.script("coordinator.sh", &["start"]).succeeded();
    let coordinator = cluster.process("coordinator-1");
    let stderr = cluster.script("start-cluster.sh", &open).failed_with(1);
    assert!(stderr.contains("worker 1 has ended"), "{stderr}");
    cluster.until("the workers are left", |cluster| cluster.processes().len() == 1);
    assert_eq!(cluster.process("coordinator-1"), coordinator);
    cluster.script("start-cluster.sh", &[]).succeeded();
    assert_eq!(cluster.process("coordinator-1"), coordinator);
    cluster.stop();
}

#[test]
fn a_coordinator_that_does_not_start_is_named_with_its_reason() {
    let cluster = Cluster::prepare(1);
    let stderr = cluster.script("start-cluster.sh", &["-D", "rest.bind-address=0.0.0.0"]).failed_with(1);
    assert!(stderr.contains("rest.bind-address") && stderr.contains("coordinator 1 has ended"), "{stderr}");
    cluster.until("something is left", |cluster| cluster.processes().is_empty());
    cluster.stop();
}

#[test]
fn a_process_that_got_the_number_of_an_ended_one_is_left_alone() {
    let cluster = Cluster::start(1);
    cluster.script("worker.sh", &["stop"]).succeeded();
    // It waits for a line that never comes, and has our words in its command line.
    let mut other = Command::new("bash")
        .args(["-c", "read -r _", "flott", "worker"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::write(cluster.pid_file("worker-1"), other.id().to_string()).unwrap();
    let said = cluster.script("worker.sh", &["stop"]).succeeded();
    assert!(said.contains("worker 1 does not run"), "{said}");
    assert!(other.try_wait().unwrap().is_none(), "it was ended");
    std::fs::write(cluster.pid_file("worker-1"), other.id().to_string()).unwrap();
    let said = cluster.script("start-cluster.sh", &[]).succeeded();
    assert!(said.contains("worker 1 started"), "{said}");
    other.kill().unwrap();
    other.wait().unwrap();
    cluster.stop();
}

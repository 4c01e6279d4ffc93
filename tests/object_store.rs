//! Snapshots in a bucket of a real S3 server, of jobs in a cluster of real processes. Where the server cannot be had, the test says
//! why it is left out.

mod cluster_support;
mod process;
mod s3_server;

use std::path::Path;
use std::process::Command;

use cluster_support::{Cluster, http_get, kill};
use process::{example_text, run};
use s3_server::S3Server;
use serde_json::Value;

/// What a command prints as JSON.
fn json(mut command: Command) -> Value {
    let stdout = run(&mut command).succeeded();
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// The lines of all visible files below a folder: a number and how many of its last digit there were.
fn committed(folder: &Path) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            pairs.extend(committed(&path));
        } else if !entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            let text = std::fs::read_to_string(&path).unwrap();
            let pair = |line: &str| {
                let (number, count) = line.split_once(' ').unwrap();
                (number.parse().unwrap(), count.parse().unwrap())
            };
            pairs.extend(text.lines().map(pair));
        }
    }
    pairs
}

/// Objects whose keys begin with that of a folder.
fn objects(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { objects(&entry.path()) } else { 1 }).sum()
}

fn checkpoints_of(cluster: &Cluster, job: &str) -> Value {
    let answer = http_get(&cluster.address, &format!("/jobs/{job}/checkpoints"));
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_job_survives_its_executor_and_goes_on_from_its_savepoint_with_all_snapshots_in_a_bucket() {
    let Some(server) = S3Server::start(Path::new(env!("CARGO_MANIFEST_DIR"))) else { return };
    let keys = server.flags();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let cluster = Cluster::prepare(2);
    cluster.script("start-cluster.sh", &keys).succeeded();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (first, second) = (path("first"), path("second"));
    let program = example_text("test_job");
    let every = ["-D", "execution.checkpointing.interval=300 ms"];
    let place = ["-D", "execution.checkpointing.dir=s3a://bucket/checkpoints"];

    // The client has no keys: the cluster knows how its storage is reached.
    let flags = [&every[..], &place, &["-p", "2"]].concat();
    let job = cluster.submit(&flags, &[&program, "counted", &first]);
    cluster.wait_for(&job, "RUNNING");
    cluster.until("nothing is committed", |_| !committed(Path::new(&first)).is_empty());
    let executors = cluster.executors();
    kill(executors[0]);
    cluster.until("it has not started again", |cluster| {
        checkpoints_of(cluster, &job)["latest"]["restored"]["external_path"].is_string()
    });
    let known = checkpoints_of(&cluster, &job);
    let restored = known["latest"]["restored"]["external_path"].as_str().unwrap();
    assert!(restored.starts_with("s3a://bucket/checkpoints/") || restored.starts_with("s3://"), "{restored}");
    cluster.wait_for(&job, "RUNNING");
    let before = committed(Path::new(&first)).len();
    cluster.until("nothing more is committed", |_| committed(Path::new(&first)).len() > before);

    let taken = json(cluster.flott(&["savepoint", "--json", &job, "s3://bucket/savepoints"]));
    let kept = taken["savepoint"].as_str().unwrap();
    assert!(kept.starts_with("s3://bucket/savepoints/savepoint-"), "{kept}");
    let inspect = [&["savepoint", "inspect", "--json", "--state", "--verify"], &keys[..], &[kept]].concat();
    let seen = json(cluster.flott(&inspect));
    assert_eq!(seen["path"], kept);
    let operators =
        seen["vertices"].as_array().unwrap().iter().flat_map(|vertex| vertex["operators"].as_array());
    let counts = operators.flatten().find(|operator| operator["uid"] == "counts").unwrap();
    assert!(
        counts["state"]["tables"].as_array().unwrap().iter().any(|table| table["count"] == 10),
        "{counts}"
    );

    let stopped = json(cluster.flott(&["stop", "--json", "-p", "s3://bucket/savepoints", &job]));
    assert_eq!(stopped["state"], "FINISHED", "{stopped}");
    let savepoint = stopped["savepoint"].as_str().unwrap();
    // Checkpoints go with the job; savepoints stay.
    let checkpoints = server.object("checkpoints");
    cluster.until("checkpoints are left", |_| objects(&checkpoints) == 0);

    let flags = [&every[..], &place, &keys, &["-p", "1", "-s", savepoint]].concat();
    let job = cluster.submit(&flags, &[&program, "counted", &second]);
    cluster.wait_for(&job, "RUNNING");
    cluster.until("nothing more is committed", |_| !committed(Path::new(&second)).is_empty());
    let stopped = json(cluster.flott(&["stop", "--json", "-p", "s3://bucket/savepoints", &job]));
    assert_eq!(stopped["state"], "FINISHED", "{stopped}");

    let mut all = committed(Path::new(&first));
    all.extend(committed(Path::new(&second)));
    for digit in 0..10 {
        let mut of_digit: Vec<(u64, u64)> = all.iter().filter(|(n, _)| n % 10 == digit).copied().collect();
        of_digit.sort_unstable();
        let expected = (0..of_digit.len() as u64).map(|at| (10 * at + digit, at + 1));
        let wrong = of_digit.iter().copied().zip(expected).find(|(is, should)| is != should);
        assert!(wrong.is_none() && of_digit.len() > 3, "lost, repeated or counted wrongly: {wrong:?}");
    }

    let name = kept.trim_start_matches("s3://bucket/");
    assert!(server.object(name).join("_metadata").exists());
    let disposed = json(cluster.flott(&["savepoint", "dispose", "--json", kept]));
    assert!(disposed["disposed"].is_string());
    assert_eq!(objects(&server.object(name)), 0);

    // What cannot be reached is refused where it is submitted.
    for (key, place) in
        [("execution.checkpointing.dir", "hdfs://host/a"), ("execution.checkpointing.dir", "gs://b/a")]
    {
        let pair = format!("{key}={place}");
        let refused = run(&mut cluster.flott(&["run", "-d", "-D", &pair, &program, "counted", &first]));
        let text = refused.failed_with(1);
        assert!(text.contains(key) && text.contains("there are plain paths and file://, s3://"), "{text}");
    }
    let jobs = cluster.jobs().len();
    assert_eq!(jobs, 2, "nothing of them was submitted");
    cluster.stop();
}

//! Savepoints, stop, rescaling and starting from a snapshot, by the command line, in a cluster of real processes.

mod cluster_support;
mod process;

use std::path::Path;
use std::process::Command;

use cluster_support::Cluster;
use process::{example_text, run};
use serde_json::Value;

/// What a command prints as JSON.
fn json(mut command: Command) -> Value {
    let stdout = run(&mut command).succeeded();
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// The lines of all files below a folder, as pairs of numbers: those that a reader of committed files sees.
fn committed(folder: &Path) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            pairs.extend(committed(&path));
        } else if !name.starts_with(['.', '_']) {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let (number, count) = line.split_once(' ').unwrap();
                pairs.push((number.parse().unwrap(), count.parse().unwrap()));
            }
        }
    }
    pairs
}

fn is_empty(folder: &Path) -> bool {
    !folder.exists() || committed(folder).is_empty()
}

#[test]
fn a_job_goes_on_from_its_savepoint_at_other_parallelisms_and_loses_or_repeats_nothing() {
    let cluster = Cluster::start(2);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (first, second, savepoints) = (path("first"), path("second"), path("savepoints"));
    let program = example_text("test_job");
    let every = ["-D", "execution.checkpointing.interval=300 ms"];

    let job = cluster.submit(&[&every[..], &["-p", "2"]].concat(), &[&program, "counted", &first]);
    cluster.wait_for(&job, "RUNNING");
    let checkpoint = json(cluster.flott(&["checkpoint", "--json", &job]));
    assert!(checkpoint["checkpoint"].as_u64() > Some(0), "{checkpoint}");
    cluster.until("nothing is committed", |_| !is_empty(Path::new(&first)));

    let taken = json(cluster.flott(&["savepoint", "--json", &job, &savepoints]));
    let kept = taken["savepoint"].as_str().unwrap().to_string();
    let seen = json(cluster.flott(&["savepoint", "inspect", "--json", "--state", "--verify", &kept]));
    assert_eq!(seen["kind"], "canonical savepoint");
    let operators =
        seen["vertices"].as_array().unwrap().iter().flat_map(|vertex| vertex["operators"].as_array());
    let counts = operators.flatten().find(|operator| operator["uid"] == "counts").unwrap();
    let tables = counts["state"]["tables"].as_array().unwrap();
    // Ten last digits, each with the last number and the count.
    assert!(
        tables.iter().any(|table| table["count"] == 10 && table["entries"][0]["value"].is_array()),
        "{counts}"
    );

    let stopped = json(cluster.flott(&["stop", "--json", "-p", &savepoints, &job]));
    assert_eq!(stopped["state"], "FINISHED", "{stopped}");
    let savepoint = stopped["savepoint"].as_str().unwrap();
    let before = committed(Path::new(&first)).len();

    let flags = [&every[..], &["-p", "1", "-s", savepoint]].concat();
    let job = cluster.submit(&flags, &[&program, "counted", &second]);
    cluster.wait_for(&job, "RUNNING");
    // More tasks than key groups; the job goes on as it was.
    let refused =
        run(&mut cluster.flott(&["rescale", "-p", "3", "--vertex", "counts=500", &job])).failed_with(1);
    assert!(refused.contains("500"), "{refused}");
    let rescaled = json(cluster.flott(&["rescale", "--json", "-p", "2", &job]));
    assert_eq!(rescaled["vertices"][1]["parallelism"], 2, "{rescaled}");
    cluster.wait_for(&job, "RUNNING");
    cluster.until("nothing more is committed", |_| !is_empty(Path::new(&second)));
    let stopped = json(cluster.flott(&["stop", "--json", "-p", &savepoints, &job]));
    assert_eq!(stopped["state"], "FINISHED", "{stopped}");

    let mut all = committed(Path::new(&first));
    all.extend(committed(Path::new(&second)));
    assert!(all.len() > before && before > 0, "{} after {before}", all.len());
    for digit in 0..10 {
        let mut of_digit: Vec<(u64, u64)> = all.iter().filter(|(n, _)| n % 10 == digit).copied().collect();
        of_digit.sort_unstable();
        let expected: Vec<(u64, u64)> =
            (0..of_digit.len() as u64).map(|at| (10 * at + digit, at + 1)).collect();
        let wrong = of_digit.iter().zip(&expected).find(|(is, should)| is != should);
        assert!(wrong.is_none(), "lost, repeated or counted wrongly: {wrong:?}");
        assert!(of_digit.len() > 3, "{of_digit:?}");
    }

    // A program that has no operator for the state is refused where it is submitted.
    let other = ["run", "-d", "-s", savepoint, &program, "wide"];
    let refused = run(&mut cluster.flott(&other)).failed_with(1);
    assert!(refused.contains("(uid counts)") && refused.contains("--allow-non-restored-state"), "{refused}");

    // So is one that starts from what is not there, also where nobody waits for its end.
    let missing = path("no-savepoint");
    let refused = ["run", "-d", "-s", &missing, &program, "counted", &second];
    let refused = run(&mut cluster.flott(&refused)).failed_with(1);
    assert!(refused.contains(&missing) && refused.contains("there is no snapshot"), "{refused}");

    let disposed = json(cluster.flott(&["savepoint", "dispose", "--json", &kept]));
    assert!(disposed["disposed"].is_string());
    let kept = kept.trim_start_matches("file://").trim_start_matches("file:");
    assert!(!Path::new(kept).exists(), "{kept}");
    cluster.stop();
}

//! `flott run -s PATH --plan`, and the same check in front of a run.

mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use process::{Started, example_text, flott, run};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

/// The newest checkpoint that is complete below a folder.
fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let jobs = std::fs::read_dir(folder).ok()?.flatten();
    let checkpoints = jobs.filter_map(|job| std::fs::read_dir(job.path()).ok()).flatten().flatten();
    let complete = checkpoints.map(|entry| entry.path()).filter(|path| path.join("_metadata").exists());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("chk-")?.parse::<u64>().ok();
    complete.max_by_key(number)
}

/// A checkpoint of the job, which was cancelled then.
fn taken(folder: &Path) -> PathBuf {
    let checkpoints = folder.join("checkpoints");
    let directory = format!("execution.checkpointing.dir={}", checkpoints.display());
    let output = folder.join("output").display().to_string();
    let mut command = flott(&["run", "-p", "1", "-D", &directory]);
    for setting in ["interval=50ms", "externalized-checkpoint-retention=RETAIN_ON_CANCELLATION"] {
        command.args(["-D", &format!("execution.checkpointing.{setting}")]);
    }
    command.args([&example_text("test_job"), "counted", &output]);
    let job = Started::new(&mut command);
    let began = Instant::now();
    let committed = || std::fs::read_dir(&output).is_ok_and(|mut files| files.next().is_some());
    while !committed() || newest_checkpoint(&checkpoints).is_none() {
        assert!(began.elapsed() < DEADLINE, "no checkpoint was taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    job.signal(libc::SIGINT);
    job.wait();
    newest_checkpoint(&checkpoints).unwrap()
}

#[test]
fn a_plan_tells_the_fate_of_every_state_and_a_refused_change_is_refused_before_the_job_starts() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = taken(folder.path()).display().to_string();
    let program = example_text("test_job");
    let second = folder.path().join("second");
    let plan = |flags: &[&str], how: &str| {
        let arguments = [&["run", "-p", "1", "-s", &checkpoint, "--plan"], flags].concat();
        run(flott(&arguments).args([&program, how, &second.display().to_string()]))
    };

    let kept = plan(&[], "counted").succeeded();
    for part in [
        "operator 'Source: Numbers' (uid numbers)",
        "(uid counts)",
        "reduced",
        "enumerator",
        "the job can start",
    ] {
        assert!(kept.contains(part), "{part}: {kept}");
    }
    assert!(!kept.contains("migrated") && !kept.contains("after the job"), "{kept}");

    let migrated = plan(&["--json"], "counted-by-u128").succeeded();
    let migrated: Value = serde_json::from_str(&migrated).unwrap();
    let operators = migrated["plan"]["operators"].as_array().unwrap();
    let counts = operators.iter().find(|operator| operator["uid"] == "counts").unwrap();
    assert!(counts["keyed-bytes"].as_u64() > Some(0), "{counts}");
    let state = &counts["states"][0];
    assert_eq!(state["fate"], "migrated", "{state}");
    assert_eq!(state["details"][0], "1: u64 -> u128", "{state}");
    assert_eq!(migrated["refused"], Value::Array(Vec::new()));

    let refused = plan(&[], "counted-by-u8");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.contains("the job would be refused") && refused.stdout.contains("'1' was u64"),
        "{refused:?}"
    );
    // Nothing ran for any of these.
    assert!(!second.exists());

    let second = second.display().to_string();
    let started = ["run", "-p", "1", "-s", &checkpoint, &program, "counted-by-u8", &second];
    let refused = run(&mut flott(&started)).failed_with(1);
    assert!(refused.contains("state 'reduced' of operator") && refused.contains("'1' was u64"), "{refused}");
    assert!(!Path::new(&second).exists(), "it was refused before its tasks were opened");

    // Without the operator the state is refused, or dropped as it is said.
    let other = |flags: &[&str]| {
        let arguments = [&["run", "-s", &checkpoint, "--plan"], flags].concat();
        run(flott(&arguments).args([&program, "finish", "10"]))
    };
    let unclaimed = other(&[]);
    assert!(unclaimed.code == Some(1) && unclaimed.stdout.contains("(uid counts)"), "{unclaimed:?}");
    assert!(other(&["--allow-non-restored-state"]).succeeded().contains("dropped"));

    // A plan without a snapshot is no plan.
    run(flott(&["run", "--plan"]).args([&program, "finish", "10"])).failed_with(2);
}

//! Jobs that start from checkpoints of others: what would become of the states, and to whom the checkpoints belong afterwards.

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

/// A job that counts, with a checkpoint every moment, which stay when it is cancelled.
struct Counting {
    checkpoints: PathBuf,
    output: PathBuf,
    job: Started,
}

impl Counting {
    /// Starts it; its committed files go to the folder `name`.
    fn start(folder: &Path, name: &str, flags: &[&str]) -> Self {
        let checkpoints = folder.join(format!("{name}-checkpoints"));
        let output = folder.join(name);
        let mut command = flott(&["run", "-p", "1"]);
        for setting in [
            &format!("dir={}", checkpoints.display()),
            "interval=50ms",
            "incremental=true",
            "externalized-checkpoint-retention=RETAIN_ON_CANCELLATION",
        ] {
            command.args(["-D", &format!("execution.checkpointing.{setting}")]);
        }
        command.args(["-D", "state.backend.type=rocksdb"]).args(flags);
        command.args([&example_text("test_job"), "counted", &output.display().to_string()]);
        Counting { checkpoints, output, job: Started::new(&mut command) }
    }

    /// Waits until it has committed something, and is so.
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while committed(&self.output).is_empty() || !is_so() {
            assert!(began.elapsed() < DEADLINE, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cancels it and gives its last checkpoint.
    fn cancel(self) -> PathBuf {
        self.job.signal(libc::SIGINT);
        self.job.wait();
        newest_checkpoint(&self.checkpoints).expect("a checkpoint is left")
    }
}

/// The pairs of numbers in the committed files of a folder.
fn committed(folder: &Path) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            pairs.extend(committed(&path));
        } else if !name.to_string_lossy().starts_with(['.', '_']) {
            let text = std::fs::read_to_string(&path).unwrap();
            let pair = |line: &str| {
                line.split_once(' ').map(|(n, count)| (n.parse().unwrap(), count.parse().unwrap()))
            };
            pairs.extend(text.lines().map(|line| pair(line).unwrap()));
        }
    }
    pairs
}

#[test]
fn a_plan_tells_the_fate_of_every_state_and_a_refused_change_is_refused_before_the_job_starts() {
    let folder = tempfile::tempdir().unwrap();
    let job = Counting::start(folder.path(), "first", &[]);
    job.until("no checkpoint was taken", || newest_checkpoint(&job.checkpoints).is_some());
    let checkpoint = job.cancel().display().to_string();
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

#[test]
fn a_snapshot_stays_with_its_owner_or_goes_when_it_was_claimed_and_nothing_is_lost_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let from = |checkpoint: &Path| checkpoint.display().to_string();
    let first = Counting::start(place, "first", &[]);
    first.until("no checkpoint was taken", || newest_checkpoint(&first.checkpoints).is_some());
    let taken = first.cancel();
    let of_job = taken.parent().unwrap();

    // Not claimed: after the first checkpoint of the next job nothing of it is needed.
    let second = Counting::start(place, "second", &["-s", &from(&taken)]);
    second.until("no checkpoint was taken", || newest_checkpoint(&second.checkpoints).is_some());
    assert!(taken.join("_metadata").exists());
    std::fs::remove_dir_all(of_job).unwrap();
    let before = newest_checkpoint(&second.checkpoints);
    second.until("no further checkpoint was taken", || newest_checkpoint(&second.checkpoints) != before);
    let taken = second.cancel();

    // Claimed: it goes, and what it shared with no other, and its job's folder with the last of them.
    let third = Counting::start(place, "third", &["-s", &from(&taken), "--claim-mode", "claim"]);
    third.until("the claimed checkpoint stays", || !taken.parent().unwrap().exists());
    let taken = third.cancel();

    let fourth = Counting::start(place, "fourth", &["-s", &from(&taken)]);
    fourth.until("nothing is committed", || true);
    fourth.cancel();

    let folders = ["first", "second", "third", "fourth"].map(|name| committed(&place.join(name)));
    assert!(folders.iter().all(|pairs| !pairs.is_empty()));
    let mut all: Vec<(u64, u64)> = folders.concat();
    all.sort_unstable();
    let expected: Vec<(u64, u64)> = (0..all.len() as u64).map(|n| (n, n / 10 + 1)).collect();
    let wrong = all.iter().zip(&expected).find(|(is, should)| is != should);
    assert!(wrong.is_none(), "lost, repeated or counted wrongly: {wrong:?}");
}

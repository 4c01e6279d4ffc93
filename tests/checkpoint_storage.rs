//! Checkpoints whose storage fails: uploads that fail, a disk that is full, a folder that is gone, files that are damaged. The job fails or goes on as it
//! is configured, no checkpoint is lost that was complete, and it is said what happened.

mod chaos_support;
mod cluster_support;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chaos_support::faults::Faults;
use chaos_support::{finish, get, judge, submit};
use cluster_support::{Cluster, kill};
use process::run;
use serde_json::Value;

/// How long something may take that checkpoints every 100 ms bring about.
const DEADLINE: Duration = Duration::from_secs(60);

const OFTEN: [&str; 2] =
    ["execution.checkpointing.interval=100 ms", "execution.checkpointing.tolerable-failed-checkpoints=1000"];

fn checkpoints(cluster: &Cluster, job: &str) -> Value {
    get(cluster, &format!("/jobs/{job}/checkpoints")).expect("the coordinator lives")
}

fn counts(cluster: &Cluster, job: &str) -> (u64, u64) {
    let counts = &checkpoints(cluster, job)["counts"];
    (counts["completed"].as_u64().unwrap(), counts["failed"].as_u64().unwrap())
}

/// Waits until so many more were completed, and so many more failed.
#[track_caller]
fn wait_for_more(cluster: &Cluster, job: &str, more: (u64, u64)) {
    wait_behind(cluster, job, counts(cluster, job), more);
}

/// Waits until so many more were completed and failed than `before`.
#[track_caller]
fn wait_behind(cluster: &Cluster, job: &str, before: (u64, u64), more: (u64, u64)) {
    let began = Instant::now();
    loop {
        let now = counts(cluster, job);
        if now.0 >= before.0 + more.0 && now.1 >= before.1 + more.1 {
            return;
        }
        let so_far = || checkpoints(cluster, job)["counts"].to_string();
        assert!(began.elapsed() < DEADLINE, "{more:?} more than {before:?} are wanted: {}", so_far());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a checkpoint has failed that says all of this.
#[track_caller]
fn wait_for_reason(cluster: &Cluster, job: &str, words: &[&str]) {
    let began = Instant::now();
    loop {
        let found = checkpoints(cluster, job);
        let reason = found["latest"]["failed"]["failure_message"].as_str().unwrap_or_default();
        if words.iter().all(|word| reason.contains(word)) {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "none fails with {words:?}: {found}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn restarts(cluster: &Cluster, job: &str) -> u64 {
    let found = get(cluster, &format!("/jobs/{job}/metrics?get=numRestarts")).unwrap();
    found[0]["value"].as_str().unwrap().parse().unwrap()
}

/// What the job failed with last.
fn last_exception(cluster: &Cluster, job: &str) -> String {
    let found = get(cluster, &format!("/jobs/{job}/exceptions")).unwrap();
    found["exceptionHistory"]["entries"][0]["stacktrace"].as_str().unwrap().to_string()
}

#[track_caller]
fn all_is_there_once(folder: &Path, end: u64) {
    let verdict = judge(folder, end);
    assert!(verdict.missing == 0 && verdict.duplicate == 0 && verdict.wrong == 0, "{verdict:?}");
}

#[test]
fn uploads_that_fail_are_counted_and_tolerated_as_configured() {
    let faults = Faults::new();
    let cluster = Cluster::start_with(1, faults.environment(7));
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let job = submit(&cluster, folder.path(), &[&OFTEN[..], &["state.backend.type=rocksdb"]].concat());
    cluster.wait_for(&job, "RUNNING");
    wait_for_more(&cluster, &job, (2, 0));

    // Some files of some checkpoints; then manifests, before and in the midst of them.
    faults.arm("executor/storage.link=enospc:0.1");
    wait_for_more(&cluster, &job, (2, 3));
    wait_for_reason(&cluster, &job, &["subtask", "No space left on device", "checkpoints"]);
    faults.arm("coordinator/leader.manifest=eio:0.3,coordinator/storage.half=enospc:0.3");
    wait_for_more(&cluster, &job, (2, 3));
    wait_for_reason(&cluster, &job, &["its manifest", "chk-"]);
    assert_eq!(restarts(&cluster, &job), 0);
    let end = finish(&cluster, &job, folder.path(), started);
    all_is_there_once(folder.path(), end);

    // More in a row than are tolerated.
    faults.arm("");
    let other = tempfile::tempdir().unwrap();
    let strict = [
        OFTEN[0],
        "execution.checkpointing.tolerable-failed-checkpoints=2",
        "restart-strategy.type=none",
        "state.backend.type=hashmap",
        "execution.checkpointing.num-retained=2",
        "execution.checkpointing.externalized-checkpoint-retention=RETAIN_ON_CANCELLATION",
    ];
    let job = submit(&cluster, other.path(), &strict);
    cluster.wait_for(&job, "RUNNING");
    wait_for_more(&cluster, &job, (3, 0));
    // The disk of working files.
    let before = counts(&cluster, &job);
    faults.arm("executor/rows.write=enospc@1");
    wait_behind(&cluster, &job, before, (2, 1));
    wait_for_reason(&cluster, &job, &["No space left on device"]);
    faults.arm("executor/storage.link=enospc:1");
    cluster.wait_for(&job, "FAILED");
    let said = last_exception(&cluster, &job);
    assert!(said.contains("tolerable-failed-checkpoints allows, which is 2"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    // What was complete is still there, and whole.
    let kept =
        checkpoints(&cluster, &job)["latest"]["completed"]["external_path"].as_str().unwrap().to_string();
    run(&mut cluster.flott(&["savepoint", "inspect", "--verify", &kept])).succeeded();
    cluster.stop();
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    /// Nothing where this process may not mount one.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Disk(at.to_path_buf()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Lets the disk run full, and gives the file that fills it.
fn fill(folder: &Path) -> PathBuf {
    use std::io::Write;
    let ballast = folder.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    let refused = loop {
        if let Err(error) = file.write_all(&[7; 4096]) {
            break error;
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    ballast
}

#[test]
fn checkpoints_go_on_when_their_folder_has_room_again_is_writable_again_or_was_deleted() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("checkpoints");
    let disk = Disk::mount(&place, "8m");
    let started = Instant::now();
    let job = submit(&cluster, folder.path(), &[&OFTEN[..], &["state.backend.type=rocksdb"]].concat());
    cluster.wait_for(&job, "RUNNING");
    wait_for_more(&cluster, &job, (2, 0));

    match disk {
        Some(disk) => {
            let ballast = fill(&place);
            wait_for_more(&cluster, &job, (0, 3));
            wait_for_reason(&cluster, &job, &["No space left on device"]);
            std::fs::remove_file(ballast).unwrap();
            wait_for_more(&cluster, &job, (3, 0));
            // Another disk under its files: all that was stored is gone.
            drop(disk);
        }
        None => {
            eprintln!("no disk can be mounted here: a full one is left out");
            std::fs::rename(&place, folder.path().join("away")).unwrap();
        }
    }
    wait_for_more(&cluster, &job, (2, 0));

    // Something in its place that is no folder.
    std::fs::rename(&place, folder.path().join("aside")).unwrap();
    std::fs::write(&place, "").unwrap();
    wait_for_more(&cluster, &job, (0, 3));
    wait_for_reason(&cluster, &job, &[place.to_str().unwrap()]);
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(folder.path().join("aside"), &place).unwrap();
    wait_for_more(&cluster, &job, (2, 0));

    // Deleted: what checkpoints share is stored anew, and they are good for a restart.
    std::fs::rename(&place, folder.path().join("deleted")).unwrap();
    std::fs::remove_dir_all(folder.path().join("deleted")).unwrap();
    wait_for_more(&cluster, &job, (2, 0));
    assert_eq!(restarts(&cluster, &job), 0);
    cluster.executors().into_iter().for_each(kill);
    wait_for_more(&cluster, &job, (2, 0));
    assert!(checkpoints(&cluster, &job)["counts"]["restored"].as_u64() > Some(0));
    let end = finish(&cluster, &job, folder.path(), started);
    all_is_there_once(folder.path(), end);
    cluster.stop();
}

/// Takes a checkpoint; gives its folder.
fn take(cluster: &Cluster, job: &str) -> PathBuf {
    let stdout = run(&mut cluster.flott(&["checkpoint", "--json", job])).succeeded();
    let taken: Value = serde_json::from_str(&stdout).unwrap();
    let path = taken["path"].as_str().unwrap();
    path.strip_prefix("file://").unwrap_or(path).into()
}

/// A file of a checkpoint that the one before it does not have: its manifest, or the largest file of its state.
fn file_of(checkpoint: &Path, which: Which) -> PathBuf {
    let id = checkpoint.file_name().unwrap().to_str().unwrap().strip_prefix("chk-").unwrap();
    let (folder, part) = match which {
        Which::Manifest => return checkpoint.join("_metadata"),
        Which::Own => (checkpoint.to_path_buf(), ".rows-".to_string()),
        Which::Shared => (checkpoint.with_file_name("shared"), format!("-{id}.")),
    };
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(&part));
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[derive(Clone, Copy)]
enum Which {
    Manifest,
    /// In the folder of the checkpoint alone, with state in memory.
    Own,
    /// In the folder of all, with state in RocksDB.
    Shared,
}

fn cut(file: &Path) {
    let size = file.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(size / 2).unwrap();
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_fails_the_job_with_the_file_and_an_offer_of_the_one_before() {
    let cluster = Cluster::start(1);
    let outer = tempfile::tempdir().unwrap();
    let mut from: Option<String> = None;
    // The file that is damaged, how, and what is said of it.
    let damages: [(Which, fn(&Path), &str); 6] = [
        (Which::Own, cut, "bytes where"),
        (Which::Own, flip, "checksum"),
        (Which::Own, |file| std::fs::remove_file(file).unwrap(), "missing"),
        (Which::Shared, cut, "bytes where"),
        (Which::Shared, |file| std::fs::remove_file(file).unwrap(), "missing"),
        (Which::Manifest, flip, "the manifest cannot be read"),
    ];
    for (round, (which, damage, says)) in damages.into_iter().enumerate() {
        let folder = outer.path().join(round.to_string());
        std::fs::create_dir(&folder).unwrap();
        let settings = [
            "execution.checkpointing.interval=1 h",
            "execution.checkpointing.num-retained=2",
            match which {
                Which::Shared => "state.backend.type=rocksdb",
                Which::Own | Which::Manifest => "state.backend.type=hashmap",
            },
        ];
        let job = match &from {
            Some(from) => chaos_support::submit_from(&cluster, &folder, &settings, from),
            None => submit(&cluster, &folder, &settings),
        };
        cluster.wait_for(&job, "RUNNING");
        let older = take(&cluster, &job);
        let newest = take(&cluster, &job);
        let file = file_of(&newest, which);
        damage(&file);
        cluster.executors().into_iter().for_each(kill);
        cluster.wait_for(&job, "FAILED");
        let said = last_exception(&cluster, &job);
        assert!(said.contains(file.to_str().unwrap()) && said.contains(says), "{}: {said}", file.display());
        assert!(said.contains(&format!("flott run -s {}", older.display())), "{said}");
        assert_eq!(restarts(&cluster, &job), 1, "the one after the kill: {said}");
        // It is whole, and the next job goes on from it.
        let older = older.display().to_string();
        run(&mut cluster.flott(&["savepoint", "inspect", "--verify", &older])).succeeded();
        from = Some(older);
    }
    cluster.stop();
}

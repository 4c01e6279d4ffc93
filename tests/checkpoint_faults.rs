//! A job whose processes are killed at each step of a checkpoint: at the end every expected line is in the visible files once.

mod chaos_support;
mod cluster_support;
mod process;

use std::time::{Duration, Instant};

use chaos_support::faults::{Faults, POINTS, role_and_point};
use chaos_support::{finish, get, judge, submit};
use cluster_support::Cluster;

/// How long a checkpoint may take that follows a fault.
const DEADLINE: Duration = Duration::from_secs(60);

/// Those that differ where rows go to files of their own, and where records in flight are stored.
const WITH_HASHMAP: &[&str] = &[
    "executor/rows.write@2",
    "executor/rows.written@1",
    "executor/storage.link@2",
    "executor/storage.rename@1",
    "executor/storage.renamed@1",
    "executor/task.report@3",
    "coordinator/storage.renamed@1",
    "coordinator/leader.committed@1",
    "executor/sink.renamed@2",
    "executor/task.barrier@1 executor/restore.file@1",
    "executor/sink.commit@1 executor/sink.recommit@1",
];

fn completed(cluster: &Cluster, job: &str) -> Option<u64> {
    get(cluster, &format!("/jobs/{job}/checkpoints"))?["counts"]["completed"].as_u64()
}

/// Waits until so many checkpoints were completed; what the job says for whoever waits in vain.
fn wait_for_checkpoints(cluster: &Cluster, job: &str, wanted: u64) {
    let began = Instant::now();
    while completed(cluster, job).is_none_or(|completed| completed < wanted) {
        assert!(began.elapsed() < DEADLINE, "no checkpoint is completed: {}", story(cluster, job));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn story(cluster: &Cluster, job: &str) -> String {
    let read = |path: &str| get(cluster, &format!("/jobs/{job}{path}")).unwrap_or_default().to_string();
    format!("{}\n{}", read("/checkpoints"), read("/exceptions"))
}

/// Lets the job live through the faults.
fn survives(points: &[&str], settings: &[&str]) {
    let faults = Faults::new();
    let cluster = Cluster::start_with(2, faults.environment(7));
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let usual = [
        "execution.checkpointing.interval=100 ms",
        "execution.checkpointing.tolerable-failed-checkpoints=1000",
    ];
    let job = submit(&cluster, folder.path(), &[&usual, settings].concat());
    cluster.wait_for(&job, "RUNNING");
    wait_for_checkpoints(&cluster, &job, 2);
    for line in points {
        let before = completed(&cluster, &job).unwrap();
        let life = faults.arm_kills(line);
        for (role, point) in line.split(' ').map(role_and_point) {
            let strike = faults.wait_for(life, point, || story(&cluster, &job));
            assert_eq!(strike.role, role);
            cluster.until("what was struck is killed", |cluster| !cluster.lives(strike.process));
            if role == "coordinator" {
                cluster.script("coordinator.sh", &["start"]).succeeded();
            }
        }
        // One that was under way when the fault struck, and one behind it.
        wait_for_checkpoints(&cluster, &job, before + 2);
        assert_eq!(faults.struck(life).len(), line.split(' ').count(), "each strikes once");
        eprintln!("{:.1} s: killed at {line}", started.elapsed().as_secs_f64());
    }
    let end = finish(&cluster, &job, folder.path(), started);
    let verdict = judge(folder.path(), end);
    println!(
        "points={} expected={} missing={} duplicate={}",
        points.len(),
        verdict.expected,
        verdict.missing,
        verdict.duplicate
    );
    assert!(verdict.missing == 0 && verdict.duplicate == 0 && verdict.wrong == 0, "{verdict:?}");
    cluster.stop();
}

#[test]
fn every_record_counts_once_whoever_is_killed_at_whichever_step_of_a_checkpoint() {
    survives(POINTS, &["state.backend.type=rocksdb"]);
}

#[test]
fn every_record_counts_once_with_state_in_memory_and_barriers_that_overtake() {
    survives(
        WITH_HASHMAP,
        &[
            "state.backend.type=hashmap",
            "execution.checkpointing.unaligned.enabled=true",
            "execution.checkpointing.aligned-checkpoint-timeout=0 ms",
        ],
    );
}

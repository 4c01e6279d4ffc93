//! Exactly once, whatever is killed: a job runs while executors and workers are killed at random moments, executors and the coordinator
//! at chosen steps of a checkpoint, while some writes of files fail, it is rescaled, and savepoints are taken; at the end every expected line
//! is in the visible files once.
//!
//! `FLOTT_CHAOS="FAULTS SEED WORKERS"` makes it longer (`scripts/chaos.sh`).

mod chaos_support;
mod cluster_support;
mod process;

use std::time::{Duration, Instant};

use chaos_support::faults::{Faults, POINTS};
use chaos_support::{finish, judge, submit, visible};
use cluster_support::{Cluster, kill};
use process::{Ended, run};

/// A small generator (Vigna: *SplitMix64*), so that a seed says what happens.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Debug)]
struct Plan {
    faults: u64,
    seed: u64,
    workers: u64,
}

fn plan() -> Plan {
    let text = std::env::var("FLOTT_CHAOS").unwrap_or_else(|_| "8 7 2".into());
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [faults, seed, workers] = numbers[..] else {
        panic!("FLOTT_CHAOS is 'FAULTS SEED WORKERS', not '{text}'")
    };
    Plan { faults, seed, workers }
}

/// What a command has said: a fault may have come in its way, so it may have failed.
fn said(ended: &Ended) {
    assert!(ended.code == Some(0) || ended.code == Some(1), "{ended:?}");
    eprintln!("  {}", ended.stderr.lines().chain(ended.stdout.lines()).last().unwrap_or_default());
}

/// Has processes killed at the points of a line. False: nothing has passed the first of them.
fn kill_at(cluster: &Cluster, faults: &Faults, line: &str) -> bool {
    let life = faults.arm_kills(line);
    let wanted = line.split(' ').count();
    let armed = Instant::now();
    // Some are rarely passed: files that checkpoints shared are deleted now and then.
    while faults.killed(life).len() < wanted && armed.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    faults.arm("");
    let killed = faults.killed(life);
    for strike in &killed {
        cluster.until("what was struck is killed", |cluster| !cluster.lives(strike.process));
    }
    restart_coordinator(cluster);
    !killed.is_empty()
}

/// Starts it if it was killed: a fault may strike late.
fn restart_coordinator(cluster: &Cluster) {
    if !cluster.lives(cluster.process("coordinator-1")) {
        cluster.script("coordinator.sh", &["start"]).succeeded();
    }
}

#[test]
fn every_record_counts_once_whatever_is_killed() {
    let plan = plan();
    let mut random = Random(plan.seed);
    let faults = Faults::new();
    // Some files of checkpoints cannot be stored, all the time.
    let environment = faults.environment_with(plan.seed, "executor/storage.link=eio:0.01");
    let cluster = Cluster::start_with(plan.workers as usize, environment);
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let settings = [
        "execution.checkpointing.interval=300 ms",
        "execution.checkpointing.tolerable-failed-checkpoints=1000",
    ];
    let job = submit(&cluster, folder.path(), &settings);
    cluster.wait_for(&job, "RUNNING");
    let mut parallelism = 2;
    let mut done = 0;
    while done < plan.faults {
        restart_coordinator(&cluster);
        std::thread::sleep(Duration::from_millis(200 + random.below(1500)));
        let what = match random.below(14) {
            0..5 => {
                let executors = cluster.executors();
                match executors.get(random.below(executors.len().max(1) as u64) as usize) {
                    Some(executor) => kill(*executor),
                    None => continue,
                }
                "executor killed"
            }
            5..7 => {
                let name = format!("worker-{}", random.below(plan.workers) + 1);
                kill(cluster.process(&name));
                cluster.until("a killed worker lives", |cluster| !cluster.lives(cluster.process(&name)));
                cluster.script("worker.sh", &["start"]).succeeded();
                "worker killed"
            }
            7..9 => {
                cluster.wait_for(&job, "RUNNING");
                parallelism = if parallelism == 2 { 1 } else { 2 };
                let wanted = parallelism.to_string();
                let ended = run(&mut cluster.flott(&["rescale", &job, "-p", &wanted]));
                said(&ended);
                "rescaled"
            }
            9 => {
                let ended = run(&mut cluster.flott(&["savepoint", &job]));
                said(&ended);
                "savepoint"
            }
            _ => {
                let line = POINTS[random.below(POINTS.len() as u64) as usize];
                match kill_at(&cluster, &faults, line) {
                    true => line,
                    false => continue,
                }
            }
        };
        done += 1;
        eprintln!(
            "{:.1} s: fault {done} of {}: {what}; {} files visible",
            started.elapsed().as_secs_f64(),
            plan.faults,
            visible(folder.path())
        );
    }
    restart_coordinator(&cluster);
    let end = finish(&cluster, &job, folder.path(), started);
    let verdict = judge(folder.path(), end);
    println!(
        "faults={} expected={} missing={} duplicate={}",
        plan.faults, verdict.expected, verdict.missing, verdict.duplicate
    );
    assert!(verdict.missing == 0 && verdict.duplicate == 0 && verdict.wrong == 0, "{verdict:?}");
    cluster.stop();
}

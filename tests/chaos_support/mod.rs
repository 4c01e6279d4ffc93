//! The job of `tests/programs/checker.rs` in a cluster: how it is started and ended, what its output must be, and what it is.

// Each test binary uses its share of these.
#![allow(dead_code)]

pub mod faults;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster_support::{Cluster, try_http_get};
use crate::process::example_text;

/// Numbers a second of a lane at most.
pub const RATE: u64 = 10 * 100;

const LANES: u64 = 4;
const KEYS: u64 = 64;
const WINDOW: u64 = 1000;

/// Submits the job with these settings beside the usual ones; its files go below `folder`.
pub fn submit(cluster: &Cluster, folder: &Path, settings: &[&str]) -> String {
    submit_with(cluster, folder, settings, &[])
}

/// The same from a snapshot.
pub fn submit_from(cluster: &Cluster, folder: &Path, settings: &[&str], from: &str) -> String {
    submit_with(cluster, folder, settings, &["-s", from])
}

fn submit_with(cluster: &Cluster, folder: &Path, settings: &[&str], more: &[&str]) -> String {
    let checkpoints = format!("execution.checkpointing.dir={}", folder.join("checkpoints").display());
    let savepoints = format!("execution.checkpointing.savepoint-dir={}", folder.join("savepoints").display());
    let usual = [
        &checkpoints,
        &savepoints,
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=100000",
        "restart-strategy.fixed-delay.delay=50 ms",
    ];
    let mut flags = vec!["-p", "2"];
    flags.extend(usual.iter().chain(settings).flat_map(|setting| ["-D", *setting]));
    flags.extend(more);
    cluster.submit(&flags, &[&example_text("checker_job"), &folder.display().to_string()])
}

/// Lets the job come to its end, and waits for it; gives the number at which its lanes end.
pub fn finish(cluster: &Cluster, job: &str, folder: &Path, started: Instant) -> u64 {
    let end = (started.elapsed().as_secs() + 2) * RATE;
    // At once: half of a number would be another number.
    std::fs::write(folder.join("end.new"), format!("{end}\n")).unwrap();
    std::fs::rename(folder.join("end.new"), folder.join("end")).unwrap();
    // What was lost to faults is read again, and the machine may do other work.
    let patience = started.elapsed() * 4 + Duration::from_secs(120);
    loop {
        let jobs = cluster.jobs();
        let found = jobs.iter().find(|known| known["jid"] == job).cloned().unwrap_or_default();
        if found["state"] == "FINISHED" {
            break;
        }
        assert!(found["state"] != "FAILED" && started.elapsed() < patience, "{found}");
        std::thread::sleep(Duration::from_millis(100));
    }
    end
}

/// What a coordinator answers; nothing while there is none.
pub fn get(cluster: &Cluster, path: &str) -> Option<Value> {
    let answer = try_http_get(&cluster.address, path).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// How far the output is from what it must be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub expected: u64,
    pub missing: u64,
    pub duplicate: u64,
    /// Some of the lines that are missing, or that no correct run writes.
    pub examples: Vec<String>,
    /// Lines that no correct run writes.
    pub wrong: u64,
}

/// The lines in the visible files of a folder and how often each is there.
fn lines(folder: &Path) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().iter().take(1).any(|first| b"._".contains(first));
        if path.is_file() && !hidden {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{} is cut short", path.display());
            text.lines().for_each(|line| *found.entry(line.to_string()).or_default() += 1);
        } else if path.is_dir() && !hidden {
            lines(&path).into_iter().for_each(|(line, count)| *found.entry(line).or_default() += count);
        }
    }
    found
}

/// Files that are visible now; for progress.
pub fn visible(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder.join("records")).into_iter().flatten().flatten();
    names.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).count()
}

/// Compares the output of lanes that ended at `end` with the oracle.
pub fn judge(folder: &Path, end: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut check = |mut found: HashMap<String, u64>, wanted: Box<dyn Iterator<Item = String>>| {
        for line in wanted {
            verdict.expected += 1;
            match found.remove(&line) {
                None => {
                    verdict.missing += 1;
                    if verdict.missing <= 5 || verdict.missing % 100 == 0 {
                        verdict.examples.push(format!("missing: {line}"));
                    }
                }
                Some(count) => verdict.duplicate += count - 1,
            }
        }
        verdict.wrong += found.len() as u64;
        verdict.examples.extend(found.into_keys().take(5).map(|line| format!("wrong: {line}")));
    };
    let record = |lane: u64, index: u64| {
        let (count, key) = (index / KEYS + 1, index % KEYS);
        // key, key + KEYS, ..., index
        format!("{lane} {index} {count} {}", count * key + KEYS * (count * (count - 1) / 2))
    };
    let records = (0..LANES).flat_map(move |lane| (0..end).map(move |index| record(lane, index)));
    check(lines(&folder.join("records")), Box::new(records));
    let window = |lane: u64, start: u64, end: u64| {
        let last = (start + WINDOW).min(end);
        let count = last - start;
        format!("{lane} {start} {count} {}", (start + last - 1) * count / 2)
    };
    let starts = (0..end).step_by(WINDOW as usize);
    let windows = (0..LANES).flat_map(move |lane| starts.clone().map(move |start| window(lane, start, end)));
    check(lines(&folder.join("windows")), Box::new(windows));
    verdict
}

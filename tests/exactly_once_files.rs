//! Jobs that fail and go on from a checkpoint: what stands in their files is what an undisturbed job writes, each result once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott::EmbeddedOptions;
use flott::connectors::file_sink::{FileSink, SingleFile};
use flott::connectors::generator::Generator;
use flott::prelude::*;
use flott::schema::job::JobSettings;

const RECORDS: u64 = 60_000;
const KEYS: u64 = 40;

/// Where the job fails, once each.
const FAILURES: [u64; 3] = [20_000, 35_000, 50_000];

/// A job that takes checkpoints all the time and fails now and then. `build` gets numbers with themselves as timestamps, and the folder for
/// its files.
fn run(
    backend: &str,
    parallelism: u32,
    build: impl FnOnce(&DataStream<u64>, &Path),
) -> BTreeMap<String, u32> {
    let folder = tempfile::tempdir().unwrap();
    let env = StreamEnv::new();
    env.set_parallelism(parallelism).enable_checkpointing(Duration::from_millis(40));
    env.set("state.backend.type", backend);
    let checkpoints = folder.path().join("checkpoints");
    env.set("execution.checkpointing.dir", &format!("file://{}", checkpoints.display()));
    env.set("restart-strategy.type", "fixed-delay").set("restart-strategy.fixed-delay.attempts", "10");
    env.set("restart-strategy.fixed-delay.delay", "1 ms");
    let source = Generator::new(|n| n).count(RECORDS).rate_per_second(40_000.0).timestamps(|n, _| n as i64);
    let left: Arc<[AtomicU64]> = FAILURES.iter().map(|at| AtomicU64::new(*at)).collect();
    let numbers = env
        .from_source(
            source,
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(50)),
            "numbers",
        )
        .map(move |n| {
            for failure in &*left {
                if failure.compare_exchange(n, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    panic!("a failure that is wanted, at {n}");
                }
            }
            n
        });
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    build(&numbers, &out);
    let settings = JobSettings::from_configuration(&env.options().configuration).unwrap();
    env.execute_with("files", EmbeddedOptions { settings, ..EmbeddedOptions::default() }).unwrap();
    lines(&out)
}

/// The lines of all files, with their number; no file may be hidden.
fn lines(folder: &Path) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with('.'), "left over: {name}");
        for line in fs::read_to_string(&path).unwrap().lines() {
            *lines.entry(line.to_string()).or_default() += 1;
        }
    }
    lines
}

fn once(lines: impl IntoIterator<Item = String>) -> BTreeMap<String, u32> {
    lines.into_iter().map(|line| (line, 1)).collect()
}

#[track_caller]
fn expect(found: &BTreeMap<String, u32>, expected: &BTreeMap<String, u32>) {
    let wrong: Vec<_> =
        found.iter().filter(|(line, count)| expected.get(*line) != Some(*count)).take(5).collect();
    let missing: Vec<_> = expected.keys().filter(|line| !found.contains_key(*line)).take(5).collect();
    assert!(
        found == expected,
        "wrong: {wrong:?}, missing: {missing:?}, {} of {}",
        found.len(),
        expected.len()
    );
}

/// Key, start, and sum of the numbers in the windows of `size` that begin at each multiple of `slide`.
fn windows(size: u64, slide: u64) -> BTreeMap<String, u32> {
    let mut sums: BTreeMap<(u64, i64), u64> = BTreeMap::new();
    for n in 0..RECORDS {
        let mut start = (n - n % slide) as i64;
        while start + size as i64 > n as i64 {
            *sums.entry((n % KEYS, start)).or_default() += n;
            start -= slide as i64;
        }
    }
    once(sums.into_iter().map(|((key, start), sum)| format!("{key} {start} {sum}")))
}

#[test]
fn tumbling_windows_in_part_files() {
    for backend in ["hashmap", "rocksdb"] {
        let found = run(backend, 2, |numbers, out| {
            let windows = TumblingEventTimeWindows::of(Duration::from_millis(1000));
            numbers
                .key_by(|n| n % KEYS)
                .window(windows)
                .reduce_with(
                    |sum: &mut u64, n: &mut u64| *sum += *n,
                    |key, window: &TimeWindow, sum| format!("{key} {} {sum}", window.start_ms),
                )
                .sink_to(FileSink::lines(out), "files");
        });
        expect(&found, &windows(1000, 1000));
    }
}

#[test]
fn sliding_windows_in_one_file() {
    let found = run("hashmap", 2, |numbers, out| {
        let windows = SlidingEventTimeWindows::of(Duration::from_millis(2000), Duration::from_millis(500));
        numbers
            .key_by(|n| n % KEYS)
            .window(windows)
            .reduce_with(
                |sum: &mut u64, n: &mut u64| *sum += *n,
                |key, window: &TimeWindow, sum| format!("{key} {} {sum}", window.start_ms),
            )
            .sink_to(SingleFile::lines(out.join("all")), "file")
            .parallelism(1);
    });
    expect(&found, &windows(2000, 500));
}

#[test]
fn records_and_joined_records_in_part_files() {
    let found = run("hashmap", 2, |numbers, out| {
        let even = numbers.filter(|n| n % 2 == 0);
        let odd = numbers.filter(|n| n % 2 == 1);
        even.key_by(|n| n / 10)
            .interval_join(&odd.key_by(|n| n / 10))
            .between(0, 1)
            .join(|left, right| format!("{left} {right}"))
            .sink_to(FileSink::lines(out).roll_at_bytes(4000), "files");
    });
    expect(&found, &once((0..RECORDS).step_by(2).map(|n| format!("{n} {}", n + 1))));
}

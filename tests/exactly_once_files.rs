//! Jobs that fail and go on from a checkpoint: what stands in their files is what an undisturbed job writes, each result once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott::EmbeddedOptions;
use flott::connectors::file_sink::{FileSink, MANIFESTS, Manifest, SingleFile};
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
    lines(&run_with(backend, parallelism, &[], build).path().join("out"))
}

/// The same with further settings; gives the folder, in which the files are in `out`.
fn run_with(
    backend: &str,
    parallelism: u32,
    settings: &[(&str, &str)],
    build: impl FnOnce(&DataStream<u64>, &Path),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let env = StreamEnv::new();
    env.set_parallelism(parallelism).enable_checkpointing(Duration::from_millis(40));
    env.set("state.backend.type", backend);
    let checkpoints = folder.path().join("checkpoints");
    env.set("execution.checkpointing.dir", &format!("file://{}", checkpoints.display()));
    env.set("restart-strategy.type", "fixed-delay").set("restart-strategy.fixed-delay.attempts", "10");
    env.set("restart-strategy.fixed-delay.delay", "1 ms");
    for (key, value) in settings {
        env.set(key, value);
    }
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
    folder
}

/// The lines of all files, with their number; no file may be hidden.
fn lines(folder: &Path) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == MANIFESTS {
            continue;
        }
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

/// The files that manifests list, each with the number of its lines; a file in two of them fails the test.
fn listed(folder: &Path) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder.join(MANIFESTS)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!(name, format!("{:020}-{}.json", manifest.checkpoint, manifest.job));
        for file in manifest.files {
            let content = fs::read_to_string(folder.join(&file.path)).unwrap();
            assert_eq!(content.len() as u64, file.bytes, "{}", file.path);
            let before = files.insert(file.path.clone(), content.lines().count());
            assert_eq!(before, None, "{} is in two manifests", file.path);
        }
    }
    files
}

#[test]
fn a_manifest_for_each_checkpoint_lists_what_all_tasks_have_written() {
    let unaligned = [
        ("execution.checkpointing.unaligned.enabled", "true"),
        ("execution.checkpointing.aligned-checkpoint-timeout", "0 ms"),
    ];
    let at_once = [("execution.checkpointing.max-concurrent-checkpoints", "3")];
    for (backend, parallelism, settings) in
        [("hashmap", 2, &[][..]), ("rocksdb", 3, &unaligned[..]), ("hashmap", 1, &at_once[..])]
    {
        let folder = run_with(backend, parallelism, settings, |numbers, out| {
            numbers
                .rebalance()
                .map(|n| n * 2)
                .sink_to(FileSink::lines(out).manifests(true), "files")
                .uid("files");
        });
        let out = folder.path().join("out");
        let found = lines(&out);
        expect(&found, &once((0..RECORDS).map(|n| (2 * n).to_string())));
        let visible = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name());
        let visible: Vec<String> =
            visible.map(|name| name.to_str().unwrap().to_string()).filter(|name| name != MANIFESTS).collect();
        let listed = listed(&out);
        assert!(
            visible.len() == listed.len() && visible.iter().all(|name| listed.contains_key(name)),
            "{visible:?}, {listed:?}"
        );
        let manifests = fs::read_dir(out.join(MANIFESTS)).unwrap().count();
        assert!(manifests > 5, "there were {manifests}");
    }
}

#[test]
fn without_checkpoints_one_manifest_lists_all_files() {
    for mode in [RuntimeMode::Streaming, RuntimeMode::Batch] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let env = StreamEnv::new();
        env.set_parallelism(2).set_runtime_mode(mode);
        let numbers = env.add_source(Generator::new(|n| n).count(1000), "numbers");
        let sink = FileSink::lines(&out).roll_at_bytes(64).manifests(true);
        numbers.map(|n| n).sink_to(sink, "files");
        env.execute("files").unwrap();
        expect(&lines(&out), &once((0..1000).map(|n| n.to_string())));
        let listed = listed(&out);
        assert!(listed.len() > 2 && listed.values().sum::<usize>() == 1000, "{listed:?}");
        assert_eq!(fs::read_dir(out.join(MANIFESTS)).unwrap().count(), 1);
    }
}

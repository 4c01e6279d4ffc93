//! Jobs of which some tasks finish long before the others: checkpoints go on, and a start from one of them neither loses nor repeats
//! anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use flott::EmbeddedOptions;
use flott::connectors::file_sink::FileSink;
use flott::connectors::generator::Generator;
use flott::dataflow::batch::Batch;
use flott::dataflow::codec::{decode_value, encode_value};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott::prelude::*;
use flott::schema::job::JobSettings;
use serde::{Deserialize, Serialize};

/// Records of the source that goes on, each a millisecond of event time behind the one before.
const LONG: u64 = 40_000;
/// Records of the source that ends at once; they are spread over the time of the other.
const SHORT: u64 = 1_000;
const STEP: u64 = LONG / SHORT;
const KEYS: u64 = 20;
const WINDOW: u64 = 1_000;

/// What a run of the job is given.
struct Run<'a> {
    folder: &'a Path,
    parallelism: u32,
    settings: &'a [(&'a str, &'a str)],
    /// Records of the long source at which the job fails, once each.
    failures: &'a [u64],
}

/// A short and a long source, their union in windows, and their join.
fn run(run: Run<'_>) -> flott::Result<()> {
    let env = StreamEnv::new();
    env.set_parallelism(run.parallelism).set_max_parallelism(12);
    env.enable_checkpointing(Duration::from_millis(40));
    let checkpoints = run.folder.join("checkpoints");
    env.set("execution.checkpointing.dir", &format!("file://{}", checkpoints.display()));
    env.set("restart-strategy.type", "fixed-delay");
    env.set("restart-strategy.fixed-delay.attempts", "10");
    env.set("restart-strategy.fixed-delay.delay", "1 ms");
    for (key, value) in run.settings {
        env.set(key, value);
    }
    let time = || WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(50));
    let left: Arc<[AtomicU64]> = run.failures.iter().map(|at| AtomicU64::new(*at)).collect();
    let long = Generator::new(|n| n).count(LONG).rate_per_second(40_000.0).timestamps(|n, _| n as i64);
    let long = env
        .from_source(long, time(), "long")
        .uid("long")
        .map(move |n| {
            for failure in &*left {
                if failure.compare_exchange(n, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    panic!("a failure that is wanted, at {n}");
                }
            }
            n
        })
        .uid("failing");
    let short = Generator::new(|n| n * STEP).count(SHORT).timestamps(|n, _| (n * STEP) as i64);
    let short = env.from_source(short, time(), "short").uid("short");
    let out = run.folder.join("out");
    let windows = || TumblingEventTimeWindows::of(Duration::from_millis(WINDOW));
    let both = long.map(|n| (false, n)).uid("of-long").union(&[&short.map(|n| (true, n)).uid("of-short")]);
    both.key_by(|(short, n)| (*short, n % KEYS))
        .window(windows())
        .reduce_with(
            |sum: &mut (bool, u64), next: &mut (bool, u64)| sum.1 += next.1,
            |key, window: &TimeWindow, sum| format!("{} {} {} {}", key.0, key.1, window.start_ms, sum.1),
        )
        .uid("sums")
        .sink_to(FileSink::lines(out.join("sums")).manifests(true), "sums")
        .uid("sum-files");
    short
        .join(&long)
        .where_key(|n| *n)
        .equal_to(|n| *n)
        .window(windows())
        .apply(|short, long| format!("{short} {long}"))
        .uid("pairs")
        .sink_to(FileSink::lines(out.join("pairs")), "pairs")
        .uid("pair-files");
    let settings = JobSettings::from_configuration(&env.options().configuration)?;
    let options = EmbeddedOptions { settings, ..EmbeddedOptions::default() };
    env.execute_with("finished tasks", options).map(drop)
}

/// The lines of all files in a folder, with their number.
fn lines(folder: &Path) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(!name.starts_with('.'), "left over: {name}");
            for line in fs::read_to_string(&path).unwrap().lines() {
                *lines.entry(line.to_string()).or_default() += 1;
            }
        }
    }
    lines
}

fn expected_sums() -> BTreeMap<String, u32> {
    let mut sums: BTreeMap<(bool, u64, u64), u64> = BTreeMap::new();
    for (short, n) in (0..LONG).map(|n| (false, n)).chain((0..SHORT).map(|n| (true, n * STEP))) {
        *sums.entry((short, n % KEYS, n - n % WINDOW)).or_default() += n;
    }
    sums.into_iter().map(|((short, key, start), sum)| (format!("{short} {key} {start} {sum}"), 1)).collect()
}

fn expected_pairs() -> BTreeMap<String, u32> {
    (0..SHORT).map(|n| (format!("{0} {0}", n * STEP), 1)).collect()
}

#[track_caller]
fn expect(folder: &Path, expected: &BTreeMap<String, u32>) {
    let found = lines(folder);
    let wrong: Vec<_> =
        found.iter().filter(|(line, count)| expected.get(*line) != Some(*count)).take(5).collect();
    let missing: Vec<_> = expected.keys().filter(|line| !found.contains_key(*line)).take(5).collect();
    assert!(found == *expected, "wrong: {wrong:?}, missing: {missing:?}, {}", found.len());
}

const UNALIGNED: [(&str, &str); 2] = [
    ("execution.checkpointing.unaligned.enabled", "true"),
    ("execution.checkpointing.aligned-checkpoint-timeout", "0 ms"),
];

#[test]
fn a_job_fails_and_goes_on_behind_the_end_of_one_of_its_sources() {
    let three = [("execution.checkpointing.max-concurrent-checkpoints", "3")];
    let rocksdb = [("state.backend.type", "rocksdb")];
    for settings in [&[][..], &UNALIGNED[..], &three[..], &rocksdb[..]] {
        let folder = tempfile::tempdir().unwrap();
        let failures = [12_000, 22_000, 34_000];
        let folder = folder.path();
        run(Run { folder, parallelism: 2, settings, failures: &failures }).unwrap();
        expect(&folder.join("out/sums"), &expected_sums());
        expect(&folder.join("out/pairs"), &expected_pairs());
    }
}

#[test]
fn at_least_once_repeats_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("execution.checkpointing.mode", "AT_LEAST_ONCE")];
    let folder = folder.path();
    let failures = [12_000, 22_000, 34_000];
    run(Run { folder, parallelism: 2, settings: &settings, failures: &failures }).unwrap();
    let pairs = lines(&folder.join("out/pairs"));
    let missing: Vec<String> =
        expected_pairs().into_keys().filter(|pair| !pairs.contains_key(pair)).take(5).collect();
    assert!(missing.is_empty() && pairs.len() as u64 == SHORT, "{missing:?}, {}", pairs.len());
    assert_eq!(lines(&folder.join("out/sums")).len(), expected_sums().len());
}

/// Numbers from `next` to `end`.
#[derive(Clone, Serialize, Deserialize)]
struct Piece {
    next: u64,
    end: u64,
}

/// A source that deals one piece to its first reader, and many, one after the other, to the second.
#[derive(Clone)]
struct Dealt;

const PIECES: u64 = 10;
const PIECE: u64 = 2_000;

impl Source for Dealt {
    type Record = u64;
    type Split = Piece;
    type Enumerator = Dealer;
    type Reader = PieceReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> flott::Result<Dealer> {
        Ok(Dealer { dealt: vec![0, 1] })
    }

    fn reader(&self, _ctx: &OperatorContext) -> flott::Result<PieceReader> {
        Ok(PieceReader { piece: None, pause: None })
    }
}

/// By reader: its next piece.
struct Dealer {
    dealt: Vec<u64>,
}

impl SplitEnumerator for Dealer {
    type Split = Piece;

    fn next_split(&mut self, subtask: u32) -> flott::Result<Assignment<Piece>> {
        let next = &mut self.dealt[subtask as usize];
        let piece = *next;
        if piece > 0 && subtask == 0 || piece >= PIECES {
            return Ok(Assignment::NoMore);
        }
        *next += 1;
        Ok(Assignment::Split(Piece { next: piece * PIECE, end: (piece + 1) * PIECE }))
    }

    fn snapshot(&self) -> flott::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.dealt, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> flott::Result<()> {
        self.dealt = decode_value(state)?;
        Ok(())
    }
}

/// Reads a hundred numbers, and pauses.
struct PieceReader {
    piece: Option<Piece>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl SourceReader for PieceReader {
    type Record = u64;
    type Split = Piece;

    fn add_split(&mut self, piece: Piece) -> flott::Result<()> {
        self.piece = Some(piece);
        Ok(())
    }

    fn read(&mut self, _max_records: usize, cx: &mut Context<'_>) -> flott::Result<ReadBatch<u64>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.pause = None;
        }
        let Some(piece) = self.piece.as_mut().filter(|piece| piece.next < piece.end) else {
            return Ok(Poll::Ready(None));
        };
        let upto = (piece.next + 100).min(piece.end);
        let numbers = (piece.next..upto).collect();
        piece.next = upto;
        self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(5))));
        Ok(Poll::Ready(Some(Batch::of(numbers))))
    }

    fn snapshot(&self) -> Vec<Piece> {
        self.piece.clone().into_iter().collect()
    }
}

/// The enumerator lives with the first task of its source, and goes on when that has read all it will ever get.
#[test]
fn splits_that_are_dealt_behind_the_end_of_the_first_reader_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let env = StreamEnv::new();
    env.set_parallelism(2).enable_checkpointing(Duration::from_millis(40));
    let checkpoints = folder.path().join("checkpoints");
    env.set("execution.checkpointing.dir", &format!("file://{}", checkpoints.display()));
    env.set("restart-strategy.type", "fixed-delay").set("restart-strategy.fixed-delay.attempts", "10");
    env.set("restart-strategy.fixed-delay.delay", "1 ms");
    let left: Arc<[AtomicU64]> = [9_000, 16_000].into_iter().map(AtomicU64::new).collect();
    let out = folder.path().join("out");
    env.add_source(Dealt, "dealt")
        .map(move |n| {
            for failure in &*left {
                if failure.compare_exchange(n, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    panic!("a failure that is wanted, at {n}");
                }
            }
            n
        })
        .sink_to(FileSink::lines(&out), "files");
    let settings = JobSettings::from_configuration(&env.options().configuration).unwrap();
    env.execute_with("dealt", EmbeddedOptions { settings, ..EmbeddedOptions::default() }).unwrap();
    expect(&out, &(0..PIECES * PIECE).map(|n| (n.to_string(), 1)).collect());
}

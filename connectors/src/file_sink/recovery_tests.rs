//! Files of jobs that take checkpoints, and crash: each record is in visible files exactly once, at every moment and at the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;

use flott_dataflow::batch::Batch;
use flott_dataflow::context::{OperatorContext, Settings, TaskContext};
use flott_dataflow::element::{Barrier, Signal};
use flott_dataflow::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use flott_dataflow::operators::sink::{MakeWriter, SinkStage};
use flott_dataflow::sink::Sink;
use flott_dataflow::snapshot::Snapshots;
use flott_dataflow::stage::{Flow, Stage};
use flott_schema::ids::JobId;

use super::{Buckets, FileSink, LineEncoder, SingleFile};
use crate::files::Compression;

/// A task of a sink.
struct Sinking<S: Sink<u64>> {
    stage: SinkStage<S::Writer, S::Committer>,
    task: Rc<TaskContext>,
    state: Rc<MemoryState>,
}

fn sinking<S: Sink<u64>>(sink: &S, job: u128, state: Rc<MemoryState>) -> flott_schema::Result<Sinking<S>> {
    let (subtask, parallelism, max_parallelism) = state.place();
    let mut task =
        TaskContext::new("job", "vertex", subtask, parallelism, max_parallelism, Settings::default());
    task.job = JobId(job);
    task.snapshots = Snapshots::new(state.clone(), false);
    let task = Rc::new(task);
    let ctx = OperatorContext::new(task.clone(), "sink", "sink");
    let committer = sink.committer(&ctx)?;
    let sink = sink.clone();
    let make: MakeWriter<S::Writer> = Box::new(move |ctx, restored| match restored.is_empty() {
        true => sink.writer(ctx),
        false => sink.restore_writer(ctx, restored),
    });
    let mut stage = SinkStage::new(make, committer, ctx);
    stage.open()?;
    Ok(Sinking { stage, task, state })
}

impl<S: Sink<u64>> Sinking<S> {
    fn push(&mut self, records: Vec<u64>) {
        self.stage.push(Batch::of(records)).unwrap();
    }

    fn barrier(&mut self, checkpoint: u64) -> MemorySnapshot {
        self.state.begin(checkpoint);
        let barrier = Signal::Barrier(Barrier::of_checkpoint(checkpoint));
        assert_eq!(Stage::<Batch<u64>>::signal(&mut self.stage, barrier).unwrap(), Flow::Done);
        self.state.snapshot(checkpoint).unwrap()
    }

    fn finish(&mut self, checkpoint: u64) {
        assert_eq!(Stage::<Batch<u64>>::signal(&mut self.stage, Signal::EndOfInput).unwrap(), Flow::Done);
        self.state.begin(checkpoint);
        self.task.snapshots.last_snapshot(&Barrier::of_checkpoint(checkpoint)).unwrap();
        self.task.snapshots.completed(checkpoint).unwrap();
        assert!(!self.task.snapshots.has_uncommitted());
        Stage::<Batch<u64>>::close(&mut self.stage).unwrap();
    }
}

/// Files below a folder, decompressed, by path.
fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

/// The records of all visible files, sorted.
fn visible(folder: &Path) -> Vec<u64> {
    let mut records = Vec::new();
    for (path, bytes) in files(folder).into_iter().filter(|(path, _)| !is_hidden(path)) {
        let mut bytes = std::io::Cursor::new(bytes);
        let mut text = String::new();
        match Compression::of_path(&path) {
            Compression::None => std::io::Read::read_to_string(&mut bytes, &mut text).unwrap(),
            Compression::Gzip => {
                let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
                std::io::Read::read_to_string(&mut decoder, &mut text).unwrap()
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(bytes).unwrap();
                std::io::Read::read_to_string(&mut decoder, &mut text).unwrap()
            }
        };
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines only");
        records.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
    }
    records.sort_unstable();
    records
}

#[derive(Clone, Debug)]
enum Step {
    Records(usize),
    Barrier,
    /// The last snapshot completes; tasks whose bit is not set do not hear of it.
    Complete(u8),
    /// All tasks are gone, with or without a chance to tidy up, and so many start from the last complete snapshot.
    Crash(u32, bool),
}

fn steps(parallelism_max: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..8).prop_map(Step::Records),
        3 => Just(Step::Barrier),
        3 => any::<u8>().prop_map(Step::Complete),
        2 => (1..=parallelism_max, any::<bool>()).prop_map(|(tasks, tidy)| Step::Crash(tasks, tidy)),
    ];
    prop::collection::vec(step, 0..40)
}

/// Runs a job over `steps`, looking at the folder after each; gives the number of records.
fn run<S: Sink<u64>>(
    sink: &S,
    folder: &Path,
    parallelism: u32,
    steps: Vec<Step>,
    at_the_end_only: bool,
) -> Result<u64, TestCaseError> {
    let start = |parts: &[MemorySnapshot], parallelism: u32| -> Vec<Sinking<S>> {
        let state = |subtask| match parts.is_empty() {
            true => MemoryState::new(MemoryKind::AllRows, subtask, parallelism, 128),
            false => MemoryState::restored_from(parts, MemoryKind::AllRows, subtask, parallelism, 128),
        };
        (0..parallelism).map(|subtask| sinking(sink, 1, state(subtask)).unwrap()).collect()
    };
    let mut sinks = start(&[], parallelism);
    let (mut next, mut checkpoint) = (0u64, 0u64);
    let mut taken: Option<(u64, Vec<MemorySnapshot>)> = None;
    let mut complete: (u64, Vec<MemorySnapshot>) = (0, Vec::new());
    for step in steps {
        match step {
            Step::Records(count) => {
                let task = next as usize % sinks.len();
                sinks[task].push((next..next + count as u64).collect());
                next += count as u64;
            }
            Step::Barrier => {
                checkpoint += 1;
                taken = Some((next, sinks.iter_mut().map(|sink| sink.barrier(checkpoint)).collect()));
            }
            Step::Complete(heard) => {
                let Some(now) = taken.take() else { continue };
                complete = now;
                for (task, sink) in sinks.iter().enumerate() {
                    if heard & (1 << task) != 0 {
                        sink.task.snapshots.completed(checkpoint).unwrap();
                    }
                }
            }
            Step::Crash(parallelism, tidy) => {
                taken = None;
                next = complete.0;
                let before = files(folder);
                sinks.clear();
                if !tidy {
                    // Nobody has removed anything, as after a kill.
                    let after = files(folder);
                    for (path, bytes) in before.iter().filter(|(path, _)| !after.contains_key(*path)) {
                        fs::write(path, bytes).unwrap();
                    }
                }
                sinks = start(&complete.1, parallelism);
            }
        }
        let seen = visible(folder);
        let bound = if at_the_end_only { 0 } else { complete.0 };
        prop_assert!(seen.iter().all(|record| *record < bound), "nothing is visible too early");
        let mut once = seen.clone();
        once.dedup();
        prop_assert_eq!(once, seen, "no record is visible twice");
    }
    for sink in &mut sinks {
        sink.finish(checkpoint + 1);
    }
    prop_assert_eq!(visible(folder), (0..next).collect::<Vec<_>>());
    Ok(next)
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Gzip), Just(Compression::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn part_files_hold_each_record_once_whatever_completes_and_crashes(
        steps in steps(3),
        bytes in 1u64..40,
        buckets: bool,
        compression in compression(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sink = FileSink::lines(folder.path()).roll_at_bytes(bytes).compression(compression);
        let sink = if buckets { sink.buckets(Buckets::by(|n: &u64| format!("b/{}", n % 3))) } else { sink };
        let rescaled = steps.iter().any(|step| matches!(step, Step::Crash(tasks, _) if *tasks != 2));
        run(&sink, folder.path(), 2, steps, false)?;
        let hidden: Vec<_> = files(folder.path()).into_keys().filter(|path| is_hidden(path)).collect();
        prop_assert!(rescaled || hidden.is_empty(), "left over: {:?}", hidden);
    }

    #[test]
    fn a_single_file_holds_each_record_once_in_order(steps in steps(1), compression in compression()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("all.txt{}", compression.suffix()));
        let sink: SingleFile<LineEncoder> = SingleFile::lines(&path);
        run(&sink, folder.path(), 1, steps, true)?;
        prop_assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), [path], "nothing else is left");
    }
}

#[test]
fn another_job_that_starts_from_the_same_snapshot_leaves_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sink: FileSink<u64, LineEncoder> = FileSink::lines(folder.path());
    let fresh = || MemoryState::new(MemoryKind::AllRows, 0, 1, 128);
    let mut first = sinking(&sink, 1, fresh()).unwrap();
    first.push(vec![1]);
    let snapshot = first.barrier(1);
    first.push(vec![2]);
    let restored = MemoryState::restored_from(&[snapshot], MemoryKind::AllRows, 0, 1, 128);
    let mut second = sinking(&sink, 2, restored).unwrap();
    second.push(vec![20]);
    assert_eq!(visible(folder.path()), [1], "what the snapshot holds is committed by whoever starts from it");
    // The first goes on, and its commit finds its file committed.
    first.task.snapshots.completed(1).unwrap();
    first.finish(2);
    second.finish(2);
    assert_eq!(visible(folder.path()), [1, 2, 20]);
}

#[test]
fn a_single_file_whose_part_is_gone_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let sink: SingleFile<LineEncoder> = SingleFile::lines(folder.path().join("all"));
    let mut first = sinking(&sink, 1, MemoryState::new(MemoryKind::AllRows, 0, 1, 128)).unwrap();
    first.push(vec![1]);
    let snapshot = first.barrier(1);
    first.finish(2);
    assert_eq!(visible(folder.path()), [1]);
    let restored = MemoryState::restored_from(&[snapshot], MemoryKind::AllRows, 0, 1, 128);
    let error = sinking(&sink, 1, restored).err().unwrap().to_string();
    assert!(error.contains("the snapshot needs '") && error.contains(".all.inprogress."), "{error}");
}

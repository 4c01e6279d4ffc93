//! Tests of the bounded operators, one file a subject.

mod congestion;
mod joining;
mod keyed;
mod snapshots;
mod sorting;
mod spilling;

use std::path::Path;

use flott_schema::graph::ExecutionMode;
use tempfile::TempDir;

use crate::batch::Record;
use crate::context::{OperatorContext, Settings};
use crate::element::{MAX_WATERMARK, Signal};
use crate::harness::{Harness, HarnessBuilder};
use crate::operator::Operator;
use crate::stage::Flow;
use crate::two_input::TwoInputOperator;

/// Room for everything the tests hold.
const PLENTY: usize = 64 << 20;

fn settings(memory_bytes: usize, scratch: &Path) -> Settings {
    Settings {
        batch_size: 8,
        operator_memory_bytes: memory_bytes,
        mode: ExecutionMode::Batch,
        scratch: scratch.to_path_buf(),
        ..Settings::default()
    }
}

/// A context for what is tested without a harness.
fn context(scratch: &Path) -> OperatorContext {
    let task = crate::context::TaskContext::new("job", "vertex", 0, 1, 128, settings(PLENTY, scratch));
    OperatorContext::new(std::rc::Rc::new(task), "Tested Operator", "uid")
}

fn files(scratch: &TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(scratch.path()).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The results of a one-input operator that gets `records` in batches of five, with timestamps counting from 0.
fn results_of<I: Record, O: Record, Op: Operator<In = I, Out = O> + 'static>(
    records: &[I],
    memory_bytes: usize,
    make: impl Fn(&OperatorContext) -> flott_schema::Result<Op>,
) -> Vec<(O, i64)> {
    let scratch = tempfile::tempdir().unwrap();
    let mut harness = HarnessBuilder::new(settings(memory_bytes, scratch.path())).one_input(make).unwrap();
    for (index, batch) in records.chunks(5).enumerate() {
        let timed = batch.iter().cloned().zip(index as i64 * 5..);
        harness.push_all(timed).unwrap();
        harness.watermark(index as i64 * 5).unwrap();
    }
    let results = drain(&mut harness);
    harness.task().close().unwrap();
    drop(harness);
    assert_eq!(files(&scratch), Vec::<std::path::PathBuf>::new(), "temporary files are deleted");
    results
}

/// The results of a two-input operator, whose left timestamps count from 0 and right ones from 1000.
fn results_of_two<L: Record, R: Record, O: Record, Op>(
    lefts: &[L],
    rights: &[R],
    memory_bytes: usize,
    make: impl FnOnce(&OperatorContext) -> flott_schema::Result<Op>,
) -> Vec<(O, i64)>
where
    Op: TwoInputOperator<Left = L, Right = R, Out = O> + 'static,
{
    let scratch = tempfile::tempdir().unwrap();
    let mut harness = HarnessBuilder::new(settings(memory_bytes, scratch.path())).two_inputs(make).unwrap();
    for index in 0..lefts.len().max(rights.len()) {
        if let Some(left) = lefts.get(index) {
            harness.push(left.clone(), index as i64).unwrap();
        }
        if let Some(right) = rights.get(index) {
            harness.push_right(right.clone(), 1000 + index as i64).unwrap();
        }
    }
    let results = drain(&mut harness);
    harness.task().close().unwrap();
    drop(harness);
    assert_eq!(files(&scratch), Vec::<std::path::PathBuf>::new(), "temporary files are deleted");
    results
}

/// Ends the input while the outputs are congested: everything must come, in small pieces, and the final watermark
/// behind it.
fn drain<L: Record, R: Record, O: Record>(harness: &mut Harness<L, R, O>) -> Vec<(O, i64)> {
    harness.context().task.congestion.block();
    assert_eq!(harness.task().signal(Signal::Watermark(MAX_WATERMARK)).unwrap(), Flow::Done);
    let mut results = harness.take();
    loop {
        let flow = harness.task().signal(Signal::EndOfInput).unwrap();
        let piece = harness.take();
        assert!(piece.len() <= 8, "a congested operator emitted {} records in one call", piece.len());
        results.extend(piece);
        if flow == Flow::Done {
            break;
        }
        assert_eq!(harness.take_signals(), [], "a signal overtook results");
    }
    harness.context().task.congestion.unblock();
    assert_eq!(harness.take_signals(), [Signal::Watermark(MAX_WATERMARK), Signal::EndOfInput]);
    results
}

//! Source tasks over snapshots.

use std::cell::RefCell;
use std::task::Waker;

use super::*;
use crate::context::{Settings, TaskContext};
use crate::element::Barrier;
use crate::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use crate::snapshot::Snapshots;

/// Reads ranges of numbers, three at a time.
#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl SourceReader for Ranges {
    type Record = u64;
    type Split = (u64, u64);

    fn add_split(&mut self, split: (u64, u64)) -> Result<()> {
        self.0.push(split);
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<u64>> {
        let Some((next, end)) = self.0.first_mut() else { return Ok(Poll::Ready(None)) };
        let upto = (*next + 3).min(*end);
        let batch = Batch::of((*next..upto).collect());
        *next = upto;
        if upto == *end {
            self.0.remove(0);
        }
        Ok(Poll::Ready(Some(batch)))
    }

    fn snapshot(&self) -> Vec<(u64, u64)> {
        self.0.clone()
    }
}

/// Keeps what comes, and is congested when told so.
#[derive(Default)]
struct Seen {
    records: Vec<u64>,
    signals: Vec<Signal>,
    again: usize,
}

struct Keep(Rc<RefCell<Seen>>);

impl Stage<Batch<u64>> for Keep {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<u64>) -> Result<()> {
        self.0.borrow_mut().records.extend(batch.records);
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        let mut seen = self.0.borrow_mut();
        if seen.again > 0 {
            seen.again -= 1;
            return Ok(Flow::Again);
        }
        seen.signals.push(signal);
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

struct Running {
    task: SourceTask<Ranges>,
    state: Rc<MemoryState>,
    seen: Rc<RefCell<Seen>>,
}

fn running(state: Rc<MemoryState>, finished: bool) -> Running {
    let (subtask, parallelism, max_parallelism) = state.place();
    let mut task =
        TaskContext::new("job", "vertex", subtask, parallelism, max_parallelism, Settings::default());
    task.snapshots = Snapshots::new(state.clone(), finished);
    let ctx = OperatorContext::new(Rc::new(task), "source", "source");
    let seen = Rc::<RefCell<Seen>>::default();
    let mut task = SourceTask::new(Ranges::default(), Box::new(Keep(seen.clone())), ctx);
    task.open().unwrap();
    Running { task, state, seen }
}

impl Running {
    fn read(&mut self) -> Read {
        let mut cx = Context::from_waker(Waker::noop());
        match self.task.read(&mut cx).unwrap() {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("nothing to wait for"),
        }
    }

    fn add(&mut self, split: (u64, u64)) {
        let mut bytes = Vec::new();
        encode_value(&split, &mut bytes).unwrap();
        self.task.add_split(Some(&bytes)).unwrap();
    }

    fn barrier(&mut self, checkpoint: u64) -> MemorySnapshot {
        self.state.begin(checkpoint);
        let barrier = Signal::Barrier(Barrier::of_checkpoint(checkpoint));
        while self.task.signal(barrier).unwrap() == Flow::Again {}
        self.state.snapshot(checkpoint).unwrap()
    }

    fn read_all(mut self) -> Vec<u64> {
        while self.read() == Read::Batch {}
        std::mem::take(&mut self.seen.borrow_mut().records)
    }
}

#[test]
fn splits_are_handed_in_with_the_position_behind_what_was_pushed_and_dealt_out_to_more_tasks() {
    let mut source = running(MemoryState::new(MemoryKind::AllRows, 0, 1, 128), false);
    source.add((0, 7));
    source.add((100, 105));
    assert_eq!(source.read(), Read::Batch);
    source.seen.borrow_mut().again = 2;
    let snapshot = source.barrier(1);
    assert_eq!(source.seen.borrow().signals.len(), 1);
    assert_eq!(source.read(), Read::Batch);
    let part = |subtask| {
        let parts = std::slice::from_ref(&snapshot);
        running(MemoryState::restored_from(parts, MemoryKind::AllRows, subtask, 2, 128), false).read_all()
    };
    assert_eq!([part(0), part(1)], [vec![3, 4, 5, 6], vec![100, 101, 102, 103, 104]]);
}

#[test]
fn a_source_that_had_finished_reads_nothing_and_ends() {
    let mut source = running(MemoryState::new(MemoryKind::AllRows, 0, 1, 128), false);
    source.add((0, 7));
    let snapshot = source.barrier(1);
    let state = MemoryState::restored_from(&[snapshot], MemoryKind::AllRows, 0, 1, 128);
    let mut finished = running(state, true);
    assert_eq!(finished.read(), Read::Ended);
    finished.barrier(2);
    assert_eq!(finished.seen.borrow().signals.len(), 1);
    assert!(finished.seen.borrow().records.is_empty());
}

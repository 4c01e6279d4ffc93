//! Sinks over snapshots that complete, do not, and are started from.

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::context::{Settings, TaskContext};
use crate::element::Barrier;
use crate::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use crate::snapshot::Snapshots;

/// What everybody sees.
type World = Rc<RefCell<BTreeSet<Pieces>>>;

/// Records under an id that makes a second commit the same as the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Pieces {
    id: u64,
    records: Vec<u64>,
}

struct Writing {
    open: Vec<u64>,
    ended: Rc<Cell<bool>>,
    ids: Rc<RefCell<u64>>,
    restored: Vec<Vec<u8>>,
}

impl SinkWriter<u64> for Writing {
    type Committable = Pieces;

    fn write(&mut self, batch: Batch<u64>) -> Result<()> {
        self.open.extend(batch.records);
        Ok(())
    }

    fn prepare_commit(&mut self, end_of_input: bool) -> Result<Vec<Pieces>> {
        self.ended.set(end_of_input);
        if self.open.is_empty() {
            return Ok(Vec::new());
        }
        let id = *self.ids.borrow();
        *self.ids.borrow_mut() += 1;
        Ok(vec![Pieces { id, records: std::mem::take(&mut self.open) }])
    }

    fn snapshot(&mut self, checkpoint: u64) -> Result<Vec<Vec<u8>>> {
        let mut items = self.restored.clone();
        items.push(checkpoint.to_le_bytes().to_vec());
        Ok(items)
    }
}

struct Showing {
    world: World,
    restored: Rc<RefCell<usize>>,
}

impl Committer for Showing {
    type Committable = Pieces;

    fn commit(&mut self, committables: Vec<Pieces>) -> Result<()> {
        self.world.borrow_mut().extend(committables);
        Ok(())
    }

    fn commit_restored(&mut self, committables: Vec<Pieces>) -> Result<()> {
        *self.restored.borrow_mut() += committables.len();
        self.commit(committables)
    }
}

/// A sink with its task, and the world.
struct Sinking {
    stage: SinkStage<Writing, Showing>,
    task: Rc<TaskContext>,
    state: Rc<MemoryState>,
    restored: Rc<RefCell<usize>>,
    /// Whether the writer was told at the last barrier that the input has ended.
    ended: Rc<Cell<bool>>,
}

fn sinking(world: &World, ids: &Rc<RefCell<u64>>, state: Rc<MemoryState>, finished: bool) -> Sinking {
    let (subtask, parallelism, max_parallelism) = state.place();
    let mut task =
        TaskContext::new("job", "vertex", subtask, parallelism, max_parallelism, Settings::default());
    task.snapshots = Snapshots::new(state.clone(), finished);
    let task = Rc::new(task);
    let ctx = OperatorContext::new(task.clone(), "sink", "sink");
    let (ids, restored) = (ids.clone(), Rc::<RefCell<usize>>::default());
    let ended = Rc::<Cell<bool>>::default();
    let told = ended.clone();
    let make: MakeWriter<Writing> =
        Box::new(move |_, restored| Ok(Writing { open: Vec::new(), ended: told, ids, restored }));
    let committer = Showing { world: world.clone(), restored: restored.clone() };
    let mut stage = SinkStage::new(make, committer, ctx);
    stage.open().unwrap();
    Sinking { stage, task, state, restored, ended }
}

fn fresh(world: &World) -> Sinking {
    sinking(world, &Rc::default(), MemoryState::new(MemoryKind::AllRows, 0, 1, 128), false)
}

impl Sinking {
    fn push(&mut self, record: u64) {
        self.stage.push(Batch::of(vec![record])).unwrap();
    }

    fn barrier(&mut self, checkpoint: u64) -> MemorySnapshot {
        self.state.begin(checkpoint);
        let barrier = Signal::Barrier(Barrier::of_checkpoint(checkpoint));
        assert_eq!(Stage::<Batch<u64>>::signal(&mut self.stage, barrier).unwrap(), Flow::Done);
        self.state.snapshot(checkpoint).unwrap()
    }

    fn end(&mut self) {
        assert_eq!(Stage::<Batch<u64>>::signal(&mut self.stage, Signal::EndOfInput).unwrap(), Flow::Done);
    }

    fn last_snapshot(&mut self, checkpoint: u64) -> MemorySnapshot {
        self.state.begin(checkpoint);
        self.task.snapshots.last_snapshot(&Barrier::of_checkpoint(checkpoint)).unwrap();
        self.state.snapshot(checkpoint).unwrap()
    }
}

fn visible(world: &World) -> Vec<u64> {
    let mut all: Vec<u64> = world.borrow().iter().flat_map(|pieces| pieces.records.clone()).collect();
    all.sort_unstable();
    all
}

#[test]
fn what_was_prepared_is_committed_when_its_snapshot_or_a_later_one_is_complete() {
    let world = World::default();
    let mut sink = fresh(&world);
    for checkpoint in 1..=3 {
        sink.push(checkpoint);
        sink.barrier(checkpoint);
    }
    sink.push(4);
    assert_eq!(visible(&world), [0; 0]);
    assert!(sink.task.snapshots.has_uncommitted());
    sink.task.snapshots.completed(2).unwrap();
    assert_eq!(visible(&world), [1, 2], "snapshot 1 did not complete, and what it holds is in 2");
    sink.task.snapshots.completed(3).unwrap();
    assert_eq!(visible(&world), [1, 2, 3]);
    assert!(!sink.task.snapshots.has_uncommitted());
}

#[test]
fn the_end_of_the_input_waits_for_a_last_snapshot() {
    let world = World::default();
    let mut sink = fresh(&world);
    sink.push(1);
    sink.barrier(1);
    sink.push(2);
    sink.end();
    sink.task.snapshots.completed(1).unwrap();
    assert_eq!(visible(&world), [1], "what came behind the barrier is not in that snapshot");
    assert!(sink.task.snapshots.has_uncommitted());
    sink.last_snapshot(2);
    let last = sink.last_snapshot(3);
    sink.task.snapshots.completed(3).unwrap();
    assert_eq!(visible(&world), [1, 2]);
    assert!(!sink.task.snapshots.has_uncommitted());

    // The job starts from there: everything is committed once more, nothing is written.
    let world = World::default();
    let state = MemoryState::restored_from(&[last], MemoryKind::AllRows, 0, 1, 128);
    let mut sink = sinking(&world, &Rc::default(), state, true);
    assert_eq!((visible(&world), *sink.restored.borrow()), (vec![2], 1));
    sink.barrier(4);
    sink.end();
    assert!(!sink.task.snapshots.has_uncommitted());
}

#[test]
fn restored_committables_are_committed_before_any_record_and_writers_get_their_state() {
    let world = World::default();
    let mut sink = fresh(&world);
    sink.push(1);
    let parts = [sink.barrier(1), sink.barrier(2)];
    let state = MemoryState::restored_from(&parts[1..], MemoryKind::AllRows, 0, 1, 128);
    let mut again = sinking(&world, &Rc::new(RefCell::new(100)), state, false);
    assert_eq!(visible(&world), [1]);
    let items = |snapshot: &MemorySnapshot| {
        let sink = snapshot.operators.values().next().unwrap();
        sink.lists["writer"].items.clone()
    };
    assert_eq!(items(&again.barrier(3)), [2u64.to_le_bytes(), 3u64.to_le_bytes()]);
}

#[test]
fn a_barrier_that_drains_is_the_end_of_the_input_for_a_writer() {
    for (after, ended) in
        [(AfterBarrier::GoOn, false), (AfterBarrier::Suspend, false), (AfterBarrier::Drain, true)]
    {
        let world = World::default();
        let mut sink = fresh(&world);
        sink.push(1);
        sink.state.begin(1);
        let barrier = Signal::Barrier(Barrier { after, ..Barrier::of_checkpoint(1) });
        assert_eq!(Stage::<Batch<u64>>::signal(&mut sink.stage, barrier).unwrap(), Flow::Done);
        assert_eq!(sink.ended.get(), ended, "{after:?}");
        sink.task.snapshots.completed(1).unwrap();
        assert_eq!(visible(&world), [1]);
    }
}

#[test]
fn without_snapshots_the_end_of_the_input_commits() {
    let world = World::default();
    let task = Rc::new(TaskContext::new("job", "vertex", 0, 1, 128, Settings::default()));
    let ctx = OperatorContext::new(task.clone(), "sink", "sink");
    let make: MakeWriter<Writing> = Box::new(|_, restored| {
        Ok(Writing { open: Vec::new(), ended: Rc::default(), ids: Rc::default(), restored })
    });
    let mut stage = SinkStage::new(make, Showing { world: world.clone(), restored: Rc::default() }, ctx);
    stage.open().unwrap();
    stage.push(Batch::of(vec![7])).unwrap();
    assert_eq!(Stage::<Batch<u64>>::signal(&mut stage, Signal::EndOfInput).unwrap(), Flow::Done);
    assert_eq!(visible(&world), [7]);
    assert!(!task.snapshots.has_uncommitted());
}

/// A job without checkpoints: sinks do not commit with a savepoint beside which it goes on, and no checkpoint follows.
#[test]
fn what_was_prepared_for_a_savepoint_is_committed_at_the_end_of_a_job_without_checkpoints() {
    let (world, state) = (World::default(), MemoryState::new(MemoryKind::AllRows, 0, 1, 128));
    let mut task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
    task.snapshots = Snapshots::new(state.clone(), false).on_demand();
    let task = Rc::new(task);
    let ctx = OperatorContext::new(task.clone(), "sink", "sink");
    let make: MakeWriter<Writing> = Box::new(|_, restored| {
        Ok(Writing { open: Vec::new(), ended: Rc::default(), ids: Rc::default(), restored })
    });
    let mut stage = SinkStage::new(make, Showing { world: world.clone(), restored: Rc::default() }, ctx);
    stage.open().unwrap();
    stage.push(Batch::of(vec![1])).unwrap();
    state.begin(1);
    let barrier = Signal::Barrier(Barrier::of_checkpoint(1));
    assert_eq!(Stage::<Batch<u64>>::signal(&mut stage, barrier).unwrap(), Flow::Done);
    stage.push(Batch::of(vec![2])).unwrap();
    assert_eq!(Stage::<Batch<u64>>::signal(&mut stage, Signal::EndOfInput).unwrap(), Flow::Done);
    assert_eq!(visible(&world), [1, 2]);
    assert!(!task.snapshots.has_uncommitted(), "or the task would wait for ever");
}

/// What happens to a job.
#[derive(Clone, Debug)]
enum Step {
    Record,
    Barrier,
    /// The last snapshot completes; tasks with this bit not set do not hear of it.
    Complete(u8),
    /// Everything is lost and starts from the last complete snapshot with so many tasks.
    Crash(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Record),
        3 => Just(Step::Barrier),
        3 => any::<u8>().prop_map(Step::Complete),
        1 => (1..4u32).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn each_record_is_visible_once_whatever_completes_and_crashes(steps in steps()) {
        let (world, ids) = (World::default(), Rc::<RefCell<u64>>::default());
        let start = |parts: &[MemorySnapshot], parallelism: u32| -> Vec<Sinking> {
            let state = |subtask| match parts.is_empty() {
                true => MemoryState::new(MemoryKind::AllRows, subtask, parallelism, 128),
                false => MemoryState::restored_from(parts, MemoryKind::AllRows, subtask, parallelism, 128),
            };
            (0..parallelism).map(|subtask| sinking(&world, &ids, state(subtask), false)).collect()
        };
        let mut sinks = start(&[], 2);
        let (mut next, mut checkpoint) = (0u64, 0u64);
        // The newest snapshot taken, and the newest complete one: position of the source, and what was handed in.
        let mut taken: Option<(u64, Vec<MemorySnapshot>)> = None;
        let mut complete: (u64, Vec<MemorySnapshot>) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Record => {
                    let task = next as usize % sinks.len();
                    sinks[task].push(next);
                    next += 1;
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
                Step::Crash(parallelism) => {
                    taken = None;
                    next = complete.0;
                    sinks = start(&complete.1, parallelism);
                }
            }
            let seen = visible(&world);
            prop_assert!(seen.iter().all(|record| *record < complete.0), "nothing is visible too early");
            let mut once = seen.clone();
            once.dedup();
            prop_assert_eq!(once, seen, "no record is visible twice");
        }
        for sink in &mut sinks {
            sink.end();
            sink.last_snapshot(checkpoint + 1);
            sink.task.snapshots.completed(checkpoint + 1).unwrap();
        }
        prop_assert_eq!(visible(&world), (0..next).collect::<Vec<_>>());
    }
}

//! Writers and their one committer over snapshots that complete, do not, and are started from.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use flott_schema::ids::JobId;
use proptest::prelude::*;

use super::*;
use crate::context::{Settings, TaskContext};
use crate::element::Barrier;
use crate::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use crate::operators::sink::{MakeWriter, SinkStage};
use crate::sink::{Committer, SinkWriter};
use crate::snapshot::{AfterBarrier, Snapshots};

/// What everybody sees: by commit.
type World = Rc<RefCell<BTreeMap<CommitId, BTreeSet<Pieces>>>>;

/// Records under an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Pieces {
    id: u64,
    records: Vec<u64>,
}

struct Writing {
    open: Vec<u64>,
    ids: Rc<Cell<u64>>,
}

impl SinkWriter<u64> for Writing {
    type Committable = Pieces;

    fn write(&mut self, batch: Batch<u64>) -> Result<()> {
        self.open.extend(batch.records);
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<Pieces>> {
        let records = std::mem::take(&mut self.open);
        let id = self.ids.replace(self.ids.get() + 1);
        Ok(if records.is_empty() { Vec::new() } else { vec![Pieces { id, records }] })
    }
}

/// The committer of a task, which has nothing to do.
struct Unused;

impl Committer for Unused {
    type Committable = Pieces;

    fn commit(&mut self, committables: Vec<Pieces>) -> Result<()> {
        assert!(committables.is_empty(), "they belong to the global committer");
        Ok(())
    }
}

struct Showing(World);

impl GlobalCommitter for Showing {
    type Committable = Pieces;

    fn commit(&mut self, id: CommitId, committables: Vec<Pieces>) -> Result<()> {
        let committables: BTreeSet<Pieces> = committables.into_iter().collect();
        assert!(!committables.is_empty());
        let seen = self.0.borrow_mut().insert(id, committables.clone());
        assert!(seen.is_none_or(|seen| seen == committables), "{id:?} is something else the second time");
        Ok(())
    }
}

/// A channel from a writer to the committer.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<VecDeque<Passing>>>);

enum Passing {
    Batch(Batch<Prepared>),
    Signal(Signal),
}

impl Stage<Batch<Prepared>> for Wire {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<Prepared>) -> Result<()> {
        self.0.borrow_mut().push_back(Passing::Batch(batch));
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        self.0.borrow_mut().push_back(Passing::Signal(signal));
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

fn context(state: &Rc<MemoryState>, finished: bool, name: &str) -> OperatorContext {
    let (subtask, parallelism, max_parallelism) = state.place();
    let mut task =
        TaskContext::new("job", "vertex", subtask, parallelism, max_parallelism, Settings::default());
    task.snapshots = Snapshots::new(state.clone(), finished);
    OperatorContext::new(Rc::new(task), name, name)
}

/// A writer with its task, and its channel.
struct WriterTask {
    stage: SinkStage<Writing, Unused>,
    ctx: OperatorContext,
    state: Rc<MemoryState>,
    wire: Wire,
    ended: bool,
    /// The barrier that the committer has taken from the channel, and does not look behind.
    barrier: u64,
    /// The committer has seen its end.
    end_seen: bool,
}

/// Writers and their committer: a job without its sources.
struct Job {
    writers: Vec<WriterTask>,
    stage: GlobalCommitStage<Pieces>,
    ctx: OperatorContext,
    state: Rc<MemoryState>,
    /// The last barrier that has passed the committer.
    passed: u64,
    ended: bool,
    had_finished: bool,
    /// What the committer has handed in.
    handed_in: BTreeMap<u64, Part>,
}

/// A task's part of a snapshot.
#[derive(Clone)]
struct Part {
    state: MemorySnapshot,
    finished: bool,
}

/// A snapshot: where the source was, the parts of the writers and of the committer.
#[derive(Clone)]
struct Complete {
    position: u64,
    writers: Vec<Part>,
    committer: Part,
}

impl Job {
    fn start(world: &World, ids: &Rc<Cell<u64>>, parallelism: u32, from: Option<&Complete>) -> Job {
        let kind = MemoryKind::AllRows;
        let state = |parts: &[&Part], subtask, parallelism| match from {
            None => MemoryState::new(kind, subtask, parallelism, 128),
            Some(_) => {
                let parts: Vec<MemorySnapshot> = parts.iter().map(|part| part.state.clone()).collect();
                MemoryState::restored_from(&parts, kind, subtask, parallelism, 128)
            }
        };
        let parts: Vec<&Part> = from.iter().flat_map(|from| &from.writers).collect();
        let all = !parts.is_empty() && parts.iter().all(|part| part.finished);
        let writers = (0..parallelism).map(|subtask| {
            let same = parts.len() == parallelism as usize && parts[subtask as usize].finished;
            let ended = all || same;
            let state = state(&parts, subtask, parallelism);
            let ctx = context(&state, ended, "writer");
            let ids = ids.clone();
            let make: MakeWriter<Writing> = Box::new(|_, _| Ok(Writing { open: Vec::new(), ids }));
            let wire = Wire::default();
            let stage = SinkStage::new(make, Unused, ctx.clone());
            let mut stage = stage.with_global_committer(Box::new(wire.clone()));
            stage.open().unwrap();
            let mut writer =
                WriterTask { stage, ctx, state, wire, ended: false, barrier: 0, end_seen: false };
            if ended {
                writer.end();
            }
            writer
        });
        let writers = writers.collect();
        let part: Vec<&Part> = from.iter().map(|from| &from.committer).collect();
        let had_finished = part.iter().any(|part| part.finished);
        let state = state(&part, 0, 1);
        let ctx = context(&state, had_finished, "committer");
        let mut stage = GlobalCommitStage::new(Box::new(Showing(world.clone())), ctx.clone());
        stage.open().unwrap();
        let handed_in = BTreeMap::new();
        Job { writers, stage, ctx, state, passed: 0, ended: false, had_finished, handed_in }
    }

    /// The committer takes the next item of a channel, if it may.
    fn deliver(&mut self, channel: usize) -> bool {
        let writer = &mut self.writers[channel];
        if writer.barrier > self.passed {
            return false;
        }
        match writer.wire.0.borrow_mut().pop_front() {
            None => return false,
            Some(Passing::Batch(batch)) => self.stage.push(batch).unwrap(),
            Some(Passing::Signal(Signal::Barrier(barrier))) => writer.barrier = barrier.checkpoint,
            Some(Passing::Signal(Signal::EndOfInput)) => writer.end_seen = true,
            Some(Passing::Signal(_)) => {}
        }
        let live = self.writers.iter().filter(|writer| !writer.end_seen);
        let barriers: BTreeSet<u64> = live.map(|writer| writer.barrier).collect();
        if let (Some(barrier), 1) = (barriers.first().copied(), barriers.len())
            && barrier > self.passed
        {
            self.passed = barrier;
            self.state.begin(barrier);
            let signal = Signal::Barrier(Barrier::of_checkpoint(barrier));
            assert_eq!(self.stage.signal(signal).unwrap(), Flow::Done);
            let state = self.state.snapshot(barrier).unwrap();
            self.handed_in.insert(barrier, Part { state, finished: false });
        }
        if barriers.is_empty() && !std::mem::replace(&mut self.ended, true) {
            assert_eq!(self.stage.signal(Signal::EndOfInput).unwrap(), Flow::Done);
        }
        true
    }

    fn deliver_all(&mut self) {
        while (0..self.writers.len()).any(|channel| self.deliver(channel)) {}
    }

    /// Barriers leave the writers.
    fn barrier(&mut self, checkpoint: u64) -> Vec<Part> {
        let parts = self.writers.iter_mut().map(|writer| writer.barrier(checkpoint)).collect();
        if self.ended {
            // It takes part in the way of a task that has ended.
            let state = match self.had_finished || !self.ctx.task.snapshots.has_uncommitted() {
                true => MemorySnapshot::default(),
                false => {
                    self.state.begin(checkpoint);
                    self.ctx.task.snapshots.last_snapshot(&Barrier::of_checkpoint(checkpoint)).unwrap();
                    self.state.snapshot(checkpoint).unwrap()
                }
            };
            self.handed_in.insert(checkpoint, Part { state, finished: true });
        }
        parts
    }
}

impl WriterTask {
    fn push(&mut self, record: u64) {
        self.stage.push(Batch::of(vec![record])).unwrap();
    }

    fn signal(&mut self, signal: Signal) {
        assert_eq!(Stage::<Batch<u64>>::signal(&mut self.stage, signal).unwrap(), Flow::Done);
    }

    fn barrier(&mut self, checkpoint: u64) -> Part {
        if self.ended {
            assert!(!self.ctx.task.snapshots.has_uncommitted(), "nothing holds back the end of a writer");
            return Part { state: MemorySnapshot::default(), finished: true };
        }
        self.state.begin(checkpoint);
        self.signal(Signal::Barrier(Barrier::of_checkpoint(checkpoint)));
        Part { state: self.state.snapshot(checkpoint).unwrap(), finished: false }
    }

    fn end(&mut self) {
        self.ended = true;
        self.signal(Signal::EndOfInput);
    }
}

/// The records that are visible; each must be in one commit, in one piece.
fn visible(world: &World) -> Vec<u64> {
    let world = world.borrow();
    let mut all: Vec<u64> = world.values().flatten().flat_map(|pieces| pieces.records.clone()).collect();
    all.sort_unstable();
    all
}

/// What the commit for this checkpoint has made visible.
fn commit_of(world: &World, checkpoint: u64) -> Vec<u64> {
    let pieces = world.borrow().get(&CommitId { job: JobId(0), checkpoint }).cloned();
    let mut records: Vec<u64> = pieces.unwrap_or_default().into_iter().flat_map(|one| one.records).collect();
    records.sort_unstable();
    records
}

#[test]
fn what_all_writers_have_prepared_for_a_checkpoint_is_committed_together() {
    let world = World::default();
    let mut job = Job::start(&world, &Rc::default(), 2, None);
    for checkpoint in 1..=3 {
        job.writers[0].push(checkpoint * 10);
        job.writers[1].push(checkpoint * 10 + 1);
        job.barrier(checkpoint);
    }
    job.deliver_all();
    assert_eq!(visible(&world), [0; 0]);
    job.ctx.task.snapshots.completed(2).unwrap();
    assert_eq!((commit_of(&world, 1), commit_of(&world, 2)), (vec![10, 11], vec![20, 21]));
    assert!(job.ctx.task.snapshots.has_uncommitted());
    job.ctx.task.snapshots.completed(3).unwrap();
    assert_eq!(visible(&world), [10, 11, 20, 21, 30, 31]);
}

#[test]
fn what_a_writer_prepares_at_its_end_belongs_to_the_next_checkpoint() {
    let world = World::default();
    let mut job = Job::start(&world, &Rc::default(), 2, None);
    job.writers[0].push(1);
    job.writers[0].end();
    job.writers[1].push(2);
    let writers = job.barrier(1);
    job.deliver_all();
    let committer = job.handed_in[&1].clone();
    assert!(writers[0].finished && !writers[1].finished && !committer.finished);
    // The committer is lost before it hears of the end of the checkpoint, and so is the job.
    let from = Complete { position: 0, writers, committer };
    let mut job = Job::start(&world, &Rc::new(Cell::new(100)), 2, Some(&from));
    assert_eq!(commit_of(&world, 1), [1, 2]);
    job.writers[1].push(3);
    job.writers[1].end();
    job.deliver_all();
    assert!(job.ended && job.ctx.task.snapshots.has_uncommitted(), "it waits for a snapshot");
    job.barrier(2);
    job.ctx.task.snapshots.completed(2).unwrap();
    assert!(!job.ctx.task.snapshots.has_uncommitted());
    assert_eq!((commit_of(&world, 2), visible(&world)), (vec![3], vec![1, 2, 3]));
}

#[test]
fn a_barrier_that_ends_the_job_is_committed_with_its_checkpoint() {
    for after in [AfterBarrier::Suspend, AfterBarrier::Drain] {
        let world = World::default();
        let mut job = Job::start(&world, &Rc::default(), 1, None);
        job.writers[0].push(1);
        job.writers[0].state.begin(1);
        job.writers[0].signal(Signal::Barrier(Barrier { after, ..Barrier::of_checkpoint(1) }));
        job.deliver_all();
        job.ctx.task.snapshots.completed(1).unwrap();
        assert_eq!(visible(&world), [1]);
    }
}

#[test]
fn without_snapshots_the_end_of_the_input_commits_all_of_it_at_once() {
    let world = World::default();
    let task = Rc::new(TaskContext::new("job", "vertex", 0, 1, 128, Settings::default()));
    let ctx = OperatorContext::new(task, "committer", "committer");
    let mut stage = GlobalCommitStage::new(Box::new(Showing(world.clone())), ctx);
    stage.open().unwrap();
    for id in 0..2 {
        let mut committable = Vec::new();
        encode_value(&Pieces { id, records: vec![id] }, &mut committable).unwrap();
        stage.push(Batch::of(vec![Prepared { checkpoint: None, committable }])).unwrap();
    }
    assert_eq!(visible(&world), [0; 0]);
    assert_eq!(stage.signal(Signal::EndOfInput).unwrap(), Flow::Done);
    assert_eq!(commit_of(&world, CommitId::NO_CHECKPOINT), [0, 1]);
}

/// Items of this state are in savepoints.
#[test]
fn the_form_of_what_waits_never_changes() {
    let id = CommitId { job: JobId(0x0102), checkpoint: 300 };
    let mut item = Vec::new();
    encode_value(&Waiting { id, committable: Pieces { id: 7, records: vec![1, 2] } }, &mut item).unwrap();
    assert_eq!(item, [0x82, 0x02, 0xac, 0x02, 7, 2, 1, 2]);
    assert_eq!(GLOBAL_COMMITTABLES, "global-committables");
}

/// What happens to a job.
#[derive(Clone, Debug)]
enum Step {
    Record,
    Barrier,
    /// The committer takes an item from this channel.
    Deliver(usize),
    /// The last snapshot that all have handed in completes; the committer hears of it, or does not.
    Complete(bool),
    /// The input of this writer ends.
    End(usize),
    /// Everything is lost and starts from the last complete snapshot with so many writers.
    Crash(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Record),
        4 => Just(Step::Barrier),
        16 => (0..3usize).prop_map(Step::Deliver),
        4 => any::<bool>().prop_map(Step::Complete),
        1 => (0..3usize).prop_map(Step::End),
        2 => (1..4u32).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_record_is_in_one_commit_whatever_completes_ends_and_crashes(steps in steps()) {
        let (world, ids) = (World::default(), Rc::<Cell<u64>>::default());
        let mut job = Job::start(&world, &ids, 2, None);
        let (mut next, mut checkpoint) = (0u64, 0u64);
        let mut taken: BTreeMap<u64, (u64, Vec<Part>)> = BTreeMap::new();
        let mut complete: Option<Complete> = None;
        for step in steps {
            match step {
                Step::Record => {
                    let mut live: Vec<_> = job.writers.iter_mut().filter(|writer| !writer.ended).collect();
                    if !live.is_empty() {
                        let writer = next as usize % live.len();
                        live[writer].push(next);
                        next += 1;
                    }
                }
                Step::Barrier => {
                    checkpoint += 1;
                    taken.insert(checkpoint, (next, job.barrier(checkpoint)));
                }
                Step::Deliver(channel) => drop(job.deliver(channel % job.writers.len())),
                Step::Complete(heard) => {
                    let there = |checkpoint: &u64| job.handed_in.contains_key(checkpoint);
                    let Some(newest) = taken.keys().rev().find(|one| there(one)).copied() else { continue };
                    let (position, writers) = taken[&newest].clone();
                    complete = Some(Complete { position, writers, committer: job.handed_in[&newest].clone() });
                    taken = taken.split_off(&(newest + 1));
                    if heard {
                        job.ctx.task.snapshots.completed(newest).unwrap();
                    }
                }
                Step::End(writer) => {
                    let writers = job.writers.len();
                    let writer = &mut job.writers[writer % writers];
                    if !writer.ended {
                        writer.end();
                    }
                }
                Step::Crash(parallelism) => {
                    taken.clear();
                    next = complete.as_ref().map_or(0, |complete| complete.position);
                    job = Job::start(&world, &ids, parallelism, complete.as_ref());
                }
            }
            let seen = visible(&world);
            let position = complete.as_ref().map_or(0, |complete| complete.position);
            prop_assert!(seen.iter().all(|record| *record < position), "nothing is visible too early");
            let mut once = seen.clone();
            once.dedup();
            prop_assert_eq!(once, seen, "no record is visible twice");
        }
        job.writers.iter_mut().filter(|writer| !writer.ended).for_each(WriterTask::end);
        job.deliver_all();
        job.barrier(checkpoint + 1);
        job.ctx.task.snapshots.completed(checkpoint + 1).unwrap();
        prop_assert!(!job.ctx.task.snapshots.has_uncommitted());
        prop_assert_eq!(visible(&world), (0..next).collect::<Vec<_>>());
    }
}

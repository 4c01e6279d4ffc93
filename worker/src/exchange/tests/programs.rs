//! Sources, sinks and programs of the tests.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use flott_dataflow::api::{DataStream, StreamEnv};
use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::program::{Program, RuntimeMode};
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_schema::Result;

/// The numbers below `splits * per_split`, in splits of equal length.
#[derive(Clone)]
pub struct Numbers {
    pub splits: u64,
    pub per_split: u64,
    /// How many splits are given; for others readers wait in vain.
    pub released: u64,
}

impl Source for Numbers {
    type Record = u64;
    type Split = (u64, u64);
    type Enumerator = Ranges;
    type Reader = Reader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> Result<Ranges> {
        Ok(Ranges { source: self.clone(), next: 0, asked: 0 })
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<Reader> {
        Ok(Reader { left: 0..0 })
    }
}

#[derive(Clone)]
pub struct Ranges {
    source: Numbers,
    next: u64,
    asked: u64,
}

impl SplitEnumerator for Ranges {
    type Split = (u64, u64);

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<(u64, u64)>> {
        self.asked += 1;
        let Numbers { splits, released, .. } = self.source;
        if self.asked.is_multiple_of(3) || (self.next == released && released < splits) {
            return Ok(Assignment::Later(1));
        }
        if self.next == self.source.splits {
            return Ok(Assignment::NoMore);
        }
        self.next += 1;
        Ok(Assignment::Split(((self.next - 1) * self.source.per_split, self.next * self.source.per_split)))
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        Ok(self.next.to_le_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.next = u64::from_le_bytes(state.try_into().expect("eight bytes"));
        Ok(())
    }
}

pub struct Reader {
    left: std::ops::Range<u64>,
}

impl SourceReader for Reader {
    type Record = u64;
    type Split = (u64, u64);

    fn add_split(&mut self, (start, end): (u64, u64)) -> Result<()> {
        assert!(self.left.is_empty(), "a split is asked for when there is none");
        self.left = start..end;
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<u64>> {
        let records: Vec<u64> = self.left.by_ref().take(max_records).collect();
        Ok(Poll::Ready((!records.is_empty()).then(|| Batch::of(records))))
    }

    fn snapshot(&self) -> Vec<(u64, u64)> {
        if self.left.is_empty() { Vec::new() } else { vec![(self.left.start, self.left.end)] }
    }
}

/// What the tasks of a sink have written, and which of them take nothing for now.
pub struct Sunk<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    /// With the subtask that wrote it.
    records: Vec<(u32, T)>,
    stalled: Option<u32>,
    waker: Option<Waker>,
}

impl<T> Clone for Sunk<T> {
    fn clone(&self) -> Self {
        Sunk { inner: self.inner.clone() }
    }
}

impl<T: Clone> Sunk<T> {
    pub fn new() -> Self {
        Sunk { inner: Arc::new(Mutex::new(Inner { records: Vec::new(), stalled: None, waker: None })) }
    }

    pub fn stall(&self, subtask: u32) {
        self.inner.lock().unwrap().stalled = Some(subtask);
    }

    pub fn go_on(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.stalled = None;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    pub fn of(&self, subtask: u32) -> Vec<T> {
        let inner = self.inner.lock().unwrap();
        inner.records.iter().filter(|(by, _)| *by == subtask).map(|(_, record)| record.clone()).collect()
    }

    pub fn sorted(&self) -> Vec<T>
    where
        T: Ord,
    {
        let mut records: Vec<T> =
            self.inner.lock().unwrap().records.iter().map(|(_, record)| record.clone()).collect();
        records.sort();
        records
    }
}

impl<T: Record> Sink<T> for Sunk<T> {
    type Committable = ();
    type Writer = Writer<T>;
    type Committer = NothingToCommit;

    fn writer(&self, ctx: &OperatorContext) -> Result<Writer<T>> {
        Ok(Writer { sunk: self.clone(), subtask: ctx.task.subtask })
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

pub struct Writer<T> {
    sunk: Sunk<T>,
    subtask: u32,
}

impl<T: Record> SinkWriter<T> for Writer<T> {
    type Committable = ();

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        let mut inner = self.sunk.inner.lock().unwrap();
        let subtask = self.subtask;
        inner.records.extend(batch.records.into_iter().map(|record| (subtask, record)));
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>> {
        let mut inner = self.sunk.inner.lock().unwrap();
        if inner.stalled == Some(self.subtask) {
            inner.waker = Some(cx.waker().clone());
            return Ok(Poll::Pending);
        }
        Ok(Poll::Ready(()))
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

/// A program over the numbers below 20,000 in 40 splits, with four tasks each; operators are not chained, so that every
/// edge crosses executors where it can.
pub fn program<T: Record>(
    mode: RuntimeMode,
    sunk: &Sunk<T>,
    build: impl FnOnce(DataStream<u64>) -> DataStream<T>,
) -> Program {
    released_program(mode, sunk, 40, build)
}

/// The same, with so many splits of them; others never come.
pub fn released_program<T: Record>(
    mode: RuntimeMode,
    sunk: &Sunk<T>,
    splits: u64,
    build: impl FnOnce(DataStream<u64>) -> DataStream<T>,
) -> Program {
    let env = StreamEnv::new();
    env.set_parallelism(4).set_runtime_mode(mode).disable_operator_chaining();
    // Small batches, so that there are many.
    env.configure(|options| options.settings.batch_size = 64);
    let numbers = env.add_source(Numbers { splits: 40, per_split: 500, released: splits }, "numbers");
    build(numbers).sink_to(sunk.clone(), "sunk");
    env.compile("test").unwrap()
}

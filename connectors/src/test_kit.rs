//! Runs a source without a runtime: for the tests of this crate.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::{OperatorContext, Settings, TaskContext};
use flott_dataflow::source::{
    Assignment, EnumeratorBox, ErasedEnumerator, Source, SourceReader, SplitEnumerator,
};

/// The context of one task.
pub fn context(subtask: u32, parallelism: u32) -> OperatorContext {
    let task = TaskContext::new("job", "vertex", subtask, parallelism, 128, Settings::default());
    OperatorContext::new(Rc::new(task), "operator", "uid")
}

/// A source with its enumerator and one reader of several, driven as the runtime does; splits go over the wire.
pub struct Driver<S: Source> {
    enumerator: EnumeratorBox<S::Enumerator>,
    /// The readers; `None` where one was told that there are no more splits and has read all.
    readers: Vec<Option<S::Reader>>,
    no_more: Vec<bool>,
    /// The contexts of the readers, for their counters.
    pub contexts: Vec<OperatorContext>,
}

/// A snapshot of a source, as a job keeps it.
#[derive(Clone, Debug)]
pub struct SourceSnapshot {
    /// The readers' splits in their wire form.
    pub splits: Vec<Vec<u8>>,
    /// The enumerator's state.
    pub enumerator: Vec<u8>,
}

/// How far a job runs, and with how many readers, before it goes on from its snapshot.
#[derive(Clone, Debug)]
pub struct Run {
    readers: u32,
    /// The reader of each turn.
    turns: Vec<u8>,
    max: usize,
}

impl Run {
    /// The same with batches so many times larger.
    pub fn with_larger_batches(self, times: usize) -> Self {
        Run { max: self.max * times, ..self }
    }
}

/// Some runs, one after the other.
pub fn runs() -> impl Strategy<Value = Vec<Run>> {
    let run = (1..6u32, prop::collection::vec(any::<u8>(), 0..60), 1..40usize);
    prop::collection::vec(run.prop_map(|(readers, turns, max)| Run { readers, turns, max }), 1..4)
}

/// Whether a bounded source gives the same records, each once, however often it is stopped and goes on from a snapshot with more or
/// fewer readers, and whether taking a snapshot leaves it as it was.
pub fn check_runs<S: Source>(source: &S, runs: &[Run]) -> Result<(), TestCaseError>
where
    S::Record: Ord + std::fmt::Debug,
{
    check_runs_by(source, runs, |record| record)
}

/// The same for records that are compared by a key.
pub fn check_runs_by<S: Source, K: Ord + Clone + std::fmt::Debug>(
    source: &S,
    runs: &[Run],
    key: impl Fn(S::Record) -> K,
) -> Result<(), TestCaseError> {
    let mut expected: Vec<_> = drain(source, 100).into_iter().map(|(record, _)| key(record)).collect();
    expected.sort();
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = Vec::new();
    let mut snapshot: Option<SourceSnapshot> = None;
    for run in runs {
        let mut driver = match &snapshot {
            Some(snapshot) => Driver::restored(source, run.readers, snapshot),
            None => Driver::new(source, run.readers),
        };
        for reader in &run.turns {
            let reader = usize::from(*reader) % run.readers as usize;
            if let Turn::Batch(batch) = driver.turn(reader, run.max, &mut cx).unwrap() {
                read.extend(batch.into_iter().map(|(record, _)| key(record)));
            }
        }
        snapshot = Some(driver.snapshot());
        let mut rest = read.clone();
        rest.extend(driver.try_drain_all(run.max).unwrap().into_iter().map(&key));
        rest.sort();
        prop_assert_eq!(&rest, &expected, "a run that goes on behind its snapshot");
    }
    let readers = runs.last().map_or(1, |run| run.readers % 4 + 1);
    let mut driver = Driver::restored(source, readers, snapshot.as_ref().unwrap());
    read.extend(driver.try_drain_all(70).unwrap().into_iter().map(&key));
    read.sort();
    prop_assert_eq!(read, expected, "all runs together");
    Ok(())
}

/// What a reader did in its turn.
#[derive(Debug, PartialEq)]
pub enum Turn<T> {
    /// A batch, with timestamps.
    Batch(Vec<(T, i64)>),
    /// It got a split.
    GotSplit,
    /// No split for so many milliseconds.
    Later(u64),
    /// It waits for a wake-up.
    Pending,
    /// It has read all.
    Ended,
}

impl<S: Source> Driver<S> {
    /// `readers` readers without splits.
    pub fn new(source: &S, readers: u32) -> Self {
        let contexts: Vec<_> = (0..readers).map(|subtask| context(subtask, readers)).collect();
        Driver {
            enumerator: EnumeratorBox(source.enumerator(readers).unwrap()),
            readers: contexts.iter().map(|ctx| Some(source.reader(ctx).unwrap())).collect(),
            no_more: vec![false; readers as usize],
            contexts,
        }
    }

    /// What a snapshot holds: the readers' splits, and the enumerator's state.
    pub fn snapshot(&self) -> SourceSnapshot {
        let splits = self.readers.iter().flatten().flat_map(SourceReader::snapshot);
        let splits = splits.map(|split| {
            let mut bytes = Vec::new();
            encode_value(&split, &mut bytes).unwrap();
            bytes
        });
        SourceSnapshot { splits: splits.collect(), enumerator: self.enumerator.snapshot().unwrap() }
    }

    /// Readers and an enumerator that go on from a snapshot, the splits dealt out evenly.
    pub fn restored(source: &S, readers: u32, snapshot: &SourceSnapshot) -> Self {
        let mut driver = Self::new(source, readers);
        driver.enumerator.restore(&snapshot.enumerator).unwrap();
        for (index, split) in snapshot.splits.iter().enumerate() {
            let reader = driver.readers[index % readers as usize].as_mut().unwrap();
            reader.add_split(decode_value(split).unwrap()).unwrap();
        }
        driver
    }

    /// One turn of one reader.
    pub fn turn(
        &mut self,
        reader: usize,
        max: usize,
        cx: &mut Context<'_>,
    ) -> flott_schema::Result<Turn<S::Record>>
    where
        <S::Enumerator as SplitEnumerator>::Split: serde::Serialize,
    {
        let Some(running) = &mut self.readers[reader] else { return Ok(Turn::Ended) };
        Ok(match running.read(max, cx)? {
            Poll::Ready(Some(batch)) => Turn::Batch(batch.into_iter().collect()),
            Poll::Pending => Turn::Pending,
            Poll::Ready(None) if self.no_more[reader] => {
                running.close()?;
                self.readers[reader] = None;
                Turn::Ended
            }
            Poll::Ready(None) => match self.enumerator.next_split(reader as u32)? {
                Assignment::Split(bytes) => {
                    running.add_split(decode_value(&bytes)?)?;
                    Turn::GotSplit
                }
                Assignment::Later(ms) => Turn::Later(ms),
                Assignment::NoMore => {
                    self.no_more[reader] = true;
                    Turn::GotSplit
                }
            },
        })
    }

    /// Replaces a reader by a new one that goes on from its snapshot.
    pub fn restart(&mut self, source: &S, reader: usize) {
        let Some(old) = self.readers[reader].take() else { return };
        let mut new = source.reader(&self.contexts[reader]).unwrap();
        for split in old.snapshot() {
            let mut bytes = Vec::new();
            encode_value(&split, &mut bytes).unwrap();
            new.add_split(decode_value(&bytes).unwrap()).unwrap();
        }
        self.readers[reader] = Some(new);
    }

    /// Runs all readers until all is read, or an error.
    pub fn try_drain_all(&mut self, max: usize) -> flott_schema::Result<Vec<S::Record>> {
        let mut records = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while self.readers.iter().any(Option::is_some) {
            for reader in 0..self.readers.len() {
                match self.turn(reader, max, &mut cx)? {
                    Turn::Batch(batch) => records.extend(batch.into_iter().map(|(record, _)| record)),
                    Turn::Later(_) => panic!("a bounded source asks to wait"),
                    _ => {}
                }
            }
        }
        Ok(records)
    }

    /// Runs one reader until all is read, or an error.
    pub fn try_drain(&mut self, max: usize) -> flott_schema::Result<Vec<(S::Record, i64)>> {
        let mut records = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.turn(0, max, &mut cx)? {
                Turn::Batch(batch) => records.extend(batch),
                Turn::Ended => return Ok(records),
                Turn::Later(_) => panic!("a bounded source asks to wait"),
                Turn::GotSplit | Turn::Pending => {}
            }
        }
    }
}

/// All that one reader reads of a bounded source.
pub fn drain<S: Source>(source: &S, max: usize) -> Vec<(S::Record, i64)> {
    Driver::new(source, 1).try_drain(max).unwrap()
}

/// What each of several readers reads of a bounded source, taking turns.
pub fn read_by<S: Source>(source: &S, readers: u32, max: usize) -> Vec<Vec<S::Record>> {
    let mut driver = Driver::new(source, readers);
    let mut cx = Context::from_waker(Waker::noop());
    let mut read: Vec<Vec<S::Record>> = (0..readers).map(|_| Vec::new()).collect();
    let mut ended = vec![false; readers as usize];
    while ended.iter().any(|ended| !ended) {
        for reader in 0..readers as usize {
            match driver.turn(reader, max, &mut cx).unwrap() {
                Turn::Batch(batch) => {
                    assert!(batch.len() <= max, "a batch of {} where {max} were asked for", batch.len());
                    read[reader].extend(batch.into_iter().map(|(record, _)| record));
                }
                Turn::Ended => ended[reader] = true,
                Turn::Later(_) => panic!("a bounded source asks to wait"),
                Turn::GotSplit | Turn::Pending => {}
            }
        }
    }
    read
}

/// What a reader reads in `batches` batches, and what a new reader reads that goes on from its snapshot.
pub fn read_resuming<S: Source>(source: &S, max: usize, batches: usize) -> (Vec<S::Record>, Vec<S::Record>) {
    let mut driver = Driver::new(source, 1);
    let mut cx = Context::from_waker(Waker::noop());
    let mut before = Vec::new();
    let mut count = 0;
    while count < batches {
        match driver.turn(0, max, &mut cx).unwrap() {
            Turn::Batch(batch) => {
                before.extend(batch.into_iter().map(|(record, _)| record));
                count += 1;
            }
            Turn::Ended => break,
            _ => {}
        }
    }
    driver.restart(source, 0);
    let after = driver.try_drain(max).unwrap();
    (before, after.into_iter().map(|(record, _)| record).collect())
}

//! Sources of the benchmark: records made from their index, as fast as possible or when they are due; lines of text.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use flott::dataflow::batch::{Batch, Record, Timestamps};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use serde::{Deserialize, Serialize};

use crate::workload::{PacedEvent, paced, share};

/// Which indexes a reader makes: from `next` to `end` in steps.
#[derive(Clone, Serialize, Deserialize)]
pub struct Indexes {
    next: u64,
    end: u64,
    step: u64,
}

/// One split a reader.
pub struct OneEach {
    splits: Vec<Option<Indexes>>,
}

impl SplitEnumerator for OneEach {
    type Split = Indexes;

    fn next_split(&mut self, subtask: u32) -> flott::Result<Assignment<Indexes>> {
        let split = self.splits.get_mut(subtask as usize).and_then(Option::take);
        Ok(split.map_or(Assignment::NoMore, Assignment::Split))
    }
}

/// Records made from their index.
#[derive(Clone)]
pub struct Indexed<F> {
    records: u64,
    make: F,
    time_ms: Option<fn(u64) -> i64>,
}

impl<F> Indexed<F> {
    pub fn new(records: u64, make: F) -> Self {
        Indexed { records, make, time_ms: None }
    }

    /// With event time, which must rise with the index.
    pub fn timed(records: u64, make: F, time_ms: fn(u64) -> i64) -> Self {
        Indexed { records, make, time_ms: Some(time_ms) }
    }
}

impl<T: Record, F: Fn(u64) -> T + Clone + Send + 'static> Source for Indexed<F> {
    type Record = T;
    type Split = Indexes;
    type Enumerator = OneEach;
    type Reader = IndexedReader<F>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, parallelism: u32) -> flott::Result<OneEach> {
        let peers = u64::from(parallelism);
        let split = |index| match self.time_ms {
            // Event time rises with the index: strides keep the readers' watermarks together.
            Some(_) => Indexes { next: index, end: self.records, step: peers },
            None => {
                let share = share(self.records, index, peers);
                Indexes { next: share.start, end: share.end, step: 1 }
            }
        };
        Ok(OneEach { splits: (0..peers).map(|index| Some(split(index))).collect() })
    }

    fn reader(&self, _ctx: &OperatorContext) -> flott::Result<IndexedReader<F>> {
        Ok(IndexedReader { make: self.make.clone(), time_ms: self.time_ms, split: None })
    }
}

pub struct IndexedReader<F> {
    make: F,
    time_ms: Option<fn(u64) -> i64>,
    split: Option<Indexes>,
}

impl<T: Record, F: Fn(u64) -> T + Clone + Send + 'static> SourceReader for IndexedReader<F> {
    type Record = T;
    type Split = Indexes;

    fn add_split(&mut self, split: Indexes) -> flott::Result<()> {
        self.split = Some(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> flott::Result<ReadBatch<T>> {
        let Some(split) = self.split.as_mut().filter(|split| split.next < split.end) else {
            return Ok(Poll::Ready(None));
        };
        let count = (split.end - split.next).div_ceil(split.step).min(max_records as u64);
        let (first, step) = (split.next, split.step);
        split.next += count * step;
        let records = match step {
            1 => (first..first + count).map(&self.make).collect(),
            _ => (0..count).map(|position| (self.make)(first + position * step)).collect(),
        };
        let timestamps = self.time_ms.map_or(Timestamps::default(), |time_ms| {
            Timestamps::Each((0..count).map(|position| time_ms(first + position * step)).collect())
        });
        Ok(Poll::Ready(Some(Batch { records, timestamps })))
    }

    fn snapshot(&self) -> Vec<Indexes> {
        self.split.clone().into_iter().collect()
    }
}

/// The events of the latency case, each when it is due.
#[derive(Clone)]
pub struct Paced {
    records: u64,
    start: Instant,
}

impl Paced {
    pub fn new(records: u64, start: Instant) -> Self {
        Paced { records, start }
    }
}

impl Source for Paced {
    type Record = PacedEvent;
    type Split = Indexes;
    type Enumerator = OneEach;
    type Reader = PacedReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    /// All events come from one reader, as with the peers.
    fn enumerator(&self, _parallelism: u32) -> flott::Result<OneEach> {
        Ok(OneEach { splits: vec![Some(Indexes { next: 0, end: self.records, step: 1 })] })
    }

    fn reader(&self, _ctx: &OperatorContext) -> flott::Result<PacedReader> {
        Ok(PacedReader { start: self.start, alarm: alarm(), split: None })
    }
}

pub struct PacedReader {
    start: Instant,
    alarm: SyncSender<(Instant, Waker)>,
    split: Option<Indexes>,
}

/// Events come from outside, as over a socket: a thread that sleeps until the next is due, then wakes the reader. (The
/// engine's own timers count milliseconds.)
fn alarm() -> SyncSender<(Instant, Waker)> {
    let (sender, receiver) = sync_channel::<(Instant, Waker)>(1);
    thread::spawn(move || {
        while let Ok((due, waker)) = receiver.recv() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            waker.wake();
        }
    });
    sender
}

impl SourceReader for PacedReader {
    type Record = PacedEvent;
    type Split = Indexes;

    fn add_split(&mut self, split: Indexes) -> flott::Result<()> {
        self.split = Some(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, cx: &mut Context<'_>) -> flott::Result<ReadBatch<PacedEvent>> {
        let Some(split) = self.split.as_mut().filter(|split| split.next < split.end) else {
            return Ok(Poll::Ready(None));
        };
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let mut records = Vec::new();
        while split.next < split.end && records.len() < max_records {
            let event = paced(split.next);
            if event.due_ns > now_ns {
                break;
            }
            records.push(event);
            split.next += 1;
        }
        if records.is_empty() {
            let due = self.start + Duration::from_nanos(paced(split.next).due_ns);
            // A full queue means that an alarm for this very event is set already.
            let _ = self.alarm.try_send((due, cx.waker().clone()));
            return Ok(Poll::Pending);
        }
        Ok(Poll::Ready(Some(Batch::of(records))))
    }

    fn snapshot(&self) -> Vec<Indexes> {
        self.split.clone().into_iter().collect()
    }
}

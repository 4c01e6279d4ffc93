//! A job whose output can be checked to the last record, for the tests that kill what runs it.
//!
//! usage: checker_job FOLDER
//!
//! Four lanes count from 0, each at up to a thousand numbers a second, until the file `FOLDER/end` names the number at which they end.
//! Every number becomes a line `lane number count sum` in `FOLDER/records`: how many numbers of its key came up to it, and their sum. Each second
//! of event time becomes a line `lane start count sum` in `FOLDER/windows`. Both are functions of lane and number alone.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use flott::connectors::file_sink::FileSink;
use flott::dataflow::batch::Batch;
use flott::dataflow::codec::{decode_value, encode_value};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott::prelude::*;
use serde::{Deserialize, Serialize};

const LANES: u32 = 4;
/// Numbers of a lane in a row, and the pause behind them.
const STEP: u64 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// Keys of a lane.
const KEYS: u64 = 64;

fn main() -> flott::Result<()> {
    let folder: PathBuf = std::env::args().nth(1).expect("usage: checker_job FOLDER").into();
    let env = flott::env()?;
    let lanes = Lanes { end: folder.join("end") };
    let numbers = env.add_source(lanes, "Lanes").uid("lanes").assign_timestamps_and_watermarks(
        WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(30))
            .with_timestamp(|n: &Number| n.index as i64),
    );
    numbers
        .key_by(|n| (n.lane, n.index % KEYS))
        .process(Count::default())
        .uid("count")
        .sink_to(FileSink::lines(folder.join("records")), "Records")
        .uid("records");
    numbers
        .map(|n| Sum { lane: n.lane, start: 0, count: 1, sum: n.index })
        .key_by(|sum| sum.lane)
        .window(TumblingEventTimeWindows::of(Duration::from_secs(1)))
        .reduce_process(add, WindowStart)
        .uid("windows")
        .sink_to(FileSink::lines(folder.join("windows")), "Windows")
        .uid("window-files");
    env.execute("checker")?;
    Ok(())
}

fn add(total: &mut Sum, other: &mut Sum) {
    total.count += other.count;
    total.sum += other.sum;
}

#[derive(Clone, Serialize, Deserialize)]
struct Number {
    lane: u32,
    index: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Sum {
    lane: u32,
    start: i64,
    count: u64,
    sum: u64,
}

/// Counts and sums up the numbers of a key; forgets nothing.
#[derive(Clone, Default)]
struct Count {
    total: ValueState<(u64, u64)>,
}

impl KeyedProcessFunction<(u32, u64), Number, String> for Count {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.total = ctx.value_state("total")?;
        Ok(())
    }

    fn process(
        &mut self,
        number: Number,
        ctx: &mut KeyedContext<'_, (u32, u64), String>,
    ) -> flott::Result<()> {
        let (count, sum) = self.total.update(ctx, |(count, sum)| {
            *count += 1;
            *sum += number.index;
            (*count, *sum)
        });
        ctx.collect(format!("{} {} {count} {sum}", number.lane, number.index));
        Ok(())
    }
}

/// Puts the start of the window into the line.
#[derive(Clone)]
struct WindowStart;

impl ProcessWindowFunction<u32, Sum, String, TimeWindow> for WindowStart {
    fn process(
        &mut self,
        _key: &u32,
        ctx: &mut WindowContext<'_, u32, TimeWindow>,
        sums: Elements<'_, Sum>,
        out: &mut Collector<String>,
    ) -> flott::Result<()> {
        for sum in sums {
            out.collect(format!("{} {} {} {}", sum.lane, ctx.window().start_ms, sum.count, sum.sum));
        }
        Ok(())
    }
}

/// The source.
#[derive(Clone)]
struct Lanes {
    end: PathBuf,
}

#[derive(Clone, Serialize, Deserialize)]
struct Lane {
    lane: u32,
    next: u64,
}

impl Source for Lanes {
    type Record = Number;
    /// Lanes that are read together, so that none falls behind.
    type Split = Vec<Lane>;
    type Enumerator = Free;
    type Reader = LaneReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn enumerator(&self, parallelism: u32) -> flott::Result<Free> {
        let share = |reader| (reader..LANES).step_by(parallelism as usize).collect();
        Ok(Free { shares: (0..parallelism).map(share).collect() })
    }

    fn reader(&self, _ctx: &OperatorContext) -> flott::Result<LaneReader> {
        Ok(LaneReader { end: self.end.clone(), lanes: Vec::new(), turn: 0, pause: None })
    }
}

/// Lanes that no reader has, in the shares of readers.
struct Free {
    shares: Vec<Vec<u32>>,
}

impl SplitEnumerator for Free {
    type Split = Vec<Lane>;

    fn next_split(&mut self, _subtask: u32) -> flott::Result<Assignment<Vec<Lane>>> {
        let Some(share) = self.shares.pop() else { return Ok(Assignment::NoMore) };
        Ok(Assignment::Split(share.into_iter().map(|lane| Lane { lane, next: 0 }).collect()))
    }

    fn snapshot(&self) -> flott::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.shares, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> flott::Result<()> {
        self.shares = decode_value(state)?;
        Ok(())
    }
}

/// Reads its lanes in turn.
struct LaneReader {
    end: PathBuf,
    lanes: Vec<Lane>,
    turn: usize,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl LaneReader {
    fn end(&self) -> u64 {
        let text = std::fs::read_to_string(&self.end).unwrap_or_default();
        text.trim().parse().unwrap_or(u64::MAX)
    }
}

impl SourceReader for LaneReader {
    type Record = Number;
    type Split = Vec<Lane>;

    fn add_split(&mut self, lanes: Vec<Lane>) -> flott::Result<()> {
        self.lanes.extend(lanes);
        Ok(())
    }

    fn read(&mut self, _max_records: usize, cx: &mut Context<'_>) -> flott::Result<ReadBatch<Number>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.pause = None;
        }
        let end = self.end();
        self.lanes.retain(|lane| lane.next < end);
        if self.lanes.is_empty() {
            return Ok(Poll::Ready(None));
        }
        self.turn = (self.turn + 1) % self.lanes.len();
        if self.turn == 0 {
            self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        }
        let lane = &mut self.lanes[self.turn];
        let upto = (lane.next + STEP).min(end);
        let mut batch = Batch::default();
        for index in lane.next..upto {
            batch.push(Number { lane: lane.lane, index }, index as i64);
        }
        lane.next = upto;
        Ok(Poll::Ready(Some(batch)))
    }

    /// One by one, so that another number of readers can share them.
    fn snapshot(&self) -> Vec<Vec<Lane>> {
        self.lanes.iter().map(|lane| vec![lane.clone()]).collect()
    }
}

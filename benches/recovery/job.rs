//! The program that is measured: updates of a keyed table, by the clock, and a sink that notes when something came out.
//!
//! Eight lanes read their keys in once, as fast as they can, and update them from then on: four in five updates are of one key in five. An update is due
//! at a time of the clock, and is noted with how late it came out, so whatever stands still shows.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flott::dataflow::batch::Batch;
use flott::dataflow::codec::{decode_value, encode_value};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott::dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::Sleep;

pub const LANES: u32 = 8;
/// Bytes of a value beside its count.
pub const TEXT_BYTES: usize = 200;
/// A reader looks at the clock again behind as many records.
const STEP: u64 = 64;
const PAUSE: Duration = Duration::from_millis(5);

/// How slow the sink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    Not,
    /// It takes so long over each record, and says that it takes no more meanwhile.
    Waits(Duration),
    /// The same, with its thread held up.
    Sleeps(Duration),
}

/// What the program is told.
#[derive(Clone, Debug)]
pub struct Work {
    pub folder: PathBuf,
    pub keys: u64,
    /// Updates a second.
    pub rate: u64,
    pub slow: Slow,
}

impl Work {
    pub fn arguments(&self) -> Vec<String> {
        let (how, pause) = match self.slow {
            Slow::Not => ("not", Duration::ZERO),
            Slow::Waits(pause) => ("waits", pause),
            Slow::Sleeps(pause) => ("sleeps", pause),
        };
        let Work { folder, keys, rate, .. } = self;
        let numbers = [*keys, *rate, pause.as_micros() as u64].map(|number| number.to_string());
        [&["job".to_string(), folder.display().to_string(), how.to_string()], &numbers[..]].concat()
    }

    pub fn parse(arguments: &[String]) -> Option<Self> {
        let [folder, how, keys, rate, pause] = arguments else { return None };
        let number = |text: &str| u64::from_str(text).ok();
        let pause = Duration::from_micros(number(pause)?);
        let slow = match how.as_str() {
            "waits" => Slow::Waits(pause),
            "sleeps" => Slow::Sleeps(pause),
            _ => Slow::Not,
        };
        Some(Work { folder: folder.into(), keys: number(keys)?, rate: number(rate)?, slow })
    }
}

pub fn run(work: Work) -> flott::Result<()> {
    let env = flott::env()?;
    let updates = Updates { keys: work.keys / u64::from(LANES), rate: work.rate / u64::from(LANES) };
    let table = env.add_source(updates, "Updates").uid("updates");
    let table = table.key_by(|update| update.key).process(Table::default()).uid("table");
    // Apart from the table where it is slow, so that what is in between fills up.
    let table = if work.slow == Slow::Not { table } else { table.rebalance() };
    table.sink_to(Notes { folder: work.folder.join("outputs"), slow: work.slow }, "Notes").uid("notes");
    env.execute("recovery")?;
    Ok(())
}

#[derive(Clone, Serialize, Deserialize)]
struct Update {
    lane: u32,
    key: u64,
    /// When it is due, epoch milliseconds; 0 while keys are read in.
    due_ms: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Done {
    lane: u32,
    due_ms: i64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Row {
    count: u64,
    text: String,
}

#[derive(Clone, Default)]
struct Table {
    rows: ValueState<Row>,
}

impl KeyedProcessFunction<u64, Update, Done> for Table {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.rows = ctx.value_state("rows")?;
        Ok(())
    }

    fn process(&mut self, update: Update, ctx: &mut KeyedContext<'_, u64, Done>) -> flott::Result<()> {
        let Update { lane, key, due_ms } = update;
        self.rows.update(ctx, |row| {
            row.count += 1;
            fill(&mut row.text, key, row.count);
        });
        ctx.collect(Done { lane, due_ms });
        Ok(())
    }
}

/// Letters by chance, which do not get smaller by compression.
fn fill(text: &mut String, key: u64, count: u64) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    text.clear();
    let mut at = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ count;
    while text.len() < TEXT_BYTES {
        at = at.wrapping_add(1);
        let bits = mix(at);
        let letters = (0..10).map(|letter| char::from(LETTERS[(bits >> (letter * 6)) as usize & 63]));
        text.extend(letters.take(TEXT_BYTES - text.len()));
    }
}

/// Spreads the bits of a number (Vigna: *SplitMix64*).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The source. `keys` and `rate` are those of a lane.
#[derive(Clone)]
struct Updates {
    keys: u64,
    rate: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Lane {
    lane: u32,
    next: u64,
    /// When its first update was due, epoch milliseconds; 0 while keys are read in.
    began_ms: i64,
}

impl Source for Updates {
    type Record = Update;
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
        Ok(LaneReader { work: self.clone(), lanes: Vec::new(), turn: 0, pause: None })
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
        let lanes = share.into_iter().map(|lane| Lane { lane, next: 0, began_ms: 0 });
        Ok(Assignment::Split(lanes.collect()))
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
    work: Updates,
    lanes: Vec<Lane>,
    turn: usize,
    pause: Option<Pin<Box<Sleep>>>,
}

impl LaneReader {
    /// The next records of a lane; none if none is due.
    fn batch(&mut self, turn: usize) -> Batch<Update> {
        let Updates { keys, rate } = self.work;
        let lane = &mut self.lanes[turn];
        let mut batch = Batch::default();
        if lane.next < keys {
            for index in lane.next..(lane.next + STEP).min(keys) {
                batch.push(update(lane.lane, index, 0), 0);
            }
        } else {
            let now_ms = now_ms();
            if lane.began_ms == 0 {
                lane.began_ms = now_ms;
            }
            let due = keys + (now_ms - lane.began_ms).max(0) as u64 * rate / 1_000;
            for index in lane.next..due.min(lane.next + STEP) {
                let due_ms = lane.began_ms + ((index - keys) * 1_000 / rate.max(1)) as i64;
                let (chance, place) = (mix(index) % 5, mix(!index));
                let key = if chance < 4 { place % (keys / 5).max(1) } else { place % keys.max(1) };
                batch.push(update(lane.lane, key, due_ms), due_ms);
            }
        }
        lane.next += batch.len() as u64;
        batch
    }
}

fn update(lane: u32, index: u64, due_ms: i64) -> Update {
    Update { lane, key: index * u64::from(LANES) + u64::from(lane), due_ms }
}

impl SourceReader for LaneReader {
    type Record = Update;
    type Split = Vec<Lane>;

    fn add_split(&mut self, lanes: Vec<Lane>) -> flott::Result<()> {
        self.lanes.extend(lanes);
        Ok(())
    }

    fn read(&mut self, _max_records: usize, cx: &mut Context<'_>) -> flott::Result<ReadBatch<Update>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.pause = None;
        }
        if self.lanes.is_empty() {
            return Ok(Poll::Ready(None));
        }
        for _ in 0..self.lanes.len() {
            self.turn = (self.turn + 1) % self.lanes.len();
            let batch = self.batch(self.turn);
            if !batch.is_empty() {
                return Ok(Poll::Ready(Some(batch)));
            }
        }
        let mut pause = Box::pin(tokio::time::sleep(PAUSE));
        if pause.as_mut().poll(cx).is_pending() {
            self.pause = Some(pause);
        }
        Ok(Poll::Pending)
    }

    /// One by one, so that another number of readers can share them.
    fn snapshot(&self) -> Vec<Vec<Lane>> {
        self.lanes.iter().map(|lane| vec![lane.clone()]).collect()
    }
}

/// Notes, for each batch and lane, a line `now_ms lane records latest_ms`; `latest_ms` is how late the latest of the records was, and -1 while keys are
/// read in.
#[derive(Clone)]
struct Notes {
    folder: PathBuf,
    slow: Slow,
}

impl Sink<Done> for Notes {
    type Committable = ();
    type Writer = Noting;
    type Committer = NothingToCommit;

    fn writer(&self, ctx: &OperatorContext) -> flott::Result<Noting> {
        let refused = |error| flott::Error::io(self.folder.display(), error);
        std::fs::create_dir_all(&self.folder).map_err(refused)?;
        let name = format!("{}-{}", std::process::id(), ctx.task.subtask);
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join(name));
        Ok(Noting { file: file.map_err(refused)?, slow: self.slow, ready: None, text: String::new() })
    }

    fn committer(&self, _ctx: &OperatorContext) -> flott::Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

struct Noting {
    file: File,
    slow: Slow,
    /// When it takes more.
    ready: Option<(Instant, Pin<Box<Sleep>>)>,
    text: String,
}

impl SinkWriter<Done> for Noting {
    type Committable = ();

    fn write(&mut self, batch: Batch<Done>) -> flott::Result<()> {
        use std::fmt::Write as _;
        let now_ms = now_ms();
        let mut lanes = [(0_u64, -1_i64); LANES as usize];
        for (done, _) in batch.iter() {
            let (records, latest_ms) = &mut lanes[done.lane as usize];
            *records += 1;
            if done.due_ms > 0 {
                *latest_ms = (*latest_ms).max(now_ms - done.due_ms);
            }
        }
        self.text.clear();
        for (lane, (records, latest_ms)) in lanes.iter().enumerate().filter(|(_, (records, _))| *records > 0)
        {
            let _ = writeln!(self.text, "{now_ms} {lane} {records} {latest_ms}");
        }
        self.file.write_all(self.text.as_bytes()).map_err(|error| flott::Error::io("notes", error))?;
        match self.slow {
            Slow::Not => {}
            Slow::Waits(pause) => {
                let pause = pause * batch.len() as u32;
                self.ready = Some((Instant::now() + pause, Box::pin(tokio::time::sleep(pause))));
            }
            Slow::Sleeps(pause) => std::thread::sleep(pause * batch.len() as u32),
        }
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> flott::Result<Poll<()>> {
        if let Some((_, sleep)) = &mut self.ready {
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.ready = None;
        }
        Ok(Poll::Ready(()))
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> flott::Result<Vec<()>> {
        Ok(Vec::new())
    }
}

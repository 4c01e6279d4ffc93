//! Renoir, with the programs its own examples and benchmarks write for such work.
//!
//! Renoir runs each block of operators (what lies between two exchanges) in threads of its own: at one thread, a job with an
//! exchange already has two.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;
use renoir::operator::source::ChannelSource;
use renoir::{BatchMode, Replication, RuntimeConfig, StreamContext};

use crate::engine::{Engine, Outcome, Role};
use crate::error::BenchError;
use crate::tally::{LatencySink, StalledSink, Tally};
use crate::text;
use crate::workload::{
    Case, PacedEvent, Size, first_map, keeps, keyed, keyed_check, paced, paced_map, second_map, share,
};

const NAME: &str = "renoir";
const FOLDED_NAME: &str = "renoir-folded";

pub const ENGINES: &[Engine] = &[
    Engine { name: NAME, role: Role::Peer, package: Some("renoir"), supports, run },
    // Renoir's fastest word count is no dataflow: one fold over lines holds a hand-written loop.
    Engine {
        name: FOLDED_NAME,
        role: Role::Aside,
        package: Some("renoir"),
        supports: |case, _| case == Case::WordCount,
        run: |_, threads, size| word_count_folded(threads, size),
    },
];

fn supports(case: Case, _threads: usize) -> bool {
    !matches!(case, Case::WindowTumbling | Case::WindowSliding | Case::FullLoad)
}

fn run(case: Case, threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let records = size.records(case);
    match case {
        Case::MapFilterMap => map_filter_map(threads, records),
        Case::RollingSmall | Case::RollingLarge => rolling(threads, records, case.keys()),
        Case::TotalsSmall | Case::TotalsLarge => totals(threads, records, case.keys()),
        Case::WordCount => word_count(threads, size),
        Case::Latency => latency(threads, records),
        Case::StalledSink => stalled_sink(threads, records, size),
        Case::WindowTumbling | Case::WindowSliding | Case::FullLoad => {
            Err(BenchError::Unsupported { engine: NAME, case: case.name(), threads })
        }
    }
}

/// What Renoir's own benchmarks set. Its default flushes by a timer besides, behind a lock that is taken for each record:
/// the rolling sum then reaches two thirds of this. The latency case has the default.
fn batch_mode() -> BatchMode {
    BatchMode::fixed(1_024)
}

fn context(threads: usize) -> Result<StreamContext, BenchError> {
    let config = RuntimeConfig::local(threads as u64)
        .map_err(|error| error.to_string())
        .map_err(BenchError::engine(NAME))?;
    Ok(StreamContext::new(config))
}

fn map_filter_map(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let context = context(threads)?;
    let tally = Tally::default();
    let mut sink = tally.clone();
    context
        .stream_par_iter(0..records)
        .map(first_map)
        .filter(keeps)
        .map(second_map)
        .for_each(move |word| sink.add(word));
    context.execute_blocking();
    Ok(tally.outcome(records))
}

fn rolling(threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let context = context(threads)?;
    let tally = Tally::default();
    let mut sink = tally.clone();
    context
        .stream_par_iter(0..records)
        .batch_mode(batch_mode())
        .map(move |index| keyed(index, keys))
        .group_by(|(key, _)| *key)
        .rich_map({
            // Cloned for each key.
            let mut total = 0_u64;
            move |(_, (_, value))| {
                total += value;
                total
            }
        })
        .for_each(move |(key, total)| sink.add(keyed_check(key, total)));
    context.execute_blocking();
    Ok(tally.outcome(records))
}

fn totals(threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let context = context(threads)?;
    let tally = Tally::default();
    let mut sink = tally.clone();
    context
        .stream_par_iter(0..records)
        .batch_mode(batch_mode())
        .map(move |index| keyed(index, keys))
        .group_by_fold(
            |(key, _)| *key,
            0_u64,
            |total, (_, value)| *total += value,
            |total, part| *total += part,
        )
        .for_each(move |(key, total)| sink.add(keyed_check(key, total)));
    context.execute_blocking();
    Ok(tally.outcome(records))
}

/// The words of an owned line, one owned word at a time.
struct Words {
    line: String,
    position: usize,
}

impl Iterator for Words {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let rest = self.line[self.position..].trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let length = rest.bytes().position(|byte| byte.is_ascii_whitespace()).unwrap_or(rest.len());
        self.position = self.line.len() - rest.len() + length;
        Some(rest[..length].to_owned())
    }
}

fn word_count(threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let context = context(threads)?;
    let tally = Tally::default();
    let mut sink = tally.clone();
    context
        .stream_file(text::path(size.text_bytes))
        .batch_mode(batch_mode())
        .flat_map(|line| Words { line, position: 0 })
        .group_by_count(|word: &String| word.clone())
        .for_each(move |(word, count)| {
            sink.add_counted(text::word_check(word.as_bytes(), count as u64), count as u64);
        });
    context.execute_blocking();
    Ok(tally.counted_outcome())
}

fn word_count_folded(threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    type Counts = HashMap<String, u64, DefaultHashBuilder>;
    let context = context(threads)?;
    let tally = Tally::default();
    let mut sink = tally.clone();
    context
        .stream_file(text::path(size.text_bytes))
        .batch_mode(batch_mode())
        .fold_assoc(
            Counts::default(),
            |counts, line| {
                for word in line.split_ascii_whitespace() {
                    match counts.get_mut(word) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(word.to_owned(), 1)),
                    }
                }
            },
            |counts, part| {
                for (word, count) in part {
                    *counts.entry(word).or_default() += count;
                }
            },
        )
        .for_each(move |counts| {
            for (word, count) in counts {
                sink.add_counted(text::word_check(word.as_bytes(), count), count);
            }
        });
    context.execute_blocking();
    Ok(tally.counted_outcome())
}

/// The generator is a thread that feeds a channel: Renoir's way to flush as soon as nothing more is due.
fn latency(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    const CHANNEL_EVENTS: usize = 1_024;
    let context = context(threads)?;
    let start = Instant::now();
    let latency = LatencySink::new(start);
    let mut sink = latency.clone();
    let (events, source) = ChannelSource::<PacedEvent>::new(CHANNEL_EVENTS, Replication::One);
    context
        .stream(source)
        .group_by(|event| event.key)
        .map(|(_, event)| paced_map(event))
        .for_each(move |(_, event)| sink.add(&event));
    let generator = thread::spawn(move || {
        for event in (0..records).map(paced) {
            let due = Duration::from_nanos(event.due_ns);
            thread::sleep(due.saturating_sub(start.elapsed()));
            if events.send(event).is_err() {
                return;
            }
        }
    });
    context.execute_blocking();
    generator.join().map_err(|_| BenchError::engine(NAME)("the generator panicked".to_owned()))?;
    Ok(latency.outcome(records))
}

fn stalled_sink(threads: usize, records: u64, size: &Size) -> Result<Outcome, BenchError> {
    let context = context(threads)?;
    let stalled = StalledSink::new(records, size.stall);
    let mut sink = stalled.clone();
    context
        .stream_par_iter(move |index, peers| {
            share(records, index, peers).map(|index| (keyed(index, Case::StalledSink.keys()).0, index))
        })
        .group_by(|(key, _)| *key)
        .for_each(move |(key, (_, index))| sink.add(key, index));
    context.execute_blocking();
    Ok(stalled.outcome(records))
}

//! The hand-written loops: what the work itself costs on this machine, without an engine.

use std::ops::Range;
use std::thread;

use hashbrown::HashMap;

use crate::engine::{Engine, Outcome, Role};
use crate::error::BenchError;
use crate::tally::Tally;
use crate::text;
use crate::workload::{
    Case, Size, WINDOW_SIZE_MS, first_map, keeps, keyed, keyed_check, second_map, share, timed, window_check,
};

const NAME: &str = "hand";

pub const ENGINES: &[Engine] = &[Engine { name: NAME, role: Role::Bound, package: None, supports, run }];

/// Where records of one key meet from several threads before the end, a loop would need an exchange and so be an engine:
/// those cases have one thread.
fn supports(case: Case, threads: usize) -> bool {
    match case {
        Case::MapFilterMap | Case::TotalsSmall | Case::TotalsLarge | Case::WordCount => true,
        Case::RollingSmall | Case::RollingLarge | Case::WindowTumbling => threads == 1,
        Case::WindowSliding | Case::Latency | Case::FullLoad | Case::StalledSink => false,
    }
}

fn run(case: Case, threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let records = size.records(case);
    match case {
        Case::MapFilterMap => map_filter_map(threads, records),
        Case::RollingSmall | Case::RollingLarge => Ok(rolling(records, case.keys())),
        Case::TotalsSmall | Case::TotalsLarge => totals(threads, records, case.keys()),
        Case::WordCount => word_count(threads, size),
        Case::WindowTumbling => Ok(window_tumbling(records, case.keys())),
        Case::WindowSliding | Case::Latency | Case::FullLoad | Case::StalledSink => {
            Err(BenchError::Unsupported { engine: NAME, case: case.name(), threads })
        }
    }
}

/// Runs `part` with each thread's index, one of them on this thread, and collects what they return.
fn on_threads<T: Send>(threads: usize, part: impl Fn(u64) -> T + Sync) -> Result<Vec<T>, BenchError> {
    let part = &part;
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads as u64).map(|index| scope.spawn(move || part(index))).collect();
        let mut results = vec![part(0)];
        for other in others {
            let result = other.join().map_err(|_| "a thread panicked".to_owned());
            results.push(result.map_err(BenchError::engine(NAME))?);
        }
        Ok(results)
    })
}

fn map_filter_map(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let sums = on_threads(threads, |index| fused_loop(share(records, index, threads as u64)))?;
    let mut tally = Tally::default();
    sums.into_iter().for_each(|sum| tally.add(sum));
    Ok(tally.outcome(records))
}

#[inline(never)]
fn fused_loop(range: Range<u64>) -> u64 {
    let mut sum = 0_u64;
    for word in range {
        let word = first_map(word);
        if keeps(&word) {
            sum = sum.wrapping_add(second_map(word));
        }
    }
    sum
}

/// Makes the records of the range in blocks: a short loop over a block has more of its cache misses under way at once than
/// a loop that also makes the records.
fn for_each_block(range: Range<u64>, keys: u64, mut each: impl FnMut(&[(u64, u64)])) {
    const BLOCK_RECORDS: usize = 1_024;
    let mut block = Vec::with_capacity(BLOCK_RECORDS);
    let mut records = range.map(|index| keyed(index, keys));
    loop {
        block.clear();
        block.extend(records.by_ref().take(BLOCK_RECORDS));
        if block.is_empty() {
            return;
        }
        each(&block);
    }
}

fn rolling(records: u64, keys: u64) -> Outcome {
    let mut tally = Tally::default();
    let mut totals: HashMap<u64, u64> = HashMap::new();
    for_each_block(0..records, keys, |block| {
        for (key, value) in block {
            let total = totals.entry(*key).or_default();
            *total += *value;
            tally.add(keyed_check(*key, *total));
        }
    });
    tally.outcome(records)
}

fn totals(threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let parts = on_threads(threads, |index| {
        let mut totals: HashMap<u64, u64> = HashMap::new();
        for_each_block(share(records, index, threads as u64), keys, |block| {
            for (key, value) in block {
                *totals.entry(*key).or_default() += *value;
            }
        });
        totals
    })?;
    let mut tally = Tally::default();
    for (key, total) in merged(parts) {
        tally.add(keyed_check(key, total));
    }
    Ok(tally.outcome(records))
}

fn word_count(threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let path = text::path(size.text_bytes);
    let parts = on_threads(threads, |index| {
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        text::for_each_line(&path, index, threads as u64, |line| {
            for word in text::words(line) {
                *counts.entry_ref(word).or_default() += 1;
            }
        })?;
        Ok(counts)
    })?;
    let parts = parts.into_iter().collect::<Result<Vec<_>, BenchError>>()?;
    let mut tally = Tally::default();
    for (word, count) in merged(parts) {
        tally.add_counted(text::word_check(&word, count), count);
    }
    Ok(tally.counted_outcome())
}

/// The sums by key over all threads' parts.
fn merged<K: std::hash::Hash + Eq>(parts: Vec<HashMap<K, u64>>) -> HashMap<K, u64> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        for (key, total) in part {
            *all.entry(key).or_default() += total;
        }
    }
    all
}

fn window_tumbling(records: u64, keys: u64) -> Outcome {
    let mut tally = Tally::default();
    let mut totals: HashMap<u64, u64> = HashMap::new();
    let mut end_ms = WINDOW_SIZE_MS;
    let mut fire = |end_ms: u64, totals: &mut HashMap<u64, u64>| {
        for (key, total) in totals.drain() {
            tally.add(window_check(end_ms, key, total));
        }
    };
    for index in 0..records {
        let (key, value, time_ms) = timed(index, keys);
        if time_ms >= end_ms {
            fire(end_ms, &mut totals);
            end_ms = time_ms - time_ms % WINDOW_SIZE_MS + WINDOW_SIZE_MS;
        }
        *totals.entry(key).or_default() += value;
    }
    fire(end_ms, &mut totals);
    tally.outcome(records)
}

//! How many Nexmark events one core makes. Run it in release:
//!
//! `cargo run --release -p flott-connectors --example nexmark_rate [EVENTS]`
//!
//! Each line is one way to take events, in batches as a source would take them, the dropping of the batches included.

use std::hint::black_box;
use std::time::Instant;

use flott_connectors::nexmark::{Generator, NexmarkConfig};

const BATCH: usize = 1024;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events: u64 = match std::env::args().nth(1) {
        Some(word) => word.parse().map_err(|error| format!("EVENTS is {word:?}: {error}"))?,
        None => 20_000_000,
    };
    let config =
        NexmarkConfig { event_count: events, events_per_second: 1_000_000, ..NexmarkConfig::default() };
    let shuffled = NexmarkConfig { out_of_order_group_size: 1000, ..config.clone() };

    let start = Instant::now();
    Generator::reader(&config, 0, 1)?;
    println!("first generator of the process: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("{events} events, {ROUNDS} rounds, median of million events per CPU-second");

    report("all kinds, batches", events, || all_kinds(&config))?;
    report("all kinds, batches, out of order", events, || all_kinds(&shuffled))?;
    report("all kinds, one by one", events, || {
        Ok(Generator::reader(&config, 0, 1)?.map(black_box).count() as u64)
    })?;
    report("bids only (all events counted)", events, || bids_only(&config))?;
    Ok(())
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn all_kinds(config: &NexmarkConfig) -> Outcome<u64> {
    let mut generator = Generator::reader(config, 0, 1)?;
    let (mut events, mut timestamps) = (Vec::new(), Vec::new());
    let mut total = 0;
    loop {
        let count = generator.fill(BATCH, &mut events, &mut timestamps);
        if count == 0 {
            return Ok(total);
        }
        total += count as u64;
        black_box((&events, &timestamps));
        events.clear();
        timestamps.clear();
    }
}

fn bids_only(config: &NexmarkConfig) -> Outcome<u64> {
    let mut generator = Generator::reader(config, 0, 1)?;
    let (mut bids, mut timestamps) = (Vec::new(), Vec::new());
    let mut total = 0;
    loop {
        let count = generator.fill_bids(BATCH, &mut bids, &mut timestamps);
        if count == 0 {
            return Ok(total);
        }
        total += count as u64;
        black_box((&bids, &timestamps));
        bids.clear();
        timestamps.clear();
    }
}

fn report(name: &str, events: u64, mut run: impl FnMut() -> Outcome<u64>) -> Outcome<()> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let start = cpu_seconds()?;
        let made = run()?;
        if made != events {
            return Err(format!("{name}: {made} events made instead of {events}").into());
        }
        rates.push(made as f64 / (cpu_seconds()? - start) / 1e6);
    }
    rates.sort_by(f64::total_cmp);
    println!("{name:<34} {:>7.2}   ({:.2} to {:.2})", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
    Ok(())
}

/// The time that this thread has spent on a processor. A pause makes the kernel bring its figure up to date.
fn cpu_seconds() -> Outcome<f64> {
    std::thread::sleep(std::time::Duration::from_millis(1));
    let line = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = line.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

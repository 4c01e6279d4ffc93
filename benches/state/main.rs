//! Keyed state beyond a table in memory: what checkpoints cost, beside direct RocksDB on the same work in the same run.
//!
//! `cargo bench --bench state [-- --quick]` prints the figures beside their targets, with machine and settings. Each case runs in a child process, so that
//! its processor time is its own. Files are in a temporary folder, and nothing is left behind.

mod direct;
mod job;

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// One case, as the child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Case {
    engine: Engine,
    keys: u64,
    /// Four in five records have one of a fifth of the keys.
    skewed: bool,
    records: u64,
    /// Time between checkpoints; none are taken without.
    interval_ms: Option<u64>,
    /// Memory for state; unlimited without.
    budget_bytes: Option<u64>,
    /// Bytes of each row beside key and sum.
    #[serde(default)]
    value_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Engine {
    /// RocksDB get and put for every record.
    Direct,
    /// A keyed rolling sum of Flott, in memory only.
    HashMap,
    /// The same over RocksDB.
    RocksDb,
}

/// What a case came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Outcome {
    cpu_seconds: f64,
    wall_seconds: f64,
    peak_bytes: u64,
    /// Of every checkpoint: how long the keyed task stood still.
    pauses_us: Vec<u64>,
    /// Of every checkpoint: bytes written.
    written_bytes: Vec<u64>,
}

impl Case {
    fn of(engine: Engine, keys: u64, records: u64) -> Self {
        Case { engine, keys, skewed: false, records, interval_ms: None, budget_bytes: None, value_bytes: 0 }
    }

    /// The key of a record.
    fn key(&self) -> impl Fn(u64) -> u64 + Clone + Send + 'static {
        let Case { keys, skewed, .. } = *self;
        move |index| {
            let mixed = mix(index);
            let (choice, place) = (mixed >> 40, mixed & 0xff_ffff_ffff);
            if skewed && choice % 5 != 0 { place % (keys / 5) } else { place % keys }
        }
    }

    fn run(&self) -> Outcome {
        let case = serde_json::to_string(self).expect("a case is plain data");
        let program = std::env::current_exe().expect("a program knows where it is");
        let output = Command::new(program).args(["--case", &case]).output().expect("the child runs");
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .expect("the child prints what it came to")
    }
}

/// SplitMix64 (Vigna): numbers that look random, by their index.
fn mix(index: u64) -> u64 {
    let mut mixed = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--case") {
        let case: Case = serde_json::from_str(&arguments[position + 1]).expect("a case");
        let folder = tempfile::tempdir().expect("a temporary folder");
        println!("{}", serde_json::to_string(&measure(&case, folder.path())).expect("plain data"));
        return;
    }
    let scale = if arguments.iter().any(|argument| argument == "--quick") { 10 } else { 1 };
    compare(scale);
}

fn measure(case: &Case, folder: &Path) -> Outcome {
    let (cpu, started) = (cpu_seconds(), std::time::Instant::now());
    let outcome = match case.engine {
        Engine::Direct => direct::run(case, folder),
        Engine::HashMap | Engine::RocksDb => job::run(case, folder),
    };
    let all = cpu_seconds() - cpu;
    Outcome {
        // Without what one has prepared.
        cpu_seconds: if outcome.cpu_seconds > 0.0 { outcome.cpu_seconds } else { all },
        wall_seconds: started.elapsed().as_secs_f64(),
        peak_bytes: peak_bytes(),
        ..outcome
    }
}

/// User and system time of all threads so far.
fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct that it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn compare(scale: u64) {
    println!("{}", machine());
    println!(
        "records: {scale} times fewer than usual; rates are millions of records a CPU-second (and a second)\n"
    );
    for keys in [10_000, 1_000_000] {
        println!("keyed read-modify-write, {keys} keys");
        let direct = Case::of(Engine::Direct, keys, 1_000_000 / scale);
        let direct_rate = show("direct RocksDB, get + put", &direct, &direct.run());
        let table = Case::of(Engine::HashMap, keys, 80_000_000 / scale);
        let outcome = table.run();
        let table_rate = show("hashmap, no checkpoints", &table, &outcome);
        // A checkpoint about every four million records.
        let per_ms = table.records as f64 / outcome.wall_seconds / 1e3;
        let interval_ms = Some((4_000_000.0 / per_ms).max(1.0) as u64);
        let kept = Case { engine: Engine::RocksDb, interval_ms, ..table.clone() };
        let outcome = kept.run();
        let kept_rate = show(&format!("rocksdb, {} checkpoints", outcome.pauses_us.len()), &kept, &outcome);
        pauses(&outcome);
        if keys == 1_000_000 {
            verdict("against direct RocksDB", kept_rate / direct_rate, 30.0);
        }
        verdict("against hashmap without checkpoints", kept_rate / table_rate, 0.5);
    }

    println!("budget of a quarter of the state, 1000000 keys, 80/20");
    // A row is a key and a sum of eight bytes each, in a table that is half full.
    let budget_bytes = Some(1_000_000 * 34 / 4);
    let direct =
        Case { skewed: true, budget_bytes, ..Case::of(Engine::Direct, 1_000_000, 1_000_000 / scale) };
    let direct_rate = show("direct RocksDB, get + put", &direct, &direct.run());
    let small = Case {
        engine: Engine::RocksDb,
        records: 10_000_000 / scale,
        interval_ms: Some(5_000),
        budget_bytes,
        ..direct.clone()
    };
    let small_rate = show("rocksdb, budget of a quarter", &small, &small.run());
    verdict("against direct RocksDB", small_rate / direct_rate, 3.0);

    println!("a checkpoint every second, 1000000 keys");
    let without = Case::of(Engine::RocksDb, 1_000_000, 800_000_000 / scale);
    let without = Case { interval_ms: Some(3_600_000), ..without };
    let without_outcome = without.run();
    let base = show("one at the end", &without, &without_outcome);
    let each_second = Case { interval_ms: Some(1_000), ..without.clone() };
    let outcome = each_second.run();
    let rate = show(&format!("{} checkpoints", outcome.pauses_us.len()), &each_second, &outcome);
    pauses(&outcome);
    verdict("throughput kept, a CPU-second", rate / base, 0.85);
    verdict("throughput kept", without_outcome.wall_seconds / outcome.wall_seconds, 0.85);

    memory(scale);
}

/// State of ten times the budget: how much memory that takes beyond what the same job takes with few keys.
fn memory(scale: u64) {
    let (budget_bytes, value_bytes) = ((64 << 20) / scale, 1_000);
    let keys = 10 * budget_bytes / (value_bytes + 24);
    println!("state of ten times a budget of {} MiB, rows of {value_bytes} bytes", budget_bytes >> 20);
    let few = Case {
        interval_ms: Some(5_000),
        budget_bytes: Some(budget_bytes),
        value_bytes,
        ..Case::of(Engine::RocksDb, 1_000, keys)
    };
    let few_outcome = few.run();
    show("rocksdb, 1000 keys", &few, &few_outcome);
    let many = Case { keys, records: 3 * keys, ..few };
    let outcome = many.run();
    show(&format!("rocksdb, {keys} keys"), &many, &outcome);
    let more_bytes = outcome.peak_bytes.saturating_sub(few_outcome.peak_bytes);
    println!("    {} MiB of state", (keys * (value_bytes + 24)) >> 20);
    at_most("memory beyond that of few keys, in budgets", more_bytes as f64 / budget_bytes as f64, 2.0);
}

/// Prints what a case came to, and gives its rate.
fn show(what: &str, case: &Case, outcome: &Outcome) -> f64 {
    let rate = case.records as f64 / outcome.cpu_seconds / 1e6;
    let wall = case.records as f64 / outcome.wall_seconds / 1e6;
    println!("  {what:<52} {rate:>8.2} ({wall:.2}), {} MiB", outcome.peak_bytes >> 20);
    rate
}

fn pauses(outcome: &Outcome) {
    let mut pauses = outcome.pauses_us.clone();
    pauses.sort_unstable();
    let Some(longest) = pauses.last() else { return };
    let p99 = pauses[(pauses.len() * 99).div_ceil(100) - 1];
    let written: u64 = outcome.written_bytes.iter().sum();
    println!(
        "    pause at the barrier: p99 {:.2} ms, longest {:.2} ms; {} MiB written in all",
        p99 as f64 / 1e3,
        *longest as f64 / 1e3,
        written >> 20
    );
}

fn verdict(what: &str, ratio: f64, target: f64) {
    let word = if ratio >= target { "met" } else { "NOT met" };
    println!("    {what}: {ratio:.2} times (target {target}: {word})");
}

fn at_most(what: &str, ratio: f64, target: f64) {
    let word = if ratio <= target { "met" } else { "NOT met" };
    println!("    {what}: {ratio:.2} (at most {target}: {word})");
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!("machine: {} x {}, load {}", cores, model.unwrap_or("unknown"), load.join(" "))
}

//! How long a job with much state stands still: when its executor is killed, when it is rescaled, and what checkpoints take behind a slow sink.
//!
//! `cargo build --release --bin flott && cargo bench --bench recovery -- [kill|rescale|unaligned] [--state-mb 1024] [--rate 20000] [--rounds 3]` starts
//! clusters of processes on this host, each with a job whose keyed table (RocksDB, incremental checkpoints) takes so many megabytes and is updated by the
//! clock, and prints the figures beside their targets. Files are in a temporary folder, and nothing is left behind.

mod cluster;
mod job;
mod outputs;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;

use cluster::{Cluster, until};
use job::{Slow, TEXT_BYTES, Work, now_ms};
use outputs::{Effect, effect, is_up_to_date, steady_lanes};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes of a row beside its text: key group, table, key, count and lengths.
const ROW_BYTES: u64 = 4 + 4 + 3;
/// How long the job runs undisturbed in front of an incident.
const QUIET: Duration = Duration::from_secs(5);
/// A record that is less late than this shows a job that has caught up.
const LATE_MS: i64 = 500;

#[derive(Parser)]
struct Options {
    /// kill, rescale, unaligned; all without
    what: Vec<String>,
    /// Megabytes of state.
    #[arg(long, default_value_t = 1024)]
    state_mb: u64,
    /// Updates a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// How often each is done.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Milliseconds between checkpoints.
    #[arg(long, default_value_t = 5_000)]
    interval_ms: u64,
    /// Folder for all files; a temporary one without.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What cargo says to all benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("job", work)) = arguments.split_first().map(|(first, work)| (first.as_str(), work)) {
        let work = Work::parse(work).ok_or("the program is started by the benchmark")?;
        return job::run(work).map_err(|error| error.to_string().into());
    }
    let options = Options::parse();
    let is_wanted = |what: &str| options.what.is_empty() || options.what.iter().any(|one| one == what);
    println!(
        "state {} MB, {} updates a second (80 % of them to 20 % of the keys), a checkpoint every {} ms; {} processors, load {}",
        options.state_mb,
        options.rate,
        options.interval_ms,
        std::thread::available_parallelism()?,
        std::fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default(),
    );
    println!(
        "{:<44} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8}  target",
        "milliseconds", "gap", "of lane", "caught up", "p50", "p99", "worst"
    );
    if is_wanted("kill") {
        kill(&options, true)?;
        kill(&options, false)?;
    }
    if is_wanted("rescale") {
        rescale(&options)?;
    }
    if is_wanted("unaligned") {
        unaligned(&options)?;
    }
    Ok(())
}

/// A job that runs.
struct Running {
    cluster: Cluster,
    job: String,
    outputs: PathBuf,
}

impl Running {
    fn start(options: &Options, workers: usize, slow: Slow, settings: &[&str]) -> Result<Self> {
        let cluster = Cluster::start(workers, 2, options.folder.as_deref())?;
        let keys = match slow {
            Slow::Not => (options.state_mb << 20) / (TEXT_BYTES as u64 + ROW_BYTES),
            // What is in flight is looked at, not the state.
            _ => 80_000,
        };
        let work = Work { folder: cluster.folder.clone(), keys, rate: options.rate, slow };
        let interval = match slow {
            Slow::Not => options.interval_ms,
            _ => 1_000,
        };
        let mut properties = vec![
            format!("execution.checkpointing.interval={interval} ms"),
            format!("execution.checkpointing.dir={}", cluster.folder.join("checkpoints").display()),
            "execution.checkpointing.tolerable-failed-checkpoints=1000".to_string(),
            "restart-strategy.type=fixed-delay".to_string(),
            "restart-strategy.fixed-delay.attempts=1000".to_string(),
            "restart-strategy.fixed-delay.delay=0 ms".to_string(),
        ];
        properties.extend(settings.iter().map(|setting| (*setting).to_string()));
        let started = Instant::now();
        let job = cluster.submit(2, &properties, &work.arguments())?;
        let running = Running { outputs: cluster.folder.join("outputs"), cluster, job };
        if slow == Slow::Not {
            until("all keys are read in", || {
                Ok(steady_lanes(&outputs::read(&running.outputs)?) == job::LANES as usize)
            })?;
            running.caught_up(now_ms())?;
            running.cluster.await_checkpoints(&running.job, 2)?;
            eprintln!("  ready after {:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(running)
    }

    /// Waits until every lane is up to date behind this time; says when that was.
    fn caught_up(&self, since_ms: i64) -> Result<i64> {
        until("all lanes are up to date", || {
            Ok(is_up_to_date(&outputs::read(&self.outputs)?, since_ms, LATE_MS))
        })?;
        Ok(now_ms())
    }

    /// Has something done to the job while it runs, and prints what came of it.
    fn incident(&self, name: &str, target_ms: i64, act: impl FnOnce() -> Result<()>) -> Result<()> {
        sleep(QUIET);
        let before = self.effect(now_ms() - QUIET.as_millis() as i64, now_ms())?;
        print(&format!("{name}: before"), &before, None, None);
        let began_ms = now_ms();
        act()?;
        // Until then the output may go on as before.
        sleep(Duration::from_secs(2));
        let caught_up_ms = self.caught_up(began_ms + 1_500)?;
        sleep(Duration::from_secs(1));
        let during = self.effect(began_ms - 500, now_ms())?;
        print(name, &during, Some(caught_up_ms - began_ms), Some(target_ms));
        self.cluster.await_checkpoints(&self.job, 2)
    }

    fn effect(&self, from_ms: i64, to_ms: i64) -> Result<Effect> {
        Ok(effect(&outputs::read(&self.outputs)?, from_ms, to_ms))
    }
}

fn print(name: &str, effect: &Effect, caught_up_ms: Option<i64>, target_ms: Option<i64>) {
    let Effect { gap_ms, lane_gap_ms, p50_ms, p99_ms, worst_ms } = effect;
    let caught_up = caught_up_ms.map_or(String::new(), |ms| ms.to_string());
    let verdict = target_ms.map_or(String::new(), |target| {
        format!("< {target} {}", if *lane_gap_ms < target { "met" } else { "NOT met" })
    });
    println!(
        "{name:<44} {gap_ms:>8} {lane_gap_ms:>8} {caught_up:>9} {p50_ms:>8} {p99_ms:>8} {worst_ms:>8}  {verdict}"
    );
}

fn kill(options: &Options, is_local: bool) -> Result<()> {
    let local =
        ["execution.checkpointing.local-backup.enabled=true", "execution.state-recovery.from-local=true"];
    let (settings, place, target_ms) = match is_local {
        true => (&local[..], "local copy", 2_000),
        false => (&[][..], "storage", 5_000),
    };
    let running = Running::start(options, 1, Slow::Not, settings)?;
    for _ in 0..options.rounds {
        running.incident(&format!("executor killed, from {place}"), target_ms, || {
            let executors = running.cluster.executors()?;
            let [executor] = executors[..] else { return Err(format!("executors: {executors:?}").into()) };
            // SAFETY: touches no memory. The number is that of a process of this benchmark's own cluster.
            unsafe { libc::kill(executor, libc::SIGKILL) };
            Ok(())
        })?;
    }
    Ok(())
}

fn rescale(options: &Options) -> Result<()> {
    let running = Running::start(options, 2, Slow::Not, &[])?;
    for _ in 0..options.rounds {
        for (from, to) in [(2, 4), (4, 2)] {
            running.incident(&format!("rescaled from {from} to {to}"), 1_000, || {
                running.cluster.flott(&["rescale", &running.job, "-p", &to.to_string()]).map(drop)
            })?;
        }
    }
    Ok(())
}

/// How long checkpoints take where a sink takes milliseconds over each record.
fn unaligned(options: &Options) -> Result<()> {
    let unaligned = "execution.checkpointing.unaligned.enabled=true";
    let timeout = "execution.checkpointing.aligned-checkpoint-timeout=1 s";
    let pause = Duration::from_millis(5);
    for (name, slow, settings) in [
        ("waiting sink, unaligned", Slow::Waits(pause), &[unaligned][..]),
        ("waiting sink, unaligned behind 1 s", Slow::Waits(pause), &[unaligned, timeout]),
        ("sleeping sink, unaligned", Slow::Sleeps(pause), &[unaligned]),
        ("sleeping sink, unaligned behind 1 s", Slow::Sleeps(pause), &[unaligned, timeout]),
    ] {
        let running = Running::start(options, 1, slow, settings)?;
        // By now all that is in between is full.
        sleep(QUIET * 2);
        running.cluster.await_checkpoints(&running.job, 8)?;
        let statistics = running.cluster.checkpoints(&running.job)?;
        let history = statistics["history"].as_array().ok_or("no history")?;
        let completed = history.iter().filter(|one| one["status"] == "COMPLETED");
        let mut took_ms: Vec<u64> = completed.filter_map(|one| one["end_to_end_duration"].as_u64()).collect();
        took_ms.sort_unstable();
        let (median, worst) = (took_ms[took_ms.len() / 2], took_ms[took_ms.len() - 1]);
        let failed = &statistics["counts"]["failed"];
        println!(
            "{name:<44} checkpoints: {} complete, {failed} failed, median {median} ms, longest {worst} ms  < 5000 {}",
            took_ms.len(),
            if worst < 5_000 { "met" } else { "NOT met" }
        );
    }
    Ok(())
}

//! One case on one engine, in a child process of this same program: processor time and peak memory are then its own.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Latency};
use crate::error::BenchError;
use crate::workload::{Case, Size};

/// No case takes a tenth of this on a machine of 2026.
const CHILD_LIMIT: Duration = Duration::from_secs(600);
const CHILD_POLL: Duration = Duration::from_millis(20);

/// What a child process prints as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub records: u64,
    pub wall_seconds: f64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// The most memory that was ever resident (VmHWM).
    pub peak_bytes: u64,
    /// Hexadecimal, because not every reader of JSON has 64-bit integers.
    pub checksum: String,
    pub latency: Option<Latency>,
    pub growth_bytes: Option<u64>,
}

impl Sample {
    pub fn per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu_seconds
    }

    pub fn per_wall_second(&self) -> f64 {
        self.records as f64 / self.wall_seconds
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(latency) = self.latency {
            return write!(formatter, "p50 {:.0} us, p99 {:.0} us", latency.p50_us, latency.p99_us);
        }
        let (per_cpu, per_wall) = (self.per_cpu_second() / 1e6, self.per_wall_second() / 1e6);
        write!(formatter, "{per_cpu:.1} M/CPU-s, {per_wall:.1} M/s")
    }
}

/// In the child: does the work and measures it.
pub fn run_here(engine: &Engine, case: Case, threads: usize, size: &Size) -> Result<Sample, BenchError> {
    if !(engine.supports)(case, threads) {
        return Err(BenchError::Unsupported { engine: engine.name, case: case.name(), threads });
    }
    let cpu_before = cpu_seconds(libc::RUSAGE_SELF)?;
    let start = Instant::now();
    let outcome = (engine.run)(case, threads, size)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    Ok(Sample {
        records: outcome.records,
        wall_seconds,
        cpu_seconds: cpu_seconds(libc::RUSAGE_SELF)? - cpu_before,
        peak_bytes: status_bytes("VmHWM:")?,
        checksum: format!("{:#018x}", outcome.checksum),
        latency: outcome.latency,
        growth_bytes: outcome.growth_bytes,
    })
}

/// In the parent: starts the child, waits for it and reads what it prints.
pub fn run_in_child(engine: &Engine, case: Case, threads: usize, quick: bool) -> Result<Sample, BenchError> {
    let what = format!("{} on {} at {threads} thread(s)", case.name(), engine.name);
    let spawn_error = |source| BenchError::Spawn { what: what.clone(), source };
    let mut command = Command::new(env::current_exe().map_err(spawn_error)?);
    command.args(["--case", case.name(), "--engine", engine.name, "--threads", &threads.to_string()]);
    if quick {
        command.arg("--quick");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(spawn_error)?;
    let child_error = |reason: String| BenchError::Child { what: what.clone(), reason };
    if !wait(&mut child).map_err(|error| child_error(format!("cannot be waited for: {error}")))? {
        return Err(BenchError::TimedOut { what, limit: CHILD_LIMIT });
    }
    let status = child.wait().map_err(|error| child_error(format!("cannot be waited for: {error}")))?;
    if !status.success() {
        return Err(child_error(format!("ended with {status}")));
    }
    let mut printed = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout
            .read_to_string(&mut printed)
            .map_err(|error| child_error(format!("printed what cannot be read: {error}")))?;
    }
    let line = printed.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|error| child_error(format!("printed {line:?}: {error}")))
}

/// Whether the child ended by itself within the limit; it is killed if not. What it prints is one line, which fits the pipe.
fn wait(child: &mut Child) -> io::Result<bool> {
    let deadline = Instant::now() + CHILD_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(CHILD_POLL);
    }
    Ok(true)
}

/// Memory of this process that is resident now.
pub fn resident_bytes() -> Result<u64, BenchError> {
    status_bytes("VmRSS:")
}

fn status_bytes(field: &'static str) -> Result<u64, BenchError> {
    let error = |source| BenchError::System { what: field, source };
    let status = fs::read_to_string("/proc/self/status").map_err(error)?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kibibytes| kibibytes.trim().parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1_024)
        .ok_or_else(|| error(io::Error::other("not in /proc/self/status")))
}

/// User and system time so far of this process (`RUSAGE_SELF`) or of its ended children (`RUSAGE_CHILDREN`).
pub fn cpu_seconds(whose: libc::c_int) -> Result<f64, BenchError> {
    // SAFETY: all bits zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable `rusage`.
    if unsafe { libc::getrusage(whose, &mut usage) } != 0 {
        return Err(BenchError::System { what: "processor time", source: io::Error::last_os_error() });
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1_000_000.0;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

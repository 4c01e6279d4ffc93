//! What the figures were measured on.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;

use serde::Serialize;

/// The lock file that this program was built with.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory: String,
    pub kernel: String,
    pub rustc: String,
    /// The 1, 5 and 15 minute load averages before the first run.
    pub load: String,
}

impl Machine {
    /// This machine; what it does not tell is "unknown".
    pub fn describe() -> Self {
        Self {
            cpu: field_of("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(0, |cores| cores.get()),
            memory: field_of("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
            kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            rustc: rustc().unwrap_or_else(unknown),
            load: load(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory, kernel, rustc, load } = self;
        write!(formatter, "{cpu}, {cores} core(s), {memory}, Linux {kernel}, {rustc}, load {load}")
    }
}

/// The load averages now.
pub fn load() -> String {
    let line = first_line("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = line.split_whitespace().take(3).collect();
    if averages.is_empty() { unknown() } else { averages.join(" ") }
}

/// Processor time that all work on the machine has taken since it started.
pub fn busy_seconds() -> Option<f64> {
    // SAFETY: `sysconf` only reads.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let line = first_line("/proc/stat")?;
    let mut ticks = Vec::new();
    for field in line.strip_prefix("cpu ")?.split_whitespace() {
        ticks.push(field.parse::<f64>().ok()?);
    }
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is counted in user time already.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum::<f64>();
    Some(busy / ticks_per_second)
}

/// The version of a crate this program was built with, if it is in the lock file once.
pub fn version_of(package: &str) -> Option<&'static str> {
    let wanted = format!("\"{package}\"");
    let mut lines = LOCK_FILE.lines();
    let mut versions = std::iter::from_fn(|| {
        lines.find(|line| line.strip_prefix("name = ") == Some(&wanted))?;
        lines.next()?.strip_prefix("version = ").map(|version| version.trim_matches('"'))
    });
    let version = versions.next()?;
    versions.next().is_none().then_some(version)
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn first_line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().next().map(|line| line.trim().to_owned())
}

fn field_of(path: &str, field: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()?
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == field)
        .map(|(_, value)| value.trim().to_owned())
}

fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

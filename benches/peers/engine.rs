//! What an engine is to this benchmark, and the table of engines.

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::workload::{Case, Size};

/// Every engine that is measured. A file of engines is added here by one line (and by its `mod` line in `main.rs`).
static ENGINES: &[&[Engine]] =
    &[crate::flott::ENGINES, crate::hand::ENGINES, crate::renoir::ENGINES, crate::timely::ENGINES];

pub fn engines() -> impl Iterator<Item = &'static Engine> {
    ENGINES.iter().copied().flatten()
}

/// One way to do the work.
#[derive(Debug)]
pub struct Engine {
    /// What the table and `--engines` call it.
    pub name: &'static str,
    pub role: Role,
    /// The crate whose version the table names, if it is somebody else's.
    pub package: Option<&'static str>,
    /// Whether [`Engine::run`] has a program for the case at this number of threads.
    pub supports: fn(Case, usize) -> bool,
    /// Does the work of a case. Called once in a process of its own, which is what is measured.
    pub run: fn(Case, usize, &Size) -> Result<Outcome, BenchError>,
}

/// What an engine's figures are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one whose targets are checked.
    Subject,
    /// The subject with a setting fixed by hand, to see whether its defaults are as good.
    Variant,
    /// Somebody else's engine, to be reached.
    Peer,
    /// A loop without an engine, for scale.
    Bound,
    /// Shown, but no measure of anything.
    Aside,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Records that the source made.
    pub records: u64,
    /// Wrapping sum over all that the sinks got; equal for all engines.
    pub checksum: u64,
    pub latency: Option<Latency>,
    /// Resident memory gained during the stall of the memory case.
    pub growth_bytes: Option<u64>,
}

/// From the time an event was due to its arrival at the sink.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// Of all events' latencies; sorts them. `None` of none.
    pub fn of(latencies_ns: &mut [u64]) -> Option<Self> {
        latencies_ns.sort_unstable();
        let last = latencies_ns.len().checked_sub(1)?;
        let at = |percent: usize| latencies_ns[last * percent / 100] as f64 / 1_000.0;
        Some(Self { p50_us: at(50), p99_us: at(99), max_us: at(100) })
    }
}

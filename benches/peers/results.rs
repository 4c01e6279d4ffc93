//! The samples of each case, engine and number of threads, and their medians.

use std::thread;
use std::time::Instant;

use serde::Serialize;

use crate::engine::{Engine, Latency, Role};
use crate::error::BenchError;
use crate::machine;
use crate::measure::{self, Sample};
use crate::workload::Case;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    pub case: Case,
    pub engine: &'static Engine,
    pub threads: usize,
    /// One for each round; never empty.
    pub samples: Vec<Sample>,
}

impl Row {
    /// The median over the rounds of one figure.
    pub fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        let mut figures: Vec<_> = self.samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let upper = figures.len() / 2;
        if figures.len() % 2 == 1 { figures[upper] } else { (figures[upper - 1] + figures[upper]) / 2.0 }
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.median(Sample::per_cpu_second)
    }

    pub fn per_wall_second(&self) -> f64 {
        self.median(Sample::per_wall_second)
    }

    pub fn peak_bytes(&self) -> u64 {
        self.median(|sample| sample.peak_bytes as f64) as u64
    }

    pub fn latency(&self) -> Option<Latency> {
        let latencies: Option<Vec<_>> = self.samples.iter().map(|sample| sample.latency).collect();
        latencies?;
        let median = |figure: fn(&Latency) -> f64| {
            self.median(|sample| sample.latency.as_ref().map_or(f64::NAN, figure))
        };
        Some(Latency {
            p50_us: median(|latency| latency.p50_us),
            p99_us: median(|latency| latency.p99_us),
            max_us: median(|latency| latency.max_us),
        })
    }

    /// The worst of all rounds: memory that grows once is not flat.
    pub fn growth_bytes(&self) -> Option<u64> {
        self.samples.iter().map(|sample| sample.growth_bytes).max().flatten()
    }
}

/// Fails if the new sample is not of the same work as the first one of its case.
pub fn check_same_work(
    rows: &[Row],
    case: Case,
    engine: &'static Engine,
    threads: usize,
    sample: &Sample,
) -> Result<(), BenchError> {
    let Some(first) = rows.iter().find(|row| row.case == case) else { return Ok(()) };
    let summary = |sample: &Sample| format!("checksum {} over {} records", sample.checksum, sample.records);
    let (expected, got) = (summary(&first.samples[0]), summary(sample));
    if expected == got {
        return Ok(());
    }
    let (case, engine, first) = (case.name(), engine.name, first.engine.name.to_owned());
    Err(BenchError::Disagree { case, engine, threads, got, first, expected })
}

/// How much else went on while a case was measured. Processor time hardly suffers from it; time on the wall does.
#[derive(Debug, Serialize)]
pub struct Disturbance {
    #[serde(serialize_with = "case_name")]
    pub case: Case,
    /// The share of the machine's processors that other work (or the host) took meanwhile.
    pub others_share: f64,
}

fn case_name<S: serde::Serializer>(case: &Case, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(case.name())
}

/// Measures the disturbance from its creation on.
pub struct Watch {
    case: Case,
    start: Instant,
    busy_seconds: Option<f64>,
    own_seconds: Option<f64>,
}

impl Watch {
    pub fn start(case: Case) -> Self {
        let start = Instant::now();
        Self { case, start, busy_seconds: machine::busy_seconds(), own_seconds: own_seconds() }
    }

    /// `None` where the system does not tell.
    pub fn stop(self) -> Option<Disturbance> {
        let own = own_seconds()? - self.own_seconds?;
        let others = machine::busy_seconds()? - self.busy_seconds? - own;
        let cores = thread::available_parallelism().ok()?.get() as f64;
        let available = self.start.elapsed().as_secs_f64() * cores;
        Some(Disturbance { case: self.case, others_share: (others / available).clamp(0.0, 1.0) })
    }
}

/// Processor time of the processes measured so far.
fn own_seconds() -> Option<f64> {
    measure::cpu_seconds(libc::RUSAGE_CHILDREN).ok()
}

/// A row as `--json` writes it.
#[derive(Debug, Serialize)]
pub struct RowRecord<'a> {
    case: &'static str,
    title: &'static str,
    engine: &'static str,
    role: Role,
    version: Option<&'static str>,
    threads: usize,
    records: u64,
    events_per_cpu_second: f64,
    events_per_wall_second: f64,
    cpu_seconds: f64,
    wall_seconds: f64,
    peak_bytes: u64,
    latency: Option<Latency>,
    growth_bytes: Option<u64>,
    samples: &'a [Sample],
}

impl<'a> From<&'a Row> for RowRecord<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            case: row.case.name(),
            title: row.case.title(),
            engine: row.engine.name,
            role: row.engine.role,
            version: row.engine.package.and_then(machine::version_of),
            threads: row.threads,
            records: row.samples[0].records,
            events_per_cpu_second: row.per_cpu_second(),
            events_per_wall_second: row.per_wall_second(),
            cpu_seconds: row.median(|sample| sample.cpu_seconds),
            wall_seconds: row.median(|sample| sample.wall_seconds),
            peak_bytes: row.peak_bytes(),
            latency: row.latency(),
            growth_bytes: row.growth_bytes(),
            samples: &row.samples,
        }
    }
}

//! The table that people read.

use std::fmt::Write;

use crate::engine::Role;
use crate::machine;
use crate::results::{Disturbance, Row};
use crate::targets::{Measure, Verdict};
use crate::workload::Case;

/// Less is the noise of any machine.
const NOTABLE_SHARE: f64 = 0.02;

/// Columns of text, each as wide as its widest cell; all but the first are set to the right.
#[derive(Default)]
struct Columns {
    lines: Vec<Vec<String>>,
}

impl Columns {
    fn headed(names: &[&str]) -> Self {
        Self { lines: vec![names.iter().map(|name| (*name).to_owned()).collect()] }
    }

    fn render(&self, out: &mut String) {
        let width = |column: usize| {
            self.lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
        };
        for line in &self.lines {
            let mut text = String::from("  ");
            for (column, cell) in line.iter().enumerate() {
                let width = width(column).unwrap_or(0);
                if column == 0 {
                    text.extend([format!("{cell:<width$}")]);
                } else {
                    text.extend([format!("  {cell:>width$}")]);
                }
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
    }
}

/// All rows, by case.
pub fn render_rows(rows: &[Row], disturbances: &[Disturbance]) -> String {
    let mut out = String::new();
    for case in Case::ALL {
        let rows: Vec<_> = rows.iter().filter(|row| row.case == case).collect();
        let Some(first) = rows.first() else { continue };
        let records = first.samples[0].records as f64 / 1e6;
        let unit = if case == Case::WordCount { "words" } else { "records" };
        let disturbance = disturbances
            .iter()
            .find(|disturbance| disturbance.case == case && disturbance.others_share >= NOTABLE_SHARE)
            .map(|disturbance| {
                format!(
                    "; other work took {:.0} % of the machine meanwhile",
                    disturbance.others_share * 100.0
                )
            });
        let disturbance = disturbance.unwrap_or_default();
        out.extend([format!("\n{}: {records:.2} M {unit}{disturbance}\n", case.title())]);
        let columns = match case {
            Case::Latency => latency_columns(&rows),
            Case::StalledSink => memory_columns(&rows),
            _ => throughput_columns(&rows),
        };
        columns.render(&mut out);
    }
    out
}

fn engine_name(row: &Row) -> String {
    match row.engine.package.and_then(machine::version_of) {
        Some(version) => format!("{} ({version})", row.engine.name),
        None => row.engine.name.to_owned(),
    }
}

fn throughput_columns(rows: &[&Row]) -> Columns {
    let mut columns = Columns::headed(&[
        "engine",
        "threads",
        "M/CPU-s",
        "M/s",
        "peak MB",
        "CPU: of hand",
        "of best peer",
        "wall: of best peer",
    ]);
    for row in rows {
        let ratio = |role: Role, figure: fn(&Row) -> f64| {
            rows.iter()
                .filter(|other| other.threads == row.threads && other.engine.role == role)
                .map(|other| figure(other))
                .max_by(f64::total_cmp)
                .map_or_else(String::new, |best| format!("{:.2}", figure(row) / best))
        };
        columns.lines.push(vec![
            engine_name(row),
            row.threads.to_string(),
            format!("{:.1}", row.per_cpu_second() / 1e6),
            format!("{:.1}", row.per_wall_second() / 1e6),
            megabytes(row.peak_bytes() as f64),
            ratio(Role::Bound, Row::per_cpu_second),
            ratio(Role::Peer, Row::per_cpu_second),
            ratio(Role::Peer, Row::per_wall_second),
        ]);
    }
    columns
}

fn memory_columns(rows: &[&Row]) -> Columns {
    let mut columns = Columns::headed(&["engine", "threads", "M/CPU-s", "peak MB", "grown MB"]);
    for row in rows {
        columns.lines.push(vec![
            engine_name(row),
            row.threads.to_string(),
            format!("{:.1}", row.per_cpu_second() / 1e6),
            megabytes(row.peak_bytes() as f64),
            row.growth_bytes().map_or_else(String::new, |bytes| megabytes(bytes as f64)),
        ]);
    }
    columns
}

fn latency_columns(rows: &[&Row]) -> Columns {
    let mut columns =
        Columns::headed(&["engine", "threads", "p50 us", "p99 us", "max us", "CPU us/event", "peak MB"]);
    for row in rows {
        let figure = |pick: fn(&crate::engine::Latency) -> f64| {
            row.latency().map_or_else(String::new, |latency| format!("{:.0}", pick(&latency)))
        };
        columns.lines.push(vec![
            engine_name(row),
            row.threads.to_string(),
            figure(|latency| latency.p50_us),
            figure(|latency| latency.p99_us),
            figure(|latency| latency.max_us),
            format!("{:.1}", 1e6 / row.per_cpu_second()),
            megabytes(row.peak_bytes() as f64),
        ]);
    }
    columns
}

/// What Flott is to reach, and whether it did.
pub fn render_verdicts(verdicts: &[Verdict]) -> String {
    let mut out = String::from("\ntargets\n");
    let mut columns = Columns::headed(&[
        "case",
        "threads",
        "measure",
        "against",
        "to reach",
        "got",
        "got/to reach",
        "verdict",
    ]);
    for verdict in verdicts {
        let unit = unit_of(verdict.measure);
        columns.lines.push(vec![
            verdict.case.to_owned(),
            verdict.threads.to_string(),
            unit.name.to_owned(),
            verdict.against.clone(),
            unit.show(verdict.bound),
            verdict.got.map_or_else(|| "-".to_owned(), |got| unit.show(got)),
            verdict.got.map_or_else(|| "-".to_owned(), |got| format!("{:.2}", got / verdict.bound)),
            verdict.met.map_or("not measured", |met| if met { "pass" } else { "MISS" }).to_owned(),
        ]);
    }
    columns.render(&mut out);
    out
}

struct Unit {
    name: &'static str,
    scale: f64,
    decimals: usize,
}

impl Unit {
    fn show(&self, figure: f64) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{:.*}", self.decimals, figure * self.scale);
        text
    }
}

fn unit_of(measure: Measure) -> Unit {
    let (name, scale, decimals) = match measure {
        Measure::EventsPerCpuSecond => ("M/CPU-s, at least", 1e-6, 1),
        Measure::EventsPerWallSecond => ("M/s, at least", 1e-6, 1),
        Measure::CpuNanosecondsPerEvent => ("CPU ns/event, at most", 1.0, 1),
        Measure::P99Microseconds => ("p99 us, at most", 1.0, 0),
        Measure::GrowthBytes => ("grown MB, at most", 1.0 / f64::from(1 << 20), 1),
    };
    Unit { name, scale, decimals }
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0}", bytes / f64::from(1 << 20))
}

//! What a job that has ended says of itself.

use std::fmt;
use std::time::Duration;

use flott_schema::graph::JobGraph;
use flott_schema::ids::JobId;
use flott_worker::metrics::VertexSummary;
use serde_json::json;

/// The result of a job that finished.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// Job id.
    pub job: JobId,
    /// Job name.
    pub name: String,
    /// From submission to the end.
    pub runtime: Duration,
    /// Per vertex, upstream first.
    pub vertices: Vec<VertexSummary>,
    /// Whether the job has come to its end: not if it was submitted to a cluster without waiting for it.
    pub finished: bool,
}

impl JobResult {
    /// The result of a job that this process does not see the end of.
    pub(crate) fn without_numbers(job: JobId, graph: &JobGraph) -> Self {
        JobResult {
            job,
            name: graph.name.clone(),
            runtime: Duration::ZERO,
            vertices: Vec::new(),
            finished: false,
        }
    }

    /// Records that the sources read.
    pub fn source_records(&self) -> u64 {
        self.vertices.iter().map(|vertex| vertex.source_records).sum()
    }

    /// Records read from outside per second of [`Self::runtime`].
    pub fn events_per_second(&self) -> f64 {
        self.source_records() as f64 / self.runtime.as_secs_f64().max(1e-9)
    }

    /// The summary for programs: one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let vertices = self.vertices.iter().map(|vertex| {
            json!({
                "name": vertex.name,
                "tasks": vertex.tasks,
                "records_in": vertex.records_in,
                "records_out": vertex.records_out,
                "source_records": vertex.source_records,
                "late_records_dropped": vertex.late_records_dropped,
                "undecodable_records": vertex.undecodable_records,
                "busy_ms": vertex.busy_ns as f64 / 1e6,
            })
        });
        json!({
            "job": self.job.to_string(),
            "name": self.name,
            "state": if self.finished { "FINISHED" } else { "SUBMITTED" },
            "runtime_ms": self.runtime.as_secs_f64() * 1e3,
            "source_records": self.source_records(),
            "events_per_second": self.events_per_second(),
            "vertices": vertices.collect::<Vec<_>>(),
        })
    }
}

/// A table for people.
impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.runtime.as_secs_f64();
        let width =
            self.vertices.iter().map(|vertex| vertex.name.chars().count()).max().unwrap_or(0).clamp(6, 60);
        writeln!(f, "job '{}' finished in {seconds:.3} s", self.name)?;
        writeln!(
            f,
            "  {:width$}  {:>5}  {:>14}  {:>14}  {:>12}",
            "vertex", "tasks", "records in", "records out", "busy s"
        )?;
        for vertex in &self.vertices {
            let name: String = match vertex.name.chars().count() > width {
                true => vertex.name.chars().take(width - 1).chain(['…']).collect(),
                false => vertex.name.clone(),
            };
            let records_in =
                if vertex.source_records > 0 { vertex.source_records } else { vertex.records_in };
            writeln!(
                f,
                "  {name:width$}  {:>5}  {:>14}  {:>14}  {:>12.3}",
                vertex.tasks,
                grouped(records_in),
                grouped(vertex.records_out),
                vertex.busy_ns as f64 / 1e9,
            )?;
        }
        for vertex in &self.vertices {
            if vertex.late_records_dropped > 0 {
                writeln!(
                    f,
                    "  {} late records dropped in '{}'",
                    grouped(vertex.late_records_dropped),
                    vertex.name
                )?;
            }
            if vertex.undecodable_records > 0 {
                writeln!(
                    f,
                    "  {} undecodable records skipped in '{}'",
                    grouped(vertex.undecodable_records),
                    vertex.name
                )?;
            }
        }
        write!(
            f,
            "  {} events read, {} events per second",
            grouped(self.source_records()),
            grouped(self.events_per_second() as u64)
        )
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}

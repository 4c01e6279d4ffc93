//! What is said of a job of a cluster when it has ended: the numbers that the REST API has of it.

use std::fmt::Write;
use std::time::Duration;

use flott_schema::graph::{JobGraph, Vertex};
use flott_schema::ids::JobId;
use flott_worker::metrics::VertexSummary;

use crate::client::views::{JobDetails, MetricSum};
use crate::client::{Client, ClientError};
use crate::result::JobResult;

/// The result of a finished job. Numbers that cannot be read are left at 0: the job has finished nevertheless.
pub fn summarised(client: &Client, job: JobId, graph: &JobGraph, details: &JobDetails) -> JobResult {
    let id = job.to_string();
    let vertices = graph.vertices.iter().map(|vertex| summary(client, &id, vertex, details));
    JobResult {
        job,
        name: graph.name.clone(),
        runtime: Duration::from_millis(details.duration.max(0) as u64),
        vertices: vertices.collect(),
        finished: true,
    }
}

/// Records that the sources of a job have read.
pub fn source_records(client: &Client, job: &str, graph: &JobGraph) -> Result<u64, ClientError> {
    let mut records = 0;
    for vertex in graph.vertices.iter().filter(|vertex| vertex.is_source) {
        records += sums(client, job, vertex, &[read_by_source(vertex)])?[0];
    }
    Ok(records)
}

fn summary(client: &Client, job: &str, vertex: &Vertex, details: &JobDetails) -> VertexSummary {
    let id = vertex.id.to_string();
    let io = details.vertices.iter().find(|known| known.id == id).map(|known| known.metrics.clone());
    let io = io.unwrap_or_default();
    let mut wanted = vec!["numLateRecordsDropped".to_string(), read_by_source(vertex)];
    wanted.extend(vertex.operators.iter().map(|operator| metric(&operator.name, "numRecordsInErrors")));
    let sums = sums(client, job, vertex, &wanted).unwrap_or_else(|_| vec![0; wanted.len()]);
    VertexSummary {
        name: vertex.name.clone(),
        tasks: vertex.parallelism as usize,
        records_in: io.read_records,
        records_out: io.write_records,
        source_records: if vertex.is_source { sums[1] } else { 0 },
        late_records_dropped: sums[0],
        undecodable_records: sums[2..].iter().sum(),
        busy_ns: (io.accumulated_busy_time.max(0.0) * 1e6) as u64,
    }
}

/// The metric of what a source has read: what its first operator has emitted.
fn read_by_source(vertex: &Vertex) -> String {
    metric(vertex.operators.first().map_or("", |operator| &operator.name), "numRecordsOut")
}

/// The id of an operator's metric, in which its name is without the signs that separate.
fn metric(operator: &str, name: &str) -> String {
    format!("{}.{name}", operator.replace([' ', '.', ':', ','], "_"))
}

/// Metrics summed over the tasks of a vertex, in the order asked for; 0 for one that is not known.
fn sums(client: &Client, job: &str, vertex: &Vertex, metrics: &[String]) -> Result<Vec<u64>, ClientError> {
    let wanted: Vec<String> = metrics.iter().map(|metric| escaped(metric)).collect();
    let path =
        format!("/jobs/{job}/vertices/{}/subtasks/metrics?agg=sum&get={}", vertex.id, wanted.join(","));
    let found: Vec<MetricSum> = client.get(&path)?;
    let sum =
        |wanted: &String| found.iter().find(|sum| sum.id == *wanted).map_or(0, |sum| sum.sum.max(0.0) as u64);
    Ok(metrics.iter().map(sum).collect())
}

/// A text as it may stand in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            // Writing to a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_the_rest_api_names_them() {
        assert_eq!(metric("Source: Text Files", "numRecordsOut"), "Source__Text_Files.numRecordsOut");
        assert_eq!(escaped("Größe a.b"), "Gr%C3%B6%C3%9Fe%20a.b");
    }
}

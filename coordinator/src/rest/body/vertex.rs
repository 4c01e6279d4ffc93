//! One vertex.

use std::collections::BTreeMap;

use flott_schema::control::TaskState;
use flott_schema::graph::Vertex;
use serde::Serialize;
use serde_json::{Value, json};

use super::Body;
use super::counts::{Counts, state_of};
use super::io::{Io, Numbers};
use super::subtask::{Host, Hosts, Subtask, durations};
use super::times::{LIVE_STATES, Span};
use crate::machine::{TaskCounts, TaskRecord, VertexRecord};

#[derive(Serialize)]
struct Detail {
    id: String,
    name: String,
    parallelism: u32,
    #[serde(rename = "maxParallelism")]
    max_parallelism: u32,
    now: u64,
    subtasks: Vec<Subtask>,
    aggregated: Value,
}

/// `/jobs/:jobid/vertices/:vertexid`.
pub(in crate::rest) fn vertex(
    vertex: &Vertex,
    record: &VertexRecord,
    hosts: &Hosts,
    numbers: &Numbers,
    now_ms: u64,
) -> Body {
    Body::of(&Detail {
        id: vertex.id.to_string(),
        name: vertex.name.clone(),
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        now: now_ms,
        subtasks: record.tasks().iter().map(|task| Subtask::of(task, hosts, numbers, now_ms)).collect(),
        aggregated: aggregated(record.tasks().iter(), numbers, now_ms),
    })
}

/// Aggregates over subtasks, for dashboards.
fn aggregated<'a>(
    tasks: impl Iterator<Item = &'a TaskRecord> + Clone,
    numbers: &Numbers,
    now_ms: u64,
) -> Value {
    let mut metrics: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for task in tasks {
        for (name, value) in Io::sum(numbers, [task].into_iter()).named() {
            metrics.entry(name).or_default().push(value);
        }
        for (state, duration) in durations(task, now_ms) {
            times.entry(state).or_default().push(duration as f64);
        }
    }
    let spread = |values: BTreeMap<&'static str, Vec<f64>>| -> BTreeMap<&'static str, Value> {
        values.into_iter().map(|(name, values)| (name, distribution(values))).collect()
    };
    debug_assert!(times.len() <= LIVE_STATES.len());
    json!({ "metrics": spread(metrics), "status-duration": spread(times) })
}

/// Flink's summary of a few numbers; percentiles by nearest rank.
fn distribution(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let sum: f64 = values.iter().sum();
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).map_or(0, |value| *value as i64)
    };
    json!({
        "min": at(0.0),
        "max": at(1.0),
        "avg": if values.is_empty() { 0 } else { (sum / values.len() as f64) as i64 },
        "sum": sum as i64,
        "median": at(0.5),
        "p25": at(0.25),
        "p75": at(0.75),
        "p95": at(0.95),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OnWorker {
    endpoint: String,
    status: &'static str,
    #[serde(flatten)]
    span: Span,
    metrics: Io,
    status_counts: Counts,
    taskmanager_id: String,
    aggregated: Value,
}

/// `/jobs/:jobid/vertices/:vertexid/taskmanagers`: its subtasks by worker.
pub(in crate::rest) fn vertex_workers(
    vertex: &Vertex,
    record: &VertexRecord,
    hosts: &Hosts,
    numbers: &Numbers,
    now_ms: u64,
) -> Body {
    let mut places: BTreeMap<String, (Host, Vec<&TaskRecord>)> = BTreeMap::new();
    for task in record.tasks() {
        let host = hosts.of(task);
        places.entry(host.name.clone()).or_insert_with(|| (host, Vec::new())).1.push(task);
    }
    let workers = places.into_values().map(|(host, tasks)| {
        let counts = TaskCounts::of_states(tasks.iter().map(|task| task.state()));
        OnWorker {
            endpoint: host.endpoint,
            status: state_of(&counts),
            span: Span::of_tasks(tasks.iter().copied(), now_ms),
            metrics: Io::sum(numbers, tasks.iter().copied()),
            status_counts: Counts(counts),
            taskmanager_id: host.name,
            aggregated: aggregated(tasks.iter().copied(), numbers, now_ms),
        }
    });
    Body::of(&json!({
        "id": vertex.id.to_string(),
        "name": vertex.name,
        "now": now_ms,
        "taskmanagers": workers.collect::<Vec<_>>(),
    }))
}

/// `/jobs/:jobid/vertices/:vertexid/backpressure`.
pub(in crate::rest) fn backpressure(record: &VertexRecord, numbers: &Numbers, now_ms: u64) -> Body {
    let mut worst = 0.0_f64;
    let mut newest = None;
    let mut subtasks = Vec::new();
    for task in record.tasks().iter().filter(|task| task.state() == TaskState::Running) {
        let samples = numbers.of(task);
        let share = |of: fn(&flott_schema::stats::TaskStats) -> u64| {
            samples.map_or(0.0, |samples| (samples.per_second(of) / 1_000.0).clamp(0.0, 1.0))
        };
        let ratio = share(|stats| stats.backpressured_ms);
        worst = worst.max(ratio);
        newest = newest.max(samples.map(|samples| samples.latest.at_ms));
        subtasks.push(json!({
            "subtask": task.attempt().task.subtask,
            "attempt-number": task.attempt().attempt,
            "backpressureLevel": level(ratio),
            "backpressure-level": level(ratio),
            "ratio": ratio,
            "idleRatio": share(|stats| stats.idle_ms),
            "busyRatio": share(|stats| stats.busy_ms),
        }));
    }
    Body::of(&json!({
        "status": "ok",
        "backpressureLevel": level(worst),
        "backpressure-level": level(worst),
        "end-timestamp": newest.unwrap_or(now_ms),
        "subtasks": subtasks,
    }))
}

/// Flink's three levels.
fn level(ratio: f64) -> &'static str {
    match ratio {
        ratio if ratio <= 0.10 => "ok",
        ratio if ratio <= 0.5 => "low",
        _ => "high",
    }
}

//! The numbers behind the metric endpoints, by Flink's names.
//!
//! A metric is an id and a number. Without `get`, an endpoint lists the ids; with it, it gives the values as text; the
//! aggregated endpoints give minimum, maximum, average, sum and skew over subtasks, jobs or workers as numbers.

use std::collections::BTreeMap;

use flott_schema::graph::Vertex;
use flott_schema::metric_names::{BACKPRESSURED_FROM, OPERATOR_COUNTERS, TASK_COUNTERS, TASK_TIMES};
use flott_schema::stats::{OperatorStats, TaskStats, WorkerUsage};
use serde_json::{Map, Value, json};

use super::body::Body;
use super::error::ApiError;
use super::path::Parameters;
use crate::live::TaskSamples;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
    Flag(bool),
}

impl Number {
    fn text(self) -> String {
        match self {
            Number::Int(number) => number.to_string(),
            Number::Float(number) => format!("{number:?}"),
            Number::Flag(flag) => flag.to_string(),
        }
    }

    /// As a gauge; a flag is 0 or 1.
    pub(super) fn gauge(self) -> f64 {
        match self {
            Number::Flag(flag) => f64::from(u8::from(flag)),
            other => other.float().unwrap_or(0.0),
        }
    }

    /// As a number to aggregate; flags are none.
    fn float(self) -> Option<f64> {
        match self {
            Number::Int(number) => Some(number as f64),
            Number::Float(number) => Some(number),
            Number::Flag(_) => None,
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Number::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Metrics by id.
pub(super) type Metrics = BTreeMap<String, Number>;

/// The metrics of a task, with those of its operators as `<operator>.<metric>`, the name without what separates ids.
pub(super) fn of_task(vertex: &Vertex, samples: &TaskSamples) -> Metrics {
    let mut metrics = of_task_alone(samples);
    for (operator, of_operator) in of_operators(vertex, samples) {
        let operator = operator.replace([' ', '.', ':', ','], "_");
        metrics.extend(of_operator.into_iter().map(|(name, number)| (format!("{operator}.{name}"), number)));
    }
    metrics
}

/// The metrics of a task without those of its operators.
pub(super) fn of_task_alone(samples: &TaskSamples) -> Metrics {
    let stats = &samples.latest.value;
    let mut metrics = Metrics::new();
    for (name, of) in TASK_COUNTERS {
        metrics.insert(name.into(), of(stats).into());
        metrics.insert(format!("{name}PerSecond"), Number::Float(samples.per_second(of)));
    }
    for (rate, total, of) in TASK_TIMES {
        metrics.insert(rate.into(), Number::Float(samples.per_second(of)));
        metrics.insert(total.into(), of(stats).into());
    }
    let waiting = samples.per_second(|stats| stats.backpressured_ms);
    metrics.insert("isBackPressured".into(), Number::Flag(waiting >= BACKPRESSURED_FROM));
    metrics.insert("currentInputWatermark".into(), watermark(stats));
    let late = stats.operators.iter().map(|operator| operator.late_records_dropped).sum::<u64>();
    metrics.insert("numLateRecordsDropped".into(), late.into());
    metrics
}

/// The metrics of each operator of a task, with its name.
pub(super) fn of_operators<'a>(
    vertex: &'a Vertex,
    samples: &'a TaskSamples,
) -> impl Iterator<Item = (&'a str, Metrics)> {
    samples.latest.value.operators.iter().enumerate().map(move |(index, operator)| {
        let rate = |of: fn(&OperatorStats) -> u64| {
            Number::Float(samples.per_second(move |stats| stats.operators.get(index).map_or(0, of)))
        };
        let mut metrics = Metrics::new();
        for (name, rate_name, of) in OPERATOR_COUNTERS {
            metrics.insert(name.to_owned(), of(operator).into());
            if let Some(rate_name) = rate_name {
                metrics.insert(rate_name.to_owned(), rate(of));
            }
        }
        (operator_name(vertex, operator, index), metrics)
    })
}

/// The watermark, or what Flink gives before the first.
pub(super) fn watermark(stats: &TaskStats) -> Number {
    Number::Int(stats.input_watermark_ms.unwrap_or(i64::MIN))
}

/// The name of an operator, by its id or its place in the chain.
fn operator_name<'a>(vertex: &'a Vertex, stats: &OperatorStats, index: usize) -> &'a str {
    let by_id = stats.operator.and_then(|id| vertex.operators.iter().find(|operator| operator.id == id));
    by_id.or_else(|| vertex.operators.get(index)).map_or("operator", |operator| operator.name.as_str())
}

/// The metrics of a worker.
pub(super) fn of_worker(usage: &WorkerUsage, memory_bytes: u64) -> Metrics {
    let used = usage.resident_bytes + usage.executors_resident_bytes;
    let metrics: [(&str, Number); 8] = [
        ("Status.JVM.Memory.Heap.Used", used.into()),
        ("Status.JVM.Memory.Heap.Committed", used.into()),
        ("Status.JVM.Memory.Heap.Max", memory_bytes.into()),
        ("Status.JVM.CPU.Time", (usage.cpu_ms.saturating_mul(1_000_000)).into()),
        ("Status.Process.Memory.Resident", usage.resident_bytes.into()),
        ("Status.Process.Executors.Memory.Resident", usage.executors_resident_bytes.into()),
        ("Status.Process.Executors.Count", u64::from(usage.executors).into()),
        ("System.Memory.Available", usage.host_free_bytes.into()),
    ];
    metrics.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}

/// What an endpoint of metrics answers: the ids, or the values that `get` names.
pub(super) fn listed(metrics: &Metrics, parameters: &Parameters) -> Body {
    match parameters.list("get") {
        None => Body::of(&metrics.keys().map(|id| json!({ "id": id })).collect::<Vec<_>>()),
        Some(wanted) => values(metrics, wanted.into_iter()),
    }
}

/// The values of the metrics with these ids; unknown ones are left out, as in Flink.
pub(super) fn values<'a>(metrics: &Metrics, ids: impl Iterator<Item = &'a str>) -> Body {
    let found = ids.filter_map(|id| Some((id, metrics.get(id)?)));
    Body::of(&found.map(|(id, number)| json!({ "id": id, "value": number.text() })).collect::<Vec<_>>())
}

/// What an aggregated endpoint of metrics answers: the ids, or aggregates over `members` of those that `get` names.
pub(super) fn aggregated(members: &[Metrics], parameters: &Parameters) -> Result<Body, ApiError> {
    let Some(wanted) = parameters.list("get") else {
        let mut ids: Vec<&String> = members.iter().flat_map(Metrics::keys).collect();
        ids.sort();
        ids.dedup();
        return Ok(Body::of(&ids.into_iter().map(|id| json!({ "id": id })).collect::<Vec<_>>()));
    };
    let aggregates = match parameters.list("agg") {
        None => AGGREGATES.to_vec(),
        Some(names) => names.into_iter().map(aggregate).collect::<Result<_, _>>()?,
    };
    let mut answers = Vec::new();
    for id in wanted {
        let values: Vec<f64> = members.iter().filter_map(|metrics| metrics.get(id)?.float()).collect();
        if values.is_empty() {
            continue;
        }
        let mut answer = Map::from_iter([("id".to_owned(), json!(id))]);
        answer.extend(aggregates.iter().map(|(name, of)| ((*name).to_owned(), json!(of(&values)))));
        answers.push(Value::Object(answer));
    }
    Ok(Body::of(&answers))
}

type Aggregate = (&'static str, fn(&[f64]) -> f64);

const AGGREGATES: [Aggregate; 5] = [
    ("min", |values| values.iter().copied().fold(f64::INFINITY, f64::min)),
    ("max", |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
    ("avg", mean),
    ("sum", |values| values.iter().sum()),
    ("skew", skew),
];

fn aggregate(name: &str) -> Result<Aggregate, ApiError> {
    let found = AGGREGATES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        ApiError::parameters(format!("Cannot resolve query parameter (agg) from value \"{name}\"."))
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How far the values lie apart, in percent: the mean absolute deviation, as a share of the mean, and at most 100 (Flink's
/// definition for its dashboard).
fn skew(values: &[f64]) -> f64 {
    let mean = mean(values);
    if values.len() < 2 || mean == 0.0 {
        return 0.0;
    }
    let deviation = values.iter().map(|value| (value - mean).abs()).sum::<f64>() / values.len() as f64;
    (deviation / mean * 100.0).min(100.0)
}

/// The subtasks, jobs or other members that a range such as `0,2-4` selects.
pub(super) fn selected(ranges: Option<Vec<&str>>, member: u32) -> Result<bool, ApiError> {
    let Some(ranges) = ranges else { return Ok(true) };
    for range in ranges {
        let wrong = || {
            ApiError::parameters(format!("Cannot resolve query parameter (subtasks) from value \"{range}\"."))
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: u32 = first.parse().map_err(|_| wrong())?;
        let last: u32 = last.parse().map_err(|_| wrong())?;
        if (first..=last).contains(&member) {
            return Ok(true);
        }
    }
    Ok(false)
}

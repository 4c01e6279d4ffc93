//! Vertices and their subtasks.

use actix_web::HttpResponse;
use flott_schema::graph::Vertex;
use flott_schema::ids::{JobId, VertexId};
use serde_json::json;

use super::body;
use super::jobs::{numbers, of_job};
use crate::machine::VertexRecord;
use crate::rest::body::{self as bodies, Body, Hosts, Numbers};
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::rest::metrics::{self, Metrics};
use crate::rest::path::Parameters;
use crate::rest::route::VertexPart;

/// Answers what is asked of a vertex.
pub(super) async fn vertex(
    api: &Api,
    job: JobId,
    vertex: VertexId,
    part: VertexPart,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let now_ms = (api.options.now_ms)();
    let numbers = numbers(api, job);
    let parameters = parameters.clone();
    let answer = of_job(api, job, move |state, record| {
        let position = record.graph().vertices.iter().position(|known| known.id == vertex);
        let position = position.ok_or_else(|| no_vertex(job, vertex))?;
        let (vertex, tasks) = (&record.graph().vertices[position], &record.vertices()[position]);
        let hosts = Hosts::of_job(state, record);
        Ok(match part {
            VertexPart::Detail => bodies::vertex(vertex, tasks, &hosts, &numbers, now_ms),
            VertexPart::SubtaskTimes => bodies::subtask_times(vertex, tasks, &hosts, now_ms),
            VertexPart::Workers => bodies::vertex_workers(vertex, tasks, &hosts, &numbers, now_ms),
            VertexPart::Backpressure => bodies::backpressure(tasks, &numbers, now_ms),
            VertexPart::Watermarks => watermarks(vertex, &numbers),
            VertexPart::Metrics => metrics::listed(&of_subtasks(vertex, &numbers), &parameters),
            VertexPart::OperatorMetrics => metrics::listed(&Metrics::new(), &parameters),
            VertexPart::Accumulators => {
                Body::of(&json!({ "id": vertex.id.to_string(), "user-accumulators": [] }))
            }
            VertexPart::FlameGraph => Body::of(&json!({ "endTimestamp": FLAME_GRAPHS_DISABLED })),
            VertexPart::SubtasksMetrics => return subtasks_metrics(vertex, &numbers, &parameters),
            VertexPart::SubtasksAccumulators => subtasks_accumulators(vertex, tasks, &hosts),
            VertexPart::Subtask { subtask, attempt } => {
                let task = task(tasks, subtask)?;
                check_attempt(task.attempt().attempt, attempt)?;
                bodies::subtask(task, &hosts, &numbers, now_ms)
            }
            VertexPart::SubtaskAccumulators { subtask, attempt } => {
                let task = task(tasks, subtask)?;
                check_attempt(task.attempt().attempt, Some(attempt))?;
                Body::of(&json!({
                    "subtask": subtask,
                    "attempt": attempt,
                    "id": vertex.id.to_string(),
                    "user-accumulators": [],
                }))
            }
            VertexPart::SubtaskMetrics(subtask) => {
                let samples = numbers.of(task(tasks, subtask)?);
                let metrics = samples.map(|samples| metrics::of_task(vertex, samples)).unwrap_or_default();
                metrics::listed(&metrics, &parameters)
            }
        })
    });
    Ok(body(answer.await??))
}

/// What Flink gives for the end of a flame graph where they are switched off.
const FLAME_GRAPHS_DISABLED: i64 = -2;

fn no_vertex(job: JobId, vertex: VertexId) -> ApiError {
    ApiError::not_found(format!("No vertex with ID '{vertex}' found in job {job}."))
}

fn task(record: &VertexRecord, subtask: u32) -> Result<&crate::machine::TaskRecord, ApiError> {
    let count = record.tasks().len();
    let missing = || {
        ApiError::not_found(format!("Invalid subtask index for vertex: {subtask}; it has {count} subtasks"))
    };
    record.tasks().get(subtask as usize).ok_or_else(missing)
}

/// Only the current attempt of a task is remembered.
fn check_attempt(current: u32, wanted: Option<u32>) -> Result<(), ApiError> {
    match wanted {
        Some(wanted) if wanted != current => Err(ApiError::not_found(format!(
            "Could not find execution for attempt {wanted}; the current attempt is {current}"
        ))),
        _ => Ok(()),
    }
}

/// `<subtask>.currentInputWatermark` of each; sources have none.
fn watermarks(vertex: &Vertex, numbers: &Numbers) -> Body {
    let tasks = numbers.of_vertex(vertex.id).filter(|_| !vertex.is_source);
    let metrics: Metrics = tasks
        .map(|(subtask, samples)| {
            (format!("{subtask}.currentInputWatermark"), metrics::watermark(&samples.latest.value))
        })
        .collect();
    let ids: Vec<String> = metrics.keys().cloned().collect();
    metrics::values(&metrics, ids.iter().map(String::as_str))
}

/// The metrics of all subtasks, `<subtask>.` in front.
fn of_subtasks(vertex: &Vertex, numbers: &Numbers) -> Metrics {
    let tasks = numbers.of_vertex(vertex.id);
    tasks
        .flat_map(|(subtask, samples)| {
            let metrics = metrics::of_task(vertex, samples);
            metrics.into_iter().map(move |(name, number)| (format!("{subtask}.{name}"), number))
        })
        .collect()
}

fn subtasks_metrics(vertex: &Vertex, numbers: &Numbers, parameters: &Parameters) -> Result<Body, ApiError> {
    let mut members = Vec::new();
    for (subtask, samples) in numbers.of_vertex(vertex.id) {
        if metrics::selected(parameters.list("subtasks"), subtask)? {
            members.push(metrics::of_task(vertex, samples));
        }
    }
    metrics::aggregated(&members, parameters)
}

fn subtasks_accumulators(vertex: &Vertex, record: &VertexRecord, hosts: &Hosts) -> Body {
    let subtasks = record.tasks().iter().map(|task| {
        json!({
            "subtask": task.attempt().task.subtask,
            "attempt": task.attempt().attempt,
            "endpoint": hosts.of(task).endpoint,
            "user-accumulators": [],
        })
    });
    Body::of(&json!({
        "id": vertex.id.to_string(),
        "parallelism": vertex.parallelism,
        "subtasks": subtasks.collect::<Vec<_>>(),
    }))
}

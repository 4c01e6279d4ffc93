//! One job.

use std::collections::BTreeMap;

use flott_schema::error::ErrorKind;
use flott_schema::job::RestartStrategy;
use flott_schema::plan::Plan;
use serde::Serialize;
use serde_json::json;

use super::Body;
use super::counts::{Counts, VertexCounts, state_of};
use super::io::{Io, Numbers};
use super::throwable::throwable;
use super::times::{Span, Timestamps};
use crate::machine::{JobOutcome, JobRecord};

/// Flink's name of a scheduler that places a job at the parallelism it asks for.
pub(super) const SCHEDULER: &str = "Default";

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JobDetail<'a> {
    jid: String,
    application_id: String,
    name: &'a str,
    #[serde(rename = "isStoppable")]
    is_stoppable: bool,
    state: &'static str,
    job_type: &'static str,
    #[serde(rename = "schedulerType")]
    scheduler_type: &'static str,
    #[serde(flatten)]
    span: Span,
    #[serde(rename = "maxParallelism")]
    max_parallelism: i64,
    now: u64,
    timestamps: Timestamps<'a>,
    vertices: Vec<VertexSummary<'a>>,
    status_counts: VertexCounts,
    plan: Plan,
    pending_operators: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_wait: Option<SlotWait>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct VertexSummary<'a> {
    id: String,
    #[serde(rename = "slotSharingGroupId")]
    slot_sharing_group: String,
    name: &'a str,
    #[serde(rename = "maxParallelism")]
    max_parallelism: u32,
    parallelism: u32,
    status: &'static str,
    #[serde(flatten)]
    span: Span,
    tasks: Counts,
    metrics: Io,
}

/// Flott's own: what a job waits for.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SlotWait {
    since: u64,
    slots_needed: u32,
}

/// `/jobs/:jobid`.
pub(in crate::rest) fn detail(job: &JobRecord, numbers: &Numbers, now_ms: u64) -> Body {
    let graph = job.graph();
    let vertices = graph.vertices.iter().zip(job.vertices()).map(|(vertex, record)| VertexSummary {
        id: vertex.id.to_string(),
        slot_sharing_group: flott_schema::ids::OperatorId::of_uid(&vertex.slot_sharing_group).to_string(),
        name: &vertex.name,
        max_parallelism: vertex.max_parallelism,
        parallelism: vertex.parallelism,
        status: state_of(record.counts()),
        span: Span::of_tasks(record.tasks().iter(), now_ms),
        tasks: Counts(*record.counts()),
        metrics: Io::sum(numbers, record.tasks().iter()),
    });
    let body = JobDetail {
        jid: job.id().to_string(),
        application_id: job.id().to_string(),
        name: &graph.name,
        is_stoppable: false,
        state: job.state().word(),
        job_type: graph.mode.word(),
        scheduler_type: SCHEDULER,
        span: Span::of_job(job, now_ms),
        max_parallelism: -1,
        now: now_ms,
        timestamps: Timestamps(job),
        vertices: vertices.collect(),
        status_counts: VertexCounts::of(job.vertices().iter().map(|vertex| state_of(vertex.counts()))),
        plan: Plan::of(graph, job.id()),
        pending_operators: 0,
        slot_wait: job.slot_wait().map(|wait| SlotWait { since: wait.since_ms, slots_needed: wait.needed }),
    };
    Body::of(&body)
}

/// `/jobs/:jobid/config`.
pub(in crate::rest) fn job_config(job: &JobRecord) -> Body {
    let spec = job.spec();
    let parallelism = spec.graph.vertices.iter().map(|vertex| vertex.parallelism).max();
    let configuration = spec.program.iter().flat_map(|program| &program.configuration);
    let shown = configuration
        .map(|(key, value)| (key.as_str(), flott_schema::config::masked_value(key, value).into_owned()));
    Body::of(&json!({
        "jid": job.id().to_string(),
        "name": spec.graph.name,
        "execution-config": {
            "restart-strategy": restart_words(&spec.settings.restart),
            "job-parallelism": parallelism.unwrap_or(0),
            "object-reuse-mode": true,
            "user-config": shown.collect::<BTreeMap<_, _>>(),
        },
    }))
}

/// A restart strategy for people.
fn restart_words(strategy: &RestartStrategy) -> String {
    let factor = |milli: u32| f64::from(milli) / 1_000.0;
    match strategy {
        RestartStrategy::None => "Restart deactivated.".into(),
        RestartStrategy::FixedDelay { attempts, delay_ms } => {
            format!("Restart with fixed delay ({delay_ms} ms). #{attempts} restart attempts.")
        }
        RestartStrategy::FailureRate { failures_max, interval_ms, delay_ms } => format!(
            "Failure rate restart with maximum of {failures_max} failures within interval {interval_ms} ms and fixed delay {delay_ms} ms."
        ),
        RestartStrategy::ExponentialDelay {
            initial_ms,
            max_ms,
            multiplier_milli,
            jitter_milli,
            reset_ms,
            attempts,
        } => {
            format!(
                "Restart with exponential delay: starting at {initial_ms} ms, increasing by {}, up to {max_ms} ms, jitter {}, \
                 reset after {reset_ms} ms. #{attempts} restart attempts.",
                factor(*multiplier_milli),
                factor(*jitter_milli)
            )
        }
    }
}

/// `/jobs/:jobid/execution-result`: the result once the job is over, until then that it is not.
pub(in crate::rest) fn result(job: &JobRecord, now_ms: u64) -> Body {
    let Some(outcome) = job.outcome() else {
        return Body::of(&json!({ "status": { "id": "IN_PROGRESS" }, "job-execution-result": null }));
    };
    let span = Span::of_job(job, now_ms);
    let mut result = json!({
        "id": job.id().to_string(),
        "name": job.graph().name,
        "application-id": job.id().to_string(),
        "application-status": match &outcome {
            JobOutcome::Finished => "SUCCEEDED",
            JobOutcome::Canceled => "CANCELED",
            JobOutcome::Failed(_) => "FAILED",
        },
        "accumulator-results": {},
        "net-runtime": span.duration,
        "start-time": span.start_time,
        "end-time": span.end_time,
    });
    if let JobOutcome::Failed(failure) = &outcome {
        let error = failure.to_error();
        result["failure-cause"] = throwable(&class_of(error.kind()), &super::exceptions::trace(&error));
    }
    Body::of(&json!({ "status": { "id": "COMPLETED" }, "job-execution-result": result }))
}

/// What stands in the place of the class of an exception.
pub(super) fn class_of(kind: ErrorKind) -> String {
    let words = kind.word().split([' ', '/']);
    let parts = words.map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_uppercase() + rest
    });
    format!("flott.{}", parts.collect::<String>())
}

/// `/jobs/:jobid/accumulators`: there are none.
pub(in crate::rest) fn accumulators() -> Body {
    Body::of(&json!({
        "job-accumulators": [],
        "user-task-accumulators": [],
        "serialized-user-task-accumulators": {},
    }))
}

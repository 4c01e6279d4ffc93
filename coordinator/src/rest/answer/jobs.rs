//! Jobs: what is told of them, and their end.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use flott_schema::ids::JobId;
use flott_schema::plan::Plan;
use serde_json::json;

use super::{accepted, body};
use crate::machine::{ClusterState, JobRecord, JobState};
use crate::rest::body::{self as bodies, Body, Hosts, Numbers};
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::rest::metrics::{self, Metrics};
use crate::rest::path::Parameters;
use crate::rest::route::{JobPart, ProcessPart};
use crate::service::CoordinatorError;

/// Asks the state about a job.
pub(super) async fn of_job<T: Send + 'static>(
    api: &Api,
    job: JobId,
    question: impl FnOnce(&ClusterState, &JobRecord) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let handle = &api.services.handle;
    let answer = handle.read("job", move |state| state.job(job).map(|record| question(state, record)));
    answer.await?.ok_or_else(|| ApiError::no_job(job))
}

/// The statistics of a job's tasks.
pub(super) fn numbers(api: &Api, job: JobId) -> Numbers {
    Numbers(api.services.stats.tasks(job))
}

/// Answers what is asked of a job.
pub(super) async fn job(
    api: &Api,
    job: JobId,
    part: JobPart,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let now_ms = (api.options.now_ms)();
    let answer = match part {
        JobPart::Detail => {
            let numbers = numbers(api, job);
            of_job(api, job, move |_, record| bodies::detail(record, &numbers, now_ms)).await?
        }
        JobPart::Status => {
            let state = of_job(api, job, |_, record| record.state().word()).await?;
            Body::of(&json!({ "status": state }))
        }
        JobPart::Config => of_job(api, job, |_, record| bodies::job_config(record)).await?,
        JobPart::Plan => {
            let plan = move |_: &ClusterState, record: &JobRecord| Plan::of(record.graph(), job);
            Body::of(&json!({ "plan": of_job(api, job, plan).await? }))
        }
        JobPart::Exceptions => {
            let max = parameters.number("maxExceptions")?.unwrap_or(api.options.exceptions_max);
            of_job(api, job, move |state, record| {
                bodies::exceptions(record, &Hosts::of_job(state, record), max)
            })
            .await?
        }
        JobPart::Result => of_job(api, job, move |_, record| bodies::result(record, now_ms)).await?,
        JobPart::Accumulators => {
            of_job(api, job, |_, _| ()).await?;
            bodies::accumulators()
        }
        JobPart::Metrics => {
            let metrics = of_job(api, job, move |_, record| of_record(record, now_ms)).await?;
            metrics::listed(&metrics, parameters)
        }
        JobPart::CoordinatorConfig | JobPart::CoordinatorEnvironment => {
            of_job(api, job, |_, _| ()).await?;
            let part = if part == JobPart::CoordinatorConfig {
                ProcessPart::Config
            } else {
                ProcessPart::Environment
            };
            return super::coordinator::coordinator(api, &part, parameters).await;
        }
        JobPart::Heartbeat => {
            // Jobs do not end with their clients here, so nothing is to be noted.
            of_job(api, job, |_, _| ()).await?;
            return Ok(accepted(StatusCode::ACCEPTED));
        }
    };
    Ok(body(answer))
}

/// Ends a job in the way that `mode` says.
pub(super) async fn terminate(
    api: &Api,
    job: JobId,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    match parameters.get("mode").map(str::to_ascii_lowercase).as_deref() {
        None | Some("cancel") => cancel(api, job).await,
        Some("stop") => Err(ApiError::new(
            StatusCode::PERMANENT_REDIRECT,
            "The termination mode \"stop\" has been removed. For an ungraceful shutdown, please use \"cancel\" instead. \
             For a graceful shutdown, please use \"jobs/:jobId/stop\" instead.",
        )),
        Some(other) => Err(ApiError::parameters(format!(
            "Cannot resolve query parameter (mode) from value \"{other}\"."
        ))),
    }
}

/// Cancels a job.
pub(super) async fn cancel(api: &Api, job: JobId) -> Result<HttpResponse, ApiError> {
    match api.services.handle.cancel(job).await {
        // To cancel what is cancelled already succeeds, so that the call can be repeated.
        Ok(()) | Err(CoordinatorError::JobEnded { state: JobState::Canceled, .. }) => {
            Ok(accepted(StatusCode::ACCEPTED))
        }
        Err(CoordinatorError::JobEnded { state, .. }) => {
            let message = format!("Flink job ({job}) was not canceled, but instead {}.", state.word());
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
        Err(other) => Err(other.into()),
    }
}

/// The metrics of a job as a whole.
fn of_record(record: &JobRecord, now_ms: u64) -> Metrics {
    let mut metrics = Metrics::new();
    let since = |state| record.entered_ms(state).map_or(0, |at| now_ms.saturating_sub(at));
    let current = record.state();
    for (name, state) in [
        ("created", JobState::Created),
        ("running", JobState::Running),
        ("restarting", JobState::Restarting),
        ("failing", JobState::Failing),
        ("cancelling", JobState::Cancelling),
    ] {
        let here = current == state;
        metrics.insert(format!("{name}State"), u64::from(here).into());
        metrics.insert(format!("{name}Time"), if here { since(state) } else { 0 }.into());
    }
    let running = if current == JobState::Running { since(JobState::Running) } else { 0 };
    metrics.insert("uptime".into(), running.into());
    metrics.insert("numRestarts".into(), u64::from(record.restarts()).into());
    for (name, value) in bodies::checkpoint_metrics(record.checkpoints()) {
        metrics.insert(name.into(), metrics::Number::Int(value));
    }
    metrics
}

/// `/jobs/metrics`.
pub(super) async fn metrics_of_all(api: &Api, parameters: &Parameters) -> Result<HttpResponse, ApiError> {
    let now_ms = (api.options.now_ms)();
    let wanted = match parameters.list("jobs") {
        None => None,
        Some(ids) => Some(ids.into_iter().map(super::super::route::job_id).collect::<Result<Vec<_>, _>>()?),
    };
    let members = api.services.handle.read("jobs", move |state| {
        let jobs = state.jobs().filter(|job| wanted.as_ref().is_none_or(|wanted| wanted.contains(&job.id())));
        jobs.map(|job| of_record(job, now_ms)).collect::<Vec<_>>()
    });
    Ok(body(metrics::aggregated(&members.await?, parameters)?))
}

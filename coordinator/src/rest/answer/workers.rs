//! Workers, as Flink's task managers.

use actix_web::HttpResponse;
use flott_schema::stats::WorkerUsage;
use serde_json::json;

use super::files::{self, Files};
use super::{body, json};
use crate::live::Sample;
use crate::rest::body::{self as bodies, Held};
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::rest::metrics::{self, Metrics};
use crate::rest::path::Parameters;
use crate::rest::route::ProcessPart;

/// `/taskmanagers`.
pub(super) async fn all(api: &Api) -> Result<HttpResponse, ApiError> {
    let all = api.services.handle.read("workers", Held::all).await?;
    Ok(body(bodies::workers(&all, &*api.services.stats)))
}

/// `/taskmanagers/metrics`.
pub(super) async fn metrics_of_all(api: &Api, parameters: &Parameters) -> Result<HttpResponse, ApiError> {
    let wanted = parameters.list("taskmanagers");
    let all = api.services.handle.read("workers", Held::all).await?;
    let wanted =
        all.iter().filter(|held| wanted.as_ref().is_none_or(|names| names.contains(&held.name().as_str())));
    let members: Vec<Metrics> = wanted.map(|held| metrics_of(api, held)).collect();
    Ok(body(metrics::aggregated(&members, parameters)?))
}

/// Answers what is asked of a worker.
pub(super) async fn worker(
    api: &Api,
    name: &str,
    part: &ProcessPart,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let all = api.services.handle.read("worker", Held::all).await?;
    let Some(held) = all.into_iter().find(|held| held.name() == name) else {
        return Err(ApiError::not_found(format!("TaskExecutor not found: {name}")));
    };
    let files = || Files::of_worker(api.services.workers.clone(), held.id);
    match part {
        ProcessPart::Detail => Ok(body(bodies::worker(&held, usage(api, &held).as_ref()))),
        ProcessPart::Metrics => Ok(body(metrics::listed(&metrics_of(api, &held), parameters))),
        ProcessPart::ThreadDump => Ok(json(&json!({ "threadInfos": [] }))),
        ProcessPart::Logs => files::list(&files()).await,
        ProcessPart::Log(name) => files::read(files(), name.as_deref(), "log").await,
        ProcessPart::Stdout => files::read(files(), None, "out").await,
        ProcessPart::Config | ProcessPart::Environment => {
            Err(ApiError::not_found(format!("Not found: /taskmanagers/{name}")))
        }
    }
}

fn usage(api: &Api, held: &Held) -> Option<Sample<WorkerUsage>> {
    api.services.stats.worker(held.id)
}

fn metrics_of(api: &Api, held: &Held) -> Metrics {
    let usage = usage(api, held);
    usage
        .map(|usage| metrics::of_worker(&usage.value, held.record.profile().memory_bytes))
        .unwrap_or_default()
}

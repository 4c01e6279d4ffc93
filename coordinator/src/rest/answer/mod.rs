//! A route and its body become an answer.
//!
//! Here is the dispatch; beside it a file a subject. What is asked of the state is taken out of it in one go, so that the
//! parts of an answer fit together.

mod checkpoints;
mod coordinator;
mod files;
mod jobs;
mod programs;
mod submit;
mod vertices;
mod workers;

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::body::{self, Body};
use super::error::ApiError;
use super::gate::Api;
use super::path::Parameters;
use super::route::Route;

/// What a request brings beside its route.
pub(super) struct Asked<'a> {
    pub(super) request: &'a HttpRequest,
    pub(super) parameters: Parameters,
    pub(super) payload: Payload,
}

/// Answers a request.
pub(super) async fn answer(
    route: &Route,
    request: &HttpRequest,
    payload: Payload,
    api: &Api,
) -> Result<HttpResponse, ApiError> {
    let asked = Asked { request, parameters: Parameters::parse(request.query_string()), payload };
    match route {
        Route::Overview => {
            let overview = api.services.handle.read("overview", body::overview).await?;
            Ok(json(&overview))
        }
        Route::Config => Ok(json(&body::config(&api.options))),
        Route::Datasets => Ok(json(&serde_json::json!({ "dataSets": [] }))),
        Route::StopCluster => {
            (api.services.stop_cluster)();
            Ok(accepted(StatusCode::OK))
        }
        Route::Prometheus => coordinator::prometheus(api).await,
        Route::Jobs => {
            let jobs = api.services.handle.read("jobs", body::jobs_list).await?;
            Ok(json(&jobs))
        }
        Route::JobsOverview => {
            let now_ms = (api.options.now_ms)();
            let jobs =
                api.services.handle.read("jobs", move |state| body::jobs_overview(state, now_ms)).await?;
            Ok(json(&jobs))
        }
        Route::JobsMetrics => jobs::metrics_of_all(api, &asked.parameters).await,
        Route::Submit => submit::submit(api, asked).await,
        Route::Job(job, part) => jobs::job(api, *job, *part, &asked.parameters).await,
        Route::Snapshots(job, part) => checkpoints::snapshots(api, *job, *part, asked).await,
        Route::Dispose => checkpoints::dispose(api, asked).await,
        Route::Disposal(operation) => checkpoints::disposal(api, *operation),
        Route::CancelJob(job) => jobs::terminate(api, *job, &asked.parameters).await,
        Route::CancelJobByGet(job) => jobs::cancel(api, *job).await,
        Route::Vertex(job, vertex, part) => {
            vertices::vertex(api, *job, *vertex, *part, &asked.parameters).await
        }
        Route::Workers => workers::all(api).await,
        Route::WorkersMetrics => workers::metrics_of_all(api, &asked.parameters).await,
        Route::Worker(name, part) => workers::worker(api, name, part, &asked.parameters).await,
        Route::Coordinator(part) => coordinator::coordinator(api, part, &asked.parameters).await,
        Route::Programs => programs::list(api).await,
        Route::UploadProgram => programs::upload(api, asked).await,
        Route::DeleteProgram(digest) => programs::remove(api, *digest).await,
        Route::RunProgram(digest) => programs::run(api, *digest, asked, false).await,
        Route::PlanProgram(digest) => programs::run(api, *digest, asked, true).await,
        Route::Disabled(reason) => Err(ApiError::unavailable(*reason)),
    }
}

/// 200 with JSON.
fn json(value: &impl serde::Serialize) -> HttpResponse {
    body(Body::of(value))
}

/// 200 with JSON that is made already.
fn body(body: Body) -> HttpResponse {
    with_status(StatusCode::OK, body)
}

fn with_status(status: StatusCode, body: Body) -> HttpResponse {
    // As Flink spells it; its clients compare nothing but the front.
    let kind = (header::CONTENT_TYPE, "application/json; charset=UTF-8");
    HttpResponse::build(status).insert_header(kind).body(body.0)
}

/// An empty object.
fn accepted(status: StatusCode) -> HttpResponse {
    with_status(status, Body::of(&serde_json::json!({})))
}

/// The whole body of a request. A body that is too large, or silent for too long, is refused.
async fn whole_body(api: &Api, payload: &mut Payload) -> Result<Bytes, ApiError> {
    let silence = Duration::from_millis(api.options.idleness_timeout_ms);
    let mut read = Vec::new();
    while let Some(piece) = timeout(silence, payload.next()).await.map_err(|_| silent())? {
        let piece = piece.map_err(|error| ApiError::bad_request(format!("The body broke off: {error}")))?;
        if (read.len() + piece.len()) as u64 > api.options.content_length_max_bytes {
            return Err(too_large(api));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.into())
}

fn silent() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "The body stopped coming")
}

fn too_large(api: &Api) -> ApiError {
    let max = api.options.content_length_max_bytes;
    let message =
        format!("HTTP content length exceeded {max} bytes. Try to raise [rest.server.max-content-length]");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// The body as JSON; an empty one counts as an empty object.
async fn json_body<T: serde::de::DeserializeOwned>(api: &Api, payload: &mut Payload) -> Result<T, ApiError> {
    let bytes = whole_body(api, payload).await?;
    let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        ApiError::bad_request(format!("Bad request received. Failed to parse JSON: {error}."))
    })
}

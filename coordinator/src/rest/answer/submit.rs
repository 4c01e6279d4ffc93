//! Submission of a job.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use flott_schema::error::Error;
use flott_schema::job::{JobSpec, Submission};
use flott_schema::{fitting, wire};
use flott_storage::{Storage, manifest};
use serde_json::json;

use super::jobs::of_job;
use super::{Asked, whole_body, with_status};
use crate::rest::body::Body;
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::service::{CoordinatorError, EVENT_BYTES_MAX};

/// The media type of a Cap'n Proto `Submission`.
const SUBMISSION: &str = "application/x-flott-submission";

/// How long the snapshot that a job starts from may take to be looked at.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(30);

/// Refuses a job that starts from a snapshot which is not there, or does not fit its graph: the client may not have seen it. Completes
/// what the job says of it.
async fn restorable(spec: JobSpec) -> Result<JobSpec, ApiError> {
    if spec.restore.is_none() {
        return Ok(spec);
    }
    // It stands in the file system, or behind a network: nothing for the thread of the API.
    let looked = tokio::task::spawn_blocking(move || look(spec));
    match tokio::time::timeout(SNAPSHOT_DEADLINE, looked).await {
        Ok(Ok(looked)) => looked.map_err(|error| ApiError::bad_request(error.to_string())),
        Ok(Err(error)) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("The check of the snapshot ended: {error}"),
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("The snapshot that the job starts from could not be read within {SNAPSHOT_DEADLINE:?}"),
        )),
    }
}

fn look(mut spec: JobSpec) -> Result<JobSpec, Error> {
    if let Some(restore) = &mut spec.restore {
        let place = || format!("starting from '{}', as the coordinator sees it", restore.folder);
        let read = || {
            let manifest = manifest::read(&Storage::open(&restore.folder)?)?;
            fitting::check(&manifest, &spec.graph, restore.ignore_unclaimed)?;
            Ok(manifest.checkpoint)
        };
        restore.checkpoint = read().map_err(|error: Error| error.at(place()))?;
    }
    Ok(spec)
}

/// `POST /jobs`.
pub(super) async fn submit(api: &Api, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let kind = asked.request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("multipart/form-data") {
        return Err(ApiError::bad_request(
            "This cluster runs Flott programs: a job graph serialised by Java, with its jars, cannot run here. Submit with \
             'flott run', or upload a Flott program to /jars",
        ));
    }
    if !kind.eq_ignore_ascii_case(SUBMISSION) {
        let message =
            format!("A submission is a body of type {SUBMISSION}, not '{kind}'; submit with 'flott run'");
        return Err(ApiError::bad_request(message));
    }
    let body = whole_body(api, &mut asked.payload).await?;
    if body.len() > EVENT_BYTES_MAX {
        // Before anybody works on it.
        return Err(CoordinatorError::TooLarge { size_bytes: body.len(), max_bytes: EVENT_BYTES_MAX }.into());
    }
    let Submission { job, spec } = wire::from_bytes(&body)
        .map_err(|error| ApiError::bad_request(format!("The submission cannot be read: {error}")))?;
    if spec.program.is_none() {
        return Err(ApiError::bad_request("The submission names no program that holds its operators"));
    }
    let spec = Arc::new(restorable(spec).await?);
    match api.services.handle.submit(job, spec.clone()).await {
        Ok(()) => {}
        // A client that did not get the first answer asks again.
        Err(CoordinatorError::DuplicateJob(_))
            if of_job(api, job, move |_, record| *record.spec() == spec).await? => {}
        Err(other) => return Err(other.into()),
    }
    Ok(with_status(StatusCode::ACCEPTED, Body::of(&json!({ "jobUrl": format!("/jobs/{job}") }))))
}

//! Submission of a job.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use flott_schema::job::Submission;
use flott_schema::wire;
use serde_json::json;

use super::jobs::of_job;
use super::{Asked, whole_body, with_status};
use crate::rest::body::Body;
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::service::{CoordinatorError, EVENT_BYTES_MAX};

/// The media type of a Cap'n Proto `Submission`.
const SUBMISSION: &str = "application/x-flott-submission";

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
    let spec = std::sync::Arc::new(spec);
    match api.services.handle.submit(job, spec.clone()).await {
        Ok(()) => {}
        // A client that did not get the first answer asks again.
        Err(CoordinatorError::DuplicateJob(_))
            if of_job(api, job, move |_, record| *record.spec() == spec).await? => {}
        Err(other) => return Err(other.into()),
    }
    Ok(with_status(StatusCode::ACCEPTED, Body::of(&json!({ "jobUrl": format!("/jobs/{job}") }))))
}

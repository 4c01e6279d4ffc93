//! Answers that are errors: `{"errors": [..]}` with a status code, as Flink gives them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use flott_schema::error::{Error, ErrorKind};
use flott_schema::ids::JobId;

use crate::programs::ProgramError;
use crate::service::CoordinatorError;

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into() }
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400, for a part of the address that cannot be read; in Flink's words.
    pub(super) fn parameters(message: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("Bad request, could not parse parameters: {message}"))
    }

    /// 404.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 404 for a job.
    pub(super) fn no_job(job: JobId) -> Self {
        Self::not_found(format!("Job {job} not found"))
    }

    /// 503.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The answer.
    pub(super) fn response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(serde_json::json!({ "errors": [self.message] }))
    }
}

impl From<CoordinatorError> for ApiError {
    fn from(error: CoordinatorError) -> Self {
        if let CoordinatorError::UnknownJob(job) = error {
            return Self::no_job(job);
        }
        let status = match &error {
            CoordinatorError::DuplicateJob(_)
            | CoordinatorError::JobEnded { .. }
            | CoordinatorError::ProgramInUse { .. } => StatusCode::CONFLICT,
            CoordinatorError::UnknownProgram(_) => StatusCode::NOT_FOUND,
            CoordinatorError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            other => status_of(other.kind()),
        };
        Self::new(status, error.to_string())
    }
}

impl From<ProgramError> for ApiError {
    fn from(error: ProgramError) -> Self {
        let status = match &error {
            ProgramError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ProgramError::Unknown(_) => StatusCode::NOT_FOUND,
            other => status_of(other.kind()),
        };
        Self::new(status, error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::new(status_of(error.kind()), error.to_string())
    }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::UserCode
        | ErrorKind::BadInput
        | ErrorKind::Configuration
        | ErrorKind::Graph
        | ErrorKind::Snapshot => StatusCode::BAD_REQUEST,
        ErrorKind::Resources | ErrorKind::Io | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

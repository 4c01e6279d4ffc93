//! What every request passes before and after it is answered: the token, the origin, the way to the leader, the deadline.

use std::time::Duration;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use flott_schema::security::Token;
use tokio::time::timeout;

use super::answer::answer;
use super::disposals::Disposals;
use super::error::ApiError;
use super::forward::{FORWARDED, forward};
use super::options::Options;
use super::origin::{changes, check_origin};
use super::path::segments;
use super::route::{Route, route};
use super::services::Services;
use crate::journal::Role;

/// What the threads of the server share.
pub(super) struct Api {
    pub(super) options: Options,
    pub(super) services: Services,
    /// `host:port` of this server.
    pub(super) address: String,
    pub(super) disposals: Disposals,
}

/// Answers a request, whatever it is.
pub(super) async fn serve(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let mut response = match respond(&request, payload, &api).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(
                path = request.path(),
                status = error.status.as_u16(),
                error = error.message,
                "request refused"
            );
            error.response()
        }
    };
    let headers = response.headers_mut();
    if let Ok(origin) = HeaderValue::from_str(&api.options.allow_origin)
        && !origin.is_empty()
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"flott\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

async fn respond(request: &HttpRequest, payload: Payload, api: &Api) -> Result<HttpResponse, ApiError> {
    if request.method() == Method::OPTIONS {
        return preflight(request, api);
    }
    check_token(request, &api.options.token)?;
    let Some(parts) = segments(request.path(), &api.options.url_prefix)? else {
        return Err(ApiError::not_found(format!("Not found: {}", request.path())));
    };
    let route = route(request.method(), &parts)?;
    if changes(request.method(), &route) {
        check_origin(request.headers(), &api.options)?;
    }
    let deadline = Duration::from_millis(match route {
        // A program may be large and the line slow; its silence has a deadline of its own.
        Route::UploadProgram | Route::RunProgram(_) | Route::PlanProgram(_) => UPLOAD_DEADLINE_MS,
        _ => api.options.request_deadline_ms,
    });
    let work = async {
        // What a process measures of itself is its own affair.
        let leader = if route == Route::Prometheus { None } else { leader(request, api).await? };
        match leader {
            None => answer(&route, request, payload, api).await,
            Some(leader) => forward(request, payload, &leader, api).await,
        }
    };
    timeout(deadline, work).await.unwrap_or_else(|_| {
        let waited = deadline.as_millis();
        Err(ApiError::unavailable(format!(
            "No answer to {} {} within {waited} ms",
            request.method(),
            request.path()
        )))
    })
}

/// Longest time that the upload or the run of a program may take.
const UPLOAD_DEADLINE_MS: u64 = 600_000;

/// The leader to forward to; nothing where this one answers. Waits while there is none.
async fn leader(request: &HttpRequest, api: &Api) -> Result<Option<String>, ApiError> {
    let mut role = api.services.handle.watch_role();
    let wait = Duration::from_millis(api.options.request_deadline_ms / 2);
    let known = |role: &Role| match role {
        Role::Leader { .. } => true,
        Role::Follower { leader } => leader.as_ref().is_some_and(|leader| !leader.rest.is_empty()),
    };
    let found = timeout(wait, role.wait_for(known)).await;
    match found.map(|role| role.map(|role| role.clone())) {
        Ok(Ok(Role::Leader { .. })) => Ok(None),
        // Two that take each other for the leader must not play ball.
        Ok(Ok(Role::Follower { leader: Some(leader) })) if !request.headers().contains_key(FORWARDED) => {
            Ok(Some(leader.rest))
        }
        Ok(Err(_)) => Err(ApiError::unavailable("The coordinator has stopped.")),
        _ => Err(ApiError::unavailable(
            "Service temporarily unavailable due to an ongoing leader election. Please refresh.",
        )),
    }
}

/// Answers a browser that asks whether a page of another origin may call. Flink never allows it for more than what
/// needs no question; so does this, unless the configuration names an origin.
fn preflight(request: &HttpRequest, api: &Api) -> Result<HttpResponse, ApiError> {
    let origin = request.headers().get(header::ORIGIN);
    if api.options.allow_origin == "*"
        || origin.is_none_or(|origin| origin.as_bytes() != api.options.allow_origin.as_bytes())
    {
        return Err(ApiError::not_found(format!("Not found: {}", request.path())));
    }
    let mut response = HttpResponse::NoContent();
    let allowed: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, DELETE, PUT"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    allowed.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    Ok(response.finish())
}

/// Refuses a caller that does not know the shared secret, if there is one.
fn check_token(request: &HttpRequest, token: &Token) -> Result<(), ApiError> {
    if token.is_none() {
        return Ok(());
    }
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let offered = match shown.and_then(|shown| shown.split_at_checked(7)) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
        _ => {
            let how =
                "this cluster has a token: send it as 'Authorization: Bearer <token>' (`security.token`)";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, how));
        }
    };
    if !token.admits(offered.trim()) {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "the token is not that of this cluster"));
    }
    Ok(())
}

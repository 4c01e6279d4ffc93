//! A follower hands a request on to the leader and its answer back, piece by piece.
//!
//! One connection a request, in HTTP/1.0: few requests come this way, and nothing has to be known of connections that are
//! kept. Answers of a coordinator come in one piece of known length, so nothing has to be known of chunks either.

use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::ApiError;
use super::gate::Api;

/// Marks a request that was handed on once.
pub(super) const FORWARDED: &str = "x-flott-forwarded";

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of an answer that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Headers of a request that are handed on.
const HANDED_ON: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::ACCEPT];

/// Headers of an answer that are handed back.
const HANDED_BACK: [HeaderName; 2] = [header::CONTENT_TYPE, header::WWW_AUTHENTICATE];

/// Deadline for making the connection.
const CONNECT_MS: u64 = 5_000;

/// Hands a request to the leader at `address`.
pub(super) async fn forward(
    request: &HttpRequest,
    mut payload: Payload,
    address: &str,
    api: &Api,
) -> Result<HttpResponse, ApiError> {
    let gone = |error: std::io::Error| {
        ApiError::unavailable(format!("The leader at {address} cannot be reached: {error}"))
    };
    let late = |_| ApiError::unavailable(format!("The leader at {address} does not answer"));
    let connect = timeout(Duration::from_millis(CONNECT_MS), TcpStream::connect(address));
    let mut stream = connect.await.map_err(late)?.map_err(gone)?;
    let silence = Duration::from_millis(api.options.idleness_timeout_ms);

    stream.write_all(head_of(request)?.as_bytes()).await.map_err(gone)?;
    while let Some(piece) = timeout(silence, payload.next()).await.map_err(late)? {
        let piece = piece.map_err(|error| ApiError::bad_request(format!("The body broke off: {error}")))?;
        stream.write_all(&piece).await.map_err(gone)?;
    }

    let Head { status, headers, length, body: first } = read_head(&mut stream).await.map_err(gone)?;
    let mut response = HttpResponse::build(status);
    headers.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    if *request.method() == Method::HEAD || length == 0 {
        return Ok(response.finish());
    }
    let rest = stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        let mut piece = vec![0; PIECE_BYTES];
        match timeout(silence, stream.read(&mut piece)).await {
            Ok(Ok(0)) => None,
            Ok(Ok(length)) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), Some(stream)))
            }
            Ok(Err(error)) => Some((Err(error), None)),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    });
    let first = stream::iter((!first.is_empty()).then(|| Ok::<_, std::io::Error>(Bytes::from(first))));
    Ok(response.body(SizedStream::new(length, Box::pin(first.chain(rest)))))
}

/// The head of the request as it is handed on.
fn head_of(request: &HttpRequest) -> Result<String, ApiError> {
    let has_body = ![Method::GET, Method::HEAD].contains(request.method());
    if has_body && request.headers().contains_key(header::TRANSFER_ENCODING) {
        let message =
            "A follower forwards bodies of known length only: send Content-Length, or call the leader";
        return Err(ApiError::new(StatusCode::LENGTH_REQUIRED, message));
    }
    let mut head = format!("{} {} HTTP/1.0\r\n{FORWARDED}: 1\r\n", request.method(), request.uri());
    for name in HANDED_ON {
        if let Some(value) = request.headers().get(&name).and_then(|value| value.to_str().ok()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if has_body && !request.headers().contains_key(header::CONTENT_LENGTH) {
        head.push_str("content-length: 0\r\n");
    }
    head.push_str("\r\n");
    Ok(head)
}

/// The head of an answer.
struct Head {
    status: StatusCode,
    /// Those worth handing on.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of the body: every answer of a coordinator says.
    length: u64,
    /// What was read of the body already.
    body: Vec<u8>,
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<Head> {
    let broken = || std::io::Error::new(std::io::ErrorKind::InvalidData, "its answer is not HTTP");
    let mut read = Vec::with_capacity(1 << 10);
    let end = loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if read.len() >= HEAD_BYTES_MAX || stream.read_buf(&mut read).await? == 0 {
            return Err(broken());
        }
    };
    let body = read.split_off(end + 4);
    let head = String::from_utf8(read).map_err(|_| broken())?;
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.and_then(|code: u16| StatusCode::from_u16(code).ok()).ok_or_else(broken)?;
    let headers: Vec<(HeaderName, HeaderValue)> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
        })
        .collect();
    let length = headers.iter().find(|(name, _)| *name == header::CONTENT_LENGTH);
    let length =
        length.map_or(Some(0), |(_, length)| length.to_str().ok()?.parse().ok()).ok_or_else(broken)?;
    let kept = headers.into_iter().filter(|(name, _)| HANDED_BACK.contains(name)).collect();
    Ok(Head { status, headers: kept, length, body })
}

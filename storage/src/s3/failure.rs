//! What went wrong, in words that say where and what to do.

use std::io;

use flott_schema::Error;
use object_store::Error as Cause;

/// The error of an operation at `place` (`s3://bucket/key`).
pub(super) fn failed(place: &str, cause: &Cause) -> Error {
    let reason = reason_of(cause);
    match cause {
        Cause::NotFound { .. } => {
            let reason = match reason.contains("NoSuchBucket") {
                true => "there is no such bucket".to_string(),
                false => "there is no such object".to_string(),
            };
            Error::io(place, io::Error::new(io::ErrorKind::NotFound, reason))
        }
        _ if is_denied(cause, &reason) => Error::configuration(format!(
            "{place}: access is denied ({reason}); look at s3.access-key and s3.secret-key, or the AWS_* variables where these \
             are not set, and at what the account may do"
        )),
        // The object ends before what was asked for begins.
        _ if reason.contains("InvalidRange") || reason.contains("416 ") => {
            Error::io(place, io::Error::new(io::ErrorKind::UnexpectedEof, "the object is cut short"))
        }
        _ => Error::io(place, io::Error::other(reason)),
    }
}

/// Whether the server knows nobody by these keys, or does not let them. Of some requests only its answer says so.
fn is_denied(cause: &Cause, reason: &str) -> bool {
    let codes = ["SignatureDoesNotMatch", "AccessDenied", "InvalidAccessKeyId"];
    matches!(cause, Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. })
        || codes.iter().any(|code| reason.contains(code))
}

/// What the server says, if it says something; else the last cause, which is the plainest.
fn reason_of(cause: &Cause) -> String {
    let whole = cause.to_string();
    let between = |tag: &str| {
        let (_, rest) = whole.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(text, _)| text.trim().to_string())
    };
    match (between("Code"), between("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => {
            let mut text = whole;
            let mut next = std::error::Error::source(cause);
            while let Some(error) = next {
                let of_error = error.to_string();
                if !text.contains(&of_error) {
                    text = format!("{text}: {of_error}");
                }
                next = error.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_object_and_what_the_server_says() {
        let answer =
            "403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>wrong</Message></Error>";
        let denied = Cause::PermissionDenied { path: "a".into(), source: answer.into() };
        let text = failed("s3://bucket/a", &denied).to_string();
        assert!(text.contains("s3://bucket/a: access is denied (SignatureDoesNotMatch: wrong)"), "{text}");
        let gone = Cause::NotFound { path: "a".into(), source: "404: <Code>NoSuchBucket</Code>".into() };
        let text = failed("s3://bucket/a", &gone).to_string();
        assert!(text.contains("s3://bucket/a: there is no such bucket"), "{text}");
        let other = Cause::Generic { store: "S3", source: io::Error::other("no route").into() };
        let text = failed("s3://bucket/a", &other).to_string();
        assert!(text.contains("no route"), "{text}");
    }
}

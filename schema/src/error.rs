//! The error type that crosses room borders and that job authors return from their functions.

use std::error::Error as StdError;
use std::fmt;

/// `Result` with Flott's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who may act on an error: it decides the exit code and whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ErrorKind {
    /// A function of the job failed or panicked: the job's author acts.
    UserCode,
    /// A record or a file cannot be decoded: whoever feeds the job acts.
    BadInput,
    /// A configuration value or command line is wrong.
    Configuration,
    /// The job graph is not valid; found before anything runs.
    Graph,
    /// Slots, memory or disk do not suffice.
    Resources,
    /// Reading or writing outside the process failed; a retry may help.
    Io,
    /// The job was cancelled.
    Cancelled,
    /// A bug of Flott.
    Internal,
    /// A file of the snapshot that a job starts from is missing or not what was written: another snapshot has to be chosen.
    Snapshot,
}

impl ErrorKind {
    /// The word printed in front of the message.
    pub fn word(self) -> &'static str {
        match self {
            ErrorKind::UserCode => "user code",
            ErrorKind::BadInput => "bad input",
            ErrorKind::Configuration => "configuration",
            ErrorKind::Graph => "job graph",
            ErrorKind::Resources => "resources",
            ErrorKind::Io => "input/output",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal error",
            ErrorKind::Snapshot => "snapshot",
        }
    }
}

/// What happened, where, and why. Any `std::error::Error` converts into it with `?` (as [`ErrorKind::UserCode`]),
/// so functions of a job can use `?` freely; [`Context`] adds the place.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    places: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    backtrace: Option<String>,
}

impl Error {
    /// An error of `kind` saying `message` (lower case, without a full stop).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            places: Vec::new(),
            source: None,
            backtrace: None,
        }))
    }

    /// A failure in the job's own code.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UserCode, message)
    }

    /// An undecodable record, file or argument.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadInput, message)
    }

    /// An invalid job graph.
    pub fn graph(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Graph, message)
    }

    /// A wrong configuration value.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// A bug of Flott.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An I/O failure on `what` (a path, an address).
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, format!("{what}: {source}"));
        error.0.source = Some(Box::new(source));
        error
    }

    /// The same error as another kind.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error, with the place it happened in (outermost place added last).
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.places.push(place.into());
        self
    }

    /// The same error with the text of a backtrace.
    pub fn with_backtrace(mut self, backtrace: impl Into<String>) -> Self {
        self.0.backtrace = Some(backtrace.into());
        self
    }

    /// The kind of error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without places and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The backtrace's text, where one was taken.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// The error that caused this one.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        let erased: &dyn StdError = &source;
        let kind = if erased.is::<std::io::Error>() {
            ErrorKind::Io
        } else if erased.is::<crate::config::ConfigError>() {
            ErrorKind::Configuration
        } else {
            ErrorKind::UserCode
        };
        let mut error = Self::new(kind, source.to_string());
        error.0.source = Some(Box::new(source));
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        let mut cause = self.0.source.as_deref().and_then(|source| source.source());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.word())?;
        match &self.0.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// Adds the place to an error on its way up.
pub trait Context<T> {
    /// Adds `place` to the error, if there is one.
    fn at(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().at(place()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_printed_from_the_outside_in() {
        let error = Error::user("no such rule").at("line 3").at("rules.txt");
        assert_eq!(error.to_string(), "rules.txt: line 3: no such rule");
        assert_eq!(format!("{error:?}"), "user code: rules.txt: line 3: no such rule");
    }

    #[test]
    fn standard_errors_convert_and_keep_their_cause() {
        fn parse() -> Result<u32> {
            Ok("x".parse::<u32>()?)
        }
        let error = parse().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UserCode);
        assert!(error.source().is_some());
        assert_eq!(error.to_string(), "invalid digit found in string");
    }
}

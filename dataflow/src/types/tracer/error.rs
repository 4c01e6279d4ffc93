//! Why a run of the tracer ends early.

use std::fmt::Display;

use serde::de;
use thiserror::Error;

/// What travels up through the traced type's own code; never leaves the tracer.
#[derive(Debug, Error)]
pub(super) enum TraceError {
    /// The tracer ended the run.
    #[error("the trace ends here")]
    Stop,
    /// The type refused a sample.
    #[error("the sample was refused")]
    Refused,
    /// A struct met a field for the second time under another name; holds the main name.
    #[error("field `{0}` was given twice")]
    Duplicate(&'static str),
}

impl de::Error for TraceError {
    fn custom<T: Display>(_message: T) -> Self {
        TraceError::Refused
    }

    fn duplicate_field(field: &'static str) -> Self {
        TraceError::Duplicate(field)
    }
}

//! What can go wrong around a benchmark: files, child processes, engines that disagree.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum BenchError {
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("{engine} failed: {reason}")]
    Engine { engine: &'static str, reason: String },

    #[error("{engine} has no program for {case} at {threads} thread(s)")]
    Unsupported { engine: &'static str, case: &'static str, threads: usize },

    #[error("cannot start the measured process for {what}: {source}")]
    Spawn { what: String, source: io::Error },

    #[error("the measured process for {what} {reason}")]
    Child { what: String, reason: String },

    #[error("the measured process for {what} was not done after {limit:?} and was killed")]
    TimedOut { what: String, limit: Duration },

    #[error(
        "{case}: {engine} at {threads} thread(s) gave {got}, but {first} gave {expected}: they do not do the same work"
    )]
    Disagree {
        case: &'static str,
        engine: &'static str,
        threads: usize,
        got: String,
        first: String,
        expected: String,
    },

    #[error("{0}")]
    Usage(&'static str),

    #[error("cannot write the figures as JSON: {0}")]
    Json(serde_json::Error),

    #[error("cannot ask the system for {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl BenchError {
    /// For `map_err` on file operations.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }

    /// For `map_err` on what an engine reports as text.
    pub fn engine(engine: &'static str) -> impl Fn(String) -> Self {
        move |reason| Self::Engine { engine, reason }
    }
}

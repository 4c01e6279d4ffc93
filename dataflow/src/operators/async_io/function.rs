//! What an author writes to call a service.

use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;

use flott_schema::Result;

use crate::function::Function;
use crate::operators::open::OpenContext;

/// Calls a service for each record (Flink's `AsyncFunction`). One object serves all calls of a task, at the same time
/// and on one thread: what changes between calls lies in a `Cell`, and nothing may block.
///
/// ```
/// # use std::rc::Rc;
/// # use flott_dataflow::operators::async_io::AsyncFunction;
/// #[derive(Clone)]
/// struct Lookup;
///
/// impl AsyncFunction<u64, String> for Lookup {
///     async fn invoke(self: Rc<Self>, id: u64) -> flott_schema::Result<Vec<String>> {
///         Ok(vec![format!("customer {id}")])
///     }
/// }
/// ```
pub trait AsyncFunction<I, O>: Function {
    /// Whether the record is kept until its call is done, for [`Self::on_timeout`]; a copy of it is made if so. If not,
    /// a call that is too late fails the job.
    const KEEPS_RECORD: bool = true;

    /// Called once before the first record: makes clients.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Gives the results for a record. An error is retried if the retry strategy says so, and else fails the job.
    /// The future is dropped when the timeout has passed, or the task ends.
    fn invoke(self: Rc<Self>, record: I) -> impl Future<Output = Result<Vec<O>>> + 'static;

    /// A call, with its retries, has taken too long: gives the results instead, or fails the job.
    fn on_timeout(&self, _record: I, timeout: CallTimedOut) -> Result<Vec<O>> {
        Err(timeout.into())
    }

    /// Called once at the end, also after a failure.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// A call gave no result in time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "operator '{operator}': an asynchronous call gave no result within {timeout_ms} ms, in attempt {attempt}{}; raise \
     the timeout, or give a result in on_timeout()",
    After(last_failure)
)]
pub struct CallTimedOut {
    /// The operator's name.
    pub operator: Arc<str>,
    /// The time a call may take with its retries, milliseconds.
    pub timeout_ms: i64,
    /// The attempt it was in, from 1.
    pub attempt: u32,
    /// Why the attempt before failed.
    pub last_failure: Option<String>,
}

struct After<'a>(&'a Option<String>);

impl std::fmt::Display for After<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(failure) => write!(f, " (the one before failed: {failure})"),
            None => Ok(()),
        }
    }
}

/// One result for each record, by a closure.
#[derive(Clone)]
pub struct AsyncMap<F>(F);

impl<F> AsyncMap<F> {
    /// Calls `Fn(record) -> future of a result`.
    pub fn new(f: F) -> Self {
        AsyncMap(f)
    }
}

impl<I, O, F, Fut> AsyncFunction<I, O> for AsyncMap<F>
where
    I: 'static,
    O: 'static,
    F: Fn(I) -> Fut + Function,
    Fut: Future<Output = Result<O>> + 'static,
{
    const KEEPS_RECORD: bool = false;

    async fn invoke(self: Rc<Self>, record: I) -> Result<Vec<O>> {
        Ok(vec![(self.0)(record).await?])
    }
}

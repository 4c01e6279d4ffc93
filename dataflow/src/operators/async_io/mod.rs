//! Asynchronous calls: many in flight for one task, none in the way of another.
//!
//! What lives here: the functions ([`function`]), retries ([`retry`]), the calls in flight ([`futures`]), their results
//! in the order they may leave ([`results`]), the operator. The futures of the job's author run on the slot's thread,
//! inside the task's poll, each with a waker of its own; timeouts and delays follow the task's clock. Who may call it:
//! the API. What must never happen here: more calls in flight than the capacity, a result that overtakes a watermark,
//! a record that is neither answered nor fails the task.

mod function;
mod futures;
mod operator;
mod results;
mod retry;

pub use function::{AsyncFunction, AsyncMap, CallTimedOut};
pub use operator::{AsyncOptions, AsyncWait};
pub use retry::RetryStrategy;

#[cfg(test)]
mod tests;

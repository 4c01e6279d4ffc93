//! A client of a cluster's REST API.
//!
//! * [`Addresses`]: where coordinators are; any of them answers
//! * [`Client`]: calls with deadlines, repeated at the next coordinator when one cannot be reached
//! * [`views`]: what the calls answer; `jobs`: finding a job by the beginning of its id
//! * [`snapshots`]: checkpoints, savepoints and parallelism of running jobs
//! * `upload`: programs, streamed
//!
//! Who may call it: the command line, programs that submit themselves, tests. What must never happen here: a call without
//! a deadline, or a decision about a job.

mod addresses;
mod error;
mod jobs;
#[cfg(test)]
mod server_tests;
pub mod snapshots;
mod transport;
mod upload;
pub mod views;

pub use addresses::{Addresses, COORDINATOR_VARIABLE};
pub use error::ClientError;
pub use transport::Client;

//! The JSON of the answers, with Flink's field names.
//!
//! Every file makes bodies out of records and numbers: pure functions, called by `answer` alone.

mod checkpoints;
mod cluster;
mod counts;
mod exceptions;
mod io;
mod job;
mod jobs;
mod subtask;
mod throwable;
mod times;
mod vertex;
mod worker;

pub(crate) use checkpoints::metrics as checkpoint_metrics;
pub(super) use checkpoints::{
    checkpoint_config, checkpoints, details, failure, operation, requirements, retained, status,
    subtask_details,
};
pub(super) use cluster::{config, overview};
pub(super) use exceptions::exceptions;
pub(super) use io::Numbers;
pub(super) use job::{accumulators, detail, job_config, result};
pub(super) use jobs::{jobs_list, jobs_overview};
pub(super) use subtask::{Hosts, subtask, subtask_times};
pub(super) use vertex::{backpressure, vertex, vertex_workers};
pub(super) use worker::{Held, worker, workers};

use serde::Serialize;

/// JSON, ready to be sent.
#[derive(Debug)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    /// The JSON of a value.
    pub(super) fn of(value: &impl Serialize) -> Self {
        Body(serde_json::to_vec(value).expect("bodies have text keys and plain values"))
    }
}

//! Lists of jobs.

use std::cmp::Reverse;

use serde::Serialize;

use super::counts::LowerCounts;
use super::times::{Span, last_modification};
use crate::machine::{ClusterState, JobRecord};

/// `/jobs`.
#[derive(Serialize)]
pub(in crate::rest) struct JobsList {
    jobs: Vec<JobAndState>,
}

#[derive(Serialize)]
struct JobAndState {
    id: String,
    status: &'static str,
}

/// `/jobs/overview`.
#[derive(Serialize)]
pub(in crate::rest) struct JobsOverview {
    jobs: Vec<JobSummary>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JobSummary {
    jid: String,
    name: String,
    #[serde(rename = "jobType")]
    job_type: &'static str,
    #[serde(rename = "schedulerType")]
    scheduler_type: &'static str,
    #[serde(flatten)]
    span: Span,
    state: &'static str,
    last_modification: i64,
    tasks: LowerCounts,
    pending_operators: u32,
}

/// All jobs and their states.
pub(in crate::rest) fn jobs_list(state: &ClusterState) -> JobsList {
    let body = |job: &JobRecord| JobAndState { id: job.id().to_string(), status: job.state().word() };
    JobsList { jobs: newest_first(state).into_iter().map(body).collect() }
}

/// All jobs, in short.
pub(in crate::rest) fn jobs_overview(state: &ClusterState, now_ms: u64) -> JobsOverview {
    let summary = |job: &JobRecord| JobSummary {
        jid: job.id().to_string(),
        name: job.graph().name.clone(),
        job_type: job.graph().mode.word(),
        scheduler_type: super::job::SCHEDULER,
        span: Span::of_job(job, now_ms),
        state: job.state().word(),
        last_modification: last_modification(job),
        tasks: LowerCounts(job.counts()),
        pending_operators: 0,
    };
    JobsOverview { jobs: newest_first(state).into_iter().map(summary).collect() }
}

/// In an order that does not change while nothing happens.
fn newest_first(state: &ClusterState) -> Vec<&JobRecord> {
    let mut jobs: Vec<_> = state.jobs().collect();
    jobs.sort_by_key(|job| (Reverse(Span::of_job(job, 0).start_time), job.id()));
    jobs
}

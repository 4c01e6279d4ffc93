//! The cluster as a whole.

use serde::Serialize;

use crate::machine::{ClusterState, JobState};
use crate::rest::options::Options;

/// The version of Flink whose API this is; clients look at it.
const FLINK_VERSION: &str = "2.3.0";

/// Counts of everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rest) struct Overview {
    taskmanagers: usize,
    slots_total: u32,
    slots_available: u32,
    jobs_running: usize,
    jobs_finished: usize,
    jobs_cancelled: usize,
    jobs_failed: usize,
    flink_version: &'static str,
    flink_commit: &'static str,
    flott_version: &'static str,
}

/// `/overview`.
pub(in crate::rest) fn overview(state: &ClusterState) -> Overview {
    let mut overview = Overview {
        taskmanagers: state.workers().len(),
        slots_total: state.slots().total(),
        slots_available: state.slots().free(),
        jobs_running: 0,
        jobs_finished: 0,
        jobs_cancelled: 0,
        jobs_failed: 0,
        flink_version: FLINK_VERSION,
        flink_commit: "flott",
        flott_version: env!("CARGO_PKG_VERSION"),
    };
    for job in state.jobs() {
        match job.state() {
            JobState::Finished => overview.jobs_finished += 1,
            JobState::Canceled => overview.jobs_cancelled += 1,
            JobState::Failed => overview.jobs_failed += 1,
            // Everything that is not over counts as running, as in Flink.
            _ => overview.jobs_running += 1,
        }
    }
    overview
}

/// What a dashboard wants to know first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rest) struct Config {
    refresh_interval: u64,
    timezone_name: &'static str,
    timezone_offset: i32,
    flink_version: &'static str,
    flink_revision: &'static str,
    flott_version: &'static str,
    features: Features,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Features {
    web_submit: bool,
    web_cancel: bool,
    web_rescale: bool,
    web_history: bool,
}

/// `/config`. Times are given in UTC.
pub(in crate::rest) fn config(options: &Options) -> Config {
    Config {
        refresh_interval: options.refresh_interval_ms,
        timezone_name: "Coordinated Universal Time",
        timezone_offset: 0,
        flink_version: FLINK_VERSION,
        flink_revision: concat!("flott ", env!("CARGO_PKG_VERSION"), " @ 1970-01-01T00:00:00Z"),
        flott_version: env!("CARGO_PKG_VERSION"),
        features: Features {
            web_submit: options.submit_enabled,
            web_cancel: options.cancel_enabled,
            web_rescale: false,
            web_history: false,
        },
    }
}

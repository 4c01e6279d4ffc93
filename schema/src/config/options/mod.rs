//! The options that Flott reads, a file a subject.
//!
//! Every option is declared here, with Flink's key and default where Flink has it; where the default differs, its documentation
//! says so. Adding one means adding it to `conf/flott.yaml` too: `UPDATE=1 cargo test -p flott-schema shipped` writes that file.

mod checkpointing;
mod cluster;
mod coordinator;
mod job;
mod log;
mod metrics;
mod rest;
mod restart;
mod security;
mod state;
mod worker;

pub use checkpointing::*;
pub use cluster::*;
pub use coordinator::*;
pub use job::*;
pub use log::*;
pub use metrics::*;
pub use rest::*;
pub use restart::*;
pub use security::*;
pub use state::*;
pub use worker::*;

use super::option::{AnyOption, OptionGroup};

/// The options by subject, in the order in which they are documented.
pub(super) fn groups() -> [&'static OptionGroup; 11] {
    [
        &coordinator::GROUP,
        &worker::GROUP,
        &cluster::GROUP,
        &log::GROUP,
        &metrics::GROUP,
        &job::GROUP,
        &checkpointing::GROUP,
        &state::GROUP,
        &restart::GROUP,
        &rest::GROUP,
        &security::GROUP,
    ]
}

/// All options.
pub fn all() -> impl Iterator<Item = &'static dyn AnyOption> {
    groups().into_iter().flat_map(|group| group.options.iter().copied())
}

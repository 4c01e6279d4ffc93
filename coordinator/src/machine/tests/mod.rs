//! The machine as a whole: scripts of events, random lives of a cluster, and a large placement.

pub(crate) mod graph;
mod large;
mod script;
mod simulation;

use flott_schema::stats::WorkerProfile;

/// A worker with so many slots.
fn offering(slots: u32) -> WorkerProfile {
    WorkerProfile { slots, data_address: "host:1".into(), ..WorkerProfile::default() }
}

//! The words every room of Flott shares.
//!
//! What lives here: ids, key groups and the stable hash, the job graph as data, its plan as text and JSON,
//! configuration, the error type, the rules of access. Who may call it: every crate. What must never happen here: I/O, a clock,
//! randomness, or a dependency on another room.

pub mod answer;
pub mod config;
pub mod control;
pub mod error;
pub mod fitting;
pub mod graph;
pub mod ids;
pub mod job;
pub mod key_group;
pub mod metric_names;
pub mod nearest;
pub mod plan;
pub mod samples;
pub mod security;
pub mod snapshot;
pub mod stable_hash;
pub mod stats;
pub mod variables;
pub mod wire;

pub use error::{Context, Error, ErrorKind, Result};

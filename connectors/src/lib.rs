//! Flott's sources, sinks and formats, one module each.
//!
//! Sources: [`collection`], [`sequence`], [`generator`], [`nexmark`], [`text`], [`csv`], [`json`] (files and folders of
//! lines, over [`files`]), [`socket`]. Sinks: [`mod@print`], [`file_sink`], [`blackhole`], [`collect`]. Short forms for all of
//! them are in [`api`]; what to do with bad input is in [`bad_record`].
//!
//! Who may call it: job authors, the SQL planner and the binary. What must never happen here: a use of the runtime; a
//! connector knows the traits of `flott-dataflow` and nothing that runs them.

pub mod api;
#[cfg(test)]
mod api_tests;
pub mod bad_record;
pub mod blackhole;
pub mod collect;
pub mod collection;
pub mod csv;
pub mod file_sink;
pub mod files;
pub mod generator;
pub mod json;
mod lanes;
pub mod nexmark;
pub mod print;
pub mod sequence;
pub mod socket;
#[cfg(test)]
mod test_kit;
pub mod text;

pub use api::{Connectors, LineParsers, SinkConnectors};
pub use bad_record::OnBadRecord;

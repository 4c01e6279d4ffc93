//! Flott's sources, sinks and formats, one module each.
//!
//! Who may call it: job authors, the SQL planner and the binary. What must never happen here: a use of the runtime; a
//! connector knows the traits of `flott-dataflow` and nothing that runs them.

pub mod nexmark;

//! The machine as a whole: scripts of events, random lives of a cluster, and a large placement.

pub(crate) mod graph;
mod large;
mod script;
mod simulation;

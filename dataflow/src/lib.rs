//! Placeholder.

pub mod types;

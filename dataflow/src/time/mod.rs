//! Event time: timestamps, watermarks, idleness, alignment; and the functions that aggregate.
//!
//! Who may call it: job authors, operators. What must never happen here: reading a clock.

pub mod aggregate;
pub mod alignment;
mod strategy;

pub use aggregate::AggregateFunction;
pub(crate) use strategy::millis;
pub use strategy::{Alignment, TimestampAssigner, WatermarkGenerator, WatermarkStrategy};

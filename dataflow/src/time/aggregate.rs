//! Aggregate functions with an accumulator of their own (Flink's `AggregateFunction`).

use crate::batch::Record;

/// Adds records to an accumulator; accumulators merge, so parts can be aggregated apart.
pub trait AggregateFunction: Clone + Send + 'static {
    /// What is added.
    type In;
    /// What is kept.
    type Accumulator: Record;
    /// What comes out.
    type Out;
    /// An empty accumulator.
    fn create(&self) -> Self::Accumulator;
    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: Self::In);
    /// Adds what another accumulator holds. Must be associative.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: &Self::Accumulator);
    /// The result.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Out;
}

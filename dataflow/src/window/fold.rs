//! Incremental aggregation: a window keeps one value instead of its records.

use crate::batch::Record;
use crate::time::AggregateFunction;

/// Folds records of type `T` into an accumulator. Accumulators merge, in the order of time.
pub(crate) trait Fold<T>: 'static {
    /// What is kept.
    type Accumulator: Record;
    /// What comes out.
    type Result;

    fn start(&mut self, record: T) -> Self::Accumulator;
    fn add(&mut self, accumulator: &mut Self::Accumulator, record: T);
    fn merge(&mut self, accumulator: &mut Self::Accumulator, later: &Self::Accumulator);
    fn result(&mut self, accumulator: &Self::Accumulator) -> Self::Result;
    fn final_result(&mut self, accumulator: Self::Accumulator) -> Self::Result;
}

/// Folds with a reduce function of the job.
pub(crate) struct Reducing<F>(pub(crate) F);

impl<T: Record, F: FnMut(&mut T, &mut T) + 'static> Fold<T> for Reducing<F> {
    type Accumulator = T;
    type Result = T;

    #[inline]
    fn start(&mut self, record: T) -> T {
        record
    }

    #[inline]
    fn add(&mut self, accumulator: &mut T, mut record: T) {
        (self.0)(accumulator, &mut record);
    }

    #[inline]
    fn merge(&mut self, accumulator: &mut T, later: &T) {
        (self.0)(accumulator, &mut later.clone());
    }

    #[inline]
    fn result(&mut self, accumulator: &T) -> T {
        accumulator.clone()
    }

    #[inline]
    fn final_result(&mut self, accumulator: T) -> T {
        accumulator
    }
}

/// Folds with an aggregate function of the job.
pub(crate) struct Aggregating<A>(pub(crate) A);

impl<A: AggregateFunction> Fold<A::In> for Aggregating<A> {
    type Accumulator = A::Accumulator;
    type Result = A::Out;

    #[inline]
    fn start(&mut self, record: A::In) -> A::Accumulator {
        let mut accumulator = self.0.create();
        self.0.add(&mut accumulator, record);
        accumulator
    }

    #[inline]
    fn add(&mut self, accumulator: &mut A::Accumulator, record: A::In) {
        self.0.add(accumulator, record);
    }

    #[inline]
    fn merge(&mut self, accumulator: &mut A::Accumulator, later: &A::Accumulator) {
        self.0.merge(accumulator, later);
    }

    #[inline]
    fn result(&mut self, accumulator: &A::Accumulator) -> A::Out {
        self.0.result(accumulator)
    }

    #[inline]
    fn final_result(&mut self, accumulator: A::Accumulator) -> A::Out {
        self.0.result(&accumulator)
    }
}

//! Watermark strategies: where timestamps come from, and how far event time has come.

use std::sync::Arc;
use std::time::Duration;

use crate::function::{Function, Prototype};

/// Finds the event time of a record, epoch milliseconds; the second argument is the timestamp it has already.
pub trait TimestampAssigner<T>: Send {
    /// The timestamp.
    fn timestamp(&mut self, record: &T, current_ms: i64) -> i64;
}

impl<T, F: FnMut(&T, i64) -> i64 + Send> TimestampAssigner<T> for F {
    fn timestamp(&mut self, record: &T, current_ms: i64) -> i64 {
        self(record, current_ms)
    }
}

/// Derives watermarks from records. Watermarks never go back: a lower one is ignored.
pub trait WatermarkGenerator<T>: Send {
    /// Sees a record; a returned watermark is emitted behind the batch the record is in.
    fn on_event(&mut self, record: &T, timestamp_ms: i64) -> Option<i64>;
    /// The watermark now; asked at the watermark interval and when the task goes idle.
    fn on_periodic(&mut self) -> Option<i64>;
    /// If `Some(bound)`: the watermark is the largest timestamp seen minus the bound minus 1, so batches need not be
    /// shown record by record.
    fn bounded_by(&self) -> Option<i64> {
        None
    }
}

struct BoundedOutOfOrderness {
    bound_ms: i64,
    largest: Option<i64>,
}

impl<T> WatermarkGenerator<T> for BoundedOutOfOrderness {
    fn on_event(&mut self, _record: &T, timestamp_ms: i64) -> Option<i64> {
        self.largest = self.largest.max(Some(timestamp_ms));
        None
    }

    fn on_periodic(&mut self) -> Option<i64> {
        self.largest.map(|largest| largest.saturating_sub(self.bound_ms).saturating_sub(1))
    }

    fn bounded_by(&self) -> Option<i64> {
        Some(self.bound_ms)
    }
}

struct NoWatermarks;

impl<T> WatermarkGenerator<T> for NoWatermarks {
    fn on_event(&mut self, _record: &T, _timestamp_ms: i64) -> Option<i64> {
        None
    }

    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

/// Keeps the sources of a group together in event time.
#[derive(Clone, Debug)]
pub struct Alignment {
    /// Name of the group.
    pub group: String,
    /// How far a source may run ahead of the slowest, milliseconds.
    pub max_drift_ms: i64,
    /// How often watermarks are compared, milliseconds.
    pub update_interval_ms: i64,
}

type Make<X> = Arc<dyn Fn() -> Box<X> + Send + Sync>;

/// How a stream gets timestamps and watermarks.
pub struct WatermarkStrategy<T> {
    generator: Make<dyn WatermarkGenerator<T>>,
    assigner: Option<Make<dyn TimestampAssigner<T>>>,
    pub(crate) idleness_ms: Option<i64>,
    pub(crate) alignment: Option<Alignment>,
}

impl<T> Clone for WatermarkStrategy<T> {
    fn clone(&self) -> Self {
        WatermarkStrategy {
            generator: self.generator.clone(),
            assigner: self.assigner.clone(),
            idleness_ms: self.idleness_ms,
            alignment: self.alignment.clone(),
        }
    }
}

impl<T: 'static> WatermarkStrategy<T> {
    fn of(generator: Make<dyn WatermarkGenerator<T>>) -> Self {
        WatermarkStrategy { generator, assigner: None, idleness_ms: None, alignment: None }
    }

    /// Timestamps never go back within a source task.
    pub fn monotonous() -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }

    /// Records are at most `bound` late.
    pub fn bounded_out_of_orderness(bound: Duration) -> Self {
        let bound_ms = millis(bound);
        Self::of(Arc::new(move || Box::new(BoundedOutOfOrderness { bound_ms, largest: None })))
    }

    /// No watermark before the end.
    pub fn no_watermarks() -> Self {
        Self::of(Arc::new(|| Box::new(NoWatermarks)))
    }

    /// A generator of the job.
    pub fn with_generator(generator: impl WatermarkGenerator<T> + Function) -> Self {
        let prototype = Prototype::new(generator);
        Self::of(Arc::new(move || Box::new(prototype.get())))
    }

    /// Takes the timestamp from the record; without it records keep the timestamp of their source.
    pub fn with_timestamp(self, timestamp: impl Fn(&T) -> i64 + Function) -> Self {
        self.with_timestamp_assigner(move |record: &T, _current: i64| timestamp(record))
    }

    /// Takes the timestamp from the record and the timestamp it has.
    pub fn with_timestamp_assigner(self, assigner: impl TimestampAssigner<T> + Function) -> Self {
        let prototype = Prototype::new(assigner);
        WatermarkStrategy { assigner: Some(Arc::new(move || Box::new(prototype.get()))), ..self }
    }

    /// A task without records for this long is idle and does not hold back the watermarks of others.
    pub fn with_idleness(self, timeout: Duration) -> Self {
        WatermarkStrategy { idleness_ms: Some(millis(timeout)), ..self }
    }

    /// Keeps the sources of `group` within `max_drift` of each other.
    pub fn with_alignment(
        self,
        group: impl Into<String>,
        max_drift: Duration,
        update_interval: Duration,
    ) -> Self {
        let alignment = Alignment {
            group: group.into(),
            max_drift_ms: millis(max_drift),
            update_interval_ms: millis(update_interval).max(1),
        };
        WatermarkStrategy { alignment: Some(alignment), ..self }
    }

    pub(crate) fn generator(&self) -> Box<dyn WatermarkGenerator<T>> {
        (self.generator)()
    }

    pub(crate) fn assigner(&self) -> Option<Box<dyn TimestampAssigner<T>>> {
        self.assigner.as_ref().map(|make| make())
    }
}

/// Whole milliseconds, at most `i64::MAX`.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

//! A source of made-up records: a function of the record's number, at a given rate.
//!
//! Who may call it: job authors, tests, demonstrations. What must never happen here: state between two calls of the
//! function; a checkpoint holds numbers alone.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use flott_dataflow::batch::{Batch, Record, Timestamps};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::function::Function;
use flott_dataflow::source::{Boundedness, Source};
use flott_schema::{Error, Result};

use crate::lanes::{Lane, LaneEnumerator, LaneFill, LaneReader, LaneSource, Pace};

/// What a delay of the rest of the job may be made up for by a higher rate behind it.
const BACKLOG: Duration = Duration::from_secs(1);

/// Makes record number `n` (from 0) by a function of `n`. It never ends unless [`Generator::count`] says so, and is as
/// fast as it can be unless [`Generator::rate_per_second`] says how fast.
///
/// ```
/// use flott_connectors::generator::Generator;
/// let sensors = Generator::new(|n| (n % 10, n as f64 * 0.5)).rate_per_second(1_000.0).count(60_000);
/// ```
///
/// Several tasks share the numbers: task `i` of `p` makes `i`, `i + p`, `i + 2 p` and so on.
pub struct Generator<T, F> {
    make: F,
    count: Option<u64>,
    per_second: Option<f64>,
    timestamp: Option<Arc<dyn Fn(u64, &T) -> i64 + Send + Sync>>,
}

impl<T, F: Clone> Clone for Generator<T, F> {
    fn clone(&self) -> Self {
        Generator { make: self.make.clone(), timestamp: self.timestamp.clone(), ..*self }
    }
}

impl<T: Record, F: Fn(u64) -> T + Function> Generator<T, F> {
    /// Records made by `make`.
    pub fn new(make: F) -> Self {
        Generator { make, count: None, per_second: None, timestamp: None }
    }

    /// Ends after so many records, of all tasks together.
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// At most so many records a second, of all tasks together, evenly. After a delay of the job, up to a second is made up
    /// for.
    pub fn rate_per_second(mut self, rate: f64) -> Self {
        self.per_second = Some(rate);
        self
    }

    /// Gives records event times, epoch milliseconds, by their number and content.
    pub fn timestamps(mut self, timestamp: impl Fn(u64, &T) -> i64 + Send + Sync + 'static) -> Self {
        self.timestamp = Some(Arc::new(timestamp));
        self
    }
}

impl<T: Record, F: Fn(u64) -> T + Function> Source for Generator<T, F> {
    type Record = T;
    type Split = Lane;
    type Enumerator = LaneEnumerator;
    type Reader = LaneReader<Self>;

    fn boundedness(&self) -> Boundedness {
        if self.count.is_some() { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn check(&self) -> Result<()> {
        match self.per_second {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(Error::configuration(format!(
                "a generator's rate is {rate} a second; it must be above 0, or not be set"
            ))),
            _ => Ok(()),
        }
    }

    fn enumerator(&self, parallelism: u32) -> Result<LaneEnumerator> {
        Ok(LaneEnumerator::new(parallelism, self.count))
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<LaneReader<Self>> {
        self.check()?;
        let pace = self.per_second.map(|per_second| Pace { per_second, backlog: Some(BACKLOG) });
        Ok(LaneReader::new(self.clone(), pace))
    }
}

impl<T: Record, F: Fn(u64) -> T + Function> LaneSource for Generator<T, F> {
    type Record = T;
    type Fill = Self;

    fn open(&self, _lane: &Lane) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<T: Record, F: Fn(u64) -> T + Function> LaneFill for Generator<T, F> {
    type Record = T;

    fn fill(&mut self, lane: &Lane, max: usize, batch: &mut Batch<T>) -> Result<usize> {
        let first = lane.next();
        let numbers = (0..max as u64).map(|index| first + index * lane.step);
        batch.records.extend(numbers.clone().map(&self.make));
        if let Some(timestamp) = &self.timestamp {
            let pairs = numbers.zip(&batch.records);
            batch.timestamps =
                Timestamps::Each(pairs.map(|(number, record)| timestamp(number, record)).collect());
        }
        Ok(max)
    }
}

//! The Nexmark events as a source.

use std::marker::PhantomData;

use flott_dataflow::batch::{Batch, Record, Timestamps};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Boundedness, Source};
use flott_schema::{Error, Result};

use super::config::{NexmarkConfig, NexmarkError};
use super::generator::Generator;
use super::model::{Bid, Event};
use crate::lanes::{Lane, LaneEnumerator, LaneFill, LaneReader, LaneSource, Pace};

/// Emits the events of the auction house with their event times.
///
/// It is as fast as it can be unless [`NexmarkSource::in_real_time`] says otherwise. It gives no watermarks: a strategy
/// does, `WatermarkStrategy::bounded_out_of_orderness` with a bound of 0 if
/// [`NexmarkConfig::out_of_order_group_size`] is 1, else with the time that a group takes
/// (`group size * 1000 / events_per_second` milliseconds).
///
/// ```
/// use flott_connectors::nexmark::{NexmarkConfig, NexmarkSource};
/// let config = NexmarkConfig { event_count: 1_000_000, ..NexmarkConfig::default() };
/// let all = NexmarkSource::new(config.clone());
/// let bids = NexmarkSource::bids_only(config).in_real_time();
/// ```
pub struct NexmarkSource<T = Event> {
    config: NexmarkConfig,
    real_time: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for NexmarkSource<T> {
    fn clone(&self) -> Self {
        NexmarkSource { config: self.config.clone(), real_time: self.real_time, kind: PhantomData }
    }
}

impl NexmarkSource<Event> {
    /// People, auctions and bids.
    pub fn new(config: NexmarkConfig) -> Self {
        NexmarkSource { config, real_time: false, kind: PhantomData }
    }
}

impl NexmarkSource<Bid> {
    /// The bids of the same stream. People and auctions count as events, but are not made.
    pub fn bids_only(config: NexmarkConfig) -> Self {
        NexmarkSource { config, real_time: false, kind: PhantomData }
    }
}

impl<T> NexmarkSource<T> {
    /// Emits [`NexmarkConfig::events_per_second`] by the clock too; a delay is made up for. Event times still begin at
    /// [`NexmarkConfig::base_time_ms`].
    pub fn in_real_time(mut self) -> Self {
        self.real_time = true;
        self
    }
}

/// [`Event`] or [`Bid`].
pub trait NexmarkRecord: Record {
    /// Appends the next events of this kind, going over `max` of all kinds; answers how many it went over.
    fn fill(
        generator: &mut Generator,
        max: usize,
        records: &mut Vec<Self>,
        timestamps: &mut Vec<i64>,
    ) -> usize;
}

impl NexmarkRecord for Event {
    fn fill(
        generator: &mut Generator,
        max: usize,
        records: &mut Vec<Self>,
        timestamps: &mut Vec<i64>,
    ) -> usize {
        generator.fill(max, records, timestamps)
    }
}

impl NexmarkRecord for Bid {
    fn fill(
        generator: &mut Generator,
        max: usize,
        records: &mut Vec<Self>,
        timestamps: &mut Vec<i64>,
    ) -> usize {
        generator.fill_bids(max, records, timestamps)
    }
}

fn refused(error: NexmarkError) -> Error {
    Error::configuration(error.to_string())
}

impl<T: NexmarkRecord> Source for NexmarkSource<T> {
    type Record = T;
    type Split = Lane;
    type Enumerator = LaneEnumerator;
    type Reader = LaneReader<Self>;

    fn boundedness(&self) -> Boundedness {
        if self.config.event_count > 0 { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn check(&self) -> Result<()> {
        self.config.validate().map_err(refused)
    }

    fn enumerator(&self, parallelism: u32) -> Result<LaneEnumerator> {
        let total = Some(self.config.event_count).filter(|count| *count > 0);
        Ok(LaneEnumerator::new(parallelism, total))
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<LaneReader<Self>> {
        let per_second = self.config.events_per_second as f64;
        let pace = self.real_time.then_some(Pace { per_second, backlog: None });
        Ok(LaneReader::new(self.clone(), pace))
    }
}

impl<T: NexmarkRecord> LaneSource for NexmarkSource<T> {
    type Record = T;
    type Fill = NexmarkLane<T>;

    fn open(&self, lane: &Lane) -> Result<NexmarkLane<T>> {
        let mut generator =
            Generator::new(&self.config, lane.first, lane.step, lane.count).map_err(refused)?;
        generator.seek(lane.next()).map_err(refused)?;
        Ok(NexmarkLane { generator, kind: PhantomData })
    }
}

/// The events of one lane.
pub struct NexmarkLane<T> {
    generator: Generator,
    kind: PhantomData<fn() -> T>,
}

impl<T: NexmarkRecord> LaneFill for NexmarkLane<T> {
    type Record = T;

    fn fill(&mut self, _lane: &Lane, max: usize, batch: &mut Batch<T>) -> Result<usize> {
        let mut timestamps = Vec::new();
        let made = T::fill(&mut self.generator, max, &mut batch.records, &mut timestamps);
        batch.timestamps = Timestamps::Each(timestamps);
        Ok(made)
    }
}

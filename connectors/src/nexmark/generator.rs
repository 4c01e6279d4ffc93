//! A reader's share of the stream: its events one by one or in batches, from any position.

use std::fmt;
use std::iter::FusedIterator;

use super::config::{LAST_EVENT_NUMBER, NexmarkConfig, NexmarkError};
use super::event_maker::EventMaker;
use super::model::{Bid, Event};
use super::timeline::{Place, Stride, Timeline};

/// Makes the events `first`, `first + step`, `first + 2 step` and so on of a Nexmark stream.
///
/// An event depends on its number and the settings alone. So `n` generators with step `n` and firsts `0..n` make together
/// what one with step 1 makes, and a generator that is moved to a position goes on as if it had never stopped.
///
/// As an iterator it gives `(timestamp in milliseconds, event)`.
#[derive(Clone)]
pub struct Generator {
    timeline: Timeline,
    maker: EventMaker,
    first: u64,
    stride: Stride,
    step: u64,
    /// The next event; of no meaning when none remain.
    next: Place,
    /// Events not yet made.
    remaining: u64,
    /// Events from `first` on.
    count: u64,
}

impl Generator {
    /// The events `first`, `first + step` and so on, `count` of them; fewer if [`LAST_EVENT_NUMBER`] comes before.
    /// [`NexmarkConfig::event_count`] does not count here: see [`Generator::reader`].
    ///
    /// # Errors
    /// Settings out of range, or a step of 0.
    pub fn new(config: &NexmarkConfig, first: u64, step: u64, count: u64) -> Result<Self, NexmarkError> {
        config.validate()?;
        if step == 0 {
            return Err(NexmarkError::NoStep);
        }
        if first > LAST_EVENT_NUMBER {
            return Err(NexmarkError::OutOfRange {
                field: "first event number",
                value: first.into(),
                low: 0,
                high: LAST_EVENT_NUMBER.into(),
            });
        }
        let timeline = Timeline::new(config);
        let count = count.min((LAST_EVENT_NUMBER - first) / step);
        // A step so long that it is never taken may as well be shorter; its times would not fit in 64 bits.
        let step = step.min(LAST_EVENT_NUMBER);
        Ok(Self {
            maker: EventMaker::new(config, &timeline),
            first,
            stride: timeline.stride(step),
            step,
            next: timeline.place(first),
            remaining: count,
            count,
            timeline,
        })
    }

    /// The share of reader `index` of `readers`: every `readers`-th event, up to [`NexmarkConfig::event_count`].
    ///
    /// # Errors
    /// Settings out of range, or no such reader.
    pub fn reader(config: &NexmarkConfig, index: u64, readers: u64) -> Result<Self, NexmarkError> {
        if index >= readers {
            return Err(NexmarkError::NoSuchReader { index, readers });
        }
        let count = match config.event_count {
            0 => u64::MAX,
            count => count.saturating_sub(index).div_ceil(readers),
        };
        Self::new(config, index, readers, count)
    }

    /// Number of the next event: all that a checkpoint has to keep.
    pub fn position(&self) -> u64 {
        self.first + (self.count - self.remaining) * self.step
    }

    /// Goes to a position that [`Generator::position`] once gave.
    ///
    /// # Errors
    /// The event is not one of this generator; it then stays where it was.
    pub fn seek(&mut self, position: u64) -> Result<(), NexmarkError> {
        let foreign = NexmarkError::ForeignPosition { position, first: self.first, step: self.step };
        let distance = position.checked_sub(self.first).ok_or(foreign.clone())?;
        if !distance.is_multiple_of(self.step) || distance / self.step > self.count {
            return Err(foreign);
        }
        self.remaining = self.count - distance / self.step;
        self.next = self.timeline.place(position);
        Ok(())
    }

    /// Events still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// No event still to come has a timestamp below this. It never goes back.
    pub fn lowest_timestamp_ms(&self) -> i64 {
        self.timeline.lowest_timestamp_ms(self.position())
    }

    /// When the next event is due if events are to come at the configured rate, as the time of event number
    /// [`Generator::position`]. Differs from the event's timestamp only where events are out of order.
    pub fn due_timestamp_ms(&self) -> i64 {
        self.next.timestamp_ms
    }

    /// Appends the next events, `max` at most, and their timestamps in milliseconds. Returns how many; 0 means the end
    /// (or a `max` of 0).
    pub fn fill(&mut self, max: usize, events: &mut Vec<Event>, timestamps: &mut Vec<i64>) -> usize {
        let count = self.batch_size(max);
        events.reserve(count);
        timestamps.reserve(count);
        for _ in 0..count {
            let place = self.take_place();
            events.push(self.maker.event(place, &self.timeline));
            timestamps.push(place.timestamp_ms);
        }
        count
    }

    /// Goes over the next events, `max` at most, and appends those that are bids; people and auctions are not even made.
    /// Returns how many it went over, bids or not; 0 means the end (or a `max` of 0).
    pub fn fill_bids(&mut self, max: usize, bids: &mut Vec<Bid>, timestamps: &mut Vec<i64>) -> usize {
        let count = self.batch_size(max);
        bids.reserve(count);
        timestamps.reserve(count);
        for _ in 0..count {
            let place = self.take_place();
            if self.maker.is_bid(place) {
                bids.push(self.maker.bid(place));
                timestamps.push(place.timestamp_ms);
            }
        }
        count
    }

    fn batch_size(&self, max: usize) -> usize {
        usize::try_from(self.remaining).map_or(max, |remaining| remaining.min(max))
    }

    /// The place of the next event, and on to the one after it. Only while some remain.
    #[inline]
    fn take_place(&mut self) -> Place {
        let due = self.next;
        self.remaining -= 1;
        self.next = self.timeline.advance(due, &self.stride);
        if self.timeline.is_in_order() {
            due
        } else {
            self.timeline.place(self.timeline.shuffled(due.number))
        }
    }
}

impl Iterator for Generator {
    type Item = (i64, Event);

    fn next(&mut self) -> Option<(i64, Event)> {
        if self.remaining == 0 {
            return None;
        }
        let place = self.take_place();
        Some((place.timestamp_ms, self.maker.event(place, &self.timeline)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match usize::try_from(self.remaining) {
            Ok(remaining) => (remaining, Some(remaining)),
            Err(_) => (usize::MAX, None),
        }
    }
}

impl FusedIterator for Generator {}

impl fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Generator")
            .field("position", &self.position())
            .field("step", &self.step)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

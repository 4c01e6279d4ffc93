//! From an event number to its place in time and in the pattern of kinds, in integers alone.

use super::config::{NexmarkConfig, SHUFFLE_FACTOR};

/// How event numbers map to places.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Length of the pattern of kinds.
    epoch_events: u64,
    events_per_second: u64,
    group_size: u64,
    base_time_ms: i64,
}

/// Where one event number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The event number.
    pub number: u64,
    /// Whole patterns of kinds before it.
    pub epoch: u64,
    /// Its index in the pattern.
    pub offset: u64,
    /// Its event time.
    pub timestamp_ms: i64,
    /// What the division by the rate left over, in units of `1 ms / rate`.
    remainder: u64,
}

/// The distance between two event numbers. Adding it to a [`Place`] takes no division.
#[derive(Clone, Debug)]
pub(super) struct Stride {
    numbers: u64,
    epochs: u64,
    offset: u64,
    whole_ms: u64,
    remainder: u64,
}

impl Timeline {
    pub fn new(config: &NexmarkConfig) -> Self {
        Self {
            epoch_events: config.total_proportion().into(),
            events_per_second: config.events_per_second,
            group_size: config.out_of_order_group_size,
            base_time_ms: config.base_time_ms,
        }
    }

    /// The place of an event number, up to [`super::LAST_EVENT_NUMBER`].
    pub fn place(&self, number: u64) -> Place {
        let stride = self.stride(number);
        Place {
            number,
            epoch: stride.epochs,
            offset: stride.offset,
            timestamp_ms: self.base_time_ms + stride.whole_ms as i64,
            remainder: stride.remainder,
        }
    }

    pub fn stride(&self, numbers: u64) -> Stride {
        Stride {
            numbers,
            epochs: numbers / self.epoch_events,
            offset: numbers % self.epoch_events,
            whole_ms: numbers * 1000 / self.events_per_second,
            remainder: numbers * 1000 % self.events_per_second,
        }
    }

    /// The place of `place.number + stride.numbers`.
    #[inline]
    pub fn advance(&self, place: Place, stride: &Stride) -> Place {
        let offset = place.offset + stride.offset;
        let next_epoch = offset >= self.epoch_events;
        Place {
            number: place.number + stride.numbers,
            epoch: place.epoch + stride.epochs + u64::from(next_epoch),
            offset: if next_epoch { offset - self.epoch_events } else { offset },
            timestamp_ms: place.timestamp_ms + self.passing_ms(place, stride),
            remainder: {
                let remainder = place.remainder + stride.remainder;
                if remainder >= self.events_per_second {
                    remainder - self.events_per_second
                } else {
                    remainder
                }
            },
        }
    }

    /// The time between the event at `place` and the one `stride` further on.
    #[inline]
    pub fn passing_ms(&self, place: Place, stride: &Stride) -> i64 {
        stride.whole_ms as i64 + i64::from(place.remainder + stride.remainder >= self.events_per_second)
    }

    pub fn is_in_order(&self) -> bool {
        self.group_size == 1
    }

    /// The event number that comes out at `number`: another one of the same group.
    pub fn shuffled(&self, number: u64) -> u64 {
        self.group_start(number) + number * SHUFFLE_FACTOR % self.group_size
    }

    /// No event from `number` on is earlier than this.
    pub fn lowest_timestamp_ms(&self, number: u64) -> i64 {
        self.place(self.group_start(number)).timestamp_ms
    }

    fn group_start(&self, number: u64) -> u64 {
        number - number % self.group_size
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::LAST_EVENT_NUMBER;
    use super::*;

    fn timeline(rate: u64, group: u64) -> Timeline {
        Timeline::new(&NexmarkConfig {
            events_per_second: rate,
            out_of_order_group_size: group,
            ..NexmarkConfig::default()
        })
    }

    #[test]
    fn advancing_equals_dividing() {
        for rate in [1, 7, 999, 1000, 1001, 10_000, 3_333_333, 1_000_000_000] {
            let timeline = timeline(rate, 1);
            for step in [1, 2, 3, 49, 50, 51, 12_345] {
                let stride = timeline.stride(step);
                let first = 123_456_789_012_345;
                let mut place = timeline.place(first);
                for turn in 1..500 {
                    place = timeline.advance(place, &stride);
                    assert_eq!(place, timeline.place(first + turn * step), "rate {rate} step {step}");
                }
            }
        }
    }

    #[test]
    fn groups_are_permutations() {
        for group in [1, 2, 3, 50, 952, 954, 1000] {
            let timeline = timeline(10_000, group);
            let mut numbers: Vec<u64> = (0..group * 3).map(|number| timeline.shuffled(number)).collect();
            for (number, shuffled) in (0..).zip(&numbers) {
                assert_eq!(number / group, shuffled / group, "group {group}");
            }
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..group * 3), "group {group}");
        }
    }

    #[test]
    fn the_last_event_number_overflows_nothing() {
        for rate in [1, u64::from(u32::MAX), LAST_EVENT_NUMBER] {
            let timeline = timeline(rate, 1 << 32);
            let place = timeline.place(LAST_EVENT_NUMBER);
            assert_eq!(
                i128::from(place.timestamp_ms - 1_436_918_400_000),
                i128::from(LAST_EVENT_NUMBER) * 1000 / i128::from(rate)
            );
            let last = LAST_EVENT_NUMBER - 1;
            assert_eq!(timeline.shuffled(last) >> 32, last >> 32);
        }
    }
}

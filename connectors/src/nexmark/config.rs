//! What the auction house is like: proportions, skew, rate, sizes. Defaults are those of the Java generator.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::word_pools::FILLER_BYTES;

/// The highest event number there is: 2^53, so that times and ids stay far from the end of `i64` at every setting.
pub const LAST_EVENT_NUMBER: u64 = 1 << 53;

/// Highest value of proportions, ratios and counts of people and auctions: their products then fit in 64 bits.
const COUNT_MAX: u32 = 1_000_000;
/// Within an out-of-order group of `size`, number `n` is replaced by `n * 953 % size`. 953 is a prime, so this reaches
/// every event of the group unless 953 divides the size.
pub(super) const SHUFFLE_FACTOR: u64 = 953;
const OUT_OF_ORDER_GROUP_SIZE_MAX: u64 = 1 << 32;
/// 8.64e15 ms: the years -271,821 to 275,760, the range of dates in JavaScript and well within SQL's.
const BASE_TIME_MS_MAX: i64 = 8_640_000_000_000_000;

/// Settings of the generator. Two generators with equal settings make equal streams, on any machine.
///
/// ```
/// use flott_connectors::nexmark::NexmarkConfig;
/// let config = NexmarkConfig { events_per_second: 1_000_000, event_count: 5_000, ..NexmarkConfig::default() };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NexmarkConfig {
    /// Events of the whole stream, over all readers; 0 means no end. Default 0.
    pub event_count: u64,
    /// Events per second of event time, all kinds and readers together: event number `n` happens `n * 1000 / rate`
    /// milliseconds after the first. It says nothing of how fast events are made. Default 10,000.
    pub events_per_second: u64,
    /// Time of event number 0, milliseconds since the epoch. Java takes the wall clock; here it is the fixed time of
    /// Beam's Nexmark, so that runs repeat. Default 2015-07-15T00:00:00Z.
    pub base_time_ms: i64,
    /// Another seed, another stream with the same ids and times. Java's is not seeded. Default 0.
    pub seed: u64,

    /// Of `person_proportion + auction_proportion + bid_proportion` events in a row, so many, the first, are people.
    /// Default 1.
    pub person_proportion: u32,
    /// So many, the next, are auctions. Default 3.
    pub auction_proportion: u32,
    /// So many, the last, are bids. Default 46.
    pub bid_proportion: u32,

    /// One bid in so many goes to any auction in flight, all others to the hot one (the first of each hundred).
    /// 1 means no hot auction. Default 2.
    pub hot_auction_ratio: u32,
    /// One auction in so many is of any active person, all others of the hot seller (the first of each hundred people).
    /// 1 means no hot seller. Default 4.
    pub hot_seller_ratio: u32,
    /// One bid in so many is of any active person, all others of the hot bidder (the second of each hundred people).
    /// 1 means no hot bidder. Default 4.
    pub hot_bidder_ratio: u32,
    /// Auctions that are open at any time: bids go to the last so many, and an auction's mean length is the time in which
    /// so many open. Default 100.
    pub auctions_in_flight: u32,
    /// The last so many people sell and bid. Default 1,000.
    pub active_people: u32,

    /// Of every so many events in a row, the order is shuffled, the same way in each group. 1 means in order. Default 1.
    pub out_of_order_group_size: u64,

    /// Average size of a person, numbers counted as 8 bytes: `extra` makes up what the other fields leave. Default 200.
    pub person_average_bytes: u32,
    /// Average size of an auction. Default 500.
    pub auction_average_bytes: u32,
    /// Average size of a bid; channel and url are not counted, as in Java. Default 100.
    pub bid_average_bytes: u32,
}

impl Default for NexmarkConfig {
    fn default() -> Self {
        Self {
            event_count: 0,
            events_per_second: 10_000,
            base_time_ms: 1_436_918_400_000,
            seed: 0,
            person_proportion: 1,
            auction_proportion: 3,
            bid_proportion: 46,
            hot_auction_ratio: 2,
            hot_seller_ratio: 4,
            hot_bidder_ratio: 4,
            auctions_in_flight: 100,
            active_people: 1000,
            out_of_order_group_size: 1,
            person_average_bytes: 200,
            auction_average_bytes: 500,
            bid_average_bytes: 100,
        }
    }
}

impl NexmarkConfig {
    /// The length of the repeating pattern of kinds.
    pub fn total_proportion(&self) -> u32 {
        self.person_proportion + self.auction_proportion + self.bid_proportion
    }

    /// Says what is wrong with the settings, if anything. [`super::Generator::new`] calls it.
    pub fn validate(&self) -> Result<(), NexmarkError> {
        let within = |field: &'static str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(NexmarkError::OutOfRange {
                    field,
                    value: value.into(),
                    low: low.into(),
                    high: high.into(),
                })
            }
        };
        let count = |field, value: u32, low: u64| within(field, value.into(), low, COUNT_MAX.into());
        let average = |field, value: u32| within(field, value.into(), 0, (FILLER_BYTES / 4) as u64);

        within("event_count", self.event_count, 0, LAST_EVENT_NUMBER)?;
        within("events_per_second", self.events_per_second, 1, LAST_EVENT_NUMBER)?;
        if !(-BASE_TIME_MS_MAX..=BASE_TIME_MS_MAX).contains(&self.base_time_ms) {
            return Err(NexmarkError::OutOfRange {
                field: "base_time_ms",
                value: self.base_time_ms.into(),
                low: (-BASE_TIME_MS_MAX).into(),
                high: BASE_TIME_MS_MAX.into(),
            });
        }
        count("person_proportion", self.person_proportion, 0)?;
        count("auction_proportion", self.auction_proportion, 0)?;
        count("bid_proportion", self.bid_proportion, 0)?;
        if self.total_proportion() == 0 {
            return Err(NexmarkError::NoEvents);
        }
        count("hot_auction_ratio", self.hot_auction_ratio, 1)?;
        count("hot_seller_ratio", self.hot_seller_ratio, 1)?;
        count("hot_bidder_ratio", self.hot_bidder_ratio, 1)?;
        count("auctions_in_flight", self.auctions_in_flight, 0)?;
        count("active_people", self.active_people, 0)?;
        within("out_of_order_group_size", self.out_of_order_group_size, 1, OUT_OF_ORDER_GROUP_SIZE_MAX)?;
        if self.out_of_order_group_size.is_multiple_of(SHUFFLE_FACTOR) {
            return Err(NexmarkError::GroupRepeats { size: self.out_of_order_group_size });
        }
        average("person_average_bytes", self.person_average_bytes)?;
        average("auction_average_bytes", self.auction_average_bytes)?;
        average("bid_average_bytes", self.bid_average_bytes)
    }
}

/// Why a generator could not be made or moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NexmarkError {
    #[error("nexmark: {field} is {value}; give a value from {low} to {high}")]
    OutOfRange { field: &'static str, value: i128, low: i128, high: i128 },
    #[error("nexmark: the proportions of people, auctions and bids are all 0; set one of them")]
    NoEvents,
    #[error(
        "nexmark: out_of_order_group_size is {size}, a multiple of 953, by which events are shuffled within a group: \
         events would repeat; take {} instead", size + 1
    )]
    GroupRepeats { size: u64 },
    #[error("nexmark: the step between events of a reader is 0; give the number of readers")]
    NoStep,
    #[error("nexmark: reader {index} of {readers} does not exist; readers count from 0")]
    NoSuchReader { index: u64, readers: u64 },
    #[error(
        "nexmark: position {position} is not one of this reader, whose events are {first} and every {step} further; \
         was the state taken with another number of readers?"
    )]
    ForeignPosition { position: u64, first: u64, step: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(NexmarkConfig::default().validate(), Ok(()));
    }

    #[test]
    fn every_bad_setting_is_named() {
        let base = NexmarkConfig::default();
        let bad = [
            ("event_count", NexmarkConfig { event_count: LAST_EVENT_NUMBER + 1, ..base.clone() }),
            ("events_per_second", NexmarkConfig { events_per_second: 0, ..base.clone() }),
            ("base_time_ms", NexmarkConfig { base_time_ms: i64::MIN, ..base.clone() }),
            ("person_proportion", NexmarkConfig { person_proportion: u32::MAX, ..base.clone() }),
            ("auction_proportion", NexmarkConfig { auction_proportion: u32::MAX, ..base.clone() }),
            ("bid_proportion", NexmarkConfig { bid_proportion: u32::MAX, ..base.clone() }),
            ("hot_auction_ratio", NexmarkConfig { hot_auction_ratio: 0, ..base.clone() }),
            ("hot_seller_ratio", NexmarkConfig { hot_seller_ratio: 0, ..base.clone() }),
            ("hot_bidder_ratio", NexmarkConfig { hot_bidder_ratio: 0, ..base.clone() }),
            ("auctions_in_flight", NexmarkConfig { auctions_in_flight: u32::MAX, ..base.clone() }),
            ("active_people", NexmarkConfig { active_people: u32::MAX, ..base.clone() }),
            ("out_of_order_group_size", NexmarkConfig { out_of_order_group_size: 0, ..base.clone() }),
            ("out_of_order_group_size", NexmarkConfig { out_of_order_group_size: 953 * 2, ..base.clone() }),
            ("person_average_bytes", NexmarkConfig { person_average_bytes: u32::MAX, ..base.clone() }),
            ("auction_average_bytes", NexmarkConfig { auction_average_bytes: u32::MAX, ..base.clone() }),
            ("bid_average_bytes", NexmarkConfig { bid_average_bytes: u32::MAX, ..base.clone() }),
        ];
        for (field, config) in bad {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with("nexmark: ") && message.contains(field), "{message}");
        }
        let silent = NexmarkConfig { person_proportion: 0, auction_proportion: 0, bid_proportion: 0, ..base };
        assert_eq!(silent.validate(), Err(NexmarkError::NoEvents));
    }

    #[test]
    fn a_part_of_the_settings_is_enough() {
        let config: NexmarkConfig =
            serde_json::from_str(r#"{"bid_proportion": 0, "base_time_ms": -5}"#).unwrap();
        assert_eq!(config, NexmarkConfig { bid_proportion: 0, base_time_ms: -5, ..NexmarkConfig::default() });
        let error =
            serde_json::from_str::<NexmarkConfig>(r#"{"bid_proportions": 0}"#).unwrap_err().to_string();
        assert!(error.contains("bid_proportions") && error.contains("`bid_proportion`"), "{error}");
    }
}

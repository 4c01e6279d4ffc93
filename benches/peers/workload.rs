//! The work that every engine does: the cases, how much of it, and the records, made in the source from their index.
//!
//! Every function of records here is pure and independent of the order of arrival, so the checksums of all engines, at
//! any number of threads, must be equal.

use std::ops::Range;
use std::time::Duration;

/// One piece of work. What each asks of Flott is in `targets.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// `range -> map -> filter (keeps 3/4) -> map -> wrapping sum`, no exchange.
    MapFilterMap,
    /// Keyed sum, every update emitted to a folding sink, one hash exchange; state in the cache.
    RollingSmall,
    /// The same with state far beyond the cache.
    RollingLarge,
    /// Keyed sum with only the totals emitted, at the end; local aggregation before the exchange.
    TotalsSmall,
    TotalsLarge,
    /// Lines of a text file -> words -> count by word, counts at the end.
    WordCount,
    /// Event-time sum in windows of 60 s.
    WindowTumbling,
    /// Event-time sum in windows of 60 s that start each second.
    WindowSliding,
    /// A paced generator -> key_by -> map -> sink; time from when the event was due to the sink.
    Latency,
    /// The pipeline of `Latency`, as fast as it goes.
    FullLoad,
    /// An exchange whose one sink stops for a while; how much memory grows meanwhile.
    StalledSink,
}

impl Case {
    pub const ALL: [Self; 11] = [
        Self::MapFilterMap,
        Self::RollingSmall,
        Self::RollingLarge,
        Self::TotalsSmall,
        Self::TotalsLarge,
        Self::WordCount,
        Self::WindowTumbling,
        Self::WindowSliding,
        Self::Latency,
        Self::FullLoad,
        Self::StalledSink,
    ];

    /// The groups that `--only` chooses from.
    pub const GROUPS: [&str; 6] = ["a", "b", "c", "d", "latency", "memory"];

    pub fn name(self) -> &'static str {
        match self {
            Self::MapFilterMap => "map-filter-map",
            Self::RollingSmall => "rolling-10k",
            Self::RollingLarge => "rolling-1m",
            Self::TotalsSmall => "totals-10k",
            Self::TotalsLarge => "totals-1m",
            Self::WordCount => "word-count",
            Self::WindowTumbling => "window-tumbling",
            Self::WindowSliding => "window-sliding",
            Self::Latency => "latency",
            Self::FullLoad => "full-load",
            Self::StalledSink => "stalled-sink",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::MapFilterMap => "(a) map-filter-map over u64",
            Self::RollingSmall => "(b) keyed sum emitting every update, 10 k keys",
            Self::RollingLarge => "(b) keyed sum emitting every update, 1 M keys",
            Self::TotalsSmall => "(b) keyed sum, pre-aggregated, totals at the end, 10 k keys",
            Self::TotalsLarge => "(b) keyed sum, pre-aggregated, totals at the end, 1 M keys",
            Self::WordCount => "(c) word count over text",
            Self::WindowTumbling => "(d) event-time window 60 s, 10 k keys",
            Self::WindowSliding => "(d) event-time window 60 s / 1 s, 10 k keys",
            Self::Latency => "latency at 10 k events/s",
            Self::FullLoad => "the pipeline of the latency case at full load",
            Self::StalledSink => "memory under a stalled sink",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::MapFilterMap => "a",
            Self::RollingSmall | Self::RollingLarge | Self::TotalsSmall | Self::TotalsLarge => "b",
            Self::WordCount => "c",
            Self::WindowTumbling | Self::WindowSliding => "d",
            Self::Latency | Self::FullLoad => "latency",
            Self::StalledSink => "memory",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name)
    }

    /// Number of distinct keys of the keyed cases.
    pub fn keys(self) -> u64 {
        match self {
            Self::RollingLarge | Self::TotalsLarge => 1_000_000,
            _ => 10_000,
        }
    }
}

/// How much work each case is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    pub map_records: u64,
    pub small_state_records: u64,
    pub large_state_records: u64,
    pub text_bytes: u64,
    pub window_records: u64,
    pub paced_records: u64,
    pub full_load_records: u64,
    pub stalled_records: u64,
    pub stall: Duration,
}

impl Size {
    pub const FULL: Self = Self {
        map_records: 100_000_000,
        small_state_records: 50_000_000,
        large_state_records: 25_000_000,
        text_bytes: 200_000_000,
        window_records: 24_000_000,
        paced_records: 10 * PACED_EVENTS_PER_SECOND,
        full_load_records: 20_000_000,
        stalled_records: 100_000_000,
        stall: Duration::from_secs(2),
    };

    pub const QUICK: Self = Self {
        map_records: 10_000_000,
        small_state_records: 5_000_000,
        large_state_records: 5_000_000,
        text_bytes: 20_000_000,
        window_records: 12_500_000,
        paced_records: PACED_EVENTS_PER_SECOND,
        full_load_records: 4_000_000,
        stalled_records: 40_000_000,
        stall: Duration::from_secs(1),
    };

    /// The records a case reads; of the word count, whose records are words, only the run itself can tell.
    pub fn records(&self, case: Case) -> u64 {
        match case {
            Case::MapFilterMap => self.map_records,
            Case::RollingSmall | Case::TotalsSmall => self.small_state_records,
            Case::RollingLarge | Case::TotalsLarge => self.large_state_records,
            Case::WordCount => 0,
            Case::WindowTumbling | Case::WindowSliding => self.window_records,
            Case::Latency => self.paced_records,
            Case::FullLoad => self.full_load_records,
            Case::StalledSink => self.stalled_records,
        }
    }
}

/// The contiguous part of `0..records` that source `index` of `peers` makes.
pub fn share(records: u64, index: u64, peers: u64) -> Range<u64> {
    let part = records.div_ceil(peers);
    (index * part).min(records)..((index + 1) * part).min(records)
}

/// splitmix64 (Steele, Lea, Flood 2014) of the state after `index` steps from 0.
#[inline]
pub fn mix(index: u64) -> u64 {
    let mut word = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Maps an evenly spread word to `0..bound` without a division (Lemire 2019).
#[inline]
pub fn reduce(word: u64, bound: u64) -> u64 {
    ((u128::from(word) * u128::from(bound)) >> 64) as u64
}

/// Case (a): the first map.
#[inline]
pub fn first_map(word: u64) -> u64 {
    mix(word)
}

/// Case (a): keeps three of four.
#[inline]
pub fn keeps(word: &u64) -> bool {
    word & 3 != 0
}

/// Case (a): the second map.
#[inline]
pub fn second_map(word: u64) -> u64 {
    (word ^ (word >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Case (b): key and value of the record at `index`. The value follows from the key, so that a key's running totals are
/// the same whatever the order in which the sources' records meet.
#[inline]
pub fn keyed(index: u64, keys: u64) -> (u64, u64) {
    let key = reduce(mix(index), keys);
    (key, 1 + (key & 0xff))
}

/// What a keyed sink adds to its checksum for one emitted total.
#[inline]
pub fn keyed_check(key: u64, total: u64) -> u64 {
    total.wrapping_mul(2 * key + 1)
}

/// Case (d): events for each second of event time; 20 for each key.
pub const WINDOW_EVENTS_PER_SECOND: u64 = 200_000;
pub const WINDOW_SIZE_MS: u64 = 60_000;

/// Case (d): key, value and event time in milliseconds of the event at `index`. Times rise with the index, so parallel
/// sources take every n-th index (not [`share`]): their watermarks then advance together.
#[inline]
pub fn timed(index: u64, keys: u64) -> (u64, u64, u64) {
    let (key, value) = keyed(index, keys);
    (key, value, index * 1_000 / WINDOW_EVENTS_PER_SECOND)
}

/// What the sink of a windowed case adds to its checksum for the result of one key in the window that ends at `end_ms`.
#[inline]
pub fn window_check(end_ms: u64, key: u64, total: u64) -> u64 {
    keyed_check(key, total).wrapping_mul(end_ms | 1)
}

pub const PACED_EVENTS_PER_SECOND: u64 = 10_000;

/// An event of the latency case, due `due_ns` after the start of the run.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub struct PacedEvent {
    pub key: u64,
    pub value: u64,
    pub due_ns: u64,
}

/// The event at `index` of the latency case.
pub fn paced(index: u64) -> PacedEvent {
    let (key, value) = keyed(index, Case::Latency.keys());
    PacedEvent { key, value, due_ns: index * (1_000_000_000 / PACED_EVENTS_PER_SECOND) }
}

/// The map of the latency case.
pub fn paced_map(event: PacedEvent) -> PacedEvent {
    PacedEvent { value: mix(event.key ^ event.value), ..event }
}

//! Nexmark: the event model and the generator of the streaming benchmark by Tucker et al., as its Java generator for
//! Flink makes it (people, auctions and bids of an auction house, 1 : 3 : 46).
//!
//! What lives here: the three event types, the cheap string they carry ([`Text`]), the configuration and a generator
//! that makes event number `n` from `n` alone. So it can be split over readers, stopped, and resumed from one `u64`.
//! `source` makes a source of it; nothing else here knows a trait of the engine or a clock.
//!
//! Who may call it: job authors, benchmarks, tests.
//!
//! What must never happen here: I/O, randomness that is not derived from seed and event number, an allocation per event.

mod config;
mod event_maker;
mod generator;
mod model;
mod price;
mod random;
mod source;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod word_pools;

pub use config::{LAST_EVENT_NUMBER, NexmarkConfig, NexmarkError};
pub use generator::Generator;
pub use model::{Auction, Bid, Event, Person};
pub use source::{NexmarkLane, NexmarkRecord, NexmarkSource};
pub use text::Text;

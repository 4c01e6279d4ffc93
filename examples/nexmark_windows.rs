//! Hot items (Nexmark query 5): which auction got the most bids in the last ten seconds, every two seconds of event time.
//!
//! ```text
//! cargo run --release --example nexmark_windows [-- --events N]
//! ```

use flott::connectors::nexmark::{Bid, NexmarkConfig, NexmarkSource};
use flott::prelude::*;
use serde::{Deserialize, Serialize};

/// Bids on an auction in the window that ends at `end_ms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hot {
    end_ms: i64,
    auction: i64,
    bids: u64,
}

fn events() -> flott::Result<u64> {
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_] => Ok(5_000_000),
        [_, flag, events] if flag == "--events" => events.parse().map_err(|_| {
            flott::Error::bad_input(format!("--events wants a number of events, not '{events}'"))
        }),
        _ => Err(flott::Error::bad_input("usage: nexmark_windows [--events N]")),
    }
}

fn main() -> flott::Result<()> {
    let config =
        NexmarkConfig { event_count: events()?, events_per_second: 100_000, ..NexmarkConfig::default() };
    let env = flott::env()?;
    let bids = env.from_source(
        NexmarkSource::bids_only(config),
        WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(100)),
        "Nexmark bids",
    );
    let (ten_seconds, two_seconds) = (Duration::from_secs(10), Duration::from_secs(2));
    bids.map(|bid: Bid| Hot { end_ms: 0, auction: bid.auction, bids: 1 })
        .key_by(|hot| hot.auction)
        .window(SlidingEventTimeWindows::of(ten_seconds, two_seconds))
        .reduce_with(
            |so_far, next| so_far.bids += next.bids,
            |_auction, window: &TimeWindow, hot| Hot { end_ms: window.end_ms, ..hot },
        )
        .key_by(|hot| hot.end_ms)
        .window(TumblingEventTimeWindows::of(two_seconds))
        // Of auctions with equally many bids the one with the lower number.
        .max_by(|hot| (hot.bids, std::cmp::Reverse(hot.auction)))
        .map(|hot| format!("{} s: auction {} with {} bids", hot.end_ms / 1000, hot.auction, hot.bids))
        .print();
    env.execute("hot items")?;
    Ok(())
}

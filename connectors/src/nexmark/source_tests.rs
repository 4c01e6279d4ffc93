use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use flott_dataflow::source::{Boundedness, Source};

use super::{Bid, Event, Generator, NexmarkConfig, NexmarkSource};
use crate::test_kit::{Driver, Turn, check_runs_by, drain, read_by, read_resuming, runs};

fn config(event_count: u64) -> NexmarkConfig {
    NexmarkConfig { event_count, events_per_second: 1000, ..NexmarkConfig::default() }
}

/// The events of the generator itself.
fn events(config: &NexmarkConfig) -> Vec<(Event, i64)> {
    Generator::reader(config, 0, 1).unwrap().map(|(timestamp, event)| (event, timestamp)).collect()
}

fn bids(config: &NexmarkConfig) -> Vec<(Bid, i64)> {
    let bid = |(event, timestamp): (Event, i64)| Some((event.as_bid()?.clone(), timestamp));
    events(config).into_iter().filter_map(bid).collect()
}

#[test]
fn all_events_come_with_their_times() {
    for group in [1, 100] {
        let config = NexmarkConfig { out_of_order_group_size: group, ..config(5000) };
        assert!(drain(&NexmarkSource::new(config.clone()), 64) == events(&config));
        assert!(drain(&NexmarkSource::bids_only(config.clone()), 64) == bids(&config));
    }
}

#[test]
fn readers_share_the_events() {
    let config = config(3001);
    let mut read: Vec<Event> = read_by(&NexmarkSource::new(config.clone()), 3, 100).concat();
    read.sort_by_key(|event| (event.date_time(), format!("{event:?}")));
    let mut expected: Vec<Event> = events(&config).into_iter().map(|(event, _)| event).collect();
    expected.sort_by_key(|event| (event.date_time(), format!("{event:?}")));
    assert!(read == expected);
}

#[test]
fn a_resumed_reader_goes_on_where_the_old_one_was() {
    for batches in [0, 1, 7] {
        let (before, after) = read_resuming(&NexmarkSource::bids_only(config(1000)), 33, batches);
        let expected: Vec<Bid> = bids(&config(1000)).into_iter().map(|(bid, _)| bid).collect();
        assert!([before, after].concat() == expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_event_comes_once_over_restarts(count in 1u64..1500, group in 1u64..50, runs in runs()) {
        let config = NexmarkConfig { out_of_order_group_size: group, ..config(count) };
        check_runs_by(&NexmarkSource::new(config.clone()), &runs, |event| format!("{event:?}"))?;
        check_runs_by(&NexmarkSource::bids_only(config), &runs, |bid| format!("{bid:?}"))?;
    }
}

#[test]
fn a_stretch_without_bids_is_passed_over() {
    let config = NexmarkConfig { person_proportion: 1000, bid_proportion: 1, ..config(2008) };
    assert_eq!(drain(&NexmarkSource::bids_only(config), 1).len(), 2);
}

#[test]
fn settings_are_checked_beforehand_and_say_whether_it_ends() {
    assert_eq!(NexmarkSource::new(config(1)).boundedness(), Boundedness::Bounded);
    let endless = NexmarkSource::new(config(0));
    assert_eq!(endless.boundedness(), Boundedness::Unbounded);
    endless.check().unwrap();
    let bad = NexmarkSource::new(NexmarkConfig { events_per_second: 0, ..config(0) });
    assert!(bad.check().unwrap_err().to_string().contains("events_per_second"));
}

#[tokio::test(start_paused = true)]
async fn in_real_time_events_come_when_they_happen_and_delays_are_made_up_for() {
    let source = NexmarkSource::new(config(0)).in_real_time();
    let mut driver = Driver::new(&source, 2);
    let mut cx = Context::from_waker(Waker::noop());
    let mut counts = Vec::new();
    for pause_ms in [10, 100, 5000, 10] {
        let mut count = 0;
        for reader in 0..2 {
            loop {
                match driver.turn(reader, 64, &mut cx).unwrap() {
                    Turn::Batch(batch) => count += batch.len(),
                    Turn::GotSplit => {}
                    other => break assert_eq!(other, Turn::Pending),
                }
            }
        }
        counts.push(count);
        tokio::time::advance(Duration::from_millis(pause_ms)).await;
    }
    let expected = [2, 10, 100, 5000];
    let near =
        counts.iter().zip(expected).all(|(count, expected): (&usize, usize)| count.abs_diff(expected) <= 2);
    assert!(near, "{counts:?} where {expected:?} were due");
}

//! Windows of more keys than memory has room for give what others give.

use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Conditions, Driver, sorted};
use super::fixed_model::{Numbers, Rec};
use super::restarts::{act, acts};
use crate::api::{DataStream, KeyedStream};
use crate::harness::memory::MemoryKind;
use crate::key::{KeySelector, stable_hash};
use crate::window::{
    ContinuousEventTimeTrigger, CountTrigger, EventTimeSessionWindows, ProcessingTimeSessionWindows,
    SlidingEventTimeWindows, SlidingProcessingTimeWindows, TimeEvictor, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
};

type Build = fn(&DataStream<Rec>) -> DataStream<Vec<u32>>;

const TEN: Duration = Duration::from_millis(10);

fn keyed(stream: &DataStream<Rec>) -> KeyedStream<Rec, impl KeySelector<Rec, Key = u8>> {
    stream.key_by(|record| record.0)
}

fn builds() -> Vec<(&'static str, Build)> {
    vec![
        ("tumbling", |stream| keyed(stream).window(TumblingEventTimeWindows::of(TEN * 2)).aggregate(Numbers)),
        ("tumbling with lateness", |stream| {
            keyed(stream).window(TumblingEventTimeWindows::of(TEN)).allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("sliding", |stream| {
            keyed(stream).window(SlidingEventTimeWindows::of(TEN, TEN / 5)).aggregate(Numbers)
        }),
        ("sliding with lateness", |stream| {
            let windows = keyed(stream).window(SlidingEventTimeWindows::of(TEN, Duration::from_millis(3)));
            windows.allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("sliding records with lateness", |stream| {
            let windows = keyed(stream).window(SlidingEventTimeWindows::of(TEN, TEN / 2));
            windows.allowed_lateness(TEN / 2).apply(|key, _, records, out| {
                let numbers = sorted(records.iter().map(|record| record.1));
                out.collect([vec![u32::from(*key)], numbers].concat());
            })
        }),
        ("sessions", |stream| {
            keyed(stream).window(EventTimeSessionWindows::with_gap(TEN)).aggregate(Numbers)
        }),
        ("sessions with lateness", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN / 2));
            windows.allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("sessions, processing time", |stream| {
            keyed(stream).window(ProcessingTimeSessionWindows::with_gap(TEN)).aggregate(Numbers)
        }),
        ("records of sessions with an evictor", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.evictor(TimeEvictor::of(TEN / 2)).aggregate(Numbers)
        }),
        ("count in sessions", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(CountTrigger::of(3)).aggregate(Numbers)
        }),
        ("continuous in sessions", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(ContinuousEventTimeTrigger::of(TEN / 2)).aggregate(Numbers)
        }),
        ("continuous in sessions with lateness", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(ContinuousEventTimeTrigger::of(TEN / 2)).allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("tumbling, processing time", |stream| {
            keyed(stream).window(TumblingProcessingTimeWindows::of(TEN)).aggregate(Numbers)
        }),
        ("sliding, processing time", |stream| {
            keyed(stream).window(SlidingProcessingTimeWindows::of(TEN * 2, TEN / 2)).aggregate(Numbers)
        }),
    ]
}

/// Rows that are not in memory can be fetched.
fn fetching() -> impl Strategy<Value = MemoryKind> {
    prop_oneof![Just(0usize), 0usize..3000, 0usize..20_000]
        .prop_map(|budget_bytes| MemoryKind::Fetching { budget_bytes })
}

#[derive(Clone, Debug)]
enum Input {
    Records(Vec<(u8, i64)>),
    Watermark(i64),
    Time(i64),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        4 => prop::collection::vec((any::<u8>(), -15i64..15), 1..60).prop_map(Input::Records),
        2 => (-20i64..10).prop_map(Input::Watermark),
        2 => (0i64..12).prop_map(Input::Time),
    ];
    prop::collection::vec(input, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn windows_larger_than_memory_give_what_others_give(
        build in 0..builds().len(),
        inputs in inputs(),
        acts in acts(),
        kind in fetching(),
        batch_size in 1usize..5,
        credit in 0usize..3,
    ) {
        let (name, build) = builds()[build];
        let mut plain = Driver::<Rec, Vec<u32>>::new(build);
        let conditions = Conditions { snapshots: Some(kind), batch_size, credit, ..Conditions::default() };
        let mut acting =
            Driver::<Rec, Vec<u32>>::under(conditions, build).routed(|(key, _)| stable_hash(key));
        let (mut now, mut watermark, mut number) = (1000, i64::MIN, 0);
        for (input, next) in inputs.into_iter().zip(acts.iter().cycle()) {
            match input {
                Input::Records(records) => {
                    let mut batch = Vec::new();
                    for (key, at) in records {
                        number += 1;
                        batch.push(((key, number), now + at));
                    }
                    plain.push(batch.clone());
                    acting.push(batch);
                }
                Input::Watermark(at) => {
                    watermark = watermark.max(now + at);
                    plain.watermark_only(watermark);
                    acting.watermark_only(watermark);
                }
                Input::Time(by) => {
                    now += by;
                    let results = plain.time(now);
                    prop_assert_eq!(sorted(acting.time(now)), sorted(results), "{}", name);
                }
            }
            prop_assert_eq!(sorted(acting.take()), sorted(plain.take()), "{}", name);
            prop_assert_eq!(sorted(acting.take_late()), sorted(plain.take_late()), "{}", name);
            act(&mut acting, *next)?;
        }
        prop_assert_eq!(sorted(acting.end()), sorted(plain.end()), "{}: the end", name);
    }
}

#[test]
fn what_there_is_no_room_for_is_written_and_nothing_is_loaded_by_a_restart() {
    for (name, build) in builds() {
        let kind = MemoryKind::Fetching { budget_bytes: 2000 };
        let conditions = Conditions { snapshots: Some(kind), ..Conditions::default() };
        let mut plain = Driver::<Rec, Vec<u32>>::new(build);
        let mut acting = Driver::<Rec, Vec<u32>>::under(conditions, build);
        let (mut expected, mut results) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let batch: Vec<(Rec, i64)> =
                (0..200).map(|key| ((key as u8, round * 200 + key), 1000 + i64::from(round % 3))).collect();
            plain.push(batch.clone());
            acting.push(batch);
            expected.extend(plain.time(1000 + i64::from(round)));
            results.extend(acting.time(1000 + i64::from(round)));
        }
        let (fetched, written) = acting.fetched_and_written();
        assert!(fetched > 1000 && written > 1000, "{name}: {fetched} fetched, {written} written");
        acting.barrier();
        acting.crash(1);
        assert_eq!(acting.fetched_and_written(), (0, 0), "{name}");
        expected.extend(plain.end());
        results.extend(acting.end());
        assert_eq!(sorted(results), sorted(expected), "{name}");
    }
}

#[test]
fn sessions_are_found_in_snapshots_of_backends_that_keep_no_index_of_them() {
    let fetching = MemoryKind::Fetching { budget_bytes: 300 };
    let ways = [(MemoryKind::Changes, fetching), (fetching, MemoryKind::AllRows), (fetching, fetching)];
    for (name, build) in builds().into_iter().filter(|(name, _)| name.contains("sessions")) {
        for (from, to) in ways {
            let under = |kind| Conditions { snapshots: Some(kind), ..Conditions::default() };
            let mut plain = Driver::<Rec, Vec<u32>>::new(build);
            let mut first = Driver::<Rec, Vec<u32>>::under(under(from), build);
            let mut second = Driver::<Rec, Vec<u32>>::under(under(to), build);
            let batch = |number: u32, key: u32| {
                let (number, time_ms) = (number * 100 + key, 1000 + i64::from(number * 7 + key % 30));
                ((key as u8, number), time_ms)
            };
            for number in 0..2 {
                first.time(1000 + i64::from(number));
                plain.time(1000 + i64::from(number));
                first.push((0..60).map(|key| batch(number, key)));
                plain.push((0..60).map(|key| batch(number, key)));
            }
            assert_eq!(sorted(first.watermark(1012)), sorted(plain.watermark(1012)), "{name}");
            first.barrier();
            first.snapshot_and_go_on();
            second.time(1001);
            second.start_from(&first).unwrap();
            second.push((20..80).map(|key| batch(2, key)));
            plain.push((20..80).map(|key| batch(2, key)));
            for watermark in [1015, 1021, 1040] {
                let (results, expected) = (second.watermark(watermark), plain.watermark(watermark));
                assert_eq!(sorted(results), sorted(expected), "{name}: {from:?}, {to:?}, {watermark}");
            }
            assert_eq!(sorted(second.end()), sorted(plain.end()), "{name}: {from:?}, {to:?}");
        }
    }
}

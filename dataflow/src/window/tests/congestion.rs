//! A firing larger than the credit of the outputs.

use std::time::Duration;

use super::driver::{Conditions, Driver, sorted};
use super::fixed_model::{Numbers, Rec, TimerPerKey};
use crate::api::DataStream;
use crate::element::Signal;
use crate::stage::Flow;
use crate::window::{
    EventTimeSessionWindows, EventTimeTrigger, SlidingEventTimeWindows, TumblingEventTimeWindows,
};

const SECOND: Duration = Duration::from_secs(1);

fn builds() -> Vec<(&'static str, fn(&DataStream<Rec>) -> DataStream<Vec<u32>>)> {
    vec![
        ("tumbling", |stream| {
            stream.key_by(|record| record.1).window(TumblingEventTimeWindows::of(SECOND)).aggregate(Numbers)
        }),
        ("tumbling, kept for late records", |stream| {
            let windows = stream.key_by(|record| record.1).window(TumblingEventTimeWindows::of(SECOND));
            windows.allowed_lateness(SECOND).aggregate(Numbers)
        }),
        ("sliding", |stream| {
            let windows = SlidingEventTimeWindows::of(SECOND, SECOND / 10);
            stream.key_by(|record| record.1).window(windows).aggregate(Numbers)
        }),
        ("general", |stream| {
            let windows = stream.key_by(|record| record.1).window(TumblingEventTimeWindows::of(SECOND));
            windows.trigger(EventTimeTrigger).aggregate(Numbers)
        }),
        ("general, a timer a key", |stream| {
            let windows = stream.key_by(|record| record.1).window(TumblingEventTimeWindows::of(SECOND));
            windows.trigger(TimerPerKey).aggregate(Numbers)
        }),
        ("session", |stream| {
            stream
                .key_by(|record| record.1)
                .window(EventTimeSessionWindows::with_gap(SECOND))
                .aggregate(Numbers)
        }),
    ]
}

#[test]
fn a_firing_stops_when_the_outputs_are_congested_and_goes_on_where_it_stopped() {
    for (name, build) in builds() {
        let conditions = Conditions { credit: 2, batch_size: 10, ..Conditions::default() };
        let mut driver = Driver::<Rec, Vec<u32>>::under(conditions, build);
        driver.push((0..1000).map(|key| ((0, key), i64::from(key) % 100)));
        let mut results = Vec::new();
        let (mut sent_before, mut calls) = (0, 0);
        while driver.task().signal(Signal::Watermark(1099)).unwrap() == Flow::Again {
            let (sent, watermarks) = driver.sent();
            // The batch being filled when the last credit went, and one more at most.
            assert!(sent - sent_before <= 4, "{name}: {} batches at once", sent - sent_before);
            assert!(watermarks.is_empty(), "{name}: the watermark overtook results");
            sent_before = sent;
            calls += 1;
            results.extend(driver.take());
        }
        results.extend(driver.take());
        assert_eq!(driver.sent().1, [1099], "{name}");
        assert!(calls >= 20, "{name}: {calls} calls");
        if name == "sliding" {
            // Windows that end at 100 to 1000 ms hold all keys; that which ends at 1100 ms holds none.
            assert_eq!(results.len(), 10_000);
            results.retain(|(_, timestamp)| *timestamp == 999);
        }
        let expected: Vec<Vec<u32>> = (0..1000).map(|key| vec![key]).collect();
        assert_eq!(sorted(results.into_iter().map(|(numbers, _)| numbers)), expected, "{name}");
    }
}

#[test]
fn nothing_is_emitted_while_the_outputs_are_blocked() {
    for (name, build) in builds() {
        let mut driver = Driver::<Rec, Vec<u32>>::new(build);
        driver.push((0..10).map(|key| ((0, key), 5)));
        driver.congestion().block();
        for _ in 0..3 {
            assert_eq!(driver.task().signal(Signal::Watermark(5000)).unwrap(), Flow::Again, "{name}");
        }
        assert_eq!(driver.take(), [], "{name}");
        driver.congestion().unblock();
        assert_eq!(driver.task().signal(Signal::Watermark(5000)).unwrap(), Flow::Done, "{name}");
        let keys = driver.take().into_iter().map(|(numbers, _)| numbers[0]);
        let mut keys = sorted(keys);
        keys.dedup();
        assert_eq!(keys, (0..10).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_large_firing_lets_others_have_the_thread() {
    for (name, build) in builds() {
        let mut driver = Driver::<Rec, Vec<u32>>::new(build);
        for first in (0..200_000).step_by(1000) {
            driver.push((first..first + 1000).map(|key| ((0, key), 950)));
        }
        let mut turns = 0;
        while driver.task().signal(Signal::Watermark(i64::MAX)).unwrap() == Flow::Again {
            assert_eq!(driver.deadline(), i64::MIN, "{name}");
            turns += 1;
        }
        assert!(turns >= 3, "{name}: {turns} turns");
        assert_eq!(driver.deadline(), i64::MAX, "{name}");
        let windows = if name == "sliding" { 10 } else { 1 };
        assert_eq!(driver.take().len(), 200_000 * windows, "{name}");
    }
}

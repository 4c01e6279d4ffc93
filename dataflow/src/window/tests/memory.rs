//! What is over takes no memory: keys are counted as long as any operator holds one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::driver::Driver;
use super::fixed_model::{Numbers, Rec, TimerPerKey};
use crate::api::{DataStream, KeyedStream};
use crate::key::ByValue;
use crate::window::{
    ContinuousEventTimeTrigger, CountTrigger, EventTimeSessionWindows, EventTimeTrigger, GlobalWindows,
    ProcessingTimeoutTrigger, PurgingTrigger, SlidingEventTimeWindows, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
};

/// A key that shares a counter with all of its copies.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Counted {
    id: u32,
    /// Never looked at, only held.
    #[serde(skip)]
    _copies: Arc<()>,
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Counted {}

const TEN: Duration = Duration::from_millis(10);

fn keyed(
    stream: &DataStream<Rec>,
    copies: &Arc<()>,
) -> KeyedStream<Rec, ByValue<impl Fn(&Rec) -> Counted + Clone + Send + 'static, Counted>> {
    let copies = copies.clone();
    stream.key_by(move |record| Counted { id: record.1, _copies: copies.clone() })
}

fn builds() -> Vec<(&'static str, fn(&DataStream<Rec>, &Arc<()>) -> DataStream<Vec<u32>>)> {
    vec![
        ("tumbling", |stream, copies| {
            keyed(stream, copies).window(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)
        }),
        ("sliding", |stream, copies| {
            keyed(stream, copies).window(SlidingEventTimeWindows::of(TEN, TEN / 5)).aggregate(Numbers)
        }),
        ("sliding with lateness", |stream, copies| {
            let windows = keyed(stream, copies).window(SlidingEventTimeWindows::of(TEN, TEN / 5));
            windows.allowed_lateness(TEN * 2).aggregate(Numbers)
        }),
        ("sliding records", |stream, copies| {
            let windows = keyed(stream, copies).window(SlidingEventTimeWindows::of(TEN, TEN / 5));
            windows.apply(|_, _, records, out| out.collect(vec![records.len() as u32]))
        }),
        ("processing time", |stream, copies| {
            keyed(stream, copies).window(TumblingProcessingTimeWindows::of(TEN)).aggregate(Numbers)
        }),
        ("general", |stream, copies| {
            let windows = keyed(stream, copies).window(TumblingEventTimeWindows::of(TEN));
            windows.trigger(EventTimeTrigger).allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("a timer a key", |stream, copies| {
            let windows = keyed(stream, copies).window(TumblingEventTimeWindows::of(TEN));
            windows.trigger(TimerPerKey).aggregate(Numbers)
        }),
        ("continuous", |stream, copies| {
            let windows = keyed(stream, copies).window(TumblingEventTimeWindows::of(TEN));
            windows.trigger(ContinuousEventTimeTrigger::of(TEN / 3)).aggregate(Numbers)
        }),
        ("sessions", |stream, copies| {
            let windows = keyed(stream, copies).window(EventTimeSessionWindows::with_gap(TEN));
            windows.allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("sessions with a timer each", |stream, copies| {
            let windows = keyed(stream, copies).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(TimerPerKey).aggregate(Numbers)
        }),
        ("count", |stream, copies| keyed(stream, copies).count_window(2).aggregate(Numbers)),
        ("count with timeout", |stream, copies| {
            let timeout = ProcessingTimeoutTrigger::of(CountTrigger::of(100), TEN);
            let windows = keyed(stream, copies).window(GlobalWindows::create());
            windows.trigger(PurgingTrigger::of(timeout)).aggregate(Numbers)
        }),
    ]
}

#[test]
fn windows_that_are_over_hold_no_keys() {
    for (name, build) in builds() {
        let copies = Arc::new(());
        let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| build(stream, &copies));
        let before = Arc::strong_count(&copies);
        let mut results = 0;
        for round in 0..20i64 {
            let now = round * 100;
            driver.time(now);
            // Two records a key, so that every kind of window fires.
            for _ in 0..2 {
                driver.push((0..50).map(|key| ((0, key + round as u32), now + i64::from(key) % 7)));
            }
            assert!(Arc::strong_count(&copies) >= before + 50 || name == "count", "{name}");
            results += driver.watermark(now + 12).len();
            results += driver.time(now + 50).len() + driver.watermark(now + 70).len();
            assert_eq!(Arc::strong_count(&copies), before, "{name}, round {round}");
        }
        assert!(results >= 1000, "{name}: {results}");
    }
}

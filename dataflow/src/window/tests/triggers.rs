//! Triggers and evictors, one by one.

use std::time::Duration;

use super::driver::{Driver, sorted};
use super::fixed_model::{Numbers, Rec};
use crate::api::DataStream;
use crate::window::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountEvictor, CountTrigger, DeltaEvictor,
    DeltaTrigger, EventTimeSessionWindows, EventTimeTrigger, GlobalWindows, NeverTrigger,
    ProcessingTimeoutTrigger, PurgingTrigger, TimeEvictor, Trigger, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows, WindowAssigner,
};

const TEN: Duration = Duration::from_millis(10);
const HUNDRED: Duration = Duration::from_millis(100);

fn driver<A, Tr>(assigner: A, trigger: Tr) -> Driver<Rec, Vec<u32>>
where
    A: WindowAssigner<Rec>,
    Tr: Trigger<Rec, A::Window>,
{
    Driver::<Rec, _>::new(|stream| {
        stream.key_by(|record| record.0).window(assigner).trigger(trigger).aggregate(Numbers)
    })
}

/// Results without their timestamps.
fn numbers(results: Vec<(Vec<u32>, i64)>) -> Vec<Vec<u32>> {
    results.into_iter().map(|(numbers, _)| numbers).collect()
}

/// Records of key 1 with these numbers, all at one time.
fn records(numbers: std::ops::RangeInclusive<u32>, at: i64) -> impl Iterator<Item = (Rec, i64)> {
    numbers.map(move |number| ((1, number), at))
}

#[test]
fn count_fires_for_every_nth_record_of_a_key_and_window() {
    let mut driver = driver(TumblingEventTimeWindows::of(TEN), CountTrigger::of(2));
    driver.push([((1, 1), 0), ((2, 2), 0), ((1, 3), 10), ((1, 4), 5), ((1, 5), 6), ((1, 6), 7)]);
    assert_eq!(driver.take(), [(vec![1, 4], 9), (vec![1, 4, 5, 6], 9)]);
    assert_eq!(driver.end(), []);
}

#[test]
fn count_goes_on_counting_where_sessions_merge() {
    let mut driver = driver(EventTimeSessionWindows::with_gap(TEN), CountTrigger::of(4));
    driver.push([((1, 1), 0), ((1, 2), 20), ((1, 3), 21)]);
    assert_eq!(driver.take(), []);
    driver.push([((1, 4), 10)]);
    assert_eq!(driver.take(), [(vec![1, 2, 3, 4], 30)]);
}

#[test]
fn count_windows_give_every_record_once() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        stream.key_by(|record| record.0).count_window(3).aggregate(Numbers)
    });
    driver.push(records(1..=7, 0).chain([((2, 8), 0)]));
    assert_eq!(numbers(driver.take()), [vec![1, 2, 3], vec![4, 5, 6]]);
    assert_eq!(driver.end(), []);
}

#[test]
fn sliding_count_windows_give_the_last_records() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        stream.key_by(|record| record.0).count_window_sliding(4, 2).aggregate(Numbers)
    });
    driver.push(records(1..=7, 0).chain([((2, 8), 0), ((2, 9), 0)]));
    assert_eq!(numbers(driver.take()), [vec![1, 2], vec![1, 2, 3, 4], vec![3, 4, 5, 6], vec![8, 9]]);
}

#[test]
fn purging_drops_what_has_fired() {
    let mut driver = driver(GlobalWindows::create(), PurgingTrigger::of(CountTrigger::of(2)));
    driver.push(records(1..=5, 0));
    assert_eq!(numbers(driver.take()), [vec![1, 2], vec![3, 4]]);
}

#[test]
fn continuous_event_time_fires_at_every_multiple_of_the_interval_and_at_the_end() {
    let mut driver = driver(TumblingEventTimeWindows::of(HUNDRED), ContinuousEventTimeTrigger::of(TEN * 3));
    driver.push(records(1..=1, 12));
    assert_eq!(driver.watermark(29), []);
    assert_eq!(numbers(driver.watermark(30)), [vec![1]]);
    driver.push(records(2..=2, 31));
    assert_eq!(numbers(driver.watermark(60)), [vec![1, 2]]);
    driver.push(records(3..=3, 80));
    // At 90 and at the end.
    assert_eq!(numbers(driver.watermark(99)), [vec![1, 2, 3], vec![1, 2, 3]]);
    assert_eq!(driver.end(), []);
}

#[test]
fn continuous_event_time_ends_with_the_input() {
    let mut driver = driver(GlobalWindows::create(), ContinuousEventTimeTrigger::of(TEN));
    driver.push(records(1..=1, 12));
    assert_eq!(numbers(driver.end()), [vec![1], vec![1]]);
    let year = Duration::from_secs(365 * 24 * 3600);
    let mut driver = self::driver(TumblingEventTimeWindows::of(year), ContinuousEventTimeTrigger::of(TEN));
    driver.push(records(1..=1, 12));
    assert_eq!(numbers(driver.end()), [vec![1], vec![1]]);
}

#[test]
fn continuous_event_time_follows_merging_sessions() {
    let mut driver = driver(EventTimeSessionWindows::with_gap(HUNDRED), ContinuousEventTimeTrigger::of(TEN));
    driver.push([((1, 1), 3), ((1, 2), 90)]);
    assert_eq!(numbers(driver.watermark(10)), [vec![1, 2]]);
    assert_eq!(driver.watermark(19), []);
    assert_eq!(numbers(driver.watermark(25)), [vec![1, 2]]);
}

#[test]
fn continuous_processing_time_fires_as_long_as_the_window_lives() {
    let mut driver =
        driver(TumblingProcessingTimeWindows::of(HUNDRED), ContinuousProcessingTimeTrigger::of(TEN * 4));
    driver.time(1000);
    driver.push(records(1..=1, 0));
    assert_eq!(driver.deadline(), 1041);
    assert_eq!(numbers(driver.time(1041)), [vec![1]]);
    driver.push(records(2..=2, 0));
    assert_eq!(numbers(driver.time(1090)), [vec![1, 2]]);
    assert_eq!(driver.time(1100), [(vec![1, 2], 1099)]);
    assert_eq!(driver.time(5000), []);
    let mut driver = self::driver(GlobalWindows::create(), ContinuousProcessingTimeTrigger::of(TEN));
    driver.push(records(1..=1, 0));
    assert_eq!(numbers(driver.time(25)), [vec![1], vec![1]]);
    assert_eq!(numbers(driver.end()), [vec![1]]);
}

#[test]
fn delta_fires_when_a_record_differs_enough_from_the_last_that_fired() {
    let delta = |last: &Rec, next: &Rec| f64::from(next.1) - f64::from(last.1);
    let mut driver = driver(GlobalWindows::create(), DeltaTrigger::of(5.0, delta));
    driver.push([1, 3, 6, 7, 8, 12, 13].map(|number| ((1, number), 0)));
    assert_eq!(numbers(driver.take()), [vec![1, 3, 6, 7], vec![1, 3, 6, 7, 8, 12, 13]]);
}

#[test]
fn never_never_fires() {
    let mut driver = driver(TumblingEventTimeWindows::of(TEN), NeverTrigger);
    driver.push(records(1..=3, 0));
    assert_eq!(driver.end(), []);
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        stream.key_by(|record| record.0).window(GlobalWindows::create()).aggregate(Numbers)
    });
    driver.push(records(1..=3, 0));
    assert_eq!(driver.end(), []);
}

#[test]
fn a_global_window_can_fire_at_the_end_of_the_stream() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = GlobalWindows::create_with_end_of_stream_trigger();
        stream.key_by(|record| record.0).window(windows).aggregate(Numbers)
    });
    driver.push(records(1..=3, 7).chain([((2, 4), 5)]));
    assert_eq!(driver.watermark(1 << 60), []);
    assert_eq!(sorted(driver.end()), [(vec![1, 2, 3], i64::MAX), (vec![4], i64::MAX)]);
}

#[test]
fn a_timeout_fires_what_the_inner_trigger_is_still_waiting_for() {
    let timeout = ProcessingTimeoutTrigger::of(CountTrigger::of(3), TEN);
    let mut driver = driver(GlobalWindows::create(), PurgingTrigger::of(timeout));
    driver.time(100);
    driver.push(records(1..=4, 0));
    assert_eq!(numbers(driver.take()), [vec![1, 2, 3]]);
    driver.time(105);
    driver.push(records(5..=5, 0));
    assert_eq!(driver.time(110), []);
    assert_eq!(numbers(driver.time(111)), [vec![4, 5]]);
    // Timeouts count from the first record behind the last firing.
    driver.push(records(6..=6, 0));
    assert_eq!(driver.time(121), []);
    assert_eq!(numbers(driver.end()), [vec![6]]);
}

#[test]
fn a_timeout_can_begin_anew_with_every_record_and_leave_the_inner_state() {
    let timeout = ProcessingTimeoutTrigger::of(CountTrigger::of(3), TEN);
    let timeout = timeout.reset_timer_on_new_record().keep_state_on_timeout();
    let mut driver = driver(GlobalWindows::create(), timeout);
    driver.push(records(1..=1, 0));
    driver.time(8);
    driver.push(records(2..=2, 0));
    assert_eq!(driver.time(18), []);
    assert_eq!(numbers(driver.time(19)), [vec![1, 2]]);
    // The third record counts for the inner trigger, which has not forgotten the first two.
    driver.push(records(3..=3, 0));
    assert_eq!(numbers(driver.take()), [vec![1, 2, 3]]);
    assert_eq!(driver.deadline(), i64::MAX);
}

#[test]
fn a_timeout_passes_event_time_on() {
    let timeout = ProcessingTimeoutTrigger::of(EventTimeTrigger, HUNDRED);
    let mut driver = driver(TumblingEventTimeWindows::of(TEN), timeout);
    driver.push(records(1..=2, 3));
    assert_eq!(numbers(driver.watermark(9)), [vec![1, 2]]);
    assert_eq!(driver.time(5000), []);
}

fn evicting(build: impl FnOnce(&DataStream<Rec>) -> DataStream<Vec<u32>>) -> Driver<Rec, Vec<u32>> {
    Driver::new(build)
}

#[test]
fn evictors_choose_before_or_after_the_function() {
    let mut before = evicting(|stream| {
        let windows = stream.key_by(|record| record.0).window(GlobalWindows::create());
        windows.trigger(CountTrigger::of(2)).evictor(CountEvictor::of(3)).aggregate(Numbers)
    });
    before.push(records(1..=6, 0));
    assert_eq!(numbers(before.take()), [vec![1, 2], vec![2, 3, 4], vec![4, 5, 6]]);
    let mut after = evicting(|stream| {
        let windows = stream.key_by(|record| record.0).window(GlobalWindows::create());
        windows.trigger(CountTrigger::of(2)).evictor(CountEvictor::of(1).after()).aggregate(Numbers)
    });
    after.push(records(1..=6, 0));
    assert_eq!(numbers(after.take()), [vec![1, 2], vec![2, 3, 4], vec![4, 5, 6]]);
}

#[test]
fn evictors_see_timestamps_and_sessions_keep_them_through_merging() {
    let mut driver = evicting(|stream| {
        let windows = stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN));
        windows.evictor(TimeEvictor::of(Duration::from_millis(12))).aggregate(Numbers)
    });
    driver.push([((1, 1), 0), ((1, 2), 18), ((1, 3), 9)]);
    assert_eq!(driver.end(), [(vec![2, 3], 27)]);
    let mut driver = evicting(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        let delta = |record: &Rec, last: &Rec| f64::from(record.1.abs_diff(last.1));
        windows.evictor(DeltaEvictor::of(3.0, delta)).apply(|_, _, records, out| {
            out.collect(records.into_iter().map(|record| record.1).collect());
        })
    });
    driver.push([5, 9, 1, 7, 8].map(|number| ((1, number), 3)));
    assert_eq!(driver.end(), [(vec![9, 7, 8], 9)]);
}

#[test]
fn a_function_is_called_also_when_everything_was_evicted() {
    let mut driver = evicting(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        windows.evictor(CountEvictor::of(0)).apply(|key, _, records, out| {
            out.collect(vec![u32::from(*key), records.len() as u32]);
        })
    });
    driver.push(records(1..=3, 5));
    assert_eq!(driver.end(), [(vec![1, 0], 9)]);
}

#[test]
fn a_trigger_that_cannot_merge_is_refused_for_sessions() {
    let message = Driver::<Rec, Vec<u32>>::refused(|stream| {
        let windows = stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN));
        windows.trigger(DeltaTrigger::of(1.0, |_: &Rec, _: &Rec| 0.0)).aggregate(Numbers)
    });
    assert!(message.contains("cannot be used with windows that merge"), "{message}");
}

#[test]
fn windows_that_make_no_sense_are_refused_when_the_job_is_compiled() {
    let message = Driver::<Rec, Vec<u32>>::refused(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(Duration::ZERO));
        windows.aggregate(Numbers)
    });
    assert!(message.contains("the window size is 0 ms"), "{message}");
}

//! Late records: dropped and counted, sent aside, or counted in.

use std::time::Duration;

use super::driver::{Driver, late};
use super::fixed_model::{Numbers, Rec};
use crate::api::DataStream;
use crate::element::Signal;
use crate::window::{
    EventTimeSessionWindows, EventTimeTrigger, PurgingTrigger, SlidingEventTimeWindows, TimeWindow,
    TumblingEventTimeWindows,
};

const TEN: Duration = Duration::from_millis(10);

#[test]
fn without_lateness_a_late_record_is_dropped_and_counted() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)
    });
    driver.push([((1, 1), 3)]);
    assert_eq!(driver.watermark(9), [(vec![1], 9)]);
    driver.push([((1, 2), 9), ((1, 3), 10)]);
    assert_eq!((driver.late_dropped(), driver.take_late()), (1, vec![]));
    assert_eq!(driver.end(), [(vec![3], 19)]);
}

#[test]
fn a_late_record_goes_to_the_side_output_with_its_timestamp() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN));
        windows.side_output_late(&late()).aggregate(Numbers)
    });
    driver.watermark(100);
    driver.push([((1, 1), 91), ((1, 2), 90)]);
    assert_eq!((driver.late_dropped(), driver.take_late()), (0, vec![((1, 1), 91), ((1, 2), 90)]));
    driver.push([((1, 3), 92)]);
    assert_eq!(driver.watermark(101), [(vec![3], 101)]);
}

#[test]
fn each_record_within_the_lateness_fires_its_windows_again() {
    let mut driver = Driver::<Rec, (TimeWindow, Vec<u32>)>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(SlidingEventTimeWindows::of(TEN, TEN / 2));
        windows.allowed_lateness(TEN).aggregate_with(Numbers, |_, window, numbers| (*window, numbers))
    });
    let window = TimeWindow::new;
    driver.push([((1, 1), 7)]);
    let fired = [((window(0, 10), vec![1]), 9), ((window(5, 15), vec![1]), 14)];
    assert_eq!(driver.watermark(14), fired);
    driver.push([((1, 2), 8)]);
    let again = [((window(0, 10), vec![1, 2]), 9), ((window(5, 15), vec![1, 2]), 14)];
    assert_eq!(driver.take(), again);
    assert_eq!(driver.watermark(19), []);
    driver.push([((1, 3), 8)]);
    assert_eq!(driver.take(), [((window(5, 15), vec![1, 2, 3]), 14)]);
    driver.push([((1, 4), 4)]);
    assert_eq!((driver.take(), driver.late_dropped()), (vec![], 1));
}

#[test]
fn a_purging_trigger_fires_late_records_alone() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        windows.trigger(PurgingTrigger::of(EventTimeTrigger)).allowed_lateness(TEN).aggregate(Numbers)
    });
    driver.push([((1, 1), 3), ((1, 2), 4)]);
    assert_eq!(driver.watermark(9), [(vec![1, 2], 9)]);
    driver.push([((1, 3), 5)]);
    assert_eq!(driver.take(), [(vec![3], 9)]);
    driver.push([((1, 4), 5)]);
    assert_eq!(driver.take(), [(vec![4], 9)]);
}

#[test]
fn lateness_without_end_keeps_windows_for_ever() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        windows.allowed_lateness(Duration::MAX).aggregate(Numbers)
    });
    driver.push([((1, 1), 3)]);
    assert_eq!(driver.watermark(1 << 60), [(vec![1], 9)]);
    driver.push([((1, 2), 3)]);
    assert_eq!(driver.end(), [(vec![1, 2], 9)]);
}

#[test]
fn a_record_without_timestamp_fails_the_task_with_advice() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)
    });
    let error = driver.try_push([((1, 1), i64::MIN)]).unwrap_err();
    assert!(error.message().contains("call assign_timestamps_and_watermarks before"), "{error}");
    let error = driver.try_push([((1, 1), i64::MAX)]).unwrap_err();
    assert!(error.message().contains("milliseconds since the epoch"), "{error}");
}

#[test]
fn idleness_is_passed_on_and_fires_nothing() {
    let builds: [fn(&DataStream<Rec>) -> DataStream<Vec<u32>>; 3] = [
        |stream| {
            stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)
        },
        |stream| {
            let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
            windows.trigger(EventTimeTrigger).aggregate(Numbers)
        },
        |stream| {
            stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN)).aggregate(Numbers)
        },
    ];
    for build in builds {
        let mut driver = Driver::<Rec, Vec<u32>>::new(build);
        driver.push([((1, 1), 0)]);
        driver.watermark(3);
        driver.signal(Signal::Idle(true));
        assert_eq!((driver.take(), driver.idle()), (vec![], vec![true]));
        driver.signal(Signal::Idle(false));
        driver.push([((1, 2), 5)]);
        assert_eq!((numbers(driver.watermark(20)), driver.idle()), (vec![vec![1, 2]], vec![true, false]));
    }
}

fn numbers(results: Vec<(Vec<u32>, i64)>) -> Vec<Vec<u32>> {
    results.into_iter().map(|(numbers, _)| numbers).collect()
}

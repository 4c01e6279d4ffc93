//! Windows that follow the clock on the wall.

use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Driver, sorted};
use super::fixed_model::{Fired, Numbers, Rec};
use crate::batch::NO_TIMESTAMP;
use crate::stage::Flow;
use crate::window::{
    EventTimeTrigger, ProcessingTimeSessionWindows, ProcessingTimeTrigger, SlidingProcessingTimeWindows,
    TimeWindow, TumblingEventTimeWindows, TumblingProcessingTimeWindows,
};

const TEN: Duration = Duration::from_millis(10);

#[test]
fn a_tumbling_window_fires_when_its_last_millisecond_is_over() {
    for general in [false, true] {
        let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
            let windows = stream.key_by(|record| record.0).window(TumblingProcessingTimeWindows::of(TEN));
            if general {
                windows.trigger(ProcessingTimeTrigger).aggregate(Numbers)
            } else {
                windows.aggregate(Numbers)
            }
        });
        driver.time(1003);
        assert_eq!(driver.deadline(), i64::MAX);
        driver.push([((1, 1), NO_TIMESTAMP), ((1, 2), 5)]);
        assert_eq!(driver.deadline(), 1010);
        assert_eq!(driver.time(1009), []);
        driver.push([((1, 3), 5)]);
        assert_eq!(driver.watermark(1 << 50), []);
        assert_eq!(driver.time(1010), [(vec![1, 2, 3], 1009)]);
        driver.push([((1, 4), 5)]);
        // Nothing is late, even for a clock that is set back.
        driver.time(1001);
        driver.push([((1, 5), 5)]);
        assert_eq!(driver.deadline(), 1020);
        assert_eq!(driver.time(2000), [(vec![4, 5], 1019)]);
        driver.push([((1, 6), 5)]);
        assert_eq!(driver.end(), [(vec![6], 2009)]);
    }
}

#[test]
fn a_session_ends_when_its_gap_is_over() {
    let mut driver = Driver::<Rec, (i64, Vec<u32>)>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(ProcessingTimeSessionWindows::with_gap(TEN));
        windows.aggregate_with(Numbers, |_, window, numbers| (window.start_ms, numbers))
    });
    driver.time(100);
    driver.push([((1, 1), 0)]);
    driver.time(105);
    driver.push([((1, 2), 0), ((2, 3), 0)]);
    assert_eq!(driver.time(114), []);
    assert_eq!(sorted(driver.time(115)), [((100, vec![1, 2]), 114), ((105, vec![3]), 114)]);
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let gap = |record: &Rec| Duration::from_millis(u64::from(record.1));
        let windows = ProcessingTimeSessionWindows::with_dynamic_gap(gap);
        stream.key_by(|record| record.0).window(windows).aggregate(Numbers)
    });
    driver.push([((1, 20), 0), ((1, 3), 0)]);
    assert_eq!(driver.time(19), []);
    assert_eq!(driver.time(20), [(vec![3, 20], 19)]);
}

#[test]
fn windows_of_one_clock_can_have_a_trigger_of_the_other() {
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        windows.trigger(ProcessingTimeTrigger).aggregate(Numbers)
    });
    driver.push([((1, 1), 3), ((1, 2), 13)]);
    assert_eq!(driver.time(10), [(vec![1], 9)]);
    assert_eq!(driver.watermark(19), []);
    assert_eq!(driver.time(100), []);
    let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingProcessingTimeWindows::of(TEN));
        windows.trigger(EventTimeTrigger).aggregate(Numbers)
    });
    driver.push([((1, 1), 3)]);
    assert_eq!(driver.watermark(9), [(vec![1], 9)]);
}

#[test]
fn a_task_that_waits_for_room_has_no_deadline_that_has_passed() {
    for general in [false, true] {
        let mut driver = Driver::<Rec, Vec<u32>>::new(|stream| {
            let windows = stream.key_by(|record| record.0).window(TumblingProcessingTimeWindows::of(TEN));
            if general {
                windows.trigger(ProcessingTimeTrigger).aggregate(Numbers)
            } else {
                windows.aggregate(Numbers)
            }
        });
        driver.push([((1, 1), 0), ((2, 2), 0)]);
        driver.congestion().block();
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(driver.task().poll(10, cx).unwrap(), Flow::Again);
        assert_eq!(driver.deadline(), i64::MAX);
        driver.congestion().unblock();
        assert_eq!(driver.time(10).len(), 2);
        driver.push([((1, 3), 0)]);
        assert_eq!(driver.deadline(), 20);
    }
}

proptest! {
    #[test]
    fn sliding_windows_hold_what_came_in_their_time(
        size in 1i64..30,
        slide in 1i64..30,
        arrivals in prop::collection::vec((0u8..3, 0i64..9), 0..40),
        general: bool,
    ) {
        let ms = |n: i64| Duration::from_millis(n as u64);
        let mut driver = Driver::<Rec, Fired>::new(|stream| {
            let assigner = SlidingProcessingTimeWindows::of(ms(size), ms(slide));
            let windows = stream.key_by(|record| record.0).window(assigner);
            let finish = |key: &u8, window: &TimeWindow, numbers| (*key, *window, numbers);
            if general {
                windows.trigger(ProcessingTimeTrigger).aggregate_with(Numbers, finish)
            } else {
                windows.aggregate_with(Numbers, finish)
            }
        });
        let mut now = 1000;
        let mut arrived: Vec<(u8, u32, i64)> = Vec::new();
        let mut found = Vec::new();
        for ((key, wait), number) in arrivals.into_iter().zip(0..) {
            now += wait;
            for (fired, timestamp) in driver.time(now) {
                prop_assert!(timestamp < now && timestamp == fired.1.end_ms - 1);
                found.push(fired);
            }
            driver.push([((key, number), 0)]);
            arrived.push((key, number, now));
        }
        found.extend(driver.end().into_iter().map(|(fired, _)| fired));
        let mut expected: Vec<Fired> = Vec::new();
        for start in (900..2000i64).filter(|start| start % slide == 0) {
            for key in 0..3 {
                let held = arrived.iter().filter(|(other, _, at)| *other == key && start <= *at && *at < start + size);
                let numbers: Vec<u32> = held.map(|(_, number, _)| *number).collect();
                if !numbers.is_empty() {
                    expected.push((key, TimeWindow::new(start, start + size), numbers));
                }
            }
        }
        prop_assert_eq!(sorted(found), sorted(expected));
    }
}

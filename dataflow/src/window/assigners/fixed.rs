//! Tumbling and sliding windows: of one size, at fixed places in time.

use std::time::Duration;

use flott_schema::Result;

use crate::state::TimeDomain;
use crate::time::millis;
use crate::window::slices::{SliceLayout, check_layout, check_timestamp, window_start};
use crate::window::{EventTimeTrigger, ProcessingTimeTrigger, Slices, TimeWindow, WindowAssigner};

/// Defines a tumbling assigner of one clock.
macro_rules! tumbling {
    ($(#[$doc:meta])* $name:ident, $domain:expr, $trigger:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            size_ms: i64,
            offset_ms: i64,
        }

        impl $name {
            /// Windows of this size, aligned to the epoch.
            pub fn of(size: Duration) -> Self {
                $name { size_ms: millis(size), offset_ms: 0 }
            }

            /// Windows start this much later. A day by the clock of UTC-5 has an offset of 5 hours.
            pub fn offset(self, offset: Duration) -> Self {
                self.offset_ms(millis(offset))
            }

            /// Like [`Self::offset`], in milliseconds, and may be negative.
            pub fn offset_ms(self, offset_ms: i64) -> Self {
                $name { offset_ms, ..self }
            }
        }

        impl<T> WindowAssigner<T> for $name {
            type Window = TimeWindow;
            type Trigger = $trigger;
            const SLICED: bool = true;

            fn domain(&self) -> TimeDomain {
                $domain
            }

            fn default_trigger(&self) -> $trigger {
                $trigger
            }

            #[inline]
            fn assign(&mut self, _: &T, timestamp_ms: i64, windows: &mut Vec<TimeWindow>) -> Result<()> {
                check_timestamp(timestamp_ms)?;
                let start_ms = window_start(timestamp_ms, self.offset_ms, self.size_ms);
                windows.push(TimeWindow::new(start_ms, start_ms + self.size_ms));
                Ok(())
            }

            fn slices(&self) -> Option<Slices<TimeWindow>> {
                let layout = SliceLayout::new(self.size_ms, self.size_ms, self.offset_ms);
                Some(Slices { layout, window: TimeWindow::new })
            }

            fn check(&self) -> Result<()> {
                check_layout(stringify!($name), self.size_ms, self.size_ms, self.offset_ms)
            }

            fn describe(&self) -> String {
                format!(concat!(stringify!($name), "({})"), self.size_ms)
            }
        }
    };
}

tumbling! {
    /// Event time cut into windows of one size, one behind the other.
    TumblingEventTimeWindows, TimeDomain::Event, EventTimeTrigger
}
tumbling! {
    /// Processing time cut into windows of one size, one behind the other.
    TumblingProcessingTimeWindows, TimeDomain::Processing, ProcessingTimeTrigger
}

/// Defines a sliding assigner of one clock.
macro_rules! sliding {
    ($(#[$doc:meta])* $name:ident, $domain:expr, $trigger:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            size_ms: i64,
            slide_ms: i64,
            offset_ms: i64,
        }

        impl $name {
            /// Windows of this size; one starts every `slide`, aligned to the epoch. If the slide is longer than the
            /// size, records between two windows belong to none.
            pub fn of(size: Duration, slide: Duration) -> Self {
                $name { size_ms: millis(size), slide_ms: millis(slide), offset_ms: 0 }
            }

            /// Windows start this much later.
            pub fn offset(self, offset: Duration) -> Self {
                self.offset_ms(millis(offset))
            }

            /// Like [`Self::offset`], in milliseconds, and may be negative.
            pub fn offset_ms(self, offset_ms: i64) -> Self {
                $name { offset_ms, ..self }
            }
        }

        impl<T> WindowAssigner<T> for $name {
            type Window = TimeWindow;
            type Trigger = $trigger;
            const SLICED: bool = true;

            fn domain(&self) -> TimeDomain {
                $domain
            }

            fn default_trigger(&self) -> $trigger {
                $trigger
            }

            fn assign(&mut self, _: &T, timestamp_ms: i64, windows: &mut Vec<TimeWindow>) -> Result<()> {
                check_timestamp(timestamp_ms)?;
                let mut start_ms = window_start(timestamp_ms, self.offset_ms, self.slide_ms);
                while start_ms > timestamp_ms - self.size_ms {
                    windows.push(TimeWindow::new(start_ms, start_ms + self.size_ms));
                    start_ms -= self.slide_ms;
                }
                Ok(())
            }

            fn slices(&self) -> Option<Slices<TimeWindow>> {
                let layout = SliceLayout::new(self.size_ms, self.slide_ms, self.offset_ms);
                Some(Slices { layout, window: TimeWindow::new })
            }

            fn check(&self) -> Result<()> {
                check_layout(stringify!($name), self.size_ms, self.slide_ms, self.offset_ms)
            }

            fn describe(&self) -> String {
                format!(concat!(stringify!($name), "({}, {})"), self.size_ms, self.slide_ms)
            }
        }
    };
}

sliding! {
    /// Windows of one size over event time that overlap.
    SlidingEventTimeWindows, TimeDomain::Event, EventTimeTrigger
}
sliding! {
    /// Windows of one size over processing time that overlap.
    SlidingProcessingTimeWindows, TimeDomain::Processing, ProcessingTimeTrigger
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn windows<A: WindowAssigner<(), Window = TimeWindow>>(
        mut assigner: A,
        timestamp: i64,
    ) -> Vec<(i64, i64)> {
        let mut windows = Vec::new();
        assigner.assign(&(), timestamp, &mut windows).unwrap();
        windows.into_iter().map(|window| (window.start_ms, window.end_ms)).collect()
    }

    #[test]
    fn tumbling_windows_are_aligned_to_the_epoch_plus_the_offset() {
        let minute = TumblingEventTimeWindows::of(seconds(60));
        assert_eq!(windows(minute, 0), [(0, 60_000)]);
        assert_eq!(windows(minute, 59_999), [(0, 60_000)]);
        assert_eq!(windows(minute, -1), [(-60_000, 0)]);
        assert_eq!(windows(minute.offset(seconds(15)), 14_999), [(-45_000, 15_000)]);
        assert_eq!(windows(minute.offset_ms(-15_000), 45_000), [(45_000, 105_000)]);
    }

    #[test]
    fn sliding_windows_overlap_or_leave_gaps() {
        let sliding = SlidingProcessingTimeWindows::of(seconds(10), seconds(4));
        assert_eq!(windows(sliding, 9_000), [(8_000, 18_000), (4_000, 14_000), (0, 10_000)]);
        let gaps = SlidingEventTimeWindows::of(seconds(2), seconds(5));
        assert_eq!(windows(gaps, 6_999), [(5_000, 7_000)]);
        assert_eq!(windows(gaps, 7_000), []);
    }

    #[test]
    fn sizes_slides_and_offsets_that_make_no_sense_are_refused() {
        fn message<A: WindowAssigner<()>>(assigner: A) -> String {
            assigner.check().unwrap_err().message().to_string()
        }
        let empty = message(TumblingEventTimeWindows::of(Duration::ZERO));
        assert!(empty.contains("TumblingEventTimeWindows: the window size is 0 ms"), "{empty}");
        let slide = message(SlidingEventTimeWindows::of(seconds(1), Duration::ZERO));
        assert!(slide.contains("the window slide is 0 ms"), "{slide}");
        let offset = message(SlidingEventTimeWindows::of(seconds(9), seconds(2)).offset_ms(-2000));
        assert!(
            offset.contains("the offset is -2000 ms, it must be less than the slide of 2000 ms"),
            "{offset}"
        );
        WindowAssigner::<()>::check(&TumblingProcessingTimeWindows::of(seconds(9)).offset(seconds(8)))
            .unwrap();
    }

    #[test]
    fn a_record_without_timestamp_is_refused() {
        let mut assigner = TumblingEventTimeWindows::of(seconds(1));
        let error = assigner.assign(&(), i64::MIN, &mut Vec::new()).unwrap_err();
        assert!(error.message().contains("assign_timestamps_and_watermarks"), "{error}");
    }

    proptest! {
        #[test]
        fn a_record_lies_in_every_window_it_is_assigned_to(size in 1u64..50, slide in 1u64..50, offset in -49i64..50, at in -500i64..500) {
            let assigner = SlidingEventTimeWindows::of(Duration::from_millis(size), Duration::from_millis(slide));
            let found = windows(assigner.offset_ms(offset), at);
            let mut expected: Vec<(i64, i64)> = (-600i64..600)
                .filter(|start| (start - offset).rem_euclid(slide as i64) == 0)
                .map(|start| (start, start + size as i64))
                .filter(|(start, end)| *start <= at && at < *end)
                .collect();
            expected.reverse();
            prop_assert_eq!(found, expected);
        }
    }
}

//! Session windows: a session lasts as long as its records follow each other within a gap.

use std::marker::PhantomData;
use std::time::Duration;

use flott_schema::{Error, Result};

use crate::function::Function;
use crate::state::TimeDomain;
use crate::time::millis;
use crate::window::slices::check_timestamp;
use crate::window::{EventTimeTrigger, ProcessingTimeTrigger, TimeWindow, WindowAssigner};

/// Longest gap: with a timestamp in range, a session's end does not overflow.
const LONGEST_GAP_MS: i64 = 1 << 59;

/// The window of one record; windows that overlap or touch merge.
fn session_of(timestamp_ms: i64, gap_ms: i64) -> Result<TimeWindow> {
    check_timestamp(timestamp_ms)?;
    check_gap(gap_ms)?;
    Ok(TimeWindow::new(timestamp_ms, timestamp_ms + gap_ms))
}

fn check_gap(gap_ms: i64) -> Result<()> {
    if (1..=LONGEST_GAP_MS).contains(&gap_ms) {
        return Ok(());
    }
    Err(Error::user(format!("a session gap is {gap_ms} ms, it must be 1 ms to 2^59 ms")))
}

fn merged(one: &TimeWindow, other: &TimeWindow) -> Option<TimeWindow> {
    one.intersects(other).then(|| one.cover(other))
}

/// Defines a pair of session assigners of one clock: with a fixed gap, and with a gap by record.
macro_rules! sessions {
    ($clock:literal, $fixed:ident, $dynamic:ident, $domain:expr, $trigger:ident) => {
        #[doc = concat!("Sessions in ", $clock, " time with one gap for all records.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $fixed {
            gap_ms: i64,
        }

        impl $fixed {
            /// A session ends when no record of its key comes for this long.
            pub fn with_gap(gap: Duration) -> Self {
                $fixed { gap_ms: millis(gap) }
            }

            /// The gap behind a record is what `gap(record)` says.
            pub fn with_dynamic_gap<T, F: Fn(&T) -> Duration + Function>(gap: F) -> $dynamic<T, F> {
                $dynamic { gap, record: PhantomData }
            }
        }

        impl<T> WindowAssigner<T> for $fixed {
            type Window = TimeWindow;
            type Trigger = $trigger;
            const MERGES: bool = true;

            fn domain(&self) -> TimeDomain {
                $domain
            }

            fn default_trigger(&self) -> $trigger {
                $trigger
            }

            #[inline]
            fn assign(&mut self, _: &T, timestamp_ms: i64, windows: &mut Vec<TimeWindow>) -> Result<()> {
                windows.push(session_of(timestamp_ms, self.gap_ms)?);
                Ok(())
            }

            fn merge(&self, one: &TimeWindow, other: &TimeWindow) -> Option<TimeWindow> {
                merged(one, other)
            }

            fn check(&self) -> Result<()> {
                check_gap(self.gap_ms).map_err(|error| Error::graph(error.message()))
            }

            fn describe(&self) -> String {
                format!(concat!(stringify!($fixed), "({})"), self.gap_ms)
            }
        }

        #[doc = concat!("Sessions in ", $clock, " time whose gap depends on the record.")]
        pub struct $dynamic<T, F> {
            gap: F,
            record: PhantomData<fn(T)>,
        }

        impl<T, F: Clone> Clone for $dynamic<T, F> {
            fn clone(&self) -> Self {
                $dynamic { gap: self.gap.clone(), record: PhantomData }
            }
        }

        impl<T: 'static, F: Fn(&T) -> Duration + Function> WindowAssigner<T> for $dynamic<T, F> {
            type Window = TimeWindow;
            type Trigger = $trigger;
            const MERGES: bool = true;

            fn domain(&self) -> TimeDomain {
                $domain
            }

            fn default_trigger(&self) -> $trigger {
                $trigger
            }

            fn assign(&mut self, record: &T, timestamp_ms: i64, windows: &mut Vec<TimeWindow>) -> Result<()> {
                windows.push(session_of(timestamp_ms, millis((self.gap)(record)))?);
                Ok(())
            }

            fn merge(&self, one: &TimeWindow, other: &TimeWindow) -> Option<TimeWindow> {
                merged(one, other)
            }

            fn describe(&self) -> String {
                stringify!($dynamic).to_string()
            }
        }
    };
}

sessions!(
    "event",
    EventTimeSessionWindows,
    DynamicEventTimeSessionWindows,
    TimeDomain::Event,
    EventTimeTrigger
);
sessions!(
    "processing",
    ProcessingTimeSessionWindows,
    DynamicProcessingTimeSessionWindows,
    TimeDomain::Processing,
    ProcessingTimeTrigger
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_overlap_or_touch_merge() {
        let assigner = EventTimeSessionWindows::with_gap(Duration::from_millis(10));
        let merge = |one, other| WindowAssigner::<()>::merge(&assigner, &one, &other);
        let first = TimeWindow::new(0, 10);
        assert_eq!(merge(first, TimeWindow::new(5, 15)), Some(TimeWindow::new(0, 15)));
        assert_eq!(merge(first, TimeWindow::new(10, 20)), Some(TimeWindow::new(0, 20)));
        assert_eq!(merge(first, TimeWindow::new(11, 21)), None);
    }

    #[test]
    fn a_gap_that_is_not_positive_is_refused() {
        let fixed = ProcessingTimeSessionWindows::with_gap(Duration::ZERO);
        assert!(WindowAssigner::<()>::check(&fixed).is_err());
        let mut dynamic = EventTimeSessionWindows::with_dynamic_gap(|n: &u64| Duration::from_millis(*n));
        let mut windows = Vec::new();
        dynamic.assign(&7, 100, &mut windows).unwrap();
        assert_eq!(windows, [TimeWindow::new(100, 107)]);
        assert!(dynamic.assign(&0, 100, &mut windows).is_err());
    }
}

//! Arithmetic of time windows that slide: window starts, and the slices that windows share.
//!
//! A slice is a span between two neighbouring window edges (starts or ends), so a record lies in one slice, and a
//! window is a run of whole slices: one or two slices a slide, whatever the size (the pairs of Krishnamurthy, Wu,
//! Franklin: On-the-fly sharing for streamed aggregation, 2006).

use flott_schema::{Error, Result};

/// Time stamps farther from the epoch than this (73 million years) are refused: window ends must not overflow.
const FARTHEST_MS: i64 = 1 << 61;
/// Longest size and slide.
const LONGEST_MS: i64 = 1 << 59;

/// The start of the window of `size_ms` that `timestamp_ms` lies in, if windows are aligned to `offset_ms`.
#[inline]
pub fn window_start(timestamp_ms: i64, offset_ms: i64, size_ms: i64) -> i64 {
    timestamp_ms - (timestamp_ms - offset_ms).rem_euclid(size_ms)
}

/// Refuses a timestamp whose windows cannot be computed.
#[inline]
pub(super) fn check_timestamp(timestamp_ms: i64) -> Result<()> {
    if timestamp_ms.unsigned_abs() > FARTHEST_MS as u64 {
        return Err(out_of_range(timestamp_ms));
    }
    Ok(())
}

#[cold]
fn out_of_range(timestamp_ms: i64) -> Error {
    if timestamp_ms == crate::batch::NO_TIMESTAMP {
        return Error::user(
            "a record without timestamp reached an event-time window; \
             call assign_timestamps_and_watermarks before, or use processing-time windows",
        );
    }
    Error::bad_input(format!(
        "timestamp {timestamp_ms} ms of a record is out of range for windows; is it in milliseconds since the epoch?"
    ))
}

/// Window size, slide and offset, milliseconds. Windows are `[offset + n * slide, offset + n * slide + size)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceLayout {
    size: i64,
    slide: i64,
    offset: i64,
    /// Where, behind a window start, the slice is cut by a window end: `size % slide`, 0 if ends fall on starts.
    cut: i64,
}

/// A slice, and the windows that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub start: i64,
    pub end: i64,
    /// End of the last window that holds the slice; `None` for a gap between windows.
    pub last_window_end: Option<i64>,
    /// Counts slices, for caches.
    pub number: i64,
}

impl SliceLayout {
    /// A layout; the offset may be anything.
    pub(super) fn new(size: i64, slide: i64, offset: i64) -> Self {
        let slide = slide.max(1);
        SliceLayout { size, slide, offset: offset.rem_euclid(slide), cut: size.rem_euclid(slide) }
    }

    /// Whether windows do not overlap: each is one slice.
    pub(super) fn is_single(&self) -> bool {
        self.size <= self.slide
    }

    pub(super) fn size(&self) -> i64 {
        self.size
    }

    pub(super) fn slide(&self) -> i64 {
        self.slide
    }

    /// The number of slices in a window.
    pub(super) fn slices_per_window(&self) -> u64 {
        let slides = self.size.div_euclid(self.slide) as u64;
        if self.cut == 0 { slides } else { 2 * slides + 1 }
    }

    /// The slice of a timestamp that passed [`check_timestamp`].
    #[inline]
    pub(super) fn slice_of(&self, timestamp: i64) -> Slice {
        let period = (timestamp - self.offset).div_euclid(self.slide);
        let base = self.offset + period * self.slide;
        let last = base + self.size;
        if self.cut == 0 {
            let end = base + self.slide;
            Slice { start: base, end, last_window_end: Some(last), number: period }
        } else if timestamp - base < self.cut {
            let end = base + self.cut;
            Slice { start: base, end, last_window_end: Some(last), number: period * 2 }
        } else {
            let (start, end) = (base + self.cut, base + self.slide);
            let last_window_end = (last >= end).then_some(last);
            Slice { start, end, last_window_end, number: period * 2 + 1 }
        }
    }

    /// The end of the first window that ends at or behind `time`.
    pub(super) fn window_end_from(&self, time: i64) -> i64 {
        let behind = (i128::from(time) - i128::from(self.offset + self.cut)).rem_euclid(self.slide.into());
        let end = if behind == 0 { time.into() } else { i128::from(time) - behind + i128::from(self.slide) };
        clamped(end)
    }

    /// The end of the last window that is complete when no record up to `clock` will follow.
    pub(super) fn last_complete_end(&self, clock: i64) -> i64 {
        let next = i128::from(clock) + 1;
        clamped(next - (next - i128::from(self.offset + self.cut)).rem_euclid(self.slide.into()))
    }
}

fn clamped(time: i128) -> i64 {
    time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Refuses what Flink refuses: sizes and slides that are not positive, offsets that are not smaller.
pub(super) fn check_layout(assigner: &str, size_ms: i64, slide_ms: i64, offset_ms: i64) -> Result<()> {
    for (what, value) in [("size", size_ms), ("slide", slide_ms)] {
        if !(1..=LONGEST_MS).contains(&value) {
            return Err(Error::graph(format!(
                "{assigner}: the window {what} is {value} ms, it must be 1 ms to 2^59 ms"
            )));
        }
    }
    if offset_ms.unsigned_abs() >= slide_ms.unsigned_abs() {
        return Err(Error::graph(format!(
            "{assigner}: the offset is {offset_ms} ms, it must be less than the slide of {slide_ms} ms"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_are_runs_of_whole_slices(size in 1i64..60, slide in 1i64..60, offset in -70i64..70, at in -500i64..500) {
            let layout = SliceLayout::new(size, slide, offset);
            let slice = layout.slice_of(at);
            prop_assert!(slice.start <= at && at < slice.end);
            prop_assert_eq!(layout.slice_of(slice.start), slice);
            prop_assert_eq!(layout.slice_of(slice.end - 1), slice);
            prop_assert_eq!(layout.slice_of(slice.end).number > slice.number, true);
            let starts = (-700i64..700).filter(|start| (start - offset).rem_euclid(slide) == 0);
            let holding: Vec<i64> = starts.filter(|start| *start <= at && at < start + size).collect();
            prop_assert_eq!(slice.last_window_end, holding.last().map(|start| start + size));
            for start in &holding {
                prop_assert!(*start <= slice.start && slice.end <= start + size);
            }
            if let Some(first) = holding.first() {
                prop_assert_eq!(layout.window_end_from(slice.end), first + size);
                prop_assert!(layout.slices_per_window() >= 1);
            }
        }

        #[test]
        fn the_last_complete_window_is_the_last_one_behind_the_clock(size in 1i64..60, slide in 1i64..60, offset in -70i64..70, clock in -500i64..500) {
            let layout = SliceLayout::new(size, slide, offset);
            let ends = (-1000i64..1000).map(|n| n + size).filter(|end| (end - size - offset).rem_euclid(slide) == 0);
            let expected = ends.filter(|end| *end - 1 <= clock).max().unwrap();
            prop_assert_eq!(layout.last_complete_end(clock), expected);
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let layout = SliceLayout::new(60_000, 1000, 500);
        assert_eq!(layout.last_complete_end(i64::MIN), i64::MIN);
        assert!(layout.last_complete_end(i64::MAX) > i64::MAX - 1000);
        assert!(check_timestamp(i64::MIN).is_err() && check_timestamp(i64::MAX).is_err());
        check_timestamp(FARTHEST_MS).unwrap();
        layout.slice_of(FARTHEST_MS);
        layout.slice_of(-FARTHEST_MS);
    }
}

//! Assigners of the job that merge windows by rules of their own.

use flott_schema::Result;

use super::driver::Driver;
use super::fixed_model::{Numbers, Rec};
use crate::state::TimeDomain;
use crate::window::{EventTimeTrigger, TimeWindow, WindowAssigner};

/// Windows as long as the record's number; they merge if they are no farther apart than the longer one is long.
#[derive(Clone)]
struct Attracting;

impl WindowAssigner<Rec> for Attracting {
    type Window = TimeWindow;
    type Trigger = EventTimeTrigger;
    const MERGES: bool = true;

    fn domain(&self) -> TimeDomain {
        TimeDomain::Event
    }

    fn default_trigger(&self) -> EventTimeTrigger {
        EventTimeTrigger
    }

    fn assign(&mut self, record: &Rec, timestamp_ms: i64, windows: &mut Vec<TimeWindow>) -> Result<()> {
        windows.push(TimeWindow::new(timestamp_ms, timestamp_ms + i64::from(record.1)));
        Ok(())
    }

    fn merge(&self, one: &TimeWindow, other: &TimeWindow) -> Option<TimeWindow> {
        let distance = one.start_ms.max(other.start_ms) - one.end_ms.min(other.end_ms);
        (distance <= one.size_ms().max(other.size_ms())).then(|| one.cover(other))
    }

    fn describe(&self) -> String {
        "Attracting".to_string()
    }
}

#[test]
fn what_has_grown_by_merging_meets_windows_that_were_out_of_reach() {
    let mut driver = Driver::<Rec, (TimeWindow, Vec<u32>)>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(Attracting);
        windows.aggregate_with(Numbers, |_, window, numbers| (*window, numbers))
    });
    driver.push([((1, 10), 0), ((1, 1), 26)]);
    driver.push([((1, 2), 12)]);
    assert_eq!(driver.end(), [((TimeWindow::new(0, 27), vec![1, 2, 10]), 26)]);
}

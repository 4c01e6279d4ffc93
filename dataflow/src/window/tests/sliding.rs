//! What sliding windows cost, and what they do with long silences.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::driver::Driver;
use super::fixed_model::Rec;
use crate::time::AggregateFunction;
use crate::window::SlidingEventTimeWindows;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_hour_that_slides_by_a_second_is_summed_exactly() {
    let mut driver = Driver::<Rec, Rec>::new(|stream| {
        let windows = SlidingEventTimeWindows::of(HOUR, SECOND);
        stream.key_by(|record| record.0).window(windows).sum(|record| &mut record.1)
    });
    let mut fired = 0;
    for second in 0..10_000i64 {
        // Key 0 every second, key 1 every 100 s, key 2 once.
        let mut records = vec![((0, 1), second * 1000 + 500)];
        records.extend((second % 100 == 0).then_some(((1, 1), second * 1000)));
        records.extend((second == 5000).then_some(((2, 1), second * 1000)));
        driver.push(records);
        for ((key, sum), timestamp) in driver.watermark(second * 1000 + 999) {
            let last = (timestamp + 1) / 1000;
            assert_eq!(last, second + 1);
            let first = (last - 3600).max(0);
            let expected = match key {
                0 => last - first,
                1 => (last + 99) / 100 - (first + 99) / 100,
                _ => i64::from(first <= 5000 && 5000 < last),
            };
            assert_eq!(i64::from(sum), expected, "key {key}, window ends at {last} s");
            fired += 1;
        }
    }
    assert_eq!(fired, 10_000 * 2 + 3600);
}

#[test]
fn silence_of_ten_thousand_years_costs_nothing() {
    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
    let mut driver = Driver::<Rec, Rec>::new(|stream| {
        let windows = SlidingEventTimeWindows::of(Duration::from_millis(10), Duration::from_millis(1));
        stream.key_by(|record| record.0).window(windows).sum(|record| &mut record.1)
    });
    driver.push([((1, 1), 0), ((1, 2), 10_000 * YEAR_MS)]);
    assert_eq!(driver.watermark(5000 * YEAR_MS).len(), 10);
    assert_eq!(driver.end().len(), 10);
    assert_eq!(driver.deadline(), i64::MAX);
}

/// Sums, and counts how often it is called.
#[derive(Clone, Default)]
struct Counted {
    adds: Arc<AtomicU64>,
    merges: Arc<AtomicU64>,
}

impl AggregateFunction for Counted {
    type In = Rec;
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, sum: &mut u64, record: Rec) {
        self.adds.fetch_add(1, Ordering::Relaxed);
        *sum += u64::from(record.1);
    }

    fn merge(&self, sum: &mut u64, other: &u64) {
        self.merges.fetch_add(1, Ordering::Relaxed);
        *sum += other;
    }

    fn result(&self, sum: &u64) -> u64 {
        *sum
    }
}

#[test]
fn a_record_is_added_once_and_a_result_costs_a_constant_number_of_merges() {
    let counted = Counted::default();
    let function = counted.clone();
    let mut driver = Driver::<Rec, u64>::new(move |stream| {
        let windows = SlidingEventTimeWindows::of(HOUR, SECOND);
        stream.key_by(|record| record.0).window(windows).aggregate(function)
    });
    let mut results = 0;
    for second in 0..8000i64 {
        driver.push((0..40).map(|n| (((n % 10) as u8, 1), second * 1000 + n)));
        results += driver.watermark(second * 1000 + 999).len() as u64;
    }
    results += driver.end().len() as u64;
    assert_eq!(results, (8000 + 3599) * 10);
    assert_eq!(counted.adds.load(Ordering::Relaxed), 8000 * 40);
    // One to put front and back together, two or three for each slice and key.
    let merges = counted.merges.load(Ordering::Relaxed);
    assert!(merges <= results + 3 * 8000 * 10, "{merges} merges for {results} results");
}

#[test]
fn late_records_change_what_has_been_put_together_already() {
    let mut driver = Driver::<Rec, Rec>::new(|stream| {
        let windows = SlidingEventTimeWindows::of(Duration::from_secs(60), SECOND);
        stream.key_by(|record| record.0).window(windows).sum(|record| &mut record.1)
    });
    for second in 0..200i64 {
        // Each second has 1, and another 1000 comes ten seconds late.
        let late = (second >= 10).then_some(((0, 1000), (second - 10) * 1000));
        driver.push(late.into_iter().chain([((0, 1), second * 1000)]));
        for ((_, sum), timestamp) in driver.watermark(second * 1000 + 999) {
            let (end, start) = ((timestamp + 1) / 1000, (timestamp + 1) / 1000 - 60);
            let late = (end - 10).max(0) - start.max(0);
            assert_eq!(i64::from(sum), end - start.max(0) + 1000 * late.max(0), "window ends at {end} s");
        }
    }
    assert_eq!(driver.late_dropped(), 0);
}

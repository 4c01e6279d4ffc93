//! Joins and co-groups of two streams in windows.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Driver, late, sorted};
use crate::api::{DataStream, Side};
use crate::window::{
    CountEvictor, EventTimeSessionWindows, EventTimeTrigger, SlidingEventTimeWindows,
    TumblingEventTimeWindows,
};

/// Key and number.
type Left = (u8, u32);
/// Name of the key, and number.
type Right = (String, u32);
type Both = Side<Left, Right>;
type Pair = (u32, u32);

const TEN: Duration = Duration::from_millis(10);

fn left(key: u8, number: u32) -> Both {
    Side::Left((key, number))
}

fn right(key: u8, number: u32) -> Both {
    Side::Right((key.to_string(), number))
}

fn number(name: &str) -> u8 {
    name.parse().unwrap()
}

#[test]
fn a_join_pairs_records_of_one_key_and_window() {
    let mut driver = Driver::<Both, Pair>::of_two(|lefts: &DataStream<Left>, rights: &DataStream<Right>| {
        let keyed = lefts.join(rights).where_key(|left| left.0).equal_to(|right| number(&right.0));
        keyed.window(TumblingEventTimeWindows::of(TEN)).apply(|left, right| (left.1, right.1))
    });
    driver.push([(left(1, 1), 0), (left(1, 2), 9), (left(2, 3), 1), (left(1, 4), 10)]);
    driver.push([(right(1, 10), 5), (right(3, 11), 5), (right(1, 12), 19)]);
    assert_eq!(sorted(driver.watermark(9)), [((1, 10), 9), ((2, 10), 9)]);
    assert_eq!(driver.end(), [((4, 12), 19)]);
}

#[test]
fn a_co_group_sees_keys_that_only_one_side_has() {
    let mut driver =
        Driver::<Both, (usize, usize)>::of_two(|lefts: &DataStream<Left>, rights: &DataStream<Right>| {
            let names = lefts.map(|left| (left.0.to_string(), left.1));
            let keyed = names.co_group(rights).where_key_ref(|left| &left.0).equal_to_ref(|right| &right.0);
            keyed
                .window(SlidingEventTimeWindows::of(TEN, TEN / 2))
                .apply(|left, right, out| out.collect((left.len(), right.len())))
        });
    let name = |n: u8| n.to_string();
    let records = [
        (Side::<Right, Right>::Left((name(1), 1)), 6),
        (Side::Right((name(1), 2)), 7),
        (Side::Right((name(1), 2)), 11),
        (Side::Right((name(2), 3)), 7),
    ];
    let mut batch = crate::batch::Batch::default();
    records.into_iter().for_each(|(record, at)| batch.push(record, at));
    driver.task().push(0, Box::new(batch)).unwrap();
    let expected = [((0, 1), 9), ((0, 1), 14), ((0, 1), 19), ((1, 1), 9), ((1, 2), 14)];
    assert_eq!(sorted(driver.end()), expected);
}

#[test]
fn trigger_evictor_and_lateness_work_for_joins_too() {
    let mut driver = Driver::<Both, Pair>::of_two(|lefts: &DataStream<Left>, rights: &DataStream<Right>| {
        let keyed = lefts.join(rights).where_key(|left| left.0).equal_to(|right| number(&right.0));
        let windows = keyed.window(EventTimeSessionWindows::with_gap(TEN)).trigger(EventTimeTrigger);
        windows
            .evictor(CountEvictor::of(3))
            .allowed_lateness(TEN)
            .side_output_late(&late())
            .apply_flat(|left, right, out| out.collect((left.1, right.1)))
    });
    driver.push([(left(1, 1), 0), (left(1, 2), 1), (right(1, 3), 2), (right(1, 4), 3)]);
    assert_eq!(driver.watermark(12), [((2, 3), 12), ((2, 4), 12)]);
    driver.push([(left(1, 5), 2)]);
    assert_eq!(driver.take(), [((5, 3), 12), ((5, 4), 12)]);
    driver.watermark(22);
    driver.push([(left(1, 6), 2)]);
    assert_eq!(driver.take_late(), [(left(1, 6), 2)]);
}

proptest! {
    #[test]
    fn a_join_gives_the_cross_product_of_each_key_and_window(
        lefts in prop::collection::vec((0u8..3, 0i64..40), 0..20),
        rights in prop::collection::vec((0u8..3, 0i64..40), 0..20),
        size in 1i64..15,
        slide in 1i64..15,
    ) {
        let ms = |n: i64| Duration::from_millis(n as u64);
        let mut driver = Driver::<Both, Pair>::of_two(|lefts: &DataStream<Left>, rights: &DataStream<Right>| {
                let keyed = lefts.join(rights).where_key(|left| left.0).equal_to(|right| number(&right.0));
                keyed
                    .window(SlidingEventTimeWindows::of(ms(size), ms(slide)))
                    .apply(|left, right| (left.1, right.1))
            });
        driver.push((0..).zip(&lefts).map(|(number, (key, at))| (left(*key, number), *at)));
        driver.push((0..).zip(&rights).map(|(number, (key, at))| (right(*key, number), *at)));
        let mut expected: BTreeMap<(Pair, i64), usize> = BTreeMap::new();
        for start in (-15..40i64).filter(|start| start.rem_euclid(slide) == 0) {
            let holds = |at: &i64| start <= *at && *at < start + size;
            for (l, (key, at)) in (0..).zip(&lefts).filter(|(_, (_, at))| holds(at)) {
                assert!(holds(at));
                for (r, _) in (0..).zip(&rights).filter(|(_, (other, at))| holds(at) && other == key) {
                    *expected.entry(((l, r), start + size - 1)).or_default() += 1;
                }
            }
        }
        let mut found: BTreeMap<(Pair, i64), usize> = BTreeMap::new();
        for result in driver.end() {
            *found.entry(result).or_default() += 1;
        }
        prop_assert_eq!(found, expected);
    }
}

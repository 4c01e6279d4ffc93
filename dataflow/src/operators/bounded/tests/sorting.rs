//! Sorting, in memory and through files.

use proptest::prelude::*;

use super::*;
use crate::operators::bounded::buffer::SpillBuffer;
use crate::operators::bounded::ending::Pace;
use crate::operators::bounded::map_partition::MapPartition;
use crate::operators::bounded::order::{ByFunction, ByValueOf, Order};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::results::Results;
use crate::operators::bounded::sort_partition::SortPartition;
use crate::operators::bounded::sorter::Sorter;

/// Few keys, so that there are ties; the rest tells equal records apart.
fn records() -> impl Strategy<Value = Vec<(u8, String)>> {
    prop::collection::vec((0u8..6, "[a-z]{0,12}"), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sorting_is_stable_with_room_and_without(
        records in records(),
        memory_bytes in prop_oneof![Just(PLENTY), 64usize..8192],
        is_descending: bool,
    ) {
        let order = if is_descending { Order::Descending } else { Order::Ascending };
        let sorted = results_of(&records, memory_bytes, |ctx| {
            Ok(SortPartition::new(ByValueOf::new(|record: &(u8, String)| record.0, order), ctx))
        });
        let mut expected: Vec<((u8, String), i64)> = records.into_iter().zip(0..).collect();
        expected.sort_by(|((a, _), _), ((b, _), _)| order.apply(a.cmp(b)));
        prop_assert_eq!(sorted, expected);
    }

    #[test]
    fn a_partition_is_mapped_in_order_of_arrival(
        records in records(),
        memory_bytes in prop_oneof![Just(PLENTY), 64usize..8192],
    ) {
        // Twice as many results as records, so that they do not fit either.
        let double = |records: Records<'_, (u8, String)>, out: &mut Results<'_, String>| {
            for (number, text) in records {
                out.collect(text);
                out.collect(number.to_string());
            }
        };
        let mapped = results_of(&records, memory_bytes, |ctx| Ok(MapPartition::new(double, ctx)));
        let expected: Vec<(String, i64)> = records
            .into_iter()
            .zip(0..)
            .flat_map(|((number, text), time)| [(text, time), (number.to_string(), time)])
            .collect();
        prop_assert_eq!(mapped, expected);
    }
}

#[test]
fn so_many_runs_that_they_are_merged_in_passes_give_the_same_order() {
    let scratch = tempfile::tempdir().unwrap();
    let order = ByFunction(|a: &(u32, u32), b: &(u32, u32)| a.0.cmp(&b.0));
    // Runs of 8 records, merged 4 at a time.
    let mut sorter = Sorter::new(order, &context(scratch.path()), 8 * 16 * 2);
    let input: Vec<(u32, u32)> = (0..10_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 22, n)).collect();
    input.iter().for_each(|record| sorter.push(*record, 0).unwrap());
    assert!(sorter.is_spilled());
    while sorter.prepare(&mut Pace::default()).unwrap() == Flow::Again {}
    let mut sorted = Vec::new();
    while let Some((record, _)) = sorter.take_next().unwrap() {
        sorted.push(record);
    }
    let mut expected = input;
    expected.sort_by_key(|record| record.0);
    assert_eq!(sorted, expected);
    drop(sorter);
    assert!(files(&scratch).is_empty());
}

#[test]
fn merging_lets_others_have_the_thread() {
    let scratch = tempfile::tempdir().unwrap();
    let order = ByFunction(|a: &u64, b: &u64| a.cmp(b));
    let mut sorter = Sorter::new(order, &context(scratch.path()), 64 << 10);
    (0..200_000u64).for_each(|n| sorter.push(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0).unwrap());
    let mut calls = 1;
    while sorter.prepare(&mut Pace::default()).unwrap() == Flow::Again {
        calls += 1;
    }
    assert!(calls > 2, "{calls}");
    let mut sorted = Vec::new();
    while let Some((record, _)) = sorter.take_next().unwrap() {
        sorted.push(record);
    }
    assert_eq!(sorted.len(), 200_000);
    assert!(sorted.is_sorted());
}

#[test]
fn a_buffer_can_be_read_again_and_filled_again() {
    let scratch = tempfile::tempdir().unwrap();
    let mut buffer: SpillBuffer<u64> = SpillBuffer::new(&context(scratch.path()), 500);
    for round in 0..3u64 {
        (0..100).for_each(|n| buffer.push(round * 1000 + n, n as i64).unwrap());
        buffer.seal().unwrap();
        assert!(buffer.is_spilled(), "100 records of 16 bytes are more than 500 bytes");
        for _ in 0..2 {
            let mut read: Vec<(u64, i64)> = Vec::new();
            for block in 0..buffer.blocks() {
                read.extend(buffer.block(block).unwrap().iter().map(|(record, time)| (*record, time)));
            }
            assert!(read.into_iter().eq((0..100).map(|n| (round * 1000 + n, n as i64))));
        }
        buffer.drop_sealed();
        assert_eq!(buffer.blocks(), 0);
        assert!(files(&scratch).is_empty());
    }
}

#[test]
fn a_partition_without_records_is_mapped_too() {
    let count = |records: Records<'_, u8>, out: &mut Results<'_, usize>| out.collect(records.count());
    let counts = results_of(&[], PLENTY, |ctx| Ok(MapPartition::new(count, ctx)));
    assert_eq!(counts, [(0, crate::batch::NO_TIMESTAMP)]);
}

#[test]
fn timestamps_can_be_read_and_chosen() {
    let tell = |mut records: Records<'_, char>, out: &mut Results<'_, (char, Option<i64>)>| {
        while let Some(letter) = records.next() {
            let timestamp = records.timestamp();
            out.collect((letter, timestamp));
            out.collect_at((letter, None), 7);
        }
    };
    let scratch = tempfile::tempdir().unwrap();
    let mut harness = HarnessBuilder::new(settings(PLENTY, scratch.path()))
        .one_input(|ctx| Ok(MapPartition::new(tell, ctx)))
        .unwrap();
    harness.push_all([('a', 30), ('b', 20)]).unwrap();
    harness.end().unwrap();
    assert_eq!(
        harness.take(),
        [(('a', Some(30)), 30), (('a', None), 7), (('b', Some(20)), 30), (('b', None), 7)],
        "results have the largest timestamp read so far"
    );
}

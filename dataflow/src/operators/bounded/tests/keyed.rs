//! Operators on the records of each key against maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::key::{ByRef, ByValue, KeySelector};
use crate::operators::bounded::aggregate::{FinalAggregate, KeyOfPair, PreAggregate};
use crate::operators::bounded::all::{AggregatePart, AggregateWhole, ReduceAll};
use crate::operators::bounded::first::{FirstN, FirstOfKey, PreCut, WholeRecord};
use crate::operators::bounded::groups::{Groups, compare_keys};
use crate::operators::bounded::order::{Arrival, ByValueOf, Order};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::reduce_group::{FirstOfSorted, ReduceGroup};
use crate::operators::bounded::results::Results;
use crate::operators::reduce::FinalReduce;
use crate::time::AggregateFunction;

type Word = (String, u32);

fn words() -> impl Strategy<Value = Vec<Word>> {
    prop::collection::vec(("[ab]{1,5}", 0u32..100), 0..200)
}

fn memory() -> impl Strategy<Value = usize> {
    prop_oneof![Just(PLENTY), 16usize..8192]
}

fn groups_of(words: &[Word]) -> BTreeMap<String, Vec<(u32, i64)>> {
    let mut groups: BTreeMap<String, Vec<(u32, i64)>> = BTreeMap::new();
    for ((word, number), time) in words.iter().cloned().zip(0..) {
        groups.entry(word).or_default().push((number, time));
    }
    groups
}

fn sorted<T: Ord>(records: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut records: Vec<T> = records.into_iter().collect();
    records.sort();
    records
}

fn by_word() -> impl KeySelector<Word, Key = String> {
    fn key(word: &Word) -> &String {
        &word.0
    }
    ByRef::new(key as fn(&Word) -> &String)
}

/// Gathers numbers: an accumulator that grows.
#[derive(Clone)]
struct Gather;

impl AggregateFunction for Gather {
    type In = Word;
    type Accumulator = Vec<u32>;
    type Out = Vec<u32>;

    fn create(&self) -> Vec<u32> {
        Vec::new()
    }

    fn add(&self, accumulator: &mut Vec<u32>, record: Word) {
        accumulator.push(record.1);
    }

    fn merge(&self, accumulator: &mut Vec<u32>, other: &Vec<u32>) {
        accumulator.extend(other);
    }

    fn result(&self, accumulator: &Vec<u32>) -> Vec<u32> {
        sorted(accumulator.iter().copied())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn groups_are_whole_and_in_order(words in words(), memory_bytes in memory(), is_sorted: bool) {
        type Group = (String, Vec<u32>);
        let gather = |key: &String, words: Records<'_, Word>, out: &mut Results<'_, Group>| {
            out.collect((key.clone(), words.map(|word| word.1).collect()));
        };
        let groups = if is_sorted {
            let within = ByValueOf::new(|word: &Word| word.1, Order::Descending);
            results_of(&words, memory_bytes, |ctx| Ok(ReduceGroup::new(by_word(), within.clone(), gather, ctx)))
        } else {
            results_of(&words, memory_bytes, |ctx| Ok(ReduceGroup::new(by_word(), Arrival, gather, ctx)))
        };
        let expected = groups_of(&words).into_iter().map(|(word, group)| {
            let latest = group.iter().map(|(_, time)| *time).max().unwrap();
            let mut numbers: Vec<u32> = group.into_iter().map(|(number, _)| number).collect();
            if is_sorted {
                numbers.sort_by_key(|number| std::cmp::Reverse(*number));
            }
            ((word, numbers), latest)
        });
        prop_assert_eq!(sorted(groups), sorted(expected));
    }

    #[test]
    fn the_first_of_each_key_are_those_that_came_first(words in words(), n in 0usize..4, memory_bytes in memory()) {
        let first = results_of(&words, memory_bytes, |ctx| Ok(FirstOfKey::new(by_word(), n, ctx)));
        let expected = groups_of(&words).into_iter().flat_map(|(word, group)| {
            group.into_iter().take(n).map(move |(number, time)| ((word.clone(), number), time))
        });
        prop_assert_eq!(sorted(first), sorted(expected));
    }

    #[test]
    fn the_first_of_each_key_in_order_are_the_best(words in words(), n in 0usize..4, memory_bytes in memory()) {
        let within = ByValueOf::new(|word: &Word| word.1, Order::Ascending);
        let first = results_of(&words, memory_bytes, |ctx| {
            Ok(FirstOfSorted::new(by_word(), within.clone(), n, ctx))
        });
        let expected = groups_of(&words).into_iter().flat_map(|(word, mut group)| {
            group.sort();
            group.into_iter().take(n).map(move |(number, time)| ((word.clone(), number), time))
        });
        prop_assert_eq!(sorted(first), sorted(expected));
    }

    #[test]
    fn what_the_cut_in_front_of_the_exchange_drops_is_not_missed(words in words(), n in 1usize..4, memory_bytes in memory()) {
        let scratch = tempfile::tempdir().unwrap();
        let mut cutting = HarnessBuilder::new(settings(memory_bytes, scratch.path()))
            .one_input(|ctx| Ok(PreCut::new(by_word(), n, ctx)))
            .unwrap();
        cutting.push_all(words.iter().cloned().zip(0..)).unwrap();
        let cut = cutting.take_records();
        prop_assert!(cut.len() <= words.len());
        let take = |words: &[Word]| -> Vec<(String, Vec<u32>)> {
            let groups = groups_of(words).into_iter();
            groups.map(|(word, group)| (word, group.into_iter().take(n).map(|(number, _)| number).collect())).collect()
        };
        prop_assert_eq!(take(&cut), take(&words));
    }

    #[test]
    fn parts_of_aggregates_add_up(words in words(), memory_bytes in memory()) {
        let parts = results_of(&words, memory_bytes, |ctx| Ok(PreAggregate::new(by_word(), Gather, ctx)));
        if memory_bytes == PLENTY {
            let keys: BTreeSet<&String> = parts.iter().map(|((word, _), _)| word).collect();
            prop_assert_eq!(keys.len(), parts.len(), "with room, a key leaves its task once");
        }
        let parts: Vec<(String, Vec<u32>)> = parts.into_iter().map(|(part, _)| part).collect();
        let whole = results_of(&parts, memory_bytes, |ctx| Ok(FinalAggregate::new(Gather, ctx)));
        let whole = whole.into_iter().map(|(result, _)| result);
        let expected = groups_of(&words).into_iter().map(|(word, group)| {
            (word, sorted(group.into_iter().map(|(number, _)| number)))
        });
        prop_assert_eq!(sorted(whole), sorted(expected));
    }
}

#[test]
fn distinct_records_are_emitted_when_first_seen() {
    let scratch = tempfile::tempdir().unwrap();
    let mut distinct = HarnessBuilder::new(settings(PLENTY, scratch.path()))
        .one_input(|ctx| Ok(FirstOfKey::new(WholeRecord, 1, ctx)))
        .unwrap();
    distinct.push_all([("a".to_string(), 1), ("b".to_string(), 2), ("a".to_string(), 3)]).unwrap();
    assert_eq!(distinct.take(), [("a".to_string(), 1), ("b".to_string(), 2)]);
    distinct.push_all([("b".to_string(), 4), ("c".to_string(), 5)]).unwrap();
    assert_eq!(distinct.take(), [("c".to_string(), 5)]);
    distinct.end().unwrap();
    assert_eq!(distinct.take(), []);
}

#[test]
fn in_streaming_execution_distinct_lets_watermarks_pass_and_spills_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let settings = Settings { mode: ExecutionMode::Streaming, ..settings(16, scratch.path()) };
    let mut distinct =
        HarnessBuilder::new(settings).one_input(|ctx| Ok(FirstOfKey::new(WholeRecord, 1, ctx))).unwrap();
    distinct.push_all((0..1000u32).map(|n| (n, i64::from(n)))).unwrap();
    assert_eq!(distinct.take().len(), 1000);
    distinct.watermark(999).unwrap();
    assert_eq!(distinct.take_signals(), [Signal::Watermark(999)]);
    assert!(files(&scratch).is_empty());
}

#[test]
fn the_first_of_a_stream_end_in_the_middle_of_a_batch() {
    let scratch = tempfile::tempdir().unwrap();
    let mut first =
        HarnessBuilder::new(settings(PLENTY, scratch.path())).one_input(|_| Ok(FirstN::new(3))).unwrap();
    first.push_all([('a', 1), ('b', 2)]).unwrap();
    first.push_all([('c', 3), ('d', 4)]).unwrap();
    first.push('e', 5).unwrap();
    first.end().unwrap();
    assert_eq!(first.take(), [('a', 1), ('b', 2), ('c', 3)]);
}

#[test]
fn keys_that_share_a_hash_are_kept_apart() {
    let scratch = tempfile::tempdir().unwrap();
    for limit_bytes in [PLENTY, 16] {
        let mut groups =
            Groups::new(ByValue::new(|n: &u32| n % 10), Arrival, &context(scratch.path()), limit_bytes);
        (0..200u32).for_each(|n| groups.push(42, n * 7, 0).unwrap());
        while groups.prepare(&mut Default::default()).unwrap() == Flow::Again {}
        let mut keys = Vec::new();
        while let Some((hash, key)) = groups.head_key() {
            keys.push(key);
            let mut numbers = Vec::new();
            while let Some((number, _)) = groups.take_of(hash, &key).unwrap() {
                numbers.push(number);
            }
            assert!(numbers.iter().all(|number| number % 10 == key));
            assert!(numbers.is_sorted(), "in order of arrival");
            assert_eq!(numbers.len(), 20);
        }
        assert_eq!(sorted(keys), (0..10).collect::<Vec<u32>>());
    }
    assert_eq!(compare_keys(1, &2u8, 2, &1u8), std::cmp::Ordering::Less);
    assert_eq!(compare_keys(1, &2u8, 1, &2u8), std::cmp::Ordering::Equal);
    assert_ne!(compare_keys(1, &2u8, 1, &1u8), compare_keys(1, &1u8, 1, &2u8));
}

#[test]
fn parts_of_a_whole_stream_add_up() {
    let words: Vec<Word> = (0..10).map(|n| (format!("word {n}"), n)).collect();
    let parts = results_of(&words, PLENTY, |_| Ok(AggregatePart::new(Gather)));
    assert_eq!(parts, [((0..10).collect::<Vec<u32>>(), 9)]);
    let none = results_of(&[], PLENTY, |_| Ok(AggregatePart::new(Gather)));
    let parts = [parts[0].0.clone(), none[0].0.clone(), vec![3]];
    let whole = results_of(&parts, PLENTY, |_| Ok(AggregateWhole::new(Gather)));
    assert_eq!(whole, [(vec![0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9], 2)]);

    let sum = |so_far: &mut u32, next: &mut u32| *so_far += *next;
    assert_eq!(results_of(&[1u32, 2, 3], PLENTY, |_| Ok(ReduceAll::new(sum))), [(6, 2)]);
    assert_eq!(results_of(&[], PLENTY, |_| Ok(ReduceAll::new(sum))), []);
}

#[test]
fn a_reduce_in_front_of_the_exchange_counts_what_its_entries_own() {
    const LIMIT_BYTES: usize = 100_000;
    let sum = |so_far: &mut Word, next: &mut Word| so_far.1 += next.1;
    let scratch = tempfile::tempdir().unwrap();
    let mut reducing = HarnessBuilder::new(settings(PLENTY, scratch.path()))
        .one_input(|_| Ok(FinalReduce::with_limit(by_word(), sum, LIMIT_BYTES)))
        .unwrap();
    let (mut held_bytes, mut most_held_bytes) = (0, 0);
    for n in 0..1000 {
        // A key and a record of 1000 bytes each.
        reducing.push_all([((format!("{n:01000}"), n), 0)]).unwrap();
        held_bytes += 2000;
        most_held_bytes = held_bytes.max(most_held_bytes);
        held_bytes -= reducing.take_records().len() * 2000;
    }
    assert!((LIMIT_BYTES / 4..=LIMIT_BYTES).contains(&most_held_bytes), "{most_held_bytes}");
}

#[test]
fn a_reduce_in_front_of_the_exchange_notices_values_that_grow() {
    let append = |so_far: &mut (u32, String), next: &mut (u32, String)| so_far.1.push_str(&next.1);
    let scratch = tempfile::tempdir().unwrap();
    let mut reducing = HarnessBuilder::new(settings(PLENTY, scratch.path()))
        .one_input(|_| {
            Ok(FinalReduce::with_limit(ByValue::new(|record: &(u32, String)| record.0), append, 100_000))
        })
        .unwrap();
    for _ in 0..1000 {
        reducing.push_all((0..4).map(|key| ((key, "x".repeat(100)), 0))).unwrap();
    }
    let emitted = reducing.take_records();
    let longest = emitted.iter().map(|(_, text)| text.len()).max();
    assert!(longest.is_some_and(|longest| (5_000..30_000).contains(&longest)), "{longest:?}");
}

#[test]
fn a_final_reduce_holds_the_watermark_back_until_it_has_emitted() {
    let words: Vec<(String, u32)> = (0..50).map(|n| (format!("word {}", n % 5), n)).collect();
    let sum = |so_far: &mut (String, u32), next: &mut (String, u32)| so_far.1 += next.1;
    // The helper checks the order of results and signals.
    let sums = results_of(&words, PLENTY, |_| Ok(FinalReduce::new(KeyOfPair, sum)));
    let expected = (0..5u32).map(|k| ((format!("word {k}"), 10 * k + 5 * 45), MAX_WATERMARK));
    assert_eq!(sorted(sums), sorted(expected));
}

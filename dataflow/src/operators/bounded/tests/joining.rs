//! Joins, co-groups and cross products against nested loops.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::key::{ByRef, ByValue, KeySelector};
use crate::operator::Collector;
use crate::operators::bounded::co_group::CoGroup;
use crate::operators::bounded::cross::Cross;
use crate::operators::bounded::join::{Join, Unmatched};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::results::Results;

type Left = (String, u32);
type Right = (u32, String);
type Pair = (Option<Left>, Option<Right>);

fn left_key() -> impl KeySelector<Left, Key = String> {
    fn key(left: &Left) -> &String {
        &left.0
    }
    ByRef::new(key as fn(&Left) -> &String)
}

fn right_key() -> impl KeySelector<Right, Key = String> {
    ByValue::new(|right: &Right| right.1.clone())
}

/// Few keys, so that each has several records, and some have none on a side.
fn sides() -> impl Strategy<Value = (Vec<Left>, Vec<Right>)> {
    let left = ("[ab]{1,3}", 0u32..1000);
    let right = (0u32..1000, "[ab]{1,3}");
    (prop::collection::vec(left, 0..60), prop::collection::vec(right, 0..60))
}

fn memory() -> impl Strategy<Value = usize> {
    prop_oneof![Just(PLENTY), 16usize..8192]
}

fn joined(lefts: &[Left], rights: &[Right], unmatched: Unmatched, memory_bytes: usize) -> Vec<(Pair, i64)> {
    results_of_two(lefts, rights, memory_bytes, |ctx| {
        let pair = |left: Option<&Left>, right: Option<&Right>, out: &mut Collector<Pair>| {
            out.collect((left.cloned(), right.cloned()));
        };
        Ok(Join::<_, _, Left, Right, Pair, _>::new(left_key(), right_key(), unmatched, pair, ctx))
    })
}

/// By nested loops; timestamps as the helper of these tests gives them.
fn expected(lefts: &[Left], rights: &[Right], unmatched: Unmatched) -> Vec<(Pair, i64)> {
    let mut pairs = Vec::new();
    for (left, time) in lefts.iter().zip(0..) {
        let matching = rights.iter().zip(1000..).filter(|(right, _)| right.1 == left.0);
        let before = pairs.len();
        pairs.extend(matching.map(|(right, time)| ((Some(left.clone()), Some(right.clone())), time)));
        if pairs.len() == before && unmatched.left {
            pairs.push(((Some(left.clone()), None), time));
        }
    }
    for (right, time) in rights.iter().zip(1000..) {
        if unmatched.right && lefts.iter().all(|left| left.0 != right.1) {
            pairs.push(((None, Some(right.clone())), time));
        }
    }
    pairs.sort();
    pairs
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn joins_of_all_kinds_pair_as_nested_loops_do(
        (lefts, rights) in sides(),
        left: bool,
        right: bool,
        memory_bytes in memory(),
    ) {
        let unmatched = Unmatched { left, right };
        prop_assert_eq!(
            sorted(joined(&lefts, &rights, unmatched, memory_bytes)),
            expected(&lefts, &rights, unmatched)
        );
    }

    #[test]
    fn one_key_with_many_records_on_both_sides_is_paired_through_files(
        left_count in 0u32..60,
        right_count in 0u32..60,
        memory_bytes in 16usize..2000,
    ) {
        let lefts: Vec<Left> = (0..left_count).map(|n| ("same".to_string(), n)).collect();
        let rights: Vec<Right> = (0..right_count).map(|n| (n, "same".to_string())).collect();
        let inner = Unmatched { left: false, right: false };
        prop_assert_eq!(
            sorted(joined(&lefts, &rights, inner, memory_bytes)),
            expected(&lefts, &rights, inner)
        );
    }

    #[test]
    fn co_groups_have_every_key_once_with_all_records_in_order(
        (lefts, rights) in sides(),
        memory_bytes in memory(),
    ) {
        type Grouped = (String, Vec<u32>, Vec<u32>);
        let group = |key: &String,
                     lefts: Records<'_, Left>,
                     rights: Records<'_, Right>,
                     out: &mut Results<'_, Grouped>| {
            let (lefts, rights) = (lefts.map(|left| left.1).collect(), rights.map(|right| right.0).collect());
            out.collect((key.clone(), lefts, rights));
        };
        let groups = results_of_two(&lefts, &rights, memory_bytes, |ctx| {
            Ok(CoGroup::<_, _, Left, Right, Grouped, _>::new(left_key(), right_key(), group, ctx))
        });
        let mut expected: BTreeMap<String, (Vec<u32>, Vec<u32>, i64)> = BTreeMap::new();
        for (left, time) in lefts.into_iter().zip(0..) {
            let group = expected.entry(left.0).or_default();
            group.0.push(left.1);
            group.2 = time;
        }
        for (right, time) in rights.into_iter().zip(1000..) {
            let group = expected.entry(right.1).or_default();
            group.1.push(right.0);
            group.2 = time;
        }
        let expected: Vec<(Grouped, i64)> =
            expected.into_iter().map(|(key, (lefts, rights, time))| ((key, lefts, rights), time)).collect();
        prop_assert_eq!(sorted(groups), expected);
    }

    #[test]
    fn a_cross_product_pairs_each_with_each(
        lefts in prop::collection::vec("[a-z]{0,20}", 0..40),
        rights in prop::collection::vec(any::<u32>(), 0..40),
        memory_bytes in memory(),
    ) {
        let pairs = results_of_two(&lefts, &rights, memory_bytes, |ctx| {
            let pair = |left: &String, right: &u32, out: &mut Collector<(String, u32)>| {
                out.collect((left.clone(), *right));
            };
            Ok(Cross::<String, u32, (String, u32), _>::new(pair, ctx))
        });
        let expected = lefts.iter().flat_map(|left| {
            rights.iter().zip(1000..).map(move |(right, time)| ((left.clone(), *right), time))
        });
        prop_assert_eq!(sorted(pairs), sorted(expected.collect()));
    }
}

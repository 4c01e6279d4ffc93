//! Programs of the DataSet vocabulary on the embedded cluster: the same answer in streaming and in batch execution, at
//! several parallelisms, with moved and with encoded batches, with room for their input in memory and without.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use flott::dataflow::batch::Record;
use flott::prelude::*;
use support::shapes;

/// Orders: number, customer, amount.
type Purchase = (u32, String, i64);
/// Customers: name, city.
type Customer = (String, String);

fn purchases() -> Vec<Purchase> {
    (0..500u32).map(|n| (n, format!("customer {}", n * 7919 % 37), i64::from(n * 31 % 101))).collect()
}

fn customers() -> Vec<Customer> {
    (20..60).map(|n| (format!("customer {n}"), format!("city {}", n % 7))).collect()
}

/// Bytes that an operator may keep in memory: everything, or next to nothing.
const MEMORY_BYTES: [usize; 2] = [64 << 20, 2 << 10];

/// Runs a program in every shape, with much and with little memory; gives the answer that all of them must give, in
/// order.
fn answer<T: Record + Debug + Ord>(
    program: impl Fn(DataStream<Purchase>, DataStream<Customer>) -> DataStream<T>,
) -> Vec<T> {
    let mut first: Option<Vec<T>> = None;
    for shape in shapes() {
        for memory_bytes in MEMORY_BYTES {
            let records = shape.run(|env| {
                env.configure(|options| options.settings.operator_memory_bytes = memory_bytes);
                program(env.from_collection(purchases()), env.from_collection(customers()))
            });
            let records = sorted(records.unwrap_or_else(|error| panic!("{shape:?}: {error:?}")));
            match &first {
                Some(first) => assert_eq!(&records, first, "{shape:?}, {memory_bytes} bytes"),
                None => first = Some(records),
            }
        }
    }
    first.expect("there is a shape")
}

/// In order, as answers are compared.
fn sorted<T: Ord>(records: impl IntoIterator<Item = T>) -> Vec<T> {
    support::sorted(records.into_iter().collect())
}

fn by_customer() -> BTreeMap<String, Vec<Purchase>> {
    let mut groups: BTreeMap<String, Vec<Purchase>> = BTreeMap::new();
    purchases().into_iter().for_each(|purchase| groups.entry(purchase.1.clone()).or_default().push(purchase));
    groups
}

#[test]
fn distinct_gives_each_value_once() {
    let expected: BTreeSet<String> = purchases().into_iter().map(|purchase| purchase.1).collect();
    assert_eq!(answer(|purchases, _| purchases.map(|p| p.1).distinct()), sorted(expected));
    let names = answer(|purchases, _| purchases.distinct_by(|p| p.1.clone()).map(|p| p.1));
    assert_eq!(names, sorted(by_customer().into_keys()));
}

#[test]
fn counts_are_whole_and_that_of_nothing_is_zero() {
    assert_eq!(answer(|purchases, _| purchases.count()), [500]);
    assert_eq!(answer(|purchases, _| purchases.filter(|_| false).count()), [0]);
    let expected = by_customer().into_iter().map(|(name, group)| (name, group.len() as u64));
    assert_eq!(answer(|purchases, _| purchases.key_by(|p| p.1.clone()).count()), sorted(expected));
}

#[test]
fn first_n_gives_so_many_records_of_the_stream_and_of_each_key() {
    assert_eq!(answer(|purchases, _| purchases.first_n(10).count()), [10]);
    assert_eq!(answer(|purchases, _| purchases.first_n(1000).count()), [500]);
    let counts = answer(|purchases, _| {
        purchases.key_by_ref(|p| &p.1).first_n(3).key_by_ref(|p| &p.1).count().map(|(_, count)| count)
    });
    assert_eq!(counts, vec![3; 37]);
}

#[test]
fn the_best_of_each_key_are_found() {
    let best = answer(|purchases, _| {
        purchases.key_by_ref(|p| &p.1).sort_group(|p| (p.2, p.0), Order::Descending).first_n(2)
    });
    let expected = by_customer().into_values().flat_map(|mut group| {
        group.sort_by_key(|p| std::cmp::Reverse((p.2, p.0)));
        group.truncate(2);
        group
    });
    assert_eq!(best, sorted(expected));
}

#[test]
fn a_group_is_read_in_its_order() {
    let lines = answer(|purchases, _| {
        purchases.key_by_ref(|p| &p.1).sort_group_by(|a, b| (a.2, a.0).cmp(&(b.2, b.0))).reduce_group(
            |name, purchases, out| {
                let amounts: Vec<String> = purchases.map(|p| p.2.to_string()).collect();
                out.collect(format!("{name}: {}", amounts.join(" ")));
            },
        )
    });
    let expected = by_customer().into_iter().map(|(name, mut group)| {
        group.sort_by_key(|p| p.2);
        let amounts: Vec<String> = group.iter().map(|p| p.2.to_string()).collect();
        format!("{name}: {}", amounts.join(" "))
    });
    assert_eq!(lines, sorted(expected));
}

#[test]
fn a_function_may_leave_records_unread_and_emit_many() {
    let results = answer(|purchases, _| {
        purchases.key_by_ref(|p| &p.1).reduce_group(|name, mut purchases, out| {
            let first = purchases.next();
            (0..100).for_each(|n| out.collect((name.clone(), n, first.is_some())));
        })
    });
    assert_eq!(results.len(), 3700);
    assert!(results.iter().all(|(_, _, found)| *found));
}

#[test]
fn partitions_are_sorted_and_mapped_as_a_whole() {
    let is_sorted = answer(|purchases, _| {
        purchases
            .sort_partition(|p| (p.2, p.0), Order::Descending)
            .map_partition(|purchases, out| {
                let keys: Vec<(i64, u32)> = purchases.map(|p| (p.2, p.0)).collect();
                keys.windows(2).for_each(|pair| out.collect(pair[0] > pair[1]));
            })
            .distinct()
    });
    assert_eq!(is_sorted, [true]);
    let total = answer(|purchases, _| {
        let parts =
            purchases.map_partition(|purchases, out| out.collect(purchases.map(|p| p.2).sum::<i64>()));
        parts.reduce_all(|so_far, next| *so_far += *next)
    });
    assert_eq!(total, [purchases().iter().map(|p| p.2).sum::<i64>()]);
}

#[test]
fn a_stream_is_reduced_to_one_record() {
    let all = purchases();
    let largest = answer(|purchases, _| purchases.max_by_all(|p| (p.2, p.0)));
    assert_eq!(largest, [all.iter().max_by_key(|p| (p.2, p.0)).cloned().unwrap()]);
    let smallest = answer(|purchases, _| purchases.min_by_all(|p| (p.2, p.0)));
    assert_eq!(smallest, [all.iter().min_by_key(|p| (p.2, p.0)).cloned().unwrap()]);
    let sum = answer(|purchases, _| purchases.sum_all(|p| &mut p.2).map(|p| p.2));
    assert_eq!(sum, [all.iter().map(|p| p.2).sum::<i64>()]);
    assert_eq!(answer(|purchases, _| purchases.filter(|_| false).sum_all(|p| &mut p.2)), []);
}

/// The mean amount, in tenths.
#[derive(Clone)]
struct Mean;

impl AggregateFunction for Mean {
    type In = Purchase;
    type Accumulator = (i64, i64);
    type Out = i64;

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add(&self, (sum, count): &mut (i64, i64), purchase: Purchase) {
        *sum += purchase.2;
        *count += 1;
    }

    fn merge(&self, (sum, count): &mut (i64, i64), other: &(i64, i64)) {
        *sum += other.0;
        *count += other.1;
    }

    fn result(&self, (sum, count): &(i64, i64)) -> i64 {
        sum * 10 / count
    }
}

#[test]
fn aggregates_are_final() {
    let mean = |group: &[Purchase]| group.iter().map(|p| p.2).sum::<i64>() * 10 / group.len() as i64;
    let means = answer(|purchases, _| purchases.key_by_ref(|p| &p.1).aggregate(Mean));
    assert_eq!(means, sorted(by_customer().into_iter().map(|(name, group)| (name, mean(&group)))));
    assert_eq!(answer(|purchases, _| purchases.aggregate_all(Mean)), [mean(&purchases())]);
}

#[test]
fn a_final_value_of_each_key_survives_a_rolling_reduce() {
    let sums = answer(|purchases, _| {
        // Streaming execution emits every sum so far, batch execution the last ones.
        let sums = purchases.key_by_ref(|p| &p.1).sum(|p| &mut p.2);
        sums.key_by_ref(|p| &p.1).max_by(|p| p.2).key_by_ref(|p| &p.1).reduce_group(|name, sums, out| {
            out.collect((name.clone(), sums.map(|p| p.2).max()));
        })
    });
    let expected = by_customer().into_iter();
    let expected = expected.map(|(name, group)| (name, Some(group.iter().map(|p| p.2).sum())));
    assert_eq!(sums, sorted(expected));
}

#[test]
fn joins_pair_what_has_the_same_key() {
    let cities: BTreeMap<String, String> = customers().into_iter().collect();
    let bought: BTreeSet<String> = purchases().into_iter().map(|p| p.1).collect();
    let pairs = || purchases().into_iter().filter_map(|p| Some((Some(p.0), Some(cities.get(&p.1)?.clone()))));
    let lefts = || purchases().into_iter().filter(|p| !cities.contains_key(&p.1)).map(|p| (Some(p.0), None));
    let rights = || customers().into_iter().filter(|c| !bought.contains(&c.0)).map(|c| (None, Some(c.1)));

    let inner = answer(|purchases, customers| {
        purchases
            .key_by_ref(|p| &p.1)
            .join(&customers.key_by_ref(|c| &c.0))
            .with(|p, c| (Some(p.0), Some(c.1.clone())))
    });
    assert_eq!(inner, sorted(pairs()));
    let left = answer(|purchases, customers| {
        purchases
            .key_by_ref(|p| &p.1)
            .left_outer_join(&customers.key_by_ref(|c| &c.0))
            .with(|p, c| (Some(p.0), c.map(|c| c.1.clone())))
    });
    assert_eq!(left, sorted(pairs().chain(lefts())));
    let right = answer(|purchases, customers| {
        purchases
            .key_by_ref(|p| &p.1)
            .right_outer_join(&customers.key_by(|c| c.0.clone()))
            .with(|p, c| (p.map(|p| p.0), Some(c.1.clone())))
    });
    assert_eq!(right, sorted(pairs().chain(rights())));
    let full = answer(|purchases, customers| {
        purchases
            .key_by_ref(|p| &p.1)
            .full_outer_join(&customers.key_by_ref(|c| &c.0))
            .with_flat(|p, c, out| out.collect((p.map(|p| p.0), c.map(|c| c.1.clone()))))
    });
    assert_eq!(full, sorted(pairs().chain(lefts()).chain(rights())));
}

#[test]
fn a_stream_joins_itself() {
    let pairs = answer(|purchases, _| {
        let keyed = purchases.filter(|p| p.0 < 100).key_by_ref(|p| &p.1);
        keyed.join(&keyed).with(|a, b| (a.0, b.0))
    });
    let small: Vec<Purchase> = purchases().into_iter().filter(|p| p.0 < 100).collect();
    let expected =
        small.iter().flat_map(|a| small.iter().filter(move |b| a.1 == b.1).map(move |b| (a.0, b.0)));
    assert_eq!(pairs, sorted(expected));
}

#[test]
fn co_groups_see_all_of_both_sides() {
    let groups = answer(|purchases, customers| {
        purchases.key_by_ref(|p| &p.1).co_group(
            &customers.key_by_ref(|c| &c.0),
            |name, purchases, customers, out| {
                out.collect((name.clone(), purchases.count(), customers.count()))
            },
        )
    });
    let mut expected: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    purchases().into_iter().for_each(|p| expected.entry(p.1).or_default().0 += 1);
    customers().into_iter().for_each(|c| expected.entry(c.0).or_default().1 += 1);
    assert_eq!(groups, sorted(expected.into_iter().map(|(name, (left, right))| (name, left, right))));
}

#[test]
fn a_cross_product_has_every_pair() {
    let pairs = answer(|purchases, customers| purchases.cross(&customers, |p, c| (p.0, c.0.clone())));
    let expected = purchases().into_iter().flat_map(|p| customers().into_iter().map(move |c| (p.0, c.0)));
    assert_eq!(pairs, sorted(expected));
}

#[test]
fn streams_of_different_environments_are_refused() {
    let (env, other) = (StreamEnv::new(), StreamEnv::new());
    let left = env.from_collection(purchases());
    let right = other.from_collection(customers());
    let crossed = left.cross(&right, |purchase, _| purchase.0);
    crossed.collect_into(&Collected::new());
    let error = env.execute("cross").unwrap_err();
    assert!(error.to_string().contains("Cross of streams of different environments"), "{error}");
}

#[test]
fn long_emissions_come_to_an_end() {
    // More than an operator handles before it lets others have the thread.
    let counted = answer_of_numbers(|numbers| {
        let pairs = numbers.cross(&numbers, |a, b| (a * 7 + b) % 3);
        let groups = pairs.key_by(|n| *n).reduce_group(|n, all, out| all.for_each(|_| out.collect(*n)));
        groups.sort_partition(|n| *n, Order::Descending).count()
    });
    assert_eq!(counted, [90_000]);
}

fn answer_of_numbers<T: Record + Debug + Ord>(program: impl Fn(DataStream<u32>) -> DataStream<T>) -> Vec<T> {
    let mut answers = shapes().into_iter().map(|shape| {
        let records = shape.run(|env| program(env.from_collection((0..300u32).collect())));
        sorted(records.unwrap_or_else(|error| panic!("{shape:?}: {error:?}")))
    });
    let first = answers.next().expect("there is a shape");
    answers.for_each(|other| assert_eq!(other, first));
    first
}

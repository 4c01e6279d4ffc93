//! Many programs, each in streaming and batch execution, at several parallelisms, with moved and with encoded batches:
//! the final answer is always the same.

mod support;

use std::fmt::Debug;

use flott::dataflow::batch::Record;
use flott::prelude::*;
use serde::{Deserialize, Serialize};
use support::{Shape, last_by_key, shapes, sorted};

/// Runs a program in every shape and compares its final answer.
fn check<T: Record, A: PartialEq + Debug>(
    build: impl Fn(&StreamEnv) -> DataStream<T>,
    final_answer: impl Fn(Vec<T>) -> A,
    expected: A,
) {
    for shape in shapes() {
        let records = shape.run(&build).unwrap_or_else(|error| panic!("{shape:?}: {error:?}"));
        assert_eq!(final_answer(records), expected, "{shape:?}");
    }
}

const TEXT: [&str; 4] = [
    "to be or not to be",
    "that is the question",
    "whether tis nobler in the mind to suffer",
    "the slings and arrows",
];

fn words(env: &StreamEnv) -> DataStream<(String, u64)> {
    env.from_collection(TEXT.map(str::to_string).to_vec())
        .flat_map(|line: String, out| line.split(' ').for_each(|word| out.collect((word.to_string(), 1))))
}

fn expected_counts() -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for word in TEXT.iter().flat_map(|line| line.split(' ')) {
        *counts.entry(word.to_string()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn word_count() {
    check(
        |env| words(env).key_by_ref(|(word, _)| word).sum(|(_, count)| count),
        last_by_key,
        expected_counts(),
    );
}

#[test]
fn word_count_with_a_computed_key_and_reduce() {
    let build = |env: &StreamEnv| {
        words(env).key_by(|(word, _)| word.clone()).reduce(|so_far, next| so_far.1 += next.1)
    };
    check(build, last_by_key, expected_counts());
}

#[test]
fn map_filter_and_flat_map_keep_every_record() {
    let build = |env: &StreamEnv| {
        env.sequence(1, 5000).map(|n| n * 3).filter(|n| n % 2 == 0).flat_map(|n, out| {
            out.collect(n);
            out.collect(n + 1);
        })
    };
    let expected: Vec<u64> =
        (1..=5000).map(|n| n * 3).filter(|n| n % 2 == 0).flat_map(|n| [n, n + 1]).collect();
    check(build, sorted, expected);
}

#[test]
fn every_partitioning_delivers_every_record_as_often_as_it_should() {
    let expected: Vec<u64> = (1..=2000).collect();
    let partitionings: [(&str, fn(&DataStream<u64>) -> DataStream<u64>); 6] = [
        ("rebalance", |stream| stream.rebalance()),
        ("rescale", |stream| stream.rescale()),
        ("shuffle", |stream| stream.shuffle()),
        ("global", |stream| stream.global()),
        ("forward", |stream| stream.forward()),
        ("custom", |stream| stream.partition_custom(|n, targets| (*n % 7) as usize % targets)),
    ];
    for (name, partition) in partitionings {
        for shape in shapes() {
            let records = shape.run(|env| partition(&env.sequence(1, 2000)).map(|n| n)).unwrap();
            assert_eq!(sorted(records), expected, "{name} {shape:?}");
        }
    }
    for shape in shapes() {
        let records = shape.run(|env| env.sequence(1, 100).broadcast().map(|n| n)).unwrap();
        assert_eq!(records.len(), 100 * shape.parallelism as usize, "broadcast {shape:?}");
    }
}

#[test]
fn pointwise_edges_between_different_parallelisms() {
    for (up, down) in [(1, 4), (4, 1), (2, 3), (3, 2)] {
        for shape in shapes() {
            let build =
                |env: &StreamEnv| env.sequence(1, 999).parallelism(up).rescale().map(|n| n).parallelism(down);
            assert_eq!(
                sorted(shape.run(build).unwrap()),
                (1..=999).collect::<Vec<u64>>(),
                "{up}->{down} {shape:?}"
            );
        }
    }
}

#[test]
fn union_and_reading_a_stream_twice() {
    let build = |env: &StreamEnv| {
        let small = env.sequence(1, 100);
        let large = env.sequence(1000, 1100);
        small.union(&[&large, &small.map(|n| n + 10_000)])
    };
    let expected = (1..=100).chain(1000..=1100).chain(10_001..=10_100).collect::<Vec<u64>>();
    check(build, sorted, expected);
}

#[derive(Clone)]
struct SplitByParity {
    odd: OutputTag<u64>,
}

impl ProcessFunction<u64, u64> for SplitByParity {
    fn process(&mut self, n: u64, ctx: &mut ProcessContext<'_, u64>) -> flott::Result<()> {
        if n.is_multiple_of(2) {
            ctx.collect(n)
        } else {
            ctx.side(&self.odd, n)
        }
        Ok(())
    }
}

#[test]
fn side_outputs_are_streams_of_their_own() {
    let build = |env: &StreamEnv| {
        let odd = OutputTag::new("odd");
        let even = env.sequence(1, 1000).process(SplitByParity { odd: odd.clone() });
        even.side_output(&odd).map(|n| (1u8, n)).union(&[&even.map(|n| (0u8, n))])
    };
    let mut expected: Vec<(u8, u64)> = (1..=1000).map(|n| ((n % 2) as u8, n)).collect();
    expected.sort_unstable();
    check(build, sorted, expected);
}

#[test]
fn sums_minima_and_maxima() {
    let records = |env: &StreamEnv| env.sequence(0, 999).map(|n| (n % 10, (n * 7919) % 1000));
    let of_key = |key: u64| (0..1000u64).filter(move |n| n % 10 == key).map(|n| (n * 7919) % 1000);
    let expect = |f: fn(&mut dyn Iterator<Item = u64>) -> u64| -> Vec<(u64, u64)> {
        (0..10).map(|key| (key, f(&mut of_key(key)))).collect()
    };
    check(|env| records(env).key_by(|r| r.0).sum(|r| &mut r.1), last_by_key, expect(|values| values.sum()));
    check(
        |env| records(env).key_by(|r| r.0).min(|r| &mut r.1),
        last_by_key,
        expect(|values| values.min().unwrap()),
    );
    check(
        |env| records(env).key_by(|r| r.0).max(|r| &mut r.1),
        last_by_key,
        expect(|values| values.max().unwrap()),
    );
    check(
        |env| records(env).key_by(|r| r.0).min_by(|r| r.1),
        last_by_key,
        expect(|values| values.min().unwrap()),
    );
    check(
        |env| records(env).key_by(|r| r.0).max_by(|r| r.1),
        last_by_key,
        expect(|values| values.max().unwrap()),
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Click {
    user: String,
    at_ms: i64,
}

/// Counts the clicks of a user and reports the count 100 ms after the last one.
#[derive(Clone, Default)]
struct CountUntilQuiet {
    count: ValueState<u64>,
    last: ValueState<i64>,
}

impl KeyedProcessFunction<String, Click, (String, u64)> for CountUntilQuiet {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.count = ctx.value_state("count")?;
        self.last = ctx.value_state("last")?;
        Ok(())
    }

    fn process(
        &mut self,
        click: Click,
        ctx: &mut KeyedContext<'_, String, (String, u64)>,
    ) -> flott::Result<()> {
        self.count.update(ctx, |count| *count += 1);
        let last = self.last.get_cloned(ctx).unwrap_or(i64::MIN).max(click.at_ms);
        self.last.set(ctx, last);
        ctx.register_event_timer(last + 100);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: Timer,
        ctx: &mut KeyedContext<'_, String, (String, u64)>,
    ) -> flott::Result<()> {
        if self.last.get_cloned(ctx).map(|last| last + 100) == Some(timer.timestamp_ms) {
            let count = self.count.take(ctx).unwrap_or_default();
            self.last.clear(ctx);
            let user = ctx.key().clone();
            ctx.collect((user, count));
        }
        Ok(())
    }
}

#[test]
fn keyed_state_and_event_time_timers() {
    let clicks: Vec<(Click, i64)> = (0..300)
        .map(|n: i64| Click { user: format!("user {}", n % 5), at_ms: (n / 5) * 10 })
        .map(|click| (click.clone(), click.at_ms))
        .collect();
    let build = move |env: &StreamEnv| {
        env.from_timestamped(clicks.clone())
            .assign_timestamps_and_watermarks(
                WatermarkStrategy::monotonous().with_timestamp(|click: &Click| click.at_ms),
            )
            .key_by_ref(|click| &click.user)
            .process(CountUntilQuiet::default())
    };
    let expected: Vec<(String, u64)> = (0..5).map(|user| (format!("user {user}"), 60)).collect();
    // Several source tasks read the clicks in no common order: within a pause of 100 ms all must be seen, so one task.
    for shape in shapes() {
        let shape = Shape { parallelism: 1, ..shape };
        assert_eq!(sorted(shape.run(&build).unwrap()), expected, "{shape:?}");
    }
}

#[test]
fn without_chaining_the_answer_is_the_same() {
    for shape in shapes() {
        let records = shape
            .run(|env| {
                env.disable_operator_chaining();
                words(env).map(|word| word).key_by_ref(|(word, _)| word).sum(|(_, count)| count)
            })
            .unwrap();
        assert_eq!(last_by_key(records), expected_counts(), "{shape:?}");
    }
}

#[test]
fn slot_sharing_groups_and_buffer_timeouts_do_not_change_the_answer() {
    for shape in shapes() {
        for timeout_ms in [0, 5, -1] {
            let records = shape
                .run(|env| {
                    env.set_buffer_timeout(timeout_ms);
                    words(env)
                        .slot_sharing_group("readers")
                        .key_by_ref(|(word, _)| word)
                        .sum(|(_, count)| count)
                        .slot_sharing_group("counters")
                })
                .unwrap();
            assert_eq!(last_by_key(records), expected_counts(), "{shape:?} {timeout_ms}");
        }
    }
}

//! Programs over two streams, and programs that call services, in every shape.

mod support;

use flott::prelude::*;
use support::{shapes, sorted};

type Row = (u64, u64);

/// Every pair of records of a key, whatever comes first.
#[derive(Clone, Default)]
struct Pairs {
    left: ListState<u64>,
    right: ListState<u64>,
}

impl KeyedCoProcessFunction<u64, Row, Row, (u64, u64, u64)> for Pairs {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.left = ctx.list_state("left")?;
        self.right = ctx.list_state("right")?;
        Ok(())
    }

    fn process_left(
        &mut self,
        (key, left): Row,
        ctx: &mut KeyedContext<'_, u64, (u64, u64, u64)>,
    ) -> flott::Result<()> {
        self.left.add(ctx, left);
        let partners: Vec<u64> = self.right.iter(ctx).copied().collect();
        partners.into_iter().for_each(|right| ctx.collect((key, left, right)));
        Ok(())
    }

    fn process_right(
        &mut self,
        (key, right): Row,
        ctx: &mut KeyedContext<'_, u64, (u64, u64, u64)>,
    ) -> flott::Result<()> {
        self.right.add(ctx, right);
        let partners: Vec<u64> = self.left.iter(ctx).copied().collect();
        partners.into_iter().for_each(|left| ctx.collect((key, left, right)));
        Ok(())
    }
}

#[test]
fn two_streams_meet_in_the_state_of_their_key() {
    let mut expected = Vec::new();
    for left in 0..200u64 {
        expected
            .extend((0..100).filter(|right| right % 20 == left % 20).map(|right| (left % 20, left, right)));
    }
    expected.sort_unstable();
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            let left = env.sequence(0, 199).map(|n| (n % 20, n));
            let right = env.sequence(0, 99).map(|n| (n % 20, n));
            left.key_by(|row| row.0).connect(&right.key_by(|row| row.0)).process(Pairs::default())
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

#[test]
fn connected_streams_are_mapped_by_their_own_functions() {
    let expected: Vec<String> = sorted((1..=500).flat_map(|n| [format!("l{n}"), format!("r{n}")]).collect());
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            let (left, right) = (env.sequence(1, 500), env.sequence(1, 500).map(|n| n.to_string()));
            left.connect(&right).map(|n| format!("l{n}"), |n| format!("r{n}"))
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

/// Key and time, in order of time, from one task: so that nothing is late.
fn timed(env: &StreamEnv, count: i64, step_ms: i64, keys: i64) -> DataStream<(i64, i64)> {
    let rows = (0..count).map(|n| ((n % keys, n * step_ms), n * step_ms)).collect();
    let strategy = WatermarkStrategy::monotonous().with_timestamp(|row: &(i64, i64)| row.1);
    env.from_timestamped(rows).parallelism(1).assign_timestamps_and_watermarks(strategy).parallelism(1)
}

#[test]
fn the_interval_join_finds_every_pair() {
    let mut expected = Vec::new();
    for left in (0..600).map(|n| (n % 5, n * 7)) {
        let near = |right: &(i64, i64)| right.0 == left.0 && (left.1 - 50..left.1 + 20).contains(&right.1);
        expected
            .extend((0..400).map(|n| (n % 5, n * 11)).filter(near).map(|right| (left.0, left.1, right.1)));
    }
    expected.sort_unstable();
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            let left = timed(env, 600, 7, 5).key_by(|row| row.0);
            let right = timed(env, 400, 11, 5).key_by(|row| row.0);
            left.interval_join(&right)
                .between(-50, 20)
                .upper_bound_exclusive()
                .join(|left, right| (left.0, left.1, right.1))
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

/// Multiplies numbers by a broadcast factor; numbers that come before it wait in the state of their key.
#[derive(Clone)]
struct Multiply {
    factor: BroadcastState<u8, u64>,
    waiting: ListState<u64>,
}

impl KeyedBroadcastProcessFunction<u64, u64, u64, u64> for Multiply {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.waiting = ctx.list_state("waiting")?;
        Ok(())
    }

    fn process(&mut self, n: u64, ctx: &mut KeyedReadOnlyContext<'_, u64, u64>) -> flott::Result<()> {
        match ctx.broadcast_state(&self.factor)?.get(&0) {
            Some(factor) => ctx.collect(n * factor),
            None => self.waiting.add(ctx, n),
        }
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        factor: u64,
        ctx: &mut KeyedBroadcastContext<'_, u64, u64>,
    ) -> flott::Result<()> {
        ctx.broadcast_state(&self.factor)?.put(0, factor);
        ctx.apply_to_keyed_state(|_, key| {
            self.waiting.take(key).into_iter().for_each(|n| key.collect(n * factor));
            Ok(())
        })
    }
}

#[test]
fn broadcast_state_reaches_every_task_and_the_state_of_every_key() {
    let expected: Vec<u64> = (1..=3000).map(|n| n * 3).collect();
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            let factor = BroadcastState::new("factor");
            let factors = env.sequence(3, 3).broadcast_state(&factor);
            let function = Multiply { factor, waiting: ListState::default() };
            env.sequence(1, 3000).key_by(|n| n % 97).connect_broadcast(&factors).process(function)
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

/// Passes on the numbers that were broadcast before them.
#[derive(Clone)]
struct Known(BroadcastState<u64, ()>);

impl BroadcastProcessFunction<u64, u64, u64> for Known {
    fn process(&mut self, n: u64, ctx: &mut ReadOnlyContext<'_, u64>) -> flott::Result<()> {
        if ctx.broadcast_state(&self.0)?.contains(&n) {
            ctx.collect(n);
        }
        Ok(())
    }

    fn process_broadcast(&mut self, n: u64, ctx: &mut BroadcastContext<'_, u64>) -> flott::Result<()> {
        ctx.broadcast_state(&self.0)?.put(n, ());
        Ok(())
    }
}

/// One source feeds both sides: neither may wait for the other to be read.
#[test]
fn in_batch_execution_the_broadcast_side_comes_first() {
    let expected: Vec<u64> = (1..=20_000).filter(|n| n % 3 == 0).collect();
    for shape in shapes().into_iter().filter(|shape| shape.mode == RuntimeMode::Batch) {
        let build = |env: &StreamEnv| {
            let known = BroadcastState::new("known");
            let numbers = env.sequence(1, 20_000);
            let broadcast = numbers.filter(|n| n % 3 == 0).broadcast_state(&known);
            numbers.connect_broadcast(&broadcast).process(Known(known))
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

async fn slow_square(n: u64) -> flott::Result<u64> {
    tokio::time::sleep(Duration::from_millis(n % 4)).await;
    Ok(n * n)
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn every_asynchronous_call_is_answered() {
    let expected: Vec<u64> = (1..=2000).map(|n| n * n + 1).collect();
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            // Two in one chain, and one behind an exchange.
            env.sequence(1, 2000)
                .async_map_unordered(MINUTE, 100, slow_square)
                .async_map_ordered(MINUTE, 20, |n| async move { Ok(n + 1) })
                .shuffle()
                .async_map_ordered(MINUTE, 1000, |n| async move {
                    tokio::task::yield_now().await;
                    Ok(n)
                })
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

#[test]
fn ordered_calls_keep_the_order() {
    let expected: Vec<u64> = (1..=1000).map(|n| n * n).collect();
    for shape in shapes().into_iter().filter(|shape| shape.parallelism == 1) {
        let build = |env: &StreamEnv| env.sequence(1, 1000).async_map_ordered(MINUTE, 64, slow_square);
        assert_eq!(shape.run(build).unwrap(), expected, "{shape:?}");
    }
}

/// Watermarks pass through calls in flight, in the same task as what they are for.
#[test]
fn asynchronous_calls_in_front_of_an_interval_join() {
    let expected: Vec<i64> = (0..300).map(|n| n * 7).collect();
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            let strategy = WatermarkStrategy::monotonous().with_timestamp(|row: &(i64, i64)| row.1);
            let called = timed(env, 300, 7, 5)
                .async_map_unordered(MINUTE, 10, |row| async move {
                    tokio::time::sleep(Duration::from_millis(row.1 as u64 % 3)).await;
                    Ok(row)
                })
                .parallelism(1)
                .key_by(|row| row.0);
            let plain = timed(env, 300, 7, 5).assign_timestamps_and_watermarks(strategy).parallelism(1);
            called.interval_join(&plain.key_by(|row| row.0)).between(0, 0).join(|left, _| left.1)
        };
        assert_eq!(sorted(shape.run(build).unwrap()), expected, "{shape:?}");
    }
}

#[test]
fn a_call_without_answer_fails_the_job_and_names_the_operator() {
    for shape in shapes() {
        let build = |env: &StreamEnv| {
            env.sequence(1, 100)
                .async_map_ordered(Duration::from_millis(50), 10, |n| async move {
                    if n == 17 { std::future::pending().await } else { Ok(n) }
                })
                .name("Lookup")
        };
        let error = shape.run(build).unwrap_err().to_string();
        assert!(
            error.contains("operator 'Lookup': an asynchronous call gave no result within 50 ms"),
            "{error}"
        );
    }
}

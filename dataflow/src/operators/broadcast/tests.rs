//! Broadcast state: who may write, who reads, and what reaches the states of all keys.

use flott_schema::Result;
use flott_schema::graph::ExecutionMode;

use super::*;
use crate::context::Settings;
use crate::element::Signal;
use crate::harness::memory::MemoryKind;
use crate::harness::parallel::Parallel;
use crate::harness::{Harness, HarnessBuilder};
use crate::key::ByValue;
use crate::operators::open::OpenContext;
use crate::stage::Flow;
use crate::state::{Timer, ValueState};

/// A threshold for a kind of reading; `None` takes it back.
type Rule = (String, Option<i64>);
/// Kind and value.
type Reading = (String, i64);

#[derive(Clone)]
struct Filter {
    thresholds: BroadcastState<String, i64>,
    changes: BroadcastState<u8, u32>,
}

fn filter() -> Filter {
    Filter { thresholds: BroadcastState::new("thresholds"), changes: BroadcastState::new("changes") }
}

impl Filter {
    fn change(&self, rule: Rule, map: &mut BroadcastMap<String, i64>) {
        match rule {
            (kind, Some(threshold)) => drop(map.put(kind, threshold)),
            (kind, None) => drop(map.remove(&kind)),
        }
    }
}

impl BroadcastProcessFunction<Reading, Rule, String> for Filter {
    fn process(&mut self, (kind, value): Reading, ctx: &mut ReadOnlyContext<'_, String>) -> Result<()> {
        // Emitting while the map is borrowed is the usual thing to do.
        for (name, threshold) in ctx.broadcast_state(&self.thresholds)?.iter() {
            if *name == kind && value > *threshold {
                let changes = ctx.broadcast_state(&self.changes)?.get(&0).copied().unwrap_or(0);
                ctx.collect(format!("{kind} {value} > {threshold} (change {changes})"));
            }
        }
        Ok(())
    }

    fn process_broadcast(&mut self, rule: Rule, ctx: &mut BroadcastContext<'_, String>) -> Result<()> {
        self.change(rule, ctx.broadcast_state(&self.thresholds)?);
        let changes = ctx.broadcast_state(&self.changes)?;
        let count = changes.get(&0).copied().unwrap_or(0);
        changes.put(0, count + 1);
        Ok(())
    }
}

fn plain(function: Filter) -> Harness<Reading, Rule, String> {
    let declared = [function.thresholds.declare(), function.changes.declare()];
    HarnessBuilder::new(Settings::default())
        .two_inputs(|ctx| Ok(BroadcastProcess::new(function, &declared, ctx)))
        .unwrap()
}

#[test]
fn records_are_processed_by_what_was_broadcast_before_them() {
    let mut filter = plain(filter());
    filter.push(("heat".into(), 50), 1).unwrap();
    filter.push_right(("heat".into(), Some(30)), 2).unwrap();
    filter.push_right(("noise".into(), Some(80)), 2).unwrap();
    filter.push_all([(("heat".into(), 50), 3), (("noise".into(), 70), 3), (("heat".into(), 30), 3)]).unwrap();
    assert_eq!(filter.take(), [("heat 50 > 30 (change 2)".into(), 3)]);
    filter.push_right(("heat".into(), Some(60)), 4).unwrap();
    filter.push_right(("noise".into(), None), 4).unwrap();
    filter.push_all([(("heat".into(), 50), 5), (("noise".into(), 90), 5), (("heat".into(), 61), 5)]).unwrap();
    assert_eq!(filter.take(), [("heat 61 > 60 (change 4)".into(), 5)]);
    filter.end().unwrap();
    assert_eq!(filter.take_signals().last(), Some(&Signal::EndOfInput));
}

#[test]
fn a_state_the_stream_was_not_given_is_an_error_that_names_the_nearest() {
    let mut function = filter();
    function.changes = BroadcastState::new("chnges");
    let declared = [function.thresholds.declare(), BroadcastState::<u8, u32>::new("changes").declare()];
    let mut filter: Harness<Reading, Rule, String> = HarnessBuilder::new(Settings::default())
        .two_inputs(|ctx| Ok(BroadcastProcess::new(function, &declared, ctx)))
        .unwrap();
    let error = filter.push_right(("heat".into(), Some(30)), 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "operator 'operator under test' has no broadcast state 'chnges'; did you mean 'changes'?"
    );
}

#[test]
fn a_state_of_other_types_is_an_error_and_one_of_the_same_name_and_types_is_the_same() {
    let states = BroadcastStates::new(&[BroadcastState::<u8, u32>::new("changes").declare()], &"op".into());
    assert!(states.get(&BroadcastState::<u8, u32>::new("changes")).is_ok());
    let error = states.get(&BroadcastState::<u8, i32>::new("changes")).err().unwrap();
    assert!(
        error.to_string().contains("'changes' of operator 'op' has other types than u8 to i32"),
        "{error}"
    );
}

/// Counts readings per kind above a broadcast limit; a broadcast of the limit tells every count so far.
#[derive(Clone, Default)]
struct CountAbove {
    limit: Option<BroadcastState<u8, i64>>,
    count: ValueState<u32>,
}

impl CountAbove {
    fn limit(&self) -> &BroadcastState<u8, i64> {
        self.limit.as_ref().unwrap()
    }
}

impl KeyedBroadcastProcessFunction<String, Reading, i64, String> for CountAbove {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.count = ctx.value_state("count")?;
        Ok(())
    }

    fn process(
        &mut self,
        (_, value): Reading,
        ctx: &mut KeyedReadOnlyContext<'_, String, String>,
    ) -> Result<()> {
        let limit = ctx.broadcast_state(self.limit())?.get(&0).copied().unwrap_or(i64::MAX);
        if value > limit {
            self.count.update(ctx, |count| *count += 1);
            let until_ms = ctx.timestamp().unwrap_or_default() + 10;
            ctx.register_event_timer(until_ms);
        }
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        limit: i64,
        ctx: &mut KeyedBroadcastContext<'_, String, String>,
    ) -> Result<()> {
        ctx.broadcast_state(self.limit())?.put(0, limit);
        ctx.apply_to_keyed_state(|kind, key| {
            if let Some(count) = self.count.take(key) {
                key.collect(format!("{kind}: {count} until the limit became {limit}"));
            }
            match kind.as_str() {
                "broken" => Err(flott_schema::Error::user("a broken key")),
                _ => Ok(()),
            }
        })
    }

    fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedReadOnlyContext<'_, String, String>) -> Result<()> {
        let limit = ctx.broadcast_state(self.limit())?.get(&0).copied().unwrap_or_default();
        let count = self.count.get_cloned(ctx).unwrap_or(0);
        ctx.collect(format!("{}: {count} above {limit} at {}", ctx.key(), timer.timestamp_ms));
        Ok(())
    }
}

fn keyed() -> Harness<Reading, i64, String> {
    let limit = BroadcastState::new("limit");
    let declared = [limit.declare()];
    let function = CountAbove { limit: Some(limit), ..CountAbove::default() };
    let selector = ByValue::new(|reading: &Reading| reading.0.clone());
    HarnessBuilder::new(Settings::default())
        .two_inputs(|ctx| Ok(KeyedBroadcastProcess::new(selector, function, &declared, ctx)))
        .unwrap()
}

#[test]
fn keyed_state_and_timers_work_beside_broadcast_state() {
    let mut count = keyed();
    count.push(("heat".into(), 50), 0).unwrap();
    count.push_right(40, 1).unwrap();
    count.push_all([(("heat".into(), 50), 2), (("noise".into(), 41), 2), (("heat".into(), 45), 2)]).unwrap();
    assert_eq!(count.take(), []);
    count.watermark(12).unwrap();
    let mut fired = count.take();
    fired.sort();
    assert_eq!(fired, [("heat: 2 above 40 at 12".into(), 12), ("noise: 1 above 40 at 12".into(), 12)]);
}

#[test]
fn a_broadcast_record_reaches_the_state_of_every_key_and_nothing_of_keys_without() {
    let mut count = keyed();
    count.push_right(40, 1).unwrap();
    let many: Vec<(Reading, i64)> =
        (0..500).map(|n| ((format!("kind {}", n % 100), 30 + n % 20), n)).collect();
    count.push_all(many).unwrap();
    count.push_right(45, 600).unwrap();
    // Kinds below 100 with values above 40: those with n % 20 > 10, five readings each.
    let mut told = count.take();
    told.sort();
    assert_eq!(told.len(), 45);
    assert_eq!(told[0], ("kind 11: 5 until the limit became 45".into(), 600));
    // Taken is gone: the next limit finds no counts.
    count.push_right(50, 601).unwrap();
    assert_eq!(count.take(), []);
}

#[test]
fn an_error_for_one_key_fails_the_broadcast_record() {
    let mut count = keyed();
    count.push_right(40, 1).unwrap();
    count.push(("broken".into(), 50), 2).unwrap();
    assert_eq!(count.push_right(45, 3).unwrap_err().to_string(), "a broken key");
}

/// Says of each number how many were broadcast before it.
#[derive(Clone)]
struct Seen(BroadcastState<u8, u64>);

impl BroadcastProcessFunction<u64, u64, (u64, u64)> for Seen {
    fn process(&mut self, n: u64, ctx: &mut ReadOnlyContext<'_, (u64, u64)>) -> Result<()> {
        let seen = ctx.broadcast_state(&self.0)?.get(&0).copied().unwrap_or(0);
        ctx.collect((n, seen));
        Ok(())
    }

    fn process_broadcast(&mut self, _: u64, ctx: &mut BroadcastContext<'_, (u64, u64)>) -> Result<()> {
        let map = ctx.broadcast_state(&self.0)?;
        let seen = map.get(&0).copied().unwrap_or(0);
        map.put(0, seen + 1);
        Ok(())
    }
}

fn seen(settings: Settings) -> Harness<u64, u64, (u64, u64)> {
    let state = BroadcastState::new("seen");
    let declared = [state.declare()];
    HarnessBuilder::new(settings)
        .two_inputs(|ctx| Ok(BroadcastFirst::new(BroadcastProcess::new(Seen(state), &declared, ctx), ctx)))
        .unwrap()
}

fn batch_settings(scratch: &std::path::Path, operator_memory_bytes: usize) -> Settings {
    let mode = ExecutionMode::Batch;
    Settings { mode, scratch: scratch.into(), operator_memory_bytes, batch_size: 64, ..Settings::default() }
}

#[test]
fn in_streaming_execution_records_are_processed_as_they_come() {
    let mut seen = seen(Settings::default());
    seen.push(1, 0).unwrap();
    seen.push_right(0, 0).unwrap();
    seen.push(2, 0).unwrap();
    assert_eq!(seen.take_records(), [(1, 0), (2, 1)]);
    assert_eq!(seen.task().next_deadline_ms(), i64::MAX);
}

#[test]
fn in_batch_execution_all_that_is_broadcast_comes_first_and_what_waits_keeps_its_order() {
    let scratch = tempfile::tempdir().unwrap();
    for memory_bytes in [1 << 20, 0] {
        let mut seen = seen(batch_settings(scratch.path(), memory_bytes));
        seen.push_all((0..1000).map(|n| (n, n as i64))).unwrap();
        seen.push_right(0, 0).unwrap();
        seen.push_all((1000..1500).map(|n| (n, n as i64))).unwrap();
        seen.watermark(700).unwrap();
        seen.push_right(0, 0).unwrap();
        assert_eq!((seen.take(), seen.take_signals()), (vec![], vec![]));
        let spilled = std::fs::read_dir(scratch.path()).unwrap().count() > 0;
        assert_eq!(spilled, memory_bytes == 0);
        seen.task().input_ended(1).unwrap();
        // In front of what waits nothing may overtake.
        seen.push_all((1500..1600).map(|n| (n, n as i64))).unwrap();
        assert_eq!(seen.task().next_deadline_ms(), i64::MIN);
        seen.poll().unwrap();
        assert_eq!(seen.take(), (0..1600).map(|n| ((n, 2), n as i64)).collect::<Vec<_>>());
        seen.push(1600, 0).unwrap();
        assert_eq!(seen.take_records(), [(1600, 2)]);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        assert_eq!(seen.task().next_deadline_ms(), i64::MAX);
    }
}

#[test]
fn the_end_releases_what_waits_in_pieces_that_the_outputs_have_room_for() {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = seen(batch_settings(scratch.path(), 1 << 20));
    seen.push_right(0, 0).unwrap();
    seen.push_all((0..640).map(|n| (n, 0))).unwrap();
    let congestion = seen.context().task.congestion.clone();
    congestion.block();
    // The final watermark may come before the end of the second input is told.
    assert_eq!(seen.task().signal(Signal::Watermark(i64::MAX)).unwrap(), Flow::Again);
    assert_eq!((seen.take(), seen.task().next_deadline_ms()), (vec![], i64::MAX));
    congestion.unblock();
    seen.end().unwrap();
    assert_eq!(seen.take_records(), (0..640).map(|n| (n, 1)).collect::<Vec<_>>());
    assert_eq!(seen.take_signals(), [Signal::Watermark(i64::MAX), Signal::EndOfInput]);
}

#[test]
fn a_long_release_lets_others_have_the_thread() {
    let scratch = tempfile::tempdir().unwrap();
    let mut seen = seen(batch_settings(scratch.path(), 64 << 20));
    seen.push_all((0..200_000).map(|n| (n, 0))).unwrap();
    seen.task().input_ended(1).unwrap();
    let mut calls = 0;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while seen.task().next_deadline_ms() == i64::MIN {
        let _ = seen.task().poll(0, &mut cx).unwrap();
        calls += 1;
    }
    assert_eq!((calls, seen.take().len()), (4, 200_000));
}

#[test]
fn maps_come_back_in_every_task_at_any_parallelism() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes] {
        let mut filter = Parallel::new(2, kind, |builder| {
            let function = filter();
            let declared = [function.thresholds.declare(), function.changes.declare()];
            builder.two_inputs(|ctx| Ok(BroadcastProcess::new(function, &declared, ctx)))
        })
        .unwrap();
        filter.broadcast_right(("heat".into(), Some(30)), 0).unwrap();
        filter.broadcast_right(("noise".into(), Some(80)), 0).unwrap();
        for (change, parallelism) in (3..).zip([3, 1, 4]) {
            filter.restart(parallelism).unwrap();
            filter.broadcast_right(("noise".into(), None), 0).unwrap();
            for task in filter.tasks() {
                task.push_all([(("heat".into(), 50), 1), (("noise".into(), 90), 1)]).unwrap();
                assert_eq!(task.take_records(), [format!("heat 50 > 30 (change {change})")]);
            }
        }
    }
}

#[test]
fn keyed_state_beside_broadcast_state_comes_back_and_all_keys_are_reached() {
    // Keys are kept in memory even where they could be fetched.
    for kind in [MemoryKind::AllRows, MemoryKind::Changes, MemoryKind::Fetching { budget_bytes: 0 }] {
        let mut count: Parallel<Reading, i64, String> = Parallel::new(2, kind, |builder| {
            let limit = BroadcastState::new("limit");
            let declared = [limit.declare()];
            let function = CountAbove { limit: Some(limit), ..CountAbove::default() };
            let selector = ByValue::new(|reading: &Reading| reading.0.clone());
            builder.two_inputs(|ctx| Ok(KeyedBroadcastProcess::new(selector, function, &declared, ctx)))
        })
        .unwrap();
        count.broadcast_right(40, 1).unwrap();
        let many = (0..500).map(|n| ((format!("kind {}", n % 100), 30 + n % 20), n));
        for parallelism in [3, 1, 2] {
            count.push_all(|reading| reading.0.clone(), many.clone()).unwrap();
            count.restart(parallelism).unwrap();
        }
        count.broadcast_right(45, 600).unwrap();
        let told = count.take_sorted();
        assert_eq!(told.len(), 45);
        assert_eq!(told[0], ("kind 11: 15 until the limit became 45".into(), 600));
        count.restart(2).unwrap();
        count.broadcast_right(46, 601).unwrap();
        assert_eq!(count.take(), [], "taken is gone");
        count.watermark(10_000).unwrap();
        assert_eq!(count.take().len(), 225, "timers stay");
    }
}

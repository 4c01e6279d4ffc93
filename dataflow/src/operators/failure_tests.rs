//! Operators with several inputs or lists of their own under failures: checkpoints that overlap, complete or are given up, and starts from the
//! last complete one at other parallelisms, with all that came behind it done again. The oracle is a run in which nothing fails.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use flott_schema::Result;

use crate::codec::decode_value;
use crate::harness::memory::{MemoryKind, MemorySnapshot};
use crate::harness::parallel::Parallel;
use crate::harness::{Harness, HarnessBuilder};
use crate::key::ByValue;
use crate::operators::broadcast::{
    BroadcastContext, BroadcastProcess, BroadcastProcessFunction, BroadcastState, KeyedBroadcastContext,
    KeyedBroadcastProcess, KeyedBroadcastProcessFunction, KeyedReadOnlyContext, ReadOnlyContext,
};
use crate::operators::co_process::{KeyedCoProcess, KeyedCoProcessFunction};
use crate::operators::interval_join::{Interval, IntervalJoin, JoinOptions, JoinWith};
use crate::operators::keyed_process::KeyedContext;
use crate::operators::list_state::{ListStateHandle, SnapshotContext};
use crate::operators::open::OpenContext;
use crate::operators::process::{Process, ProcessContext, ProcessFunction};
use crate::state::{ListState, TimeDomain, Timer, ValueState};

/// Key and number.
type Row = (u8, u32);
type Tasks = Parallel<Row, Row, String>;
type Make = fn(HarnessBuilder<String>) -> Result<Harness<Row, Row, String>>;

/// What comes in; times are absolute, so that it can come again.
#[derive(Clone, Copy, Debug)]
enum Event {
    Left(Row, i64),
    Right(Row, i64),
    Watermark(i64),
    Time(i64),
}

/// What happens behind an event.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The barrier of a checkpoint.
    Barrier,
    /// What belongs to the oldest barrier is handed in; the checkpoint is complete, or was given up.
    HandedIn(bool),
    /// All tasks are gone, and so many start.
    Crash(u32),
}

type Script = Vec<(Event, Option<Fault>)>;

fn scripts() -> impl Strategy<Value = Script> {
    let row = || (0..6u8, 0..50u32);
    let event = prop_oneof![
        6 => (row(), 0..12i64).prop_map(|(row, ahead)| Event::Left(row, ahead)),
        4 => (row(), 0..12i64).prop_map(|(row, ahead)| Event::Right(row, ahead)),
        2 => (1..8i64).prop_map(Event::Watermark),
        1 => (1..8i64).prop_map(Event::Time),
    ];
    let fault = prop_oneof![
        8 => Just(None),
        3 => Just(Some(Fault::Barrier)),
        3 => any::<bool>().prop_map(|complete| Some(Fault::HandedIn(complete))),
        1 => (1..4u32).prop_map(|parallelism| Some(Fault::Crash(parallelism))),
    ];
    prop::collection::vec((event, fault), 0..80).prop_map(|script: Script| {
        let (mut watermark, mut now_ms) = (0, 0);
        let absolute = script.into_iter().map(|(event, fault)| {
            let event = match event {
                Event::Left(row, ahead) => Event::Left(row, watermark + ahead),
                Event::Right(row, ahead) => Event::Right(row, watermark + ahead),
                Event::Watermark(ahead) => {
                    watermark += ahead;
                    Event::Watermark(watermark)
                }
                Event::Time(ahead) => {
                    now_ms += ahead;
                    Event::Time(now_ms)
                }
            };
            (event, fault)
        });
        absolute.collect()
    })
}

/// Runs a script, with its faults or without, and gives all results that count, sorted. `broadcast`: the second input goes to all tasks.
fn run(kind: MemoryKind, make: Make, broadcast: bool, script: &Script, faults: bool) -> Vec<(String, i64)> {
    let start = |parallelism| Tasks::new(parallelism, kind, make).unwrap();
    let mut faults: Vec<Option<Fault>> = script.iter().map(|(_, fault)| fault.filter(|_| faults)).collect();
    let mut tasks = start(2);
    let (mut position, mut now_ms) = (0, 0);
    // By the position behind the event that gave them.
    let mut results: BTreeMap<usize, Vec<(String, i64)>> = BTreeMap::new();
    let mut barriers: VecDeque<(u64, usize, i64)> = VecDeque::new();
    let mut complete: Option<(usize, i64, Vec<MemorySnapshot>)> = None;
    while position < script.len() {
        match script[position].0 {
            Event::Left(row, timestamp) => tasks.push(&row.0, row, timestamp).unwrap(),
            Event::Right(row, timestamp) if broadcast => tasks.broadcast_right(row, timestamp).unwrap(),
            Event::Right(row, timestamp) => tasks.push_right(&row.0, row, timestamp).unwrap(),
            Event::Watermark(watermark) => tasks.watermark(watermark).unwrap(),
            Event::Time(time_ms) => {
                now_ms = time_ms;
                tasks.set_time(time_ms).unwrap();
            }
        }
        let fault = faults[position].take();
        position += 1;
        results.insert(position, tasks.take());
        match fault {
            None => {}
            Some(Fault::Barrier) => barriers.push_back((tasks.barrier().unwrap(), position, now_ms)),
            Some(Fault::HandedIn(completes)) => {
                if let Some((checkpoint, at, then_ms)) = barriers.pop_front() {
                    let parts = tasks.handed_in(checkpoint).unwrap();
                    if completes {
                        complete = Some((at, then_ms, parts));
                    }
                }
            }
            Some(Fault::Crash(parallelism)) => {
                barriers.clear();
                match &complete {
                    Some((at, then_ms, parts)) => {
                        (position, now_ms) = (*at, *then_ms);
                        tasks.restore_at(parts, parallelism, now_ms).unwrap();
                    }
                    None => {
                        (position, now_ms) = (0, 0);
                        tasks = start(parallelism);
                    }
                }
                results.retain(|behind, _| *behind <= position);
            }
        }
    }
    tasks.end().unwrap();
    results.insert(position + 1, tasks.take());
    let mut all: Vec<(String, i64)> = results.into_values().flatten().collect();
    all.sort();
    all
}

const KINDS: [MemoryKind; 3] =
    [MemoryKind::AllRows, MemoryKind::Changes, MemoryKind::Fetching { budget_bytes: 2_000 }];

fn check(
    make: Make,
    broadcast: bool,
    kind: usize,
    script: &Script,
) -> std::result::Result<(), TestCaseError> {
    let expected = run(KINDS[kind], make, broadcast, script, false);
    prop_assert_eq!(run(KINDS[kind], make, broadcast, script, true), expected);
    Ok(())
}

/// Numbers wait for a number of the other input, for a while.
#[derive(Clone, Default)]
struct Meet {
    last: ValueState<u32>,
    waiting: ListState<u32>,
}

impl KeyedCoProcessFunction<u8, Row, Row, String> for Meet {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.last = ctx.value_state("last")?;
        self.waiting = ctx.list_state("waiting")?;
        Ok(())
    }

    fn process_left(&mut self, (_, n): Row, ctx: &mut KeyedContext<'_, u8, String>) -> Result<()> {
        self.waiting.add(ctx, n);
        let until_ms = ctx.timestamp().unwrap_or_default() + 5;
        ctx.register_event_timer(until_ms);
        ctx.register_processing_timer(ctx.processing_time() + 6);
        Ok(())
    }

    fn process_right(&mut self, (_, n): Row, ctx: &mut KeyedContext<'_, u8, String>) -> Result<()> {
        let before = self.last.get_cloned(ctx);
        let waiting: Vec<u32> = self.waiting.take(ctx).into_iter().collect();
        ctx.collect(format!("{n} behind {before:?} meets {waiting:?}"));
        self.last.set(ctx, n);
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedContext<'_, u8, String>) -> Result<()> {
        let clock = if timer.domain == TimeDomain::Event { "event" } else { "processing" };
        let waiting: Vec<u32> = self.waiting.take(ctx).into_iter().collect();
        ctx.collect(format!("{clock} {} of {}: {waiting:?}", timer.timestamp_ms, ctx.key()));
        Ok(())
    }
}

/// Counts numbers of a key above a limit that is broadcast.
#[derive(Clone)]
struct Above {
    limit: BroadcastState<u8, u32>,
    count: ValueState<u32>,
}

fn above() -> Above {
    Above { limit: BroadcastState::new("limit"), count: ValueState::default() }
}

impl KeyedBroadcastProcessFunction<u8, Row, Row, String> for Above {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.count = ctx.value_state("count")?;
        Ok(())
    }

    fn process(&mut self, (_, n): Row, ctx: &mut KeyedReadOnlyContext<'_, u8, String>) -> Result<()> {
        if n > ctx.broadcast_state(&self.limit)?.get(&0).copied().unwrap_or(5) {
            self.count.update(ctx, |count| *count += 1);
            let until_ms = ctx.timestamp().unwrap_or_default() + 4;
            ctx.register_event_timer(until_ms);
        }
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        (_, limit): Row,
        ctx: &mut KeyedBroadcastContext<'_, u8, String>,
    ) -> Result<()> {
        ctx.broadcast_state(&self.limit)?.put(0, limit);
        ctx.apply_to_keyed_state(|kind, key| {
            if let Some(count) = self.count.take(key) {
                key.collect(format!("{kind}: {count} until {limit}"));
            }
            Ok(())
        })
    }

    fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedReadOnlyContext<'_, u8, String>) -> Result<()> {
        let limit = ctx.broadcast_state(&self.limit)?.get(&0).copied();
        let count = self.count.get_cloned(ctx).unwrap_or(0);
        ctx.collect(format!("{}: {count} above {limit:?} at {}", ctx.key(), timer.timestamp_ms));
        Ok(())
    }
}

/// Passes numbers for which a rule was broadcast; a rule of an even number takes the one before back.
#[derive(Clone)]
struct Ruled(BroadcastState<u8, u32>);

fn ruled() -> Ruled {
    Ruled(BroadcastState::new("rules"))
}

impl BroadcastProcessFunction<Row, Row, String> for Ruled {
    fn process(&mut self, (key, n): Row, ctx: &mut ReadOnlyContext<'_, String>) -> Result<()> {
        if let Some(rule) = ctx.broadcast_state(&self.0)?.get(&key).copied() {
            ctx.collect(format!("{key} {n} by {rule}"));
        }
        Ok(())
    }

    fn process_broadcast(&mut self, (key, n): Row, ctx: &mut BroadcastContext<'_, String>) -> Result<()> {
        let rules = ctx.broadcast_state(&self.0)?;
        let _ = if n % 2 == 0 { rules.remove(&key) } else { rules.put(key, n) };
        Ok(())
    }
}

/// Keeps all numbers in a list, and the largest in a list of all tasks.
#[derive(Clone, Default)]
struct Kept {
    all: Vec<u32>,
    largest: u32,
    all_list: ListStateHandle<u32>,
    largest_list: ListStateHandle<u32>,
}

impl ProcessFunction<Row, String> for Kept {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.all_list = ctx.operator_list_state("all")?;
        self.largest_list = ctx.union_list_state("largest")?;
        self.all = self.all_list.restored(ctx)?;
        self.largest = self.largest_list.restored(ctx)?.into_iter().max().unwrap_or(0);
        Ok(())
    }

    fn process(&mut self, (_, n): Row, _ctx: &mut ProcessContext<'_, String>) -> Result<()> {
        self.all.push(n);
        self.largest = self.largest.max(n);
        Ok(())
    }

    fn snapshot(&mut self, ctx: &mut SnapshotContext<'_>) -> Result<()> {
        self.all_list.set(ctx, &self.all)?;
        self.largest_list.set(ctx, [&self.largest])
    }
}

fn key() -> ByValue<impl Fn(&Row) -> u8 + Clone + Send + 'static, u8> {
    ByValue::new(|row: &Row| row.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn two_keyed_inputs_and_timers_of_both_clocks(script in scripts(), kind in 0..3usize) {
        check(
            |builder| builder.two_inputs(|ctx| Ok(KeyedCoProcess::new(key(), key(), Meet::default(), ctx))),
            false,
            kind,
            &script,
        )?;
    }

    #[test]
    fn keyed_state_beside_what_is_broadcast(script in scripts(), kind in 0..3usize) {
        let make: Make = |builder| {
            let function = above();
            let declared = [function.limit.declare()];
            builder.two_inputs(|ctx| Ok(KeyedBroadcastProcess::new(key(), function, &declared, ctx)))
        };
        check(make, true, kind, &script)?;
    }

    #[test]
    fn what_is_broadcast_to_tasks_without_keys(script in scripts(), kind in 0..3usize) {
        let make: Make = |builder| {
            let function = ruled();
            let declared = [function.0.declare()];
            builder.two_inputs(|ctx| Ok(BroadcastProcess::new(function, &declared, ctx)))
        };
        check(make, true, kind, &script)?;
    }

    #[test]
    fn joins_of_intervals(script in scripts(), kind in 0..3usize) {
        let make: Make = |builder| {
            let options = JoinOptions { interval: Interval::new(-3, 4), left_late: None, right_late: None };
            let function = JoinWith::new(|left: &Row, right: &Row| format!("{left:?} {right:?}"));
            builder.two_inputs(|ctx| Ok(IntervalJoin::new(key(), key(), options, function, ctx)))
        };
        check(make, false, kind, &script)?;
    }

    #[test]
    fn lists_that_are_split_and_lists_of_all_tasks(script in scripts()) {
        let make = |builder: HarnessBuilder<String>| {
            builder.one_input(|ctx| Ok(Process::new(Kept::default(), ctx)))
        };
        let start = |parallelism| Parallel::<Row, (), String>::new(parallelism, MemoryKind::Changes, make).unwrap();
        let mut tasks = start(2);
        let mut faults: Vec<Option<Fault>> = script.iter().map(|(_, fault)| *fault).collect();
        let (mut position, mut complete, mut barriers) = (0, None, VecDeque::new());
        while position < script.len() {
            if let Event::Left(row, timestamp) = script[position].0 {
                let task = row.1 as usize % tasks.tasks().len();
                tasks.tasks()[task].push(row, timestamp).unwrap();
            }
            let fault = faults[position].take();
            position += 1;
            match (fault, &complete) {
                (None, _) => {}
                (Some(Fault::Barrier), _) => barriers.push_back((tasks.barrier().unwrap(), position)),
                (Some(Fault::HandedIn(completes)), _) => {
                    if let Some((checkpoint, at)) = barriers.pop_front() {
                        let parts = tasks.handed_in(checkpoint).unwrap();
                        complete = if completes { Some((at, parts)) } else { complete };
                    }
                }
                (Some(Fault::Crash(parallelism)), Some((at, parts))) => {
                    barriers.clear();
                    position = *at;
                    tasks.restore(parts, parallelism).unwrap();
                }
                (Some(Fault::Crash(parallelism)), None) => {
                    barriers.clear();
                    position = 0;
                    tasks = start(parallelism);
                }
            }
        }
        let (mut all, mut largest) = (Vec::new(), Vec::new());
        for part in tasks.snapshot().unwrap() {
            let lists = &part.operators.values().next().unwrap().lists;
            let items = |name: &str| -> Vec<u32> {
                lists[name].items.iter().map(|item| decode_value(item).unwrap()).collect()
            };
            all.extend(items("operator.all"));
            largest.extend(items("operator.largest"));
        }
        all.sort_unstable();
        let lefts = script.iter().filter_map(|(event, _)| match event {
            Event::Left(row, _) => Some(row.1),
            _ => None,
        });
        let mut expected: Vec<u32> = lefts.collect();
        expected.sort_unstable();
        prop_assert_eq!(largest.into_iter().max(), Some(expected.last().copied().unwrap_or(0)));
        prop_assert_eq!(all, expected);
    }
}

//! A function that uses all kinds of state and timers, with snapshots at any time, against a run that knows none.

use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::context::Settings;
use crate::harness::memory::{MemoryKind, MemorySnapshot};
use crate::harness::parallel::Parallel;
use crate::harness::{Harness, HarnessBuilder};
use crate::key::ByRef;
use crate::snapshot::TableSpec;
use crate::state::{ListState, MapState, ReducingState, StateTtl, ValueState};

/// What to do with the states of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    key: String,
    what: u8,
    number: i64,
}

const KINDS: u8 = 18;
/// Orders from this kind on use states that expire.
const EXPIRING: u8 = 12;
const DUMP: u8 = KINDS;

#[derive(Clone)]
struct Everything {
    value: ValueState<i64>,
    list: ListState<String>,
    map: MapState<u8, String>,
    sum: ReducingState<i64>,
    short: ValueState<String>,
    shorts: ListState<i64>,
    read: MapState<u8, i64>,
}

impl Everything {
    fn new() -> Self {
        Everything {
            value: ValueState::default(),
            list: ListState::default(),
            map: MapState::default(),
            sum: ReducingState::new(|sum, add| *sum += add),
            short: ValueState::default(),
            shorts: ListState::default(),
            read: MapState::default(),
        }
    }
}

type Ctx<'a> = KeyedContext<'a, String, String>;

impl KeyedProcessFunction<String, Order, String> for Everything {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        let after_write = StateTtl::after_write(Duration::from_millis(40));
        let after_access = StateTtl::after_access(Duration::from_millis(40));
        self.value = ctx.value_state("value")?;
        self.list = ctx.list_state("list")?;
        self.map = ctx.map_state("map")?;
        self.sum = ctx.reducing_state("sum", |sum, add| *sum += add)?;
        self.short = ctx.value_state_with_ttl("short", after_write)?;
        self.shorts = ctx.list_state_with_ttl("shorts", after_write)?;
        self.read = ctx.map_state_with_ttl("read", after_access)?;
        Ok(())
    }

    fn process(&mut self, order: Order, ctx: &mut Ctx<'_>) -> Result<()> {
        let Order { key, what, number } = order;
        let small = (number % 7) as u8;
        match what {
            0 => {
                let value = self.value.update(ctx, |value| {
                    *value = value.wrapping_mul(3).wrapping_add(number);
                    *value
                });
                ctx.collect(format!("{key} value {value}"));
            }
            1 => self.value.clear(ctx),
            2 => self.list.add(ctx, format!("item {number}")),
            3 => {
                let taken = self.list.take(ctx);
                ctx.collect(format!("{key} list {taken:?}"));
            }
            4 => self.map.put(ctx, small, format!("entry {number}")),
            5 => {
                let removed = self.map.remove(ctx, &small);
                ctx.collect(format!("{key} map {removed:?}"));
            }
            6 => self.map.clear(ctx),
            7 => self.sum.add(ctx, number),
            8 => ctx.register_event_timer(number),
            9 => ctx.delete_event_timer(number),
            10 => {
                let at_ms = ctx.processing_time() + 1 + number % 50;
                ctx.register_processing_timer(at_ms);
            }
            11 => self.value.set(ctx, number),
            12 => self.short.set(ctx, format!("short {number}")),
            13 => {
                let value = self.short.get_cloned(ctx);
                ctx.collect(format!("{key} short {value:?}"));
            }
            14 => self.shorts.add(ctx, number),
            15 => self.read.put(ctx, small, number),
            16 => {
                let value = self.read.get(ctx, &small).copied();
                ctx.collect(format!("{key} read {value:?}"));
            }
            17 => {
                let value = self.short.take(ctx);
                ctx.collect(format!("{key} took {value:?}"));
            }
            _ => {
                let mut map: Vec<(u8, String)> =
                    self.map.iter(ctx).map(|(key, value)| (*key, value.clone())).collect();
                map.sort();
                let (value, sum) = (self.value.get_cloned(ctx), self.sum.get(ctx).copied());
                let (list, short) =
                    (self.list.iter(ctx).cloned().collect::<Vec<_>>(), self.short.get_cloned(ctx));
                let shorts = self.shorts.iter(ctx).copied().collect::<Vec<_>>();
                let read = self.read.len(ctx);
                ctx.collect(format!("{key} {value:?} {sum:?} {list:?} {map:?} {short:?} {shorts:?} {read}"));
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, ctx: &mut Ctx<'_>) -> Result<()> {
        let value = self.value.get_cloned(ctx);
        let list = self.list.len(ctx);
        let key = ctx.key().clone();
        ctx.collect(format!("{key} {:?} {} {value:?} {list}", timer.domain, timer.timestamp_ms));
        if timer.timestamp_ms % 3 == 0 {
            self.value.clear(ctx);
            self.list.clear(ctx);
        } else {
            self.value.update(ctx, |value| *value += 1);
        }
        Ok(())
    }
}

fn open(builder: HarnessBuilder<String>) -> Result<Harness<Order, (), String>> {
    let key = ByRef::new((|order: &Order| &order.key) as fn(&Order) -> &String);
    builder.one_input(|ctx| Ok(KeyedProcess::new(key, Everything::new(), ctx)))
}

type Tasks = Parallel<Order, (), String>;

#[derive(Clone, Debug)]
enum Step {
    Orders(Vec<(u16, u8, i64)>),
    Watermark(i64),
    Time(i64),
    Barrier,
    /// From the last snapshot: what came behind it comes again.
    Restore(u32),
}

fn steps(keys: u16, kinds: u8) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => prop::collection::vec((0..keys, 0..kinds, 0i64..300), 1..40).prop_map(Step::Orders),
        2 => (0i64..30).prop_map(Step::Watermark),
        2 => (0i64..30).prop_map(Step::Time),
        3 => Just(Step::Barrier),
        2 => (1u32..5).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..50)
}

fn orders(step: &[(u16, u8, i64)]) -> Vec<(Order, i64)> {
    let order = |(key, what, number): &(u16, u8, i64)| Order {
        key: format!("key {key}"),
        what: *what,
        number: *number,
    };
    step.iter().map(|step| (order(step), step.2)).collect()
}

fn apply(tasks: &mut Tasks, step: &Step) {
    match step {
        Step::Orders(step) => tasks.push_all(|order| order.key.clone(), orders(step)).unwrap(),
        Step::Watermark(to) => tasks.watermark(*to).unwrap(),
        Step::Time(to_ms) => tasks.set_time(*to_ms).unwrap(),
        Step::Barrier | Step::Restore(_) => {}
    }
}

fn apply_alone(alone: &mut Harness<Order, (), String>, step: &Step) {
    match step {
        Step::Orders(step) => alone.push_all(orders(step)).unwrap(),
        Step::Watermark(to) => alone.watermark(*to).unwrap(),
        Step::Time(to_ms) => alone.set_time(*to_ms).unwrap(),
        Step::Barrier | Step::Restore(_) => {}
    }
}

/// Stamp 0 says that there is no time to live.
const START_MS: i64 = 1_000;

/// What is needed to go back to a barrier.
struct Mark {
    checkpoint: u64,
    now_ms: i64,
    behind: Vec<Step>,
}

fn check(kind: MemoryKind, keys: u16, steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
    let mut tasks = Parallel::new(2, kind, open).unwrap();
    let mut alone = open(HarnessBuilder::new(Settings::default())).unwrap();
    let (mut watermark, mut now_ms) = (0, START_MS);
    tasks.set_time(now_ms).unwrap();
    alone.set_time(now_ms).unwrap();
    let mut mark: Option<Mark> = None;
    let dump = Step::Orders((0..keys).map(|key| (key, DUMP, 0)).collect());
    for mut step in steps.into_iter().chain([dump]) {
        match &mut step {
            Step::Watermark(by) => {
                watermark += *by;
                *by = watermark;
            }
            Step::Time(by_ms) => {
                now_ms += *by_ms;
                *by_ms = now_ms;
            }
            Step::Orders(_) => {}
            Step::Barrier => {
                let checkpoint = tasks.barrier().unwrap();
                mark = Some(Mark { checkpoint, now_ms, behind: Vec::new() });
                continue;
            }
            Step::Restore(parallelism) => {
                let Some(mark) = mark.take() else { continue };
                let parts = tasks.handed_in(mark.checkpoint).unwrap();
                tasks.restore_at(&parts, *parallelism, mark.now_ms).unwrap();
                mark.behind.iter().for_each(|step| apply(&mut tasks, step));
                tasks.take();
                continue;
            }
        }
        apply(&mut tasks, &step);
        apply_alone(&mut alone, &step);
        let mut expected = alone.take();
        expected.sort();
        prop_assert_eq!(tasks.take_sorted(), expected);
        if let Some(mark) = &mut mark {
            mark.behind.push(step);
        }
    }
    Ok(())
}

fn rows(parts: &[MemorySnapshot]) -> Vec<(String, u16, Vec<u8>, Vec<u8>)> {
    let operators = parts.iter().flat_map(|part| part.operators.values());
    let tables = operators.flat_map(|operator| &operator.tables);
    let mut rows: Vec<_> = tables
        .flat_map(|(name, table)| {
            let rows = table.rows.iter();
            rows.map(|((group, key), value)| (name.clone(), *group, key.clone(), value.clone()))
        })
        .collect();
    rows.sort();
    rows
}

proptest! {
    #[test]
    fn a_restored_function_goes_on_as_if_nothing_had_happened(steps in steps(25, KINDS)) {
        check(MemoryKind::AllRows, 25, steps.clone())?;
        check(MemoryKind::Changes, 25, steps)?;
    }

    #[test]
    fn more_keys_than_memory_holds_give_the_same(steps in steps(60, KINDS), budget_bytes in 0usize..40_000) {
        check(MemoryKind::Fetching { budget_bytes }, 60, steps)?;
    }

    #[test]
    fn changes_add_up_to_all_rows(steps in steps(20, EXPIRING)) {
        let mut all = Parallel::new(2, MemoryKind::AllRows, open).unwrap();
        let mut changes = Parallel::new(2, MemoryKind::Changes, open).unwrap();
        let (mut watermark, mut now_ms) = (0, 0);
        for mut step in steps.into_iter().chain([Step::Restore(3), Step::Restore(1)]) {
            match &mut step {
                Step::Watermark(by) => { watermark += *by; *by = watermark; }
                Step::Time(by_ms) => { now_ms += *by_ms; *by_ms = now_ms; }
                Step::Orders(_) => {}
                Step::Barrier => {
                    let (checkpoint, also) = (all.barrier().unwrap(), changes.barrier().unwrap());
                    prop_assert_eq!(rows(&all.handed_in(checkpoint).unwrap()), rows(&changes.handed_in(also).unwrap()));
                }
                Step::Restore(parallelism) => {
                    let (parts, also) = (all.snapshot().unwrap(), changes.snapshot().unwrap());
                    prop_assert_eq!(rows(&parts), rows(&also));
                    all.restore(&parts, *parallelism).unwrap();
                    changes.restore(&also, *parallelism).unwrap();
                }
            }
            apply(&mut all, &step);
            apply(&mut changes, &step);
            prop_assert_eq!(all.take_sorted(), changes.take_sorted());
        }
    }
}

fn order(key: &str, what: u8, number: i64) -> (Order, i64) {
    (Order { key: key.to_string(), what, number }, 0)
}

#[test]
fn the_stored_forms_of_states_and_timers_are_frozen() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes] {
        let mut tasks = Parallel::new(1, kind, open).unwrap();
        tasks.set_time(100).unwrap();
        let orders = [(0, -2), (2, 7), (4, 9), (7, 300), (8, 5), (10, 50), (12, 1), (14, 3), (15, 4)];
        tasks
            .push_all(|order| order.key.clone(), orders.map(|(what, number)| order("k", what, number)))
            .unwrap();
        let rows = rows(&tasks.snapshot().unwrap());
        let group = 99;
        let key = [1, b'k'].to_vec();
        let timer = |time: u8| [&[0x80, 0, 0, 0, 0, 0, 0, time][..], &key].concat();
        let row = |table: &str, key: Vec<u8>, value: &[u8]| (table.to_string(), group, key, value.to_vec());
        let expected = [
            row("event-timers", timer(5), &[]),
            // One entry: its text, no stamp.
            row("list", key.clone(), b"\x01\x06item 7\x00"),
            row("map", key.clone(), b"\x01\x02\x07entry 9\x00"),
            row("processing-timers", timer(101), &[]),
            // One entry: 4 under 4, at 100.
            row("read", key.clone(), &[1, 4, 8, 0xc8, 1]),
            row("short", key.clone(), b"\x07short 1\xc8\x01"),
            row("shorts", key.clone(), &[1, 6, 0xc8, 1]),
            row("sum", key.clone(), &[0xd8, 4, 0]),
            row("value", key.clone(), &[3, 0]),
        ];
        assert_eq!(rows, expected);
    }
}

#[test]
fn the_names_and_types_of_tables_are_frozen() {
    let mut tasks = Parallel::new(1, MemoryKind::Changes, open).unwrap();
    let parts = tasks.snapshot().unwrap();
    let operator = parts[0].operators.values().next().unwrap();
    let described: Vec<String> = operator
        .tables
        .values()
        .map(|table| {
            let TableSpec { name, holds, key_type, value_type } = &table.spec;
            format!("{name}: {holds}, {key_type} to {value_type}")
        })
        .collect();
    let expected = [
        "event-timers: timers, str to unit",
        "list: list, str to [(str, i64)]",
        "map: map, str to [(u8, (str, i64))]",
        "processing-timers: timers, str to unit",
        "read: map, str to [(u8, (i64, i64))]",
        "short: value, str to (str, i64)",
        "shorts: list, str to [(i64, i64)]",
        "sum: value, str to (i64, i64)",
        "value: value, str to (i64, i64)",
    ];
    assert_eq!(described, expected);
}

/// Keeps a text, with or without time to live.
#[derive(Clone)]
struct Keeps {
    ttl: bool,
    text: ValueState<String>,
    list: ListState<i64>,
}

impl KeyedProcessFunction<String, Order, String> for Keeps {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        let ttl = StateTtl::after_write(Duration::from_millis(40));
        if self.ttl {
            self.text = ctx.value_state_with_ttl("text", ttl)?;
            self.list = ctx.list_state_with_ttl("list", ttl)?;
        } else {
            self.text = ctx.value_state("text")?;
            self.list = ctx.list_state("list")?;
        }
        Ok(())
    }

    fn process(&mut self, order: Order, ctx: &mut Ctx<'_>) -> Result<()> {
        if order.what == 0 {
            self.text.set(ctx, "kept".into());
            self.list.add(ctx, order.number);
        } else {
            let text = self.text.get_cloned(ctx);
            let list = self.list.len(ctx);
            ctx.collect(format!("{text:?} {list}"));
        }
        Ok(())
    }
}

#[test]
fn time_to_live_can_be_given_to_a_state_that_is_restored_and_taken_from_it() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes, MemoryKind::Fetching { budget_bytes: 1 << 20 }] {
        let has_ttl = std::rc::Rc::new(std::cell::Cell::new(false));
        let now = has_ttl.clone();
        let mut tasks: Tasks = Parallel::new(1, kind, move |builder| {
            let key = ByRef::new((|order: &Order| &order.key) as fn(&Order) -> &String);
            let (text, list) = (ValueState::default(), ListState::default());
            let function = Keeps { ttl: now.get(), text, list };
            builder.one_input(|ctx| Ok(KeyedProcess::new(key, function, ctx)))
        })
        .unwrap();
        tasks.set_time(1_000).unwrap();
        tasks.push_all(|order| order.key.clone(), [order("a", 0, 7)]).unwrap();
        let look = |tasks: &mut Tasks, now_ms: i64| {
            tasks.set_time(now_ms).unwrap();
            tasks.push_all(|order| order.key.clone(), [order("a", 1, 0)]).unwrap();
            tasks.take_records().remove(0)
        };
        assert_eq!(look(&mut tasks, 5_000), "Some(\"kept\") 1");
        // Life begins where it is given.
        has_ttl.set(true);
        tasks.restart(1).unwrap();
        assert_eq!(look(&mut tasks, 5_039), "Some(\"kept\") 1");
        tasks.restart(1).unwrap();
        has_ttl.set(false);
        let (parts, checkpoint_ms) = (tasks.snapshot().unwrap(), 5_039);
        if matches!(kind, MemoryKind::AllRows | MemoryKind::Changes) {
            // It was given 40 ms ago; a key that is fetched has life from when it is.
            assert_eq!(look(&mut tasks, 5_040), "None 0");
        }
        tasks.restore_at(&parts, 1, checkpoint_ms).unwrap();
        assert_eq!(look(&mut tasks, 9_000), "Some(\"kept\") 1", "without time to live it stays");
    }
}

#[test]
fn rows_that_are_in_no_table_any_more_expire_by_the_time_that_the_backend_is_told() {
    let mut tasks: Tasks = Parallel::new(1, MemoryKind::Fetching { budget_bytes: 1_000 }, |builder| {
        let key = ByRef::new((|order: &Order| &order.key) as fn(&Order) -> &String);
        let function = Keeps { ttl: true, text: ValueState::default(), list: ListState::default() };
        builder.one_input(|ctx| Ok(KeyedProcess::new(key, function, ctx)))
    })
    .unwrap();
    let rows = |tasks: &mut Tasks| tasks.snapshot().unwrap()[0].row_count("text");
    for key in 0..200 {
        tasks.set_time(1_000 + key / 100).unwrap();
        tasks.push_all(|order| order.key.clone(), [order(&key.to_string(), 0, 7)]).unwrap();
    }
    assert_eq!(rows(&mut tasks), 200);
    // What the table holds goes as well, a little at a time.
    for (now_ms, left) in [(1_039, 200), (1_040, 100), (1_041, 0)] {
        tasks.set_time(now_ms).unwrap();
        (0..8).for_each(|_| tasks.push_all(|order| order.key.clone(), [order("x", 1, 0)]).unwrap());
        assert_eq!(rows(&mut tasks), left, "at {now_ms}");
    }
}

#[test]
fn names_of_other_tables_and_lists_are_refused() {
    #[derive(Clone)]
    struct Named(&'static str);
    impl KeyedProcessFunction<String, Order, String> for Named {
        fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
            ctx.value_state::<u8>(self.0).map(drop)
        }
        fn process(&mut self, _: Order, _: &mut Ctx<'_>) -> Result<()> {
            Ok(())
        }
    }
    let open = |name: &'static str| {
        let key = ByRef::new((|order: &Order| &order.key) as fn(&Order) -> &String);
        let builder = HarnessBuilder::<String>::new(Settings::default());
        builder.one_input(|ctx| Ok(KeyedProcess::new(key, Named(name), ctx))).map(drop)
    };
    assert!(open("timers").is_ok());
    for name in ["event-timers", "operator.count", "broadcast.rules"] {
        let error = open(name).unwrap_err().to_string();
        assert!(
            error.contains(&format!("state '{name}' has a name of which the first part is taken")),
            "{error}"
        );
    }
}

#[test]
fn what_is_gone_leaves_no_row_and_no_key_behind() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes, MemoryKind::Fetching { budget_bytes: 1 << 20 }] {
        let mut tasks = Parallel::new(2, kind, open).unwrap();
        let each = |what: u8| (0..500).map(move |n| order(&format!("key {n}"), what, 900));
        for what in [0, 2, 4, 8] {
            tasks.push_all(|order| order.key.clone(), each(what)).unwrap();
        }
        assert_eq!(rows(&tasks.snapshot().unwrap()).len(), 2_000);
        for what in [1, 3, 6, 9] {
            tasks.push_all(|order| order.key.clone(), each(what)).unwrap();
        }
        assert_eq!(rows(&tasks.snapshot().unwrap()), []);
        let frozen: Vec<usize> = tasks.states().iter().map(|state| state.frozen_rows()).collect();
        assert_eq!(rows(&tasks.snapshot().unwrap()), []);
        let after: Vec<usize> = tasks.states().iter().map(|state| state.frozen_rows()).collect();
        assert_eq!(frozen, after, "nothing is told twice");
    }
}

#[test]
fn a_tenth_of_the_keys_in_memory_give_the_same_and_nothing_is_fetched_twice_in_vain() {
    let budget_bytes = 60_000;
    let mut tasks = Parallel::new(1, MemoryKind::Fetching { budget_bytes }, open).unwrap();
    let mut alone = open(HarnessBuilder::new(Settings::default())).unwrap();
    for round in 0..150i64 {
        let batch: Vec<(Order, i64)> = (0..20)
            .map(|n| {
                order(&format!("key {}", (round * 41 + n * n * 3) % 2_000), [0, 2, 4, 0][n as usize % 4], n)
            })
            .collect();
        tasks.push_all(|order| order.key.clone(), batch.clone()).unwrap();
        alone.push_all(batch).unwrap();
        if round % 20 == 7 {
            tasks.snapshot().unwrap();
        }
        let mut expected = alone.take();
        expected.sort();
        assert_eq!(tasks.take_sorted(), expected);
    }
    let (fetched, written) = tasks.states()[0].fetched_and_written();
    assert!(fetched > 1_000 && written > 500, "{fetched} {written}");
    // A key without any state, asked for again and again.
    let absent = || [order("absent", 1, 0), order("absent", 16, 0)];
    tasks.push_all(|order| order.key.clone(), absent()).unwrap();
    let before = tasks.states()[0].fetched_and_written().0;
    for _ in 0..50 {
        tasks.push_all(|order| order.key.clone(), absent()).unwrap();
    }
    assert_eq!(tasks.states()[0].fetched_and_written().0, before);
}

//! The interval join against Flink's rules, written down naively.

use proptest::prelude::*;

use flott_schema::Result;

use super::*;
use crate::batch::NO_TIMESTAMP;
use crate::context::Settings;
use crate::element::Signal;
use crate::harness::memory::MemoryKind;
use crate::harness::parallel::Parallel;
use crate::harness::{Harness, HarnessBuilder};
use crate::key::ByValue;
use crate::operator::OutputTag;

/// Key and id.
type Row = (u8, u32);
type Joined = (u32, u32);

fn tags() -> (OutputTag<Row>, OutputTag<Row>) {
    (OutputTag::new("left late"), OutputTag::new("right late"))
}

fn join(interval: Interval, late: bool) -> Harness<Row, Row, Joined> {
    join_in(HarnessBuilder::new(Settings::default()), interval, late).unwrap()
}

fn join_in(
    builder: HarnessBuilder<Joined>,
    interval: Interval,
    late: bool,
) -> Result<Harness<Row, Row, Joined>> {
    let (left_late, right_late) = tags();
    let key = || ByValue::new(|row: &Row| row.0);
    let options = JoinOptions {
        interval,
        left_late: late.then(|| left_late.clone()),
        right_late: late.then(|| right_late.clone()),
    };
    let function = JoinWith::new(|left: &Row, right: &Row| (left.1, right.1));
    builder
        .side(&left_late)
        .side(&right_late)
        .two_inputs(|ctx| Ok(IntervalJoin::new(key(), key(), options, function, ctx)))
}

fn dropped(join: &Harness<Row, Row, Joined>) -> u64 {
    join.context().metrics.late_records_dropped.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn pairs_within_the_bounds_are_joined_and_carry_the_larger_timestamp() {
    let mut join = join(Interval::new(-2, 1), false);
    join.push_all([((1, 1), 10), ((2, 2), 10)]).unwrap();
    for (id, timestamp) in [(70, 7), (80, 8), (110, 11), (120, 12)] {
        join.push_right((1, id), timestamp).unwrap();
    }
    assert_eq!(join.take(), [((1, 80), 10), ((1, 110), 11)]);
    join.push((1, 3), 11).unwrap();
    assert_eq!(join.take(), [((3, 110), 11), ((3, 120), 12)]);
}

#[test]
fn exclusive_bounds_leave_out_the_bounds() {
    for (interval, expected) in [
        (Interval::new(-1, 1), vec![(1, 9), (1, 10), (1, 11)]),
        (Interval::new(-1, 1).lower_exclusive(), vec![(1, 10), (1, 11)]),
        (Interval::new(-1, 1).upper_exclusive(), vec![(1, 9), (1, 10)]),
        (Interval::new(-1, 1).lower_exclusive().upper_exclusive(), vec![(1, 10)]),
    ] {
        let mut join = join(interval, false);
        (8..=12).for_each(|at| join.push_right((1, at), i64::from(at)).unwrap());
        join.push((1, 1), 10).unwrap();
        assert_eq!(join.take_records(), expected, "{interval:?}");
    }
}

#[test]
fn an_interval_without_room_is_refused() {
    assert!(Interval::new(0, 0).check().is_ok());
    let error = Interval::new(5, 5).upper_exclusive().check().unwrap_err();
    assert!(error.to_string().contains("lower bound of 5 ms lies above its upper bound of 4 ms"), "{error}");
}

#[test]
fn late_records_are_dropped_and_counted_or_go_to_the_side_output_of_their_input() {
    let mut counting = join(Interval::new(0, 10), false);
    counting.watermark(20).unwrap();
    counting.push((1, 1), 19).unwrap();
    counting.push_right((1, 2), 19).unwrap();
    counting.push_right((1, 3), 20).unwrap();
    assert_eq!((counting.take(), dropped(&counting)), (vec![], 2));

    let (left_late, right_late) = tags();
    let mut siding = join(Interval::new(0, 10), true);
    siding.watermark(20).unwrap();
    siding.push_all([((1, 1), 19), ((1, 4), 20)]).unwrap();
    siding.push_right((1, 2), 18).unwrap();
    assert_eq!(siding.take_side(&left_late), [((1, 1), 19)]);
    assert_eq!(siding.take_side(&right_late), [((1, 2), 18)]);
    assert_eq!(dropped(&siding), 0);
}

#[test]
fn a_record_without_timestamp_is_an_error_that_names_operator_and_input() {
    let mut join = join(Interval::new(0, 10), false);
    let error = join.push_right((1, 1), NO_TIMESTAMP).unwrap_err().to_string();
    assert!(error.contains("'operator under test'") && error.contains("second input"), "{error}");
}

#[test]
fn bounds_at_the_ends_of_time_join_everything_until_the_end() {
    let mut join = join(Interval::new(i64::MIN, i64::MAX), false);
    join.push((1, 1), -5_000_000_000_000).unwrap();
    join.push((1, 2), -1).unwrap();
    join.watermark(1_000).unwrap();
    join.push_right((1, 3), 9_000_000_000_000).unwrap();
    assert_eq!(join.take_records(), [(1, 3), (2, 3)]);
    join.end().unwrap();
    assert_eq!(join.take_signals().last(), Some(&Signal::EndOfInput));
}

/// The operator itself, to look at what it holds.
#[test]
fn state_is_cleaned_up_by_the_watermark_also_of_keys_that_see_no_record_again() {
    let (interval, settings) = (Interval::new(-80, 0), Settings::default());
    let task = crate::context::TaskContext::new("job", "vertex", 0, 1, 128, settings);
    let ctx = crate::context::OperatorContext::new(std::rc::Rc::new(task), "join", "join");
    let key = || ByValue::new(|row: &Row| row.0);
    let options = JoinOptions { interval, left_late: None, right_late: None };
    let function = JoinWith::new(|left: &Row, right: &Row| (left.1, right.1));
    let mut join: IntervalJoin<_, _, Row, Row, Joined, _> =
        IntervalJoin::new(key(), key(), options, function, &ctx);
    let mut out = crate::operator::Collector::new(
        ctx.clone(),
        crate::stage::join_stages(Vec::new()).unwrap(),
        crate::operator::SideOutputs::default(),
    );
    let batch = |timestamp: i64| crate::batch::Batch {
        records: (0..200).map(|key| (key, 0)).collect(),
        timestamps: crate::batch::Timestamps::Same(timestamp),
    };
    use crate::two_input::TwoInputOperator;
    join.open(&ctx).unwrap();
    join.process_left(batch(100), &mut out).unwrap();
    join.process_right(batch(100), &mut out).unwrap();
    assert_eq!(join.held(), (200, 400));
    // Left records find nobody behind their own time; right ones wait 80 ms, and a step of 10 longer at most.
    let _ = join.signal(Signal::Watermark(100), &mut out).unwrap();
    assert_eq!(join.held(), (200, 200));
    let _ = join.signal(Signal::Watermark(190), &mut out).unwrap();
    assert_eq!(join.held(), (0, 0));
    join.process_left(batch(200), &mut out).unwrap();
    let _ = join.signal(Signal::Watermark(i64::MAX), &mut out).unwrap();
    assert_eq!(join.held(), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Left(Vec<(u8, i64)>),
    Right(u8, i64),
    /// Moves the watermark forward by so much.
    Watermark(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Relative to the watermark: out of order, some late, some exactly at it.
    let row = || (0u8..2, -3i64..12);
    let step = prop_oneof![
        4 => prop::collection::vec(row(), 1..5).prop_map(Step::Left),
        6 => row().prop_map(|(key, ahead)| Step::Right(key, ahead)),
        3 => (1i64..10).prop_map(Step::Watermark),
    ];
    prop::collection::vec(step, 0..120)
}

/// A record of the model: key, id, timestamp, and the watermark that removes it.
struct Waiting {
    key: u8,
    id: u32,
    timestamp: i64,
    removed_at: i64,
}

/// Flink's rules: a record joins what waits on the other side and has its key, then waits itself, until a watermark
/// at or behind the time that its last partner could have.
struct Model {
    interval: Interval,
    left: Vec<Waiting>,
    right: Vec<Waiting>,
    watermark: Option<i64>,
    late: u64,
}

impl Model {
    fn push(&mut self, is_left: bool, key: u8, id: u32, timestamp: i64) -> Vec<(Joined, i64)> {
        if self.watermark.is_some_and(|watermark| timestamp < watermark) {
            self.late += 1;
            return Vec::new();
        }
        let Interval { lower_ms, upper_ms } = self.interval;
        let (own, others, kept_ms) = match is_left {
            true => (&mut self.left, &self.right, upper_ms.max(0)),
            false => (&mut self.right, &self.left, (-lower_ms).max(0)),
        };
        own.push(Waiting { key, id, timestamp, removed_at: timestamp + kept_ms });
        let pairs = others.iter().filter(|other| other.key == key).filter_map(|other| {
            let distance = if is_left { other.timestamp - timestamp } else { timestamp - other.timestamp };
            let joined = if is_left { (id, other.id) } else { (other.id, id) };
            (lower_ms..=upper_ms).contains(&distance).then(|| (joined, timestamp.max(other.timestamp)))
        });
        pairs.collect()
    }

    fn watermark(&mut self, watermark: i64) {
        self.watermark = Some(watermark);
        self.left.retain(|waiting| waiting.removed_at > watermark);
        self.right.retain(|waiting| waiting.removed_at > watermark);
    }
}

fn sorted(mut pairs: Vec<(Joined, i64)>) -> Vec<(Joined, i64)> {
    pairs.sort_unstable();
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_joins_what_flink_joins(
        bounds in (-10i64..6, 0i64..12),
        exclusive: (bool, bool),
        steps in steps(),
    ) {
        let mut interval = Interval::new(bounds.0, bounds.0 + bounds.1 + 2);
        if exclusive.0 {
            interval = interval.lower_exclusive();
        }
        if exclusive.1 {
            interval = interval.upper_exclusive();
        }
        let mut join = join(interval, false);
        let mut model =
            Model { interval, left: Vec::new(), right: Vec::new(), watermark: None, late: 0 };
        let mut id = 0;
        for step in steps {
            let now = model.watermark.unwrap_or(0);
            let mut expected = Vec::new();
            match step {
                Step::Left(rows) => {
                    let mut batch = Vec::new();
                    for (key, ahead) in rows {
                        id += 1;
                        expected.extend(model.push(true, key, id, now + ahead));
                        batch.push(((key, id), now + ahead));
                    }
                    join.push_all(batch).unwrap();
                }
                Step::Right(key, ahead) => {
                    id += 1;
                    expected = model.push(false, key, id, now + ahead);
                    join.push_right((key, id), now + ahead).unwrap();
                }
                Step::Watermark(ahead) => {
                    model.watermark(now + ahead);
                    join.watermark(now + ahead).unwrap();
                }
            }
            prop_assert_eq!(sorted(join.take()), sorted(expected));
            prop_assert_eq!(dropped(&join), model.late);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn barriers_and_restarts_change_nothing(
        bounds in (-10i64..6, 0i64..12),
        steps in prop::collection::vec((steps(), 0u32..4), 1..6),
        changes: bool,
    ) {
        let interval = Interval::new(bounds.0, bounds.0 + bounds.1 + 2);
        let kind = if changes { MemoryKind::Changes } else { MemoryKind::AllRows };
        let make = move |builder| join_in(builder, interval, false);
        let mut join = Parallel::new(2, kind, make).unwrap();
        let mut model =
            Model { interval, left: Vec::new(), right: Vec::new(), watermark: None, late: 0 };
        let mut id = 0;
        for (steps, restart) in steps {
            // The rows of this barrier are handed in while the following steps change the buffers.
            let barrier = (restart == 0).then(|| join.barrier().unwrap());
            for step in steps.into_iter().take(20) {
                let now = model.watermark.unwrap_or(0);
                let mut expected = Vec::new();
                match step {
                    Step::Left(rows) => {
                        let mut batch = Vec::new();
                        for (key, ahead) in rows {
                            id += 1;
                            expected.extend(model.push(true, key, id, now + ahead));
                            batch.push(((key, id), now + ahead));
                        }
                        join.push_all(|row: &Row| row.0, batch).unwrap();
                    }
                    Step::Right(key, ahead) => {
                        id += 1;
                        expected = model.push(false, key, id, now + ahead);
                        join.push_right(&key, (key, id), now + ahead).unwrap();
                    }
                    Step::Watermark(ahead) => {
                        model.watermark(now + ahead);
                        join.watermark(now + ahead).unwrap();
                    }
                }
                prop_assert_eq!(sorted(join.take()), sorted(expected));
            }
            match barrier {
                Some(checkpoint) => drop(join.handed_in(checkpoint).unwrap()),
                None => join.restart(restart).unwrap(),
            }
        }
        join.end().unwrap();
    }
}

#[test]
fn a_process_function_may_emit_nothing_or_more_and_use_side_outputs() {
    #[derive(Clone)]
    struct Pairs(OutputTag<u32>);

    impl ProcessJoinFunction<Row, Row, Joined> for Pairs {
        fn process(&mut self, left: &Row, right: &Row, ctx: &mut JoinContext<'_, Joined>) -> Result<()> {
            match right.1 {
                0 => ctx.side(&self.0, left.1),
                count => (0..count).for_each(|_| ctx.collect((left.1, right.1))),
            }
            assert_eq!(ctx.timestamp(), ctx.left_timestamp().max(ctx.right_timestamp()));
            Ok(())
        }
    }

    let none: OutputTag<u32> = OutputTag::new("none");
    let key = || ByValue::new(|row: &Row| row.0);
    let options = JoinOptions { interval: Interval::new(-5, 5), left_late: None, right_late: None };
    let function = Pairs(none.clone());
    let mut join: Harness<Row, Row, Joined> = HarnessBuilder::new(Settings::default())
        .side(&none)
        .two_inputs(|ctx| Ok(IntervalJoin::new(key(), key(), options, function, ctx)))
        .unwrap();
    join.push((1, 9), 10).unwrap();
    join.push_right((1, 0), 12).unwrap();
    join.push_right((1, 2), 8).unwrap();
    assert_eq!(join.take(), [((9, 2), 10), ((9, 2), 10)]);
    assert_eq!(join.take_side(&none), [(9, 12)]);
}

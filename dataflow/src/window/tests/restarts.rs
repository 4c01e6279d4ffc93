//! Barriers and crashes between the steps of a test: whatever happens, results are those of an operator to which nothing happens.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::*;

use flott_schema::Result;

use super::driver::{Conditions, Driver, sorted};
use super::fixed_model::{Numbers, Rec};
use crate::api::{DataStream, KeyedStream};
use crate::batch::Record;
use crate::harness::memory::MemoryKind;
use crate::key::{KeySelector, stable_hash};
use crate::operator::Collector;
use crate::state::ValueState;
use crate::window::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountTrigger, DeltaTrigger, Elements,
    EventTimeSessionWindows, EventTimeTrigger, GlobalWindows, ProcessWindowFunction,
    ProcessingTimeSessionWindows, ProcessingTimeTrigger, ProcessingTimeoutTrigger, PurgingTrigger,
    SlidingEventTimeWindows, SlidingProcessingTimeWindows, TimeEvictor, TimeWindow, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows, WindowContext, WindowOpenContext,
};

/// What happens behind a step.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Nothing,
    Barrier,
    /// All tasks start again from the last barrier, or from one that comes right now, as so many.
    Crash {
        tasks: u32,
        now: bool,
    },
}

/// What happens behind each step, over and over.
pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => Just(Act::Nothing),
        2 => Just(Act::Barrier),
        2 => (1..4u32, any::<bool>()).prop_map(|(tasks, now)| Act::Crash { tasks, now }),
    ];
    prop::collection::vec(act, 1..20)
}

/// How snapshots are taken, and how much stays in memory where that is limited.
pub fn kinds() -> impl Strategy<Value = MemoryKind> {
    let fetching = |budget_bytes| Just(MemoryKind::Fetching { budget_bytes });
    prop_oneof![
        1 => Just(MemoryKind::AllRows),
        1 => Just(MemoryKind::Changes),
        1 => fetching(0),
        1 => fetching(300),
        1 => fetching(1500),
    ]
}

/// Does what is planned, and checks that a repetition gives what came out before.
pub fn act<I, O>(driver: &mut Driver<I, O>, act: Act) -> std::result::Result<(), TestCaseError>
where
    I: Record + Ord + Debug,
    O: Record + Ord + Debug,
{
    match act {
        Act::Nothing => {}
        Act::Barrier => driver.barrier(),
        Act::Crash { tasks, now } => {
            if now || !driver.has_barrier() {
                driver.barrier();
            }
            let repeated = driver.crash(tasks);
            prop_assert_eq!(sorted(repeated.after.0), sorted(repeated.before.0), "results");
            prop_assert_eq!(sorted(repeated.after.1), sorted(repeated.before.1), "late records");
        }
    }
    Ok(())
}

type Build = fn(&DataStream<Rec>) -> DataStream<Vec<u32>>;

const TEN: Duration = Duration::from_millis(10);

/// Windows of every kind that holds a state of its own.
fn builds() -> Vec<(&'static str, Build)> {
    fn keyed(stream: &DataStream<Rec>) -> KeyedStream<Rec, impl KeySelector<Rec, Key = u8>> {
        stream.key_by(|record| record.0)
    }
    vec![
        ("tumbling, processing time", |stream| {
            keyed(stream).window(TumblingProcessingTimeWindows::of(TEN)).aggregate(Numbers)
        }),
        ("sliding, processing time", |stream| {
            keyed(stream).window(SlidingProcessingTimeWindows::of(TEN * 2, TEN / 2)).aggregate(Numbers)
        }),
        ("general, processing time", |stream| {
            let windows = keyed(stream).window(TumblingProcessingTimeWindows::of(TEN));
            windows.trigger(ProcessingTimeTrigger).aggregate(Numbers)
        }),
        ("sessions, processing time", |stream| {
            keyed(stream).window(ProcessingTimeSessionWindows::with_gap(TEN)).aggregate(Numbers)
        }),
        ("windows of three records", |stream| keyed(stream).count_window(3).aggregate(Numbers)),
        ("windows of the last four records", |stream| {
            keyed(stream).count_window_sliding(4, 2).aggregate(Numbers)
        }),
        ("count in windows", |stream| {
            keyed(stream)
                .window(TumblingEventTimeWindows::of(TEN))
                .trigger(CountTrigger::of(2))
                .aggregate(Numbers)
        }),
        ("count in sessions", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(CountTrigger::of(3)).aggregate(Numbers)
        }),
        ("continuous, event time", |stream| {
            let windows = keyed(stream).window(TumblingEventTimeWindows::of(TEN * 4));
            windows.trigger(ContinuousEventTimeTrigger::of(TEN / 2)).allowed_lateness(TEN).aggregate(Numbers)
        }),
        ("continuous in sessions", |stream| {
            let windows = keyed(stream).window(EventTimeSessionWindows::with_gap(TEN));
            windows.trigger(ContinuousEventTimeTrigger::of(TEN / 2)).aggregate(Numbers)
        }),
        ("continuous, processing time", |stream| {
            let windows = keyed(stream).window(TumblingProcessingTimeWindows::of(TEN * 4));
            windows.trigger(ContinuousProcessingTimeTrigger::of(TEN / 2)).aggregate(Numbers)
        }),
        ("delta", |stream| {
            let delta = |one: &Rec, other: &Rec| f64::from(other.1) - f64::from(one.1);
            keyed(stream)
                .window(GlobalWindows::create())
                .trigger(DeltaTrigger::of(4.0, delta))
                .aggregate(Numbers)
        }),
        ("timeout", |stream| {
            let timeout = ProcessingTimeoutTrigger::of(CountTrigger::of(3), TEN);
            let windows = keyed(stream).window(GlobalWindows::create());
            windows.trigger(PurgingTrigger::of(timeout)).aggregate(Numbers)
        }),
        ("evictor", |stream| {
            let windows = keyed(stream).window(SlidingEventTimeWindows::of(TEN, TEN / 2));
            windows.evictor(TimeEvictor::of(TEN / 2)).aggregate(Numbers)
        }),
        ("no key", |stream| stream.window_all(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)),
        ("states of a function", |stream| {
            let windows = keyed(stream).window(TumblingEventTimeWindows::of(TEN));
            windows.allowed_lateness(TEN).process(Counting::default())
        }),
        ("states of a function behind an aggregation", |stream| {
            let windows = keyed(stream).window(SlidingEventTimeWindows::of(TEN, TEN / 2));
            windows.allowed_lateness(TEN).aggregate_process(Numbers, Counting::default())
        }),
        ("states of a function of windows of any kind", |stream| {
            let windows = keyed(stream).window(TumblingEventTimeWindows::of(TEN)).trigger(EventTimeTrigger);
            windows.allowed_lateness(TEN).process(Counting::default())
        }),
    ]
}

/// Gives the key, how often it was called for the key, how often for the key and window, and how many records it was given.
#[derive(Clone, Default)]
struct Counting {
    of_key: ValueState<u32>,
    of_window: ValueState<u32>,
}

impl<I: Clone> ProcessWindowFunction<u8, I, Vec<u32>, TimeWindow> for Counting {
    fn open(&mut self, ctx: &mut WindowOpenContext<'_>) -> Result<()> {
        self.of_key = ctx.global().value_state("calls")?;
        self.of_window = ctx.window()?.value_state("calls")?;
        Ok(())
    }

    fn process(
        &mut self,
        key: &u8,
        ctx: &mut WindowContext<'_, u8, TimeWindow>,
        elements: Elements<'_, I>,
        out: &mut Collector<Vec<u32>>,
    ) -> Result<()> {
        let count = |calls: &mut u32| {
            *calls += 1;
            *calls
        };
        let of_key = self.of_key.update(ctx.global_state(), count);
        let of_window = self.of_window.update(ctx.window_state(), count);
        out.collect(vec![u32::from(*key), of_key, of_window, elements.len() as u32]);
        Ok(())
    }

    fn clear(&mut self, _key: &u8, ctx: &mut WindowContext<'_, u8, TimeWindow>) -> Result<()> {
        assert!(self.of_window.take(ctx.window_state()).is_some(), "cleared where it was used");
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Input {
    /// Keys, and times relative to now.
    Records(Vec<(u8, i64)>),
    Watermark(i64),
    /// The clock moves on.
    Time(i64),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        4 => prop::collection::vec((0u8..4, -15i64..15), 1..6).prop_map(Input::Records),
        2 => (-20i64..10).prop_map(Input::Watermark),
        2 => (0i64..12).prop_map(Input::Time),
    ];
    prop::collection::vec(input, 0..40)
}

#[test]
fn a_drained_job_that_starts_again_has_a_new_event_time_and_its_windows_of_processing_time() {
    let conditions = Conditions { snapshots: Some(MemoryKind::Changes), ..Conditions::default() };
    let drained = |build: Build, results: usize| {
        let mut driver = Driver::<Rec, Vec<u32>>::under(conditions, build);
        driver.time(1003);
        driver.push([((1, 1), 1003)]);
        driver.time(1006);
        driver.watermark_only(i64::MAX);
        assert_eq!(driver.take().len(), results);
        driver.barrier();
        driver.crash(1);
        driver.push([((1, 2), 1004)]);
        assert_eq!(driver.late_dropped(), 0);
        driver
    };
    let mut processing = drained(
        |stream| {
            let windows = SlidingProcessingTimeWindows::of(TEN, TEN / 2);
            stream.key_by(|record| record.0).window(windows).aggregate(Numbers)
        },
        0,
    );
    assert_eq!(processing.time(1100), [(vec![1, 2], 1009), (vec![2], 1014)]);
    let mut event = drained(
        |stream| {
            stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN)).aggregate(Numbers)
        },
        1,
    );
    assert_eq!(event.watermark(1009), [(vec![2], 1009)]);
}

#[test]
fn sliding_windows_do_not_go_on_from_those_at_other_times() {
    fn build(slide_ms: u64) -> impl Fn(&DataStream<Rec>) -> DataStream<Vec<u32>> {
        move |stream| {
            let windows = SlidingEventTimeWindows::of(TEN, Duration::from_millis(slide_ms));
            stream.key_by(|record| record.0).window(windows).aggregate(Numbers).uid("windows")
        }
    }
    let conditions = Conditions { snapshots: Some(MemoryKind::AllRows), ..Conditions::default() };
    let mut driver = Driver::<Rec, Vec<u32>>::under(conditions, build(5));
    driver.push([((1, 1), 12)]);
    driver.watermark(16);
    driver.barrier();
    driver.snapshot_and_go_on();
    let mut other = Driver::<Rec, Vec<u32>>::under(conditions, build(4));
    let error = other.start_from(&driver).unwrap_err().to_string();
    assert!(error.contains("lie at other times"), "{error}");
    Driver::<Rec, Vec<u32>>::under(conditions, build(5)).start_from(&driver).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn windows_of_every_kind_go_on_from_a_snapshot(
        build in 0..builds().len(),
        inputs in inputs(),
        acts in acts(),
        kind in kinds(),
    ) {
        let (name, build) = builds()[build];
        let mut plain = Driver::<Rec, Vec<u32>>::new(build);
        let conditions = Conditions { snapshots: Some(kind), ..Conditions::default() };
        let mut acting = Driver::<Rec, Vec<u32>>::under(conditions, build);
        let one_task_only = name == "no key";
        if !one_task_only {
            acting = acting.routed(|(key, _)| stable_hash(key));
        }
        let (mut now, mut watermark, mut number) = (1000, i64::MIN, 0);
        for (input, next) in inputs.into_iter().zip(acts.iter().cycle()) {
            match input {
                Input::Records(records) => {
                    let batch: Vec<(Rec, i64)> = records
                        .into_iter()
                        .map(|(key, at)| {
                            number += 1;
                            ((key, number), now + at)
                        })
                        .collect();
                    plain.push(batch.clone());
                    acting.push(batch);
                }
                Input::Watermark(at) => {
                    watermark = watermark.max(now + at);
                    plain.watermark_only(watermark);
                    acting.watermark_only(watermark);
                }
                Input::Time(by) => {
                    now += by;
                    let results = plain.time(now);
                    prop_assert_eq!(sorted(acting.time(now)), sorted(results), "{}: {:?}", name, input);
                }
            }
            prop_assert_eq!(sorted(acting.take()), sorted(plain.take()), "{}", name);
            let next = match *next {
                Act::Crash { now, .. } if one_task_only => Act::Crash { tasks: 1, now },
                next => next,
            };
            act(&mut acting, next)?;
        }
        prop_assert_eq!(sorted(acting.end()), sorted(plain.end()), "{}: the end", name);
        prop_assert_eq!(acting.late_dropped() > 0, plain.late_dropped() > 0, "{}", name);
    }

    #[test]
    fn a_barrier_in_the_middle_of_a_firing_takes_what_is_left_of_it(
        build in 0usize..4,
        records in prop::collection::vec((any::<u8>(), 0i64..25), 1..120),
        restarts in prop::collection::vec((1i64..9, any::<bool>(), 1u32..3), 1..12),
        kind in kinds(),
    ) {
        let (name, build) = builds()[build];
        let mut plain = Driver::<Rec, Vec<u32>>::new(build);
        let conditions =
            Conditions { snapshots: Some(kind), batch_size: 1, credit: 3, ..Conditions::default() };
        let mut acting = Driver::<Rec, Vec<u32>>::under(conditions, build).routed(|(key, _)| stable_hash(key));
        let mut results = (Vec::new(), Vec::new());
        let mut now = 1000;
        for (number, (key, by)) in (0..).zip(records) {
            if by > 20 {
                now += by - 20;
                results.0.extend(plain.time(now));
                results.1.extend(acting.time(now));
            }
            plain.push([((key, number), 0)]);
            acting.push([((key, number), 0)]);
        }
        for (by, crash, tasks) in restarts {
            now += by;
            results.0.extend(plain.time(now));
            // One step: the outputs have no room for the rest.
            acting.step(now);
            results.1.extend(acting.take_leaving_no_room());
            acting.barrier();
            if crash {
                acting.crash(tasks);
            } else {
                acting.snapshot_and_go_on();
            }
            results.1.extend(acting.time(now));
        }
        results.0.extend(plain.end());
        results.1.extend(acting.end());
        prop_assert_eq!(sorted(results.1), sorted(results.0), "{}", name);
    }
}

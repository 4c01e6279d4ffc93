//! Tumbling and sliding windows in event time against a naive model of Flink's rules.

use std::collections::BTreeMap;
use std::time::Duration;

use flott_schema::graph::ExecutionMode;
use proptest::prelude::*;

use super::driver::{Conditions, Driver, late, sorted};
use super::restarts::{Act, act, acts, kinds};
use crate::api::DataStream;
use crate::key::stable_hash;
use crate::time::AggregateFunction;
use crate::window::{
    CountEvictor, EventTimeTrigger, SlidingEventTimeWindows, TimeWindow, Trigger, TriggerContext,
    TriggerResult, Window,
};

/// Key and number of a record.
pub type Rec = (u8, u32);

/// Key, window, and the numbers of the records in it.
pub type Fired = (u8, TimeWindow, Vec<u32>);

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keys and timestamps.
    Records(Vec<(u8, i64)>),
    Watermark(i64),
}

/// Records around a time that moves on, some far behind; watermarks that lag behind the time, more or less.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0u8..4, prop_oneof![8 => 0i64..15, 2 => -60i64..0, 1 => 15i64..200]);
    let step = prop_oneof![
        3 => prop::collection::vec(record.clone(), 1..8).prop_map(Step::Records),
        1 => prop::collection::vec(record, 10..80).prop_map(|mut records| {
            records.sort_by_key(|(_, at)| *at);
            Step::Records(records)
        }),
        2 => (-20i64..30).prop_map(Step::Watermark),
    ];
    prop::collection::vec((step, 0i64..25), 0..40).prop_map(|steps| {
        let (mut time, mut watermark) = (0i64, i64::MIN);
        let mut moved = Vec::new();
        for (step, advance) in steps {
            match step {
                Step::Records(records) => {
                    let records = records.into_iter().map(|(key, at)| (key, time + at)).collect();
                    moved.push(Step::Records(records));
                }
                Step::Watermark(at) => {
                    watermark = watermark.max(time + at);
                    moved.push(Step::Watermark(watermark));
                }
            }
            time += advance;
        }
        moved
    })
}

/// Size, slide, offset, lateness, milliseconds.
#[derive(Clone, Copy, Debug)]
struct Windows {
    size: i64,
    slide: i64,
    offset: i64,
    lateness: i64,
}

fn windows() -> impl Strategy<Value = Windows> {
    let sizes = prop_oneof![
        2 => (1i64..40).prop_map(|size| (size, size)),
        3 => (1i64..40, 1i64..40),
        3 => (1i64..12, 1i64..8).prop_map(|(slide, times)| (slide * times, slide)),
        1 => (40i64..120, 1i64..3),
    ];
    (sizes, -40i64..40, prop_oneof![Just(0i64), 1i64..60]).prop_map(|((size, slide), offset, lateness)| {
        Windows { size, slide, offset: offset % slide, lateness }
    })
}

struct Model {
    windows: Windows,
    watermark: i64,
    contents: BTreeMap<(i64, u8), Vec<u32>>,
    fired: Vec<Fired>,
    late: Vec<Rec>,
}

impl Model {
    fn new(windows: Windows) -> Self {
        let contents = BTreeMap::new();
        Model { windows, watermark: i64::MIN, contents, fired: Vec::new(), late: Vec::new() }
    }

    fn fire(&mut self, end: i64, key: u8) {
        let window = TimeWindow::new(end - self.windows.size, end);
        self.fired.push((key, window, sorted(self.contents[&(end, key)].clone())));
    }

    fn record(&mut self, key: u8, number: u32, at: i64) {
        let Windows { size, slide, offset, lateness } = self.windows;
        let mut in_time = false;
        for start in at - size + 1..=at {
            let end = start + size;
            if (start - offset).rem_euclid(slide) != 0 || end - 1 + lateness <= self.watermark {
                continue;
            }
            in_time = true;
            self.contents.entry((end, key)).or_default().push(number);
            if end - 1 <= self.watermark {
                self.fire(end, key);
            }
        }
        if !in_time && at + lateness <= self.watermark {
            self.late.push((key, number));
        }
    }

    fn watermark(&mut self, watermark: i64) {
        let due: Vec<(i64, u8)> = self.contents.keys().copied().collect();
        for (end, key) in due {
            if end - 1 > self.watermark && end - 1 <= watermark {
                self.fire(end, key);
            }
        }
        self.watermark = watermark;
        let lateness = self.windows.lateness;
        self.contents.retain(|(end, _), _| end - 1 + lateness > watermark);
    }
}

/// Gathers the numbers of records.
#[derive(Clone)]
pub struct Numbers;

impl AggregateFunction for Numbers {
    type In = Rec;
    type Accumulator = Vec<u32>;
    type Out = Vec<u32>;

    fn create(&self) -> Vec<u32> {
        Vec::new()
    }

    fn add(&self, accumulator: &mut Vec<u32>, record: Rec) {
        accumulator.push(record.1);
    }

    fn merge(&self, accumulator: &mut Vec<u32>, other: &Vec<u32>) {
        accumulator.extend(other);
    }

    fn result(&self, accumulator: &Vec<u32>) -> Vec<u32> {
        sorted(accumulator.clone())
    }
}

/// The event-time trigger, with a timer for every key.
#[derive(Clone)]
pub struct TimerPerKey;

impl<T, W: Window> Trigger<T, W> for TimerPerKey {
    type State = ();

    fn on_element(
        &mut self,
        record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, ()>,
    ) -> TriggerResult {
        EventTimeTrigger.on_element(record, timestamp_ms, window, ctx)
    }

    fn on_event_time(&mut self, time_ms: i64, window: &W, ctx: &mut TriggerContext<'_, ()>) -> TriggerResult {
        Trigger::<T, W>::on_event_time(&mut EventTimeTrigger, time_ms, window, ctx)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: Vec<()>, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        Trigger::<T, W>::on_merge(&mut EventTimeTrigger, merged, window, ctx);
    }

    fn clear(&mut self, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        Trigger::<T, W>::clear(&mut EventTimeTrigger, window, ctx);
    }
}

/// The ways to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    SlicedAggregate,
    SlicedRecords,
    GeneralAggregate,
    TimerPerKey,
    Evicting,
}

pub fn ways() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::SlicedAggregate),
        2 => Just(Way::SlicedRecords),
        1 => Just(Way::GeneralAggregate),
        1 => Just(Way::TimerPerKey),
        1 => Just(Way::Evicting),
    ]
}

fn build(stream: &DataStream<Rec>, windows: Windows, way: Way) -> DataStream<Fired> {
    let ms = |n: i64| Duration::from_millis(n as u64);
    let assigner = SlidingEventTimeWindows::of(ms(windows.size), ms(windows.slide)).offset_ms(windows.offset);
    let windowed = stream
        .key_by(|record| record.0)
        .window(assigner)
        .allowed_lateness(ms(windows.lateness))
        .side_output_late(&late());
    let finish = |key: &u8, window: &TimeWindow, numbers| (*key, *window, numbers);
    let all = move |key: &u8,
                    window: &TimeWindow,
                    records: crate::window::Elements<'_, Rec>,
                    out: &mut crate::operator::Collector<Fired>| {
        out.collect((*key, *window, sorted(records.into_iter().map(|(_, number)| number))));
    };
    match way {
        Way::SlicedAggregate => windowed.aggregate_with(Numbers, finish),
        Way::SlicedRecords => windowed.apply(all),
        Way::GeneralAggregate => windowed.trigger(EventTimeTrigger).aggregate_with(Numbers, finish),
        Way::TimerPerKey => windowed.trigger(TimerPerKey).apply(all),
        Way::Evicting => windowed.evictor(CountEvictor::of(usize::MAX)).aggregate_with(Numbers, finish),
    }
}

/// Feeds steps to a driver and calls `model` for each record and watermark; both give what fired, and the late.
pub fn check(
    driver: Driver<Rec, Fired>,
    steps: &[Step],
    record: impl FnMut(u8, u32, i64),
    watermark: impl FnMut(i64),
    expected: impl FnMut() -> (Vec<Fired>, Vec<Rec>),
) -> Result<(), TestCaseError> {
    check_acting(driver, steps, &[Act::Nothing], record, watermark, expected)
}

/// The same, with barriers and crashes.
pub fn check_acting(
    mut driver: Driver<Rec, Fired>,
    steps: &[Step],
    acts: &[Act],
    mut record: impl FnMut(u8, u32, i64),
    mut watermark: impl FnMut(i64),
    mut expected: impl FnMut() -> (Vec<Fired>, Vec<Rec>),
) -> Result<(), TestCaseError> {
    let mut number = 0;
    let acts = acts.iter().cycle();
    for (step, next) in steps.iter().chain([&Step::Watermark(i64::MAX)]).zip(acts) {
        match step {
            Step::Records(records) => {
                let mut batch = Vec::new();
                for (key, at) in records {
                    record(*key, number, *at);
                    batch.push(((*key, number), *at));
                    number += 1;
                }
                driver.push(batch);
            }
            Step::Watermark(at) => {
                watermark(*at);
                driver.watermark_only(*at);
            }
        }
        let results = driver.take();
        for ((_, window, _), timestamp) in &results {
            prop_assert_eq!(*timestamp, window.end_ms - 1);
        }
        let (fired, late) = expected();
        prop_assert_eq!(sorted(results.into_iter().map(|(fired, _)| fired)), sorted(fired), "{:?}", step);
        prop_assert_eq!(sorted(driver.take_late().into_iter().map(|(record, _)| record)), sorted(late));
        if *step != Step::Watermark(i64::MAX) {
            act(&mut driver, *next)?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn every_way_to_run_them_agrees_with_the_model(
        windows in windows(),
        steps in steps(),
        way in ways(),
        credit in 0usize..3,
        batch_size in 1usize..6,
    ) {
        let conditions = Conditions { credit, batch_size, ..Conditions::default() };
        let driver = Driver::under(conditions, |stream| build(stream, windows, way));
        let model = std::cell::RefCell::new(Model::new(windows));
        check(
            driver,
            &steps,
            |key, number, at| model.borrow_mut().record(key, number, at),
            |watermark| model.borrow_mut().watermark(watermark),
            || {
                let mut model = model.borrow_mut();
                (std::mem::take(&mut model.fired), std::mem::take(&mut model.late))
            },
        )?;
    }

    #[test]
    fn barriers_and_restarts_change_nothing(
        windows in windows(),
        steps in steps(),
        way in ways(),
        credit in 0usize..3,
        acts in acts(),
        kind in kinds(),
    ) {
        let conditions = Conditions { credit, batch_size: 3, snapshots: Some(kind), ..Conditions::default() };
        let driver = Driver::under(conditions, |stream| build(stream, windows, way));
        let model = std::cell::RefCell::new(Model::new(windows));
        check_acting(
            driver.routed(|(key, _)| stable_hash(key)),
            &steps,
            &acts,
            |key, number, at| model.borrow_mut().record(key, number, at),
            |watermark| model.borrow_mut().watermark(watermark),
            || {
                let mut model = model.borrow_mut();
                (std::mem::take(&mut model.fired), std::mem::take(&mut model.late))
            },
        )?;
    }

    #[test]
    fn in_batch_execution_nothing_is_late_and_every_window_fires_once(
        windows in windows(),
        steps in steps(),
        way in ways(),
    ) {
        let records: Vec<Step> = steps.into_iter().filter(|step| matches!(step, Step::Records(_))).collect();
        let conditions = Conditions { mode: ExecutionMode::Batch, ..Conditions::default() };
        let driver = Driver::under(conditions, |stream| build(stream, windows, way));
        let model = std::cell::RefCell::new(Model::new(windows));
        check(
            driver,
            &records,
            |key, number, at| model.borrow_mut().record(key, number, at),
            |watermark| model.borrow_mut().watermark(watermark),
            || {
                let mut model = model.borrow_mut();
                assert!(model.late.is_empty());
                (std::mem::take(&mut model.fired), Vec::new())
            },
        )?;
    }
}

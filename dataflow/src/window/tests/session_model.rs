//! Sessions in event time against a naive model of Flink's rules.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Conditions, Driver, late, sorted};
use super::fixed_model::{Fired, Numbers, Rec, TimerPerKey, Way, check_acting, steps, ways};
use super::restarts::{Act, acts, kinds};
use crate::api::DataStream;
use crate::key::stable_hash;
use crate::window::{CountEvictor, EventTimeSessionWindows, TimeWindow, WindowAssigner};

/// The gap is that of the rules, or depends on the record's number.
#[derive(Clone, Copy, Debug)]
struct Rules {
    gap: i64,
    dynamic: bool,
    lateness: i64,
}

fn rules() -> impl Strategy<Value = Rules> {
    (1i64..40, any::<bool>(), prop_oneof![Just(0i64), 1i64..60]).prop_map(|(gap, dynamic, lateness)| Rules {
        gap,
        dynamic,
        lateness,
    })
}

fn gap_of(rules: Rules, number: u32) -> i64 {
    if rules.dynamic { 1 + i64::from(number) * 7 % rules.gap } else { rules.gap }
}

struct Session {
    window: TimeWindow,
    numbers: Vec<u32>,
    fired: bool,
}

struct Model {
    rules: Rules,
    watermark: i64,
    sessions: BTreeMap<u8, Vec<Session>>,
    fired: Vec<Fired>,
    late: Vec<Rec>,
}

impl Model {
    fn record(&mut self, key: u8, number: u32, at: i64) {
        let sessions = self.sessions.entry(key).or_default();
        let mut window = TimeWindow::new(at, at + gap_of(self.rules, number));
        let (met, others): (Vec<Session>, Vec<Session>) =
            std::mem::take(sessions).into_iter().partition(|session| session.window.intersects(&window));
        *sessions = others;
        for session in &met {
            window = window.cover(&session.window);
        }
        if window.end_ms - 1 + self.rules.lateness <= self.watermark {
            assert!(met.is_empty());
            self.late.push((key, number));
            return;
        }
        let mut numbers: Vec<u32> = met.into_iter().flat_map(|session| session.numbers).collect();
        numbers.push(number);
        let fired = window.end_ms - 1 <= self.watermark;
        if fired {
            self.fired.push((key, window, sorted(numbers.clone())));
        }
        sessions.push(Session { window, numbers, fired });
    }

    fn watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
        for (key, sessions) in &mut self.sessions {
            for session in &mut *sessions {
                if !session.fired && session.window.end_ms - 1 <= watermark {
                    session.fired = true;
                    self.fired.push((*key, session.window, sorted(session.numbers.clone())));
                }
            }
            sessions.retain(|session| session.window.end_ms - 1 + self.rules.lateness > watermark);
        }
    }
}

fn build(stream: &DataStream<Rec>, rules: Rules, way: Way) -> DataStream<Fired> {
    if rules.dynamic {
        let gap = move |record: &Rec| Duration::from_millis(gap_of(rules, record.1) as u64);
        build_with(stream, EventTimeSessionWindows::with_dynamic_gap(gap), rules, way)
    } else {
        let gap = Duration::from_millis(rules.gap as u64);
        build_with(stream, EventTimeSessionWindows::with_gap(gap), rules, way)
    }
}

fn build_with<A: WindowAssigner<Rec, Window = TimeWindow>>(
    stream: &DataStream<Rec>,
    assigner: A,
    rules: Rules,
    way: Way,
) -> DataStream<Fired> {
    let windowed = stream
        .key_by(|record| record.0)
        .window(assigner)
        .allowed_lateness(Duration::from_millis(rules.lateness as u64))
        .side_output_late(&late());
    let finish = |key: &u8, window: &TimeWindow, numbers| (*key, *window, numbers);
    match way {
        Way::SlicedAggregate | Way::GeneralAggregate => windowed.aggregate_with(Numbers, finish),
        Way::TimerPerKey => windowed.trigger(TimerPerKey).aggregate_with(Numbers, finish),
        Way::Evicting => windowed.evictor(CountEvictor::of(usize::MAX)).aggregate_with(Numbers, finish),
        Way::SlicedRecords => windowed.apply(|key, window, records, out| {
            out.collect((*key, *window, sorted(records.into_iter().map(|(_, number)| number))));
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn sessions_agree_with_the_model(
        rules in rules(),
        steps in steps(),
        way in ways(),
        credit in 0usize..3,
        batch_size in 1usize..6,
        acts in acts(),
        kind in prop::option::of(kinds()),
    ) {
        let conditions = Conditions { credit, batch_size, snapshots: kind, ..Conditions::default() };
        let driver = Driver::under(conditions, |stream| build(stream, rules, way));
        let acts = if kind.is_some() { acts } else { vec![Act::Nothing] };
        let model = RefCell::new(Model {
            rules,
            watermark: i64::MIN,
            sessions: BTreeMap::new(),
            fired: Vec::new(),
            late: Vec::new(),
        });
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
}

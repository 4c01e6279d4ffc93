//! Window functions: what they are given, their states, and the ways to combine them with aggregation.

use std::time::Duration;

use flott_schema::Result;

use super::driver::{Driver, late, sorted};
use super::fixed_model::{Numbers, Rec};
use crate::operator::Collector;
use crate::state::ValueState;
use crate::window::{
    ContinuousEventTimeTrigger, CountTrigger, Elements, EventTimeSessionWindows, EventTimeTrigger,
    GlobalWindows, ProcessWindowFunction, SlidingEventTimeWindows, TimeWindow, TumblingEventTimeWindows,
    Window, WindowContext, WindowOpenContext,
};

const TEN: Duration = Duration::from_millis(10);

/// Emits how often it was called for the key, how often for the key and window, and what it was given.
#[derive(Clone, Default)]
struct Calls {
    of_key: ValueState<u32>,
    of_window: ValueState<u32>,
}

/// Calls for the key, calls for the key and window, records.
type Called = (u32, u32, Vec<u32>);

impl<I: Into<Seen> + Clone> ProcessWindowFunction<u8, I, Called, TimeWindow> for Calls {
    fn open(&mut self, ctx: &mut WindowOpenContext<'_>) -> Result<()> {
        assert_eq!(ctx.task().parallelism, 1);
        self.of_key = ctx.global().value_state("calls")?;
        self.of_window = ctx.window()?.value_state("calls")?;
        Ok(())
    }

    fn process(
        &mut self,
        _key: &u8,
        ctx: &mut WindowContext<'_, u8, TimeWindow>,
        elements: Elements<'_, I>,
        out: &mut Collector<Called>,
    ) -> Result<()> {
        assert!(ctx.watermark() >= ctx.window().max_timestamp() || ctx.watermark() > i64::MIN);
        let count = |calls: &mut u32| {
            *calls += 1;
            *calls
        };
        let of_key = self.of_key.update(ctx.global_state(), count);
        let of_window = self.of_window.update(ctx.window_state(), count);
        let seen = elements.into_iter().flat_map(|element| element.into().0).collect();
        out.collect((of_key, of_window, seen));
        Ok(())
    }

    fn clear(&mut self, _key: &u8, ctx: &mut WindowContext<'_, u8, TimeWindow>) -> Result<()> {
        assert!(self.of_window.take(ctx.window_state()).is_some());
        Ok(())
    }
}

/// The numbers of one element, whatever it is.
struct Seen(Vec<u32>);

impl From<Rec> for Seen {
    fn from(record: Rec) -> Self {
        Seen(vec![record.1])
    }
}

impl From<Vec<u32>> for Seen {
    fn from(numbers: Vec<u32>) -> Self {
        Seen(numbers)
    }
}

#[test]
fn a_process_function_has_state_of_the_key_and_of_the_window() {
    let build = |general: bool| {
        Driver::<Rec, Called>::new(|stream| {
            let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
            let windows = windows.allowed_lateness(TEN);
            if general {
                windows.trigger(EventTimeTrigger).process(Calls::default())
            } else {
                windows.process(Calls::default())
            }
        })
    };
    for general in [false, true] {
        let mut driver = build(general);
        driver.push([((7, 1), 3), ((7, 2), 5)]);
        assert_eq!(driver.watermark(9), [((1, 1, vec![1, 2]), 9)]);
        driver.push([((7, 3), 3)]);
        assert_eq!(driver.take(), [((2, 2, vec![1, 2, 3]), 9)]);
        driver.push([((7, 4), 13)]);
        // The first window is dropped here, and its state is cleared.
        assert_eq!(driver.watermark(19), [((3, 1, vec![4]), 19)]);
        driver.push([((7, 5), 13)]);
        assert_eq!(driver.take(), [((4, 2, vec![4, 5]), 19)]);
        driver.end();
    }
}

#[test]
fn aggregation_and_process_function_work_together() {
    let mut driver = Driver::<Rec, Called>::new(|stream| {
        let windows = SlidingEventTimeWindows::of(TEN, TEN / 2);
        stream.key_by(|record| record.0).window(windows).aggregate_process(Numbers, Calls::default())
    });
    driver.push([((7, 1), 7), ((7, 2), 12)]);
    let calls = [((1, 1, vec![1]), 9), ((2, 1, vec![1, 2]), 14), ((3, 1, vec![2]), 19)];
    assert_eq!(driver.end(), calls);
    let mut driver = Driver::<Rec, Called>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(TumblingEventTimeWindows::of(TEN));
        let sum = |sum: &mut Rec, next: &mut Rec| sum.1 += next.1;
        windows.trigger(ContinuousEventTimeTrigger::of(TEN / 2)).reduce_process(sum, Calls::default())
    });
    driver.push([((7, 1), 3)]);
    assert_eq!(driver.watermark(5), [((1, 1, vec![1]), 9)]);
    driver.push([((7, 2), 7)]);
    assert_eq!(driver.end(), [((2, 2, vec![3]), 9)]);
}

#[test]
fn windows_that_merge_have_no_state_of_their_own() {
    let message = Driver::<Rec, Called>::refused(|stream| {
        let windows = stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN));
        windows.process(Calls::default())
    });
    assert!(message.contains("windows that merge have no per-window state"), "{message}");
}

#[test]
fn every_short_form_gives_what_it_says() {
    type Sale = (u8, i64, f64);
    type Build = fn(
        crate::api::WindowedStream<Sale, crate::key::ByValue<fn(&Sale) -> u8, u8>, TumblingEventTimeWindows>,
    ) -> crate::api::DataStream<Sale>;
    let builds: [(Build, Sale); 7] = [
        (|windows| windows.sum(|sale| &mut sale.1), (1, 6, 0.5)),
        (|windows| windows.min(|sale| &mut sale.1), (1, 1, 0.5)),
        (|windows| windows.max(|sale| &mut sale.2), (1, 2, 9.0)),
        (|windows| windows.min_by(|sale| sale.1), (1, 1, 9.0)),
        (|windows| windows.max_by(|sale| sale.1), (1, 3, 0.1)),
        (|windows| windows.reduce(|first, _| first.1 = -first.1), (1, 2, 0.5)),
        (
            |windows| {
                windows
                    .reduce_with(|sum, next| sum.1 += next.1, |key, window, sum| (*key, window.end_ms, sum.2))
            },
            (1, 10, 0.5),
        ),
    ];
    for (build, expected) in builds {
        let mut driver = Driver::<Sale, Sale>::new(|stream| {
            let key: fn(&Sale) -> u8 = |sale| sale.0;
            build(stream.key_by(key).window(TumblingEventTimeWindows::of(TEN)))
        });
        driver.push([((1, 2, 0.5), 1), ((1, 1, 9.0), 2), ((1, 3, 0.1), 3)]);
        assert_eq!(driver.end(), [(expected, 9)]);
    }
}

#[test]
fn window_all_gathers_all_keys_in_one_task() {
    let mut driver = Driver::<Rec, (i64, Vec<u32>)>::new(|stream| {
        stream.env().set_parallelism(4);
        let windows = stream.window_all(SlidingEventTimeWindows::of(TEN, TEN / 2));
        windows.aggregate_with(Numbers, |(), window, numbers| (window.start_ms, numbers))
    });
    driver.push([((1, 1), 1), ((2, 2), 7)]);
    assert_eq!(driver.end(), [((-5, vec![1]), 4), ((0, vec![1, 2]), 9), ((5, vec![2]), 14)]);
    let mut driver = Driver::<Rec, Rec>::new(|stream| stream.count_window_all(2).sum(|record| &mut record.1));
    driver.push([((1, 1), 0), ((2, 2), 0), ((3, 4), 0)]);
    assert_eq!(driver.end(), [((1, 3), i64::MAX)]);
    let mut driver =
        Driver::<Rec, Vec<u32>>::new(|stream| stream.count_window_all_sliding(3, 2).aggregate(Numbers));
    driver.push((1..=6).map(|n| ((n as u8, n), 0)));
    let windows = driver.end().into_iter().map(|(numbers, _)| numbers);
    assert_eq!(windows.collect::<Vec<_>>(), [vec![1, 2], vec![2, 3, 4], vec![4, 5, 6]]);
}

#[test]
fn a_function_can_use_the_state_of_the_key_without_any_of_the_window() {
    #[derive(Clone, Default)]
    struct Numbering(ValueState<u64>);
    impl<W: Window> ProcessWindowFunction<u8, Rec, (u64, usize), W> for Numbering {
        fn open(&mut self, ctx: &mut WindowOpenContext<'_>) -> Result<()> {
            self.0 = ctx.global().value_state("number")?;
            Ok(())
        }

        fn process(
            &mut self,
            _key: &u8,
            ctx: &mut WindowContext<'_, u8, W>,
            elements: Elements<'_, Rec>,
            out: &mut Collector<(u64, usize)>,
        ) -> Result<()> {
            let number = self.0.update(ctx.global_state(), |number| {
                *number += 1;
                *number
            });
            out.collect((number, elements.len()));
            out.side(&late::<Rec>(), elements.into_first().unwrap());
            Ok(())
        }
    }
    let mut driver = Driver::<Rec, (u64, usize)>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(EventTimeSessionWindows::with_gap(TEN));
        windows.process(Numbering::default())
    });
    driver.push([((1, 1), 0), ((1, 2), 5), ((1, 3), 50), ((2, 4), 0)]);
    assert_eq!(sorted(driver.end()), [((1, 1), 9), ((1, 2), 14), ((2, 1), 59)]);
    assert_eq!(driver.take_late(), [((2, 4), 9), ((1, 1), 14), ((1, 3), 59)]);
    let mut driver = Driver::<Rec, (u64, usize)>::new(|stream| {
        let windows = stream.key_by(|record| record.0).window(GlobalWindows::create());
        windows.trigger(CountTrigger::of(2)).process(Numbering::default())
    });
    driver.push((0..5).map(|n| ((1, n), 0)));
    assert_eq!(driver.take(), [((1, 2), i64::MAX), ((2, 4), i64::MAX)]);
}

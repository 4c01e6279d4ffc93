//! Functions over two connected streams: co-map, co-flat-map, co-process, and co-process with the state of a key.

use std::marker::PhantomData;
use std::task::Context;

use flott_schema::Result;

use crate::batch::Batch;
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::function::Function;
use crate::key::KeySelector;
use crate::operator::Collector;
use crate::operators::keyed::KeyedCore;
use crate::operators::keyed_process::KeyedContext;
use crate::operators::list_state::SnapshotContext;
use crate::operators::open::OpenContext;
use crate::operators::process::ProcessContext;
use crate::stage::Flow;
use crate::state::Timer;
use crate::two_input::TwoInputOperator;

/// Any number of records out for each one of either input, with side outputs (Flink's `CoProcessFunction`). What
/// both inputs share is the function itself.
pub trait CoProcessFunction<L, R, O>: Function {
    /// Called once before the first record.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record of the first input.
    fn process_left(&mut self, record: L, ctx: &mut ProcessContext<'_, O>) -> Result<()>;

    /// Processes a record of the second input.
    fn process_right(&mut self, record: R, ctx: &mut ProcessContext<'_, O>) -> Result<()>;

    /// A snapshot is taken: sets list states.
    fn snapshot(&mut self, _ctx: &mut SnapshotContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Any number of records out for each one of either input, with state and timers of the record's key, which both
/// inputs share (Flink's `KeyedCoProcessFunction`).
pub trait KeyedCoProcessFunction<K, L, R, O>: Function {
    /// Called once before the first record: registers states.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a record of the first input.
    fn process_left(&mut self, record: L, ctx: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// Processes a record of the second input.
    fn process_right(&mut self, record: R, ctx: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// A timer of a key has fired.
    fn on_timer(&mut self, _timer: Timer, _ctx: &mut KeyedContext<'_, K, O>) -> Result<()> {
        Ok(())
    }

    /// A snapshot is taken: sets list states.
    fn snapshot(&mut self, _ctx: &mut SnapshotContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One record out for each one in, by the function of its input.
pub struct CoMap<L, R, O, F, G> {
    left: F,
    right: G,
    records: PhantomData<fn(L, R) -> O>,
}

impl<L, R, O, F, G> CoMap<L, R, O, F, G> {
    /// Maps the first input with `left`, the second with `right`.
    pub fn new(left: F, right: G) -> Self {
        CoMap { left, right, records: PhantomData }
    }
}

impl<L, R, O, F, G> TwoInputOperator for CoMap<L, R, O, F, G>
where
    L: 'static,
    R: 'static,
    O: 'static,
    F: FnMut(L) -> O,
    G: FnMut(R) -> O,
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn process_left(&mut self, batch: Batch<L>, out: &mut Collector<O>) -> Result<()> {
        let Batch { records, timestamps } = batch;
        out.push_batch(Batch { records: records.into_iter().map(&mut self.left).collect(), timestamps })
    }

    fn process_right(&mut self, batch: Batch<R>, out: &mut Collector<O>) -> Result<()> {
        let Batch { records, timestamps } = batch;
        out.push_batch(Batch { records: records.into_iter().map(&mut self.right).collect(), timestamps })
    }
}

/// One record in, any number out, by the function of its input.
pub struct CoFlatMap<L, R, O, F, G> {
    left: F,
    right: G,
    records: PhantomData<fn(L, R) -> O>,
}

impl<L, R, O, F, G> CoFlatMap<L, R, O, F, G> {
    /// Maps the first input with `left`, the second with `right`; both collect.
    pub fn new(left: F, right: G) -> Self {
        CoFlatMap { left, right, records: PhantomData }
    }
}

impl<L, R, O, F, G> TwoInputOperator for CoFlatMap<L, R, O, F, G>
where
    L: 'static,
    R: 'static,
    O: 'static,
    F: FnMut(L, &mut Collector<O>),
    G: FnMut(R, &mut Collector<O>),
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn process_left(&mut self, batch: Batch<L>, out: &mut Collector<O>) -> Result<()> {
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            (self.left)(record, out);
        }
        Ok(())
    }

    fn process_right(&mut self, batch: Batch<R>, out: &mut Collector<O>) -> Result<()> {
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            (self.right)(record, out);
        }
        Ok(())
    }
}

/// Runs a [`CoProcessFunction`].
pub struct CoProcess<L, R, O, F> {
    function: F,
    ctx: OperatorContext,
    watermark_ms: i64,
    records: PhantomData<fn(L, R) -> O>,
}

impl<L, R, O, F> CoProcess<L, R, O, F> {
    /// An operator around `function`.
    pub fn new(function: F, ctx: &OperatorContext) -> Self {
        CoProcess { function, ctx: ctx.clone(), watermark_ms: i64::MIN, records: PhantomData }
    }
}

impl<L, R, O, F> TwoInputOperator for CoProcess<L, R, O, F>
where
    L: 'static,
    R: 'static,
    O: 'static,
    F: CoProcessFunction<L, R, O>,
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.function.open(&mut OpenContext::plain(ctx))
    }

    fn process_left(&mut self, batch: Batch<L>, out: &mut Collector<O>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            self.function.process_left(record, &mut ProcessContext::new(out, self.watermark_ms, now_ms))?;
        }
        Ok(())
    }

    fn process_right(&mut self, batch: Batch<R>, out: &mut Collector<O>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            self.function.process_right(record, &mut ProcessContext::new(out, self.watermark_ms, now_ms))?;
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        if let Signal::Watermark(watermark) = signal {
            self.watermark_ms = watermark;
        }
        out.signal(signal)
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.function.snapshot(&mut SnapshotContext::new(&self.ctx, barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

/// Runs a [`KeyedCoProcessFunction`].
pub struct KeyedCoProcess<SL: KeySelector<L>, SR, L, R, O, F> {
    left: SL,
    right: SR,
    function: F,
    core: KeyedCore<SL::Key>,
    records: PhantomData<fn(L, R) -> O>,
}

impl<SL: KeySelector<L>, SR, L, R, O, F> KeyedCoProcess<SL, SR, L, R, O, F> {
    /// An operator around `function`, with the key selectors of both inputs.
    pub fn new(left: SL, right: SR, function: F, ctx: &OperatorContext) -> Self {
        KeyedCoProcess { left, right, function, core: KeyedCore::new(ctx), records: PhantomData }
    }
}

impl<SL, SR, L, R, O, F> TwoInputOperator for KeyedCoProcess<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: 'static,
    R: 'static,
    O: 'static,
    F: KeyedCoProcessFunction<SL::Key, L, R, O>,
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        self.core.open(|ctx| self.function.open(ctx))
    }

    fn process_left(&mut self, batch: Batch<L>, out: &mut Collector<O>) -> Result<()> {
        self.core
            .process(&self.left, batch, out, |record, mut ctx| self.function.process_left(record, &mut ctx))
    }

    fn process_right(&mut self, batch: Batch<R>, out: &mut Collector<O>) -> Result<()> {
        self.core
            .process(&self.right, batch, out, |record, mut ctx| self.function.process_right(record, &mut ctx))
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        self.core.signal(signal, out, |timer, mut ctx| self.function.on_timer(timer, &mut ctx))
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<O>) -> Result<Flow> {
        self.core.poll(now_ms, out, |timer, mut ctx| self.function.on_timer(timer, &mut ctx))
    }

    fn next_deadline_ms(&self) -> i64 {
        self.core.next_deadline_ms()
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.core.snapshot();
        self.function.snapshot(&mut SnapshotContext::new(self.core.context(), barrier))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Settings;
    use crate::harness::memory::MemoryKind;
    use crate::harness::parallel::Parallel;
    use crate::harness::{Harness, HarnessBuilder};
    use crate::key::{ByRef, ByValue};
    use crate::operator::OutputTag;
    use crate::state::{ListState, TimeDomain, ValueState};

    type Two = Harness<i32, String, String>;

    #[test]
    fn each_input_is_mapped_by_its_own_function_and_keeps_its_timestamps() {
        let mut map: Two = HarnessBuilder::new(Settings::default())
            .two_inputs(|_| Ok(CoMap::new(|n: i32| n.to_string(), |s: String| s + "!")))
            .unwrap();
        map.push_all([(1, 10), (2, 20)]).unwrap();
        map.push_right("a".into(), 5).unwrap();
        map.watermark(7).unwrap();
        assert_eq!(map.take(), [("1".into(), 10), ("2".into(), 20), ("a!".into(), 5)]);
        assert_eq!(map.take_signals(), [Signal::Watermark(7)]);
    }

    #[test]
    fn a_flat_map_collects_any_number() {
        let mut map: Two = HarnessBuilder::new(Settings::default())
            .two_inputs(|_| {
                Ok(CoFlatMap::new(
                    |n: i32, out: &mut Collector<String>| (0..n).for_each(|n| out.collect(n.to_string())),
                    |s: String, out: &mut Collector<String>| s.split(' ').for_each(|w| out.collect(w.into())),
                ))
            })
            .unwrap();
        map.push(2, 10).unwrap();
        map.push_right("a b".into(), 5).unwrap();
        map.push(0, 11).unwrap();
        assert_eq!(map.take(), [("0".into(), 10), ("1".into(), 10), ("a".into(), 5), ("b".into(), 5)]);
    }

    #[derive(Clone)]
    struct CountBoth {
        seen: usize,
        late: OutputTag<i32>,
    }

    impl CoProcessFunction<i32, String, String> for CountBoth {
        fn process_left(&mut self, record: i32, ctx: &mut ProcessContext<'_, String>) -> Result<()> {
            self.seen += 1;
            if ctx.timestamp().is_some_and(|timestamp| timestamp <= ctx.watermark()) {
                ctx.side(&self.late, record);
            }
            Ok(())
        }

        fn process_right(&mut self, record: String, ctx: &mut ProcessContext<'_, String>) -> Result<()> {
            self.seen += 1;
            ctx.collect(format!("{record}{}", self.seen));
            Ok(())
        }
    }

    #[test]
    fn both_inputs_share_the_function_and_its_side_outputs() {
        let late = OutputTag::new("late");
        let function = CountBoth { seen: 0, late: late.clone() };
        let mut process: Two = HarnessBuilder::new(Settings::default())
            .side(&late)
            .two_inputs(|ctx| Ok(CoProcess::new(function, ctx)))
            .unwrap();
        process.push_right("a".into(), 1).unwrap();
        process.push(7, 2).unwrap();
        process.watermark(2).unwrap();
        process.push(8, 2).unwrap();
        process.push_right("b".into(), 3).unwrap();
        assert_eq!(process.take_records(), ["a1", "b4"]);
        assert_eq!(process.take_side(&late), [(8, 2)]);
    }

    /// Enriches orders with the customer's name; orders that come first wait for it, at most 100 ms of event time.
    #[derive(Clone, Default)]
    struct Enrich {
        name: ValueState<String>,
        waiting: ListState<u32>,
    }

    type Order = (u64, u32);
    type Customer = (u64, String);

    impl KeyedCoProcessFunction<u64, Order, Customer, String> for Enrich {
        fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
            self.name = ctx.value_state("name")?;
            self.waiting = ctx.list_state("waiting")?;
            Ok(())
        }

        fn process_left(&mut self, order: Order, ctx: &mut KeyedContext<'_, u64, String>) -> Result<()> {
            match self.name.get_cloned(ctx) {
                Some(name) => ctx.collect(format!("{name} {}", order.1)),
                None => {
                    self.waiting.add(ctx, order.1);
                    let until_ms = ctx.timestamp().unwrap_or_default() + 100;
                    ctx.register_event_timer(until_ms);
                    ctx.register_processing_timer(ctx.processing_time() + 1_000);
                }
            }
            Ok(())
        }

        fn process_right(
            &mut self,
            customer: Customer,
            ctx: &mut KeyedContext<'_, u64, String>,
        ) -> Result<()> {
            for order in self.waiting.take(ctx) {
                ctx.collect(format!("{} {order}", customer.1));
            }
            self.name.set(ctx, customer.1);
            Ok(())
        }

        fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedContext<'_, u64, String>) -> Result<()> {
            let clock = if timer.domain == TimeDomain::Event { "nobody" } else { "still nobody" };
            for order in self.waiting.take(ctx) {
                ctx.collect(format!("{clock} {order} of {}", ctx.key()));
            }
            Ok(())
        }
    }

    fn customer_id(customer: &Customer) -> &u64 {
        &customer.0
    }

    fn enrich() -> Harness<Order, Customer, String> {
        let left = ByValue::new(|order: &Order| order.0);
        let right = ByRef::new(customer_id as fn(&Customer) -> &u64);
        HarnessBuilder::new(Settings::default())
            .two_inputs(|ctx| Ok(KeyedCoProcess::new(left, right, Enrich::default(), ctx)))
            .unwrap()
    }

    #[test]
    fn both_inputs_share_the_state_of_a_key() {
        let mut enrich = enrich();
        enrich.push_all([((1, 10), 0), ((2, 20), 0), ((1, 11), 1)]).unwrap();
        assert_eq!(enrich.take(), []);
        enrich.push_right((1, "Ada".into()), 5).unwrap();
        enrich.push_all([((1, 12), 6), ((2, 21), 6)]).unwrap();
        assert_eq!(enrich.take_records(), ["Ada 10", "Ada 11", "Ada 12"]);
        enrich.push_right((2, "Bob".into()), 5).unwrap();
        assert_eq!(enrich.take_records(), ["Bob 20", "Bob 21"]);
    }

    #[test]
    fn timers_of_a_key_fire_by_the_combined_watermark_and_by_the_clock() {
        let mut enrich = enrich();
        enrich.set_time(5_000).unwrap();
        enrich.push_all([((1, 10), 0), ((2, 20), 30)]).unwrap();
        assert_eq!(enrich.task().next_deadline_ms(), 6_000);
        enrich.watermark(99).unwrap();
        assert_eq!(enrich.take(), []);
        enrich.watermark(100).unwrap();
        assert_eq!(enrich.take(), [("nobody 10 of 1".into(), 100)]);
        enrich.set_time(6_000).unwrap();
        assert_eq!(enrich.take(), [("still nobody 20 of 2".into(), crate::batch::NO_TIMESTAMP)]);
        enrich.end().unwrap();
        assert_eq!(enrich.take(), []);
    }

    #[test]
    fn the_state_that_both_inputs_share_comes_back_at_any_parallelism() {
        for kind in [MemoryKind::AllRows, MemoryKind::Changes, MemoryKind::Fetching { budget_bytes: 5_000 }] {
            let mut enrich: Parallel<Order, Customer, String> = Parallel::new(1, kind, |builder| {
                let left = ByValue::new(|order: &Order| order.0);
                let right = ByRef::new(customer_id as fn(&Customer) -> &u64);
                builder.two_inputs(|ctx| Ok(KeyedCoProcess::new(left, right, Enrich::default(), ctx)))
            })
            .unwrap();
            enrich.set_time(5_000).unwrap();
            for (round, parallelism) in (0..).zip([3, 2, 4, 1]) {
                enrich.push_all(|order| order.0, (0..300).map(|n| ((n, round), 0))).unwrap();
                enrich.restart(parallelism).unwrap();
            }
            assert_eq!(enrich.take(), []);
            for customer in 0..200 {
                enrich.push_right(&customer, (customer, format!("name {customer}")), 0).unwrap();
            }
            assert_eq!(enrich.take().len(), 800);
            enrich.restart(3).unwrap();
            enrich.push(&7, (7, 70), 1).unwrap();
            assert_eq!(enrich.take_records(), ["name 7 70"]);
            enrich.watermark(100).unwrap();
            let mut told = enrich.take_records();
            told.sort();
            assert_eq!((told.len(), told[0].as_str()), (400, "nobody 0 of 200"));
            enrich.restart(2).unwrap();
            enrich.set_time(6_000).unwrap();
            enrich.end().unwrap();
            assert_eq!(enrich.take(), [], "the other timers found nothing any more");
        }
    }
}

//! What all operators with keyed functions do: enter the key of each record, fire timers.

use std::borrow::Borrow;

use flott_schema::Result;

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::context::OperatorContext;
use crate::element::Signal;
use crate::key::{Key, KeySelector, hash_keys};
use crate::operator::Collector;
use crate::operators::keyed_process::KeyedContext;
use crate::operators::open::OpenContext;
use crate::stage::Flow;
use crate::state::{KeyedState, TimeDomain, Timer};

/// The keys of one operator, with the clocks that its timers follow.
pub(super) struct KeyedCore<K> {
    state: KeyedState<K>,
    ctx: OperatorContext,
    watermark_ms: i64,
    hashes: Vec<u64>,
    pause: Pause,
}

/// Timers that one call fires at most: others of the slot must have their turn.
const TIMERS_A_CALL: usize = 4096;

/// In front of the names of states and timers in snapshots.
const USER_STATES: &str = "";

/// Why firing stopped before all due timers had fired.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    No,
    /// The call has had its share; it wants to be called again at once.
    Spent,
    /// The outputs have no room; whoever makes room wakes the task.
    Congested,
}

impl<K: Key> KeyedCore<K> {
    pub fn new(ctx: &OperatorContext) -> Self {
        KeyedCore {
            state: KeyedState::default(),
            ctx: ctx.clone(),
            watermark_ms: i64::MIN,
            hashes: Vec::new(),
            pause: Pause::No,
        }
    }

    /// Opens a function, which registers its states, and gives them what was restored. Keys may be forgotten when memory is short, and
    /// fetched again.
    pub fn open(&mut self, open: impl FnOnce(&mut OpenContext<'_>) -> Result<()>) -> Result<()> {
        self.state.attach(&self.ctx, USER_STATES)?;
        self.state.fetch_keys();
        self.open_attached(open)
    }

    /// The same, with all keys in memory: for functions that may ask for all of them.
    pub fn open_resident(&mut self, open: impl FnOnce(&mut OpenContext<'_>) -> Result<()>) -> Result<()> {
        self.state.attach(&self.ctx, USER_STATES)?;
        self.open_attached(open)
    }

    fn open_attached(&mut self, open: impl FnOnce(&mut OpenContext<'_>) -> Result<()>) -> Result<()> {
        open(&mut OpenContext::keyed(&self.ctx, self.state.store()))?;
        self.state.restore()
    }

    /// A barrier: what there is now belongs to the snapshot.
    pub fn snapshot(&mut self) {
        self.state.freeze();
    }

    /// The states of all keys, for what is no work on a record's key.
    pub fn state(&mut self) -> &mut KeyedState<K> {
        &mut self.state
    }

    pub fn context(&self) -> &OperatorContext {
        &self.ctx
    }

    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    pub fn now_ms(&self) -> i64 {
        self.ctx.task.now_ms()
    }

    /// Calls `visit` for each record of a batch, in the context of its key.
    pub fn process<T, S: KeySelector<T, Key = K>, O: 'static>(
        &mut self,
        selector: &S,
        batch: Batch<T>,
        out: &mut Collector<O>,
        mut visit: impl FnMut(T, KeyedContext<'_, K, O>) -> Result<()>,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        hash_keys(selector, &batch.records, &mut self.hashes);
        self.state.begin(now_ms);
        let records = batch.len();
        let keys = batch.records.iter().map(|record| selector.key(record));
        let found = self.state.load(&self.hashes, keys)?;
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            let slot = if found {
                self.state.enter_found(index)
            } else {
                self.state.prefetch_ahead(&self.hashes, index);
                self.state.enter(self.hashes[index], selector.key(&record).borrow())
            };
            out.set_timestamp(timestamp);
            visit(record, KeyedContext::new(slot, &mut self.state, out, self.watermark_ms, now_ms))?;
            self.state.leave(slot);
        }
        self.state.end();
        self.state.drain_some(records);
        Ok(())
    }

    /// Calls `on_timer` for each timer due at `until_ms`, as long as the outputs have room.
    pub fn fire<O: 'static>(
        &mut self,
        domain: TimeDomain,
        until_ms: i64,
        now_ms: i64,
        out: &mut Collector<O>,
        mut on_timer: impl FnMut(Timer, KeyedContext<'_, K, O>) -> Result<()>,
    ) -> Result<Flow> {
        self.state.begin(now_ms);
        self.pause = Pause::No;
        let mut fired = 0;
        while self.next_timer_ms(domain) <= until_ms {
            if out.is_congested() {
                self.pause = Pause::Congested;
                break;
            }
            if fired == TIMERS_A_CALL {
                self.pause = Pause::Spent;
                break;
            }
            fired += 1;
            let Some((timer, slot)) = self.state.pop_timer(domain, until_ms)? else { break };
            self.state.load_due(slot, domain, until_ms)?;
            out.set_timestamp(if domain == TimeDomain::Event { timer.timestamp_ms } else { NO_TIMESTAMP });
            on_timer(timer, KeyedContext::new(slot, &mut self.state, out, self.watermark_ms, now_ms))?;
            self.state.leave(slot);
        }
        self.state.end();
        self.state.bound_timers()?;
        Ok(if self.pause == Pause::No { Flow::Done } else { Flow::Again })
    }

    /// Fires the timers that a watermark makes due, then passes the signal on.
    pub fn signal<O: 'static>(
        &mut self,
        signal: Signal,
        out: &mut Collector<O>,
        on_timer: impl FnMut(Timer, KeyedContext<'_, K, O>) -> Result<()>,
    ) -> Result<Flow> {
        if let Signal::Watermark(watermark) = signal {
            self.watermark_ms = watermark;
            if self.fire(TimeDomain::Event, watermark, self.now_ms(), out, on_timer)? == Flow::Again {
                return Ok(Flow::Again);
            }
        }
        if signal == Signal::EndOfInput {
            // Nobody polls a task that has ended.
            self.state.drain(usize::MAX);
        }
        out.signal(signal)
    }

    /// Fires the timers that the clock makes due.
    pub fn poll<O: 'static>(
        &mut self,
        now_ms: i64,
        out: &mut Collector<O>,
        on_timer: impl FnMut(Timer, KeyedContext<'_, K, O>) -> Result<()>,
    ) -> Result<Flow> {
        self.state.drain_some(0);
        if now_ms < self.state.next_processing_ms() {
            return Ok(Flow::Done);
        }
        self.fire(TimeDomain::Processing, now_ms, now_ms, out, on_timer)
    }

    fn next_timer_ms(&self, domain: TimeDomain) -> i64 {
        match domain {
            TimeDomain::Event => self.state.next_event_ms(),
            TimeDomain::Processing => self.state.next_processing_ms(),
        }
    }

    /// While the outputs have no room there is nothing that time could make due, but for rows to hand in.
    pub fn next_deadline_ms(&self) -> i64 {
        match self.pause {
            _ if self.state.is_draining() => i64::MIN,
            Pause::No => self.state.next_processing_ms(),
            Pause::Spent => i64::MIN,
            Pause::Congested => i64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::context::{Settings, TaskContext};
    use crate::operator::{OperatorStage, SideOutputs};
    use crate::operators::keyed_process::{KeyedProcess, KeyedProcessFunction};
    use crate::stage::Stage;

    /// Takes no more after the first batch until told to.
    #[derive(Clone, Default)]
    struct Narrow(Rc<State>);

    #[derive(Default)]
    struct State {
        taken: Cell<usize>,
        blocked: Cell<bool>,
        signals: Cell<usize>,
        polls: Cell<usize>,
        /// Takes more once it is polled.
        recovers: Cell<bool>,
    }

    impl Stage<Batch<i64>> for Narrow {
        fn open(&mut self) -> Result<()> {
            Ok(())
        }

        fn push(&mut self, batch: Batch<i64>) -> Result<()> {
            self.0.taken.set(self.0.taken.get() + batch.len());
            self.0.blocked.set(true);
            Ok(())
        }

        fn signal(&mut self, _signal: Signal) -> Result<Flow> {
            self.0.signals.set(self.0.signals.get() + 1);
            Ok(Flow::Done)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }

        fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
            self.0.polls.set(self.0.polls.get() + 1);
            if self.0.recovers.get() {
                self.0.blocked.set(false);
            }
            Ok(Flow::Done)
        }

        fn next_deadline_ms(&self) -> i64 {
            i64::MAX
        }

        fn is_blocked(&self) -> bool {
            self.0.blocked.get()
        }

        fn close(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Clone)]
    struct TimerPerRecord(TimeDomain);

    impl KeyedProcessFunction<i64, i64, i64> for TimerPerRecord {
        fn process(&mut self, record: i64, ctx: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
            match self.0 {
                TimeDomain::Event => ctx.register_event_timer(record),
                TimeDomain::Processing => ctx.register_processing_timer(record),
            }
            Ok(())
        }

        fn on_timer(&mut self, timer: Timer, ctx: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
            ctx.collect(timer.timestamp_ms);
            Ok(())
        }
    }

    fn stage(domain: TimeDomain, next: Narrow) -> impl Stage<Batch<i64>> {
        let settings = Settings { batch_size: 4, ..Settings::default() };
        let ctx =
            OperatorContext::new(Rc::new(TaskContext::new("job", "vertex", 0, 1, 128, settings)), "op", "op");
        let selector = crate::key::ByValue::new(|record: &i64| *record);
        let operator = KeyedProcess::new(selector, TimerPerRecord(domain), &ctx);
        let mut stage =
            OperatorStage::new(operator, Collector::new(ctx, Box::new(next), SideOutputs::default()));
        stage.open().unwrap();
        stage.push(Batch::of((0..20).collect())).unwrap();
        stage
    }

    #[test]
    fn a_firing_pauses_batch_by_batch_while_an_operator_behind_takes_no_more() {
        let narrow = Narrow::default();
        let mut stage = stage(TimeDomain::Event, narrow.clone());
        for taken in (4..=16).step_by(4) {
            // As often as one likes: nothing comes while the operator behind is blocked.
            for _ in 0..3 {
                assert_eq!(stage.signal(Signal::Watermark(100)).unwrap(), Flow::Again);
                assert_eq!((narrow.0.taken.get(), narrow.0.signals.get()), (taken, 0));
            }
            narrow.0.blocked.set(false);
        }
        assert_eq!(stage.signal(Signal::Watermark(100)).unwrap(), Flow::Done);
        assert_eq!((narrow.0.taken.get(), narrow.0.signals.get()), (20, 1));
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_a_paused_firing_waits_for_is_polled_and_the_task_woken_when_the_wait_is_over() {
        let (narrow, wakes) = (Narrow::default(), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        let mut stage = stage(TimeDomain::Processing, narrow.clone());
        let mut poll = || stage.poll(100, &mut Context::from_waker(&waker)).unwrap();
        assert_eq!(poll(), Flow::Again);
        assert_eq!((narrow.0.taken.get(), narrow.0.polls.get()), (4, 1));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        narrow.0.recovers.set(true);
        assert_eq!(poll(), Flow::Again);
        assert_eq!(narrow.0.taken.get(), 4);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "nobody else tells that it can go on");
        for taken in [8, 12, 16] {
            assert_eq!(poll(), Flow::Again);
            assert_eq!(narrow.0.taken.get(), taken);
        }
        assert_eq!(poll(), Flow::Done);
        assert_eq!((narrow.0.taken.get(), wakes.0.load(Ordering::Relaxed)), (20, 4));
    }
}

//! Windows of every kind: any assigner, trigger and evictor, either clock.
//!
//! What lives here: the operator, which goes through batches and moves the clocks, and two ways to hold windows:
//! [`ByWindow`], a table of keys for each window, and [`Merging`], a list of windows for each key, for windows that
//! merge. Who may call it: the API. What must never happen here: a timer per key where one per window will do.

mod by_window;
mod merging;
mod rules;
mod timers;
mod wakes;

use std::task::Context;

use flott_schema::Result;

pub(crate) use self::by_window::ByWindow;
pub(crate) use self::merging::Merging;
pub(crate) use self::rules::Rules;
use super::WindowAssigner;
use super::clocks::{Progress, SavedClocks, save};
use super::logic::WindowLogic;
use super::pause::Pause;
use super::saving::LOOKED_AT_ONCE;
use super::trigger::Trigger;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::key::{KeySelector, hash_keys};
use crate::operator::{Collector, Operator};
use crate::operators::bounded::ending::Pace;
use crate::stage::Flow;
use crate::state::TimeDomain;

/// Holds the windows that are not over.
pub(crate) trait Holder<K, T, A: WindowAssigner<T>, Tr, L: WindowLogic<K, T, A::Window>> {
    /// Adds a record to a window; gives it back if the window is over.
    fn add<S: KeySelector<T, Key = K>>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        adding: Adding<'_, S, T, A::Window>,
        out: &mut Collector<L::Out>,
    ) -> Result<Option<T>>;

    /// Before records are added, whose hashes these are: gets what is kept of their keys, if it is not in memory.
    fn begin<S: KeySelector<T, Key = K>>(
        &mut self,
        _rules: &mut Rules<T, A, Tr, L>,
        _selector: &S,
        _hashes: &[u64],
        _records: &[T],
    ) -> Result<()> {
        Ok(())
    }

    /// So many records were added: forgets what memory has no room for.
    fn end(&mut self, _rules: &mut Rules<T, A, Tr, L>, _records: usize) -> Result<()> {
        Ok(())
    }

    /// Gets what is due next on a clock up to `until_ms`, if it is not in memory, nor anything that is due before.
    /// Says whether there was anything to get.
    fn bring(
        &mut self,
        _rules: &mut Rules<T, A, Tr, L>,
        _domain: TimeDomain,
        _until_ms: i64,
    ) -> Result<bool> {
        Ok(false)
    }

    /// All that was due on the clock of the windows is done.
    fn caught_up(&mut self, _rules: &Rules<T, A, Tr, L>) {}

    /// No timer of a trigger that is not in memory fires before this.
    fn next_timer_ms(&self, _domain: TimeDomain) -> i64 {
        i64::MAX
    }

    /// When `on_due` may next have something to do, on the clock of the windows.
    fn next_due_ms(&self) -> Option<i64>;

    /// Does something that is due at `due_ms`, if there is something; stops when the outputs have no room or `pace` is spent.
    fn on_due(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        due_ms: i64,
        pace: &mut Pace,
        out: &mut Collector<L::Out>,
    ) -> Result<()>;

    /// A timer of a trigger has fired.
    fn on_timer(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        timer: FiredTimer,
        out: &mut Collector<L::Out>,
    ) -> Result<()>;

    /// Registers the state, and takes over what was restored from tasks that were as far as `saved` says.
    fn open(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        ctx: &OperatorContext,
        saved: &SavedClocks,
    ) -> Result<()>;

    /// A barrier: what is held is frozen.
    fn freeze(&mut self) -> Result<()>;

    /// Whether frozen rows are still to be copied.
    fn is_draining(&self) -> bool;

    /// Copies some of them, looking at so many rows at most.
    fn drain(&mut self, budget: usize);
}

/// A record on its way into a window.
pub(crate) struct Adding<'a, S, T, W> {
    selector: &'a S,
    /// The hashes of the batch, and the record's place in it.
    hashes: &'a [u64],
    index: usize,
    record: T,
    timestamp_ms: i64,
    window: W,
}

/// A timer of a trigger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiredTimer {
    domain: TimeDomain,
    time_ms: i64,
    slot: u32,
}

/// The operator.
pub(crate) struct GeneralWindows<S, T, A: WindowAssigner<T>, Tr, L, H> {
    selector: S,
    rules: Rules<T, A, Tr, L>,
    holder: H,
    ctx: OperatorContext,
    hashes: Vec<u64>,
    windows: Vec<A::Window>,
    pause: Pause,
    /// Whether states of the function are still to be handed in for a snapshot.
    function_drains: bool,
}

impl<S, T, A, Tr, L, H> GeneralWindows<S, T, A, Tr, L, H>
where
    S: KeySelector<T>,
    T: Record,
    A: WindowAssigner<T>,
    Tr: Trigger<T, A::Window>,
    L: WindowLogic<S::Key, T, A::Window>,
    H: Holder<S::Key, T, A, Tr, L>,
{
    pub(crate) fn new(selector: S, rules: Rules<T, A, Tr, L>, holder: H, ctx: &OperatorContext) -> Self {
        GeneralWindows {
            selector,
            rules,
            holder,
            ctx: ctx.clone(),
            hashes: Vec::new(),
            windows: Vec::new(),
            pause: Pause::default(),
            function_drains: false,
        }
    }

    fn is_draining(&self) -> bool {
        self.holder.is_draining() || self.function_drains
    }

    /// Copies rows for the snapshot at hand, about so many at most.
    fn drain(&mut self, rows: usize) {
        self.holder.drain(rows);
        if self.function_drains {
            self.function_drains = self.rules.logic.states().is_some_and(|states| !states.drain(rows));
        }
    }

    fn add(&mut self, index: usize, record: T, timestamp_ms: i64, out: &mut Collector<L::Out>) -> Result<()> {
        let GeneralWindows { selector, rules, holder, hashes, windows, .. } = self;
        let time_ms = rules.time_of(timestamp_ms);
        rules.assigner.assign(&record, time_ms, windows)?;
        let last = windows.pop();
        let mut in_time = false;
        for window in windows.drain(..) {
            let record = record.clone();
            let adding = Adding { selector, hashes, index, record, timestamp_ms, window };
            in_time |= holder.add(rules, adding, out)?.is_none();
        }
        let refused = match last {
            Some(window) => {
                let adding = Adding { selector, hashes, index, record, timestamp_ms, window };
                holder.add(rules, adding, out)?
            }
            None => Some(record),
        };
        match refused {
            Some(record) if !in_time && rules.is_over(time_ms) => {
                rules.late.refuse(record, timestamp_ms, out)
            }
            _ => {}
        }
        Ok(())
    }

    /// Fires what is due on one clock. Timers come before windows that are due at the same time.
    fn advance(&mut self, domain: TimeDomain, until_ms: i64, out: &mut Collector<L::Out>) -> Result<Flow> {
        let GeneralWindows { rules, holder, .. } = self;
        let pace = &mut Pace::default();
        self.pause = Pause::Not;
        loop {
            holder.bring(rules, domain, until_ms)?;
            let due_ms = holder.next_due_ms().filter(|due_ms| domain == rules.domain && *due_ms <= until_ms);
            if due_ms.is_none() && rules.timers.next_ms(domain) > until_ms {
                break;
            }
            if pace.must_pause(1, out) {
                self.pause = Pause::after(Flow::Again, out);
                return Ok(Flow::Again);
            }
            let timer = rules.timers.pop_due(domain, due_ms.unwrap_or(until_ms));
            match (timer, due_ms) {
                (Some(timer), _) => holder.on_timer(rules, timer, out)?,
                (None, Some(due_ms)) => holder.on_due(rules, due_ms, pace, out)?,
                // The timer had been deleted, in front of those that are not in memory.
                (None, None) if holder.bring(rules, domain, until_ms)? => {}
                (None, None) => break,
            }
        }
        if domain == rules.domain {
            holder.caught_up(rules);
            rules.expire::<S::Key>()?;
        }
        Ok(Flow::Done)
    }

    /// Fires what is due in processing time: a timer fires when its millisecond is over, so that no record follows
    /// that belongs to it.
    fn advance_processing(&mut self, until_ms: i64, out: &mut Collector<L::Out>) -> Result<Flow> {
        self.rules.passed_ms = self.rules.passed_ms.max(until_ms);
        self.advance(TimeDomain::Processing, self.rules.passed_ms, out)
    }

    fn next_processing_ms(&self) -> i64 {
        let due_ms = self.holder.next_due_ms().filter(|_| self.rules.domain == TimeDomain::Processing);
        let timer_ms = self.rules.timers.next_ms(TimeDomain::Processing);
        let timer_ms = timer_ms.min(self.holder.next_timer_ms(TimeDomain::Processing));
        timer_ms.min(due_ms.unwrap_or(i64::MAX)).saturating_add(1)
    }
}

impl<S, T, A, Tr, L, H> Operator for GeneralWindows<S, T, A, Tr, L, H>
where
    S: KeySelector<T>,
    T: Record,
    A: WindowAssigner<T>,
    Tr: Trigger<T, A::Window>,
    L: WindowLogic<S::Key, T, A::Window>,
    H: Holder<S::Key, T, A, Tr, L>,
{
    type In = T;
    type Out = L::Out;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.rules.logic.open(ctx, A::MERGES)?;
        let saved = SavedClocks::load(ctx)?;
        let least = saved.least();
        self.rules.watermark_ms = least.watermark_ms;
        if self.rules.domain == TimeDomain::Processing {
            self.rules.passed_ms = least.clock_ms;
        }
        self.holder.open(&mut self.rules, ctx, &saved)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        self.drain(usize::MAX);
        // In the middle of a firing, the clock has not come as far as that.
        let undone_ms = self.holder.next_due_ms().map_or(i64::MAX, |due_ms| due_ms - 1);
        let clock_ms = self.rules.clock_ms().min(undone_ms);
        let watermark_ms = self.rules.watermark_ms;
        save(&self.ctx, Progress { watermark_ms, clock_ms, fired_end: i64::MIN })?;
        self.holder.freeze()?;
        if self.ctx.state.is_some()
            && let Some(states) = self.rules.logic.states()
        {
            states.freeze();
            self.function_drains = true;
        }
        Ok(())
    }

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<L::Out>) -> Result<()> {
        self.rules.now_ms = self.ctx.task.now_ms();
        hash_keys(&self.selector, &batch.records, &mut self.hashes);
        self.holder.begin(&mut self.rules, &self.selector, &self.hashes, &batch.records)?;
        let count = batch.len();
        for (index, (record, timestamp_ms)) in batch.into_iter().enumerate() {
            self.add(index, record, timestamp_ms, out)?;
        }
        self.holder.end(&mut self.rules, count)
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<L::Out>) -> Result<Flow> {
        self.rules.now_ms = self.ctx.task.now_ms();
        let flow = match signal {
            Signal::Watermark(watermark_ms) => {
                self.rules.watermark_ms = self.rules.watermark_ms.max(watermark_ms);
                self.advance(TimeDomain::Event, self.rules.watermark_ms, out)?
            }
            // What waits for the clock fires now: the clock will not come to it any more.
            Signal::EndOfInput => {
                self.drain(usize::MAX);
                self.rules.timers.end_processing();
                self.advance_processing(MAX_WATERMARK, out)?
            }
            _ => Flow::Done,
        };
        if flow == Flow::Again { Ok(flow) } else { out.signal(signal) }
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<L::Out>) -> Result<Flow> {
        if self.is_draining() {
            self.drain(LOOKED_AT_ONCE);
        }
        if now_ms < self.next_processing_ms() {
            return Ok(Flow::Done);
        }
        self.rules.now_ms = now_ms;
        self.advance_processing(now_ms - 1, out)
    }

    fn next_deadline_ms(&self) -> i64 {
        match self.is_draining() {
            true => i64::MIN,
            false => self.pause.deadline_ms(self.next_processing_ms()),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.rules.logic.close()
    }
}

//! What holds for all windows of an operator: assigner, trigger, logic, lateness, clocks.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use flott_schema::Result;

use super::FiredTimer;
use super::timers::{OwnTimers, TriggerTimers};
use crate::batch::Record;
use crate::operator::Collector;
use crate::state::TimeDomain;
use crate::window::function::Firing;
use crate::window::logic::WindowLogic;
use crate::window::trigger::{Clocks, TimerRequest, Trigger, TriggerContext, TriggerResult};
use crate::window::{LateRule, Window, WindowAssigner};

/// Assigner, trigger and logic, with what they share.
pub(crate) struct Rules<T, A, Tr, L> {
    pub(super) assigner: A,
    trigger: Tr,
    pub(super) logic: L,
    pub(super) late: LateRule<T>,
    /// The clock of the windows.
    pub(super) domain: TimeDomain,
    /// Whether the engine keeps one timer a window for the trigger, at the window's end.
    pub(super) shares_end_timer: bool,
    pub(super) watermark_ms: i64,
    pub(super) now_ms: i64,
    /// The last millisecond of processing time that is over.
    pub(super) passed_ms: i64,
    pub(super) timers: TriggerTimers,
    pub(super) requests: Vec<TimerRequest>,
    record: PhantomData<fn(T)>,
}

/// What is kept of a key and window. It stands in snapshots as it is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept<S, TS> {
    /// What the logic keeps; none after a purge.
    pub(super) contents: Option<S>,
    /// What the trigger keeps.
    pub(super) trigger: Option<TS>,
    /// The trigger's timers, except one that the engine keeps for the whole window.
    pub(super) timers: OwnTimers,
}

impl<S, TS> Default for Kept<S, TS> {
    fn default() -> Self {
        Kept { contents: None, trigger: None, timers: OwnTimers::default() }
    }
}

impl<T, A, Tr, L> Rules<T, A, Tr, L>
where
    T: Record,
    A: WindowAssigner<T>,
    Tr: Trigger<T, A::Window>,
{
    pub(crate) fn new(assigner: A, trigger: Tr, logic: L, late: LateRule<T>) -> Self {
        let domain = assigner.domain();
        // Nothing is late in processing time.
        let lateness_ms = if domain == TimeDomain::Event { late.lateness_ms } else { 0 };
        Rules {
            shares_end_timer: trigger.only_timer_is_window_end() == Some(domain),
            assigner,
            trigger,
            logic,
            late: LateRule { lateness_ms, ..late },
            domain,
            watermark_ms: i64::MIN,
            now_ms: 0,
            passed_ms: i64::MIN,
            timers: TriggerTimers::default(),
            requests: Vec::new(),
            record: PhantomData,
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks { watermark_ms: self.watermark_ms, now_ms: self.now_ms }
    }

    /// What the clock of the windows has come to.
    #[inline]
    pub(super) fn clock_ms(&self) -> i64 {
        match self.domain {
            TimeDomain::Event => self.watermark_ms,
            TimeDomain::Processing => self.passed_ms,
        }
    }

    /// The time of a record on the clock of the windows.
    #[inline]
    pub(super) fn time_of(&self, timestamp_ms: i64) -> i64 {
        match self.domain {
            TimeDomain::Event => timestamp_ms,
            // A clock that was set back does not bring windows back.
            TimeDomain::Processing => self.now_ms.max(self.passed_ms.saturating_add(1)),
        }
    }

    /// Whether the lateness allowed behind `time_ms` is over.
    #[inline]
    pub(super) fn is_over(&self, time_ms: i64) -> bool {
        self.late.is_over(time_ms, self.clock_ms())
    }

    /// When a window is to be dropped; `None` for never.
    pub(super) fn drop_ms(&self, window: &A::Window) -> Option<i64> {
        let time_ms = window.max_timestamp().saturating_add(self.late.lateness_ms);
        (time_ms < i64::MAX).then_some(time_ms)
    }

    /// Asks the trigger something about a window. What it wants of timers is in `requests` afterwards.
    #[inline]
    pub(super) fn ask<R>(
        &mut self,
        window: &A::Window,
        state: &mut Option<Tr::State>,
        question: impl FnOnce(&mut Tr, &mut TriggerContext<'_, Tr::State>) -> R,
    ) -> R {
        let clocks = self.clocks();
        let shared = self.shares_end_timer.then(|| (self.domain, window.max_timestamp()));
        question(&mut self.trigger, &mut TriggerContext::new(state, &mut self.requests, shared, clocks))
    }

    /// Tells the trigger that a timer of its own has fired.
    pub(super) fn ask_on_timer(
        &mut self,
        window: &A::Window,
        state: &mut Option<Tr::State>,
        timer: FiredTimer,
    ) -> TriggerResult {
        self.ask(window, state, |trigger, ctx| match timer.domain {
            TimeDomain::Event => trigger.on_event_time(timer.time_ms, window, ctx),
            TimeDomain::Processing => trigger.on_processing_time(timer.time_ms, window, ctx),
        })
    }

    /// Tells the trigger that the clock has come to the end of the window.
    pub(super) fn ask_at_end(&mut self, window: &A::Window, state: &mut Option<Tr::State>) -> TriggerResult {
        let timer = FiredTimer { domain: self.domain, time_ms: window.max_timestamp(), slot: 0 };
        self.ask_on_timer(window, state, timer)
    }

    /// Adds a record to what is kept of its key and window.
    #[inline]
    pub(super) fn add<K>(&mut self, contents: &mut Option<L::State>, record: T, timestamp_ms: i64)
    where
        L: WindowLogic<K, T, A::Window>,
    {
        match contents {
            Some(state) => self.logic.add(state, record, timestamp_ms),
            None => *contents = Some(self.logic.start(record, timestamp_ms)),
        }
    }

    /// Does what the trigger has decided. `last`: the window is dropped after this.
    pub(super) fn settle<K>(
        &mut self,
        result: TriggerResult,
        key: &K,
        window: &A::Window,
        contents: &mut Option<L::State>,
        last: bool,
        out: &mut Collector<L::Out>,
    ) -> Result<()>
    where
        L: WindowLogic<K, T, A::Window>,
    {
        if result.fires() {
            out.set_timestamp(window.max_timestamp());
            let firing = Firing { key, window, clocks: self.clocks() };
            if last || result.purges() {
                if let Some(state) = contents.take() {
                    self.logic.emit_last(firing, state, out)?;
                }
            } else if let Some(state) = contents {
                self.logic.emit(firing, state, out)?;
            }
        }
        if result.purges() {
            *contents = None;
        }
        Ok(())
    }

    /// Windows have been dropped up to the clock.
    pub(super) fn expire<K>(&mut self) -> Result<()>
    where
        L: WindowLogic<K, T, A::Window>,
    {
        let until_ms = self.clock_ms().saturating_sub(self.late.lateness_ms);
        let clocks = self.clocks();
        self.logic.expire(until_ms, clocks)
    }
}

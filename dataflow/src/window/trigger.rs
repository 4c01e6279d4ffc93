//! Triggers: when a window gives its results.

use crate::batch::Record;
use crate::function::Function;
use crate::state::TimeDomain;

/// What a trigger decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TriggerResult {
    /// Nothing happens.
    Continue,
    /// The window gives its results and keeps its records.
    Fire,
    /// The window drops its records.
    Purge,
    /// The window gives its results and drops its records.
    FireAndPurge,
}

impl TriggerResult {
    /// Whether results are given.
    pub fn fires(self) -> bool {
        matches!(self, TriggerResult::Fire | TriggerResult::FireAndPurge)
    }

    /// Whether records are dropped.
    pub fn purges(self) -> bool {
        matches!(self, TriggerResult::Purge | TriggerResult::FireAndPurge)
    }
}

/// Decides for each key and window when results are given.
///
/// One trigger object serves all keys and windows of a task: what it must remember of one of them lives in `State`.
pub trait Trigger<T, W>: Function {
    /// What is remembered per key and window; made when first asked for.
    type State: Record + Default;

    /// A record was added to `window`.
    fn on_element(
        &mut self,
        record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult;

    /// A timer set for `time_ms` in event time has fired.
    fn on_event_time(
        &mut self,
        _time_ms: i64,
        _window: &W,
        _ctx: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult {
        TriggerResult::Continue
    }

    /// A timer set for `time_ms` in processing time has fired.
    fn on_processing_time(
        &mut self,
        _time_ms: i64,
        _window: &W,
        _ctx: &mut TriggerContext<'_, Self::State>,
    ) -> TriggerResult {
        TriggerResult::Continue
    }

    /// Whether the trigger can be used with windows that merge.
    fn can_merge(&self) -> bool {
        false
    }

    /// Windows have merged into `window`: set its timers and its state from the states of those merged, which were
    /// cleared before.
    fn on_merge(
        &mut self,
        _merged: Vec<Self::State>,
        _window: &W,
        _ctx: &mut TriggerContext<'_, Self::State>,
    ) {
    }

    /// The window is dropped: delete its timers and its state.
    fn clear(&mut self, _window: &W, ctx: &mut TriggerContext<'_, Self::State>) {
        ctx.clear_state();
    }

    /// If `Some`: on this clock the trigger sets no timer but one at the window's max timestamp, and sets that for
    /// every key it sees. Then the engine keeps one timer a window instead of one a window and key.
    fn only_timer_is_window_end(&self) -> Option<TimeDomain> {
        None
    }
}

/// A timer that a trigger has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerRequest {
    Register(TimeDomain, i64),
    Delete(TimeDomain, i64),
}

/// The clocks as a trigger or function sees them, epoch milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clocks {
    pub watermark_ms: i64,
    pub now_ms: i64,
}

/// State, timers and clocks of one key and window.
pub struct TriggerContext<'a, S> {
    state: &'a mut Option<S>,
    requests: &'a mut Vec<TimerRequest>,
    /// The timer that the engine keeps for the whole window.
    shared: Option<(TimeDomain, i64)>,
    clocks: Clocks,
}

impl<'a, S: Default> TriggerContext<'a, S> {
    pub(super) fn new(
        state: &'a mut Option<S>,
        requests: &'a mut Vec<TimerRequest>,
        shared: Option<(TimeDomain, i64)>,
        clocks: Clocks,
    ) -> Self {
        TriggerContext { state, requests, shared, clocks }
    }

    /// The state; made if there is none.
    pub fn state(&mut self) -> &mut S {
        self.state.get_or_insert_default()
    }

    /// The state, if there is one.
    pub fn existing_state(&mut self) -> Option<&mut S> {
        self.state.as_mut()
    }

    /// Drops the state.
    pub fn clear_state(&mut self) {
        *self.state = None;
    }

    /// Has `on_event_time` called when the watermark reaches `time_ms`.
    #[inline]
    pub fn register_event_timer(&mut self, time_ms: i64) {
        self.request(TimeDomain::Event, time_ms, TimerRequest::Register);
    }

    /// Has `on_processing_time` called when the clock has passed `time_ms`.
    #[inline]
    pub fn register_processing_timer(&mut self, time_ms: i64) {
        self.request(TimeDomain::Processing, time_ms, TimerRequest::Register);
    }

    /// Deletes a timer in event time.
    #[inline]
    pub fn delete_event_timer(&mut self, time_ms: i64) {
        self.request(TimeDomain::Event, time_ms, TimerRequest::Delete);
    }

    /// Deletes a timer in processing time.
    #[inline]
    pub fn delete_processing_timer(&mut self, time_ms: i64) {
        self.request(TimeDomain::Processing, time_ms, TimerRequest::Delete);
    }

    #[inline]
    fn request(&mut self, domain: TimeDomain, time_ms: i64, make: fn(TimeDomain, i64) -> TimerRequest) {
        if self.shared != Some((domain, time_ms)) {
            self.requests.push(make(domain, time_ms));
        }
    }

    /// The watermark, epoch milliseconds; `i64::MIN` before the first.
    #[inline]
    pub fn watermark(&self) -> i64 {
        self.clocks.watermark_ms
    }

    /// Processing time, epoch milliseconds.
    #[inline]
    pub fn processing_time(&self) -> i64 {
        self.clocks.now_ms
    }

    /// Whether the input has ended: the watermark is the last one.
    pub fn has_ended(&self) -> bool {
        self.clocks.watermark_ms == crate::element::MAX_WATERMARK
    }

    /// The context for a trigger inside this one, whose state is a part of this one's.
    pub fn nested<'b, N: Default>(
        &'b mut self,
        part: impl FnOnce(&'b mut S) -> &'b mut Option<N>,
    ) -> TriggerContext<'b, N> {
        TriggerContext {
            state: part(self.state.get_or_insert_default()),
            requests: self.requests,
            shared: self.shared,
            clocks: self.clocks,
        }
    }
}

//! Triggers that fire at an interval as long as the window lives.

use std::time::Duration;

use crate::time::millis;
use crate::window::{Trigger, TriggerContext, TriggerResult, Window};

/// The next multiple of `interval_ms` behind `time_ms`, but not behind the end of the window.
fn next_firing(time_ms: i64, interval_ms: i64, end_ms: i64) -> i64 {
    (time_ms - time_ms.rem_euclid(interval_ms)).saturating_add(interval_ms).min(end_ms)
}

/// Fires at every multiple of an interval of event time, at the end of the window, and for every record that comes
/// later (within the allowed lateness).
#[derive(Clone, Copy, Debug)]
pub struct ContinuousEventTimeTrigger {
    interval_ms: i64,
}

impl ContinuousEventTimeTrigger {
    /// Fires at this interval; less than a millisecond counts as one.
    pub fn of(interval: Duration) -> Self {
        ContinuousEventTimeTrigger { interval_ms: millis(interval).max(1) }
    }

    fn set_next<W: Window>(&self, time_ms: i64, window: &W, ctx: &mut TriggerContext<'_, i64>) {
        // Behind the last watermark nothing changes any more, so only the end of the window is left to fire.
        let next = match ctx.has_ended() {
            true => window.max_timestamp(),
            false => next_firing(time_ms, self.interval_ms, window.max_timestamp()),
        };
        *ctx.state() = next;
        ctx.register_event_timer(next);
    }
}

impl<T, W: Window> Trigger<T, W> for ContinuousEventTimeTrigger {
    /// The next firing.
    type State = i64;

    fn on_element(
        &mut self,
        _record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        if window.max_timestamp() <= ctx.watermark() {
            return TriggerResult::Fire;
        }
        ctx.register_event_timer(window.max_timestamp());
        if ctx.existing_state().is_none() {
            self.set_next(timestamp_ms, window, ctx);
        }
        TriggerResult::Continue
    }

    fn on_event_time(
        &mut self,
        time_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        if time_ms == window.max_timestamp() {
            return TriggerResult::Fire;
        }
        if ctx.existing_state().is_none_or(|next| *next != time_ms) {
            return TriggerResult::Continue;
        }
        self.set_next(time_ms, window, ctx);
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: Vec<i64>, window: &W, ctx: &mut TriggerContext<'_, i64>) {
        if let Some(next) = merged.into_iter().min() {
            *ctx.state() = next;
            ctx.register_event_timer(next);
        }
        if window.max_timestamp() > ctx.watermark() {
            ctx.register_event_timer(window.max_timestamp());
        }
    }

    fn clear(&mut self, window: &W, ctx: &mut TriggerContext<'_, i64>) {
        if let Some(next) = ctx.existing_state().copied() {
            ctx.delete_event_timer(next);
        }
        ctx.delete_event_timer(window.max_timestamp());
        ctx.clear_state();
    }
}

/// Fires at every multiple of an interval of processing time, and at the end of a processing-time window.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousProcessingTimeTrigger {
    interval_ms: i64,
}

impl ContinuousProcessingTimeTrigger {
    /// Fires at this interval; less than a millisecond counts as one.
    pub fn of(interval: Duration) -> Self {
        ContinuousProcessingTimeTrigger { interval_ms: millis(interval).max(1) }
    }

    fn set_next<W: Window>(&self, time_ms: i64, window: &W, ctx: &mut TriggerContext<'_, i64>) {
        let next = next_firing(time_ms, self.interval_ms, window.max_timestamp());
        *ctx.state() = next;
        ctx.register_processing_timer(next);
    }
}

impl<T, W: Window> Trigger<T, W> for ContinuousProcessingTimeTrigger {
    /// The next firing.
    type State = i64;

    fn on_element(
        &mut self,
        _record: &T,
        _timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        if ctx.existing_state().is_none() {
            self.set_next(ctx.processing_time(), window, ctx);
        }
        TriggerResult::Continue
    }

    fn on_processing_time(
        &mut self,
        time_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, i64>,
    ) -> TriggerResult {
        if ctx.existing_state().is_none_or(|next| *next != time_ms) {
            return TriggerResult::Continue;
        }
        if time_ms < window.max_timestamp() {
            self.set_next(time_ms, window, ctx);
        }
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: Vec<i64>, _window: &W, ctx: &mut TriggerContext<'_, i64>) {
        if let Some(next) = merged.into_iter().min() {
            *ctx.state() = next;
            ctx.register_processing_timer(next);
        }
    }

    fn clear(&mut self, _window: &W, ctx: &mut TriggerContext<'_, i64>) {
        if let Some(next) = ctx.existing_state().copied() {
            ctx.delete_processing_timer(next);
        }
        ctx.clear_state();
    }
}

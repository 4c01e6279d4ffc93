//! Triggers that fire when the clock reaches the end of the window.

use crate::state::TimeDomain;
use crate::window::{Trigger, TriggerContext, TriggerResult, Window};

/// Fires when the watermark reaches the end of the window, and for every record that comes later (within the allowed
/// lateness).
#[derive(Clone, Copy, Debug, Default)]
pub struct EventTimeTrigger;

impl<T, W: Window> Trigger<T, W> for EventTimeTrigger {
    type State = ();

    #[inline]
    fn on_element(&mut self, _: &T, _: i64, window: &W, ctx: &mut TriggerContext<'_, ()>) -> TriggerResult {
        if window.max_timestamp() <= ctx.watermark() {
            return TriggerResult::Fire;
        }
        ctx.register_event_timer(window.max_timestamp());
        TriggerResult::Continue
    }

    fn on_event_time(&mut self, time_ms: i64, window: &W, _: &mut TriggerContext<'_, ()>) -> TriggerResult {
        if time_ms == window.max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, _: Vec<()>, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        // If the end has passed already, the record that made the windows merge fires the merged one.
        if window.max_timestamp() > ctx.watermark() {
            ctx.register_event_timer(window.max_timestamp());
        }
    }

    fn clear(&mut self, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        ctx.delete_event_timer(window.max_timestamp());
        ctx.clear_state();
    }

    fn only_timer_is_window_end(&self) -> Option<TimeDomain> {
        Some(TimeDomain::Event)
    }
}

/// Fires when the clock passes the end of the window.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessingTimeTrigger;

impl<T, W: Window> Trigger<T, W> for ProcessingTimeTrigger {
    type State = ();

    #[inline]
    fn on_element(&mut self, _: &T, _: i64, window: &W, ctx: &mut TriggerContext<'_, ()>) -> TriggerResult {
        ctx.register_processing_timer(window.max_timestamp());
        TriggerResult::Continue
    }

    fn on_processing_time(
        &mut self,
        _time_ms: i64,
        _window: &W,
        _: &mut TriggerContext<'_, ()>,
    ) -> TriggerResult {
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, _: Vec<()>, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        if window.max_timestamp() > ctx.processing_time() {
            ctx.register_processing_timer(window.max_timestamp());
        }
    }

    fn clear(&mut self, window: &W, ctx: &mut TriggerContext<'_, ()>) {
        ctx.delete_processing_timer(window.max_timestamp());
        ctx.clear_state();
    }

    fn only_timer_is_window_end(&self) -> Option<TimeDomain> {
        Some(TimeDomain::Processing)
    }
}

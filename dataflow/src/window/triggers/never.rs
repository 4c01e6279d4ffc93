//! Triggers of windows without an end.

use crate::state::TimeDomain;
use crate::window::{EventTimeTrigger, Trigger, TriggerContext, TriggerResult, Window};

/// Never fires.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverTrigger;

impl<T, W> Trigger<T, W> for NeverTrigger {
    type State = ();

    fn on_element(&mut self, _: &T, _: i64, _: &W, _: &mut TriggerContext<'_, ()>) -> TriggerResult {
        TriggerResult::Continue
    }

    fn can_merge(&self) -> bool {
        true
    }
}

/// The default of [`GlobalWindows`](crate::window::GlobalWindows): never, or at the end of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GlobalTrigger {
    /// Never fires.
    #[default]
    Never,
    /// Fires when the input has ended.
    EndOfStream,
}

impl<T, W: Window> Trigger<T, W> for GlobalTrigger {
    type State = ();

    fn on_element(
        &mut self,
        record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, ()>,
    ) -> TriggerResult {
        match self {
            GlobalTrigger::Never => TriggerResult::Continue,
            GlobalTrigger::EndOfStream => EventTimeTrigger.on_element(record, timestamp_ms, window, ctx),
        }
    }

    fn on_event_time(&mut self, time_ms: i64, window: &W, ctx: &mut TriggerContext<'_, ()>) -> TriggerResult {
        Trigger::<T, W>::on_event_time(&mut EventTimeTrigger, time_ms, window, ctx)
    }

    fn only_timer_is_window_end(&self) -> Option<TimeDomain> {
        None
    }
}

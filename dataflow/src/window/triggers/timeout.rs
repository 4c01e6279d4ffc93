//! Fires when another trigger has not fired for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::millis;
use crate::window::{Trigger, TriggerContext, TriggerResult};

/// Fires when `inner` does, and when `inner` has not fired for a span of processing time after the first record.
#[derive(Clone, Copy, Debug)]
pub struct ProcessingTimeoutTrigger<Tr> {
    inner: Tr,
    timeout_ms: i64,
    reset_on_record: bool,
    clear_on_timeout: bool,
}

impl<Tr> ProcessingTimeoutTrigger<Tr> {
    /// Fires `timeout` after the first record at the latest, and then drops the state of `inner`.
    pub fn of(inner: Tr, timeout: Duration) -> Self {
        ProcessingTimeoutTrigger {
            inner,
            timeout_ms: millis(timeout),
            reset_on_record: false,
            clear_on_timeout: true,
        }
    }

    /// Counts the timeout from the last record instead of the first.
    pub fn reset_timer_on_new_record(self) -> Self {
        ProcessingTimeoutTrigger { reset_on_record: true, ..self }
    }

    /// Keeps the state of the inner trigger when the timeout fires.
    pub fn keep_state_on_timeout(self) -> Self {
        ProcessingTimeoutTrigger { clear_on_timeout: false, ..self }
    }
}

/// What a [`ProcessingTimeoutTrigger`] remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TimeoutState<S> {
    deadline_ms: Option<i64>,
    inner: Option<S>,
}

type Ctx<'a, S> = TriggerContext<'a, TimeoutState<S>>;

fn timed_out(inner: TriggerResult) -> TriggerResult {
    if inner.purges() { TriggerResult::FireAndPurge } else { TriggerResult::Fire }
}

impl<T, W, Tr: Trigger<T, W>> Trigger<T, W> for ProcessingTimeoutTrigger<Tr> {
    type State = TimeoutState<Tr::State>;

    fn on_element(
        &mut self,
        record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut Ctx<'_, Tr::State>,
    ) -> TriggerResult {
        let nested = &mut ctx.nested(|state| &mut state.inner);
        let result = self.inner.on_element(record, timestamp_ms, window, nested);
        if result.fires() {
            self.clear(window, ctx);
            return result;
        }
        let deadline_ms = ctx.state().deadline_ms;
        match deadline_ms {
            Some(_) if !self.reset_on_record => return result,
            Some(deadline_ms) => ctx.delete_processing_timer(deadline_ms),
            None => {}
        }
        let deadline_ms = ctx.processing_time().saturating_add(self.timeout_ms);
        ctx.state().deadline_ms = Some(deadline_ms);
        ctx.register_processing_timer(deadline_ms);
        result
    }

    fn on_event_time(&mut self, time_ms: i64, window: &W, ctx: &mut Ctx<'_, Tr::State>) -> TriggerResult {
        let inner = self.inner.on_event_time(time_ms, window, &mut ctx.nested(|state| &mut state.inner));
        if self.clear_on_timeout {
            self.clear(window, ctx);
        }
        timed_out(inner)
    }

    fn on_processing_time(
        &mut self,
        time_ms: i64,
        window: &W,
        ctx: &mut Ctx<'_, Tr::State>,
    ) -> TriggerResult {
        let inner = self.inner.on_processing_time(time_ms, window, &mut ctx.nested(|state| &mut state.inner));
        if self.clear_on_timeout {
            self.clear(window, ctx);
        } else {
            ctx.state().deadline_ms = None;
        }
        timed_out(inner)
    }

    fn clear(&mut self, window: &W, ctx: &mut Ctx<'_, Tr::State>) {
        if let Some(deadline_ms) = ctx.existing_state().and_then(|state| state.deadline_ms) {
            ctx.delete_processing_timer(deadline_ms);
        }
        self.inner.clear(window, &mut ctx.nested(|state| &mut state.inner));
        ctx.clear_state();
    }
}

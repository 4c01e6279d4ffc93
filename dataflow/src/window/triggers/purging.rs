//! Drops the records of a window whenever it fires.

use crate::state::TimeDomain;
use crate::window::{Trigger, TriggerContext, TriggerResult};

/// Fires when `inner` does, and drops the records it fired with.
#[derive(Clone, Copy, Debug)]
pub struct PurgingTrigger<Tr> {
    inner: Tr,
}

impl<Tr> PurgingTrigger<Tr> {
    /// Purges whenever `inner` fires.
    pub fn of(inner: Tr) -> Self {
        PurgingTrigger { inner }
    }
}

fn purging(result: TriggerResult) -> TriggerResult {
    if result.fires() { TriggerResult::FireAndPurge } else { result }
}

impl<T, W, Tr: Trigger<T, W>> Trigger<T, W> for PurgingTrigger<Tr> {
    type State = Tr::State;

    #[inline]
    fn on_element(
        &mut self,
        record: &T,
        timestamp_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, Tr::State>,
    ) -> TriggerResult {
        purging(self.inner.on_element(record, timestamp_ms, window, ctx))
    }

    fn on_event_time(
        &mut self,
        time_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, Tr::State>,
    ) -> TriggerResult {
        purging(self.inner.on_event_time(time_ms, window, ctx))
    }

    fn on_processing_time(
        &mut self,
        time_ms: i64,
        window: &W,
        ctx: &mut TriggerContext<'_, Tr::State>,
    ) -> TriggerResult {
        purging(self.inner.on_processing_time(time_ms, window, ctx))
    }

    fn can_merge(&self) -> bool {
        self.inner.can_merge()
    }

    fn on_merge(&mut self, merged: Vec<Tr::State>, window: &W, ctx: &mut TriggerContext<'_, Tr::State>) {
        self.inner.on_merge(merged, window, ctx);
    }

    fn clear(&mut self, window: &W, ctx: &mut TriggerContext<'_, Tr::State>) {
        self.inner.clear(window, ctx);
    }

    fn only_timer_is_window_end(&self) -> Option<TimeDomain> {
        self.inner.only_timer_is_window_end()
    }
}

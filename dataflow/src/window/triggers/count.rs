//! Fires after so many records.

use crate::window::{Trigger, TriggerContext, TriggerResult};

/// Fires for every `n`th record of a key and window.
#[derive(Clone, Copy, Debug)]
pub struct CountTrigger {
    n: u64,
}

impl CountTrigger {
    /// Fires for every `n`th record; 0 counts as 1.
    pub fn of(n: u64) -> Self {
        CountTrigger { n: n.max(1) }
    }
}

impl<T, W> Trigger<T, W> for CountTrigger {
    type State = u64;

    #[inline]
    fn on_element(&mut self, _: &T, _: i64, _: &W, ctx: &mut TriggerContext<'_, u64>) -> TriggerResult {
        let seen = ctx.state();
        *seen += 1;
        if *seen < self.n {
            return TriggerResult::Continue;
        }
        ctx.clear_state();
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: Vec<u64>, _: &W, ctx: &mut TriggerContext<'_, u64>) {
        let seen: u64 = merged.into_iter().sum();
        if seen > 0 {
            *ctx.state() += seen;
        }
    }
}

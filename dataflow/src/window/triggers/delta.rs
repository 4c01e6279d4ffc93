//! Fires when a record differs enough from the last one that fired.

use std::marker::PhantomData;

use crate::batch::Record;
use crate::function::Function;
use crate::window::{Trigger, TriggerContext, TriggerResult};

/// Fires when `delta(last record that fired, record)` is above a threshold. The first record of a key and window is
/// what the next ones are compared with.
pub struct DeltaTrigger<T, F> {
    threshold: f64,
    delta: F,
    record: PhantomData<fn(T)>,
}

impl<T, F: Fn(&T, &T) -> f64> DeltaTrigger<T, F> {
    /// Fires above `threshold`.
    pub fn of(threshold: f64, delta: F) -> Self {
        DeltaTrigger { threshold, delta, record: PhantomData }
    }
}

impl<T, F: Clone> Clone for DeltaTrigger<T, F> {
    fn clone(&self) -> Self {
        DeltaTrigger { threshold: self.threshold, delta: self.delta.clone(), record: PhantomData }
    }
}

impl<T: Record, W, F: Fn(&T, &T) -> f64 + Function> Trigger<T, W> for DeltaTrigger<T, F> {
    type State = Option<T>;

    fn on_element(
        &mut self,
        record: &T,
        _timestamp_ms: i64,
        _window: &W,
        ctx: &mut TriggerContext<'_, Option<T>>,
    ) -> TriggerResult {
        let last = ctx.state();
        let result = match last {
            None => TriggerResult::Continue,
            Some(last) if (self.delta)(last, record) > self.threshold => TriggerResult::Fire,
            Some(_) => return TriggerResult::Continue,
        };
        *last = Some(record.clone());
        result
    }
}

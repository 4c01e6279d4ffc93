//! The timers of triggers, on both clocks.

use super::FiredTimer;
use crate::state::{TimeDomain, Timers};
use crate::window::trigger::TimerRequest;

/// Timers, each for a slot: a number that the holder of windows gives to a key and window.
#[derive(Default)]
pub(crate) struct TriggerTimers {
    event: Timers,
    processing: Timers,
    /// The clock has come to its end: processing-time timers are not taken any more.
    ended: bool,
}

impl TriggerTimers {
    fn of(&mut self, domain: TimeDomain) -> &mut Timers {
        match domain {
            TimeDomain::Event => &mut self.event,
            TimeDomain::Processing => &mut self.processing,
        }
    }

    /// Does what a trigger has asked for; `count` is the number of timers of the slot.
    pub(super) fn apply(&mut self, requests: &mut Vec<TimerRequest>, slot: u32, count: &mut u32) {
        for request in requests.drain(..) {
            match request {
                TimerRequest::Register(TimeDomain::Processing, _) if self.ended => {}
                TimerRequest::Register(domain, time_ms) => {
                    *count += u32::from(self.of(domain).register(time_ms, slot));
                }
                TimerRequest::Delete(domain, time_ms) => {
                    *count -= u32::from(self.of(domain).delete(time_ms, slot));
                }
            }
        }
    }

    /// The next timer at or before `until_ms`, removed; to be taken off its slot's count.
    pub(super) fn pop_due(&mut self, domain: TimeDomain, until_ms: i64) -> Option<FiredTimer> {
        let (time_ms, slot) = self.of(domain).pop_due(until_ms)?;
        Some(FiredTimer { domain, time_ms, slot })
    }

    /// When the next timer of a clock fires, or `i64::MAX`.
    pub(super) fn next_ms(&self, domain: TimeDomain) -> i64 {
        match domain {
            TimeDomain::Event => self.event.next_ms(),
            TimeDomain::Processing => self.processing.next_ms(),
        }
    }

    /// Refuses processing-time timers from now on, so that those there are can all be fired.
    pub(super) fn end_processing(&mut self) {
        self.ended = true;
    }
}

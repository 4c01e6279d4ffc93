//! The timers of triggers, on both clocks.

use serde::{Deserialize, Serialize};

use super::FiredTimer;
use crate::state::{TimeDomain, Timers};
use crate::window::trigger::TimerRequest;

/// The timers of one key and window, as snapshots hold them. Most have none, or one.
// The box makes the many without any a third as large.
#[allow(clippy::box_collection)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnTimers(Option<Box<Vec<(TimeDomain, i64)>>>);

impl OwnTimers {
    fn add(&mut self, domain: TimeDomain, time_ms: i64) {
        self.0.get_or_insert_default().push((domain, time_ms));
    }

    /// A timer has fired or was deleted.
    pub(super) fn remove(&mut self, domain: TimeDomain, time_ms: i64) {
        let Some(timers) = &mut self.0 else { return };
        timers.retain(|timer| *timer != (domain, time_ms));
        if timers.is_empty() {
            self.0 = None;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn contains(&self, domain: TimeDomain, time_ms: i64) -> bool {
        self.iter().any(|timer| timer == (domain, time_ms))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TimeDomain, i64)> {
        self.0.iter().flat_map(|timers| timers.iter().copied())
    }
}

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

    /// Does what a trigger has asked for; `count` is the number of timers of the slot, `own` are those of its key and window.
    pub(super) fn apply(
        &mut self,
        requests: &mut Vec<TimerRequest>,
        slot: u32,
        count: &mut u32,
        own: &mut OwnTimers,
    ) {
        for request in requests.drain(..) {
            match request {
                TimerRequest::Register(TimeDomain::Processing, _) if self.ended => {}
                TimerRequest::Register(domain, time_ms) => {
                    if self.of(domain).register(time_ms, slot) {
                        *count += 1;
                        own.add(domain, time_ms);
                    }
                }
                TimerRequest::Delete(domain, time_ms) => {
                    if self.of(domain).delete(time_ms, slot) {
                        *count -= 1;
                        own.remove(domain, time_ms);
                    }
                }
            }
        }
    }

    /// Registers restored timers for the slot that their key and window have now; gives their number.
    pub(super) fn restore(&mut self, slot: u32, own: &OwnTimers) -> u32 {
        own.iter().map(|(domain, time_ms)| u32::from(self.of(domain).register(time_ms, slot))).sum()
    }

    /// Forgets the timers of a slot, whose key and window leave memory; gives their number.
    pub(super) fn forget(&mut self, slot: u32, own: &OwnTimers) -> u32 {
        own.iter().map(|(domain, time_ms)| u32::from(self.of(domain).delete(time_ms, slot))).sum()
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

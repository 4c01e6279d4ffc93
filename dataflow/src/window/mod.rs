//! Windows: finite sets of records of an endless stream.
//!
//! What lives here: the kinds of window, assigners (which windows a record belongs to), triggers (when a window gives
//! results), evictors (which of its records count), functions (what it gives), and two families of operators:
//! *slicing* for windows at fixed places in time with nothing special about them, *general* for all others. Who may
//! call it: job authors, through the API. What must never happen here: a virtual call or an allocation per record;
//! a step of work per window that holds no record.
//!
//! ```
//! use std::time::Duration;
//!
//! use flott_dataflow::api::DataStream;
//! use flott_dataflow::window::TumblingEventTimeWindows;
//!
//! /// Per user and minute: the end of the minute, and the bytes.
//! fn traffic(requests: &DataStream<(String, u64)>) -> DataStream<(String, i64, u64)> {
//!     requests
//!         .key_by_ref(|(user, _)| user)
//!         .window(TumblingEventTimeWindows::of(Duration::from_secs(60)))
//!         .allowed_lateness(Duration::from_secs(10))
//!         .reduce_with(
//!             |total, request| total.1 += request.1,
//!             |user, window, total| (user.clone(), window.end_ms, total.1),
//!         )
//! }
//! ```

mod assigner;
mod assigners;
pub(crate) mod beyond;
pub(crate) mod clocks;
mod elements;
mod evictor;
pub(crate) mod fold;
pub(crate) mod function;
pub(crate) mod general;
mod kinds;
pub(crate) mod logic;
pub(crate) mod marked;
mod panes;
mod pause;
pub(crate) mod saving;
mod slices;
pub(crate) mod slicing;
#[cfg(test)]
mod tests;
mod trigger;
mod triggers;

pub use assigner::{Slices, WindowAssigner};
pub use assigners::{
    DynamicEventTimeSessionWindows, DynamicProcessingTimeSessionWindows, EventTimeSessionWindows,
    GlobalWindows, ProcessingTimeSessionWindows, SlidingEventTimeWindows, SlidingProcessingTimeWindows,
    TumblingEventTimeWindows, TumblingProcessingTimeWindows,
};
pub use elements::Elements;
pub use evictor::{CountEvictor, DeltaEvictor, Evictor, NoEvictor, TimeEvictor, Timestamped};
pub use function::{ProcessWindowFunction, WindowContext, WindowOpenContext};
pub use kinds::{GlobalWindow, TimeWindow, Window};
pub use slices::window_start;
pub use trigger::{Trigger, TriggerContext, TriggerResult};
pub use triggers::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountTrigger, DeltaTrigger,
    EventTimeTrigger, GlobalTrigger, NeverTrigger, ProcessingTimeTrigger, ProcessingTimeoutTrigger,
    PurgingTrigger, TimeoutState,
};

use crate::context::count;
use crate::operator::{Collector, OutputTag};

/// What becomes of records that come behind the watermark.
pub(crate) struct LateRule<T> {
    /// How long behind the end of a window a record still counts, milliseconds.
    pub lateness_ms: i64,
    /// Where later records go; without it they are dropped and counted.
    pub output: Option<OutputTag<T>>,
}

impl<T> Clone for LateRule<T> {
    fn clone(&self) -> Self {
        LateRule { lateness_ms: self.lateness_ms, output: self.output.clone() }
    }
}

impl<T: 'static> LateRule<T> {
    /// A record came too late for all of its windows.
    fn refuse<O: 'static>(&self, record: T, timestamp_ms: i64, out: &mut Collector<O>) {
        match &self.output {
            Some(tag) => out.side_at(tag, record, timestamp_ms),
            None => count(&out.context().metrics.late_records_dropped, 1),
        }
    }

    /// Whether a window has been dropped when the clock of its domain has come to `clock_ms`.
    #[inline]
    fn is_over(&self, max_timestamp_ms: i64, clock_ms: i64) -> bool {
        max_timestamp_ms.saturating_add(self.lateness_ms) <= clock_ms
    }
}

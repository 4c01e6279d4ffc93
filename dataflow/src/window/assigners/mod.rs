//! The built-in window assigners.
//!
//! What lives here: one file a kind of window, in event time and processing time. Who may call it: job authors,
//! through `window` and `window_all`. What must never happen here: state; an assigner looks at one record only.

mod fixed;
mod global;
mod session;

pub use fixed::{
    SlidingEventTimeWindows, SlidingProcessingTimeWindows, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows,
};
pub use global::GlobalWindows;
pub use session::{
    DynamicEventTimeSessionWindows, DynamicProcessingTimeSessionWindows, EventTimeSessionWindows,
    ProcessingTimeSessionWindows,
};

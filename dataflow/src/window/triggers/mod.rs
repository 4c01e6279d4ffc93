//! The built-in triggers.
//!
//! What lives here: one file a trigger or a pair of them. Who may call it: job authors, through
//! `WindowedStream::trigger`; assigners, for their default. What must never happen here: state outside
//! `Trigger::State`, because one trigger object serves all keys and windows.

mod continuous;
mod count;
mod delta;
mod never;
mod purging;
mod timeout;
mod window_end;

pub use continuous::{ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger};
pub use count::CountTrigger;
pub use delta::DeltaTrigger;
pub use never::{GlobalTrigger, NeverTrigger};
pub use purging::PurgingTrigger;
pub use timeout::{ProcessingTimeoutTrigger, TimeoutState};
pub use window_end::{EventTimeTrigger, ProcessingTimeTrigger};

//! The coordinator as a service: one task that owns the state of the machine, and handles that talk to it.
//!
//! [`Coordinator::new`] gives the service and its [`Handle`]; [`Coordinator::run`] is the loop, to be spawned on any tokio
//! runtime. Every event passes through one bounded queue, in order; the machine decides, the loop performs the effects.
//! Who may call it: the `flott` binary and the embedded cluster. What must never happen here: a decision about a job
//! (that is the machine's), a wait inside the loop for one worker, user or subscriber.

mod error;
mod handle;
mod run;
mod view;

pub use error::CoordinatorError;
pub use handle::{Change, Handle, JobStateChange, JobStateChanges};
pub use run::{Coordinator, Options};

#[cfg(test)]
mod tests;

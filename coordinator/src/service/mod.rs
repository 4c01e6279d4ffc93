//! The coordinator as a service: one task that owns the state of the machine, and handles that talk to it.
//!
//! [`Coordinator::new`] gives the service and its [`Handle`]; [`Coordinator::run`] is the loop, to be spawned on any tokio
//! runtime. Every event passes through one bounded queue and is committed by the [journal](crate::journal), in order; the
//! machine decides, the loop of the leader performs the effects.
//! Who may call it: the `flott` binary and the embedded cluster. What must never happen here: a decision about a job
//! (that is the machine's), a wait inside the loop for one worker, user, subscriber or disk.
//!
//! * [`Options`], [`Handle`], [`CoordinatorError`]; `run`: [`Coordinator`] and its loop
//! * `commit`: from a command to an applied event; `effects`: what the machine wants done; `timers`: what comes due;
//!   `lead`: what begins and ends with leadership; `view`: questions to the state; `snapshots`: those of the jobs

mod commit;
mod effects;
mod error;
mod handle;
mod lead;
mod options;
mod run;
mod snapshots;
mod timers;
mod view;

pub(crate) use commit::EVENT_BYTES_MAX;
pub use error::CoordinatorError;
pub use handle::{Change, Handle, JobStateChange, JobStateChanges};
pub use options::Options;
pub use run::Coordinator;
pub use snapshots::SnapshotRequest;

#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;

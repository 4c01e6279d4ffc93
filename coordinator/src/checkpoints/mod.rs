//! The ledger of snapshots that are under way: when they begin, who has handed in, what is deleted.
//!
//! What outlives a leader is in the [machine](crate::machine): that a snapshot was begun, is complete, was given up. What is
//! here belongs to the leader alone: parts, deadlines, files. A leader that takes over gives up what was pending, and learns from
//! the manifests which files the retained checkpoints share.
//! Who may call it: [`crate::service`]. What must never happen here: a file of a savepoint that is complete, or of a snapshot that
//! is not the job's, is deleted; a wait inside the loop of the service for a disk.
//!
//! * [`ledger`]: [`Ledger`], decisions without I/O: what is told goes in, [`Action`]s ([`action`]) come out; `job`: of one job; `trigger`:
//!   when the next is due; `request`: what the job wants of it
//! * `pending`: a snapshot that is being taken; [`registry`]: files that checkpoints share; [`details`]: what people ask for
//! * [`keeper`]: the threads that write manifests and delete files; `claimed`: snapshots of other jobs that go; [`places`]: where
//!   snapshots go

pub mod action;
mod claimed;
pub mod details;
mod job;
pub mod keeper;
pub mod ledger;
mod pending;
pub mod places;
pub mod registry;
mod request;
mod trigger;

pub use action::{Action, Now};
pub use details::{CheckpointDetails, PartDetails};
pub use keeper::Keeper;
pub use ledger::Ledger;
pub use places::Places;

#[cfg(test)]
mod tests;

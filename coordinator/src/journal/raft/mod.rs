//! The replicated journal: a group of coordinators that agree on their events by Raft (openraft).
//!
//! [`RaftJournal`] is the journal of one member. Its log and snapshots lie in a database of its own; the other members are
//! called over the control port. Who may call it: what starts a coordinator. What must never happen here: an event that is
//! applied before a majority has it on disk; a wait of the thread that answers workers for the disk.
//!
//! * [`RaftOptions`], [`RaftJournal`], [`JournalError`]
//! * [`Member`]: what answers the others' calls; [`connect_peers`]: the calls to them; [`Network`]: where openraft hands them over
//! * `store`, `record`, `flusher`: the database; `log_store`, `state_machine`: openraft's view of it and of the state
//! * `types`, `codec`: openraft's types and their stored forms

mod codec;
mod error;
mod flusher;
mod journal;
mod log_store;
mod network;
mod options;
mod peers;
mod record;
mod server;
mod state_machine;
mod store;
mod types;

pub use error::JournalError;
pub use journal::RaftJournal;
pub use network::Network;
pub use options::RaftOptions;
pub use peers::{PeerOptions, connect_peers};
pub use server::Member;

#[cfg(test)]
mod tests;

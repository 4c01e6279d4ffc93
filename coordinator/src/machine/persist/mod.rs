//! The stored forms of the machine: an event for the log, the whole state for a snapshot (`schema/capnp/machine.capnp`).
//!
//! * `event`: events; `state`: the state; `job`, `task`, `failure`, `checkpoint`: what it is made of
//!
//! Who may call it: the journal. What must never happen here: a panic, whatever the bytes; a state that breaks an invariant.

mod checkpoint;
mod event;
mod failure;
mod job;
mod state;
mod task;

use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::wire::{from_bytes, to_bytes};

use super::event::Event;
use super::state::ClusterState;

/// An event as bytes. Fails if a text in it is too long for a message.
pub fn encode_event(event: &Event) -> Result<Vec<u8>> {
    to_bytes(event)
}

/// The event in bytes made by [`encode_event`], in this version of Flott or another.
pub fn decode_event(bytes: &[u8]) -> Result<Event> {
    from_bytes(bytes)
}

/// The state as bytes.
pub fn encode_state(state: &ClusterState) -> Result<Vec<u8>> {
    to_bytes(state)
}

/// The state in bytes made by [`encode_state`]. It passes [`super::check_invariants`].
pub fn decode_state(bytes: &[u8]) -> Result<ClusterState> {
    let state: ClusterState = from_bytes(bytes)?;
    super::check_invariants(&state).map_err(wrong)?;
    Ok(state)
}

/// The error for what can be read and cannot be.
fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the stored state contradicts itself: {what}"))
}

#[cfg(test)]
mod tests;

//! Records between executors, over TCP.
//!
//! What lives here:
//! * [`handshake`]: how a connection begins
//! * [`header`]: the header of every frame
//!
//! Who may call it: the task runtime and the executor; the supervisor reads handshakes. What must never happen here: a reader
//! that waits for a full channel, so that one slow task would hold up others; a decision about a job; knowledge of actors.

pub mod handshake;
pub mod header;

pub use handshake::{Handshake, HandshakeReply};

//! Records between executors, over TCP.
//!
//! What lives here:
//! * [`handshake`]: how a connection begins; [`header`]: the header of every frame; `body`: signals, answers, compression
//! * [`service`]: the exchange of one executor: its thread, its connections, their beginning and end
//! * `connection`: reads and writes the frames of one connection; `outbox`: what waits to be written
//! * `peer`: the executor at the other end, and the credit of the channels to it
//! * [`writer`]: the sending end of a channel; [`inbox`]: the receiving ends, and frames that come before them
//! * [`spooled`]: results of blocking edges, asked for and served; `splits`: the same for splits; `route`: who gets a frame
//!
//! Who may call it: the task runtime and the executor; the supervisor reads handshakes. What must never happen here: a reader
//! that waits for a full channel, so that one slow task would hold up others; a decision about a job; knowledge of actors.
//!
//! Frames are encoded in the thread of the sending task and decoded in that of the receiving one; the exchange's own thread
//! moves bytes, checks checksums and never looks into records. Credit bounds what is under way on a channel; where a frame
//! overtakes the deployment of its task, it waits here within that credit.

mod body;
mod connection;
pub mod handshake;
pub mod header;
pub mod inbox;
mod outbox;
mod peer;
mod route;
pub mod service;
mod splits;
pub mod spooled;
pub mod writer;

pub use handshake::{Handshake, HandshakeReply};
pub use header::Compression;
pub use inbox::InputPlan;
pub use service::{Event, Exchange, Handle, Incoming, Options};

#[cfg(test)]
mod tests;

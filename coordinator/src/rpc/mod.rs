//! The control port: where workers and other coordinators call this coordinator.
//!
//! * [`start`] binds the port and serves it on a thread of its own, with [`Options`]; [`RpcHandle`] stops it and asks workers
//! * [`RpcLink`]: the way of the service's orders to the workers that are registered here
//! * [`LiveStats`]: the numbers that come with heartbeats
//! * [`ReadProgram`]: where parts of stored programs come from
//! * inside: `connection` is one caller until it hangs up, `guard` what it may send before it is let in, `cluster` what it may
//!   call, `session` a registered worker, `refusals` who was turned away
//!
//! Who may call it: the process of a coordinator, which puts service and port together. What must never happen here: a decision
//! about a job, a record of a job, a call that nothing ends.

mod cluster;
mod connection;
mod guard;
mod handle;
mod link;
mod refusals;
mod server;
mod session;
mod stats;

pub use handle::RpcHandle;
pub use link::RpcLink;
pub use server::{Options, Parts, ReadProgram, start};
pub use stats::LiveStats;

#[cfg(test)]
mod tests;

//! A worker's session with the cluster: the connection to the coordinator that leads, kept up for as long as the worker lives.
//!
//! * [`start`]: a thread that registers, sends heartbeats and reports, takes orders, and looks for the leader again when the
//!   connection breaks
//! * [`SessionHandle`]: what the rest of the worker says to it; the receiver that [`start`] gives: the orders
//! * [`WorkerSide`]: what coordinators ask of the worker beside orders
//! * inside: `book` (tasks and reports that the cluster still has to hear of) and `search` (which address is tried when) are
//!   pure; `connect` makes a connection, `connected` serves it, `answers` is the object that coordinators call
//!
//! Who may call it: the supervisor of a worker process. What must never happen here: a decision about a task, a wait that
//! nothing ends.

mod answers;
mod book;
mod connect;
mod connected;
mod handle;
mod run;
mod search;
mod side;

pub use flott_schema::answer::{FilePart, ProgramRun};
pub use handle::{SessionEnd, SessionHandle, SessionState};
pub use run::{Options, start};
pub use side::WorkerSide;

#[cfg(test)]
mod tests;

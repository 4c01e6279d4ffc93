//! The programming model, and nothing that runs it.
//!
//! What lives here: batches, time, windows, keyed state, the traits of operators, sources and sinks, the built-in
//! typed operators, and the DataStream builder that turns a program into a job graph plus the factories of its tasks.
//! Who may call it: job authors (through the facade), connectors, the worker. What must never happen here: threads,
//! sockets, actors, knowledge of a worker or coordinator.

pub mod api;
pub mod batch;
pub mod codec;
pub mod columnar;
pub mod context;
pub mod declared;
pub mod element;
pub mod exchange;
pub mod function;
pub mod harness;
pub mod key;
pub mod operator;
pub mod operators;
pub mod program;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod stage;
pub mod state;
pub mod task;
pub mod time;
pub mod two_input;
pub mod types;
pub mod window;

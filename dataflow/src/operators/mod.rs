//! The built-in operators.
//!
//! What lives here: one file an operator or a family. Who may call it: the API, which wraps them in factories.
//! What must never happen here: blocking, threads, knowledge of channels.

pub mod async_io;
pub mod basic;
pub mod bounded;
pub mod broadcast;
pub mod co_process;
mod commits;
pub mod factory;
pub mod global_commits;
pub mod interval_join;
mod keyed;
pub mod keyed_process;
pub mod list_state;
pub mod open;
pub mod process;
pub mod reduce;
pub mod reducers;
pub mod sink;
pub mod watermarks;

#[cfg(test)]
mod failure_tests;

//! Jobs over two executors in this process, joined by real connections; and executors joined to a peer that a test plays.

mod alignment;
mod answers;
mod failures;
mod harness;
mod peer;
mod pressure;
mod programs;
mod snapshots;

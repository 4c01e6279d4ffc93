//! The REST API over real sockets, against a coordinator with the memory journal.

mod checkpoints;
mod cluster;
mod follower;
mod golden;
mod refusals;
mod robust;
mod uploads;

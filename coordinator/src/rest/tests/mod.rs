//! The REST API over real sockets, against a coordinator with the memory journal.

mod cluster;
mod follower;
mod golden;
mod refusals;
mod robust;
mod uploads;

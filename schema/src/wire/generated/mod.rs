//! Made from `schema/capnp` by Cap'n Proto's compiler; a test makes it anew and compares. Made, not written: nothing here is
//! edited. It stands in the tree so that nobody who builds Flott needs the compiler.
#![allow(warnings, clippy::all)]

#[rustfmt::skip]
pub mod common_capnp;
#[rustfmt::skip]
pub mod control_capnp;
#[rustfmt::skip]
pub mod exchange_capnp;
#[rustfmt::skip]
pub mod job_capnp;
#[rustfmt::skip]
pub mod machine_capnp;
#[rustfmt::skip]
pub mod raft_capnp;
#[rustfmt::skip]
pub mod snapshot_capnp;

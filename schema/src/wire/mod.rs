//! The Cap'n Proto forms of the words: on the wire, in the Raft log, in manifests.
//!
//! * [`generated`]: readers and builders, made from `schema/capnp`
//!
//! Who may call it: every room. What must never happen here: a field that is renumbered, retyped or removed.

pub mod generated;

//! Folders in S3 buckets, and in what speaks S3's protocol.
//!
//! * [`Bucket`]: what can be done with objects: put, get, list, delete; [`settings`]: keys of Flink and the environment
//! * inside: `client` is the one runtime and the clients of buckets, `transfer` moves large objects in parts, `failure` says what went wrong
//!
//! An object is there as a whole, or not at all: the server sees to that, also for one that is uploaded in parts. Its bytes are signed on their way,
//! and checked against the manifest when they are read. Folders are no things here: one is there while something is in it.
//!
//! Who may call it: `storage`. What must never happen here: a secret in a message; a request without a deadline; memory that grows with the size of
//! an object; a wait for the runtime's thread by itself.

mod bucket;
mod client;
mod failure;
pub(crate) mod settings;
mod transfer;

pub(crate) use bucket::Bucket;

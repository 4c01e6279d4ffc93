//! Sinks that write files: part files that roll, and one file for a whole result.
//!
//! What lives here: encoders, buckets, in-progress files, their commit by rename, manifests of what was committed, what snapshots know of it. Who may call it: job authors.
//!
//! What must never happen here: a file that is visible under its final name before it is complete, on disk and committed;
//! a finished file that is written over by another run.

mod buckets;
mod commit;
mod encoder;
mod lineage;
mod manifests;
mod part_file;
mod single_file;
mod sink;
mod unsynced;
mod writer;

#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod tests;

pub use buckets::Buckets;
pub use commit::{FileCommittable, FileCommitter};
pub use encoder::{EncodeWith, Encoder, LineEncoder};
pub use manifests::{MANIFESTS, Manifest, ManifestCommitter, ManifestFile};
pub use single_file::{SingleFile, SingleFileWriter};
pub use sink::FileSink;
pub use writer::FileWriter;

//! Keyed state in RocksDB: one database for each operator with keyed state in a task.
//!
//! What lives here: `tuning`, the settings and the memory that databases share; `database`, one database and
//! its files; `expiry`, rows that are dropped when files are merged; `uploads`, which files snapshots hold already; `store`, how rows and snapshots get there;
//! `restore`, how a database begins. Who may call it: the backend of a task. What must never happen here: a
//! row in a memtable. Rows come sorted, as files that are ingested, so that a snapshot has nothing to flush;
//! and a lookup waits for nobody.
//!
//! A row's key is key group, table (both big endian) and key: the order of [`crate::rows`]. One database an
//! operator, not one a task: then the files in a manifest belong to the operator whose rows they hold, and
//! few tasks have more than one.

mod database;
mod expiry;
mod members;
mod restore;
mod store;
mod tuning;
mod uploads;

pub(crate) use database::Database;
pub(crate) use members::Members;
pub(crate) use restore::{Begun, fetch_database, restore};
#[cfg(test)]
pub(crate) use store::RocksStore;
pub(crate) use tuning::Tuning;

/// The form of RocksDB's files, in manifests.
pub const ROCKSDB_FORMAT: &str = "rocksdb-1";

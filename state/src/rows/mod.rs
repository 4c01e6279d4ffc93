//! Rows of keyed state as bytes.
//!
//! What lives here: `buffer`, rows in memory, gathered and sorted; `filter`, which of them a run may have; `merge`, several sorted runs as one;
//! `format`, `writer`, `reader`: the file `rows-1`. Who may call it: the backends. What must never happen
//! here: knowledge of tables' types, of snapshots, or of RocksDB.
//!
//! Rows are in the order of (key group, table, key), where keys compare as bytes.

mod buffer;
mod filter;
mod format;
mod merge;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use buffer::{RowBuffer, RowRef, Run, WantedRow};
pub(crate) use merge::merge;
pub(crate) use reader::RowsFile;
pub(crate) use writer::RowsWriter;

/// The form of a file of rows, in manifests.
pub const ROWS_FORMAT: &str = "rows-1";

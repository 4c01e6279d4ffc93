//! What all sources share that read files of lines.
//!
//! What lives here: listing a path, cutting files into splits, reading lines at speed, resuming inside a split, handing
//! out new files of a watched folder. A format (text, CSV, JSON) adds how a line becomes a record: [`LineFormat`].
//!
//! Who may call it: the folders of the formats; job authors see [`Files`] under the formats' names. Reads are plain
//! blocking reads of local files, a few hundred kilobytes at a time; a slow network file system holds up its task.
//!
//! What must never happen here: knowledge of a format, a system call per line, a line lost or read twice at the border of
//! two splits.

mod compression;
mod enumerator;
mod format;
mod line_buffer;
mod line_reader;
mod listing;
mod open_split;
mod reader;
mod source;
mod split;
#[cfg(test)]
mod tests;

pub use compression::Compression;
pub use enumerator::FileEnumerator;
pub use format::{Decoded, LineDecoder, LineFormat, Preamble};
pub use line_buffer::{Line, LineBuffer, LineSpan, LineTooLong};
pub use listing::{FileEntry, check_readable, list_files};
pub use reader::FileReader;
pub use source::Files;
pub use split::{FileSplit, Position};

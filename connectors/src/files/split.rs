//! A piece of a file for one reader.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::listing::FileEntry;

/// The lines of a file that begin in a range of bytes. The reader of a range that does not begin the file leaves out what
/// belongs to a line that began before it, and reads the line that crosses its end to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    /// The file.
    pub path: PathBuf,
    /// Its length when it was listed.
    pub length: u64,
    /// How it is compressed; if it is, the range is the whole.
    pub compression: Compression,
    /// First byte of the range.
    pub start: u64,
    /// End of the range; `u64::MAX` for the whole file.
    pub end: u64,
    /// The next record to read, once reading has begun.
    pub position: Option<Position>,
}

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Offset in the (decompressed) content.
    pub offset: u64,
    /// Lines between the beginning of the split and there.
    pub lines: u64,
}

/// Cuts a file into ranges of about `split_bytes`; `None` takes it as a whole.
#[derive(Clone, Serialize, Deserialize)]
pub struct SplitCutter {
    entry: FileEntry,
    compression: Compression,
    next: u64,
    step: u64,
}

impl SplitCutter {
    /// Cuts `entry`.
    pub fn new(entry: FileEntry, compression: Compression, split_bytes: Option<u64>) -> Self {
        let step = match (compression, split_bytes) {
            (Compression::None, Some(bytes)) => {
                // Ranges of equal length, so that the last is no crumb.
                let pieces = entry.length.div_ceil(bytes.max(1)).max(1);
                entry.length.div_ceil(pieces).max(1)
            }
            _ => u64::MAX,
        };
        SplitCutter { entry, compression, next: 0, step }
    }
}

impl Iterator for SplitCutter {
    type Item = FileSplit;

    fn next(&mut self) -> Option<FileSplit> {
        if self.next >= self.entry.length {
            return None;
        }
        let start = self.next;
        self.next = start.saturating_add(self.step);
        let end = if self.next >= self.entry.length { u64::MAX } else { self.next };
        // Without a limit at the end, what was appended since the listing would be read in part or in whole by chance.
        let end = if self.compression == Compression::None { end.min(self.entry.length) } else { end };
        Some(FileSplit {
            path: self.entry.path.clone(),
            length: self.entry.length,
            compression: self.compression,
            start,
            end,
            position: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(length: u64, compression: Compression, split_bytes: Option<u64>) -> Vec<(u64, u64)> {
        let entry = FileEntry { path: "f".into(), length, modified_ns: 0 };
        SplitCutter::new(entry, compression, split_bytes).map(|split| (split.start, split.end)).collect()
    }

    #[test]
    fn ranges_are_of_equal_length_and_cover_the_file() {
        assert_eq!(ranges(10, Compression::None, Some(4)), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(ranges(9, Compression::None, Some(8)), [(0, 5), (5, 9)]);
        assert_eq!(ranges(8, Compression::None, Some(8)), [(0, 8)]);
        assert_eq!(ranges(3, Compression::None, Some(0)), [(0, 1), (1, 2), (2, 3)]);
    }

    #[test]
    fn what_cannot_be_cut_is_one_range_and_an_empty_file_none() {
        assert_eq!(ranges(10, Compression::None, None), [(0, 10)]);
        assert_eq!(ranges(10, Compression::Gzip, Some(4)), [(0, u64::MAX)]);
        assert_eq!(ranges(0, Compression::None, Some(4)), []);
    }
}

//! The source of files of lines, for any format.

use std::path::PathBuf;
use std::time::Duration;

use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Boundedness, Source};
use flott_schema::{Error, Result};

use super::compression::Compression;
use super::enumerator::FileEnumerator;
use super::format::LineFormat;
use super::listing::check_readable;
use super::reader::FileReader;
use super::split::FileSplit;
use crate::bad_record::{BadRecords, OnBadRecord};

const SPLIT_BYTES: u64 = 32 << 20;
const MAX_LINE_BYTES: usize = 64 << 20;

/// Reads a file, or all files under a folder, line by line, in the format `F`.
///
/// A folder is read with its subfolders, in the order of the paths; names that begin with `.` or `_` are left out. Lines
/// end in `\n` or `\r\n`; the last needs no end. Names that end in `.gz` or `.zst` are decompressed. A byte order mark at
/// the beginning of a file is left out.
///
/// With one task the order of lines is that of the files; several tasks share files in ranges of bytes.
#[derive(Clone, Debug)]
pub struct Files<F> {
    path: PathBuf,
    pub(crate) format: F,
    split_bytes: u64,
    max_line_bytes: usize,
    compression: Option<Compression>,
    on_bad_record: OnBadRecord,
    interval: Option<Duration>,
}

impl<F: LineFormat> Files<F> {
    /// Files in a format of the caller's.
    pub fn with_format(path: impl Into<PathBuf>, format: F) -> Self {
        Files {
            path: path.into(),
            format,
            split_bytes: SPLIT_BYTES,
            max_line_bytes: MAX_LINE_BYTES,
            compression: None,
            on_bad_record: OnBadRecord::default(),
            interval: None,
        }
    }

    /// Files that are not compressed are shared out in ranges of about so many bytes. Default 32 MiB.
    pub fn split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes;
        self
    }

    /// A line (a record, if it may have several lines) longer than this is an error. Default 64 MiB.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes;
        self
    }

    /// How the files are compressed, whatever their names.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// What to do with lines that cannot be decoded. Default: fail.
    pub fn on_bad_record(mut self, policy: OnBadRecord) -> Self {
        self.on_bad_record = policy;
        self
    }

    /// Never ends: lists the path again whenever `interval` has passed and reads the files that are new. A file that has
    /// changed is read again as a whole, so files should be moved into the folder when they are complete, or be written
    /// under a hidden name first.
    pub fn monitor_continuously(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }
}

impl<F: LineFormat> Source for Files<F> {
    type Record = F::Record;
    type Split = FileSplit;
    type Enumerator = FileEnumerator;
    type Reader = FileReader<F::Decoder>;

    fn boundedness(&self) -> Boundedness {
        if self.interval.is_some() { Boundedness::Unbounded } else { Boundedness::Bounded }
    }

    fn check(&self) -> Result<()> {
        check_readable(&self.path)?;
        self.on_bad_record.check()?;
        for (setting, value) in
            [("split_bytes", self.split_bytes), ("max_line_bytes", self.max_line_bytes as u64)]
        {
            if value == 0 {
                return Err(Error::configuration(format!("{setting} must be at least 1")));
            }
        }
        self.format.check()
    }

    fn enumerator(&self, _parallelism: u32) -> Result<FileEnumerator> {
        let split_bytes = self.format.is_splittable().then_some(self.split_bytes);
        FileEnumerator::new(self.path.clone(), self.compression, split_bytes, self.interval)
    }

    fn reader(&self, ctx: &OperatorContext) -> Result<FileReader<F::Decoder>> {
        let bad = BadRecords::new(self.on_bad_record.clone(), ctx.metrics.clone());
        Ok(FileReader::new(self.format.decoder(), bad, self.max_line_bytes))
    }
}

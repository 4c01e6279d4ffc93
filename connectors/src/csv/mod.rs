//! CSV by serde: a record is a struct whose fields are named in the header, or a tuple.
//!
//! Who may call it: job authors. What must never happen here: anything that [`crate::files`] does for all formats.

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use flott_dataflow::batch::Record;
use flott_schema::{Error, Result};

use crate::files::{Files, LineFormat};

pub use decoder::CsvDecoder;
pub use encoder::CsvEncoder;

/// Reads files of comma-separated values (RFC 4180). Every file has a header unless [`CsvFiles::has_header`] says that
/// none has. Blank lines are left out.
///
/// ```
/// use flott_connectors::csv::CsvFiles;
/// let rows = CsvFiles::<(String, u32)>::new("rows.tsv").delimiter(b'\t').has_header(false);
/// ```
pub type CsvFiles<T> = Files<CsvFormat<T>>;

impl<T: Record> CsvFiles<T> {
    /// The records of a file, or of all files under a folder.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Files::with_format(path, CsvFormat::default())
    }

    /// Whether each file begins with the names of its columns. Default: yes.
    pub fn has_header(mut self, yes: bool) -> Self {
        self.format.has_header = yes;
        self
    }

    /// What separates fields, an ASCII character. Default: a comma.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.format.delimiter = delimiter;
        self
    }

    /// What encloses a field that has delimiters in it, an ASCII character; within it it is doubled. Default: `"`.
    pub fn quote(mut self, quote: u8) -> Self {
        self.format.quote = quote;
        self
    }

    /// Whether records may have more or fewer fields than the first line of their file. Default: no.
    pub fn flexible(mut self, yes: bool) -> Self {
        self.format.flexible = yes;
        self
    }

    /// Whether quoted fields may hold line ends. Then a file is read by one task as a whole. Default: no.
    pub fn multiline(mut self, yes: bool) -> Self {
        self.format.multiline = yes;
        self
    }
}

/// Settings of a kind of CSV.
pub struct CsvFormat<T> {
    has_header: bool,
    delimiter: u8,
    quote: u8,
    flexible: bool,
    multiline: bool,
    record: PhantomData<fn() -> T>,
}

impl<T> Default for CsvFormat<T> {
    fn default() -> Self {
        CsvFormat {
            has_header: true,
            delimiter: b',',
            quote: b'"',
            flexible: false,
            multiline: false,
            record: PhantomData,
        }
    }
}

impl<T> Clone for CsvFormat<T> {
    fn clone(&self) -> Self {
        CsvFormat { ..*self }
    }
}

impl<T: Record> LineFormat for CsvFormat<T> {
    type Record = T;
    type Decoder = CsvDecoder<T>;

    fn check(&self) -> Result<()> {
        for (setting, byte) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if !byte.is_ascii() || byte == b'\n' || byte == b'\r' {
                return Err(Error::configuration(format!(
                    "CSV {setting} is byte {byte:#04x}; it must be an ASCII character that ends no line"
                )));
            }
        }
        match self.delimiter == self.quote {
            true => Err(Error::configuration("CSV delimiter and quote are the same character")),
            false => Ok(()),
        }
    }

    fn is_splittable(&self) -> bool {
        !self.multiline
    }

    fn decoder(&self) -> CsvDecoder<T> {
        CsvDecoder::new(self.clone())
    }
}

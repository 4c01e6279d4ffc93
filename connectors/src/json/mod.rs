//! JSON lines: a record is a JSON value on a line of its own (<https://jsonlines.org>).
//!
//! Who may call it: job authors. What must never happen here: anything that [`crate::files`] does for all formats.

use std::marker::PhantomData;

use flott_dataflow::batch::Record;
use flott_schema::Result;

use crate::bad_record::Undecodable;
use crate::files::{Decoded, Files, Line, LineDecoder, LineFormat};

mod encoder;
mod parse;

pub use encoder::JsonEncoder;
pub use parse::{ParseJson, Rejected};

/// Reads files of JSON lines. Blank lines are left out.
///
/// ```
/// use flott_connectors::OnBadRecord;
/// use flott_connectors::json::JsonLines;
/// let clicks = JsonLines::<(u64, String)>::new("clicks.jsonl.gz").on_bad_record(OnBadRecord::SkipAndCount);
/// ```
pub type JsonLines<T> = Files<JsonFormat<T>>;

impl<T: Record> JsonLines<T> {
    /// The records of a file, or of all files under a folder.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Files::with_format(path, JsonFormat(PhantomData))
    }
}

/// One JSON value a line.
pub struct JsonFormat<T>(PhantomData<fn() -> T>);

impl<T> Clone for JsonFormat<T> {
    fn clone(&self) -> Self {
        JsonFormat(PhantomData)
    }
}

impl<T: Record> LineFormat for JsonFormat<T> {
    type Record = T;
    type Decoder = JsonFormat<T>;

    fn decoder(&self) -> JsonFormat<T> {
        self.clone()
    }
}

impl<T: Record> LineDecoder for JsonFormat<T> {
    type Record = T;

    #[inline]
    fn decode(&mut self, line: Line<'_>) -> Result<Decoded<T>, Undecodable> {
        if line.bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Decoded::Nothing);
        }
        parse::parse(line.bytes).map(Decoded::Record)
    }
}

#[cfg(test)]
mod tests;

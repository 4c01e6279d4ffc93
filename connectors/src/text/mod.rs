//! Files of text: a record is a line.
//!
//! Who may call it: job authors. What must never happen here: anything that [`crate::files`] does for all formats.

use flott_schema::Result;

use crate::bad_record::Undecodable;
use crate::files::{Decoded, Files, Line, LineDecoder, LineFormat};

/// Reads lines as they are. A line that is not UTF-8 is a bad record.
///
/// ```
/// use std::time::Duration;
/// use flott_connectors::text::TextFiles;
/// let lines = TextFiles::new("logs/").monitor_continuously(Duration::from_secs(10));
/// ```
pub type TextFiles = Files<TextFormat>;

impl TextFiles {
    /// The lines of a file, or of all files under a folder.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Self {
        Files::with_format(path, TextFormat)
    }
}

/// Lines of UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFormat;

impl LineFormat for TextFormat {
    type Record = String;
    type Decoder = TextFormat;

    fn decoder(&self) -> TextFormat {
        TextFormat
    }
}

impl LineDecoder for TextFormat {
    type Record = String;

    #[inline]
    fn decode(&mut self, line: Line<'_>) -> Result<Decoded<String>, Undecodable> {
        match std::str::from_utf8(line.bytes) {
            Ok(text) => Ok(Decoded::Record(text.to_string())),
            Err(error) => Err(Undecodable::not_utf8(error)),
        }
    }
}

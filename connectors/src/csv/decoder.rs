//! Lines of CSV to records.

use csv::StringRecord;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use flott_dataflow::batch::Record;

use super::CsvFormat;
use crate::bad_record::Undecodable;
use crate::files::{Decoded, Line, LineDecoder, Preamble};

/// Decodes the lines of a file.
pub struct CsvDecoder<T> {
    format: CsvFormat<T>,
    fields: Fields,
    /// The fields of the record at hand.
    record: StringRecord,
    /// The names of the columns.
    header: Option<StringRecord>,
    /// Fields of the first line of the file.
    width: usize,
}

/// Cuts lines into fields.
struct Fields {
    core: Reader,
    /// Unquoted fields one behind the other.
    text: Vec<u8>,
    text_len: usize,
    /// Where each field ends in `text`.
    ends: Vec<usize>,
    ends_len: usize,
    /// Bytes in `text` that the core does not know of.
    inserted: usize,
    unfinished: bool,
}

impl Fields {
    fn new(delimiter: u8, quote: u8) -> Self {
        // Lines come without their ends, so that `\r` within one is data.
        let core =
            ReaderBuilder::new().delimiter(delimiter).quote(quote).terminator(Terminator::Any(b'\n')).build();
        Fields {
            core,
            text: vec![0; 1024],
            text_len: 0,
            ends: vec![0; 64],
            ends_len: 0,
            inserted: 0,
            unfinished: false,
        }
    }

    fn reset(&mut self) {
        self.core.reset();
        (self.text_len, self.ends_len, self.inserted, self.unfinished) = (0, 0, 0, false);
    }

    /// Adds a line; true if it ends the record.
    fn add(&mut self, line: Line<'_>) -> bool {
        if !self.unfinished {
            self.reset();
        }
        self.feed(line.bytes);
        let whole = self.feed(b"\n");
        self.unfinished = !whole;
        if self.unfinished && line.terminator == b"\r\n" {
            // The line end is inside quotes: it stays what it was.
            self.text_len -= 1;
            self.grow_text(2);
            self.text[self.text_len..self.text_len + 2].copy_from_slice(b"\r\n");
            self.text_len += 2;
            self.inserted += 1;
        }
        whole
    }

    /// Feeds input; true if it ends the record. To the core, empty input would mean the end of the file.
    fn feed(&mut self, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            let text = &mut self.text[self.text_len..];
            let (result, read, written, ended) =
                self.core.read_record(input, text, &mut self.ends[self.ends_len..]);
            input = &input[read..];
            self.text_len += written;
            if self.inserted > 0 {
                let new = &mut self.ends[self.ends_len..self.ends_len + ended];
                new.iter_mut().for_each(|end| *end += self.inserted);
            }
            self.ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.grow_text(self.text.len()),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return true,
            }
        }
        false
    }

    fn grow_text(&mut self, more: usize) {
        if self.text.len() < self.text_len + more {
            self.text.resize(self.text_len + more, 0);
        }
    }

    /// Puts the fields of a whole record into `record`.
    fn take(&mut self, record: &mut StringRecord) -> Result<(), Undecodable> {
        record.clear();
        let text = std::str::from_utf8(&self.text[..self.text_len]).map_err(Undecodable::not_utf8)?;
        let mut start = 0;
        for end in &self.ends[..self.ends_len] {
            let field = text.get(start..*end).ok_or_else(|| Undecodable("not valid UTF-8".into()))?;
            record.push_field(field);
            start = *end;
        }
        Ok(())
    }
}

impl<T> CsvDecoder<T> {
    /// For one task.
    pub fn new(format: CsvFormat<T>) -> Self {
        CsvDecoder {
            fields: Fields::new(format.delimiter, format.quote),
            format,
            record: StringRecord::new(),
            header: None,
            width: 0,
        }
    }

    /// Adds a line; true when `self.record` is whole.
    fn add(&mut self, line: Line<'_>) -> Result<bool, Undecodable> {
        if !self.fields.add(line) {
            if self.format.multiline {
                return Ok(false);
            }
            self.fields.unfinished = false;
            return Err(Undecodable(
                "a quoted field is not closed; set multiline(true) if fields may hold line ends".into(),
            ));
        }
        self.fields.take(&mut self.record)?;
        Ok(true)
    }
}

impl<T: Record> LineDecoder for CsvDecoder<T> {
    type Record = T;

    fn begin_file(&mut self) -> bool {
        self.fields.reset();
        self.header = None;
        self.width = 0;
        self.format.has_header || !self.format.flexible
    }

    fn preamble(&mut self, line: Line<'_>) -> Result<Preamble, Undecodable> {
        if line.bytes.is_empty() && !self.fields.unfinished {
            return Ok(Preamble::More);
        }
        match self.add(line) {
            Ok(false) => Ok(Preamble::More),
            Ok(true) => {
                self.width = self.record.len();
                if !self.format.has_header {
                    return Ok(Preamble::Records);
                }
                self.header = Some(self.record.clone());
                Ok(Preamble::Header)
            }
            // A first record that is bad is dealt with when its turn comes.
            Err(_) if !self.format.has_header => Ok(Preamble::Records),
            Err(why) => Err(why),
        }
    }

    fn decode(&mut self, line: Line<'_>) -> Result<Decoded<T>, Undecodable> {
        if line.bytes.is_empty() && !self.fields.unfinished {
            return Ok(Decoded::Nothing);
        }
        if !self.add(line)? {
            return Ok(Decoded::Incomplete);
        }
        let width = self.record.len();
        if width != self.width && self.width > 0 && !self.format.flexible {
            let first = if self.format.has_header { "header" } else { "first line" };
            return Err(Undecodable(format!("{width} fields where the {first} has {}", self.width)));
        }
        let decoded = self.record.deserialize(self.header.as_ref());
        decoded.map(Decoded::Record).map_err(|error| describe(&error, self.header.as_ref()))
    }

    fn unfinished(&mut self) -> Undecodable {
        self.fields.reset();
        Undecodable("the file ends inside a quoted field; is a quote missing?".into())
    }
}

#[cold]
fn describe(error: &csv::Error, header: Option<&StringRecord>) -> Undecodable {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
        return Undecodable(error.to_string());
    };
    let field = err.field().map(|field| {
        let name = header.and_then(|header| header.get(field as usize));
        name.map_or(format!("field {}: ", field + 1), |name| format!("field {} '{name}': ", field + 1))
    });
    Undecodable(format!("{}{}", field.unwrap_or_default(), err.kind()))
}

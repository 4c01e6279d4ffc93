//! CSV for sinks.

use serde::Serialize;

use flott_schema::{Error, Result};

use crate::file_sink::Encoder;

/// Comma-separated values, quoted where needed.
#[derive(Clone, Copy, Debug)]
pub struct CsvEncoder {
    delimiter: u8,
    header: bool,
}

impl Default for CsvEncoder {
    fn default() -> Self {
        CsvEncoder { delimiter: b',', header: true }
    }
}

impl CsvEncoder {
    /// What separates fields. Default: a comma.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Whether each file begins with the names of the fields, if records are structs. Default: yes.
    pub fn header(mut self, yes: bool) -> Self {
        self.header = yes;
        self
    }
}

impl<T: Serialize> Encoder<T> for CsvEncoder {
    fn encode(&mut self, records: &[T], first_of_file: bool, bytes: &mut Vec<u8>) -> Result<()> {
        let mut writer = csv::WriterBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(self.header && first_of_file)
            .from_writer(bytes);
        for record in records {
            writer.serialize(record).map_err(|error| {
                Error::user(format!("a {} cannot be written as CSV: {error}", std::any::type_name::<T>()))
            })?;
        }
        writer.flush().map_err(|error| Error::internal(format!("CSV in memory: {error}")))
    }
}

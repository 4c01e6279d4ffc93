//! JSON lines for sinks.

use serde::Serialize;

use flott_schema::{Error, Result};

use crate::file_sink::Encoder;

/// One JSON value a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonEncoder;

impl<T: Serialize> Encoder<T> for JsonEncoder {
    fn encode(&mut self, records: &[T], _first_of_file: bool, bytes: &mut Vec<u8>) -> Result<()> {
        for record in records {
            serde_json::to_writer(&mut *bytes, record).map_err(|error| {
                Error::user(format!("a {} cannot be written as JSON: {error}", std::any::type_name::<T>()))
            })?;
            bytes.push(b'\n');
        }
        Ok(())
    }
}

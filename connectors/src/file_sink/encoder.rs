//! Records to bytes.

use std::fmt::Display;
use std::io::Write;

use flott_dataflow::function::Function;
use flott_schema::{Error, Result};

/// Turns records into the bytes of a file.
pub trait Encoder<T>: Clone + Send + 'static {
    /// Appends `records` to `bytes`. `first_of_file`: nothing has been written to the file before, so that a header may go
    /// first; there is at least one record then.
    fn encode(&mut self, records: &[T], first_of_file: bool, bytes: &mut Vec<u8>) -> Result<()>;
}

/// A line for each record, as it displays itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineEncoder;

impl<T: Display> Encoder<T> for LineEncoder {
    fn encode(&mut self, records: &[T], _first_of_file: bool, bytes: &mut Vec<u8>) -> Result<()> {
        for record in records {
            writeln!(bytes, "{record}")
                .map_err(|_| Error::user("a record's Display answered with an error"))?;
        }
        Ok(())
    }
}

/// A function of the job that appends one record, with its line end if it is to have one.
#[derive(Clone, Copy, Debug)]
pub struct EncodeWith<F>(pub F);

impl<T, F: FnMut(&T, &mut Vec<u8>) -> Result<()> + Function> Encoder<T> for EncodeWith<F> {
    fn encode(&mut self, records: &[T], _first_of_file: bool, bytes: &mut Vec<u8>) -> Result<()> {
        records.iter().try_for_each(|record| (self.0)(record, bytes))
    }
}

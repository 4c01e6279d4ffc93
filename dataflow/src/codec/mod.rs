//! The wire forms of typed rows and of single values.
//!
//! What lives here: version 1 of rows (timestamps, then the records in postcard's format,
//! <https://postcard.jamesmunns.com/wire-format>), and single values in the same format; `columns`: version 2, for records that
//! are all of as many values; `lanes`: the columns of a block in memory and packed; `write`, `read`: between a row and its lanes.
//!
//! Who may call it: all that moves or keeps batches. What must never happen here: I/O; a form that is no longer read.

mod columns;
mod lanes;
mod read;
#[cfg(test)]
mod tests;
mod write;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::{Error, Result};

use crate::batch::{Batch, Record, Timestamps};

const VERSION: u8 = 1;
const SAME: u8 = 0;
const EACH: u8 = 1;

/// Appends the wire form of a batch.
pub fn encode_rows<T: Record>(batch: &Batch<T>, bytes: &mut Vec<u8>) -> Result<()> {
    if columns::encode(batch, bytes) { Ok(()) } else { encode_each(batch, bytes) }
}

/// Version 1: one record after the other.
fn encode_each<T: Record>(batch: &Batch<T>, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.push(VERSION);
    bytes.extend_from_slice(&(batch.records.len() as u32).to_le_bytes());
    match &batch.timestamps {
        Timestamps::Same(timestamp) => {
            bytes.push(SAME);
            bytes.extend_from_slice(&timestamp.to_le_bytes());
        }
        Timestamps::Each(timestamps) => {
            bytes.push(EACH);
            for timestamp in timestamps {
                bytes.extend_from_slice(&timestamp.to_le_bytes());
            }
        }
    }
    // About what plain records take; texts make it grow.
    bytes.reserve(batch.records.len() * size_of::<T>());
    let mut serializer = postcard::Serializer { output: Append(bytes) };
    let each = batch.records.iter().try_for_each(|record| record.serialize(&mut serializer));
    each.map_err(|error| not_serialised::<T>(&error))
}

/// Where postcard puts the bytes it makes: behind those of a vector, several at once.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        match data {
            // Most numbers are this short; a call to copy them would cost more than they do.
            [a] => self.0.push(*a),
            [a, b] => self.0.extend_from_slice(&[*a, *b]),
            [a, b, c] => self.0.extend_from_slice(&[*a, *b, *c]),
            [a, b, c, d] => self.0.extend_from_slice(&[*a, *b, *c, *d]),
            _ => self.0.extend_from_slice(data),
        }
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads the wire form of a batch.
pub fn decode_rows<T: Record>(bytes: &[u8]) -> Result<Batch<T>> {
    let mut input = bytes;
    match take(&mut input, 1)?[0] {
        VERSION => {}
        columns::VERSION => return columns::decode(input),
        other => {
            let known = columns::VERSION;
            return Err(corrupt(&format!(
                "row format version {other}, this Flott reads {VERSION} to {known}"
            )));
        }
    }
    let count = u32::from_le_bytes(take(&mut input, 4)?.try_into().expect("four bytes")) as usize;
    let timestamps = match take(&mut input, 1)?[0] {
        SAME => Timestamps::Same(read_i64(&mut input)?),
        EACH => {
            let each = take(&mut input, count * 8).map_err(|_| corrupt("fewer timestamps than records"))?;
            let (each, _) = each.as_chunks::<8>();
            Timestamps::Each(each.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
        }
        other => return Err(corrupt(&format!("unknown timestamp form {other}"))),
    };
    // A record may be zero bytes long, so the count is not bounded by the input; the capacity is.
    let mut records = Vec::with_capacity(count.min(input.len().max(1024)));
    for _ in 0..count {
        let (record, rest) = postcard::take_from_bytes(input).map_err(|error| undecodable::<T>(&error))?;
        input = rest;
        records.push(record);
    }
    if input.is_empty() { Ok(Batch { records, timestamps }) } else { Err(corrupt("bytes left over")) }
}

/// Appends one value in postcard's format.
pub fn encode_value<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<()> {
    let mut serializer = postcard::Serializer { output: Append(bytes) };
    value.serialize(&mut serializer).map_err(|error| not_serialised::<T>(&error))
}

/// Reads one value written by [`encode_value`].
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| undecodable::<T>(&error))
}

/// Reads one value written by [`encode_value`] off the front of `bytes`.
pub fn take_value<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| undecodable::<T>(&error))?;
    *bytes = rest;
    Ok(value)
}

fn not_serialised<T: ?Sized>(error: &postcard::Error) -> Error {
    Error::user(format!("a value of type {} cannot be serialised: {error}", std::any::type_name::<T>()))
}

fn undecodable<T>(error: &dyn std::error::Error) -> Error {
    Error::bad_input(format!("bytes do not decode as {}: {error}", std::any::type_name::<T>()))
}

fn corrupt(what: &str) -> Error {
    Error::bad_input(format!("corrupt batch: {what}"))
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count).ok_or_else(|| corrupt("it ends early"))?;
    *input = rest;
    Ok(taken)
}

fn read_i64(input: &mut &[u8]) -> Result<i64> {
    Ok(i64::from_le_bytes(take(input, 8)?.try_into().expect("eight bytes")))
}

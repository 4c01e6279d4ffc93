//! Version 2 of the wire form of rows: columns, packed to the bytes in which their values differ.
//!
//! | part | meaning |
//! | --- | --- |
//! | version | 2 |
//! | count | rows, 32 bits, at most [`ROWS_MAX`] |
//! | timestamps | `0` and the one of all rows, 64 bits; or `1` and a column for each block |
//! | columns | their number, 8 bits |
//! | blocks | of 1,024 rows, the last one of what is left: each column, then the length of the texts and their bytes |
//!
//! Every value that a row's type gives to serde is a column of its own: numbers as they are, those with a sign in zigzag, texts by
//! their length, options and enums by a number and what they hold. A batch whose rows are not all of as many values is
//! written in version 1, and so is one with lists or maps in its rows. Encoding and decoding is two passes: between rows and
//! 64-bit lanes by serde, which compiles to plain moves; between lanes and bytes by loops that the compiler vectorises.

use flott_schema::Result;

use super::lanes::{
    BLOCK_ROWS, COLUMNS_MAX, STRIDE, Scratch, pack, read_varint, unpack, unzigzag, write_varint, zigzag,
};
use super::read::RowReader;
use super::write::{NotColumns, RowWriter};
use super::{EACH, SAME, corrupt, read_i64, take, undecodable};
use crate::batch::{Batch, Record, Timestamps};

pub(super) const VERSION: u8 = 2;
/// Rows of a batch in this form, at most: constant columns take no bytes, so the length of the input bounds nothing.
pub(super) const ROWS_MAX: usize = 1 << 16;

/// From so many rows in a block on, each takes a byte at least: credit between executors is counted in bytes, and must bound the
/// number of rows under way where all are alike.
const FREE_ROWS: usize = 16;

/// Appends a batch in columns; where it does not fit into them, appends nothing and says `false`.
pub(super) fn encode<T: Record>(batch: &Batch<T>, bytes: &mut Vec<u8>) -> bool {
    if batch.is_empty() || batch.len() > ROWS_MAX {
        return false;
    }
    let start = bytes.len();
    let encoded = Scratch::with(|scratch| write(batch, scratch, bytes));
    if encoded.is_err() {
        bytes.truncate(start);
    }
    encoded.is_ok()
}

fn write<T: Record>(
    batch: &Batch<T>,
    scratch: &mut Scratch,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), NotColumns> {
    // Of the first block before anything else: most batches that do not fit show it within a few rows.
    let mut blocks = batch.records.chunks(BLOCK_ROWS);
    let Some(first) = blocks.next() else { return Err(NotColumns) };
    scratch.heap.clear();
    let columns = fill(first, scratch)?;
    bytes.push(VERSION);
    bytes.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    match &batch.timestamps {
        Timestamps::Same(timestamp) => {
            bytes.push(SAME);
            bytes.extend_from_slice(&timestamp.to_le_bytes());
        }
        Timestamps::Each(timestamps) => {
            bytes.push(EACH);
            let mut lanes = [0; BLOCK_ROWS];
            for block in timestamps.chunks(BLOCK_ROWS) {
                lanes.iter_mut().zip(block).for_each(|(lane, timestamp)| *lane = zigzag(*timestamp));
                pack(&lanes[..block.len()], 0, bytes);
            }
        }
    }
    bytes.push(columns as u8);
    flush(scratch, columns, first.len(), bytes);
    for block in blocks {
        scratch.heap.clear();
        if fill(block, scratch)? != columns {
            return Err(NotColumns);
        }
        flush(scratch, columns, block.len(), bytes);
    }
    Ok(())
}

/// Writes the rows of a block into lanes; gives the number of columns.
fn fill<T: Record>(records: &[T], scratch: &mut Scratch) -> std::result::Result<usize, NotColumns> {
    let mut row = RowWriter { lanes: &mut scratch.lanes, heap: &mut scratch.heap, at: 0 };
    let mut columns_end = None;
    for (number, record) in records.iter().enumerate() {
        row.at = number;
        record.serialize(&mut row)?;
        if *columns_end.get_or_insert(row.at) != row.at - number {
            return Err(NotColumns);
        }
    }
    Ok(columns_end.unwrap_or(0) / STRIDE)
}

fn flush(scratch: &Scratch, columns: usize, rows: usize, bytes: &mut Vec<u8>) {
    for column in 0..columns {
        let least = u8::from(column == 0 && rows > FREE_ROWS);
        pack(scratch.column(column, rows), least, bytes);
    }
    write_varint(scratch.heap.len() as u64, bytes);
    bytes.extend_from_slice(&scratch.heap);
}

/// Reads what stands behind the version byte.
pub(super) fn decode<T: Record>(input: &[u8]) -> Result<Batch<T>> {
    Scratch::with(|scratch| read(input, scratch))
}

fn read<T: Record>(mut input: &[u8], scratch: &mut Scratch) -> Result<Batch<T>> {
    let input = &mut input;
    let count = u32::from_le_bytes(take(input, 4)?.try_into().expect("four bytes")) as usize;
    if count > ROWS_MAX {
        return Err(corrupt(&format!("{count} rows in columns, more than {ROWS_MAX}")));
    }
    let timestamps = match take(input, 1)?[0] {
        SAME => Timestamps::Same(read_i64(input)?),
        EACH => Timestamps::Each(read_timestamps(input, count, scratch)?),
        other => return Err(corrupt(&format!("unknown timestamp form {other}"))),
    };
    let columns = usize::from(take(input, 1)?[0]);
    if columns > COLUMNS_MAX {
        return Err(corrupt(&format!("{columns} columns, more than {COLUMNS_MAX}")));
    }
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        let rows = BLOCK_ROWS.min(count - records.len());
        for column in 0..columns {
            unpack(input, scratch.column_mut(column, rows))?;
        }
        let heap_bytes = usize::try_from(read_varint(input)?).unwrap_or(usize::MAX);
        let heap = take(input, heap_bytes)?;
        let lanes = &scratch.lanes[..columns * STRIDE];
        let mut row = RowReader { lanes, heap, at: 0 };
        for number in 0..rows {
            row.at = number;
            records.push(T::deserialize(&mut row).map_err(|error| undecodable::<T>(&error))?);
            if row.at != number + lanes.len() {
                return Err(corrupt("its rows have more columns than their type"));
            }
        }
        if !row.heap.is_empty() {
            return Err(corrupt("texts left over"));
        }
    }
    if input.is_empty() { Ok(Batch { records, timestamps }) } else { Err(corrupt("bytes left over")) }
}

fn read_timestamps(input: &mut &[u8], count: usize, scratch: &mut Scratch) -> Result<Vec<i64>> {
    let mut timestamps = Vec::with_capacity(count);
    while timestamps.len() < count {
        let lanes = scratch.column_mut(0, BLOCK_ROWS.min(count - timestamps.len()));
        unpack(input, lanes)?;
        timestamps.extend(lanes.iter().map(|lane| unzigzag(*lane)));
    }
    Ok(timestamps)
}

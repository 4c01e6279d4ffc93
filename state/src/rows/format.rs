//! The file `rows-1`: rows in a form that any backend reads. Frozen: what is said here never changes.
//!
//! ```text
//! file    = header, block*, index, footer
//! header  = "FLOTROWS", version u16 = 1, 6 bytes of zero
//! block   = payload bytes u32, raw bytes u32, rows u32, compression u8, CRC-32C u32, payload
//! index   = entry*                   one for each block
//! entry   = offset of the block u64, first key group u16, first table u16
//! footer  = offset of the index u64, blocks u32, CRC-32C of the index u32, rows u64, first key group u32,
//!           end of key groups u32, CRC-32C of the footer so far u32, "FLOTROWE"
//! ```
//!
//! Numbers are little endian. A block's CRC-32C is over its 13 bytes in front of it and its payload as it is
//! stored. Compression 0: none; 1: LZ4, one block. Uncompressed, a payload is a list of sections, each with the
//! rows of one table in one key group:
//!
//! ```text
//! section = key group u16, table u16, rows u32, row*
//! row     = key bytes u32, value bytes u32, key, value
//! ```
//!
//! Rows are in the order of (key group, table, key as bytes), each key once, none without a value. An operator
//! in a task may have handed in several files, each in order; a key is in one of them. Key groups count from 0 to
//! the operator's max parallelism. What keys and values hold is said by the table in the manifest.

use flott_schema::{Error, Result};

pub(super) const MAGIC: &[u8; 8] = b"FLOTROWS";
pub(super) const END_MAGIC: &[u8; 8] = b"FLOTROWE";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const BLOCK_HEAD_BYTES: usize = 17;
pub(super) const ENTRY_BYTES: usize = 12;
pub(super) const FOOTER_BYTES: usize = 44;
pub(super) const PLAIN: u8 = 0;
pub(super) const LZ4: u8 = 1;

/// A block is ended behind the row with which it has so many bytes.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// Takes numbers and bytes off the front of what was read; `None` where it ends too early.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes(bytes.try_into().expect("two bytes")))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }
}

/// What is wrong with a file.
pub(super) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::bad_input(format!("the file of rows is damaged: {what}"))
}

/// Calls `each` for the rows of a block's uncompressed payload.
pub(super) fn rows_of(
    payload: &[u8],
    mut wanted: impl FnMut(u16, u16) -> bool,
    mut each: impl FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
) -> Result<u32> {
    let short = || damaged("a block ends inside a row");
    let mut fields = Fields(payload);
    let mut count: u32 = 0;
    while !fields.0.is_empty() {
        let key_group = fields.u16().ok_or_else(short)?;
        let table = fields.u16().ok_or_else(short)?;
        let rows = fields.u32().ok_or_else(short)?;
        let is_wanted = wanted(key_group, table);
        for _ in 0..rows {
            let key_bytes = fields.u32().ok_or_else(short)? as usize;
            let value_bytes = fields.u32().ok_or_else(short)? as usize;
            let key = fields.take(key_bytes).ok_or_else(short)?;
            let value = fields.take(value_bytes).ok_or_else(short)?;
            if is_wanted {
                each(key_group, table, key, value)?;
            }
        }
        count = count.checked_add(rows).ok_or_else(short)?;
    }
    Ok(count)
}

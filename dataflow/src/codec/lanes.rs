//! The columns of a block of rows in memory, before they are packed: one lane of 64 bits for each value.

use std::cell::Cell;

use flott_schema::Result;

use super::{corrupt, take};

/// Rows of a block.
pub(super) const BLOCK_ROWS: usize = 1024;
/// Columns of a row, at most.
pub(super) const COLUMNS_MAX: usize = 32;
/// From a column to the next, lanes; not a multiple of a page, so that the columns of a row share the cache.
pub(super) const STRIDE: usize = BLOCK_ROWS + 8;

thread_local! {
    static SPARE: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// Room for one block, kept by each thread that encodes or decodes.
pub(super) struct Scratch {
    /// Value `column` of row `row` is at `column * STRIDE + row`.
    pub lanes: Box<[u64]>,
    /// The bytes of texts, one behind the other.
    pub heap: Vec<u8>,
}

impl Scratch {
    /// Calls `act` with the thread's scratch, or a new one where that is in use already.
    pub fn with<R>(act: impl FnOnce(&mut Scratch) -> R) -> R {
        let new = || Scratch { lanes: vec![0; COLUMNS_MAX * STRIDE].into(), heap: Vec::new() };
        let mut scratch = SPARE.take().unwrap_or_else(new);
        let done = act(&mut scratch);
        // A single huge text must not hold its room for ever.
        scratch.heap.clear();
        scratch.heap.shrink_to(1 << 20);
        SPARE.set(Some(scratch));
        done
    }

    /// The first `rows` lanes of a column.
    pub fn column(&self, column: usize, rows: usize) -> &[u64] {
        &self.lanes[column * STRIDE..][..rows]
    }

    /// The same, to be filled.
    pub fn column_mut(&mut self, column: usize, rows: usize) -> &mut [u64] {
        &mut self.lanes[column * STRIDE..][..rows]
    }
}

/// Small numbers of either sign to small lanes.
#[inline(always)]
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// What [`zigzag`] was given.
#[inline(always)]
pub(super) fn unzigzag(lane: u64) -> i64 {
    (lane >> 1) as i64 ^ -((lane & 1) as i64)
}

/// Appends a number in groups of seven bits, lowest first.
pub(super) fn write_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads a number of [`write_varint`].
pub(super) fn read_varint(input: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(input, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(corrupt("a number of more than 64 bits"))
}

/// Appends a column: the number of low bytes in which its lanes differ (0, 1, 2, 4 or 8), the bits above, which all share,
/// and those low bytes of each lane. `least` is the number that it takes at any rate.
pub(super) fn pack(lanes: &[u64], least: u8, bytes: &mut Vec<u8>) {
    let first = lanes.first().copied().unwrap_or(0);
    let differing = lanes.iter().fold(0, |differing, lane| differing | (lane ^ first));
    let needed = match 64 - differing.leading_zeros() {
        0 => 0,
        1..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        _ => 8,
    };
    let width = least.max(needed);
    bytes.push(width);
    write_varint(first.checked_shr(u32::from(width) * 8).unwrap_or(0), bytes);
    let start = bytes.len();
    bytes.resize(start + lanes.len() * usize::from(width), 0);
    let packed = &mut bytes[start..];
    match width {
        0 => {}
        1 => packed.iter_mut().zip(lanes).for_each(|(to, lane)| *to = *lane as u8),
        2 => store(packed, lanes, |lane| (lane as u16).to_le_bytes()),
        4 => store(packed, lanes, |lane| (lane as u32).to_le_bytes()),
        _ => store(packed, lanes, u64::to_le_bytes),
    }
}

fn store<const WIDTH: usize>(packed: &mut [u8], lanes: &[u64], low: impl Fn(u64) -> [u8; WIDTH]) {
    let (chunks, _) = packed.as_chunks_mut::<WIDTH>();
    chunks.iter_mut().zip(lanes).for_each(|(to, lane)| *to = low(*lane));
}

/// Reads a column of [`pack`] into all of `lanes`.
pub(super) fn unpack(input: &mut &[u8], lanes: &mut [u64]) -> Result<()> {
    let width = take(input, 1)?[0];
    if !matches!(width, 0 | 1 | 2 | 4 | 8) {
        return Err(corrupt(&format!("a column of {width} bytes a value")));
    }
    let shared = read_varint(input)?;
    let bits = u32::from(width) * 8;
    let base = shared.checked_shl(bits).unwrap_or(0);
    if base.checked_shr(bits).unwrap_or(0) != shared {
        return Err(corrupt("a number of more than 64 bits"));
    }
    let packed = take(input, lanes.len() * usize::from(width))?;
    match width {
        0 => lanes.fill(base),
        1 => lanes.iter_mut().zip(packed).for_each(|(lane, low)| *lane = base | u64::from(*low)),
        2 => load(lanes, packed, |low| base | u64::from(u16::from_le_bytes(low))),
        4 => load(lanes, packed, |low| base | u64::from(u32::from_le_bytes(low))),
        _ => load(lanes, packed, u64::from_le_bytes),
    }
    Ok(())
}

fn load<const WIDTH: usize>(lanes: &mut [u64], packed: &[u8], lane_of: impl Fn([u8; WIDTH]) -> u64) {
    let (chunks, _) = packed.as_chunks::<WIDTH>();
    lanes.iter_mut().zip(chunks).for_each(|(lane, low)| *lane = lane_of(*low));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_of_any_spread_survive(lanes: Vec<u64>, shift in 0u32..64, least in 0u8..2) {
            let lanes: Vec<u64> = lanes.iter().map(|lane| lane >> shift).collect();
            let mut bytes = Vec::new();
            pack(&lanes, least, &mut bytes);
            let mut unpacked = vec![1; lanes.len()];
            let mut input = &bytes[..];
            unpack(&mut input, &mut unpacked).unwrap();
            prop_assert_eq!(unpacked, lanes);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn signs_survive(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn a_column_takes_what_its_values_differ_in() {
        for (lanes, length) in [
            (vec![7; 1000], 2),
            (vec![0x1234_5600, 0x1234_56ff], 1 + 3 + 2),
            (vec![0, 0xffff], 2 + 4),
            (vec![0, 0x1_0000], 2 + 8),
            (vec![0, 1 << 32], 2 + 16),
        ] {
            let mut bytes = Vec::new();
            pack(&lanes, 0, &mut bytes);
            assert_eq!(bytes.len(), length, "{lanes:?}");
        }
    }
}

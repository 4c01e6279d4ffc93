//! Rows of tables on their way into a snapshot, and the stored forms that all tables share. Frozen: they stand in snapshots.
//!
//! A row's key is a prefix that the table chooses and the key in postcard's format. Numbers in a prefix are 8 bytes, the highest
//! first, with the sign bit flipped, so that bytes sort as the numbers do.

use flott_schema::key_group::key_group_of;
use flott_schema::{Error, Result};

use crate::codec::encode_value;
use crate::key::{Key, stable_hash};
use crate::snapshot::{FrozenRows, RowSink};

/// What the encoder of a row has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Key and value.
    Row,
    /// The key of a row that is gone.
    Gone,
}

/// Typed rows with the function that encodes one: it appends the bytes of key and value, and gives the key group.
pub struct TypedRows<R, F> {
    rows: Vec<R>,
    /// What a row owns besides its own size, bytes.
    owned_bytes: usize,
    encode: F,
}

impl<R, F> TypedRows<R, F>
where
    R: Send + 'static,
    F: Fn(&R, &mut Vec<u8>, &mut Vec<u8>) -> Result<(u16, Written)> + Send + 'static,
{
    /// These rows; `encode` runs on another thread.
    pub fn boxed(rows: Vec<R>, encode: F) -> Box<dyn FrozenRows> {
        Self::owning(rows, 0, encode)
    }

    /// The same for rows that own so many bytes each besides their own size, about.
    pub fn owning(rows: Vec<R>, owned_bytes: usize, encode: F) -> Box<dyn FrozenRows> {
        Box::new(TypedRows { rows, owned_bytes, encode })
    }
}

impl<R, F> FrozenRows for TypedRows<R, F>
where
    R: Send,
    F: Fn(&R, &mut Vec<u8>, &mut Vec<u8>) -> Result<(u16, Written)> + Send,
{
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<R>() + self.rows.len() * self.owned_bytes
    }

    fn encode(self: Box<Self>, sink: &mut dyn RowSink) -> Result<()> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for row in &self.rows {
            key.clear();
            value.clear();
            let (key_group, written) = (self.encode)(row, &mut key, &mut value)?;
            sink.row(key_group, &key, (written == Written::Row).then_some(&value))?;
        }
        Ok(())
    }
}

/// Appends a key in its stored form, and gives its key group.
pub fn push_key<K: Key>(key: &K, max_parallelism: u32, bytes: &mut Vec<u8>) -> Result<u16> {
    encode_value(key, bytes)?;
    Ok(group_of(stable_hash(key), max_parallelism))
}

/// The key group of a key with this stable hash, as it stands in rows.
#[inline]
pub fn group_of(hash: u64, max_parallelism: u32) -> u16 {
    // There are at most 32,768.
    key_group_of(hash, max_parallelism) as u16
}

/// Appends a number so that bytes sort as numbers do.
pub fn push_ordered(number: i64, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(number ^ i64::MIN).to_be_bytes());
}

/// Reads a number that [`push_ordered`] has written, off the front of `bytes`.
pub fn take_ordered(bytes: &mut &[u8]) -> Result<i64> {
    let (number, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| Error::bad_input("a row's key in a snapshot is shorter than its prefix"))?;
    *bytes = rest;
    Ok(i64::from_be_bytes(*number) ^ i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_numbers_sort_as_bytes_and_come_back() {
        let numbers = [i64::MIN, -1_000_000, -1, 0, 1, 255, 256, i64::MAX];
        let encoded = numbers.map(|number| {
            let mut bytes = Vec::new();
            push_ordered(number, &mut bytes);
            bytes
        });
        assert!(encoded.is_sorted());
        let back = encoded.iter().map(|bytes| take_ordered(&mut &bytes[..]).unwrap());
        assert!(back.eq(numbers));
        assert!(take_ordered(&mut &[0u8; 7][..]).is_err());
    }

    #[test]
    fn the_stored_form_of_a_key_is_frozen() {
        let mut bytes = Vec::new();
        push_ordered(-2, &mut bytes);
        let group = push_key(&("ab".to_string(), 300u32), 128, &mut bytes).unwrap();
        assert_eq!(bytes, [0x7f, 255, 255, 255, 255, 255, 255, 254, 2, b'a', b'b', 0xac, 0x02]);
        assert_eq!(group, (stable_hash(&("ab", 300u32)) % 128) as u16);
    }
}

//! The form of a stored record: CRC-32C of what follows (4 bytes, little-endian), and the message.

use super::error::JournalError;

const CHECKSUM_BYTES: usize = 4;

/// A message as it is stored. `key` takes part in the checksum, so that a record in a wrong place is damaged too.
pub(super) fn seal(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(CHECKSUM_BYTES + message.len());
    record.extend_from_slice(&checksum(key, message).to_le_bytes());
    record.extend_from_slice(message);
    record
}

/// The message in a record; `name` is what an error calls it.
pub(super) fn open<'a>(
    key: &[u8],
    record: &'a [u8],
    name: impl FnOnce() -> String,
) -> Result<&'a [u8], JournalError> {
    let split = record.split_first_chunk::<CHECKSUM_BYTES>();
    match split {
        Some((stored, message)) if u32::from_le_bytes(*stored) == checksum(key, message) => Ok(message),
        _ => Err(JournalError::Damaged { record: name(), bytes: record.len() }),
    }
}

fn checksum(key: &[u8], message: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), message)
}

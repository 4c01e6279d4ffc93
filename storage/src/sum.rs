//! Reading with a checksum.

use std::io::{ErrorKind, Read, Write};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes and CRC-32C of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub size: u64,
    pub crc32c: u32,
}

impl Sum {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
    }
}

/// Why a copy came to nothing: which side failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Source(std::io::Error),
    Target(std::io::Error),
}

/// Copies all there is to read.
pub(crate) fn copy(mut source: impl Read, mut target: impl Write) -> Result<Sum, CopyError> {
    let mut sum = Sum::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return Ok(sum),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Source(error)),
        };
        sum.add(&piece[..read]);
        target.write_all(&piece[..read]).map_err(CopyError::Target)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_sum_of_its_bytes() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at * 7) as u8).collect();
        let mut copied = Vec::new();
        let sum = copy(&bytes[..], &mut copied).unwrap();
        assert!(copied == bytes);
        assert_eq!(sum, Sum::of(&bytes));
        // The value that RFC 3720 gives for "123456789".
        assert_eq!(Sum::of(b"123456789"), Sum { size: 9, crc32c: 0xe306_9283 });
    }
}

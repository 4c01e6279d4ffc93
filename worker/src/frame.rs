//! The wire form of a batch on a channel: a header of 16 bytes, then the body.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 0..4 | magic `FLTB` |
//! | 4 | version, 1 |
//! | 5..8 | zero |
//! | 8..12 | length of the body, little endian |
//! | 12..16 | CRC-32C of the body, little endian |

use flott_dataflow::batch::{BatchDecoder, ErasedBatch};
use flott_schema::{Error, Result};

const MAGIC: &[u8; 4] = b"FLTB";
const VERSION: u8 = 1;
/// Length of the header, bytes.
pub const HEADER_BYTES: usize = 16;

/// Encodes a batch.
pub fn encode(batch: &dyn ErasedBatch) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    batch.encode(&mut frame)?;
    let (header, body) = frame.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(body.len()).map_err(|_| {
        Error::user(format!("a batch of {} bytes is too large for a frame (4 GiB)", body.len()))
    })?;
    header[..4].copy_from_slice(MAGIC);
    header[4] = VERSION;
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    Ok(frame)
}

/// The length of the body behind a header.
pub fn body_length(header: &[u8; HEADER_BYTES]) -> Result<usize> {
    if &header[..4] != MAGIC {
        return Err(corrupt("it does not begin with FLTB"));
    }
    if header[4] != VERSION {
        return Err(corrupt(&format!("version {}, this Flott reads {VERSION}", header[4])));
    }
    Ok(u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize)
}

/// Decodes a frame, checking length and checksum.
pub fn decode(frame: &[u8], decoder: BatchDecoder) -> Result<Box<dyn ErasedBatch>> {
    decoder(body(frame)?)
}

/// The body of a frame, its length and checksum checked.
pub fn body(frame: &[u8]) -> Result<&[u8]> {
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| corrupt("it ends early"))?;
    if body_length(header)? != body.len() {
        return Err(corrupt("its length is not the one in its header"));
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(header[12..].try_into().expect("four bytes")) {
        return Err(corrupt("checksum mismatch"));
    }
    Ok(body)
}

pub(crate) fn corrupt(what: &str) -> Error {
    Error::new(flott_schema::ErrorKind::Io, format!("corrupt frame: {what}"))
}

#[cfg(test)]
mod tests {
    use flott_dataflow::batch::{Batch, decoder_of};

    use super::*;

    fn frame() -> Vec<u8> {
        let mut batch = Batch::default();
        batch.push(("a".to_string(), 1u32), 7);
        encode(&batch).unwrap()
    }

    #[test]
    fn the_frame_is_frozen() {
        let hex: String = frame().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../samples/frame_v1_columns.hex").trim());
    }

    #[test]
    fn a_frame_with_rows_in_their_first_form_is_still_read() {
        let hex = include_str!("../samples/frame_v1.hex").trim();
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let frame: Vec<u8> = bytes.collect();
        let batch = decode(&frame, decoder_of::<Batch<(String, u32)>>()).unwrap();
        let batch = batch.into_any().downcast::<Batch<(String, u32)>>().unwrap();
        assert_eq!(batch.into_iter().collect::<Vec<_>>(), [(("a".to_string(), 1), 7)]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let decoder = decoder_of::<Batch<(String, u32)>>();
        assert!(decode(&frame(), decoder).is_ok());
        for bit in 0..frame().len() * 8 {
            // The three reserved bytes are not read.
            if (40..64).contains(&bit) {
                continue;
            }
            let mut broken = frame();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&broken, decoder).is_err(), "bit {bit}");
        }
        for cut in 0..frame().len() {
            assert!(decode(&frame()[..cut], decoder).is_err(), "cut at {cut}");
        }
    }
}

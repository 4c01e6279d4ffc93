//! What stands behind the headers: batches, plain or compressed, signals, answers with splits, failures, alignment reports.
//! All but batches are in postcard's format.

use std::borrow::Cow;

use flott_dataflow::batch::ErasedBatch;
use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::element::Signal;
use flott_dataflow::source::Assignment;
use flott_schema::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::header::{
    BODY_BYTES_MAX, ChannelId, Compression, FrameHeader, HEADER_BYTES, Kind, corrupt, frame_of,
};

/// Bodies below this are not worth compressing, bytes.
const COMPRESS_BYTES_MIN: usize = 256;

/// A batch as a frame. `expected_bytes` spares growing: the length of the frame before it, say.
pub(super) fn batch_frame(
    batch: &dyn ErasedBatch,
    channel: ChannelId,
    job_epoch: u32,
    compression: Compression,
    expected_bytes: usize,
) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(expected_bytes.max(HEADER_BYTES));
    frame.resize(HEADER_BYTES, 0);
    batch.encode(&mut frame)?;
    seal_batch(frame, channel, job_epoch, compression)
}

/// Makes a frame of a batch in wire form that stands behind room for the header.
pub(super) fn seal_batch(
    mut frame: Vec<u8>,
    channel: ChannelId,
    job_epoch: u32,
    compression: Compression,
) -> Result<Vec<u8>> {
    let plain_bytes = frame.len().saturating_sub(HEADER_BYTES);
    // A longer one is refused where the header is written.
    let detail = u32::try_from(plain_bytes).unwrap_or(u32::MAX);
    let mut header = FrameHeader::new(Kind::Batch, channel, job_epoch, detail);
    if compression != Compression::None && (COMPRESS_BYTES_MIN..=BODY_BYTES_MAX).contains(&plain_bytes) {
        let packed = compress(&frame[HEADER_BYTES..], compression)?;
        if packed.len() < frame.len() {
            header.compression = compression;
            frame = packed;
        }
    }
    header.seal(&mut frame)?;
    Ok(frame)
}

/// The compressed form of `plain`, behind room for a header.
fn compress(plain: &[u8], compression: Compression) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    match compression {
        Compression::None => frame.extend_from_slice(plain),
        Compression::Lz4 => {
            frame.resize(HEADER_BYTES + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
            let length = lz4_flex::block::compress_into(plain, &mut frame[HEADER_BYTES..])
                .map_err(|error| Error::internal(format!("LZ4: {error}")))?;
            frame.truncate(HEADER_BYTES + length);
        }
        Compression::Zstd => {
            let packed = zstd::bulk::compress(plain, 1).map_err(|error| Error::io("Zstandard", error))?;
            frame.extend_from_slice(&packed);
        }
    }
    Ok(frame)
}

/// The plain form of a body of `plain_bytes`.
pub(super) fn decompress(body: &[u8], compression: Compression, plain_bytes: u32) -> Result<Cow<'_, [u8]>> {
    let length = plain_bytes as usize;
    if compression != Compression::None && length > BODY_BYTES_MAX {
        return Err(corrupt(&format!("{length} bytes before it was compressed, more than 1 GiB")));
    }
    match compression {
        Compression::None => Ok(Cow::Borrowed(body)),
        Compression::Lz4 => lz4_flex::block::decompress(body, length)
            .map(Cow::Owned)
            .map_err(|error| corrupt(&format!("LZ4: {error}"))),
        Compression::Zstd => zstd::bulk::decompress(body, length)
            .map(Cow::Owned)
            .map_err(|error| corrupt(&format!("Zstandard: {error}"))),
    }
}

/// A value in postcard's format as a frame.
pub(super) fn value_frame(header: FrameHeader, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    encode_value(value, &mut body)?;
    frame_of(header, &body)
}

/// A signal as a frame.
pub(super) fn signal_frame(signal: Signal, channel: ChannelId, job_epoch: u32) -> Result<Vec<u8>> {
    value_frame(FrameHeader::new(Kind::Signal, channel, job_epoch, 0), &signal)
}

/// A signal from its body.
pub(super) fn read_signal(body: &[u8]) -> Result<Signal> {
    decode_value(body).map_err(|error| corrupt(&error.to_string()))
}

/// An error on its way to another executor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: ErrorKind,
    message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Failure { kind: error.kind(), message: error.to_string() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::new(failure.kind, failure.message)
    }
}

/// An enumerator's answer on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Split(Vec<u8>),
    Later(u64),
    NoMore,
    Failed(Failure),
}

impl From<Result<Assignment<Vec<u8>>>> for Answer {
    fn from(answer: Result<Assignment<Vec<u8>>>) -> Self {
        match answer {
            Ok(Assignment::Split(split)) => Answer::Split(split),
            Ok(Assignment::Later(wait_ms)) => Answer::Later(wait_ms),
            Ok(Assignment::NoMore) => Answer::NoMore,
            Err(error) => Answer::Failed(Failure::from(&error)),
        }
    }
}

impl From<Answer> for Result<Assignment<Vec<u8>>> {
    fn from(answer: Answer) -> Self {
        Ok(match answer {
            Answer::Split(split) => Assignment::Split(split),
            Answer::Later(wait_ms) => Assignment::Later(wait_ms),
            Answer::NoMore => Assignment::NoMore,
            Answer::Failed(failure) => return Err(failure.into()),
        })
    }
}

/// The lowest watermark of an alignment group in an executor.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AlignmentReport {
    pub group: String,
    pub watermark_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use flott_dataflow::batch::{Batch, decoder_of};
    use flott_dataflow::element::Barrier;

    use super::*;

    const CHANNEL: ChannelId = ChannelId { edge: 0, source: 1, target: 2 };

    #[test]
    fn a_batch_survives_each_compression_and_is_compressed_only_if_it_shrinks() {
        let even = Batch::of((0..1000u64).map(|n| n % 10).collect());
        // Nothing repeats in these, so nothing can be saved.
        let mixed = Batch::of((0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).collect());
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for (batch, shrinks) in [(&even, true), (&mixed, false)] {
                let frame = batch_frame(batch, CHANNEL, 3, compression, 0).unwrap();
                let header = FrameHeader::read(frame.first_chunk().unwrap()).unwrap();
                header.check_body(frame.first_chunk().unwrap(), &frame[HEADER_BYTES..]).unwrap();
                if compression != Compression::None {
                    assert_eq!(header.compression == compression, shrinks, "{compression:?}");
                }
                let plain = decompress(&frame[HEADER_BYTES..], header.compression, header.detail).unwrap();
                let decoded = decoder_of::<Batch<u64>>()(&plain).unwrap();
                assert_eq!(*decoded.into_any().downcast::<Batch<u64>>().unwrap(), *batch);
            }
        }
    }

    #[test]
    fn a_compressed_body_that_is_cut_or_lies_about_its_length_is_refused() {
        let batch = Batch::of((0..1000u64).map(|n| n % 10).collect());
        for compression in [Compression::Lz4, Compression::Zstd] {
            let frame = batch_frame(&batch, CHANNEL, 3, compression, 0).unwrap();
            let body = &frame[HEADER_BYTES..];
            assert_eq!(FrameHeader::read(frame.first_chunk().unwrap()).unwrap().compression, compression);
            assert!(decompress(&body[..body.len() / 2], compression, 1000).is_err());
            assert!(decompress(body, compression, u32::MAX).is_err());
        }
    }

    #[test]
    fn signals_and_answers_are_frozen() {
        let signals = [
            Signal::Watermark(-5),
            Signal::Idle(true),
            Signal::Barrier(Barrier { timestamp_ms: 9, ..Barrier::of_checkpoint(3) }),
            Signal::EndOfInput,
        ];
        let mut lines = Vec::new();
        for signal in signals {
            let frame = signal_frame(signal, CHANNEL, 4).unwrap();
            assert_eq!(read_signal(&frame[HEADER_BYTES..]).unwrap(), signal);
            lines.push(frame);
        }
        let failed = Err(Error::new(ErrorKind::Io, "no such file"));
        for answer in
            [Ok(Assignment::Split(vec![1, 2])), Ok(Assignment::Later(7)), Ok(Assignment::NoMore), failed]
        {
            let header = FrameHeader::new(Kind::SplitAnswer, CHANNEL, 4, 0);
            lines.push(value_frame(header, &Answer::from(answer)).unwrap());
        }
        let report = AlignmentReport { group: "g".into(), watermark_ms: Some(1) };
        lines.push(value_frame(FrameHeader::new(Kind::Alignment, CHANNEL, 4, 0), &report).unwrap());
        let hex: Vec<String> =
            lines.iter().map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        assert_eq!(hex.join("\n"), include_str!("../../samples/exchange_values_v2.hex").trim());
        // Version 1 had a shorter barrier, which nothing sent.
        let first = include_str!("../../samples/exchange_values_v1.hex").trim().lines();
        let differing = first.zip(&hex).filter(|(old, new)| old != new).count();
        assert_eq!(differing, 1);
    }
}

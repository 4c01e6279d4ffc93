//! The header of a frame between executors: 32 bytes, the data section of `FrameHeader` in `exchange.capnp`, written and
//! read here byte by byte because it is made for every batch.
//!
//! Two checks: one of the header alone, so that a broken length is noticed before anybody waits for so many bytes; one of
//! header and body together.

use flott_schema::{Error, ErrorKind, Result};

/// Length of a header, bytes.
pub const HEADER_BYTES: usize = 32;
/// The version written, and the only one read.
pub const VERSION: u8 = 1;
/// Longest body that is sent or read.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// `detail` of a credit frame that gives up the channel.
pub const ABANDONED: u32 = u32::MAX;

/// `detail` of a credit frame that says that the end of input has come.
pub const RECEIVED: u32 = u32::MAX - 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Records.
    Batch = 1,
    /// Watermark, idleness, barrier or end of input.
    Signal = 2,
    /// Credit given back to the sender of a channel.
    Credit = 3,
    /// A source asks for a split.
    SplitRequest = 4,
    /// What its enumerator answers.
    SplitAnswer = 5,
    /// A task asks for a spooled result.
    SpoolRequest = 6,
    /// The lowest watermark of an alignment group in an executor.
    Alignment = 7,
    /// A spooled result cannot be read.
    Failure = 8,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 8] = [
        Kind::Batch,
        Kind::Signal,
        Kind::Credit,
        Kind::SplitRequest,
        Kind::SplitAnswer,
        Kind::SpoolRequest,
        Kind::Alignment,
        Kind::Failure,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// LZ4, one block.
    Lz4 = 1,
    /// Zstandard, one frame.
    Zstd = 2,
}

impl Compression {
    fn from_number(number: u8) -> Option<Self> {
        [Compression::None, Compression::Lz4, Compression::Zstd]
            .into_iter()
            .find(|compression| *compression as u8 == number)
    }
}

/// A channel between two tasks of a job: unique within a job epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// Index of the edge in the graph; for splits, the position of the source's vertex.
    pub edge: u16,
    /// Sending subtask.
    pub source: u32,
    /// Receiving subtask.
    pub target: u32,
}

/// What stands in front of each body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// How the body is compressed.
    pub compression: Compression,
    /// Length of the body as it is sent, bytes.
    pub body_bytes: u32,
    /// The channel.
    pub channel: ChannelId,
    /// Job epoch of the tasks at its ends.
    pub job_epoch: u32,
    /// Depends on the kind, see `exchange.capnp`.
    pub detail: u32,
    checksum: u32,
}

impl FrameHeader {
    /// A header of an uncompressed frame; [`FrameHeader::seal`] fills in the length.
    pub fn new(kind: Kind, channel: ChannelId, job_epoch: u32, detail: u32) -> Self {
        FrameHeader {
            kind,
            compression: Compression::None,
            body_bytes: 0,
            channel,
            job_epoch,
            detail,
            checksum: 0,
        }
    }

    /// Writes this header into the first 32 bytes of `frame`, whose rest is the body.
    pub fn seal(&self, frame: &mut [u8]) -> Result<()> {
        let too_long = |bytes| {
            Error::user(format!(
                "a batch of {bytes} bytes is too large for a frame (1 GiB); lower the batch size"
            ))
        };
        let Some((header, body)) = frame.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(Error::internal("a frame without room for its header"));
        };
        if body.len() > BODY_BYTES_MAX {
            return Err(too_long(body.len()));
        }
        header[0..2].copy_from_slice(&(self.kind as u16).to_le_bytes());
        header[2] = VERSION;
        header[3] = self.compression as u8;
        header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[8..10].copy_from_slice(&self.channel.edge.to_le_bytes());
        header[10..12].fill(0);
        header[12..16].copy_from_slice(&self.channel.source.to_le_bytes());
        header[16..20].copy_from_slice(&self.channel.target.to_le_bytes());
        header[20..24].copy_from_slice(&self.job_epoch.to_le_bytes());
        header[24..28].copy_from_slice(&self.detail.to_le_bytes());
        header[28..32].fill(0);
        let check = crc32c::crc32c(header) as u16;
        header[10..12].copy_from_slice(&check.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(header), body);
        header[28..32].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    /// Reads a header and checks what can be checked without the body.
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let mut plain = *bytes;
        plain[10..12].fill(0);
        plain[28..32].fill(0);
        if crc32c::crc32c(&plain) as u16 != u16_at(bytes, 10) {
            return Err(corrupt("its header does not have the checksum it names"));
        }
        // Behind the check: a header of another version is whole, and says so.
        if bytes[2] != VERSION {
            return Err(corrupt(&format!("version {}, this Flott reads {VERSION}", bytes[2])));
        }
        let kind = u16_at(bytes, 0);
        let header = FrameHeader {
            kind: Kind::from_number(kind).ok_or_else(|| corrupt(&format!("kind {kind} is not known")))?,
            compression: Compression::from_number(bytes[3])
                .ok_or_else(|| corrupt(&format!("compression {} is not known", bytes[3])))?,
            body_bytes: u32_at(bytes, 4),
            channel: ChannelId {
                edge: u16_at(bytes, 8),
                source: u32_at(bytes, 12),
                target: u32_at(bytes, 16),
            },
            job_epoch: u32_at(bytes, 20),
            detail: u32_at(bytes, 24),
            checksum: u32_at(bytes, 28),
        };
        if header.body_bytes as usize > BODY_BYTES_MAX {
            return Err(corrupt(&format!("a body of {} bytes, more than 1 GiB", header.body_bytes)));
        }
        Ok(header)
    }

    /// Checks the body behind the header in `bytes`, which [`FrameHeader::read`] has read.
    pub fn check_body(&self, bytes: &[u8; HEADER_BYTES], body: &[u8]) -> Result<()> {
        let mut plain = *bytes;
        plain[28..32].fill(0);
        if body.len() != self.body_bytes as usize {
            return Err(corrupt("its length is not the one in its header"));
        }
        if crc32c::crc32c_append(crc32c::crc32c(&plain), body) != self.checksum {
            return Err(corrupt("checksum mismatch"));
        }
        Ok(())
    }
}

/// A whole frame without room to grow: header and body.
pub fn frame_of(header: FrameHeader, body: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.resize(HEADER_BYTES, 0);
    frame.extend_from_slice(body);
    header.seal(&mut frame)?;
    Ok(frame)
}

fn u16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("corrupt frame: {what}"))
}

#[cfg(test)]
mod tests {
    use flott_schema::wire::generated::exchange_capnp::{FrameKind, frame_header};

    use super::*;

    const CHANNEL: ChannelId = ChannelId { edge: 3, source: 70_000, target: 5 };

    fn frame() -> Vec<u8> {
        let header =
            FrameHeader { compression: Compression::Lz4, ..FrameHeader::new(Kind::Batch, CHANNEL, 9, 1234) };
        frame_of(header, b"body").unwrap()
    }

    fn read(bytes: &[u8]) -> Result<FrameHeader> {
        let (head, body) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| corrupt("it ends early"))?;
        let header = FrameHeader::read(head)?;
        header.check_body(head, body)?;
        Ok(header)
    }

    #[test]
    fn the_header_is_frozen() {
        let hex: String = frame().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../../samples/exchange_frame_v1.hex").trim());
        let header = read(&frame()).unwrap();
        assert_eq!((header.kind, header.compression), (Kind::Batch, Compression::Lz4));
        assert_eq!((header.channel, header.job_epoch, header.detail), (CHANNEL, 9, 1234));
    }

    #[test]
    fn the_header_is_the_data_section_of_its_schema() {
        let frame = frame();
        let (head, _) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
        let mut message = capnp::message::Builder::new_default();
        let mut form: frame_header::Builder = message.init_root();
        form.set_kind(FrameKind::Batch);
        form.set_version(VERSION);
        form.set_compression(1);
        form.set_body_bytes(4);
        form.set_edge(3);
        form.set_header_check(u16_at(head, 10));
        form.set_source(70_000);
        form.set_target(5);
        form.set_job_epoch(9);
        form.set_detail(1234);
        form.set_checksum(u32_at(head, 28));
        let bytes = capnp::serialize::write_message_to_words(&message);
        // In front: the segment table and the pointer to the struct, 8 bytes each.
        assert_eq!(&bytes[16..], head);
        for kind in Kind::ALL {
            assert!(FrameKind::try_from(kind as u16).is_ok());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for bit in 0..frame().len() * 8 {
            let mut broken = frame();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&broken).is_err(), "bit {bit}");
        }
        for cut in 0..frame().len() {
            assert!(read(&frame()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_broken_header_is_noticed_before_its_body_is_waited_for() {
        for bit in 0..28 * 8 {
            let mut head = *frame().first_chunk::<HEADER_BYTES>().unwrap();
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::read(&head).is_err(), "bit {bit}");
        }
    }
}

//! What a caller may send before it has been let in.
//!
//! The library makes room for a message as large as its header says, and keeps every call until it is answered. Both is right for
//! members of the cluster and too much for a stranger, so until the hello is accepted this looks at the bytes first.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one message.
const MESSAGE_BYTES_MAX: u64 = 8 << 10;

/// Bytes altogether.
const BYTES_MAX: u64 = 64 << 10;

/// Segments of one message.
const SEGMENTS_MAX: u32 = 64;

/// Reads for a caller that is a stranger until `admitted` is set.
pub(super) struct Guarded<R> {
    inner: R,
    admitted: Rc<Cell<bool>>,
    frames: Frames,
}

impl<R> Guarded<R> {
    pub(super) fn new(inner: R, admitted: Rc<Cell<bool>>) -> Self {
        Guarded { inner, admitted, frames: Frames::default() }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Guarded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if !self.admitted.get() {
            let news = &buffer.filled()[before..];
            self.frames.watch(news).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Follows the framing of Cap'n Proto's messages: number of segments less one, the length of each in words, padding to a whole
/// word, then the segments.
#[derive(Debug, Default)]
struct Frames {
    part: Part,
    /// Bytes of the number that is being read, and how many of them there are.
    number: [u8; 4],
    number_length: usize,
    bytes: u64,
}

#[derive(Debug, Default)]
enum Part {
    /// The number of segments is next.
    #[default]
    Count,
    /// So many lengths are next, of which the last may be padding.
    Lengths { left: u32, padded: bool, words: u64 },
    /// So many bytes of segments are left.
    Segments { bytes: u64 },
}

impl Frames {
    fn watch(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES_MAX {
            return Err("a caller sent too much before it was let in");
        }
        while let Some((first, rest)) = bytes.split_first() {
            if let Part::Segments { bytes: left } = &mut self.part {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                bytes = &bytes[taken as usize..];
                if *left == 0 {
                    self.part = Part::Count;
                }
                continue;
            }
            self.number[self.number_length] = *first;
            self.number_length += 1;
            bytes = rest;
            if self.number_length == self.number.len() {
                self.number_length = 0;
                self.take(u32::from_le_bytes(self.number))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, number: u32) -> Result<(), &'static str> {
        self.part = match self.part {
            Part::Count if number >= SEGMENTS_MAX => {
                return Err("a caller does not speak the protocol of this port");
            }
            Part::Count => {
                let count = number + 1;
                // Count and lengths together fill whole words.
                let padded = count.is_multiple_of(2);
                Part::Lengths { left: count + u32::from(padded), padded, words: 0 }
            }
            Part::Lengths { left, padded, words } => {
                let is_padding = left == 1 && padded;
                let words = words + if is_padding { 0 } else { u64::from(number) };
                if words * 8 > MESSAGE_BYTES_MAX {
                    return Err("a caller sent too large a message before it was let in");
                }
                match left - 1 {
                    0 if words == 0 => Part::Count,
                    0 => Part::Segments { bytes: words * 8 },
                    left => Part::Lengths { left, padded, words },
                }
            }
            Part::Segments { .. } => unreachable!("numbers stand in front of segments"),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use capnp::message::{Builder, HeapAllocator};
    use flott_schema::wire::generated::control_capnp::hello;

    use super::*;

    fn message(token: &str, first_segment_words: u32) -> Vec<u8> {
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(first_segment_words));
        message.init_root::<hello::Builder<'_>>().set_token(token);
        capnp::serialize::write_message_to_words(&message)
    }

    #[test]
    fn messages_of_any_number_of_segments_pass_in_pieces_of_any_length() {
        for words in 1..8 {
            let mut bytes = Vec::new();
            for length in [0, 1, 7, 40, 300] {
                bytes.extend(message(&"x".repeat(length), words));
            }
            for piece in [1, 3, 8, 13, bytes.len()] {
                let mut frames = Frames::default();
                for part in bytes.chunks(piece) {
                    frames.watch(part).unwrap();
                }
                assert!(matches!(frames.part, Part::Count), "a message was not followed to its end");
            }
        }
    }

    #[test]
    fn a_header_that_promises_much_is_refused_before_anything_follows_it() {
        let header = |count: u32, length: u32| [(count - 1).to_le_bytes(), length.to_le_bytes()].concat();
        assert!(Frames::default().watch(&header(1, 1 << 20)).is_err());
        assert!(Frames::default().watch(&header(1, u32::MAX)).is_err());
        assert!(Frames::default().watch(&header(500, 1)).is_err());
        assert!(Frames::default().watch(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(Frames::default().watch(&[0xff; 64]).is_err());
        // Many small segments are as large as one.
        let mut frames = Frames::default();
        let mut many = 7_u32.to_le_bytes().to_vec();
        many.extend([1_000_u32.to_le_bytes(); 8].concat());
        assert!(frames.watch(&many).is_err());
    }

    #[test]
    fn a_caller_cannot_send_small_messages_without_end() {
        let mut frames = Frames::default();
        let bytes = message("token", 16);
        let sent = (0..100_000).take_while(|_| frames.watch(&bytes).is_ok()).count();
        assert!((100..BYTES_MAX as usize / bytes.len() + 1).contains(&sent), "{sent}");
    }
}

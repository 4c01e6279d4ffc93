//! Finds lines in bytes that arrive in pieces.

use std::fmt;

use memchr::memchr;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Without its terminator.
    pub bytes: &'a [u8],
    /// What ended it: `\n`, `\r\n`, or nothing at the end of the input.
    pub terminator: &'a [u8],
}

/// Where a line lies in its buffer, until the buffer is filled again.
#[derive(Clone, Copy, Debug)]
pub struct LineSpan {
    start: usize,
    /// End of the line's content.
    end: usize,
    /// End of its terminator.
    next: usize,
    /// Offset of the line in the input.
    pub offset: u64,
}

/// A line is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong {
    /// Where it begins in the input.
    pub offset: u64,
    /// Bytes allowed.
    pub max_bytes: usize,
}

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LineTooLong { offset, max_bytes } = self;
        write!(
            f,
            "the line at byte {offset} is longer than {max_bytes} bytes; raise max_line_bytes if that is meant"
        )
    }
}

/// A buffer that is filled from outside and gives lines; it grows up to the longest line.
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// The first byte not yet given.
    start: usize,
    /// No delimiter lies in `start..scanned`.
    scanned: usize,
    /// End of what was filled.
    end: usize,
    /// Offset of `start` in the input.
    offset: u64,
    delimiter: u8,
    initial_bytes: usize,
    max_line_bytes: usize,
}

impl LineBuffer {
    /// An empty buffer at the beginning of the input, with room for `initial_bytes` to begin with.
    pub fn new(delimiter: u8, initial_bytes: usize, max_line_bytes: usize) -> Self {
        let initial_bytes = initial_bytes.max(1);
        LineBuffer {
            bytes: Vec::new(),
            start: 0,
            scanned: 0,
            end: 0,
            offset: 0,
            delimiter,
            initial_bytes,
            max_line_bytes,
        }
    }

    /// Offset in the input of the next line.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Drops what is held and goes to `offset` of the input.
    pub fn reset(&mut self, offset: u64) {
        (self.start, self.scanned, self.end, self.offset) = (0, 0, 0, offset);
    }

    /// The next whole line, if there is one.
    #[inline]
    pub fn next_span(&mut self) -> Result<Option<LineSpan>, LineTooLong> {
        let Some(distance) = memchr(self.delimiter, &self.bytes[self.scanned..self.end]) else {
            self.scanned = self.end;
            return Ok(None);
        };
        let delimiter = self.scanned + distance;
        self.give(delimiter, delimiter + 1).map(Some)
    }

    /// What is left when the input has ended: a last line without terminator.
    pub fn last_span(&mut self) -> Result<Option<LineSpan>, LineTooLong> {
        if self.start == self.end { Ok(None) } else { self.give(self.end, self.end).map(Some) }
    }

    #[inline]
    fn give(&mut self, end: usize, next: usize) -> Result<LineSpan, LineTooLong> {
        let (start, offset) = (self.start, self.offset);
        if end - start > self.max_line_bytes {
            return Err(self.too_long());
        }
        self.offset += (next - start) as u64;
        (self.start, self.scanned) = (next, next);
        let ends_in_return =
            self.delimiter == b'\n' && next > end && end > start && self.bytes[end - 1] == b'\r';
        Ok(LineSpan { start, end: end - usize::from(ends_in_return), next, offset })
    }

    /// The line at `span`.
    #[inline]
    pub fn line(&self, span: LineSpan) -> Line<'_> {
        Line { bytes: &self.bytes[span.start..span.end], terminator: &self.bytes[span.end..span.next] }
    }

    /// Room for more input; never empty.
    pub fn room(&mut self) -> Result<&mut [u8], LineTooLong> {
        let held = self.end - self.start;
        if held > self.max_line_bytes {
            return Err(self.too_long());
        }
        if self.start > 0 && (held == 0 || self.end == self.bytes.len()) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.scanned, self.end) = (0, self.scanned - self.start, held);
        }
        if self.end == self.bytes.len() {
            self.bytes.resize((self.bytes.len() * 2).max(self.initial_bytes), 0);
        }
        Ok(&mut self.bytes[self.end..])
    }

    /// `count` bytes of the room were filled.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
    }

    fn too_long(&self) -> LineTooLong {
        LineTooLong { offset: self.offset, max_bytes: self.max_line_bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of `input`, when it arrives in pieces of `piece` bytes.
    fn lines(input: &[u8], piece: usize, max: usize) -> Result<Vec<(u64, Vec<u8>)>, LineTooLong> {
        let mut buffer = LineBuffer::new(b'\n', 4096, max);
        let mut lines = Vec::new();
        let mut input = input;
        while !input.is_empty() {
            let room = buffer.room()?;
            let (part, rest) = input.split_at(piece.min(room.len()).min(input.len()));
            room[..part.len()].copy_from_slice(part);
            buffer.filled(part.len());
            input = rest;
            while let Some(span) = buffer.next_span()? {
                lines.push((span.offset, buffer.line(span).bytes.to_vec()));
            }
        }
        if let Some(span) = buffer.last_span()? {
            lines.push((span.offset, buffer.line(span).bytes.to_vec()));
        }
        Ok(lines)
    }

    #[test]
    fn both_line_ends_count_and_the_last_line_needs_none() {
        let found = lines(b"a\r\n\nb\rc\n\r\nlast\r", 3, 10).unwrap();
        let expected: [(u64, &[u8]); 5] = [(0, b"a"), (3, b""), (4, b"b\rc"), (8, b""), (10, b"last\r")];
        assert_eq!(found, expected.map(|(offset, bytes)| (offset, bytes.to_vec())));
    }

    #[test]
    fn a_line_may_have_the_longest_length_and_not_a_byte_more() {
        for piece in [1, 4, 100] {
            assert_eq!(lines(b"x\n12345\ny", piece, 5).unwrap().len(), 3);
            let error = lines(b"x\n123456\ny", piece, 5).unwrap_err();
            assert_eq!(error, LineTooLong { offset: 2, max_bytes: 5 });
            assert_eq!(lines(b"x\n123456", piece, 5).unwrap_err().offset, 2);
        }
    }

    #[test]
    fn the_buffer_grows_to_the_longest_line() {
        let long = vec![b'z'; 3 * 4096 + 5];
        let mut input = b"a\n".to_vec();
        input.extend_from_slice(&long);
        input.extend_from_slice(b"\nb");
        let found = lines(&input, 1000, long.len()).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].1, long);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(input in "([a-c]{0,5}(\n|\r\n|\r)){0,20}[a-c]{0,3}", piece in 1usize..9) {
            let whole = lines(input.as_bytes(), input.len().max(1), 100).unwrap();
            prop_assert_eq!(&lines(input.as_bytes(), piece, 100).unwrap(), &whole);
            let expected: Vec<_> = input.lines().map(|line| line.as_bytes().to_vec()).collect();
            // `str::lines` agrees, except that it never gives a last line without terminator that ends in `\r`.
            prop_assert_eq!(whole.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), expected);
        }
    }
}

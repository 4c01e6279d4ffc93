//! Lines of one open file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flott_schema::{Error, ErrorKind, Result};

use super::compression::{Compression, Input};
use super::line_buffer::{Line, LineBuffer, LineSpan, LineTooLong};
use super::listing::unreadable;

/// Bytes asked for at once: enough that the price of a system call does not count.
const READ_BYTES: usize = 512 << 10;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Gives the lines of a file one after the other.
pub struct LineReader {
    name: String,
    input: Input,
    buffer: LineBuffer,
    ended: bool,
}

impl LineReader {
    /// The lines of the file at `path`, which must have at least `length` bytes.
    pub fn open(path: &Path, compression: Compression, length: u64, max_line_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, error))?;
        let now = file.metadata().map_err(|error| unreadable(path, error))?.len();
        if now < length {
            return Err(Error::bad_input(format!(
                "'{}' has {now} bytes and had {length} when it was listed; a file must not be cut while it is read",
                path.display()
            )));
        }
        let input = Input::new(file, compression).map_err(|error| unreadable(path, error))?;
        // A small file of known length is read by two calls: its content, and its end.
        let expected = if compression == Compression::None { now as usize + 1 } else { READ_BYTES };
        let buffer = LineBuffer::new(b'\n', expected.min(READ_BYTES), max_line_bytes);
        Ok(LineReader { name: path.display().to_string(), input, buffer, ended: false })
    }

    /// The path, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Offset of the next line in the (decompressed) content.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    /// Goes to an offset; false if the file is compressed and can only be read on.
    pub fn seek(&mut self, offset: u64) -> Result<bool> {
        let Input::Plain(file) = &mut self.input else { return Ok(false) };
        file.seek(SeekFrom::Start(offset)).map_err(|error| unreadable(Path::new(&self.name), error))?;
        self.buffer.reset(offset);
        self.ended = false;
        Ok(true)
    }

    /// The next line; `None` at the end.
    #[inline]
    pub fn next_span(&mut self) -> Result<Option<LineSpan>> {
        loop {
            match self.buffer.next_span() {
                Ok(Some(span)) => return Ok(Some(span)),
                Ok(None) if self.ended => {
                    return self.buffer.last_span().map_err(|error| self.too_long(error));
                }
                Ok(None) => self.fill()?,
                Err(error) => return Err(self.too_long(error)),
            }
        }
    }

    /// The line at `span`, without the byte order mark that a file may begin with.
    #[inline]
    pub fn line(&self, span: LineSpan) -> Line<'_> {
        let mut line = self.buffer.line(span);
        if span.offset == 0
            && let Some(rest) = line.bytes.strip_prefix(BYTE_ORDER_MARK)
        {
            line.bytes = rest;
        }
        line
    }

    #[cold]
    fn fill(&mut self) -> Result<()> {
        let room = match self.buffer.room() {
            Ok(room) => room,
            Err(error) => return Err(self.too_long(error)),
        };
        let count = loop {
            match self.input.read(room) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        };
        self.buffer.filled(count);
        self.ended = count == 0;
        Ok(())
    }

    fn too_long(&self, error: LineTooLong) -> Error {
        Error::bad_input(error.to_string()).at(&self.name)
    }

    fn failed(&self, error: io::Error) -> Error {
        let corrupt = !matches!(self.input, Input::Plain(_)) && error.raw_os_error().is_none();
        let failed = unreadable(Path::new(&self.name), error);
        if corrupt { failed.with_kind(ErrorKind::BadInput).at("corrupt compressed file") } else { failed }
    }
}

//! Lines of a connection to batches.

use std::task::{Context, Poll};

use flott_dataflow::batch::Batch;
use flott_dataflow::source::{ReadBatch, SourceReader};
use flott_schema::{Error, Result};

use super::connection::{Connection, Received};
use super::{SocketSplit, SocketText};
use crate::bad_record::{BadRecords, Place, Undecodable};
use crate::files::{LineBuffer, LineSpan, LineTooLong};

const READ_BYTES: usize = 64 << 10;
/// Reads of one call, so that bytes without line ends do not hold up the task.
const READS_PER_CALL: usize = 64;

/// Reads lines as they arrive.
pub struct SocketReader {
    settings: SocketText,
    bad: BadRecords,
    buffer: LineBuffer,
    /// Once it has its split.
    connection: Option<Connection>,
    /// Lines so far.
    line_count: u64,
    /// The connection was closed and the rest in the buffer is a line.
    closed: bool,
}

impl SocketReader {
    /// A reader without a split.
    pub fn new(settings: SocketText, bad: BadRecords) -> Self {
        let buffer = LineBuffer::new(settings.delimiter, READ_BYTES, settings.max_line_bytes);
        SocketReader { settings, bad, buffer, connection: None, line_count: 0, closed: false }
    }

    fn too_long(&self, error: LineTooLong) -> Error {
        let address = self.connection.as_ref().map_or("", Connection::address);
        Error::bad_input(error.to_string()).at(format!("socket {address}"))
    }

    /// The lines in the buffer.
    fn take_lines(&mut self, lines: &mut Vec<String>, max: usize) -> Result<()> {
        while lines.len() < max {
            let span = match self.buffer.next_span() {
                Ok(None) if self.closed => {
                    self.closed = false;
                    self.buffer.last_span()
                }
                other => other,
            };
            match span.map_err(|error| self.too_long(error))? {
                Some(span) => self.take_line(span, lines)?,
                None => break,
            }
        }
        Ok(())
    }

    fn take_line(&mut self, span: LineSpan, lines: &mut Vec<String>) -> Result<()> {
        self.line_count += 1;
        let bytes = self.buffer.line(span).bytes;
        match std::str::from_utf8(bytes) {
            Ok(line) => lines.push(line.to_string()),
            Err(error) => {
                let origin = self.connection.as_ref().map_or("", Connection::address);
                let place = Place { origin, line: Some(self.line_count), offset: None };
                self.bad.reject(place, &Undecodable::not_utf8(error), bytes)?;
            }
        }
        Ok(())
    }

    /// Reads and cuts lines until there are `max`, or nothing more has arrived (`Pending`), or all is read.
    fn fill(&mut self, lines: &mut Vec<String>, max: usize, cx: &mut Context<'_>) -> Result<Poll<()>> {
        for _ in 0..READS_PER_CALL {
            self.take_lines(lines, max)?;
            let Some(connection) = self.connection.as_mut().filter(|_| lines.len() < max) else {
                return Ok(Poll::Ready(()));
            };
            if connection.has_ended() {
                self.connection = None;
                return Ok(Poll::Ready(()));
            }
            let room = match self.buffer.room() {
                Ok(room) => room,
                Err(error) => return Err(self.too_long(error)),
            };
            match connection.poll_read(room, cx)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Received::Bytes(count)) => self.buffer.filled(count),
                Poll::Ready(Received::Closed) => self.closed = true,
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }
}

impl SourceReader for SocketReader {
    type Record = String;
    type Split = SocketSplit;

    fn add_split(&mut self, _split: SocketSplit) -> Result<()> {
        if self.connection.is_none() {
            self.connection = Some(Connection::new(self.settings.clone()));
        }
        Ok(())
    }

    fn read(&mut self, max_records: usize, cx: &mut Context<'_>) -> Result<ReadBatch<String>> {
        if self.connection.is_none() {
            return Ok(Poll::Ready(None));
        }
        let mut lines = Vec::new();
        let filled = self.fill(&mut lines, max_records, cx);
        self.bad.flush()?;
        Ok(match filled? {
            _ if !lines.is_empty() => Poll::Ready(Some(Batch::of(lines))),
            Poll::Ready(()) if self.connection.is_none() => Poll::Ready(None),
            // Only a batch size of 0 leads here.
            Poll::Ready(()) | Poll::Pending => Poll::Pending,
        })
    }

    fn snapshot(&self) -> Vec<SocketSplit> {
        self.connection.iter().map(|_| SocketSplit).collect()
    }

    fn close(&mut self) -> Result<()> {
        self.connection = None;
        Ok(())
    }
}

//! A split being read.

use flott_schema::{Error, Result};

use super::format::{Decoded, LineDecoder, Preamble};
use super::line_reader::LineReader;
use super::split::{FileSplit, Position};
use crate::bad_record::{BadRecords, Place, Undecodable};

/// The lines of one split, and how far they are read.
pub struct OpenSplit {
    split: FileSplit,
    lines: LineReader,
    /// Where the next record begins.
    record: Position,
    /// Lines read since the beginning of the split.
    line_count: u64,
    /// Of a compressed file that is resumed, what was read before and is only passed over.
    skip_to: u64,
    /// The beginning of a record of several lines.
    unfinished: Vec<u8>,
    max_record_bytes: usize,
}

/// How a call of [`OpenSplit::fill`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to read.
    More,
    /// The split is read.
    Ended,
}

impl OpenSplit {
    /// Opens the file and goes to the split's position.
    pub fn open<D: LineDecoder>(split: FileSplit, max_line_bytes: usize, decoder: &mut D) -> Result<Self> {
        let lines = LineReader::open(&split.path, split.compression, split.length, max_line_bytes)?;
        let mut open = OpenSplit {
            split,
            lines,
            record: Position { offset: 0, lines: 0 },
            line_count: 0,
            skip_to: 0,
            unfinished: Vec::new(),
            max_record_bytes: max_line_bytes,
        };
        let header = if decoder.begin_file() { open.read_preamble(decoder)? } else { false };
        open.go_to_start(header)?;
        Ok(open)
    }

    /// Shows the decoder the first lines; true if they are a header and left out.
    fn read_preamble<D: LineDecoder>(&mut self, decoder: &mut D) -> Result<bool> {
        while let Some(span) = self.lines.next_span()? {
            self.line_count += 1;
            let place =
                Place { origin: self.lines.name(), line: Some(self.line_count), offset: Some(span.offset) };
            match decoder
                .preamble(self.lines.line(span))
                .map_err(|why| place.error(&format!("header: {}", why.0)))?
            {
                Preamble::More => {}
                Preamble::Header => return Ok(true),
                Preamble::Records => return Ok(false),
            }
        }
        Ok(true)
    }

    fn go_to_start(&mut self, header: bool) -> Result<()> {
        let (offset, lines) = match self.split.position {
            Some(position) => (position.offset, position.lines),
            None if self.split.start > 0 => return self.align(),
            None if header => (self.lines.offset(), self.line_count),
            None => (0, 0),
        };
        self.record = Position { offset, lines };
        if self.lines.offset() == offset {
            return Ok(());
        }
        if self.lines.seek(offset)? {
            self.line_count = lines;
        } else if self.lines.offset() < offset {
            self.skip_to = offset;
        } else {
            // A compressed file cannot be read backwards: it is opened again, past the lines that were looked at.
            let FileSplit { path, compression, length, .. } = &self.split;
            self.lines = LineReader::open(path, *compression, *length, self.max_record_bytes)?;
            (self.line_count, self.skip_to) = (0, offset);
        }
        Ok(())
    }

    /// Leaves out the rest of a line that began before the split. If the byte before it ends a line, that is nothing.
    fn align(&mut self) -> Result<()> {
        self.lines.seek(self.split.start - 1)?;
        self.lines.next_span()?;
        self.line_count = 0;
        self.record = Position { offset: self.lines.offset(), lines: 0 };
        Ok(())
    }

    /// The split with its position.
    pub fn snapshot(&self) -> FileSplit {
        FileSplit { position: Some(self.record), ..self.split.clone() }
    }

    /// Reads until `records` holds `max`, `line_budget` is used up, or the split ends.
    pub fn fill<D: LineDecoder>(
        &mut self,
        decoder: &mut D,
        bad: &mut BadRecords,
        records: &mut Vec<D::Record>,
        max: usize,
        line_budget: &mut usize,
    ) -> Result<Progress> {
        if self.lines.offset() < self.skip_to && self.skip(line_budget)? == Progress::More {
            return Ok(Progress::More);
        }
        while records.len() < max && *line_budget > 0 {
            *line_budget -= 1;
            if self.record.offset >= self.split.end {
                return Ok(Progress::Ended);
            }
            let Some(span) = self.lines.next_span()? else {
                self.end_inside_record(decoder, bad)?;
                return Ok(Progress::Ended);
            };
            self.line_count += 1;
            let line = self.lines.line(span);
            match decoder.decode(line) {
                Ok(Decoded::Record(record)) => records.push(record),
                Ok(Decoded::Nothing) => {}
                Ok(Decoded::Incomplete) => {
                    self.unfinished.extend_from_slice(line.bytes);
                    self.unfinished.extend_from_slice(line.terminator);
                    if self.unfinished.len() > self.max_record_bytes {
                        return Err(self.record_too_long());
                    }
                    continue;
                }
                Err(why) if self.unfinished.is_empty() => bad.reject(self.place(), &why, line.bytes)?,
                Err(why) => {
                    let mut raw = std::mem::take(&mut self.unfinished);
                    raw.extend_from_slice(line.bytes);
                    bad.reject(self.place(), &why, &raw)?;
                }
            }
            self.unfinished.clear();
            self.record = Position { offset: self.lines.offset(), lines: self.line_count };
        }
        Ok(Progress::More)
    }

    /// Passes over what was read before; `Ended` when that is done.
    fn skip(&mut self, line_budget: &mut usize) -> Result<Progress> {
        while self.lines.offset() < self.skip_to {
            if *line_budget == 0 {
                return Ok(Progress::More);
            }
            *line_budget -= 1;
            self.line_count += 1;
            if self.lines.next_span()?.is_none() {
                return Err(Error::bad_input(format!(
                    "'{}' ends before byte {}, to which it was read before; has it been replaced?",
                    self.lines.name(),
                    self.skip_to
                )));
            }
        }
        Ok(Progress::Ended)
    }

    #[cold]
    fn end_inside_record<D: LineDecoder>(&mut self, decoder: &mut D, bad: &mut BadRecords) -> Result<()> {
        if self.unfinished.is_empty() {
            return Ok(());
        }
        let why: Undecodable = decoder.unfinished();
        let raw = std::mem::take(&mut self.unfinished);
        bad.reject(self.place(), &why, &raw)
    }

    fn place(&self) -> Place<'_> {
        // Lines are counted from the beginning of the split.
        let line = (self.split.start == 0).then_some(self.record.lines + 1);
        Place { origin: self.lines.name(), line, offset: Some(self.record.offset) }
    }

    #[cold]
    fn record_too_long(&self) -> Error {
        self.place().error(&format!(
            "the record is longer than {} bytes; is a quote missing? If not, raise max_line_bytes",
            self.max_record_bytes
        ))
    }
}

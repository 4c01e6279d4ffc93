//! Reads splits of files into batches.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use flott_dataflow::batch::Batch;
use flott_dataflow::source::{ReadBatch, SourceReader};
use flott_schema::Result;

use super::format::LineDecoder;
use super::open_split::{OpenSplit, Progress};
use super::split::FileSplit;
use crate::bad_record::BadRecords;

/// Lines that one call may go over for each record asked for, so that long stretches without records do not hold up the
/// task.
const LINES_PER_RECORD: usize = 8;
/// Files that one call may open.
const OPENS_PER_CALL: usize = 64;

/// A reader of files.
pub struct FileReader<D: LineDecoder> {
    decoder: D,
    bad: BadRecords,
    max_line_bytes: usize,
    current: Option<OpenSplit>,
    waiting: VecDeque<FileSplit>,
}

impl<D: LineDecoder> FileReader<D> {
    /// A reader without splits.
    pub fn new(decoder: D, bad: BadRecords, max_line_bytes: usize) -> Self {
        FileReader { decoder, bad, max_line_bytes, current: None, waiting: VecDeque::new() }
    }

    fn fill(&mut self, records: &mut Vec<D::Record>, max: usize) -> Result<()> {
        let mut line_budget = max.saturating_mul(LINES_PER_RECORD).max(1);
        let mut opens = OPENS_PER_CALL;
        loop {
            let open = match &mut self.current {
                Some(open) => open,
                None if opens == 0 => return Ok(()),
                None => {
                    let Some(split) = self.waiting.pop_front() else { return Ok(()) };
                    opens -= 1;
                    let open = OpenSplit::open(split, self.max_line_bytes, &mut self.decoder)?;
                    self.current.insert(open)
                }
            };
            match open.fill(&mut self.decoder, &mut self.bad, records, max, &mut line_budget)? {
                Progress::More => return Ok(()),
                Progress::Ended => self.current = None,
            }
        }
    }
}

impl<D: LineDecoder> SourceReader for FileReader<D> {
    type Record = D::Record;
    type Split = FileSplit;

    fn add_split(&mut self, split: FileSplit) -> Result<()> {
        self.waiting.push_back(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, cx: &mut Context<'_>) -> Result<ReadBatch<D::Record>> {
        if self.current.is_none() && self.waiting.is_empty() {
            return Ok(Poll::Ready(None));
        }
        let mut records = Vec::with_capacity(max_records);
        let filled = self.fill(&mut records, max_records);
        self.bad.flush()?;
        filled?;
        if !records.is_empty() {
            return Ok(Poll::Ready(Some(Batch::of(records))));
        }
        if self.current.is_none() && self.waiting.is_empty() {
            return Ok(Poll::Ready(None));
        }
        // Much was read that gave nothing: let others have a turn.
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn snapshot(&self) -> Vec<FileSplit> {
        self.current.iter().map(OpenSplit::snapshot).chain(self.waiting.iter().cloned()).collect()
    }

    fn close(&mut self) -> Result<()> {
        self.current = None;
        self.waiting.clear();
        Ok(())
    }
}

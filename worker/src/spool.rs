//! Spooled results: what a blocking edge's sender writes and its receiver reads once it is complete.
//!
//! A spool keeps batches in memory within the budget of its job, then frames in a temporary file. It is read once,
//! memory first; reading frees what was read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flott_dataflow::batch::ErasedBatch;
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::{Error, Result};

use crate::channel::Item;
use crate::frame::{self, HEADER_BYTES};

/// Memory that all spools of a job share, and the folder they overflow into.
pub struct SpoolBudget {
    used_bytes: AtomicUsize,
    limit_bytes: usize,
    folder: PathBuf,
}

impl SpoolBudget {
    /// A budget of `limit_bytes`; files go to `folder`.
    pub fn new(limit_bytes: usize, folder: PathBuf) -> Self {
        SpoolBudget { used_bytes: AtomicUsize::new(0), limit_bytes, folder }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The result of one channel of a blocking edge.
pub struct Spool {
    state: Mutex<State>,
    budget: Arc<SpoolBudget>,
}

#[derive(Default)]
struct State {
    /// With the bytes each batch takes of the budget.
    memory: VecDeque<(Item, usize)>,
    file: Option<SpoolFile>,
    complete: bool,
    waker: Option<Waker>,
}

impl Spool {
    /// An empty spool.
    pub fn new(budget: Arc<SpoolBudget>) -> Arc<Self> {
        Arc::new(Spool { state: Mutex::default(), budget })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_batch(&self, batch: Box<dyn ErasedBatch>) -> Result<()> {
        let mut state = self.lock();
        let bytes = batch.weight_bytes();
        // Once some are in the file, all that follow go there: order is kept.
        if state.file.is_none() && self.budget.try_take(bytes) {
            state.memory.push_back((Item::Batch(batch), bytes));
            return Ok(());
        }
        if state.file.is_none() {
            state.file = Some(SpoolFile::create(&self.budget.folder)?);
        }
        let encoded = frame::encode(&*batch)?;
        state.file.as_mut().map_or(Ok(()), |file| file.write(&encoded))
    }

    fn complete(&self) -> Result<()> {
        let mut state = self.lock();
        if let Some(file) = &mut state.file {
            file.rewind()?;
        }
        state.complete = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let bytes: usize = self.lock().memory.iter().map(|(_, bytes)| bytes).sum();
        self.budget.give_back(bytes);
    }
}

/// The sending end of a spooled channel: it never blocks its task.
pub struct SpoolWriter(pub Arc<Spool>);

impl ChannelWriter for SpoolWriter {
    fn send(&mut self, element: Element) -> Result<()> {
        match element {
            Element::Batch(batch) => self.0.add_batch(batch),
            Element::Signal(Signal::EndOfInput) => self.0.complete(),
            // A complete result has no time but its end.
            Element::Signal(_) => Ok(()),
        }
    }
}

/// The receiving end of a spooled channel.
pub struct SpoolReader {
    spool: Arc<Spool>,
    /// Signals that end the channel.
    tail: VecDeque<Signal>,
}

impl SpoolReader {
    /// Reads `spool`.
    pub fn new(spool: Arc<Spool>) -> Self {
        let tail = VecDeque::from([Signal::Watermark(i64::MAX), Signal::EndOfInput]);
        SpoolReader { spool, tail }
    }

    /// The next item, once the spool is complete; `None` behind the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>>> {
        let mut state = self.spool.lock();
        if !state.complete {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some((item, bytes)) = state.memory.pop_front() {
            drop(state);
            self.spool.budget.give_back(bytes);
            return Poll::Ready(Ok(Some(item)));
        }
        if let Some(file) = &mut state.file {
            match file.read() {
                Ok(Some(frame)) => return Poll::Ready(Ok(Some(Item::Frame(frame)))),
                Ok(None) => state.file = None,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        drop(state);
        Poll::Ready(Ok(self.tail.pop_front().map(Item::Signal)))
    }
}

/// Frames in a temporary file, which is deleted with the value.
struct SpoolFile {
    path: tempfile::TempPath,
    writer: Option<BufWriter<File>>,
    reader: Option<BufReader<File>>,
    /// Bytes written and not yet read.
    remaining: u64,
}

impl SpoolFile {
    fn create(folder: &Path) -> Result<Self> {
        let created = tempfile::Builder::new().prefix("flott-spool-").suffix(".frames").tempfile_in(folder);
        let (file, path) = created
            .map_err(|error| Error::io(format!("spool file in {}", folder.display()), error))?
            .into_parts();
        let writer = Some(BufWriter::with_capacity(256 << 10, file));
        Ok(SpoolFile { path, writer, reader: None, remaining: 0 })
    }

    fn error(&self, error: std::io::Error) -> Error {
        Error::io(format!("spool file {}", self.path.display()), error)
    }

    fn write(&mut self, frame: &[u8]) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::internal("a spool was written to after it was complete"));
        };
        self.remaining += frame.len() as u64;
        let written = writer.write_all(frame);
        written.map_err(|error| self.error(error))
    }

    fn rewind(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut file = writer.into_inner().map_err(|error| self.error(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| self.error(error))?;
        self.reader = Some(BufReader::with_capacity(256 << 10, file));
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let Some(reader) = &mut self.reader else {
            return Err(Error::internal("a spool was read before it was complete"));
        };
        let mut header = [0; HEADER_BYTES];
        let mut read = reader.read_exact(&mut header);
        let mut frame = header.to_vec();
        if read.is_ok() {
            let length = frame::body_length(&header)?;
            if (length + HEADER_BYTES) as u64 > self.remaining {
                return Err(Error::new(
                    flott_schema::ErrorKind::Io,
                    format!("spool file {}: a frame is longer than the file", self.path.display()),
                ));
            }
            frame.resize(HEADER_BYTES + length, 0);
            read = reader.read_exact(&mut frame[HEADER_BYTES..]);
        }
        read.map_err(|error| self.error(error))?;
        self.remaining -= frame.len() as u64;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use flott_dataflow::batch::{Batch, decoder_of};

    use super::*;

    fn records(spool: &Arc<Spool>) -> Result<Vec<u64>> {
        let mut reader = SpoolReader::new(spool.clone());
        let mut cx = Context::from_waker(Waker::noop());
        let mut records = Vec::new();
        while let Poll::Ready(item) = reader.poll_next(&mut cx) {
            let batch = match item? {
                Some(Item::Batch(batch)) => batch,
                Some(Item::Frame(bytes)) => frame::decode(&bytes, decoder_of::<Batch<u64>>())?,
                Some(Item::Signal(_)) => continue,
                None => break,
            };
            records.extend(batch.into_any().downcast::<Batch<u64>>().unwrap().records);
        }
        Ok(records)
    }

    fn filled(limit_bytes: usize, folder: &Path) -> Arc<Spool> {
        let spool = Spool::new(Arc::new(SpoolBudget::new(limit_bytes, folder.to_path_buf())));
        let mut writer = SpoolWriter(spool.clone());
        for start in 0..100u64 {
            writer
                .send(Element::Batch(Box::new(Batch::of((start * 10..start * 10 + 10).collect()))))
                .unwrap();
        }
        writer.send(Element::Signal(Signal::EndOfInput)).unwrap();
        spool
    }

    #[test]
    fn a_spool_gives_back_all_in_order_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        for limit_bytes in [0, 4000, usize::MAX] {
            let spool = filled(limit_bytes, folder.path());
            assert_eq!(records(&spool).unwrap(), (0..1000).collect::<Vec<_>>(), "limit {limit_bytes}");
            assert_eq!(spool.budget.used_bytes.load(Ordering::Relaxed), 0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are deleted");
    }

    #[test]
    fn nothing_is_read_before_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Arc::new(SpoolBudget::new(0, folder.path().to_path_buf())));
        SpoolWriter(spool.clone()).send(Element::Batch(Box::new(Batch::of(vec![1u64])))).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(SpoolReader::new(spool).poll_next(&mut cx).is_pending());
    }

    #[test]
    fn a_damaged_file_is_noticed_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let spool = filled(0, folder.path());
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[HEADER_BYTES + 3] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(records(&spool).unwrap_err().to_string().contains("checksum"));
        std::fs::write(&file, b"short").unwrap();
        let spool_two = filled(0, folder.path());
        drop(spool);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, b"short").unwrap();
        assert!(records(&spool_two).unwrap_err().to_string().contains("flott-spool-"));
    }
}

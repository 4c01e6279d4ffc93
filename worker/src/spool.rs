//! Spooled results: what a blocking edge's sender writes and its receiver reads once it is complete.
//!
//! A spool keeps batches in memory within the budget of its job, then frames in the job's one temporary file, of which it
//! remembers its blocks. It is read once, memory first; reading frees the memory, the file goes with the job.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flott_dataflow::batch::ErasedBatch;
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::{Error, Result};

use crate::channel::Item;
use crate::frame;

/// Memory that all spools of a job share, and the file they overflow into.
pub struct SpoolBudget {
    used_bytes: AtomicUsize,
    limit_bytes: usize,
    folder: PathBuf,
    file: Mutex<Option<Arc<SpoolFile>>>,
}

impl SpoolBudget {
    /// A budget of `limit_bytes`; the file is made in `folder` when it is first needed.
    pub fn new(limit_bytes: usize, folder: PathBuf) -> Self {
        SpoolBudget { used_bytes: AtomicUsize::new(0), limit_bytes, folder, file: Mutex::new(None) }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn file(&self) -> Result<Arc<SpoolFile>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let created =
            tempfile::Builder::new().prefix("flott-spool-").suffix(".frames").tempfile_in(&self.folder);
        let created =
            created.map_err(|error| Error::io(format!("spool file in {}", self.folder.display()), error))?;
        let (opened, path) = created.into_parts();
        let made = Arc::new(SpoolFile { file: opened, path, end: AtomicU64::new(0) });
        *file = Some(made.clone());
        Ok(made)
    }
}

/// Frames of all spools of a job, in a temporary file that is deleted with the value.
struct SpoolFile {
    file: File,
    path: tempfile::TempPath,
    end: AtomicU64,
}

/// Where a frame lies in the file.
struct Block {
    offset: u64,
    length: usize,
}

impl SpoolFile {
    fn error(&self, error: std::io::Error) -> Error {
        Error::io(format!("spool file {}", self.path.display()), error)
    }

    fn append(&self, frame: &[u8]) -> Result<Block> {
        let offset = self.end.fetch_add(frame.len() as u64, Ordering::AcqRel);
        self.file.write_all_at(frame, offset).map_err(|error| self.error(error))?;
        Ok(Block { offset, length: frame.len() })
    }

    fn read(&self, block: &Block) -> Result<Vec<u8>> {
        let mut frame = vec![0; block.length];
        self.file.read_exact_at(&mut frame, block.offset).map_err(|error| self.error(error))?;
        Ok(frame)
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
    file: Option<Arc<SpoolFile>>,
    blocks: VecDeque<Block>,
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
        let bytes = batch.weight_bytes();
        let mut state = self.lock();
        // Once some are in the file, all that follow go there: order is kept.
        if state.file.is_none() && self.budget.try_take(bytes) {
            state.memory.push_back((Item::Batch(batch), bytes));
            return Ok(());
        }
        let file = match &state.file {
            Some(file) => file.clone(),
            None => state.file.insert(self.budget.file()?).clone(),
        };
        let block = file.append(&frame::encode(&*batch)?)?;
        state.blocks.push_back(block);
        Ok(())
    }

    fn complete(&self) {
        let mut state = self.lock();
        state.complete = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
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
            Element::Signal(Signal::EndOfInput) => {
                self.0.complete();
                Ok(())
            }
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
        if let (Some(block), Some(file)) = (state.blocks.pop_front(), state.file.clone()) {
            drop(state);
            return Poll::Ready(file.read(&block).map(|frame| Some(Item::Frame(frame))));
        }
        drop(state);
        Poll::Ready(Ok(self.tail.pop_front().map(Item::Signal)))
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

    fn filled(limit_bytes: usize, folder: &std::path::Path) -> Arc<Spool> {
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
    fn long_texts_take_of_the_budget_what_they_weigh() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Arc::new(SpoolBudget::new(100_000, folder.path().to_path_buf())));
        let mut writer = SpoolWriter(spool.clone());
        for _ in 0..20 {
            writer.send(Element::Batch(Box::new(Batch::of(vec!["x".repeat(1000); 10])))).unwrap();
        }
        let held = spool.lock().memory.len();
        assert!((1..=10).contains(&held), "{held} batches of 10 kB are held in 100 kB");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the others are in a file");
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
    fn all_spools_of_a_job_share_one_file_and_each_gets_its_own_back() {
        let folder = tempfile::tempdir().unwrap();
        let budget = Arc::new(SpoolBudget::new(0, folder.path().to_path_buf()));
        let spools: Vec<Arc<Spool>> = (0..20).map(|_| Spool::new(budget.clone())).collect();
        for n in 0..10u64 {
            for (number, spool) in spools.iter().enumerate() {
                let batch = Batch::of(vec![number as u64 * 100 + n]);
                SpoolWriter(spool.clone()).send(Element::Batch(Box::new(batch))).unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for (number, spool) in spools.iter().enumerate() {
            spool.complete();
            let expected: Vec<u64> = (0..10).map(|n| number as u64 * 100 + n).collect();
            assert_eq!(records(spool).unwrap(), expected);
        }
        drop((spools, budget));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file goes with the job");
    }

    #[test]
    fn a_damaged_file_is_noticed_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let only_file = || std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let spool = filled(0, folder.path());
        let mut bytes = std::fs::read(only_file()).unwrap();
        bytes[frame::HEADER_BYTES + 3] ^= 1;
        std::fs::write(only_file(), bytes).unwrap();
        assert!(records(&spool).unwrap_err().to_string().contains("checksum"));
        drop(spool);
        let spool = filled(0, folder.path());
        std::fs::write(only_file(), b"short").unwrap();
        assert!(records(&spool).unwrap_err().to_string().contains("flott-spool-"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let spool = Spool::new(Arc::new(SpoolBudget::new(0, PathBuf::from("/no/such/folder"))));
        let error = SpoolWriter(spool).send(Element::Batch(Box::new(Batch::of(vec![1u64])))).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}

//! Spooled results: what a blocking edge's sender writes and its receiver reads once it is complete.
//!
//! A spool keeps batches in memory within the budget of its job, then frames in the job's one temporary file, of which it
//! remembers its blocks. It is read in the order it was written. In a job that is never restarted it is read once, and
//! reading frees the memory; else a reader that is started again reads it from the beginning, so it is kept, encoded.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flott_dataflow::batch::ErasedBatch;
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::{Error, ErrorKind, Result};

use crate::channel::Item;
use crate::exchange::header::ChannelId;
use crate::frame;
use crate::metrics::{Traffic, add};

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
#[derive(Clone, Copy)]
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

/// The spooled results of a job in this process, by channel and the job epoch of the task that writes.
pub struct SpoolStore {
    budget: Arc<SpoolBudget>,
    keep: bool,
    spools: Mutex<HashMap<(ChannelId, u32), Arc<Spool>>>,
}

impl SpoolStore {
    /// An empty store; `keep`: results may be read again.
    pub fn new(budget: SpoolBudget, keep: bool) -> Self {
        SpoolStore { budget: Arc::new(budget), keep, spools: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(ChannelId, u32), Arc<Spool>>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of a channel, for its writer, which makes it.
    pub fn to_write(&self, channel: ChannelId, writer_epoch: u32) -> Arc<Spool> {
        let make = || Spool::new(self.budget.clone(), self.keep);
        self.lock().entry((channel, writer_epoch)).or_insert_with(make).clone()
    }

    /// The result of a channel, for its readers, which are deployed once it is complete. Fails if no task has written it in
    /// this process: nobody would ever complete it.
    pub fn to_read(&self, channel: ChannelId, writer_epoch: u32) -> Result<Arc<Spool>> {
        self.lock().get(&(channel, writer_epoch)).cloned().ok_or_else(|| {
            let text = format!(
                "the result of subtask {} over edge {} of job epoch {writer_epoch} is not in this process: the executor \
                 that kept it has ended",
                channel.source, channel.edge
            );
            Error::new(ErrorKind::Io, text)
        })
    }

    /// Drops the results that `stands` does not hold to.
    pub fn retain(&self, stands: impl Fn(ChannelId, u32) -> bool) {
        self.lock().retain(|(channel, epoch), _| stands(*channel, *epoch));
    }
}

/// The result of one channel of a blocking edge.
pub struct Spool {
    state: Mutex<State>,
    budget: Arc<SpoolBudget>,
    keep: bool,
}

/// A batch in memory.
enum Held {
    Batch(Box<dyn ErasedBatch>),
    Frame(Vec<u8>),
    Taken,
}

#[derive(Default)]
struct State {
    /// With the bytes each batch takes of the budget.
    memory: Vec<(Held, usize)>,
    file: Option<Arc<SpoolFile>>,
    blocks: Vec<Block>,
    complete: bool,
    wakers: Vec<Waker>,
}

impl Spool {
    /// An empty spool; `keep`: it may be read more than once.
    pub fn new(budget: Arc<SpoolBudget>, keep: bool) -> Arc<Self> {
        Arc::new(Spool { state: Mutex::default(), budget, keep })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_batch(&self, batch: Box<dyn ErasedBatch>) -> Result<()> {
        let frame = if self.keep { Some(frame::encode(&*batch)?) } else { None };
        let bytes = frame.as_ref().map_or_else(|| batch.weight_bytes(), Vec::len);
        let mut state = self.lock();
        // Once some are in the file, all that follow go there: order is kept.
        if state.file.is_none() && self.budget.try_take(bytes) {
            state.memory.push((frame.map_or(Held::Batch(batch), Held::Frame), bytes));
            return Ok(());
        }
        let file = match &state.file {
            Some(file) => file.clone(),
            None => state.file.insert(self.budget.file()?).clone(),
        };
        let frame = match frame {
            Some(frame) => frame,
            None => frame::encode(&*batch)?,
        };
        let block = file.append(&frame)?;
        state.blocks.push(block);
        Ok(())
    }

    fn complete(&self) {
        let mut state = self.lock();
        state.complete = true;
        state.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let bytes: usize = self.lock().memory.iter().map(|(_, bytes)| bytes).sum();
        self.budget.give_back(bytes);
    }
}

/// The sending end of a spooled channel: it never blocks its task.
pub struct SpoolWriter {
    spool: Arc<Spool>,
    traffic: Arc<Traffic>,
}

impl SpoolWriter {
    /// Writes `spool`.
    pub fn new(spool: Arc<Spool>, traffic: Arc<Traffic>) -> Self {
        SpoolWriter { spool, traffic }
    }
}

impl ChannelWriter for SpoolWriter {
    fn send(&mut self, element: Element) -> Result<()> {
        match element {
            Element::Batch(batch) => {
                add(&self.traffic.batches_out, 1);
                self.spool.add_batch(batch)
            }
            Element::Signal(Signal::EndOfInput) => {
                self.spool.complete();
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
    /// Number of the next batch, those in memory first.
    next: usize,
    /// Signals that end the channel.
    tail: VecDeque<Signal>,
}

impl SpoolReader {
    /// Reads `spool` from the beginning.
    pub fn new(spool: Arc<Spool>) -> Self {
        let tail = VecDeque::from([Signal::Watermark(i64::MAX), Signal::EndOfInput]);
        SpoolReader { spool, next: 0, tail }
    }

    /// Whether the result is complete; if not, `cx` is woken when it is.
    pub fn poll_complete(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.spool.lock();
        if state.complete {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next item, once the spool is complete; `None` behind the last.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>>> {
        self.poll_complete(cx).map(|()| self.next_item())
    }

    /// The next item of a complete spool; `None` behind the last. May read from disk.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        let mut state = self.spool.lock();
        let number = self.next;
        self.next += 1;
        if let Some((held, bytes)) = state.memory.get_mut(number) {
            if let Held::Frame(frame) = held {
                return Ok(Some(Item::Frame(frame.clone())));
            }
            let bytes = std::mem::take(bytes);
            let taken = std::mem::replace(held, Held::Taken);
            drop(state);
            self.spool.budget.give_back(bytes);
            return match taken {
                Held::Batch(batch) => Ok(Some(Item::Batch(batch))),
                _ => Err(Error::internal("a spooled result was read twice in a job that is never restarted")),
            };
        }
        if let (Some(block), Some(file)) = (state.blocks.get(number - state.memory.len()), &state.file) {
            let (block, file) = (*block, file.clone());
            drop(state);
            return Ok(Some(Item::Frame(file.read(&block)?)));
        }
        drop(state);
        Ok(self.tail.pop_front().map(Item::Signal))
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
                Some(_) => continue,
                None => break,
            };
            records.extend(batch.into_any().downcast::<Batch<u64>>().unwrap().records);
        }
        Ok(records)
    }

    fn writer(spool: Arc<Spool>) -> SpoolWriter {
        SpoolWriter::new(spool, Arc::default())
    }

    fn filled(limit_bytes: usize, keep: bool, folder: &std::path::Path) -> Arc<Spool> {
        let spool = Spool::new(Arc::new(SpoolBudget::new(limit_bytes, folder.to_path_buf())), keep);
        let mut writer = SpoolWriter::new(spool.clone(), Arc::default());
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
            let spool = filled(limit_bytes, false, folder.path());
            assert_eq!(records(&spool).unwrap(), (0..1000).collect::<Vec<_>>(), "limit {limit_bytes}");
            assert_eq!(spool.budget.used_bytes.load(Ordering::Relaxed), 0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are deleted");
    }

    #[test]
    fn long_texts_take_of_the_budget_what_they_weigh() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Arc::new(SpoolBudget::new(100_000, folder.path().to_path_buf())), false);
        let mut writer = writer(spool.clone());
        for _ in 0..20 {
            writer.send(Element::Batch(Box::new(Batch::of(vec!["x".repeat(1000); 10])))).unwrap();
        }
        let held = spool.lock().memory.len();
        assert!((1..=10).contains(&held), "{held} batches of 10 kB are held in 100 kB");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the others are in a file");
    }

    #[test]
    fn a_result_that_is_kept_is_read_again_and_one_that_is_not_says_so() {
        let folder = tempfile::tempdir().unwrap();
        for limit_bytes in [0, 500, usize::MAX] {
            let spool = filled(limit_bytes, true, folder.path());
            for _ in 0..2 {
                assert_eq!(records(&spool).unwrap(), (0..1000).collect::<Vec<_>>(), "limit {limit_bytes}");
            }
        }
        let once = filled(usize::MAX, false, folder.path());
        records(&once).unwrap();
        assert!(records(&once).unwrap_err().to_string().contains("read twice"));
    }

    #[test]
    fn a_result_that_was_never_written_here_is_an_error_for_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let store = SpoolStore::new(SpoolBudget::new(0, folder.path().to_path_buf()), true);
        let channel = ChannelId { edge: 1, source: 2, target: 3 };
        store.to_write(channel, 4).complete();
        assert!(records(&store.to_read(channel, 4).unwrap()).unwrap().is_empty());
        let error = store.to_read(channel, 5).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("subtask 2 over edge 1 of job epoch 5"), "{error}");
    }

    #[test]
    fn nothing_is_read_before_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Arc::new(SpoolBudget::new(0, folder.path().to_path_buf())), false);
        writer(spool.clone()).send(Element::Batch(Box::new(Batch::of(vec![1u64])))).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(SpoolReader::new(spool).poll_next(&mut cx).is_pending());
    }

    #[test]
    fn all_spools_of_a_job_share_one_file_and_each_gets_its_own_back() {
        let folder = tempfile::tempdir().unwrap();
        let budget = Arc::new(SpoolBudget::new(0, folder.path().to_path_buf()));
        let spools: Vec<Arc<Spool>> = (0..20).map(|_| Spool::new(budget.clone(), false)).collect();
        for n in 0..10u64 {
            for (number, spool) in spools.iter().enumerate() {
                let batch = Batch::of(vec![number as u64 * 100 + n]);
                writer(spool.clone()).send(Element::Batch(Box::new(batch))).unwrap();
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
        let spool = filled(0, false, folder.path());
        let mut bytes = std::fs::read(only_file()).unwrap();
        bytes[frame::HEADER_BYTES + 3] ^= 1;
        std::fs::write(only_file(), bytes).unwrap();
        assert!(records(&spool).unwrap_err().to_string().contains("checksum"));
        drop(spool);
        let spool = filled(0, false, folder.path());
        std::fs::write(only_file(), b"short").unwrap();
        assert!(records(&spool).unwrap_err().to_string().contains("flott-spool-"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let spool = Spool::new(Arc::new(SpoolBudget::new(0, PathBuf::from("/no/such/folder"))), false);
        let error = writer(spool).send(Element::Batch(Box::new(Batch::of(vec![1u64])))).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}

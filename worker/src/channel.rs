//! Channels inside a process: bounded by credit, moved by ownership.
//!
//! All channels into a task end in one queue, so that its gate waits in one place. A channel has credit for a number of
//! batches; signals need none. Beyond its credit it blocks the sending task's
//! [`Congestion`], and unblocks it when half of the credit is back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use flott_dataflow::batch::ErasedBatch;
use flott_dataflow::context::Congestion;
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::{Error, Result};

use crate::exchange::inbox::RemoteFrame;
use crate::frame;
use crate::metrics::{Traffic, add};

/// What a channel carries.
pub enum Item {
    /// A batch, moved.
    Batch(Box<dyn ErasedBatch>),
    /// What is left of a batch whose first records the task has taken, and with them returned its credit.
    Rest(Box<dyn ErasedBatch>),
    /// A batch in wire form.
    Frame(Vec<u8>),
    /// A batch as it came from another executor.
    Remote(RemoteFrame),
    /// A signal.
    Signal(Signal),
    /// The sender cannot go on.
    Failed(Error),
}

/// The receiving end of all channels into one task.
#[derive(Default)]
pub struct GateQueue {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<(u32, Item)>,
    waker: Option<Waker>,
    /// The receiver is gone: what is sent is dropped.
    closed: bool,
}

impl GateQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The queue is whole at every moment, also where a holder of the lock panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, channel: u32, item: Item) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        // Watermarks in a row are at most one a channel, so signals cannot pile up in front of a task that stands still.
        if let Item::Signal(Signal::Watermark(new)) = item {
            for (other, item) in inner.items.iter_mut().rev() {
                let Item::Signal(Signal::Watermark(old)) = item else { break };
                if *other == channel {
                    *old = new;
                    return;
                }
            }
        }
        inner.items.push_back((channel, item));
        if let Some(waker) = inner.waker.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Takes everything there is into `items` (which must be empty), or has the task woken when something comes.
    pub fn take(&self, items: &mut VecDeque<(u32, Item)>, cx: &mut Context<'_>) -> bool {
        let mut inner = self.lock();
        if inner.items.is_empty() {
            inner.waker = Some(cx.waker().clone());
            return false;
        }
        std::mem::swap(&mut inner.items, items);
        true
    }

    /// Appends everything there is to `items`, and has the task woken when more comes.
    pub fn append_to(&self, items: &mut VecDeque<(u32, Item)>, cx: &mut Context<'_>) {
        let mut inner = self.lock();
        inner.waker = Some(cx.waker().clone());
        items.append(&mut inner.items);
    }

    /// The receiver is gone.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.items.clear();
        inner.waker = None;
    }
}

/// What both ends of a channel share: counted in batches within a process, in bytes between executors.
pub struct Credit {
    in_flight: AtomicUsize,
    capacity: usize,
    blocked: AtomicBool,
    abandoned: AtomicBool,
    /// The sender waits for the receiver to have its last element.
    held: AtomicBool,
    congestion: Mutex<Option<Arc<Congestion>>>,
}

impl Credit {
    /// Credit for `capacity` batches, or bytes.
    pub fn new(capacity: usize) -> Self {
        Credit {
            in_flight: AtomicUsize::new(0),
            capacity: capacity.max(1),
            blocked: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            held: AtomicBool::new(false),
            congestion: Mutex::new(None),
        }
    }

    fn congestion(&self) -> Option<Arc<Congestion>> {
        self.congestion.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the sending task.
    pub fn connect(&self, congestion: Arc<Congestion>) {
        *self.congestion.lock().unwrap_or_else(PoisonError::into_inner) = Some(congestion);
    }

    /// Spends credit; the last to be sent may go over it.
    pub(crate) fn spend(&self, amount: usize) {
        let before = self.in_flight.fetch_add(amount, Ordering::AcqRel);
        // Only the sender sets the flag, and only once the task counts as blocked: the receiver that clears it unblocks.
        if before + amount >= self.capacity && !self.blocked.load(Ordering::Acquire) {
            if let Some(congestion) = self.congestion() {
                congestion.block();
            }
            self.blocked.store(true, Ordering::Release);
            // The receiver may have returned credit before it could see the flag.
            self.unblock_if_low();
        }
    }

    /// Returns credit. More than was spent, as only a broken peer would, counts as all of it.
    pub fn give_back(&self, amount: usize) {
        let less = |spent: usize| Some(spent.saturating_sub(amount));
        let _ = self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        self.unblock_if_low();
    }

    /// Whether the receiver is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The receiver is gone: the channel takes everything and drops it.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        if self.blocked.swap(false, Ordering::AcqRel)
            && let Some(congestion) = self.congestion()
        {
            congestion.unblock();
        }
        self.let_go();
    }

    /// Blocks the sender until [`Credit::let_go`], whatever credit there is.
    pub(crate) fn hold(&self) {
        let Some(congestion) = self.congestion() else { return };
        congestion.block();
        self.held.store(true, Ordering::Release);
        // The receiver may have gone before it could see the flag.
        if self.is_abandoned() {
            self.let_go();
        }
    }

    /// The receiver has the last element.
    pub(crate) fn let_go(&self) {
        if self.held.swap(false, Ordering::AcqRel)
            && let Some(congestion) = self.congestion()
        {
            congestion.unblock();
        }
    }

    fn unblock_if_low(&self) {
        let low = self.in_flight.load(Ordering::Acquire) <= self.capacity / 2
            || self.abandoned.load(Ordering::Acquire);
        if low
            && self.blocked.load(Ordering::Acquire)
            && self.blocked.swap(false, Ordering::AcqRel)
            && let Some(congestion) = self.congestion()
        {
            congestion.unblock();
        }
    }
}

/// The sending end of a channel to a task in this process.
pub struct LocalWriter {
    queue: Arc<GateQueue>,
    channel: u32,
    credit: Arc<Credit>,
    traffic: Arc<Traffic>,
    /// Encodes every batch, as a channel to another process would.
    encoded: bool,
}

impl LocalWriter {
    /// A writer into channel `channel` of `queue`.
    pub fn new(
        queue: Arc<GateQueue>,
        channel: u32,
        credit: Arc<Credit>,
        traffic: Arc<Traffic>,
        encoded: bool,
    ) -> Self {
        LocalWriter { queue, channel, credit, traffic, encoded }
    }
}

impl ChannelWriter for LocalWriter {
    fn send(&mut self, element: Element) -> Result<()> {
        let item = match element {
            Element::Batch(batch) => {
                self.credit.spend(1);
                add(&self.traffic.batches_out, 1);
                if self.encoded { Item::Frame(frame::encode(&*batch)?) } else { Item::Batch(batch) }
            }
            Element::Signal(signal) => Item::Signal(signal),
        };
        self.queue.push(self.channel, item);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flott_dataflow::batch::Batch;

    use super::*;

    fn writer(capacity: usize) -> (Arc<GateQueue>, Arc<Congestion>, Arc<Credit>, LocalWriter) {
        let (queue, congestion, credit) =
            (Arc::<GateQueue>::default(), Arc::<Congestion>::default(), Credit::new(capacity));
        credit.connect(congestion.clone());
        let credit = Arc::new(credit);
        let writer = LocalWriter::new(queue.clone(), 0, credit.clone(), Arc::default(), false);
        (queue, congestion, credit, writer)
    }

    fn batch() -> Element {
        Element::Batch(Box::new(Batch::of(vec![1u8])))
    }

    #[test]
    fn a_channel_without_credit_blocks_the_sender_until_half_is_back() {
        let (_queue, congestion, credit, mut writer) = writer(4);
        for _ in 0..3 {
            writer.send(batch()).unwrap();
        }
        assert!(!congestion.is_congested());
        writer.send(batch()).unwrap();
        assert!(congestion.is_congested());
        credit.give_back(1);
        assert!(congestion.is_congested());
        credit.give_back(1);
        assert!(!congestion.is_congested());
    }

    #[test]
    fn watermarks_in_a_row_take_one_place_and_never_overtake_data() {
        let (queue, _congestion, _credit, mut writer) = writer(4);
        for watermark in [1, 2] {
            writer.send(Element::Signal(Signal::Watermark(watermark))).unwrap();
        }
        writer.send(batch()).unwrap();
        writer.send(Element::Signal(Signal::Watermark(3))).unwrap();
        let mut items = VecDeque::new();
        assert!(queue.take(&mut items, &mut Context::from_waker(Waker::noop())));
        let seen: Vec<Option<Signal>> = items
            .into_iter()
            .map(|(_, item)| match item {
                Item::Signal(signal) => Some(signal),
                _ => None,
            })
            .collect();
        assert_eq!(seen, [Some(Signal::Watermark(2)), None, Some(Signal::Watermark(3))]);
    }
}

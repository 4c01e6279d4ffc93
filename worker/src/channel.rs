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
use flott_schema::Result;

use crate::frame;

/// What a channel carries.
pub enum Item {
    /// A batch, moved.
    Batch(Box<dyn ErasedBatch>),
    /// A batch in wire form.
    Frame(Vec<u8>),
    /// A signal.
    Signal(Signal),
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

    fn push(&self, channel: u32, item: Item) {
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

    /// The receiver is gone.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.items.clear();
        inner.waker = None;
    }
}

/// What both ends of a channel share.
pub struct Credit {
    in_flight: AtomicUsize,
    capacity: usize,
    blocked: AtomicBool,
    abandoned: AtomicBool,
    congestion: Mutex<Option<Arc<Congestion>>>,
}

impl Credit {
    /// Credit for `capacity` batches.
    pub fn new(capacity: usize) -> Self {
        Credit {
            in_flight: AtomicUsize::new(0),
            capacity: capacity.max(1),
            blocked: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
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

    /// Spends credit for a batch.
    fn spend(&self) {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        // Only the sender sets the flag, and only once the task counts as blocked: the receiver that clears it unblocks.
        if before + 1 >= self.capacity && !self.blocked.load(Ordering::Acquire) {
            if let Some(congestion) = self.congestion() {
                congestion.block();
            }
            self.blocked.store(true, Ordering::Release);
            // The receiver may have returned credit before it could see the flag.
            self.unblock_if_low();
        }
    }

    /// Returns credit for a batch.
    pub fn give_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.unblock_if_low();
    }

    /// The receiver is gone: the channel takes everything and drops it.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        if self.blocked.swap(false, Ordering::AcqRel)
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
    /// Encodes every batch, as a channel to another process would.
    encoded: bool,
}

impl LocalWriter {
    /// A writer into channel `channel` of `queue`.
    pub fn new(queue: Arc<GateQueue>, channel: u32, credit: Arc<Credit>, encoded: bool) -> Self {
        LocalWriter { queue, channel, credit, encoded }
    }
}

impl ChannelWriter for LocalWriter {
    fn send(&mut self, element: Element) -> Result<()> {
        let item = match element {
            Element::Batch(batch) => {
                self.credit.spend();
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
        let writer = LocalWriter::new(queue.clone(), 0, credit.clone(), false);
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
        credit.give_back();
        assert!(congestion.is_congested());
        credit.give_back();
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

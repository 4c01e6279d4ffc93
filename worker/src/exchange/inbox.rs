//! The receiving ends of channels from other executors, and the frames that come before them.
//!
//! Every channel knows the job epoch of its task. Frames of an older one are dropped and counted; frames of a newer one wait
//! until its task is deployed, within the credit of their senders.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_dataflow::batch::{BatchDecoder, ErasedBatch};
use flott_dataflow::element::Signal;
use flott_schema::Result;
use flott_schema::ids::{AttemptId, WorkerId};
use tracing::warn;

use super::body::decompress;
use super::header::{ABANDONED, ChannelId, Compression, FrameHeader, HEADER_BYTES, RECEIVED};
use super::peer::Peer;
use crate::channel::{GateQueue, Item};

/// A batch as it came from another executor, its checksum checked.
pub struct RemoteFrame {
    body: Vec<u8>,
    compression: Compression,
    plain_bytes: u32,
    peer: Arc<Peer>,
}

impl RemoteFrame {
    pub(super) fn new(header: &FrameHeader, body: Vec<u8>, peer: Arc<Peer>) -> Self {
        RemoteFrame { body, compression: header.compression, plain_bytes: header.detail, peer }
    }

    /// What it took of the channel's credit.
    pub(crate) fn wire_bytes(&self) -> u32 {
        (self.body.len() + HEADER_BYTES) as u32
    }

    /// The batch.
    pub(crate) fn decode(&self, decoder: BatchDecoder) -> Result<Box<dyn ErasedBatch>> {
        decoder(&decompress(&self.body, self.compression, self.plain_bytes)?)
    }
}

/// A receiving end that is to be opened.
pub struct InputPlan {
    /// The channel.
    pub channel: ChannelId,
    /// The receiving task.
    pub attempt: AttemptId,
    /// Where its sender runs.
    pub from: WorkerId,
    /// Its number in the gate.
    pub number: u32,
    /// The queue of the gate.
    pub queue: Arc<GateQueue>,
}

/// All receiving ends of an executor.
#[derive(Default)]
pub(super) struct Inbox {
    channels: Mutex<HashMap<ChannelId, Entry>>,
    stale_frames: AtomicU64,
    stale_logged: AtomicBool,
}

#[derive(Default)]
struct Entry {
    current: Option<Current>,
    /// What came for a deployment that has not come itself.
    early: Option<(u32, VecDeque<Item>)>,
}

struct Current {
    attempt: AttemptId,
    from: WorkerId,
    number: u32,
    /// Nothing once the receiver is gone.
    queue: Option<Arc<GateQueue>>,
    /// Who sends, once a frame has come.
    peer: Option<Arc<Peer>>,
    ended: bool,
}

impl Current {
    fn deliver(&mut self, channel: ChannelId, item: Item) {
        self.ended |= matches!(item, Item::Signal(Signal::EndOfInput));
        if let Item::Remote(frame) = &item
            && self.peer.as_ref().is_none_or(|peer| !Arc::ptr_eq(peer, &frame.peer))
        {
            self.peer = Some(frame.peer.clone());
        }
        match &self.queue {
            Some(queue) => queue.push(self.number, item),
            None => {
                if let Item::Remote(frame) = item {
                    // The sender must not wait for a task that is gone. A header is never too long.
                    let _ = frame.peer.give_back(self.attempt.job_epoch, channel, ABANDONED);
                }
            }
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Entry>> {
        // The map is whole at every moment, also where a holder of the lock panicked.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames dropped because they belonged to an older job epoch.
    pub fn stale_frames(&self) -> u64 {
        self.stale_frames.load(Ordering::Relaxed)
    }

    fn drop_stale(&self, count: usize, channel: ChannelId, epoch: u32) {
        self.stale_frames.fetch_add(count as u64, Ordering::Relaxed);
        if count > 0 && !self.stale_logged.swap(true, Ordering::Relaxed) {
            warn!(
                ?channel,
                epoch, "frames of an older deployment are dropped; further ones are only counted"
            );
        }
    }

    /// Brings an item to its task, or keeps it until there is one. Never waits.
    pub fn deliver(&self, channel: ChannelId, epoch: u32, item: Item) {
        let mut channels = self.lock();
        let entry = channels.entry(channel).or_default();
        if let Some(current) = &mut entry.current {
            let known = current.attempt.job_epoch;
            if known == epoch {
                return current.deliver(channel, item);
            }
            if known > epoch {
                return self.drop_stale(1, channel, epoch);
            }
        }
        let early = entry.early.get_or_insert_with(|| (epoch, VecDeque::new()));
        if early.0 > epoch {
            return self.drop_stale(1, channel, epoch);
        }
        if early.0 < epoch {
            self.drop_stale(early.1.len(), channel, early.0);
            *early = (epoch, VecDeque::new());
        }
        early.1.push_back(item);
    }

    /// Opens a receiving end; what came early comes first.
    pub fn open(self: &Arc<Self>, plan: InputPlan) -> RemoteInput {
        let epoch = plan.attempt.job_epoch;
        let mut current = Current {
            attempt: plan.attempt,
            from: plan.from,
            number: plan.number,
            queue: Some(plan.queue),
            peer: None,
            ended: false,
        };
        let mut channels = self.lock();
        let entry = channels.entry(plan.channel).or_default();
        match entry.early.take() {
            Some((early, items)) if early == epoch => {
                items.into_iter().for_each(|item| current.deliver(plan.channel, item));
            }
            Some((early, items)) if early < epoch => self.drop_stale(items.len(), plan.channel, early),
            newer => entry.early = newer,
        }
        entry.current = Some(current);
        drop(channels);
        RemoteInput { inbox: self.clone(), channel: plan.channel, epoch, pending_bytes: 0 }
    }

    /// The receiver is gone: its sender is told, unless the channel has ended. Where no frame has come yet, the first one that
    /// comes is answered so.
    fn close(&self, channel: ChannelId, epoch: u32) {
        let mut channels = self.lock();
        let current = channels.get_mut(&channel).and_then(|entry| entry.current.as_mut());
        let Some(current) = current.filter(|current| current.attempt.job_epoch == epoch) else { return };
        current.queue = None;
        let peer = current.peer.take();
        if !std::mem::replace(&mut current.ended, true)
            && let Some(peer) = peer
        {
            let _ = peer.give_back(epoch, channel, ABANDONED);
        }
    }

    /// The tasks that still read from a worker.
    pub fn readers_from(&self, worker: WorkerId) -> Vec<AttemptId> {
        let channels = self.lock();
        let current = channels.values().filter_map(|entry| entry.current.as_ref());
        current
            .filter(|current| current.from == worker && !current.ended)
            .map(|current| current.attempt)
            .collect()
    }
}

/// The receiving end of one channel, held by its gate: gives credit back, and closes the channel when it is dropped.
pub struct RemoteInput {
    inbox: Arc<Inbox>,
    channel: ChannelId,
    epoch: u32,
    pending_bytes: u32,
}

impl RemoteInput {
    /// A frame has been taken out of the queue. Credit goes back in quarters of the window: the sender waits for half of it,
    /// so what is held back here never makes it wait.
    pub(crate) fn give_back(&mut self, frame: &RemoteFrame) {
        self.pending_bytes = self.pending_bytes.saturating_add(frame.wire_bytes());
        if self.pending_bytes >= frame.peer.window_bytes / 4 {
            let bytes = std::mem::take(&mut self.pending_bytes).min(RECEIVED - 1);
            let _ = frame.peer.give_back(self.epoch, self.channel, bytes);
        }
    }
}

impl Drop for RemoteInput {
    fn drop(&mut self) {
        self.inbox.close(self.channel, self.epoch);
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::{TaskId, VertexId};

    use super::*;
    use crate::exchange::header::Kind;

    #[tokio::test]
    async fn a_receiver_that_goes_before_it_took_anything_says_so_to_who_has_sent() {
        let (inbox, peer) = (Arc::<Inbox>::default(), Peer::new(WorkerId(2), String::new(), 1 << 20));
        let channel = ChannelId { edge: 0, source: 3, target: 4 };
        let task = TaskId { vertex: VertexId(1), subtask: 4 };
        let attempt = AttemptId { task, job_epoch: 5, attempt: 0 };
        let queue = Arc::<GateQueue>::default();
        let input = inbox.open(InputPlan { channel, attempt, from: peer.worker, number: 0, queue });
        let header = FrameHeader::new(Kind::Batch, channel, 5, 1);
        inbox.deliver(channel, 5, Item::Remote(RemoteFrame::new(&header, vec![0], peer.clone())));
        drop(input);
        let mut frames = VecDeque::new();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), peer.outbox.take(&mut frames));
        assert!(waited.await.expect("the sender is told nothing"));
        let told = FrameHeader::read(frames[0][..HEADER_BYTES].try_into().unwrap()).unwrap();
        assert_eq!((told.kind, told.channel, told.detail), (Kind::Credit, channel, ABANDONED));
        assert_eq!(frames.len(), 1);
        assert_eq!(inbox.readers_from(peer.worker), []);
    }
}

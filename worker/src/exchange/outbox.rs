//! Frames that wait to be written to a connection.
//!
//! Their number is bounded by what puts them in: records by the credit of their channels, requests and answers by the tasks
//! that wait for them, watermarks because a newer one takes the place of an older one of its channel.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::header::ChannelId;

/// The queue of one direction of a connection.
#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    ready: Notify,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Vec<u8>>,
    /// Where in `frames` the last frame of a channel is a watermark.
    watermarks: HashMap<(u32, ChannelId), usize>,
    closed: bool,
    /// The writer waits, and nobody has woken it yet.
    waiting: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The queue is whole at every moment, also where a holder of the lock panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame that belongs to `channel`; once closed, drops it.
    pub fn push(&self, job_epoch: u32, channel: ChannelId, frame: Vec<u8>) {
        let mut inner = self.lock();
        if !inner.watermarks.is_empty() {
            inner.watermarks.remove(&(job_epoch, channel));
        }
        self.append(inner, frame);
    }

    /// Appends a watermark, in the place of one of the same channel that nothing of the channel has followed.
    pub fn push_watermark(&self, job_epoch: u32, channel: ChannelId, frame: Vec<u8>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let at = inner.watermarks.entry((job_epoch, channel)).or_insert(usize::MAX);
        if let Some(older) = inner.frames.get_mut(*at) {
            *older = frame;
            return;
        }
        *at = inner.frames.len();
        self.append(guard, frame);
    }

    fn append(&self, mut inner: MutexGuard<'_, Inner>, frame: Vec<u8>) {
        if inner.closed {
            return;
        }
        inner.frames.push_back(frame);
        if std::mem::take(&mut inner.waiting) {
            drop(inner);
            self.ready.notify_one();
        }
    }

    /// Waits for frames and takes all of them; `false` once closed.
    pub async fn take(&self, frames: &mut VecDeque<Vec<u8>>) -> bool {
        loop {
            {
                let mut inner = self.lock();
                if inner.closed {
                    return false;
                }
                if !inner.frames.is_empty() {
                    std::mem::swap(&mut inner.frames, frames);
                    inner.watermarks.clear();
                    return true;
                }
                inner.waiting = true;
            }
            self.ready.notified().await;
        }
    }

    /// Drops what waits and all that follows.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.frames.clear();
        inner.watermarks.clear();
        drop(inner);
        self.ready.notify_one();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(source: u32) -> ChannelId {
        ChannelId { edge: 0, source, target: 0 }
    }

    #[tokio::test]
    async fn watermarks_of_a_channel_take_one_place_and_never_overtake_its_data() {
        let outbox = Outbox::default();
        outbox.push_watermark(0, channel(0), vec![1]);
        outbox.push_watermark(0, channel(1), vec![11]);
        outbox.push_watermark(0, channel(0), vec![2]);
        outbox.push(0, channel(0), vec![3]);
        outbox.push_watermark(0, channel(0), vec![4]);
        outbox.push_watermark(0, channel(1), vec![12]);
        outbox.push_watermark(1, channel(1), vec![13]);
        let mut frames = VecDeque::new();
        assert!(outbox.take(&mut frames).await);
        assert_eq!(frames, [vec![2], vec![12], vec![3], vec![4], vec![13]]);
        outbox.push_watermark(0, channel(0), vec![5]);
        frames.clear();
        assert!(outbox.take(&mut frames).await);
        assert_eq!(frames, [vec![5]]);
    }

    #[tokio::test]
    async fn a_closed_outbox_takes_nothing_and_lets_its_writer_go() {
        let outbox = Outbox::default();
        outbox.push(0, channel(0), vec![1]);
        let mut frames = VecDeque::new();
        let (taken, ()) = tokio::join!(
            async {
                let first = outbox.take(&mut frames).await;
                frames.clear();
                (first, outbox.take(&mut frames).await)
            },
            async { outbox.close() }
        );
        assert_eq!(taken, (true, false));
        outbox.push(0, channel(0), vec![2]);
        assert!(outbox.is_closed() && frames.is_empty());
    }
}

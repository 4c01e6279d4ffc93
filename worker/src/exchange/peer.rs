//! The executor at the other end of a connection, as seen from this one: what waits to be sent to it, the credit of the
//! channels to it, and the answers that are waited for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_schema::ids::{AttemptId, WorkerId};
use flott_schema::{Error, ErrorKind, Result};

use super::header::{ABANDONED, ChannelId, FrameHeader, Kind, RECEIVED, frame_of};
use super::outbox::Outbox;
use crate::channel::Credit;
use crate::enumerator::Reply;

/// One connection, from its first use on; it may not stand yet.
pub(super) struct Peer {
    /// The worker of the executor.
    pub worker: WorkerId,
    /// Where it is, for people.
    pub address: String,
    /// What waits to be sent.
    pub outbox: Outbox,
    /// Credit with which each channel on the connection begins, bytes.
    pub window_bytes: u32,
    senders: Mutex<HashMap<(u32, ChannelId), Sender>>,
    /// By job epoch, vertex and reader.
    questions: Mutex<HashMap<(u32, u16, u32), Reply>>,
    broken: AtomicBool,
}

/// The sending end of a channel, or of a spooled result.
struct Sender {
    credit: Arc<Credit>,
    /// The task that sends; a spooled result is sent by none.
    attempt: Option<AttemptId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole at every moment, also where a holder of the lock panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub fn new(worker: WorkerId, address: String, window_bytes: u32) -> Arc<Self> {
        Arc::new(Peer {
            worker,
            address,
            outbox: Outbox::default(),
            window_bytes: window_bytes.max(1),
            senders: Mutex::default(),
            questions: Mutex::default(),
            broken: AtomicBool::new(false),
        })
    }

    /// For messages: who it is, and where.
    pub fn place(&self) -> String {
        format!("the executor of worker {} at {}", self.worker.0, self.address)
    }

    /// Fails if the connection is lost.
    pub fn check(&self) -> Result<()> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Io, format!("the connection to {} is lost", self.place()))),
            false => Ok(()),
        }
    }

    /// Opens the sending end of a channel.
    pub fn open(&self, epoch: u32, channel: ChannelId, credit: Arc<Credit>, attempt: Option<AttemptId>) {
        lock(&self.senders).insert((epoch, channel), Sender { credit, attempt });
    }

    /// Forgets the sending end of a channel.
    pub fn close(&self, epoch: u32, channel: ChannelId) {
        lock(&self.senders).remove(&(epoch, channel));
    }

    /// Whether a channel is open.
    pub fn is_open(&self, epoch: u32, channel: ChannelId) -> bool {
        lock(&self.senders).contains_key(&(epoch, channel))
    }

    /// The peer gives credit back, has the end of input, or gives the channel up. A channel that has ended here needs none.
    pub fn credit(&self, epoch: u32, channel: ChannelId, detail: u32) {
        if let Some(sender) = lock(&self.senders).get(&(epoch, channel)) {
            match detail {
                ABANDONED => sender.credit.abandon(),
                RECEIVED => sender.credit.let_go(),
                bytes => sender.credit.give_back(bytes as usize),
            }
        }
    }

    /// Gives credit back to the peer.
    pub fn give_back(&self, epoch: u32, channel: ChannelId, detail: u32) -> Result<()> {
        let frame = frame_of(FrameHeader::new(Kind::Credit, channel, epoch, detail), &[])?;
        self.outbox.push(epoch, channel, frame);
        Ok(())
    }

    /// Keeps the answer of a question until it comes: one a source and reader.
    pub fn ask(&self, epoch: u32, vertex: u16, subtask: u32, reply: Reply) {
        lock(&self.questions).insert((epoch, vertex, subtask), reply);
        if let Err(error) = self.check()
            && let Some(reply) = self.answered(epoch, vertex, subtask)
        {
            reply(Err(error));
        }
    }

    /// Who waits for an answer that has come.
    pub fn answered(&self, epoch: u32, vertex: u16, subtask: u32) -> Option<Reply> {
        lock(&self.questions).remove(&(epoch, vertex, subtask))
    }

    /// The connection is lost. Gives the tasks that sent over it: they stay blocked until they are told, for one that was
    /// let go could finish.
    pub fn break_off(&self, reason: &str) -> Vec<AttemptId> {
        self.broken.store(true, Ordering::Release);
        self.outbox.close();
        let senders: Vec<Sender> = lock(&self.senders).drain().map(|(_, sender)| sender).collect();
        let questions: Vec<Reply> = lock(&self.questions).drain().map(|(_, reply)| reply).collect();
        senders.iter().filter(|sender| sender.attempt.is_none()).for_each(|sender| sender.credit.abandon());
        for reply in questions {
            reply(Err(Error::new(ErrorKind::Io, reason)));
        }
        senders.into_iter().filter_map(|sender| sender.attempt).collect()
    }
}

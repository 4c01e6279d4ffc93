//! Spooled results of blocking edges, read by tasks of other executors: asked for when their turn has come, sent within credit
//! once they are complete.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use flott_dataflow::context::Congestion;
use flott_schema::{Error, Result};
use tokio::sync::watch;

use super::body::{Failure, batch_frame, seal_batch, signal_frame, value_frame};
use super::header::{ChannelId, Compression, FrameHeader, HEADER_BYTES, Kind, frame_of};
use super::peer::Peer;
use crate::channel::{Credit, Item};
use crate::frame;
use crate::spool::{SpoolReader, SpoolStore};

/// Bytes read from a spool before they are sent.
const CHUNK_BYTES: usize = 256 << 10;

/// A result in another executor, held by the gate that will read it.
pub struct RemoteSpool {
    pub(super) peer: Arc<Peer>,
    pub(super) channel: ChannelId,
    pub(super) epoch: u32,
    /// The job epoch of the task that wrote it.
    pub(super) wrote: u32,
    pub(super) requested: bool,
}

impl RemoteSpool {
    /// Asks for the result, the first time; it comes through the queue of the gate.
    pub(crate) fn request_once(&mut self) -> Result<()> {
        self.peer.check()?;
        if !std::mem::replace(&mut self.requested, true) {
            let header = FrameHeader::new(Kind::SpoolRequest, self.channel, self.epoch, self.wrote);
            self.peer.outbox.push(self.epoch, self.channel, frame_of(header, &[])?);
        }
        Ok(())
    }
}

/// The results of this executor, as others read them.
pub(super) struct Spooled {
    store: watch::Sender<Option<Arc<SpoolStore>>>,
    compression: Compression,
}

impl Spooled {
    pub fn new(compression: Compression) -> Self {
        Spooled { store: watch::Sender::new(None), compression }
    }

    /// Names the results; requests that come before wait for it.
    pub fn attach(&self, store: Arc<SpoolStore>) {
        self.store.send_replace(Some(store));
    }

    /// Starts to answer a request, on the runtime of the exchange.
    pub fn serve(&self, header: &FrameHeader, peer: &Arc<Peer>) {
        if peer.is_open(header.job_epoch, header.channel) {
            return;
        }
        let (store, compression, header, peer) =
            (self.store.subscribe(), self.compression, *header, peer.clone());
        tokio::spawn(async move {
            let (channel, epoch) = (header.channel, header.job_epoch);
            if let Err(error) = send(store, compression, header, &peer).await {
                let failed = FrameHeader::new(Kind::Failure, channel, epoch, 0);
                if let Ok(frame) = value_frame(failed, &Failure::from(&error)) {
                    peer.outbox.push(epoch, channel, frame);
                }
            }
            peer.close(epoch, channel);
        });
    }
}

async fn send(
    mut store: watch::Receiver<Option<Arc<SpoolStore>>>,
    compression: Compression,
    header: FrameHeader,
    peer: &Arc<Peer>,
) -> Result<()> {
    let (channel, epoch) = (header.channel, header.job_epoch);
    let congestion = Arc::<Congestion>::default();
    let credit = Arc::new(Credit::new(peer.window_bytes as usize));
    credit.connect(congestion.clone());
    peer.open(epoch, channel, credit.clone(), None);
    let gone = || credit.is_abandoned() || peer.outbox.is_closed();
    // The exchange that holds the other end ends with this task's runtime.
    let Ok(store) = store.wait_for(Option::is_some).await.map(|store| store.clone()) else { return Ok(()) };
    let Some(store) = store else { return Ok(()) };
    let mut reader = SpoolReader::new(store.to_read(channel, header.detail)?);
    drop(store);
    poll_fn(|cx| reader.poll_complete(cx)).await;
    loop {
        poll_fn(|cx| match congestion.register(cx.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        if gone() {
            return Ok(());
        }
        // Aside: it reads from disk, and encodes what was kept as it was.
        let read = tokio::task::spawn_blocking(move || read_chunk(reader, channel, epoch, compression));
        let read = read.await.map_err(|_| Error::internal("reading a spooled result panicked"))??;
        let (frames, ended);
        (reader, frames, ended) = read;
        for (frame, counts) in frames {
            if counts {
                credit.spend(frame.len());
            }
            peer.outbox.push(epoch, channel, frame);
        }
        if ended {
            return Ok(());
        }
    }
}

/// Frames, and whether each takes credit.
type Frames = Vec<(Vec<u8>, bool)>;

fn read_chunk(
    mut reader: SpoolReader,
    channel: ChannelId,
    epoch: u32,
    compression: Compression,
) -> Result<(SpoolReader, Frames, bool)> {
    let (mut frames, mut bytes) = (Frames::new(), 0);
    while bytes < CHUNK_BYTES {
        let (frame, counts) = match reader.next_item()? {
            Some(Item::Batch(batch) | Item::Rest(batch)) => {
                (batch_frame(&*batch, channel, epoch, compression, 0)?, true)
            }
            Some(Item::Frame(stored)) => {
                let body = frame::body(&stored)?;
                let mut room = Vec::with_capacity(HEADER_BYTES + body.len());
                room.resize(HEADER_BYTES, 0);
                room.extend_from_slice(body);
                (seal_batch(room, channel, epoch, compression)?, true)
            }
            Some(Item::Signal(signal)) => (signal_frame(signal, channel, epoch)?, false),
            Some(Item::Remote(_) | Item::Failed(_)) => {
                return Err(Error::internal("a spool holds what was never put into it"));
            }
            None => return Ok((reader, frames, true)),
        };
        bytes += frame.len();
        frames.push((frame, counts));
    }
    Ok((reader, frames, false))
}

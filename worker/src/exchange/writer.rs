//! The sending end of a channel to a task in another executor.

use std::sync::Arc;

use flott_dataflow::context::Congestion;
use flott_dataflow::element::{Element, Signal};
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::Result;
use flott_schema::ids::AttemptId;

use super::body::{batch_frame, signal_frame};
use super::header::{ChannelId, Compression};
use super::peer::Peer;
use crate::channel::Credit;
use crate::metrics::{Traffic, add};

/// Encodes in the sending task's thread and hands the frame to the connection. Never waits: a window that is spent blocks
/// the task's congestion until half of it is back.
pub struct RemoteWriter {
    peer: Arc<Peer>,
    channel: ChannelId,
    epoch: u32,
    credit: Arc<Credit>,
    traffic: Arc<Traffic>,
    compression: Compression,
    /// Length of the last frame, so that the next one need not grow.
    last_bytes: usize,
}

impl RemoteWriter {
    pub(super) fn new(
        peer: Arc<Peer>,
        channel: ChannelId,
        attempt: AttemptId,
        congestion: Arc<Congestion>,
        traffic: Arc<Traffic>,
        compression: Compression,
    ) -> Self {
        let credit = Arc::new(Credit::new(peer.window_bytes as usize));
        credit.connect(congestion);
        peer.open(attempt.job_epoch, channel, credit.clone(), Some(attempt));
        RemoteWriter { peer, channel, epoch: attempt.job_epoch, credit, traffic, compression, last_bytes: 0 }
    }
}

impl ChannelWriter for RemoteWriter {
    fn send(&mut self, element: Element) -> Result<()> {
        self.peer.check()?;
        if self.credit.is_abandoned() {
            return Ok(());
        }
        match element {
            Element::Batch(batch) => {
                let expected = self.last_bytes + self.last_bytes / 8;
                let frame = batch_frame(&*batch, self.channel, self.epoch, self.compression, expected)?;
                self.last_bytes = frame.len();
                self.credit.spend(frame.len());
                add(&self.traffic.batches_out, 1);
                add(&self.traffic.bytes_out, frame.len());
                self.peer.outbox.push(self.epoch, self.channel, frame);
            }
            Element::Signal(signal) => {
                let frame = signal_frame(signal, self.channel, self.epoch)?;
                if signal == Signal::EndOfInput {
                    // Until the peer has it all, a lost connection must find the task.
                    self.credit.hold();
                }
                match signal {
                    Signal::Watermark(_) => self.peer.outbox.push_watermark(self.epoch, self.channel, frame),
                    _ => self.peer.outbox.push(self.epoch, self.channel, frame),
                }
            }
        }
        Ok(())
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        self.peer.close(self.epoch, self.channel);
    }
}

//! Splits between executors: the enumerator of a source lives where its subtask 0 runs; readers elsewhere ask for splits over
//! the exchange.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use flott_schema::Result;
use flott_schema::control::LAST_SNAPSHOT;
use tracing::warn;

use super::body::{Answer, value_frame};
use super::header::{ChannelId, FrameHeader, Kind, frame_of};
use super::peer::Peer;
use crate::enumerator::AskSplit;

/// The enumerators of this executor, by the position of their vertex in the graph.
#[derive(Default)]
pub(super) struct Splits {
    sources: Mutex<HashMap<u16, Source>>,
}

#[derive(Default)]
struct Source {
    /// With the job epoch it was made for.
    enumerator: Option<(u32, AskSplit)>,
    /// Questions that came before it: job epoch, reader, its last barrier, and who asked. One a reader at most.
    waiting: Vec<(u32, u32, u64, Arc<Peer>)>,
}

fn channel(vertex: u16, subtask: u32) -> ChannelId {
    ChannelId { edge: vertex, source: subtask, target: 0 }
}

/// How a reader asks the enumerator in another executor.
pub(super) fn ask_remote(peer: Arc<Peer>, vertex: u16, epoch: u32) -> AskSplit {
    Box::new(move |subtask, barrier, reply| {
        let channel = channel(vertex, subtask);
        match frame_of(FrameHeader::new(Kind::SplitRequest, channel, epoch, detail_of(barrier)), &[]) {
            Ok(frame) => {
                peer.ask(epoch, vertex, subtask, reply);
                peer.outbox.push(epoch, channel, frame);
            }
            Err(error) => reply(Err(error)),
        }
    })
}

/// The last barrier of a reader in the header of its question. A job would take a checkpoint each second for 136 years to need more bits.
fn detail_of(barrier: u64) -> u32 {
    if barrier == LAST_SNAPSHOT { u32::MAX } else { barrier.min(u64::from(u32::MAX - 1)) as u32 }
}

fn barrier_of(detail: u32) -> u64 {
    if detail == u32::MAX { LAST_SNAPSHOT } else { u64::from(detail) }
}

impl Splits {
    /// An enumerator has been made here: it answers from now on, and first what was asked before.
    pub fn serve(&self, vertex: u16, epoch: u32, ask: AskSplit) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.entry(vertex).or_default();
        source.waiting.retain(|(asked, subtask, barrier, peer)| {
            if *asked == epoch {
                put(&ask, vertex, epoch, *subtask, *barrier, peer.clone());
            }
            *asked > epoch
        });
        source.enumerator = Some((epoch, ask));
    }

    /// A reader of another executor asks.
    pub fn request(&self, header: &FrameHeader, peer: &Arc<Peer>) {
        let (vertex, subtask, epoch) = (header.channel.edge, header.channel.source, header.job_epoch);
        let barrier = barrier_of(header.detail);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.entry(vertex).or_default();
        match &source.enumerator {
            Some((made, ask)) if *made == epoch => put(ask, vertex, epoch, subtask, barrier, peer.clone()),
            // A reader that is gone.
            Some((made, _)) if *made > epoch => {}
            _ => {
                source.waiting.retain(|(asked, reader, ..)| *reader != subtask || *asked > epoch);
                source.waiting.push((epoch, subtask, barrier, peer.clone()));
            }
        }
    }

    /// The answer has come to a reader here.
    pub fn answer(&self, header: &FrameHeader, answer: Answer, peer: &Peer) {
        if let Some(reply) = peer.answered(header.job_epoch, header.channel.edge, header.channel.source) {
            reply(answer.into());
        }
    }
}

fn put(ask: &AskSplit, vertex: u16, epoch: u32, subtask: u32, barrier: u64, peer: Arc<Peer>) {
    let reply = move |answer: Result<_>| {
        let channel = channel(vertex, subtask);
        let header = FrameHeader::new(Kind::SplitAnswer, channel, epoch, 0);
        match value_frame(header, &Answer::from(answer)) {
            Ok(frame) => peer.outbox.push(epoch, channel, frame),
            // A split of more than a gigabyte.
            Err(error) => warn!(%error, vertex, subtask, "a split cannot be sent"),
        }
    };
    ask(subtask, barrier, Box::new(reply));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_barrier_of_a_reader_crosses_the_wire_and_so_does_that_it_had_finished() {
        for barrier in [0, 7, u64::from(u32::MAX) - 1, LAST_SNAPSHOT] {
            assert_eq!(barrier_of(detail_of(barrier)), barrier);
        }
        assert_ne!(barrier_of(detail_of(u64::from(u32::MAX))), LAST_SNAPSHOT);
    }
}

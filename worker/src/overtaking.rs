//! Records that a barrier has overtaken: those in front of it in the channels of one task, which become part of the snapshot.
//!
//! As in Chandy and Lamport's snapshots: the task takes its own when the first barrier is there, and records on every other channel what comes
//! until the barrier is there too. What was recorded is processed as well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flott_dataflow::batch::BatchDecoder;
use flott_dataflow::element::{Barrier, Signal};
use flott_schema::Result;
use flott_schema::snapshot::Alignment;

use crate::channel::Item;
use crate::frame;

/// A barrier that may overtake, and has been seen in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// The barrier.
    pub barrier: Barrier,
    /// When it overtakes.
    pub due: Instant,
}

impl Announced {
    /// If the barrier may overtake.
    pub fn of(barrier: Barrier, now: Instant) -> Option<Self> {
        match barrier.alignment {
            Alignment::UnalignedAfter(ms) => {
                Some(Announced { barrier, due: now + Duration::from_millis(u64::from(ms)) })
            }
            Alignment::Aligned | Alignment::None => None,
        }
    }
}

/// What is recorded for one snapshot.
#[derive(Debug, Default)]
pub struct Recording {
    /// The snapshot.
    pub checkpoint: u64,
    /// Frames one behind the other, by number of the channel; channels on which nothing was in flight are not there.
    pub channels: BTreeMap<u32, Vec<u8>>,
    /// Channels whose barrier has yet to come.
    open: Vec<u32>,
    /// A barrier has not come on some channel and will not any more.
    broken: bool,
}

impl Recording {
    /// Of these channels.
    pub fn new(checkpoint: u64, open: Vec<u32>) -> Self {
        Recording { checkpoint, channels: BTreeMap::new(), open, broken: false }
    }

    /// Whether all barriers have come.
    pub fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether it can never be complete: its snapshot was given up elsewhere.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Looks at an item of a channel; `false` if it is the barrier itself, which has done its work.
    pub fn look_at(&mut self, channel: u32, item: &mut Item, decoder: BatchDecoder) -> Result<bool> {
        let Some(position) = self.open.iter().position(|open| *open == channel) else { return Ok(true) };
        match item {
            Item::Signal(Signal::Barrier(barrier)) if barrier.checkpoint == self.checkpoint => {
                self.open.swap_remove(position);
                return Ok(false);
            }
            Item::Signal(Signal::Barrier(barrier)) if barrier.checkpoint > self.checkpoint => {
                self.broken = true;
                self.open.clear();
            }
            Item::Signal(Signal::EndOfInput) => drop(self.open.swap_remove(position)),
            Item::Signal(_) | Item::Failed(_) => {}
            Item::Batch(batch) | Item::Rest(batch) => self.record(channel, &frame::encode(&**batch)?),
            Item::Frame(bytes) => self.record(channel, bytes),
            Item::Remote(remote) => self.record(channel, &frame::encode(&*remote.decode(decoder)?)?),
        }
        Ok(true)
    }

    fn record(&mut self, channel: u32, frame: &[u8]) {
        self.channels.entry(channel).or_default().extend_from_slice(frame);
    }
}

/// The frames in the bytes of a recorded channel.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let header =
            bytes.first_chunk::<{ frame::HEADER_BYTES }>().ok_or_else(|| frame::corrupt("it ends early"))?;
        let length = frame::HEADER_BYTES + frame::body_length(header)?;
        let (frame, rest) = bytes.split_at_checked(length).ok_or_else(|| frame::corrupt("it ends early"))?;
        frames.push(frame.to_vec());
        bytes = rest;
    }
    Ok(frames)
}

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
    /// If the barrier may overtake. `now_ms` is the time of day, in epoch milliseconds: what the barrier has waited counts from when the snapshot
    /// was triggered, so that it does not wait anew at each task on its way (as in Flink). Where clocks of hosts differ, it waits no
    /// longer than it would without their help.
    pub fn of(barrier: Barrier, now: Instant, now_ms: i64) -> Option<Self> {
        let Alignment::UnalignedAfter(timeout_ms) = barrier.alignment else { return None };
        let timeout_ms = i64::from(timeout_ms);
        let waited_ms = now_ms.saturating_sub(barrier.timestamp_ms).clamp(0, timeout_ms);
        Some(Announced { barrier, due: now + Duration::from_millis((timeout_ms - waited_ms) as u64) })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a barrier that was triggered at 10 s waits for others that come late, where it arrives at this time.
    fn wait_ms(timeout_ms: u32, now_ms: i64) -> i64 {
        let alignment = Alignment::UnalignedAfter(timeout_ms);
        let barrier = Barrier { timestamp_ms: 10_000, alignment, ..Barrier::of_checkpoint(1) };
        let now = Instant::now();
        let announced = Announced::of(barrier, now, now_ms).expect("it may overtake");
        announced.due.duration_since(now).as_millis() as i64
    }

    #[test]
    fn a_barrier_waits_no_longer_than_its_timeout_however_many_tasks_it_passes() {
        let mut now_ms = 10_000;
        for _task in 0..5 {
            now_ms += wait_ms(1_000, now_ms);
            // On its way to the next.
            now_ms += 20;
        }
        assert_eq!(now_ms, 10_000 + 1_000 + 5 * 20);
    }

    #[test]
    fn clocks_that_differ_make_no_wait_longer_than_the_timeout_and_none_negative() {
        assert_eq!(wait_ms(1_000, 10_300), 700);
        assert_eq!(wait_ms(1_000, 3_000), 1_000, "a clock that is behind");
        assert_eq!(wait_ms(1_000, i64::MIN), 1_000);
        assert_eq!(wait_ms(1_000, i64::MAX), 0);
        let aligned = Announced::of(Barrier::of_checkpoint(1), Instant::now(), 0);
        assert!(aligned.is_none());
    }
}

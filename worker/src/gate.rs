//! The input gate of a task: merges its channels into one ordered input.
//!
//! Combines watermarks (minimum over the channels that are neither idle nor ended), aligns barriers (a channel whose
//! barrier has come waits until all have), and notes the end of inputs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use flott_dataflow::batch::{BatchDecoder, ErasedBatch};
use flott_dataflow::element::{Barrier, Signal};
use flott_schema::Result;

use crate::channel::{Credit, GateQueue, Item};
use crate::exchange::inbox::RemoteInput;
use crate::exchange::spooled::RemoteSpool;
use crate::frame;
use crate::metrics::{Traffic, add};
use crate::spool::SpoolReader;

/// What a gate gives the task.
pub enum Input {
    /// A batch of a logical input.
    Batch(u16, Box<dyn ErasedBatch>),
    /// A signal, combined over all channels.
    Signal(Signal),
    /// All channels of a logical input have ended (only for tasks with several).
    InputEnded(u16),
}

/// Where a channel comes from.
pub enum Origin {
    /// A task in this process; batches give this credit back.
    Local(Arc<Credit>),
    /// A task in another executor.
    Remote(RemoteInput),
    /// A result spooled in this process.
    Spool(SpoolReader),
    /// A result spooled in another executor.
    RemoteSpool(RemoteInput, RemoteSpool),
}

/// How a channel gives back what was taken from it.
enum Returns {
    Local(Arc<Credit>),
    Remote(RemoteInput),
    Nothing,
}

/// A result that is read when its turn has come.
enum Spooled {
    Here(SpoolReader),
    There(RemoteSpool),
}

/// One channel into the gate.
struct Channel {
    input: u16,
    decoder: BatchDecoder,
    returns: Returns,
    watermark: i64,
    idle: bool,
    ended: bool,
    /// Its barrier has come; what follows waits here, its credit unreturned.
    aligned: bool,
    parked: VecDeque<Item>,
}

/// The receiving side of all edges into one task.
pub struct InputGate {
    queue: Arc<GateQueue>,
    ready: VecDeque<(u32, Item)>,
    channels: Vec<Channel>,
    spools: VecDeque<(u32, Spooled)>,
    /// What came out of one item beyond the first: an input's end, then the combined end.
    out: VecDeque<Input>,
    watermark: i64,
    idle: bool,
    barrier: Option<Barrier>,
    inputs: u16,
    traffic: Arc<Traffic>,
}

impl InputGate {
    /// A gate over `queue` without channels, which counts what comes in.
    pub fn new(queue: Arc<GateQueue>, traffic: Arc<Traffic>) -> Self {
        InputGate {
            queue,
            ready: VecDeque::new(),
            channels: Vec::new(),
            spools: VecDeque::new(),
            out: VecDeque::new(),
            watermark: i64::MIN,
            idle: false,
            barrier: None,
            inputs: 0,
            traffic,
        }
    }

    /// Adds the next channel.
    pub fn add(&mut self, input: u16, decoder: BatchDecoder, origin: Origin) {
        let number = self.channels.len() as u32;
        let (returns, spool) = match origin {
            Origin::Local(credit) => (Returns::Local(credit), None),
            Origin::Remote(input) => (Returns::Remote(input), None),
            Origin::Spool(reader) => (Returns::Nothing, Some(Spooled::Here(reader))),
            Origin::RemoteSpool(input, spool) => (Returns::Remote(input), Some(Spooled::There(spool))),
        };
        self.inputs = self.inputs.max(input + 1);
        self.channels.push(Channel {
            input,
            decoder,
            returns,
            watermark: i64::MIN,
            idle: false,
            ended: false,
            aligned: false,
            parked: VecDeque::new(),
        });
        self.spools.extend(spool.map(|spool| (number, spool)));
    }

    /// The next input.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Input>> {
        loop {
            if let Some(input) = self.out.pop_front() {
                return Poll::Ready(Ok(input));
            }
            let (channel, item) = match self.ready.pop_front() {
                Some(next) => next,
                None if self.queue.take(&mut self.ready, cx) => continue,
                None => match self.poll_spools(cx) {
                    Poll::Ready(Ok(next)) => next,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
            };
            match self.accept(channel, item) {
                Ok(Some(input)) => return Poll::Ready(Ok(input)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Spooled channels are read one after the other, each once it is complete.
    fn poll_spools(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u32, Item)>> {
        while let Some((channel, spool)) = self.spools.front_mut() {
            match spool {
                Spooled::Here(spool) => match spool.poll_next(cx) {
                    Poll::Ready(Ok(Some(item))) => return Poll::Ready(Ok((*channel, item))),
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
                Spooled::There(spool) => {
                    if !self.channels[*channel as usize].ended {
                        // What it answers comes through the queue, which wakes the task.
                        spool.request_once()?;
                        return Poll::Pending;
                    }
                }
            }
            self.spools.pop_front();
        }
        Poll::Pending
    }

    /// Takes an item in: gives its batch, or puts what follows from a signal into `out`.
    fn accept(&mut self, number: u32, item: Item) -> Result<Option<Input>> {
        let channel = &mut self.channels[number as usize];
        if channel.aligned {
            channel.parked.push_back(item);
            return Ok(None);
        }
        match (&mut channel.returns, &item) {
            (Returns::Local(credit), Item::Batch(_) | Item::Frame(_)) => credit.give_back(1),
            (Returns::Remote(input), Item::Remote(frame)) => {
                add(&self.traffic.bytes_in, frame.wire_bytes() as usize);
                input.give_back(frame);
            }
            _ => {}
        }
        if !matches!(item, Item::Signal(_) | Item::Failed(_)) {
            add(&self.traffic.batches_in, 1);
        }
        match item {
            Item::Batch(batch) => Ok(Some(Input::Batch(channel.input, batch))),
            Item::Frame(bytes) => {
                Ok(Some(Input::Batch(channel.input, frame::decode(&bytes, channel.decoder)?)))
            }
            Item::Remote(frame) => Ok(Some(Input::Batch(channel.input, frame.decode(channel.decoder)?))),
            Item::Failed(error) => Err(error),
            Item::Signal(signal) => {
                self.accept_signal(number as usize, signal);
                Ok(None)
            }
        }
    }

    fn accept_signal(&mut self, number: usize, signal: Signal) {
        let channel = &mut self.channels[number];
        match signal {
            Signal::Watermark(watermark) => {
                channel.watermark = channel.watermark.max(watermark);
                self.combine_time();
            }
            Signal::Idle(idle) => {
                channel.idle = idle;
                self.combine_time();
            }
            Signal::Barrier(barrier) => {
                channel.aligned = true;
                self.barrier = Some(barrier);
                self.align();
            }
            Signal::EndOfInput => {
                channel.ended = true;
                let input = channel.input;
                let mut of_input = self.channels.iter().filter(|channel| channel.input == input);
                if self.inputs > 1 && of_input.all(|channel| channel.ended) {
                    self.out.push_back(Input::InputEnded(input));
                }
                // An ended channel holds nothing back any more.
                self.combine_time();
                self.align();
                if self.channels.iter().all(|channel| channel.ended) {
                    self.out.push_back(Input::Signal(Signal::EndOfInput));
                }
            }
        }
    }

    /// Puts out the combined status or watermark, where it has changed.
    fn combine_time(&mut self) {
        let live = self.channels.iter().filter(|channel| !channel.ended);
        let active = live.clone().filter(|channel| !channel.idle).map(|channel| channel.watermark).min();
        if active.is_none() && live.count() > 0 {
            if !std::mem::replace(&mut self.idle, true) {
                self.out.push_back(Input::Signal(Signal::Idle(true)));
            }
            return;
        }
        if active.is_some() && std::mem::take(&mut self.idle) {
            self.out.push_back(Input::Signal(Signal::Idle(false)));
        }
        // When all have ended, the last watermark they sent stands; sources end with the final one.
        let combined = active.or_else(|| self.channels.iter().map(|channel| channel.watermark).min());
        if let Some(watermark) = combined.filter(|watermark| *watermark > self.watermark) {
            self.watermark = watermark;
            self.out.push_back(Input::Signal(Signal::Watermark(watermark)));
        }
    }

    /// Puts out the barrier when all live channels have sent it; then what waited behind it goes first.
    fn align(&mut self) {
        if self.channels.iter().any(|channel| !channel.aligned && !channel.ended) {
            return;
        }
        let Some(barrier) = self.barrier.take() else { return };
        for (number, channel) in self.channels.iter_mut().enumerate().rev() {
            channel.aligned = false;
            for item in channel.parked.drain(..).rev() {
                self.ready.push_front((number as u32, item));
            }
        }
        self.out.push_back(Input::Signal(Signal::Barrier(barrier)));
    }
}

impl Drop for InputGate {
    fn drop(&mut self) {
        self.queue.close();
        // Senders that wait for credit must not wait for a task that is gone; a remote input tells them when it is dropped.
        for channel in &self.channels {
            if let Returns::Local(credit) = &channel.returns {
                credit.abandon();
            }
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

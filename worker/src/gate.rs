//! The input gate of a task: merges its channels into one ordered input.
//!
//! Combines watermarks (minimum over the channels that are neither idle nor ended), aligns barriers (a channel whose
//! barrier has come waits until all have), and notes the end of inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use flott_dataflow::batch::{BatchDecoder, ErasedBatch};
use flott_dataflow::element::{Barrier, Signal};
use flott_schema::Result;
use flott_schema::snapshot::{Alignment, SnapshotTimes};

use crate::channel::{Credit, GateQueue, Item};
use crate::clock::Clock;
use crate::exchange::inbox::RemoteInput;
use crate::exchange::spooled::RemoteSpool;
use crate::frame;
use crate::metrics::{Traffic, add};
use crate::overtaking::{Announced, Recording, frames};
use crate::spool::SpoolReader;

/// Ids of snapshots that were given up which are remembered: of each a barrier may still be on its way.
const GIVEN_UP_KEPT: usize = 64;
/// Barriers that nothing waits for, of which some are missing, that are remembered.
const TRACKED_KEPT: usize = 64;

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
    /// The last barrier that has come.
    barrier: u64,
    parked: VecDeque<Item>,
}

/// A barrier that has come on some of the channels.
struct Aligning {
    barrier: Barrier,
    since: Instant,
    /// Bytes that were processed meanwhile.
    processed_bytes: u64,
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
    aligning: Option<Aligning>,
    /// Barriers that have come on some of the channels, and hold back nothing.
    tracked: BTreeMap<u64, Aligning>,
    /// The last barrier that was put out or given up.
    last_barrier: u64,
    /// Snapshots that were given up lately.
    given_up: BTreeSet<u64>,
    /// How the last alignment went.
    alignment: SnapshotTimes,
    /// Every barrier is aligned, whatever it says.
    strict: bool,
    /// Barriers may overtake: what comes is looked at before it is taken.
    overtaking: bool,
    /// A barrier further back in `ready` that may overtake what is in front of it.
    announced: Option<Announced>,
    /// Records that the last barrier has overtaken.
    recording: Option<Recording>,
    /// Records that the task takes at once; larger batches are taken piece by piece.
    piece: usize,
    inputs: u16,
    traffic: Arc<Traffic>,
    clock: Clock,
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
            aligning: None,
            tracked: BTreeMap::new(),
            last_barrier: 0,
            given_up: BTreeSet::new(),
            alignment: SnapshotTimes::default(),
            strict: false,
            overtaking: false,
            announced: None,
            recording: None,
            piece: usize::MAX,
            inputs: 0,
            traffic,
            clock: Clock::default(),
        }
    }

    /// The time of day is that of this clock.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Barriers neither overtake records nor are overtaken by any.
    pub fn align_strictly(&mut self) {
        self.strict = true;
    }

    /// Whether that is so.
    pub fn is_strict(&self) -> bool {
        self.strict
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
            barrier: 0,
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
                None if self.take(cx)? => continue,
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

    /// Takes what has come; `false` if that is nothing. Where barriers may overtake, nothing may be taken without a look at it.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        if !self.overtaking {
            return Ok(self.queue.take(&mut self.ready, cx));
        }
        self.look_ahead(cx)?;
        Ok(!self.ready.is_empty() || !self.out.is_empty())
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
        if !matches!(item, Item::Signal(_) | Item::Rest(_) | Item::Failed(_)) {
            add(&self.traffic.batches_in, 1);
        }
        let input = channel.input;
        let mut batch = match item {
            Item::Batch(batch) | Item::Rest(batch) => batch,
            Item::Frame(bytes) => frame::decode(&bytes, channel.decoder)?,
            Item::Remote(frame) => frame.decode(channel.decoder)?,
            Item::Failed(error) => return Err(error),
            Item::Signal(signal) => {
                self.accept_signal(number as usize, signal);
                return Ok(None);
            }
        };
        if batch.record_count() > self.piece {
            let rest = batch.split_off(self.piece);
            self.ready.push_front((number, Item::Rest(rest)));
        }
        if let Some(aligning) = &mut self.aligning {
            aligning.processed_bytes += batch.weight_bytes() as u64;
        }
        for tracked in self.tracked.values_mut() {
            tracked.processed_bytes += batch.weight_bytes() as u64;
        }
        Ok(Some(Input::Batch(input, batch)))
    }

    /// The task is so slow that it takes no more than these records at once, at least one. What is left of a batch is in front of a barrier
    /// behind it, like any other record in flight.
    pub fn take_at_once(&mut self, records: usize) {
        self.piece = records.max(1);
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
            Signal::Barrier(barrier) => self.accept_barrier(number, barrier),
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

    fn accept_barrier(&mut self, number: usize, barrier: Barrier) {
        if self.is_over(&barrier) {
            return;
        }
        self.announce(barrier, Instant::now());
        // One that comes while an older one is still missing elsewhere: that snapshot was given up.
        if self.aligning.as_ref().is_some_and(|aligning| aligning.barrier.checkpoint < barrier.checkpoint) {
            self.last_barrier = barrier.checkpoint - 1;
            self.aligning = None;
            self.go_on();
        }
        if !self.strict && barrier.alignment == Alignment::None {
            let channel = &mut self.channels[number];
            channel.barrier = channel.barrier.max(barrier.checkpoint);
            let waits = Aligning { barrier, since: Instant::now(), processed_bytes: 0 };
            self.tracked.entry(barrier.checkpoint).or_insert(waits);
            while self.tracked.len() > TRACKED_KEPT {
                self.tracked.pop_first();
            }
            return self.align();
        }
        if self.aligning.as_ref().is_some_and(|aligning| aligning.barrier.checkpoint > barrier.checkpoint) {
            return;
        }
        self.aligning.get_or_insert_with(|| Aligning { barrier, since: Instant::now(), processed_bytes: 0 });
        let channel = &mut self.channels[number];
        channel.barrier = barrier.checkpoint;
        channel.aligned = true;
        self.align();
    }

    /// Notes a barrier that may overtake what is in front of it.
    fn announce(&mut self, barrier: Barrier, now: Instant) {
        if let Some(announced) = Announced::of(barrier, now, self.clock.at_ms(now))
            && self.announced.is_none_or(|known| known.barrier.checkpoint < barrier.checkpoint)
        {
            self.announced = Some(announced);
        }
    }

    /// Whether a barrier is of a snapshot that nothing is to be done for any more.
    fn is_over(&self, barrier: &Barrier) -> bool {
        barrier.checkpoint <= self.last_barrier || self.given_up.contains(&barrier.checkpoint)
    }

    /// What waited behind barriers goes first, each channel in its order.
    fn go_on(&mut self) {
        for (number, channel) in self.channels.iter_mut().enumerate().rev() {
            channel.aligned = false;
            for item in channel.parked.drain(..).rev() {
                self.ready.push_front((number as u32, item));
            }
        }
    }

    /// Puts out barriers that all live channels have sent.
    fn align(&mut self) {
        while let Some(first) = self.tracked.first_entry() {
            let checkpoint = *first.key();
            // One that has sent a later barrier will not send this one any more.
            if self.channels.iter().any(|channel| channel.barrier < checkpoint && !channel.ended) {
                break;
            }
            let tracked = first.remove();
            self.put_out(tracked);
        }
        let Some(aligning) = &self.aligning else { return };
        let checkpoint = aligning.barrier.checkpoint;
        if self.channels.iter().any(|channel| channel.barrier != checkpoint && !channel.ended) {
            return;
        }
        let Some(aligned) = self.aligning.take() else { return };
        self.go_on();
        self.put_out(aligned);
    }

    fn put_out(&mut self, Aligning { barrier, since, processed_bytes }: Aligning) {
        let alignment_ms = since.elapsed().as_millis() as u64;
        self.alignment = SnapshotTimes { alignment_ms, processed_bytes, ..SnapshotTimes::default() };
        self.last_barrier = self.last_barrier.max(barrier.checkpoint);
        self.out.push_back(Input::Signal(Signal::Barrier(barrier)));
    }

    /// Whether a savepoint in front of this barrier, which nothing may overtake, is yet to pass.
    fn is_behind_savepoint(&self, checkpoint: u64) -> bool {
        let holds = |barrier: &Barrier| {
            barrier.kind.is_savepoint() && barrier.checkpoint < checkpoint && !self.is_over(barrier)
        };
        let is_it = |item: &Item| matches!(item, Item::Signal(Signal::Barrier(barrier)) if holds(barrier));
        self.aligning.as_ref().is_some_and(|aligning| holds(&aligning.barrier))
            || self.ready.iter().any(|(_, item)| is_it(item))
            || self.channels.iter().any(|channel| channel.parked.iter().any(is_it))
    }

    /// Looks at what has come, whether or not the task takes any of it: a barrier that may overtake does so when its time has come. Gives when
    /// that is; something further that comes wakes the task.
    pub fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<Option<Instant>> {
        self.overtaking = true;
        let seen = self.ready.len();
        self.queue.append_to(&mut self.ready, cx);
        let now = Instant::now();
        let mut kept = VecDeque::with_capacity(self.ready.len() - seen);
        for (number, mut item) in self.ready.drain(seen..) {
            if let Some(recording) = &mut self.recording
                && !recording.look_at(number, &mut item, self.channels[number as usize].decoder)?
            {
                self.channels[number as usize].barrier = recording.checkpoint;
                continue;
            }
            kept.push_back((number, item));
        }
        let seen = kept.iter().filter_map(|(_, item)| match item {
            Item::Signal(Signal::Barrier(barrier)) if !self.is_over(barrier) => Some(*barrier),
            _ => None,
        });
        let seen: Vec<Barrier> = seen.collect();
        seen.into_iter().for_each(|barrier| self.announce(barrier, now));
        self.ready.append(&mut kept);
        match self.announced {
            Some(announced) if announced.barrier.checkpoint <= self.last_barrier => self.announced = None,
            Some(announced)
                if announced.due <= now && !self.is_behind_savepoint(announced.barrier.checkpoint) =>
            {
                self.overtake(announced.barrier)?;
            }
            _ => {}
        }
        Ok(self.announced.map(|announced| announced.due))
    }

    /// Puts the barrier out now; what was sent in front of it on any channel is recorded.
    fn overtake(&mut self, barrier: Barrier) -> Result<()> {
        let checkpoint = barrier.checkpoint;
        self.announced = None;
        let (mut since, mut processed_bytes) = (None, 0);
        match self.aligning.take() {
            Some(aligning) if aligning.barrier.checkpoint == checkpoint => {
                (since, processed_bytes) = (Some(aligning.since), aligning.processed_bytes);
            }
            // A snapshot that was given up: its channels go on.
            Some(_) => self.go_on(),
            None => {}
        }
        let waits = |channel: &Channel| !channel.ended && channel.barrier != checkpoint;
        let open = (0..).zip(&self.channels).filter(|(_, channel)| waits(channel)).map(|(number, _)| number);
        let mut recording = Recording::new(checkpoint, open.collect());
        for (number, mut item) in std::mem::take(&mut self.ready) {
            let channel = &mut self.channels[number as usize];
            match recording.look_at(number, &mut item, channel.decoder)? {
                true => self.ready.push_back((number, item)),
                false => channel.barrier = checkpoint,
            }
        }
        self.last_barrier = checkpoint;
        self.recording = Some(recording);
        // What waited behind the barrier goes first, which does not matter: it is of other channels.
        self.go_on();
        self.alignment = SnapshotTimes {
            alignment_ms: since.map_or(0, |since| since.elapsed().as_millis() as u64),
            processed_bytes,
            unaligned: true,
            ..SnapshotTimes::default()
        };
        self.out.push_back(Input::Signal(Signal::Barrier(barrier)));
        Ok(())
    }

    /// Whether a barrier is next, which may pass while the task takes no records.
    pub fn next_overtaking(&mut self) -> Option<Barrier> {
        match self.out.front() {
            Some(Input::Signal(Signal::Barrier(barrier))) if self.alignment.unaligned => {
                let barrier = *barrier;
                self.out.pop_front();
                Some(barrier)
            }
            _ => None,
        }
    }

    /// The records that a barrier has overtaken, once all of them have come.
    pub fn take_recording(&mut self) -> Option<Recording> {
        if self.recording.take_if(|recording| recording.is_broken()).is_some() {
            return None;
        }
        self.recording.take_if(|recording| recording.is_complete())
    }

    /// A snapshot was given up: nothing is recorded for it any more, no channel waits for its barrier, and what comes late of it is nothing.
    pub fn give_up(&mut self, checkpoint: u64) {
        self.recording.take_if(|recording| recording.checkpoint == checkpoint);
        self.announced.take_if(|announced| announced.barrier.checkpoint == checkpoint);
        self.tracked.remove(&checkpoint);
        self.given_up.insert(checkpoint);
        while self.given_up.len() > GIVEN_UP_KEPT {
            self.given_up.pop_first();
        }
        if self.aligning.take_if(|aligning| aligning.barrier.checkpoint == checkpoint).is_some() {
            self.go_on();
        }
    }

    /// Puts recorded frames of a channel in front of what will come on it.
    pub fn restore(&mut self, number: u32, recorded: &[u8]) -> Result<()> {
        let frames = frames(recorded)?;
        self.ready.extend(frames.into_iter().map(|frame| (number, Item::Frame(frame))));
        Ok(())
    }

    /// How the alignment of the last barrier went.
    pub fn take_alignment(&mut self) -> SnapshotTimes {
        std::mem::take(&mut self.alignment)
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

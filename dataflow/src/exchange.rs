//! The sending side of an edge between tasks: spreads records over channels and fills batches.

use std::borrow::Borrow;
use std::rc::Rc;
use std::task::Context;

use flott_schema::Result;
use flott_schema::graph::Partitioning;
use flott_schema::key_group::{key_group_of, owner_of};

use crate::batch::{Batch, Record, Timestamps};
use crate::context::{TaskContext, count};
use crate::element::{Element, Signal};
use crate::function::Prototype;
use crate::key::{KeySelector, stable_hash};
use crate::stage::{Flow, Stage, StageBox};

/// One channel to one task. `send` never waits: a channel beyond its credit blocks the task's
/// [`Congestion`](crate::context::Congestion), and the task takes no further input until it is over.
pub trait ChannelWriter: Send {
    /// Appends an element.
    fn send(&mut self, element: Element) -> Result<()>;
}

/// Spreads the records of a batch over channels.
pub trait Partitioner<T> {
    /// Puts each record into its channel.
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()>;
}

/// The channels of one edge, each with the batch being filled for it.
pub struct Channels<T> {
    channels: Vec<Channel<T>>,
    limit: usize,
    held: usize,
}

struct Channel<T> {
    writer: Box<dyn ChannelWriter>,
    partial: Batch<T>,
}

impl<T: Record> Channels<T> {
    /// Number of channels.
    #[inline]
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// Adds a record to the batch of a channel.
    #[inline]
    pub fn push(&mut self, channel: usize, record: T, timestamp: i64) -> Result<()> {
        let partial = &mut self.channels[channel].partial;
        partial.push(record, timestamp);
        if partial.len() == 1 {
            self.held += 1;
        } else if partial.len() >= self.limit {
            return self.send_partial(channel);
        }
        Ok(())
    }

    /// Sends a batch as it is if it is well filled and nothing waits in front of it, else adds its records.
    pub fn push_batch(&mut self, channel: usize, mut batch: Batch<T>) -> Result<()> {
        let partial = &mut self.channels[channel].partial;
        if partial.is_empty() && batch.len() * 2 > self.limit {
            return self.channels[channel].writer.send(Element::Batch(Box::new(batch)));
        }
        if partial.is_empty() {
            self.held += usize::from(!batch.is_empty());
            *partial = batch;
            return Ok(());
        }
        let uniform = match (&partial.timestamps, &batch.timestamps) {
            (Timestamps::Same(a), Timestamps::Same(b)) => a == b,
            _ => false,
        };
        if uniform {
            partial.records.append(&mut batch.records);
        } else {
            batch.into_iter().for_each(|(record, timestamp)| partial.push(record, timestamp));
        }
        if partial.len() >= self.limit { self.send_partial(channel) } else { Ok(()) }
    }

    fn send_partial(&mut self, channel: usize) -> Result<()> {
        let channel = &mut self.channels[channel];
        // Sized by what this channel got last: a channel that is flushed early does not pay for full batches.
        let capacity = channel.partial.len().next_power_of_two().min(self.limit);
        let batch = channel.partial.take(capacity);
        self.held -= 1;
        channel.writer.send(Element::Batch(Box::new(batch)))
    }

    fn send_partials(&mut self) -> Result<()> {
        if self.held == 0 {
            return Ok(());
        }
        for channel in 0..self.channels.len() {
            if !self.channels[channel].partial.is_empty() {
                self.send_partial(channel)?;
            }
        }
        Ok(())
    }

    fn send_signal(&mut self, signal: Signal) -> Result<()> {
        self.send_partials()?;
        self.channels.iter_mut().try_for_each(|channel| channel.writer.send(Element::Signal(signal)))
    }
}

/// The last stage of a task for one edge.
pub struct EdgeOutput<T, P> {
    partitioner: P,
    channels: Channels<T>,
    task: Rc<TaskContext>,
    timeout_ms: i64,
    /// When the oldest partial batch must be sent.
    due_ms: i64,
}

impl<T: Record, P: Partitioner<T>> EdgeOutput<T, P> {
    /// An output over `writers`, in target order.
    pub fn new(
        partitioner: P,
        writers: Vec<Box<dyn ChannelWriter>>,
        task: Rc<TaskContext>,
        buffer_timeout_ms: Option<i64>,
    ) -> Self {
        let channels =
            writers.into_iter().map(|writer| Channel { writer, partial: Batch::default() }).collect();
        let timeout_ms = buffer_timeout_ms.unwrap_or(task.settings.buffer_timeout_ms);
        let limit = task.settings.batch_size;
        EdgeOutput {
            partitioner,
            channels: Channels { channels, limit, held: 0 },
            task,
            timeout_ms,
            due_ms: i64::MAX,
        }
    }

    fn note_partials(&mut self) -> Result<()> {
        if self.channels.held == 0 {
            self.due_ms = i64::MAX;
        } else if self.timeout_ms == 0 {
            return self.channels.send_partials();
        } else if self.timeout_ms > 0 && self.due_ms == i64::MAX {
            self.due_ms = self.task.now_ms().saturating_add(self.timeout_ms);
        }
        Ok(())
    }
}

impl<T: Record, P: Partitioner<T>> Stage<Batch<T>> for EdgeOutput<T, P> {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<T>) -> Result<()> {
        count(&self.task.records_sent, batch.len());
        self.partitioner.spread(batch, &mut self.channels)?;
        self.note_partials()
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        if self.task.congestion.is_congested() && !matches!(signal, Signal::Barrier(_) | Signal::Idle(_)) {
            return Ok(Flow::Again);
        }
        self.channels.send_signal(signal)?;
        self.due_ms = i64::MAX;
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        self.due_ms = i64::MAX;
        self.channels.send_partials()
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        if now_ms >= self.due_ms {
            self.flush()?;
        }
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        self.due_ms
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One target: forward, global, or any partitioning with a single task behind it.
pub struct ToFirst;

impl<T: Record> Partitioner<T> for ToFirst {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        channels.push_batch(0, batch)
    }
}

/// By the key group of the record's key.
pub struct ByKeyGroup<S> {
    selector: S,
    max_parallelism: u32,
    /// Key group to channel.
    owners: Vec<u16>,
}

impl<S> ByKeyGroup<S> {
    /// Spreads `max_parallelism` key groups over `targets` tasks.
    pub fn new(selector: S, max_parallelism: u32, targets: u32) -> Self {
        let owners =
            (0..max_parallelism).map(|group| owner_of(group, max_parallelism, targets) as u16).collect();
        ByKeyGroup { selector, max_parallelism, owners }
    }
}

impl<T: Record, S: KeySelector<T>> Partitioner<T> for ByKeyGroup<S> {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        if channels.count() == 1 {
            return channels.push_batch(0, batch);
        }
        for (record, timestamp) in batch {
            let hash = stable_hash(self.selector.key(&record).borrow());
            let group = key_group_of(hash, self.max_parallelism);
            channels.push(usize::from(self.owners[group as usize]), record, timestamp)?;
        }
        Ok(())
    }
}

/// Equal shares of each batch, beginning one channel further every time.
pub struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    /// Starts at a channel that differs between the sending tasks.
    pub fn new(subtask: u32) -> Self {
        RoundRobin { next: subtask as usize }
    }
}

impl<T: Record> Partitioner<T> for RoundRobin {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        let count = channels.count();
        let share = batch.len().div_ceil(count);
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            if index % share == 0 {
                self.next = (self.next + 1) % count;
            }
            channels.push(self.next, record, timestamp)?;
        }
        Ok(())
    }
}

/// Each record to a random channel.
pub struct AtRandom {
    state: u64,
}

impl AtRandom {
    /// A generator seeded by the sending task: repeatable for one graph.
    pub fn new(subtask: u32) -> Self {
        AtRandom { state: u64::from(subtask) + 1 }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl<T: Record> Partitioner<T> for AtRandom {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        let count = channels.count() as u64;
        for (record, timestamp) in batch {
            let channel = (self.next() % count) as usize;
            channels.push(channel, record, timestamp)?;
        }
        Ok(())
    }
}

/// Every record to every channel.
pub struct ToAll;

impl<T: Record> Partitioner<T> for ToAll {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        for channel in 1..channels.count() {
            channels.push_batch(channel, batch.clone())?;
        }
        channels.push_batch(0, batch)
    }
}

/// By a function of the job: `(record, number of targets) -> target`.
pub struct ByFunction<F>(pub F);

impl<T: Record, F: FnMut(&T, usize) -> usize> Partitioner<T> for ByFunction<F> {
    fn spread(&mut self, batch: Batch<T>, channels: &mut Channels<T>) -> Result<()> {
        let count = channels.count();
        for (record, timestamp) in batch {
            let channel = (self.0)(&record, count);
            if channel >= count {
                return Err(flott_schema::Error::user(format!(
                    "the custom partitioner chose channel {channel}, there are {count} (0 to {})",
                    count - 1
                )));
            }
            channels.push(channel, record, timestamp)?;
        }
        Ok(())
    }
}

/// Builds the output of one edge inside each sending task.
pub trait OutputFactory: Send + Sync {
    /// The output over `writers`; `targets` is the parallelism of the receiving vertex, of which pointwise edges
    /// see a part only.
    fn build(
        &self,
        task: Rc<TaskContext>,
        writers: Vec<Box<dyn ChannelWriter>>,
        max_parallelism: u32,
        buffer_timeout_ms: Option<i64>,
    ) -> Result<StageBox>;
}

/// Outputs that need nothing from the job but the type of its records.
pub struct PlainOutput<T> {
    partitioning: Partitioning,
    record: std::marker::PhantomData<fn() -> T>,
}

impl<T> PlainOutput<T> {
    /// An output with this partitioning; key group and custom need a function and have factories of their own.
    pub fn new(partitioning: Partitioning) -> Self {
        PlainOutput { partitioning, record: std::marker::PhantomData }
    }
}

fn boxed<T: Record, P: Partitioner<T> + 'static>(
    partitioner: P,
    writers: Vec<Box<dyn ChannelWriter>>,
    task: Rc<TaskContext>,
    buffer_timeout_ms: Option<i64>,
) -> StageBox {
    StageBox::new::<Batch<T>>(Box::new(EdgeOutput::new(partitioner, writers, task, buffer_timeout_ms)))
}

impl<T: Record> OutputFactory for PlainOutput<T> {
    fn build(
        &self,
        task: Rc<TaskContext>,
        writers: Vec<Box<dyn ChannelWriter>>,
        _max_parallelism: u32,
        timeout: Option<i64>,
    ) -> Result<StageBox> {
        let subtask = task.subtask;
        if writers.len() == 1 {
            return Ok(boxed::<T, _>(ToFirst, writers, task, timeout));
        }
        Ok(match self.partitioning {
            Partitioning::Global => boxed::<T, _>(ToFirst, writers, task, timeout),
            Partitioning::Broadcast => boxed::<T, _>(ToAll, writers, task, timeout),
            Partitioning::Shuffle => boxed::<T, _>(AtRandom::new(subtask), writers, task, timeout),
            _ => boxed::<T, _>(RoundRobin::new(subtask), writers, task, timeout),
        })
    }
}

/// Outputs by key group.
pub struct KeyedOutput<T, S> {
    selector: Prototype<S>,
    record: std::marker::PhantomData<fn() -> T>,
}

impl<T, S: Clone> KeyedOutput<T, S> {
    /// An output that spreads by the key that `selector` finds.
    pub fn new(selector: S) -> Self {
        KeyedOutput { selector: Prototype::new(selector), record: std::marker::PhantomData }
    }
}

impl<T: Record, S: KeySelector<T>> OutputFactory for KeyedOutput<T, S> {
    fn build(
        &self,
        task: Rc<TaskContext>,
        writers: Vec<Box<dyn ChannelWriter>>,
        max_parallelism: u32,
        timeout: Option<i64>,
    ) -> Result<StageBox> {
        let partitioner = ByKeyGroup::new(self.selector.get(), max_parallelism, writers.len() as u32);
        Ok(boxed::<T, _>(partitioner, writers, task, timeout))
    }
}

/// Outputs by a function of the job.
pub struct CustomOutput<T, F> {
    function: Prototype<F>,
    record: std::marker::PhantomData<fn() -> T>,
}

impl<T, F: Clone> CustomOutput<T, F> {
    /// An output that asks `function` for the target of each record.
    pub fn new(function: F) -> Self {
        CustomOutput { function: Prototype::new(function), record: std::marker::PhantomData }
    }
}

impl<T: Record, F: FnMut(&T, usize) -> usize + Clone + Send + 'static> OutputFactory for CustomOutput<T, F> {
    fn build(
        &self,
        task: Rc<TaskContext>,
        writers: Vec<Box<dyn ChannelWriter>>,
        _max_parallelism: u32,
        timeout: Option<i64>,
    ) -> Result<StageBox> {
        Ok(boxed::<T, _>(ByFunction(self.function.get()), writers, task, timeout))
    }
}

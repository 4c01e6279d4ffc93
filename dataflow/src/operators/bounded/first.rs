//! The first records of the stream or of each key, in order of arrival; distinct records are the first of each key.
//! They are emitted at once.

use std::borrow::Borrow;
use std::rc::Rc;
use std::task::Context;

use flott_schema::Result;

use super::ending::{Ending, holds_input};
use super::groups::Groups;
use super::order::Arrival;
use super::reduce_group::emit_first;
use super::size::SizeEstimate;
use crate::batch::{Batch, Record, Timestamps};
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::key::{Key, KeySelector, hash_keys, stable_hash};
use crate::operator::{Collector, Operator};
use crate::snapshot::{ListMode, StateBackend};
use crate::stage::Flow;
use crate::window::marked::MarkedTable;
use crate::window::saving::{LOOKED_AT_ONCE, Outgoing};

/// The record is its own key.
#[derive(Clone, Copy, Debug)]
pub struct WholeRecord;

impl<T: Key> KeySelector<T> for WholeRecord {
    type Key = T;
    type Found<'a>
        = &'a T
    where
        T: 'a;

    #[inline]
    fn key<'a>(&self, record: &'a T) -> &'a T {
        record
    }
}

/// List state of how many records a task may still let pass; frozen.
const LEFT: &str = "left";

/// Lets the first `n` records of its task pass. A task that starts from a snapshot of several lets pass as many as any of them: where it counts
/// there is one task.
pub struct FirstN<T> {
    left: usize,
    state: Option<Rc<dyn StateBackend>>,
    record: std::marker::PhantomData<fn(T)>,
}

impl<T> FirstN<T> {
    /// The first `n`.
    pub fn new(n: usize) -> Self {
        FirstN { left: n, state: None, record: std::marker::PhantomData }
    }
}

impl<T: Record> Operator for FirstN<T> {
    type In = T;
    type Out = T;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.state = ctx.state.clone();
        let Some(state) = &self.state else { return Ok(()) };
        let items = state.list_as(LEFT, "u64")?;
        let restored: Vec<u64> = items.iter().map(|item| decode_value(item)).collect::<Result<_>>()?;
        self.left = restored.into_iter().max().map_or(self.left, |left| left as usize);
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut item = Vec::new();
        encode_value(&(self.left as u64), &mut item)?;
        state.set_list(LEFT, ListMode::Split, "u64", vec![item])
    }

    fn process(&mut self, mut batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        if batch.len() > self.left {
            batch.records.truncate(self.left);
            if let Timestamps::Each(timestamps) = &mut batch.timestamps {
                timestamps.truncate(self.left);
            }
        }
        self.left -= batch.len();
        if batch.is_empty() { Ok(()) } else { out.push_batch(batch) }
    }
}

/// Counts of the records seen of each key, up to a limit of memory.
struct Seen<S: KeySelector<T>, T> {
    selector: S,
    counts: MarkedTable<S::Key, u64>,
    /// The counts in snapshots.
    rows: Outgoing<(), S::Key, u64>,
    key_size: SizeEstimate<S::Key>,
    limit_bytes: usize,
    hashes: Vec<u64>,
}

/// What is known of a record's key.
enum Verdict {
    /// Fewer than `n` records of it have been seen before.
    Wanted,
    /// `n` or more have been seen before.
    Surplus,
    /// The table is full, and does not have it.
    Unknown,
}

impl<S: KeySelector<T>, T> Seen<S, T> {
    fn new(selector: S, limit_bytes: usize) -> Self {
        Seen {
            selector,
            counts: MarkedTable::default(),
            rows: Outgoing::default(),
            key_size: SizeEstimate::default(),
            limit_bytes,
            hashes: Vec::new(),
        }
    }

    fn begin(&mut self, batch: &Batch<T>) {
        hash_keys(&self.selector, &batch.records, &mut self.hashes);
    }

    /// Judges the record at `index` of the batch that was begun.
    #[inline]
    fn judge(&mut self, index: usize, record: &T, n: usize) -> Verdict {
        let counts = &mut self.counts;
        counts.keys().prefetch_ahead(&self.hashes, index);
        let hash = self.hashes[index];
        let found = self.selector.key(record);
        let key: &S::Key = found.borrow();
        match counts.keys().find(hash, key) {
            Some(entry) if counts.keys().entries()[entry].1 >= n as u64 => Verdict::Surplus,
            Some(entry) => {
                *counts.value_mut(entry, &(), &mut self.rows) += 1;
                Verdict::Wanted
            }
            None if self.is_full() => Verdict::Unknown,
            None => {
                self.key_size.observe(key);
                self.counts.insert_new(hash, key.clone(), 1, &self.rows);
                if n == 0 { Verdict::Surplus } else { Verdict::Wanted }
            }
        }
    }

    /// Copies counts for the snapshot at hand, about so many at most.
    fn drain(&mut self, mut budget: usize) {
        let Seen { counts, rows, .. } = self;
        if rows.is_draining() && counts.drain(&(), rows, &mut budget) {
            rows.finish();
        }
    }

    fn is_full(&self) -> bool {
        let owned = self.counts.len() * (self.key_size.mean_bytes() - size_of::<S::Key>());
        self.counts.keys().memory_bytes() + owned > self.limit_bytes
    }
}

/// In front of the exchange: keeps back most of what [`FirstOfKey`] will drop. Keys that its memory has no room for
/// pass.
pub struct PreCut<S: KeySelector<T>, T> {
    n: usize,
    seen: Seen<S, T>,
}

impl<S: KeySelector<T>, T> PreCut<S, T> {
    /// Lets the first `n` records of each key pass.
    pub fn new(selector: S, n: usize, ctx: &OperatorContext) -> Self {
        PreCut { n, seen: Seen::new(selector, ctx.task.settings.operator_memory_bytes) }
    }
}

impl<S: KeySelector<T>, T: Record> Operator for PreCut<S, T> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        self.seen.begin(&batch);
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            if !matches!(self.seen.judge(index, &record, self.n), Verdict::Surplus) {
                out.collect_at(record, timestamp);
            }
        }
        Ok(())
    }
}

/// Lets the first `n` records of each key pass. In streaming execution its memory holds every key, as keyed state
/// does. In batch execution the records of keys that its memory has no room for are kept, on disk if need be, and
/// emitted at the end; there are no watermarks before the end that they could be late for.
pub struct FirstOfKey<S: KeySelector<T>, T> {
    n: usize,
    seen: Seen<S, T>,
    rest: Groups<S, T, Arrival>,
    current: Option<(u64, S::Key, usize)>,
    ending: Option<Ending>,
}

impl<S: KeySelector<T>, T: Record> FirstOfKey<S, T> {
    /// The first `n` of each key.
    pub fn new(selector: S, n: usize, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes / 2;
        let table_bytes = if ctx.task.is_batch() { limit_bytes } else { usize::MAX };
        FirstOfKey {
            n,
            seen: Seen::new(selector.clone(), table_bytes),
            rest: Groups::new(selector, Arrival, ctx, limit_bytes),
            current: None,
            ending: ctx.task.is_batch().then(Ending::default),
        }
    }
}

impl<S: KeySelector<T>, T: Record> Operator for FirstOfKey<S, T> {
    type In = T;
    type Out = T;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        let Seen { counts, rows, .. } = &mut self.seen;
        rows.open(ctx, "seen", |rows, (), key, count| {
            counts.insert_restored(stable_hash(&key), key, count, rows);
            Ok(())
        })
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        if self.ending.is_some() {
            return Err(holds_input());
        }
        self.seen.drain(usize::MAX);
        self.seen.rows.freeze();
        self.seen.counts.begin_drain();
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>, _out: &mut Collector<T>) -> Result<Flow> {
        self.seen.drain(LOOKED_AT_ONCE);
        Ok(Flow::Done)
    }

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        self.seen.begin(&batch);
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            match self.seen.judge(index, &record, self.n) {
                Verdict::Wanted => out.collect_at(record, timestamp),
                Verdict::Surplus => {}
                Verdict::Unknown => self.rest.push(self.seen.hashes[index], record, timestamp)?,
            }
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        if signal == Signal::EndOfInput {
            // Nobody polls a task that has ended.
            self.seen.drain(usize::MAX);
        }
        let FirstOfKey { n, rest, current, ending, .. } = self;
        match ending {
            Some(ending) => ending.signal(signal, out, |out, pace| emit_first(rest, current, *n, out, pace)),
            None => out.signal(signal),
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        match self.seen.rows.is_draining() {
            true => i64::MIN,
            false => self.ending.as_ref().map_or(i64::MAX, Ending::next_deadline_ms),
        }
    }
}

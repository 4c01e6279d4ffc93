//! One aggregate for each key: in part in front of the exchange, whole behind it.

use std::borrow::Borrow;
use std::marker::PhantomData;

use flott_schema::Result;

use super::ending::{Ending, Pace, holds_input};
use super::groups::Groups;
use super::order::Arrival;
use super::size::SizeEstimate;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::key::{Key, KeySelector, hash_keys, stable_hash};
use crate::operator::{Collector, Operator};
use crate::stage::Flow;
use crate::state::KeyTable;
use crate::time::AggregateFunction;

/// Finds the key in a pair of key and value.
#[derive(Clone, Copy, Debug)]
pub struct KeyOfPair;

impl<K: Key, V: 'static> KeySelector<(K, V)> for KeyOfPair {
    type Key = K;
    type Found<'a>
        = &'a K
    where
        (K, V): 'a;

    #[inline]
    fn key<'a>(&self, record: &'a (K, V)) -> &'a K {
        &record.0
    }
}

/// Counts records.
pub struct CountRecords<T>(PhantomData<fn(T)>);

impl<T> Default for CountRecords<T> {
    fn default() -> Self {
        CountRecords(PhantomData)
    }
}

impl<T> Clone for CountRecords<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: 'static> AggregateFunction for CountRecords<T> {
    type In = T;
    type Accumulator = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, accumulator: &mut u64, _record: T) {
        *accumulator += 1;
    }

    fn merge(&self, accumulator: &mut u64, other: &u64) {
        *accumulator += other;
    }

    fn result(&self, accumulator: &u64) -> u64 {
        *accumulator
    }
}

/// Accumulators with the largest timestamp of what went into them, by key.
struct Accumulators<K, A> {
    table: KeyTable<K, (A, i64)>,
    key_size: SizeEstimate<K>,
    accumulator_size: SizeEstimate<A>,
}

impl<K: Key, A: Record> Accumulators<K, A> {
    fn new() -> Self {
        Accumulators {
            table: KeyTable::default(),
            key_size: SizeEstimate::default(),
            accumulator_size: SizeEstimate::default(),
        }
    }

    /// Memory held, bytes; accumulators may grow, so they are looked at whenever they change.
    fn memory_bytes(&self) -> usize {
        let owned =
            self.key_size.mean_bytes() - size_of::<K>() + self.accumulator_size.mean_bytes() - size_of::<A>();
        self.table.memory_bytes() + self.table.len() * owned
    }

    /// Changes the accumulator of a key; `false` if there is none.
    #[inline]
    fn change(&mut self, hash: u64, key: &K, timestamp: i64, change: impl FnOnce(&mut A)) -> bool {
        let Some(entry) = self.table.find(hash, key) else { return false };
        let (accumulator, largest) = self.table.value_mut(entry);
        change(accumulator);
        *largest = timestamp.max(*largest);
        self.accumulator_size.observe(accumulator);
        true
    }

    fn insert(&mut self, hash: u64, key: K, accumulator: A, timestamp: i64) {
        self.key_size.observe(&key);
        self.accumulator_size.observe(&accumulator);
        self.table.insert_new(hash, key, (accumulator, timestamp));
    }
}

type Entries<K, A> = std::vec::IntoIter<(K, (A, i64))>;

/// In front of the exchange: emits accumulators, most keys once. Keys that its memory has no room for are emitted
/// record by record.
pub struct PreAggregate<S: KeySelector<A::In>, A: AggregateFunction> {
    selector: S,
    function: A,
    accumulators: Accumulators<S::Key, A::Accumulator>,
    limit_bytes: usize,
    hashes: Vec<u64>,
    emitting: Option<Entries<S::Key, A::Accumulator>>,
    ending: Ending,
}

impl<S: KeySelector<A::In>, A: AggregateFunction> PreAggregate<S, A> {
    /// Aggregates with `function`.
    pub fn new(selector: S, function: A, ctx: &OperatorContext) -> Self {
        PreAggregate {
            selector,
            function,
            accumulators: Accumulators::new(),
            limit_bytes: ctx.task.settings.operator_memory_bytes,
            hashes: Vec::new(),
            emitting: None,
            ending: Ending::default(),
        }
    }
}

impl<S, A> Operator for PreAggregate<S, A>
where
    S: KeySelector<A::In>,
    A: AggregateFunction,
    A::In: Record,
{
    type In = A::In;
    type Out = (S::Key, A::Accumulator);

    fn process(&mut self, batch: Batch<A::In>, out: &mut Collector<Self::Out>) -> Result<()> {
        let PreAggregate { selector, function, accumulators, hashes, .. } = self;
        hash_keys(selector, &batch.records, hashes);
        let is_full = accumulators.memory_bytes() > self.limit_bytes;
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            accumulators.table.prefetch_ahead(hashes, index);
            let hash = hashes[index];
            let entry = accumulators.table.find(hash, selector.key(&record).borrow());
            if let Some(entry) = entry {
                let (accumulator, largest) = accumulators.table.value_mut(entry);
                function.add(accumulator, record);
                *largest = timestamp.max(*largest);
                accumulators.accumulator_size.observe(accumulator);
                continue;
            }
            let key = {
                let found = selector.key(&record);
                let key: &S::Key = found.borrow();
                key.clone()
            };
            let mut accumulator = function.create();
            function.add(&mut accumulator, record);
            match is_full {
                true => out.collect_at((key, accumulator), timestamp),
                false => accumulators.insert(hash, key, accumulator, timestamp),
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<Self::Out>) -> Result<Flow> {
        let PreAggregate { accumulators, emitting, ending, .. } = self;
        ending.signal(signal, out, |out, pace| {
            let entries = emitting.get_or_insert_with(|| accumulators.table.take_entries().into_iter());
            for (key, (accumulator, timestamp)) in entries {
                out.collect_at((key, accumulator), timestamp);
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

/// Behind the exchange: merges accumulators, and emits one result for each key.
pub struct FinalAggregate<K: Key, A: AggregateFunction> {
    function: A,
    accumulators: Accumulators<K, A::Accumulator>,
    limit_bytes: usize,
    hashes: Vec<u64>,
    /// What did not fit into memory.
    spilled: Option<Groups<KeyOfPair, (K, A::Accumulator), Arrival>>,
    emitting: Option<Entries<K, A::Accumulator>>,
    ending: Ending,
    ctx: OperatorContext,
}

impl<K: Key, A: AggregateFunction> FinalAggregate<K, A> {
    /// Aggregates with `function`.
    pub fn new(function: A, ctx: &OperatorContext) -> Self {
        FinalAggregate {
            function,
            accumulators: Accumulators::new(),
            limit_bytes: ctx.task.settings.operator_memory_bytes / 2,
            hashes: Vec::new(),
            spilled: None,
            emitting: None,
            ending: Ending::default(),
            ctx: ctx.clone(),
        }
    }

    /// Moves the table to where there is room for it.
    fn spill(&mut self) -> Result<()> {
        let (ctx, limit_bytes) = (&self.ctx, self.limit_bytes);
        let spilled = self.spilled.get_or_insert_with(|| Groups::new(KeyOfPair, Arrival, ctx, limit_bytes));
        for (key, (accumulator, timestamp)) in self.accumulators.table.take_entries() {
            spilled.push(stable_hash(&key), (key, accumulator), timestamp)?;
        }
        Ok(())
    }
}

/// Emits one result for each key of `groups`.
fn emit_merged<K: Key, A: AggregateFunction>(
    function: &A,
    groups: &mut Groups<KeyOfPair, (K, A::Accumulator), Arrival>,
    out: &mut Collector<(K, A::Out)>,
    pace: &mut Pace,
) -> Result<Flow>
where
    A::Out: Record,
{
    if groups.prepare(pace)? == Flow::Again {
        return Ok(Flow::Again);
    }
    while let Some((hash, key)) = groups.head_key() {
        let Some(((_, mut accumulator), mut largest)) = groups.take()? else { break };
        while let Some(((_, other), timestamp)) = groups.take_of(hash, &key)? {
            function.merge(&mut accumulator, &other);
            largest = largest.max(timestamp);
        }
        out.collect_at((key, function.result(&accumulator)), largest);
        if pace.must_pause(1, out) {
            return Ok(Flow::Again);
        }
    }
    Ok(Flow::Done)
}

impl<K: Key, A: AggregateFunction> Operator for FinalAggregate<K, A>
where
    A::Out: Record,
{
    type In = (K, A::Accumulator);
    type Out = (K, A::Out);

    fn process(&mut self, batch: Batch<Self::In>, _out: &mut Collector<Self::Out>) -> Result<()> {
        let FinalAggregate { function, accumulators, hashes, .. } = self;
        hash_keys(&KeyOfPair, &batch.records, hashes);
        for (index, ((key, added), timestamp)) in batch.into_iter().enumerate() {
            accumulators.table.prefetch_ahead(hashes, index);
            if !accumulators.change(hashes[index], &key, timestamp, |so_far| function.merge(so_far, &added)) {
                accumulators.insert(hashes[index], key, added, timestamp);
            }
        }
        if self.accumulators.memory_bytes() > self.limit_bytes { self.spill() } else { Ok(()) }
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<Self::Out>) -> Result<Flow> {
        if signal == Signal::EndOfInput && self.spilled.is_some() && !self.accumulators.table.is_empty() {
            self.spill()?;
        }
        let FinalAggregate { function, accumulators, spilled, emitting, ending, .. } = self;
        ending.signal(signal, out, |out, pace| {
            if let Some(groups) = spilled {
                return emit_merged(function, groups, out, pace);
            }
            let entries = emitting.get_or_insert_with(|| accumulators.table.take_entries().into_iter());
            for (key, (accumulator, timestamp)) in entries {
                out.collect_at((key, function.result(&accumulator)), timestamp);
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
            Ok(Flow::Done)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

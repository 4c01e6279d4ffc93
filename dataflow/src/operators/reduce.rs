//! Reducing the records of a key: rolling (every update), final (once at the end), and the pre-aggregation in front
//! of the exchange that a final reduce allows.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use flott_schema::Result;

use crate::batch::{Batch, Record};
use crate::context::{OperatorContext, TaskContext};
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::exchange::{ChannelWriter, KeyedOutput, OutputFactory};
use crate::function::{Function, Prototype};
use crate::key::{Key, KeySelector, hash_keys, key_of, stable_hash};
use crate::operator::{Collector, Operator, OperatorStage, SideOutputs};
use crate::operators::bounded::ending::Ending;
use crate::operators::bounded::size::{SAMPLED_OF_SLICE, mean_owned_bytes_of};
use crate::stage::{Flow, StageBox};
use crate::state::{StoredTable, UpdateTable};

/// What a reduce needs of the table of its values.
trait Values<K, V> {
    fn is_large(&self) -> bool;
    fn prefetch_ahead(&self, hashes: &[u64], index: usize);
    fn find(&self, hash: u64, key: &K) -> Option<usize>;
    fn value_mut(&mut self, position: usize) -> &mut V;
    fn insert_new(&mut self, hash: u64, key: K, value: V);
    /// Whether a key of this batch that is not found has no value.
    fn is_known(&self) -> bool;
    /// Gets the values of those of these keys that are not found, after which they are known.
    fn fetch<Q: Borrow<K>>(&mut self, keys: impl Iterator<Item = (u64, Q)>) -> Result<()>;
}

impl<K: Key, V> Values<K, V> for UpdateTable<K, V> {
    fn is_large(&self) -> bool {
        self.is_large()
    }

    #[inline(always)]
    fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        self.prefetch_ahead(hashes, index);
    }

    #[inline(always)]
    fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.find(hash, key)
    }

    #[inline(always)]
    fn value_mut(&mut self, position: usize) -> &mut V {
        self.value_mut(position)
    }

    fn insert_new(&mut self, hash: u64, key: K, value: V) {
        self.insert_new(hash, key, value);
    }

    #[inline(always)]
    fn is_known(&self) -> bool {
        true
    }

    fn fetch<Q: Borrow<K>>(&mut self, _keys: impl Iterator<Item = (u64, Q)>) -> Result<()> {
        Ok(())
    }
}

impl<K: Key, V: Record> Values<K, V> for StoredTable<K, V> {
    fn is_large(&self) -> bool {
        self.is_large()
    }

    #[inline(always)]
    fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        self.prefetch_ahead(hashes, index);
    }

    #[inline(always)]
    fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.find(hash, key)
    }

    #[inline(always)]
    fn value_mut(&mut self, position: usize) -> &mut V {
        self.value_mut(position)
    }

    fn insert_new(&mut self, hash: u64, key: K, value: V) {
        self.insert_new(hash, key, value);
    }

    #[inline(always)]
    fn is_known(&self) -> bool {
        self.is_known()
    }

    fn fetch<Q: Borrow<K>>(&mut self, keys: impl Iterator<Item = (u64, Q)>) -> Result<()> {
        self.fetch(keys)
    }
}

/// Reduces a batch into the table; `seen` sees each record with the reduced value of its key.
#[inline(always)]
fn reduce_batch<S: KeySelector<T>, T: Clone>(
    selector: &S,
    table: &mut impl Values<S::Key, T>,
    hashes: &mut Vec<u64>,
    records: &mut [T],
    reduce: &mut impl FnMut(&mut T, &mut T),
    mut seen: impl FnMut(&mut T, &T),
) -> Result<()> {
    // What fits the caches is quickest in one go; what does not, is fetched ahead.
    let large = table.is_large();
    if large {
        hash_keys(selector, records, hashes);
    }
    let mut first = 0;
    loop {
        let rest = &mut records[first..];
        first += if large {
            let hashes = &hashes[first..];
            reduce_known(selector, table, rest, reduce, &mut seen, |table, index, _| {
                table.prefetch_ahead(hashes, index);
                hashes[index]
            })
        } else {
            reduce_known(selector, table, rest, reduce, &mut seen, |_, _, record| {
                stable_hash(selector.key(record).borrow())
            })
        };
        let rest = &records[first..];
        if rest.is_empty() {
            return Ok(());
        }
        table.fetch(rest.iter().map(|record| {
            let key = selector.key(record);
            (stable_hash(key.borrow()), key)
        }))?;
    }
}

/// Reduces records up to the first of a key that has to be fetched; gives the number of those before it.
#[inline(always)]
fn reduce_known<S: KeySelector<T>, T: Clone, V: Values<S::Key, T>>(
    selector: &S,
    table: &mut V,
    records: &mut [T],
    reduce: &mut impl FnMut(&mut T, &mut T),
    seen: &mut impl FnMut(&mut T, &T),
    hash_of: impl Fn(&V, usize, &T) -> u64,
) -> usize {
    let count = records.len();
    for (index, record) in records.iter_mut().enumerate() {
        let hash = hash_of(table, index, record);
        let found = table.find(hash, selector.key(record).borrow());
        match found {
            Some(position) => {
                let value = table.value_mut(position);
                reduce(value, record);
                seen(record, value);
            }
            None if table.is_known() => insert(selector, table, hash, record),
            None => return index,
        }
    }
    count
}

/// The first record of a key is its value.
#[cold]
fn insert<S: KeySelector<T>, T: Clone>(
    selector: &S,
    table: &mut impl Values<S::Key, T>,
    hash: u64,
    record: &T,
) {
    table.insert_new(hash, key_of(selector, record), record.clone());
}

/// Emits the reduced value after every record. Its state is the table `reduced`.
pub struct RollingReduce<S: KeySelector<T>, T, F> {
    selector: S,
    table: StoredTable<S::Key, T>,
    hashes: Vec<u64>,
    reduce: F,
}

impl<S: KeySelector<T>, T: Record, F> RollingReduce<S, T, F> {
    /// Reduces with `reduce`.
    pub fn new(selector: S, reduce: F) -> Self {
        RollingReduce { selector, table: StoredTable::default(), hashes: Vec::new(), reduce }
    }
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, &mut T)> Operator for RollingReduce<S, T, F> {
    type In = T;
    type Out = T;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.table.open(ctx, "reduced")
    }

    fn process(&mut self, mut batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        let RollingReduce { selector, table, hashes, reduce } = self;
        let records = &mut batch.records;
        // The batch that came in goes out: each record becomes the value so far of its key.
        let emit = |record: &mut T, value: &T| record.clone_from(value);
        match table.untracked() {
            Some(table) => reduce_batch(selector, table, hashes, records, reduce, emit)?,
            None => {
                table.begin_batch(records.len())?;
                reduce_batch(selector, table, hashes, records, reduce, emit)?;
                table.drain_some(records.len());
            }
        }
        out.push_batch(batch)
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        if signal == Signal::EndOfInput {
            // Nobody polls a task that has ended.
            self.table.drain(usize::MAX);
        }
        out.signal(signal)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        self.table.freeze();
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>, _out: &mut Collector<T>) -> Result<Flow> {
        self.table.drain_some(0);
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.table.is_draining() { i64::MIN } else { i64::MAX }
    }
}

/// Emits the reduced value of each key once, at the end of the input, with the final timestamp as in Flink. In front of
/// an exchange, also whenever its table is full: then what it emits is reduced again behind the exchange.
pub struct FinalReduce<S: KeySelector<T>, T, F> {
    selector: S,
    table: UpdateTable<S::Key, T>,
    hashes: Vec<u64>,
    reduce: F,
    /// Emit everything beyond this many bytes of table.
    limit_bytes: usize,
    /// What an entry owns besides its own size: a moving mean of samples of the table, bytes.
    owned_bytes: usize,
    batches: usize,
    emitting: std::vec::IntoIter<(S::Key, T)>,
    ending: Ending,
}

impl<S: KeySelector<T>, T: Record, F> FinalReduce<S, T, F> {
    /// Behind the exchange: keeps every key until the end.
    pub fn new(selector: S, reduce: F) -> Self {
        Self::with_limit(selector, reduce, usize::MAX)
    }

    /// In front of the exchange: a pre-aggregation that keeps about `limit_bytes`.
    pub fn with_limit(selector: S, reduce: F, limit_bytes: usize) -> Self {
        FinalReduce {
            selector,
            table: UpdateTable::default(),
            hashes: Vec::new(),
            reduce,
            limit_bytes,
            owned_bytes: 0,
            batches: 0,
            emitting: Vec::new().into_iter(),
            ending: Ending::default(),
        }
    }

    /// Whether the table holds more than it may. Looks at a few entries, once a batch: values may grow as they are reduced.
    fn is_full(&mut self) -> bool {
        if self.limit_bytes == usize::MAX {
            return false;
        }
        let table = &self.table;
        let owned_bytes = mean_owned_bytes_of(table.sample(self.batches, SAMPLED_OF_SLICE));
        self.owned_bytes = match self.batches {
            0 => owned_bytes,
            _ => (self.owned_bytes * 3 + owned_bytes) / 4,
        };
        self.batches = self.batches.wrapping_add(1);
        table.memory_bytes() + table.len() * self.owned_bytes > self.limit_bytes
    }
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, &mut T)> Operator for FinalReduce<S, T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, mut batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        let FinalReduce { selector, table, hashes, reduce, .. } = self;
        reduce_batch(selector, table, hashes, &mut batch.records, reduce, |_, _| {})?;
        if self.is_full() {
            for (_, value) in self.table.take_entries() {
                out.collect_at(value, MAX_WATERMARK);
            }
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        let FinalReduce { table, emitting, ending, .. } = self;
        ending.signal(signal, out, |out, pace| {
            if !table.is_empty() {
                *emitting = table.take_entries().into_iter();
            }
            for (_, value) in emitting {
                out.collect_at(value, MAX_WATERMARK);
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

/// Rolling in streaming execution, final in batch execution.
pub enum ReduceByKey<S: KeySelector<T>, T, F> {
    /// Every update.
    Rolling(RollingReduce<S, T, F>),
    /// Once at the end.
    Final(FinalReduce<S, T, F>),
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, &mut T)> Operator for ReduceByKey<S, T, F> {
    type In = T;
    type Out = T;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.open(ctx),
            ReduceByKey::Final(reduce) => reduce.open(ctx),
        }
    }

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.process(batch, out),
            ReduceByKey::Final(reduce) => reduce.process(batch, out),
        }
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.signal(signal, out),
            ReduceByKey::Final(reduce) => reduce.signal(signal, out),
        }
    }

    fn snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.snapshot(barrier),
            ReduceByKey::Final(reduce) => reduce.snapshot(barrier),
        }
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>, out: &mut Collector<T>) -> Result<Flow> {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.poll(now_ms, cx, out),
            ReduceByKey::Final(reduce) => reduce.poll(now_ms, cx, out),
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        match self {
            ReduceByKey::Rolling(reduce) => reduce.next_deadline_ms(),
            ReduceByKey::Final(reduce) => reduce.next_deadline_ms(),
        }
    }
}

/// The sending side of a keyed edge in front of a reduce: in batch execution it reduces before it sends, so that a
/// key crosses the exchange once a task instead of once a record.
pub struct CombiningOutput<T, S, F> {
    selector: Arc<Prototype<S>>,
    reduce: Arc<Prototype<F>>,
    record: PhantomData<fn(T)>,
}

impl<T, S, F> CombiningOutput<T, S, F> {
    /// An output that may reduce with `reduce` first.
    pub fn new(selector: Arc<Prototype<S>>, reduce: Arc<Prototype<F>>) -> Self {
        CombiningOutput { selector, reduce, record: PhantomData }
    }
}

impl<T, S, F> OutputFactory for CombiningOutput<T, S, F>
where
    T: Record,
    S: KeySelector<T>,
    F: FnMut(&mut T, &mut T) + Function,
{
    fn build(
        &self,
        task: Rc<TaskContext>,
        writers: Vec<Box<dyn ChannelWriter>>,
        max_parallelism: u32,
        timeout: Option<i64>,
    ) -> Result<StageBox> {
        let edge = KeyedOutput::<T, S>::new(self.selector.get()).build(
            task.clone(),
            writers,
            max_parallelism,
            timeout,
        )?;
        if !task.is_batch() {
            return Ok(edge);
        }
        let reduce = FinalReduce::with_limit(
            self.selector.get(),
            self.reduce.get(),
            task.settings.operator_memory_bytes,
        );
        let ctx = OperatorContext::new(task, "pre-aggregation", "pre-aggregation");
        let out = Collector::new(ctx, edge.typed()?, SideOutputs::default());
        Ok(StageBox::new::<Batch<T>>(Box::new(OperatorStage::new(reduce, out))))
    }
}

#[cfg(test)]
mod tests;

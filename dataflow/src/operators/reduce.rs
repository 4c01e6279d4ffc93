//! Reducing the records of a key: rolling (every update), final (once at the end), and the pre-aggregation in front
//! of the exchange that a final reduce allows.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use flott_schema::Result;

use crate::batch::{Batch, Record};
use crate::context::{OperatorContext, TaskContext};
use crate::element::{MAX_WATERMARK, Signal};
use crate::exchange::{ChannelWriter, KeyedOutput, OutputFactory};
use crate::function::{Function, Prototype};
use crate::key::{KeySelector, hash_keys, key_of, stable_hash};
use crate::operator::{Collector, Operator, OperatorStage, SideOutputs};
use crate::operators::bounded::ending::Ending;
use crate::operators::bounded::size::{SAMPLED_OF_SLICE, mean_owned_bytes_of};
use crate::stage::{Flow, StageBox};
use crate::state::UpdateTable;

/// A table of reduced records and the scratch a batch needs.
struct Reduced<S: KeySelector<T>, T> {
    selector: S,
    table: UpdateTable<S::Key, T>,
    hashes: Vec<u64>,
}

impl<S: KeySelector<T>, T: Clone> Reduced<S, T> {
    fn new(selector: S) -> Self {
        Reduced { selector, table: UpdateTable::default(), hashes: Vec::new() }
    }

    /// Reduces a batch into the table; `seen` sees each record with the reduced value of its key.
    #[inline(always)]
    fn reduce_batch(
        &mut self,
        records: &mut [T],
        reduce: &mut impl FnMut(&mut T, &mut T),
        mut seen: impl FnMut(&mut T, &T),
    ) {
        let Reduced { selector, table, hashes } = self;
        let mut update = |table: &mut UpdateTable<S::Key, T>, hash: u64, record: &mut T| {
            let found = table.find(hash, selector.key(record).borrow());
            match found {
                Some(position) => {
                    let value = table.value_mut(position);
                    reduce(value, record);
                    seen(record, value);
                }
                None => insert(selector, table, hash, record),
            }
        };
        // What fits the caches is quickest in one go; what does not, is fetched ahead.
        if table.is_large() {
            hash_keys(selector, records, hashes);
            for (index, record) in records.iter_mut().enumerate() {
                table.prefetch_ahead(hashes, index);
                update(table, hashes[index], record);
            }
        } else {
            for record in records {
                let hash = stable_hash(selector.key(record).borrow());
                update(table, hash, record);
            }
        }
    }
}

/// The first record of a key is its value.
#[cold]
fn insert<S: KeySelector<T>, T: Clone>(
    selector: &S,
    table: &mut UpdateTable<S::Key, T>,
    hash: u64,
    record: &T,
) {
    table.insert_new(hash, key_of(selector, record), record.clone());
}

/// Emits the reduced value after every record.
pub struct RollingReduce<S: KeySelector<T>, T, F> {
    reduced: Reduced<S, T>,
    reduce: F,
}

impl<S: KeySelector<T>, T: Record, F> RollingReduce<S, T, F> {
    /// Reduces with `reduce`.
    pub fn new(selector: S, reduce: F) -> Self {
        RollingReduce { reduced: Reduced::new(selector), reduce }
    }
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, &mut T)> Operator for RollingReduce<S, T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, mut batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        // The batch that came in goes out: each record becomes the value so far of its key.
        self.reduced
            .reduce_batch(&mut batch.records, &mut self.reduce, |record, value| record.clone_from(value));
        out.push_batch(batch)
    }
}

/// Emits the reduced value of each key once, at the end of the input, with the final timestamp as in Flink. In front of
/// an exchange, also whenever its table is full: then what it emits is reduced again behind the exchange.
pub struct FinalReduce<S: KeySelector<T>, T, F> {
    reduced: Reduced<S, T>,
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
            reduced: Reduced::new(selector),
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
        let table = &self.reduced.table;
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
        self.reduced.reduce_batch(&mut batch.records, &mut self.reduce, |_, _| {});
        if self.is_full() {
            for (_, value) in self.reduced.table.take_entries() {
                out.collect_at(value, MAX_WATERMARK);
            }
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        let FinalReduce { reduced, emitting, ending, .. } = self;
        ending.signal(signal, out, |out, pace| {
            if !reduced.table.is_empty() {
                *emitting = reduced.table.take_entries().into_iter();
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

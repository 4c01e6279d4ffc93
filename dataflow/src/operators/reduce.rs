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
use crate::key::{KeySelector, hash_keys};
use crate::operator::{Collector, Operator, OperatorStage, SideOutputs};
use crate::operators::bounded::ending::Ending;
use crate::stage::{Flow, StageBox};
use crate::state::{KeyTable, MISSING};

/// A table of reduced records and the scratch a batch needs.
struct Reduced<S: KeySelector<T>, T> {
    selector: S,
    table: KeyTable<S::Key, T>,
    hashes: Vec<u64>,
    found: Vec<u32>,
}

impl<S: KeySelector<T>, T> Reduced<S, T> {
    fn new(selector: S) -> Self {
        Reduced { selector, table: KeyTable::default(), hashes: Vec::new(), found: Vec::new() }
    }

    /// Finds the keys of a batch.
    fn begin(&mut self, records: &[T]) {
        hash_keys(&self.selector, records, &mut self.hashes);
        let keys = records.iter().map(|record| self.selector.key(record));
        self.table.find_all(&self.hashes, keys, &mut self.found);
    }

    /// Reduces the record at `index` of the batch that was begun; gives the reduced value.
    #[inline(always)]
    fn reduce(&mut self, index: usize, record: T, reduce: &mut impl FnMut(&mut T, T)) -> &mut T {
        match self.found[index] {
            MISSING => self.reduce_new(index, record, reduce),
            entry => {
                let value = self.table.value_mut(entry as usize);
                reduce(value, record);
                value
            }
        }
    }

    /// A key that was not in the table when the batch began; a record before may have brought it.
    #[cold]
    fn reduce_new(&mut self, index: usize, record: T, reduce: &mut impl FnMut(&mut T, T)) -> &mut T {
        let hash = self.hashes[index];
        let found = self.table.find(hash, self.selector.key(&record).borrow());
        match found {
            Some(entry) => {
                let value = self.table.value_mut(entry);
                reduce(value, record);
                value
            }
            None => self.insert(hash, record),
        }
    }

    fn insert(&mut self, hash: u64, record: T) -> &mut T {
        let key = {
            let key = self.selector.key(&record);
            let key: &S::Key = key.borrow();
            key.clone()
        };
        let entry = self.table.insert_new(hash, key, record);
        self.table.value_mut(entry)
    }
}

/// Emits the reduced value after every record.
pub struct RollingReduce<S: KeySelector<T>, T, F> {
    reduced: Reduced<S, T>,
    reduce: F,
}

impl<S: KeySelector<T>, T, F> RollingReduce<S, T, F> {
    /// Reduces with `reduce`.
    pub fn new(selector: S, reduce: F) -> Self {
        RollingReduce { reduced: Reduced::new(selector), reduce }
    }
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, T)> Operator for RollingReduce<S, T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        let Batch { records, timestamps } = batch;
        self.reduced.begin(&records);
        // Collected in place: the batch that came in goes out.
        let update = |(index, record)| self.reduced.reduce(index, record, &mut self.reduce).clone();
        let records = records.into_iter().enumerate().map(update).collect();
        out.push_batch(Batch { records, timestamps })
    }
}

/// Emits the reduced value of each key once, at the end of the input, with the final timestamp as in Flink. In front of
/// an exchange, also whenever its table is full: then what it emits is reduced again behind the exchange.
pub struct FinalReduce<S: KeySelector<T>, T, F> {
    reduced: Reduced<S, T>,
    reduce: F,
    /// Emit everything beyond this many bytes of table.
    limit_bytes: usize,
    emitting: std::vec::IntoIter<(S::Key, T)>,
    ending: Ending,
}

impl<S: KeySelector<T>, T, F> FinalReduce<S, T, F> {
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
            emitting: Vec::new().into_iter(),
            ending: Ending::default(),
        }
    }
}

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, T)> Operator for FinalReduce<S, T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        self.reduced.begin(&batch.records);
        for (index, record) in batch.records.into_iter().enumerate() {
            self.reduced.reduce(index, record, &mut self.reduce);
        }
        if self.limit_bytes != usize::MAX && self.reduced.table.memory_bytes() > self.limit_bytes {
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

impl<S: KeySelector<T>, T: Record, F: FnMut(&mut T, T)> Operator for ReduceByKey<S, T, F> {
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
    F: FnMut(&mut T, T) + Function,
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

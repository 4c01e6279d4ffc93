//! The DataSet vocabulary on one stream. What is emitted at the end of the input is meaningful on bounded streams
//! only, and the same in streaming and in batch execution.

use std::cmp::Ordering;
use std::ops::AddAssign;

use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::function::{Function, Prototype};
use crate::key::{ByValue, Key, KeySelector};
use crate::operators::bounded::aggregate::{CountRecords, FinalAggregate, KeyOfPair, PreAggregate};
use crate::operators::bounded::all::{AggregatePart, AggregateWhole, ReduceAll};
use crate::operators::bounded::first::{FirstN, FirstOfKey, PreCut, WholeRecord};
use crate::operators::bounded::map_partition::MapPartition;
use crate::operators::bounded::order::{Arrival, ByFunction, ByValueOf, Comparator, Order};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::reduce_group::{FirstOfSorted, ReduceGroup};
use crate::operators::bounded::results::Results;
use crate::operators::bounded::sort_partition::SortPartition;
use crate::operators::reducers;
use crate::time::AggregateFunction;

impl<T: Record> DataStream<T> {
    /// Gives the operator behind this stream the parallelism of the one before it, so that both share a task: work
    /// that is done to send less must not be sent elsewhere first.
    fn in_place<O: Record>(&self, stream: DataStream<O>) -> DataStream<O> {
        let [upstream] = self.upstreams() else { return stream };
        let (mut parallelism, mut single) = (None, false);
        if upstream.partitioning.is_none() {
            self.env().with_node(upstream.node, |node| {
                (parallelism, single) = (node.parallelism, node.force_single);
            });
        }
        match parallelism.filter(|_| !single) {
            Some(parallelism) => stream.parallelism(parallelism),
            None if single => stream.force_single(),
            None => stream,
        }
    }

    /// Each record once. Emitted when first seen.
    pub fn distinct(&self) -> DataStream<T>
    where
        T: Key,
    {
        self.first_of_key("Distinct", WholeRecord, 1)
    }

    /// The first record of each key. Emitted when first seen.
    pub fn distinct_by<K: Key>(&self, key: impl Fn(&T) -> K + Function) -> DataStream<T> {
        self.first_of_key("Distinct", ByValue::new(key), 1)
    }

    fn first_of_key<S: KeySelector<T>>(&self, name: &str, selector: S, n: usize) -> DataStream<T> {
        let (before, behind) = (Prototype::new(selector.clone()), Prototype::new(selector.clone()));
        let cut = self.transform(&format!("Pre-{name}"), move |ctx| Ok(PreCut::new(before.get(), n, ctx)));
        let cut = self.in_place(cut);
        KeyedStream::new(&cut, selector)
            .keyed(&cut)
            .transform(name, move |ctx| Ok(FirstOfKey::new(behind.get(), n, ctx)))
    }

    /// `n` records of the stream, those that arrive first. Runs in one task; emitted at once.
    pub fn first_n(&self, n: usize) -> DataStream<T> {
        let cut = self.transform("Pre-First", move |_| Ok(FirstN::new(n)));
        self.in_place(cut).global().transform("First", move |_| Ok(FirstN::new(n))).force_single()
    }

    /// The number of records, at the end; 0 for an empty stream.
    pub fn count(&self) -> DataStream<u64> {
        self.aggregate_all_named("Count", CountRecords::default())
    }

    /// One aggregate over all records, at the end; that of an empty accumulator for an empty stream. `merge` must be
    /// associative: each task aggregates its share first.
    pub fn aggregate_all<A: AggregateFunction<In = T>>(&self, function: A) -> DataStream<A::Out>
    where
        A::Out: Record,
    {
        self.aggregate_all_named("Aggregate", function)
    }

    fn aggregate_all_named<A: AggregateFunction<In = T>>(&self, name: &str, function: A) -> DataStream<A::Out>
    where
        A::Out: Record,
    {
        let (part, whole) = (Prototype::new(function.clone()), Prototype::new(function));
        let parts = self.transform(&format!("Pre-{name}"), move |_| Ok(AggregatePart::new(part.get())));
        self.in_place(parts)
            .global()
            .transform(name, move |_| Ok(AggregateWhole::new(whole.get())))
            .force_single()
    }

    /// Reduces all records into one with `f(so_far, next)`, at the end; nothing for an empty stream. `f` must be
    /// associative: each task reduces its share first.
    pub fn reduce_all(&self, f: impl FnMut(&mut T, &mut T) + Function) -> DataStream<T> {
        self.reduce_all_named("Reduce", f)
    }

    fn reduce_all_named(&self, name: &str, f: impl FnMut(&mut T, &mut T) + Function) -> DataStream<T> {
        let (part, whole) = (Prototype::new(f.clone()), Prototype::new(f));
        let parts = self.transform(&format!("Pre-{name}"), move |_| Ok(ReduceAll::new(part.get())));
        self.in_place(parts).global().transform(name, move |_| Ok(ReduceAll::new(whole.get()))).force_single()
    }

    /// Adds `field` up over all records: `sum_all(|record| &mut record.amount)`. Other fields are those of one of the
    /// records.
    pub fn sum_all<N: AddAssign + Copy>(&self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_all_named("Sum", reducers::sum(field))
    }

    /// The record with the smallest `value`; of equal ones any.
    pub fn min_by_all<N: PartialOrd>(&self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_all_named("MinBy", reducers::min_by(value))
    }

    /// The record with the largest `value`; of equal ones any.
    pub fn max_by_all<N: PartialOrd>(&self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_all_named("MaxBy", reducers::max_by(value))
    }

    /// Calls `f` once in each task, with all records that the task has read, also if there are none:
    /// `|records, out| out.collect(records.count())`.
    pub fn map_partition<O: Record>(
        &self,
        f: impl FnMut(Records<'_, T>, &mut Results<'_, O>) + Function,
    ) -> DataStream<O> {
        let f = Prototype::new(f);
        self.transform("Map Partition", move |ctx| Ok(MapPartition::new(f.get(), ctx)))
    }

    /// Sorts the records of each task by `key`; equal ones stay in order of arrival. Several keys are a tuple. A total
    /// order of the stream needs parallelism 1.
    pub fn sort_partition<N: Ord + 'static>(
        &self,
        key: impl Fn(&T) -> N + Function,
        order: Order,
    ) -> DataStream<T> {
        self.sorted(ByValueOf::new(key, order))
    }

    /// Sorts the records of each task by `compare`, which must be a total order; equal ones stay in order of arrival.
    pub fn sort_partition_by(&self, compare: impl Fn(&T, &T) -> Ordering + Function) -> DataStream<T> {
        self.sorted(ByFunction(compare))
    }

    fn sorted<C: Comparator<T>>(&self, order: C) -> DataStream<T> {
        let order = Prototype::new(order);
        self.transform("Sort Partition", move |ctx| Ok(SortPartition::new(order.get(), ctx)))
    }
}

impl<T: Record, S: KeySelector<T>> KeyedStream<T, S> {
    /// `n` records of each key, those that arrive first. Emitted at once.
    pub fn first_n(&self, n: usize) -> DataStream<T> {
        self.stream().first_of_key("First", self.selector(), n)
    }

    /// The number of records of each key, at the end.
    pub fn count(&self) -> DataStream<(S::Key, u64)> {
        self.aggregate_named("Count", CountRecords::default())
    }

    /// One aggregate for each key, at the end. `merge` must be associative: each task aggregates its share before it
    /// sends it on, so that a key crosses the exchange once a task instead of once a record.
    pub fn aggregate<A: AggregateFunction<In = T>>(&self, function: A) -> DataStream<(S::Key, A::Out)>
    where
        A::Out: Record,
    {
        self.aggregate_named("Aggregate", function)
    }

    fn aggregate_named<A: AggregateFunction<In = T>>(
        &self,
        name: &str,
        function: A,
    ) -> DataStream<(S::Key, A::Out)>
    where
        A::Out: Record,
    {
        let selector = Prototype::new(self.selector());
        let (part, whole) = (Prototype::new(function.clone()), Prototype::new(function));
        let parts = self.stream().transform(&format!("Pre-{name}"), move |ctx| {
            Ok(PreAggregate::new(selector.get(), part.get(), ctx))
        });
        let parts = self.stream().in_place(parts);
        KeyedStream::new(&parts, KeyOfPair)
            .keyed(&parts)
            .transform(name, move |ctx| Ok(FinalAggregate::new(whole.get(), ctx)))
    }

    /// Calls `f` once for each key, at the end, with all its records in order of arrival:
    /// `|key, records, out| out.collect((key.clone(), records.count()))`.
    pub fn reduce_group<O: Record>(
        &self,
        f: impl FnMut(&S::Key, Records<'_, T>, &mut Results<'_, O>) + Function,
    ) -> DataStream<O> {
        self.reduce_sorted(Arrival, f)
    }

    fn reduce_sorted<O: Record, C: Comparator<T>>(
        &self,
        within: C,
        f: impl FnMut(&S::Key, Records<'_, T>, &mut Results<'_, O>) + Function,
    ) -> DataStream<O> {
        let (selector, within, f) =
            (Prototype::new(self.selector()), Prototype::new(within), Prototype::new(f));
        self.keyed(self.stream()).transform("Group Reduce", move |ctx| {
            Ok(ReduceGroup::new(selector.get(), within.get(), f.get(), ctx))
        })
    }

    /// Orders the records of each key by `value`; equal ones stay in order of arrival. Several values are a tuple.
    pub fn sort_group<N: Ord + 'static, F: Fn(&T) -> N + Function>(
        &self,
        value: F,
        order: Order,
    ) -> SortedGroups<'_, T, S, ByValueOf<F, N>> {
        SortedGroups { stream: self, within: ByValueOf::new(value, order) }
    }

    /// Orders the records of each key by `compare`, which must be a total order; equal ones stay in order of arrival.
    pub fn sort_group_by<F: Fn(&T, &T) -> Ordering + Function>(
        &self,
        compare: F,
    ) -> SortedGroups<'_, T, S, ByFunction<F>> {
        SortedGroups { stream: self, within: ByFunction(compare) }
    }
}

/// A keyed stream whose records will be read in order.
pub struct SortedGroups<'a, T, S, C> {
    stream: &'a KeyedStream<T, S>,
    within: C,
}

impl<T: Record, S: KeySelector<T>, C: Comparator<T>> SortedGroups<'_, T, S, C> {
    /// Calls `f` once for each key, at the end, with all its records in order.
    pub fn reduce_group<O: Record>(
        &self,
        f: impl FnMut(&S::Key, Records<'_, T>, &mut Results<'_, O>) + Function,
    ) -> DataStream<O> {
        self.stream.reduce_sorted(self.within.clone(), f)
    }

    /// The first `n` records of each key in order, at the end.
    pub fn first_n(&self, n: usize) -> DataStream<T> {
        let (selector, within) =
            (Prototype::new(self.stream.selector()), Prototype::new(self.within.clone()));
        self.stream.keyed(self.stream.stream()).transform("Sorted First", move |ctx| {
            Ok(FirstOfSorted::new(selector.get(), within.get(), n, ctx))
        })
    }
}

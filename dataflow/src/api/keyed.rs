//! A stream partitioned by key.

use std::ops::AddAssign;
use std::sync::Arc;

use flott_schema::Error;
use flott_schema::graph::Partitioning;

use super::stream::DataStream;
use super::windowed::{CountWindows, SlidingCountWindows, WindowedStream};
use crate::batch::Record;
use crate::exchange::KeyedOutput;
use crate::function::{Function, Prototype};
use crate::key::KeySelector;
use crate::operators::keyed_process::{KeyedProcess, KeyedProcessFunction};
use crate::operators::reduce::{CombiningOutput, FinalReduce, ReduceByKey, RollingReduce};
use crate::operators::reducers;
use crate::types::check_key_type;
use crate::window::{CountEvictor, CountTrigger, GlobalWindows, PurgingTrigger, WindowAssigner};

/// Records of type `T` partitioned by the key that `S` finds: all records of a key meet in one task.
pub struct KeyedStream<T, S> {
    stream: DataStream<T>,
    selector: Prototype<S>,
}

impl<T: Record, S: KeySelector<T>> KeyedStream<T, S> {
    pub(crate) fn new(stream: &DataStream<T>, selector: S) -> Self {
        if let Err(unstable) = check_key_type::<S::Key>("key_by") {
            stream.env().add_error(Error::graph(unstable.to_string()));
        }
        KeyedStream { stream: stream.clone(), selector: Prototype::new(selector) }
    }

    pub(crate) fn selector(&self) -> S {
        self.selector.get()
    }

    /// The stream spread by key group.
    pub(crate) fn keyed(&self, stream: &DataStream<T>) -> DataStream<T> {
        stream.partitioned(Partitioning::KeyGroup, Arc::new(KeyedOutput::<T, S>::new(self.selector.get())))
    }

    /// The stream before it was partitioned.
    pub(crate) fn stream(&self) -> &DataStream<T> {
        &self.stream
    }

    /// Processes records with state and timers of their key.
    pub fn process<O: Record>(&self, function: impl KeyedProcessFunction<S::Key, T, O>) -> DataStream<O> {
        let (selector, function) = (Prototype::new(self.selector()), Prototype::new(function));
        self.keyed(&self.stream)
            .transform("KeyedProcess", move |ctx| Ok(KeyedProcess::new(selector.get(), function.get(), ctx)))
    }

    /// Reduces the records of each key into one with `f(so_far, next)`; `next` is of no further use, so it may be taken
    /// apart or swapped with what there is so far. In streaming execution every record emits the
    /// value so far; in batch execution each key emits its final value once, and records are reduced in front of the
    /// exchange as well, so `f` must be associative.
    pub fn reduce(&self, f: impl FnMut(&mut T, &mut T) + Function) -> DataStream<T> {
        self.reduce_named("Reduce", f)
    }

    fn reduce_named<F: FnMut(&mut T, &mut T) + Function>(&self, name: &str, f: F) -> DataStream<T> {
        let (selector, f) = (Arc::new(Prototype::new(self.selector())), Arc::new(Prototype::new(f)));
        let output = CombiningOutput::<T, S, F>::new(selector.clone(), f.clone());
        self.stream.partitioned(Partitioning::KeyGroup, Arc::new(output)).transform(name, move |ctx| {
            Ok(match ctx.task.is_batch() {
                true => ReduceByKey::Final(FinalReduce::new(selector.get(), f.get())),
                false => ReduceByKey::Rolling(RollingReduce::new(selector.get(), f.get())),
            })
        })
    }

    /// Adds `field` up over the records of each key: `sum(|record| &mut record.amount)`. Other fields are those of
    /// the first record.
    pub fn sum<N: AddAssign + Copy>(&self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Sum", reducers::sum(field))
    }

    /// The smallest `field` over the records of each key; other fields are those of the first record.
    pub fn min<N: PartialOrd + Copy>(&self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Min", reducers::min(field))
    }

    /// The largest `field` over the records of each key; other fields are those of the first record.
    pub fn max<N: PartialOrd + Copy>(&self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Max", reducers::max(field))
    }

    /// The record with the smallest `value` of each key; of equal ones the first.
    pub fn min_by<N: PartialOrd>(&self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_named("MinBy", reducers::min_by(value))
    }

    /// The record with the largest `value` of each key; of equal ones the first.
    pub fn max_by<N: PartialOrd>(&self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_named("MaxBy", reducers::max_by(value))
    }

    /// Gathers the records of each key in windows.
    pub fn window<A: WindowAssigner<T>>(&self, assigner: A) -> WindowedStream<T, S, A> {
        WindowedStream::keyed(self, assigner)
    }

    /// Gathers every `size` records of a key in a window. Records left over at the end give nothing.
    pub fn count_window(&self, size: u64) -> CountWindows<T, S> {
        self.window(GlobalWindows::create()).trigger(PurgingTrigger::of(CountTrigger::of(size)))
    }

    /// The last `size` records of a key, whenever `slide` more have come.
    pub fn count_window_sliding(&self, size: usize, slide: u64) -> SlidingCountWindows<T, S> {
        self.window(GlobalWindows::create()).trigger(CountTrigger::of(slide)).evictor(CountEvictor::of(size))
    }
}

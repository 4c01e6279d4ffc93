//! Two streams of different types, read by one operator.

use std::marker::PhantomData;
use std::sync::Arc;

use flott_schema::{Error, Result};

use super::env::StreamEnv;
use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::function::{Function, Prototype};
use crate::key::{ByRef, ByValue, Key, KeySelector};
use crate::operator::Collector;
use crate::operators::co_process::{
    CoFlatMap, CoMap, CoProcess, CoProcessFunction, KeyedCoProcess, KeyedCoProcessFunction,
};
use crate::operators::factory::TwoInputFactory;
use crate::program::Upstream;
use crate::two_input::TwoInputOperator;

/// Both inputs of an operator to come.
pub(super) struct TwoInputs<L, R> {
    env: StreamEnv,
    inputs: Vec<Upstream>,
    records: PhantomData<fn() -> (L, R)>,
}

impl<L, R> Clone for TwoInputs<L, R> {
    fn clone(&self) -> Self {
        TwoInputs { env: self.env.clone(), inputs: self.inputs.clone(), records: PhantomData }
    }
}

impl<L: Record, R: Record> TwoInputs<L, R> {
    /// The records of `left` as first input, those of `right` as second. `what` is named if they cannot meet.
    pub fn new(what: &str, left: &DataStream<L>, right: &DataStream<R>) -> Self {
        let env = left.env().clone();
        let mut inputs = left.upstreams().to_vec();
        if env.is_same(right.env()) {
            let second = right.upstreams().iter().cloned();
            inputs.extend(second.map(|upstream| Upstream { logical_input: 1, ..upstream }));
        } else {
            env.add_error(Error::graph(format!("{what} of streams of different environments")));
        }
        TwoInputs { env, inputs, records: PhantomData }
    }

    /// Adds the operator that `make` makes in each task.
    pub fn transform<Op>(
        &self,
        name: &str,
        make: impl Fn(&OperatorContext) -> Result<Op> + Send + Sync + 'static,
    ) -> DataStream<Op::Out>
    where
        Op: TwoInputOperator<Left = L, Right = R> + 'static,
        Op::Out: Record,
    {
        let factory = Arc::new(TwoInputFactory::new(make));
        let node = self.env.add_node(name, self.inputs.clone(), factory);
        DataStream::of(self.env.clone(), node)
    }

    fn map<O: Record>(
        &self,
        left: impl FnMut(L) -> O + Function,
        right: impl FnMut(R) -> O + Function,
    ) -> DataStream<O> {
        let (left, right) = (Prototype::new(left), Prototype::new(right));
        self.transform("Co-Map", move |_| Ok(CoMap::new(left.get(), right.get())))
    }

    fn flat_map<O: Record>(
        &self,
        left: impl FnMut(L, &mut Collector<O>) + Function,
        right: impl FnMut(R, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        let (left, right) = (Prototype::new(left), Prototype::new(right));
        self.transform("Co-Flat Map", move |_| Ok(CoFlatMap::new(left.get(), right.get())))
    }
}

/// Two streams whose records go to one operator, each to a function of its own.
pub struct ConnectedStreams<L, R> {
    left: DataStream<L>,
    right: DataStream<R>,
}

impl<L: Record, R: Record> ConnectedStreams<L, R> {
    fn inputs(&self) -> TwoInputs<L, R> {
        TwoInputs::new("connect", &self.left, &self.right)
    }

    /// One record out for each one in, by the function of its stream.
    pub fn map<O: Record>(
        &self,
        left: impl FnMut(L) -> O + Function,
        right: impl FnMut(R) -> O + Function,
    ) -> DataStream<O> {
        self.inputs().map(left, right)
    }

    /// Any number of records out for each one in, by the function of its stream.
    pub fn flat_map<O: Record>(
        &self,
        left: impl FnMut(L, &mut Collector<O>) + Function,
        right: impl FnMut(R, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.inputs().flat_map(left, right)
    }

    /// Any number of records out for each one in, with side outputs; one function object sees both streams.
    pub fn process<O: Record>(&self, function: impl CoProcessFunction<L, R, O>) -> DataStream<O> {
        let function = Prototype::new(function);
        self.inputs().transform("Co-Process", move |ctx| Ok(CoProcess::new(function.get(), ctx)))
    }

    /// Partitions both streams by a key of the same type: records of equal keys meet in one task, and share state.
    pub fn key_by<K, F, G>(
        &self,
        left: F,
        right: G,
    ) -> KeyedConnectedStreams<L, ByValue<F, K>, R, ByValue<G, K>>
    where
        K: Key,
        F: Fn(&L) -> K + Function,
        G: Fn(&R) -> K + Function,
    {
        self.left.key_by(left).connect(&self.right.key_by(right))
    }

    /// Like [`Self::key_by`] for keys that the records hold.
    pub fn key_by_ref<K, F, G>(
        &self,
        left: F,
        right: G,
    ) -> KeyedConnectedStreams<L, ByRef<F, K>, R, ByRef<G, K>>
    where
        K: Key,
        F: Fn(&L) -> &K + Function,
        G: Fn(&R) -> &K + Function,
    {
        self.left.key_by_ref(left).connect(&self.right.key_by_ref(right))
    }
}

/// Two streams partitioned by a key of the same type.
pub struct KeyedConnectedStreams<L, SL, R, SR> {
    inputs: TwoInputs<L, R>,
    left: Prototype<SL>,
    right: Prototype<SR>,
}

impl<L, SL, R, SR> KeyedConnectedStreams<L, SL, R, SR>
where
    L: Record,
    SL: KeySelector<L>,
    R: Record,
    SR: KeySelector<R, Key = SL::Key>,
{
    pub(super) fn new(what: &str, left: &KeyedStream<L, SL>, right: &KeyedStream<R, SR>) -> Self {
        KeyedConnectedStreams {
            inputs: TwoInputs::new(what, &left.keyed(left.stream()), &right.keyed(right.stream())),
            left: Prototype::new(left.selector()),
            right: Prototype::new(right.selector()),
        }
    }

    pub(super) fn env(&self) -> &StreamEnv {
        &self.inputs.env
    }

    /// Adds an operator that gets the key selectors of both streams.
    pub(super) fn transform_keyed<Op>(
        &self,
        name: &str,
        make: impl Fn(SL, SR, &OperatorContext) -> Result<Op> + Send + Sync + 'static,
    ) -> DataStream<Op::Out>
    where
        Op: TwoInputOperator<Left = L, Right = R> + 'static,
        Op::Out: Record,
    {
        let (left, right) = (Prototype::new(self.left.get()), Prototype::new(self.right.get()));
        self.inputs.transform(name, move |ctx| make(left.get(), right.get(), ctx))
    }

    /// One record out for each one in, by the function of its stream.
    pub fn map<O: Record>(
        &self,
        left: impl FnMut(L) -> O + Function,
        right: impl FnMut(R) -> O + Function,
    ) -> DataStream<O> {
        self.inputs.map(left, right)
    }

    /// Any number of records out for each one in, by the function of its stream.
    pub fn flat_map<O: Record>(
        &self,
        left: impl FnMut(L, &mut Collector<O>) + Function,
        right: impl FnMut(R, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.inputs.flat_map(left, right)
    }

    /// Any number of records out for each one in, with state and timers of the key, shared by both streams.
    pub fn process<O: Record>(
        &self,
        function: impl KeyedCoProcessFunction<SL::Key, L, R, O>,
    ) -> DataStream<O> {
        let function = Prototype::new(function);
        self.transform_keyed("Keyed Co-Process", move |left, right, ctx| {
            Ok(KeyedCoProcess::new(left, right, function.get(), ctx))
        })
    }
}

impl<L: Record> DataStream<L> {
    /// Reads this stream and another one by one operator, each by a function of its own. Nothing is said about the
    /// order between them.
    pub fn connect<R: Record>(&self, other: &DataStream<R>) -> ConnectedStreams<L, R> {
        ConnectedStreams { left: self.clone(), right: other.clone() }
    }
}

impl<L: Record, SL: KeySelector<L>> KeyedStream<L, SL> {
    /// Reads this stream and another one with the same type of key by one operator, with state shared by both.
    pub fn connect<R, SR>(&self, other: &KeyedStream<R, SR>) -> KeyedConnectedStreams<L, SL, R, SR>
    where
        R: Record,
        SR: KeySelector<R, Key = SL::Key>,
    {
        KeyedConnectedStreams::new("connect", self, other)
    }
}

//! A stream of records.

use std::marker::PhantomData;
use std::sync::Arc;

use flott_schema::graph::Partitioning;
use flott_schema::{Error, Result};

use super::env::StreamEnv;
use super::keyed::KeyedStream;
use super::settings::operator_settings;
use super::window_joined::{CoGroupedStreams, JoinedStreams};
use super::windowed::{CountWindows, NoKey, SlidingCountWindows, WindowedStream};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::exchange::{CustomOutput, OutputFactory, PlainOutput};
use crate::function::{Function, Prototype};
use crate::key::{ByRef, ByValue, Key};
use crate::operator::{Collector, Operator, OutputTag};
use crate::operators::basic::{Filter, FlatMap, Map, TryMap};
use crate::operators::factory::{OperatorFactory, SinkFactory};
use crate::operators::global_commits::{GlobalCommitterFactory, Prepared};
use crate::operators::process::{Process, ProcessFunction};
use crate::operators::watermarks::AssignWatermarks;
use crate::program::{Chaining, Node, NodeFactory, Port, Upstream};
use crate::sink::Sink;
use crate::time::WatermarkStrategy;
use crate::window::{CountEvictor, CountTrigger, GlobalWindows, PurgingTrigger, WindowAssigner};

/// Records of type `T`. Reading a stream twice is fine: every reader gets all records.
pub struct DataStream<T> {
    env: StreamEnv,
    upstreams: Vec<Upstream>,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        DataStream { env: self.env.clone(), upstreams: self.upstreams.clone(), record: PhantomData }
    }
}

impl<T: Record> DataStream<T> {
    operator_settings!();

    /// The main output of `node`.
    pub(crate) fn of(env: StreamEnv, node: usize) -> Self {
        Self::of_port(env, node, Port::Main)
    }

    fn of_port(env: StreamEnv, node: usize, port: Port) -> Self {
        let output = Arc::new(PlainOutput::<T>::new(Partitioning::Rebalance));
        let upstream = Upstream { node, port, partitioning: None, output, logical_input: 0 };
        DataStream { env, upstreams: vec![upstream], record: PhantomData }
    }

    /// The environment of the program.
    pub fn env(&self) -> &StreamEnv {
        &self.env
    }

    pub(crate) fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    pub(super) fn set(self, setting: &str, change: impl FnMut(&mut Node)) -> Self {
        match self.upstreams.as_slice() {
            [upstream] if matches!(upstream.port, Port::Main) => self.env.with_node(upstream.node, change),
            _ => self.env.add_error(Error::graph(format!(
                "{setting}() is called on a union or side output, which is no operator; call it on the operator before"
            ))),
        }
        self
    }

    /// The operator runs in one task, whatever the job's parallelism.
    pub(crate) fn force_single(self) -> Self {
        self.set("force_single", |node| node.force_single = true)
    }

    /// Adds an operator behind this stream.
    pub(crate) fn add<O: Record>(&self, name: &str, factory: impl NodeFactory + 'static) -> DataStream<O> {
        let node = self.env.add_node(name, self.upstreams.clone(), Arc::new(factory));
        DataStream::of(self.env.clone(), node)
    }

    /// Adds a one-input operator made by `make` in each task.
    pub fn transform<O, Op>(
        &self,
        name: &str,
        make: impl Fn(&OperatorContext) -> Result<Op> + Send + Sync + 'static,
    ) -> DataStream<O>
    where
        O: Record,
        Op: Operator<In = T, Out = O> + 'static,
    {
        self.add(name, OperatorFactory::new(make))
    }

    /// One record out for each one in.
    pub fn map<O: Record>(&self, f: impl FnMut(T) -> O + Function) -> DataStream<O> {
        let f = Prototype::new(f);
        self.transform("Map", move |_| Ok(Map::new(f.get())))
    }

    /// Like [`Self::map`]; an error fails the job.
    pub fn try_map<O: Record>(&self, f: impl FnMut(T) -> Result<O> + Function) -> DataStream<O> {
        let f = Prototype::new(f);
        self.transform("Map", move |_| Ok(TryMap::new(f.get())))
    }

    /// Keeps the records that `f` holds for.
    pub fn filter(&self, f: impl FnMut(&T) -> bool + Function) -> DataStream<T> {
        let f = Prototype::new(f);
        self.transform("Filter", move |_| Ok(Filter::new(f.get())))
    }

    /// Any number of records out for each one in: `|record, out| out.collect(..)`.
    pub fn flat_map<O: Record>(&self, f: impl FnMut(T, &mut Collector<O>) + Function) -> DataStream<O> {
        let f = Prototype::new(f);
        self.transform("Flat Map", move |_| Ok(FlatMap::new(f.get())))
    }

    /// Any number of records out for each one in, with side outputs.
    pub fn process<O: Record>(&self, function: impl ProcessFunction<T, O>) -> DataStream<O> {
        let function = Prototype::new(function);
        self.transform("Process", move |ctx| Ok(Process::new(function.get(), ctx)))
    }

    /// Gives records timestamps, and the stream watermarks.
    pub fn assign_timestamps_and_watermarks(&self, strategy: WatermarkStrategy<T>) -> DataStream<T> {
        self.transform("Timestamps/Watermarks", move |ctx| Ok(AssignWatermarks::new(&strategy, ctx)))
    }

    /// Partitions the stream by a key computed from each record.
    pub fn key_by<K: Key, F: Fn(&T) -> K + Function>(&self, key: F) -> KeyedStream<T, ByValue<F, K>> {
        KeyedStream::new(self, ByValue::new(key))
    }

    /// Partitions the stream by a key that each record holds; cheaper than a copy of it.
    pub fn key_by_ref<K: Key, F: Fn(&T) -> &K + Function>(&self, key: F) -> KeyedStream<T, ByRef<F, K>> {
        KeyedStream::new(self, ByRef::new(key))
    }

    /// Gathers all records in windows, in one task.
    pub fn window_all<A: WindowAssigner<T>>(&self, assigner: A) -> WindowedStream<T, NoKey, A> {
        WindowedStream::all(self, assigner)
    }

    /// Gathers every `size` records in a window, in one task. Records left over at the end give nothing.
    pub fn count_window_all(&self, size: u64) -> CountWindows<T, NoKey> {
        self.window_all(GlobalWindows::create()).trigger(PurgingTrigger::of(CountTrigger::of(size)))
    }

    /// The last `size` records, whenever `slide` more have come, in one task.
    pub fn count_window_all_sliding(&self, size: usize, slide: u64) -> SlidingCountWindows<T, NoKey> {
        self.window_all(GlobalWindows::create())
            .trigger(CountTrigger::of(slide))
            .evictor(CountEvictor::of(size))
    }

    /// Pairs the records of two streams that have the same key and lie in the same window:
    /// `left.join(&right).where_key(..).equal_to(..).window(..).apply(|left, right| ..)`.
    pub fn join<R: Record>(&self, right: &DataStream<R>) -> JoinedStreams<T, R> {
        JoinedStreams::new(self, right)
    }

    /// Brings together all records of two streams that have the same key and lie in the same window:
    /// `left.co_group(&right).where_key(..).equal_to(..).window(..).apply(|left, right, out| ..)`.
    pub fn co_group<R: Record>(&self, right: &DataStream<R>) -> CoGroupedStreams<T, R> {
        CoGroupedStreams::new(self, right)
    }

    /// The records of several streams, in no order between them.
    pub fn union(&self, others: &[&DataStream<T>]) -> DataStream<T> {
        let mut all = self.clone();
        for other in others {
            if !self.env.is_same(&other.env) {
                self.env.add_error(Error::graph("union of streams of different environments"));
                continue;
            }
            all.upstreams.extend(other.upstreams.iter().cloned());
        }
        all
    }

    /// The records that the operator before put into the side output `tag`.
    pub fn side_output<S: Record>(&self, tag: &OutputTag<S>) -> DataStream<S> {
        let mut side =
            DataStream::of_port(self.env.clone(), self.upstreams[0].node, Port::side::<S>(tag.name()));
        for upstream in &self.upstreams[1..] {
            side.upstreams.extend(
                DataStream::<S>::of_port(self.env.clone(), upstream.node, Port::side::<S>(tag.name()))
                    .upstreams,
            );
        }
        side
    }

    pub(crate) fn partitioned(
        &self,
        partitioning: Partitioning,
        output: Arc<dyn OutputFactory>,
    ) -> DataStream<T> {
        let mut stream = self.clone();
        for upstream in &mut stream.upstreams {
            upstream.partitioning = Some(partitioning);
            upstream.output = output.clone();
        }
        stream
    }

    fn plainly(&self, partitioning: Partitioning) -> DataStream<T> {
        self.partitioned(partitioning, Arc::new(PlainOutput::<T>::new(partitioning)))
    }

    /// Subtask i to subtask i; both sides must have the same parallelism.
    pub fn forward(&self) -> DataStream<T> {
        self.plainly(Partitioning::Forward)
    }

    /// Evenly to all tasks.
    pub fn rebalance(&self) -> DataStream<T> {
        self.plainly(Partitioning::Rebalance)
    }

    /// Evenly to a share of the tasks, so that fewer connections are needed.
    pub fn rescale(&self) -> DataStream<T> {
        self.plainly(Partitioning::Rescale)
    }

    /// To random tasks.
    pub fn shuffle(&self) -> DataStream<T> {
        self.plainly(Partitioning::Shuffle)
    }

    /// Every record to every task.
    pub fn broadcast(&self) -> DataStream<T> {
        self.plainly(Partitioning::Broadcast)
    }

    /// All to the first task.
    pub fn global(&self) -> DataStream<T> {
        self.plainly(Partitioning::Global)
    }

    /// To the task that `f(record, number of tasks)` names.
    pub fn partition_custom(&self, f: impl FnMut(&T, usize) -> usize + Function) -> DataStream<T> {
        self.partitioned(Partitioning::Custom, Arc::new(CustomOutput::<T, _>::new(f)))
    }

    /// Writes the stream to `sink`.
    pub fn sink_to<S: Sink<T>>(&self, sink: S, name: &str) -> StreamSink {
        let name = format!("Sink: {name}");
        let has_global_committer = sink.global_committer().is_some();
        let factory = SinkFactory::<T, S>::new(sink.clone());
        let node = self.env.add_node(&name, self.upstreams.clone(), Arc::new(factory));
        let global_committer = has_global_committer.then(|| {
            let prepared = DataStream::<Prepared>::of(self.env.clone(), node).global();
            let factory = Arc::new(GlobalCommitterFactory::<T, S>::new(sink));
            let name = format!("{name}: Global Committer");
            let committer = self.env.add_node(&name, prepared.upstreams, factory);
            self.env.with_node(committer, |node| {
                node.force_single = true;
                node.chaining = Chaining::Head;
            });
            committer
        });
        StreamSink { env: self.env.clone(), node, global_committer }
    }
}

/// The end of a stream.
pub struct StreamSink {
    env: StreamEnv,
    node: usize,
    global_committer: Option<usize>,
}

impl StreamSink {
    operator_settings!();

    fn set(self, _setting: &str, mut change: impl FnMut(&mut Node)) -> Self {
        let mut uid = None;
        self.env.with_node(self.node, |node| {
            change(node);
            uid = node.uid.clone();
        });
        if let (Some(committer), Some(uid)) = (self.global_committer, uid) {
            self.env.with_node(committer, |node| node.uid = Some(format!("{uid}-global-committer")));
        }
        self
    }
}

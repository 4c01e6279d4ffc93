//! What operators over two streams, and asynchronous ones, become in the graph, and what is refused.

use std::collections::HashMap;
use std::task::{Context, Poll};
use std::time::Duration;

use flott_schema::graph::{Edge, JobGraph, Partitioning};
use flott_schema::{Error, Result};

use super::{DataStream, StreamEnv};
use crate::batch::Batch;
use crate::context::OperatorContext;
use crate::operator::OutputTag;
use crate::operators::async_io::{AsyncMap, AsyncOptions, RetryStrategy};
use crate::operators::broadcast::{
    BroadcastContext, BroadcastProcessFunction, BroadcastState, KeyedBroadcastContext,
    KeyedBroadcastProcessFunction, KeyedReadOnlyContext, ReadOnlyContext,
};
use crate::operators::co_process::{CoProcessFunction, KeyedCoProcessFunction};
use crate::operators::keyed_process::KeyedContext;
use crate::operators::process::ProcessContext;
use crate::sink::{CommitId, GlobalCommitter, NothingToCommit, Sink, SinkWriter};
use crate::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use crate::time::WatermarkStrategy;

/// A source of nothing.
#[derive(Clone)]
struct Nothing;

impl Source for Nothing {
    type Record = u64;
    type Split = ();
    type Enumerator = Nothing;
    type Reader = Nothing;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<Nothing> {
        Ok(Nothing)
    }
}

impl SplitEnumerator for Nothing {
    type Split = ();

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<()>> {
        Ok(Assignment::NoMore)
    }
}

impl SourceReader for Nothing {
    type Record = u64;
    type Split = ();

    fn add_split(&mut self, _split: ()) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<u64>> {
        Ok(Poll::Ready(None))
    }

    fn snapshot(&self) -> Vec<()> {
        Vec::new()
    }
}

fn env() -> (StreamEnv, DataStream<u64>, DataStream<String>) {
    let env = StreamEnv::new();
    env.set_parallelism(2);
    let numbers = env.add_source(Nothing, "numbers");
    let words = env.add_source(Nothing, "words").map(|n| n.to_string());
    (env, numbers, words)
}

fn refused(env: &StreamEnv) -> String {
    env.compile("test").err().expect("the program is refused").to_string()
}

/// Input and partitioning of the edges into the operator called `name`, by the name of where they come from.
fn inputs(graph: &JobGraph, name: &str) -> HashMap<String, (u16, Partitioning)> {
    let target =
        graph.vertices.iter().find(|vertex| vertex.name.starts_with(name)).expect("it heads a chain");
    let edges = graph.edges.iter().filter(|edge| edge.target == target.id);
    let from = |edge: &Edge| graph.vertex(edge.source).expect("edges have a source").name.clone();
    edges.map(|edge| (from(edge), (edge.input, edge.partitioning))).collect()
}

fn expect(graph: &JobGraph, name: &str, numbers: Partitioning, words: Partitioning) {
    let expected = HashMap::from([
        ("Source: numbers".to_string(), (0, numbers)),
        ("Source: words -> Map".to_string(), (1, words)),
    ]);
    assert_eq!(inputs(graph, name), expected, "{name}");
}

#[derive(Clone)]
struct Both;

impl CoProcessFunction<u64, String, u64> for Both {
    fn process_left(&mut self, record: u64, ctx: &mut ProcessContext<'_, u64>) -> Result<()> {
        ctx.collect(record);
        Ok(())
    }

    fn process_right(&mut self, _record: String, _ctx: &mut ProcessContext<'_, u64>) -> Result<()> {
        Ok(())
    }
}

impl KeyedCoProcessFunction<u64, u64, String, u64> for Both {
    fn process_left(&mut self, record: u64, ctx: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        ctx.collect(record);
        Ok(())
    }

    fn process_right(&mut self, _record: String, _ctx: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        Ok(())
    }
}

impl BroadcastProcessFunction<u64, String, u64> for Both {
    fn process(&mut self, record: u64, ctx: &mut ReadOnlyContext<'_, u64>) -> Result<()> {
        ctx.collect(record);
        Ok(())
    }

    fn process_broadcast(&mut self, _record: String, _ctx: &mut BroadcastContext<'_, u64>) -> Result<()> {
        Ok(())
    }
}

impl KeyedBroadcastProcessFunction<u64, u64, String, u64> for Both {
    fn process(&mut self, record: u64, ctx: &mut KeyedReadOnlyContext<'_, u64, u64>) -> Result<()> {
        ctx.collect(record);
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        _record: String,
        _ctx: &mut KeyedBroadcastContext<'_, u64, u64>,
    ) -> Result<()> {
        Ok(())
    }
}

#[test]
fn connected_streams_are_the_two_inputs_of_one_task() {
    let (env, numbers, words) = env();
    let connected = numbers.connect(&words);
    connected.map(|n| n, |word| word.len() as u64).map(|n| n + 1);
    connected.flat_map(|n, out| out.collect(n), |word, out| out.collect(word.len() as u64));
    connected.process(Both).parallelism(1);
    let keyed = connected.key_by(|n| *n, |word| word.len() as u64);
    keyed.process(Both).name("Keyed");
    keyed.map(|n| n, |word| word.len() as u64).name("Keyed Map");
    let graph = env.compile("test").unwrap().graph;
    expect(&graph, "Co-Map -> Map", Partitioning::Forward, Partitioning::Forward);
    expect(&graph, "Co-Flat Map", Partitioning::Forward, Partitioning::Forward);
    expect(&graph, "Co-Process", Partitioning::Rebalance, Partitioning::Rebalance);
    expect(&graph, "Keyed", Partitioning::KeyGroup, Partitioning::KeyGroup);
    expect(&graph, "Keyed Map", Partitioning::KeyGroup, Partitioning::KeyGroup);
}

#[test]
fn a_stream_can_be_connected_to_itself_and_unions_can_be_connected() {
    let (env, numbers, words) = env();
    numbers.connect(&numbers).map(|n| n, |n| n);
    numbers.connect(&words.union(&[&words.map(|word| word)])).process(Both);
    let graph = env.compile("test").unwrap().graph;
    let to = |name: &str| {
        let target = graph.vertices.iter().find(|vertex| vertex.name == name).unwrap().id;
        graph.edges.iter().filter(|edge| edge.target == target).map(|edge| edge.input).collect::<Vec<_>>()
    };
    assert_eq!(to("Co-Map"), [0, 1]);
    assert_eq!(to("Co-Process"), [0, 1, 1]);
}

#[test]
fn each_input_has_the_decoder_of_its_records() {
    let (env, numbers, words) = env();
    numbers.connect(&words).process(Both);
    let program = env.compile("test").unwrap();
    let vertex = program.graph.vertices.iter().find(|vertex| vertex.name == "Co-Process").unwrap().id;
    let mut bytes = Vec::new();
    let batch = crate::batch::Batch::of(vec!["a".to_string(), "b".to_string()]);
    crate::batch::DataBatch::encode(&batch, &mut bytes).unwrap();
    let decoded = program.decoder(vertex, 1).unwrap()(&bytes).unwrap();
    let decoded: crate::batch::Batch<String> = crate::task::typed_batch(decoded).unwrap();
    assert_eq!(decoded, batch);
}

#[test]
fn the_broadcast_side_goes_to_every_task() {
    let (env, numbers, words) = env();
    let (first, second) =
        (BroadcastState::<u64, String>::new("first"), BroadcastState::<String, u8>::new("second"));
    let broadcast = words.broadcast_state(&first).with_state(&second);
    numbers.connect_broadcast(&broadcast).process(Both).name("Plain");
    numbers.key_by(|n| *n).connect_broadcast(&broadcast).process(Both).name("Keyed");
    let graph = env.compile("test").unwrap().graph;
    expect(&graph, "Plain", Partitioning::Forward, Partitioning::Broadcast);
    expect(&graph, "Keyed", Partitioning::KeyGroup, Partitioning::Broadcast);
}

#[test]
fn broadcast_states_need_names_of_their_own_and_stable_keys() {
    let (env, _, words) = env();
    let state = BroadcastState::<u64, String>::new("rules");
    words.broadcast_state(&state).with_state(&state);
    assert!(refused(&env).contains("broadcast state 'rules' is declared twice"));
    words.broadcast_state(&BroadcastState::<(u8, HashMap<u8, u8>), u8>::new("rules"));
    assert!(refused(&env).contains("broadcast state 'rules': key type"));
}

#[test]
fn an_interval_join_is_keyed_on_both_sides_and_has_late_side_outputs() {
    let (env, numbers, words) = env();
    let (left_late, right_late) = (OutputTag::new("left"), OutputTag::<String>::new("right"));
    let joined = numbers
        .key_by(|n| *n)
        .interval_join(&words.key_by(|word| word.len() as u64))
        .between(-10, 10)
        .upper_bound_exclusive()
        .side_output_left_late(&left_late)
        .side_output_right_late(&right_late)
        .join(|n, word| (*n, word.clone()));
    joined.side_output(&left_late).map(|n| n);
    joined.side_output(&right_late).map(|word| word);
    let graph = env.compile("test").unwrap().graph;
    expect(&graph, "Interval Join -> Map", Partitioning::KeyGroup, Partitioning::KeyGroup);
}

#[test]
fn bounds_that_leave_no_room_are_refused() {
    let (env, numbers, words) = env();
    let (numbers, words) = (numbers.key_by(|n| *n), words.key_by(|word| word.len() as u64));
    let joined = || numbers.interval_join(&words).between(5, 6).lower_bound_exclusive();
    joined().join(|n, _| *n);
    assert!(env.compile("test").is_ok());
    joined().upper_bound_exclusive().join(|n, _| *n);
    assert!(refused(&env).contains("lower bound of 6 ms lies above its upper bound of 5 ms"));
}

#[test]
fn streams_of_different_environments_do_not_connect() {
    let (first, numbers, _) = env();
    let (_second, _, words) = env();
    numbers.connect(&words).process(Both);
    assert_eq!(refused(&first), "connect of streams of different environments");
    numbers
        .key_by(|n| *n)
        .interval_join(&words.key_by(|word| word.len() as u64))
        .between(0, 1)
        .join(|n, _| *n);
    assert_eq!(refused(&first), "interval_join of streams of different environments");
}

#[test]
fn asynchronous_calls_chain_and_their_options_are_checked() {
    let (env, numbers, _) = env();
    let second = Duration::from_secs(1);
    numbers.async_map_ordered(second, 10, |n| async move { Ok(n + 1) });
    numbers.async_map_unordered(second, 10, |n| async move { Ok(n + 1) });
    let graph = env.compile("test").unwrap().graph;
    assert!(graph.vertices.iter().any(|vertex| vertex.name == "Source: numbers -> Async Wait -> Async Wait"));

    numbers.async_map_ordered(second, 0, |n| async move { Ok(n + 1) });
    assert!(refused(&env).contains("capacity of 0"));
    let retry = RetryStrategy::exponential_backoff(3, second, second * 10, 0.1);
    let function = AsyncMap::new(|n: u64| async move { Err::<u64, _>(Error::user(n.to_string())) });
    numbers.async_wait(AsyncOptions::unordered(second, 10).with_retry(retry), function);
    assert!(refused(&env).contains("multiplier of an exponential backoff is 0.1"));
}

#[test]
fn settings_behind_from_source_are_those_of_the_source() {
    let env = StreamEnv::new();
    let numbers = env
        .from_source(Nothing, WatermarkStrategy::no_watermarks(), "numbers")
        .uid("orders")
        .name("All orders")
        .parallelism(3)
        .disable_chaining();
    numbers.map(|n| n);
    let graph = env.compile("test").unwrap().graph;
    let vertex = &graph.vertices[0];
    let operators: Vec<_> = vertex.operators.iter().map(|o| (o.name.as_str(), o.uid.as_str())).collect();
    let expected = [("All orders", "orders"), ("Timestamps/Watermarks", "orders watermarks")];
    assert_eq!((operators.as_slice(), vertex.parallelism), (expected.as_slice(), 3));
}

/// Counts nothing.
#[derive(Clone)]
struct Committed(bool);

impl Sink<u64> for Committed {
    type Committable = ();
    type Writer = Committed;
    type Committer = NothingToCommit;

    fn writer(&self, _ctx: &OperatorContext) -> Result<Committed> {
        Ok(self.clone())
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }

    fn global_committer(&self) -> Option<Box<dyn GlobalCommitter<Committable = ()>>> {
        self.0.then(|| Box::new(Committed(true)) as Box<_>)
    }
}

impl SinkWriter<u64> for Committed {
    type Committable = ();

    fn write(&mut self, _batch: Batch<u64>) -> Result<()> {
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

impl GlobalCommitter for Committed {
    type Committable = ();

    fn commit(&mut self, _id: CommitId, _committables: Vec<()>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_global_committer_is_one_task_behind_its_sink_with_a_uid_of_its_own() {
    for parallelism in [1, 3] {
        let env = StreamEnv::new();
        env.set_parallelism(parallelism);
        let numbers = env.add_source(Nothing, "numbers");
        numbers.sink_to(Committed(true), "all").uid("all");
        numbers.sink_to(Committed(false), "each").uid("each");
        let graph = env.compile("test").unwrap().graph;
        let [writers, committer] = graph.vertices.as_slice() else { panic!("{graph:?}") };
        assert_eq!(committer.name, "Sink: all: Global Committer");
        assert_eq!(committer.operators[0].uid, "all-global-committer");
        assert_eq!((writers.parallelism, committer.parallelism), (parallelism, 1));
        assert_eq!(committer.max_parallelism, 1, "it is never rescaled");
        assert_eq!(
            graph.edges.iter().map(|edge| edge.partitioning).collect::<Vec<_>>(),
            [Partitioning::Global]
        );
    }
}

/// A rescale gives every vertex another parallelism, up to its max parallelism.
#[test]
fn what_works_on_the_whole_stream_stays_one_task_and_does_not_hold_back_what_is_in_front() {
    let env = StreamEnv::new();
    env.set_parallelism(1).set_max_parallelism(64);
    let numbers = env.add_source(Nothing, "numbers").map(|n| n);
    numbers.count_window_all(3).reduce(|sum, n| *sum += *n).map(|n| n);
    let graph = env.compile("test").unwrap().graph;
    let bounds: Vec<u32> = graph.vertices.iter().map(|vertex| vertex.max_parallelism).collect();
    assert_eq!(bounds, [64, 1], "{graph:?}");
}

//! How the shape of a type is found without a value: its `Deserialize` is run, several times, against a deserialiser
//! that writes down what is asked for and answers with samples.
//!
//! - `grammar`: what has been learnt: a graph of the types met, and the way to what is still unknown
//! - `deserializer`, `access`: serde's side: answers a request, notes it in the grammar
//! - `samples`: the values that are tried
//! - `unfold`: grammar -> [`Shape`]
//!
//! One run follows one path to something unknown and builds the smallest values elsewhere. It stops at the first thing
//! that cannot go on (a recursion without a known end, a sample that is refused) after having learnt from it, and the
//! next run does better. Every run learns something or gives up one goal, so the number of runs is finite.
//! (Tracing by serde's data model, several runs for the variants of enums: as in serde-reflection. The graph keyed by
//! visitor types, the smallest values by height and the retried samples are our own.)
//!
//! What must never happen here: a panic that leaves [`trace`], a loop without a bound.

mod access;
mod deserializer;
mod error;
mod grammar;
mod samples;
mod unfold;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use deserializer::Tracing;
use error::TraceError;
use grammar::{EdgeId, Grammar, INFINITE, Key, NodeId, ROOT_EDGE, Target};

use super::shape::Shape;

/// Samples refused at one place before its values count as impossible to build.
const ATTEMPTS_MAX: u32 = 32;
/// Values asked for in all runs together; a type beyond this keeps unknown parts.
const STEPS_MAX: u64 = 1 << 20;
/// Types nested in one value; keeps the call stack small.
const DEPTH_MAX: usize = 96;

/// The shape of `T`; see [`Shape::of`].
pub(super) fn trace<T: DeserializeOwned>() -> Shape {
    let mut tracer = Tracer::default();
    while tracer.plan_run() {
        let run = || {
            let root = Frame { node: ROOT_EDGE.0, variation: 0, path: Some(0), nested: false };
            let _ = tracer.visit_edge(root, ROOT_EDGE.1, |input| T::deserialize(input).map(drop));
        };
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracer.block_panicking_edge();
        }
        tracer.conclude_run();
    }
    unfold::unfold(&tracer.grammar)
}

/// State of a trace: what was learnt, and where the run at hand stands.
#[derive(Default)]
struct Tracer {
    grammar: Grammar,
    /// Goals that a run aimed at without learning anything since the last run that did.
    given_up: HashSet<EdgeId>,
    steps: u64,
    // The run at hand.
    heights: Vec<u32>,
    /// Edges from the root to the goal of this run.
    path: Vec<EdgeId>,
    nodes: Vec<NodeId>,
    edges: Vec<EdgeId>,
    /// Scalars answered so far.
    leaves: u32,
    stopped: bool,
    learnt: bool,
}

/// An occurrence of an edge in a run: what the deserialiser that stands there knows.
#[derive(Clone, Copy)]
struct Place {
    edge: EdgeId,
    /// Which samples to use: the refusals counted on the way here.
    variation: u32,
    /// Position in the path of the run, where this occurrence lies on it.
    path: Option<usize>,
}

/// An occurrence of a node in a run.
#[derive(Clone, Copy)]
struct Frame {
    node: NodeId,
    variation: u32,
    path: Option<usize>,
    /// Stands inside another occurrence of the same node.
    nested: bool,
}

impl Tracer {
    /// Chooses the next goal; false when nothing is left to learn.
    fn plan_run(&mut self) -> bool {
        if self.steps >= STEPS_MAX {
            return false;
        }
        let Some(path) = self.grammar.path_to_open(&self.given_up) else { return false };
        self.path = path;
        self.heights = self.grammar.heights();
        self.nodes.clear();
        self.edges.clear();
        self.leaves = 0;
        self.stopped = false;
        self.learnt = false;
        true
    }

    fn conclude_run(&mut self) {
        if self.learnt {
            self.given_up.clear();
        } else if let Some(goal) = self.path.last() {
            self.given_up.insert(*goal);
        }
    }

    /// The innermost place that was being read holds the type that panicked.
    fn block_panicking_edge(&mut self) {
        if let Some(edge) = self.edges.last().copied() {
            let edge = self.grammar.edge_mut(edge);
            self.learnt |= !edge.blocked;
            edge.blocked = true;
        }
    }

    /// Ends the run: whatever the type asks for now is refused.
    fn stop(&mut self) -> TraceError {
        self.stopped = true;
        TraceError::Stop
    }

    /// Ends the run after something was learnt from it.
    fn stop_learnt(&mut self) -> TraceError {
        self.learnt = true;
        self.stop()
    }

    /// Reads the value at `slot` of `frame`. A refusal by the type is counted here, at the innermost edge it passes.
    fn visit_edge<R>(
        &mut self,
        frame: Frame,
        slot: usize,
        read: impl FnOnce(Tracing<'_>) -> Result<R, TraceError>,
    ) -> Result<R, TraceError> {
        self.steps += 1;
        if self.stopped || self.steps >= STEPS_MAX {
            return Err(self.stop());
        }
        let edge = (frame.node, slot);
        let attempts = self.grammar.edge(edge).attempts;
        let place = Place { edge, variation: frame.variation + attempts, path: self.path_below(frame, slot) };
        self.edges.push(edge);
        let result = read(Tracing { tracer: self, place });
        self.edges.pop();
        match result {
            Ok(value) => {
                if !self.stopped && self.grammar.edge(edge).target.is_none() {
                    // A type that reads nothing.
                    self.record(edge, Target::Leaf(Shape::Unit));
                }
                Ok(value)
            }
            Err(_) if self.stopped => Err(TraceError::Stop),
            Err(_) => Err(self.refused(edge)),
        }
    }

    fn refused(&mut self, edge: EdgeId) -> TraceError {
        let edge = self.grammar.edge_mut(edge);
        if edge.blocked {
            return self.stop();
        }
        edge.attempts += 1;
        edge.blocked = edge.attempts >= ATTEMPTS_MAX;
        self.stop_learnt()
    }

    /// Notes what stands at the end of an edge.
    fn record(&mut self, edge: EdgeId, target: Target) {
        self.learnt |= self.grammar.record(edge, target);
    }

    /// Starts reading a value of the node that `key` names. Pair with [`leave`](Self::leave).
    fn enter(&mut self, place: Place, key: Key) -> Result<Frame, TraceError> {
        if self.stopped {
            return Err(TraceError::Stop);
        }
        let node = self.grammar.node(key);
        self.record(place.edge, Target::Node(node));
        let nested = self.nodes.contains(&node);
        if (nested && self.height(node) == INFINITE) || self.nodes.len() >= DEPTH_MAX {
            return Err(self.stop());
        }
        self.nodes.push(node);
        Ok(Frame { node, variation: place.variation, path: place.path, nested })
    }

    fn leave(&mut self) {
        self.nodes.pop();
    }

    fn height(&self, node: NodeId) -> u32 {
        self.heights.get(node).copied().unwrap_or(INFINITE)
    }

    fn edge_height(&self, edge: EdgeId) -> u32 {
        self.grammar.edge(edge).height(&self.heights)
    }

    /// The slot of `frame` that the path of this run takes.
    fn path_slot(&self, frame: Frame) -> Option<usize> {
        let (node, slot) = *self.path.get(frame.path?)?;
        (node == frame.node).then_some(slot)
    }

    fn path_below(&self, frame: Frame, slot: usize) -> Option<usize> {
        (self.path_slot(frame)? == slot).then(|| frame.path.map(|position| position + 1))?
    }

    /// Whether to put something into an option, a sequence or a map that may stay empty.
    fn wants_content(&self, frame: Frame) -> bool {
        self.path_slot(frame).is_some() || (!frame.nested && self.grammar.first_open(frame.node).is_some())
    }

    /// The variant to build: what the run aims at, else an unknown one, else the one with the smallest values.
    fn choose_variant(&self, frame: Frame) -> Option<usize> {
        let open = || if frame.nested { None } else { self.grammar.first_open(frame.node) };
        self.path_slot(frame).or_else(open).or_else(|| {
            let slots = self.grammar.live_slots(frame.node);
            slots.min_by_key(|slot| self.edge_height((frame.node, *slot)))
        })
    }
}

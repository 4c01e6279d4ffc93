//! Grammar -> [`Shape`]: the graph of types becomes a tree, with [`Shape::Recursive`] where a cycle closes.
//!
//! A named type of a cycle is given in full once in each unfolding of that cycle; types outside of cycles are given in
//! full wherever they stand. Mutually recursive types would otherwise multiply.

use std::collections::HashSet;

use super::grammar::{Edge, EdgeId, Grammar, Kind, NodeId, ROOT_EDGE, Target};
use crate::types::shape::{Shape, VariantShape};

/// Parts in one shape; what lies beyond is unknown.
const PARTS_MAX: usize = 1 << 16;

/// Reason of a part whose type read nothing acceptable.
const REFUSED: &str = "its type refuses every sample value, or panics on it";
/// Reason of a part that no run got to.
const UNREACHED: &str = "it stands behind a value for which no sample was found";
/// Reason of a part beyond [`PARTS_MAX`].
const TOO_LARGE: &str = "the type has too many parts";

pub(super) fn unfold(grammar: &Grammar) -> Shape {
    let cycles = cycles(grammar);
    Unfolding { grammar, cycles, open: Vec::new(), entered: Vec::new(), parts: 0 }.edge(ROOT_EDGE)
}

struct Unfolding<'g> {
    grammar: &'g Grammar,
    /// The cycle each node belongs to.
    cycles: Vec<Option<usize>>,
    /// Nodes that enclose the part at hand.
    open: Vec<NodeId>,
    /// Cycles that enclose the part at hand, and their named types given so far.
    entered: Vec<(usize, HashSet<NodeId>)>,
    parts: usize,
}

impl Unfolding<'_> {
    fn edge(&mut self, edge: EdgeId) -> Shape {
        match &self.grammar.edge(edge).target {
            Some(Target::Leaf(shape)) => shape.clone(),
            Some(Target::Node(node)) => self.node(*node),
            None => Shape::Unknown(self.unknown(edge).to_owned()),
        }
    }

    fn unknown(&self, edge: EdgeId) -> &'static str {
        if self.grammar.edge(edge).blocked { REFUSED } else { UNREACHED }
    }

    fn node(&mut self, id: NodeId) -> Shape {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Shape::Unknown(TOO_LARGE.to_owned());
        }
        let grammar = self.grammar;
        let node = &grammar.nodes[id];
        let Some(cycle) = self.cycles[id] else { return self.content(id) };
        let inside = self.entered.last().is_some_and(|(entered, _)| *entered == cycle);
        if !inside {
            self.entered.push((cycle, HashSet::new()));
        }
        let given = match self.entered.last_mut() {
            Some((_, given)) if node.kind.has_name() => !given.insert(id),
            // What has no name is cut only where the cycle has no name to cut it at.
            _ => self
                .open
                .iter()
                .rev()
                .take_while(|open| !grammar.nodes[**open].kind.has_name())
                .any(|open| *open == id),
        };
        let shape = if given { Shape::Recursive(node.name.to_owned()) } else { self.content(id) };
        if !inside {
            self.entered.pop();
        }
        shape
    }

    fn content(&mut self, id: NodeId) -> Shape {
        self.open.push(id);
        let shape = self.open_content(id);
        self.open.pop();
        shape
    }

    fn open_content(&mut self, id: NodeId) -> Shape {
        let node = &self.grammar.nodes[id];
        let name = node.name.to_owned();
        match node.kind {
            Kind::Option => Shape::Option(Box::new(self.edge((id, 0)))),
            Kind::Seq => Shape::Seq(Box::new(self.edge((id, 0)))),
            Kind::Map => Shape::Map(Box::new(self.edge((id, 0))), Box::new(self.edge((id, 1)))),
            Kind::Tuple => Shape::Tuple(self.elements(id)),
            Kind::Newtype => Shape::NewtypeStruct { name, inner: Box::new(self.edge((id, 0))) },
            Kind::TupleStruct => Shape::TupleStruct { name, elements: self.elements(id) },
            Kind::Struct => Shape::Struct { name, fields: self.fields(id) },
            Kind::Enum => Shape::Enum { name, variants: self.variants(id) },
            // The root is no target of an edge, and contents of variants are taken up by their enum.
            Kind::Root
            | Kind::UnitVariant
            | Kind::NewtypeVariant
            | Kind::TupleVariant
            | Kind::StructVariant => Shape::Unknown(UNREACHED.to_owned()),
        }
    }

    fn elements(&mut self, id: NodeId) -> Vec<Shape> {
        (0..self.grammar.nodes[id].edges.len()).map(|slot| self.edge((id, slot))).collect()
    }

    fn fields(&mut self, id: NodeId) -> Vec<(String, Shape)> {
        let grammar = self.grammar;
        let names = &grammar.nodes[id].names;
        grammar.live_slots(id).map(|slot| (names[slot].clone(), self.edge((id, slot)))).collect()
    }

    fn variants(&mut self, id: NodeId) -> Vec<(String, VariantShape)> {
        let grammar = self.grammar;
        let names = &grammar.nodes[id].names;
        grammar.live_slots(id).map(|slot| (names[slot].clone(), self.variant((id, slot)))).collect()
    }

    fn variant(&mut self, edge: EdgeId) -> VariantShape {
        let Some(Target::Node(content)) = self.grammar.edge(edge).target else {
            return VariantShape::Newtype(Box::new(self.edge(edge)));
        };
        match self.grammar.nodes[content].kind {
            Kind::UnitVariant => VariantShape::Unit,
            Kind::TupleVariant => VariantShape::Tuple(self.elements(content)),
            Kind::StructVariant => VariantShape::Struct(self.fields(content)),
            _ => VariantShape::Newtype(Box::new(self.edge((content, 0)))),
        }
    }
}

/// For each node that can reach itself, a number that all nodes of its cycle share.
fn cycles(grammar: &Grammar) -> Vec<Option<usize>> {
    let reach: Vec<Vec<bool>> = (0..grammar.nodes.len()).map(|node| reachable(grammar, node)).collect();
    let shared = |node: usize| (0..reach.len()).find(|other| reach[node][*other] && reach[*other][node]);
    (0..reach.len()).map(shared).collect()
}

/// Nodes that can be reached from `from` over one edge or more.
fn reachable(grammar: &Grammar, from: NodeId) -> Vec<bool> {
    let mut reached = vec![false; grammar.nodes.len()];
    let mut pending = vec![from];
    while let Some(node) = pending.pop() {
        for next in grammar.nodes[node].edges.iter().filter_map(Edge::node) {
            if !reached[next] {
                reached[next] = true;
                pending.push(next);
            }
        }
    }
    reached
}

//! What a trace has learnt: the types met (nodes), their parts (edges), and what is still unknown.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::shape::Shape;

pub(super) type NodeId = usize;
/// A node and one of its slots: a field, an element, a variant.
pub(super) type EdgeId = (NodeId, usize);

/// The edge to the traced type itself.
pub(super) const ROOT_EDGE: EdgeId = (0, 0);
/// Height of what cannot be built, or not yet.
pub(super) const INFINITE: u32 = u32::MAX;

/// Reason of a part whose structure differs from run to run.
const VARIES: &str = "its structure depends on the value of another part";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Root,
    Option,
    Seq,
    Map,
    Tuple,
    Newtype,
    TupleStruct,
    Struct,
    Enum,
    UnitVariant,
    NewtypeVariant,
    TupleVariant,
    StructVariant,
}

impl Kind {
    /// Whether the type has a name in serde.
    pub(super) fn has_name(self) -> bool {
        matches!(self, Kind::Newtype | Kind::TupleStruct | Kind::Struct | Kind::Enum)
    }
}

/// What makes two requests the same type. The visitor's Rust type tells apart types that share a serde name
/// (`Node<u32>` and `Node<String>`); variants of an enum are told apart by the edge they hang on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub kind: Kind,
    pub visitor: &'static str,
    pub name: &'static str,
    pub names: &'static [&'static str],
    pub slots: usize,
    pub owner: Option<EdgeId>,
}

pub(super) struct Node {
    pub kind: Kind,
    pub name: &'static str,
    /// Names of the slots, where they have names.
    pub names: Vec<String>,
    pub edges: Vec<Edge>,
    /// Fields are given by position and variants by index, because the type knows no names.
    pub positional: bool,
}

#[derive(Default)]
pub(super) struct Edge {
    pub target: Option<Target>,
    /// Samples refused here.
    pub attempts: u32,
    /// No value could be built here.
    pub blocked: bool,
    /// No part of its own: another name of an earlier slot, or a variant that the type does not know.
    pub absent: bool,
    /// Identity of the variant behind this name.
    pub tag: Option<u64>,
}

#[derive(PartialEq)]
pub(super) enum Target {
    Leaf(Shape),
    Node(NodeId),
}

pub(super) struct Grammar {
    pub nodes: Vec<Node>,
    ids: HashMap<Key, NodeId>,
}

impl Default for Grammar {
    fn default() -> Self {
        let root = Node {
            kind: Kind::Root,
            name: "",
            names: Vec::new(),
            edges: vec![Edge::default()],
            positional: false,
        };
        Grammar { nodes: vec![root], ids: HashMap::new() }
    }
}

impl Edge {
    /// Whether nothing is known yet and something may be learnt.
    fn is_open(&self) -> bool {
        self.target.is_none() && !self.blocked && !self.absent
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        match self.target {
            Some(Target::Node(node)) => Some(node),
            _ => None,
        }
    }

    pub(super) fn height(&self, heights: &[u32]) -> u32 {
        match &self.target {
            _ if self.blocked => INFINITE,
            None => INFINITE,
            Some(Target::Leaf(_)) => 0,
            Some(Target::Node(node)) => heights.get(*node).copied().unwrap_or(INFINITE),
        }
    }
}

impl Grammar {
    pub(super) fn edge(&self, (node, slot): EdgeId) -> &Edge {
        &self.nodes[node].edges[slot]
    }

    pub(super) fn edge_mut(&mut self, (node, slot): EdgeId) -> &mut Edge {
        &mut self.nodes[node].edges[slot]
    }

    /// The node of `key`, made when it is met for the first time.
    pub(super) fn node(&mut self, key: Key) -> NodeId {
        let nodes = &mut self.nodes;
        *self.ids.entry(key).or_insert_with(|| {
            nodes.push(Node {
                kind: key.kind,
                name: key.name,
                names: key.names.iter().map(|name| name.to_string()).collect(),
                edges: (0..key.slots).map(|_| Edge::default()).collect(),
                positional: false,
            });
            nodes.len() - 1
        })
    }

    /// Notes the target of an edge; true when that is news.
    pub(super) fn record(&mut self, edge: EdgeId, target: Target) -> bool {
        let varies = || Target::Leaf(Shape::Unknown(VARIES.to_owned()));
        let known = &mut self.edge_mut(edge).target;
        match known {
            None => *known = Some(target),
            Some(same) if *same == target || *same == varies() => return false,
            Some(other) => *other = varies(),
        }
        true
    }

    /// Slots that are parts of their own.
    pub(super) fn live_slots(&self, node: NodeId) -> impl Iterator<Item = usize> + '_ {
        let edges = self.nodes[node].edges.iter().enumerate();
        edges.filter(|(_, edge)| !edge.absent).map(|(slot, _)| slot)
    }

    /// First slot of a node of which nothing is known.
    pub(super) fn first_open(&self, node: NodeId) -> Option<usize> {
        self.nodes[node].edges.iter().position(Edge::is_open)
    }

    /// The shortest way from the root to an unknown edge that is not in `given_up`; the last step is that edge.
    pub(super) fn path_to_open(&self, given_up: &HashSet<EdgeId>) -> Option<Vec<EdgeId>> {
        let mut reached_by: HashMap<NodeId, EdgeId> = HashMap::new();
        let mut queue = VecDeque::from([ROOT_EDGE.0]);
        while let Some(node) = queue.pop_front() {
            for (slot, edge) in self.nodes[node].edges.iter().enumerate() {
                if edge.is_open() && !given_up.contains(&(node, slot)) {
                    let mut path = vec![(node, slot)];
                    while let Some(step) = path.last().and_then(|(node, _)| reached_by.get(node)) {
                        path.push(*step);
                    }
                    path.reverse();
                    return Some(path);
                }
                if let Some(next) = edge.node()
                    && next != ROOT_EDGE.0
                    && !reached_by.contains_key(&next)
                {
                    reached_by.insert(next, (node, slot));
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Depth of the smallest value of each node. What may be empty has height 0, so the smallest values are finite
    /// even where types are recursive.
    pub(super) fn heights(&self) -> Vec<u32> {
        let mut heights = vec![INFINITE; self.nodes.len()];
        loop {
            let mut changed = false;
            for (id, node) in self.nodes.iter().enumerate() {
                let live = node.edges.iter().filter(|edge| !edge.absent);
                let below = match node.kind {
                    Kind::Option | Kind::Seq | Kind::Map => Some(0),
                    Kind::Enum => live.map(|edge| edge.height(&heights)).min(),
                    _ => live.map(|edge| edge.height(&heights)).max().or(Some(0)),
                };
                let height = below.map_or(INFINITE, |below| below.saturating_add(1));
                if height < heights[id] {
                    heights[id] = height;
                    changed = true;
                }
            }
            if !changed {
                return heights;
            }
        }
    }
}

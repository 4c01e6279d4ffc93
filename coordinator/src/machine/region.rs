//! Regions: the parts of a graph that are placed at once.
//!
//! A streaming job is one region. A batch job falls apart at its blocking edges: vertices connected by pipelined edges
//! form a region, and a region may start when all results it reads from other regions are complete. Where regions would
//! wait for each other in a circle (a vertex feeds another directly and also through a blocking detour), they become
//! one; the reader of a blocking edge inside a region starts with its writer and waits for the result in its worker.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::error::Result;
use flott_schema::graph::{Exchange, ExecutionMode, JobGraph};
use flott_schema::ids::VertexId;

/// Refuses a graph the machine cannot run.
pub fn check_graph(graph: &JobGraph) -> Result<()> {
    graph.validate()
}

/// A region by the positions of its vertices in the graph, ascending, and the positions of the vertices of other
/// regions whose results it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionShape {
    /// Its vertices.
    pub vertices: Vec<usize>,
    /// Sources of the blocking edges that lead into it from outside.
    pub inputs: Vec<usize>,
}

/// The regions of a valid graph, ordered by their first vertex.
pub fn regions_of(graph: &JobGraph) -> Vec<RegionShape> {
    let positions = positions(graph);
    let edges: Vec<(usize, usize, Exchange)> = graph
        .edges
        .iter()
        .map(|edge| (positions[&edge.source], positions[&edge.target], edge.exchange))
        .collect();
    let count = graph.vertices.len();
    let mut sets = DisjointSets::new(count);
    match graph.mode {
        ExecutionMode::Streaming => (1..count).for_each(|vertex| sets.join(0, vertex)),
        ExecutionMode::Batch => {
            for (source, target, exchange) in &edges {
                if *exchange == Exchange::Pipelined {
                    sets.join(*source, *target);
                }
            }
            merge_circles(&mut sets, &edges);
        }
    }

    let mut regions: BTreeMap<usize, RegionShape> = BTreeMap::new();
    for vertex in 0..count {
        regions.entry(sets.root(vertex)).or_default().vertices.push(vertex);
    }
    for (source, target, _) in &edges {
        if sets.root(*source) != sets.root(*target) {
            let inputs = &mut regions.get_mut(&sets.root(*target)).expect("every root has a region").inputs;
            if !inputs.contains(source) {
                inputs.push(*source);
            }
        }
    }
    regions.into_values().collect()
}

/// Position of each vertex in the graph.
pub(super) fn positions(graph: &JobGraph) -> BTreeMap<VertexId, usize> {
    graph.vertices.iter().enumerate().map(|(position, vertex)| (vertex.id, position)).collect()
}

/// Joins sets that reach each other over the edges between sets. Kosaraju: the order in which a depth-first search over
/// the edges leaves the sets, taken backwards, is the order in which a search over the reversed edges finds circles.
fn merge_circles(sets: &mut DisjointSets, edges: &[(usize, usize, Exchange)]) {
    let mut forward: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut backward: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (source, target, _) in edges {
        let (source, target) = (sets.root(*source), sets.root(*target));
        if source != target {
            forward.entry(source).or_default().insert(target);
            backward.entry(target).or_default().insert(source);
        }
    }
    let roots: BTreeSet<usize> = (0..sets.parent.len()).map(|vertex| sets.root(vertex)).collect();
    let mut left = Vec::new();
    let mut seen = BTreeSet::new();
    for root in &roots {
        search(*root, &forward, &mut seen, &mut left);
    }
    let mut seen = BTreeSet::new();
    for root in left.into_iter().rev() {
        let mut circle = Vec::new();
        search(root, &backward, &mut seen, &mut circle);
        circle.into_iter().for_each(|member| sets.join(root, member));
    }
}

/// Depth-first search from `start`; appends each new node to `left` when all below it have been seen.
fn search(
    start: usize,
    edges: &BTreeMap<usize, BTreeSet<usize>>,
    seen: &mut BTreeSet<usize>,
    left: &mut Vec<usize>,
) {
    let below = |node: usize| edges.get(&node).into_iter().flatten().copied().collect::<Vec<_>>();
    if !seen.insert(start) {
        return;
    }
    let mut path = vec![(start, below(start))];
    while let Some((node, open)) = path.last_mut() {
        match open.pop() {
            Some(next) if seen.insert(next) => path.push((next, below(next))),
            Some(_) => {}
            None => {
                left.push(*node);
                path.pop();
            }
        }
    }
}

/// Union-find; the root of a set is its smallest member.
struct DisjointSets {
    parent: Vec<usize>,
}

impl DisjointSets {
    fn new(count: usize) -> Self {
        DisjointSets { parent: (0..count).collect() }
    }

    fn root(&mut self, mut member: usize) -> usize {
        while self.parent[member] != member {
            self.parent[member] = self.parent[self.parent[member]];
            member = self.parent[member];
        }
        member
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::graph::{batch, streaming};

    fn vertices(graph: &JobGraph) -> Vec<Vec<usize>> {
        regions_of(graph).into_iter().map(|region| region.vertices).collect()
    }

    #[test]
    fn a_streaming_job_is_one_region_even_in_two_parts() {
        let graph = streaming("s", &[("a", 1), ("b", 1), ("c", 1)], &["a > b"]);
        assert_eq!(vertices(&graph), [vec![0, 1, 2]]);
    }

    #[test]
    fn a_batch_job_falls_apart_at_blocking_edges() {
        let graph =
            batch("b", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)], &["a > b", "b >> c", "a >> d", "c > d"]);
        let regions = regions_of(&graph);
        assert_eq!(regions[0], RegionShape { vertices: vec![0, 1], inputs: vec![] });
        assert_eq!(regions[1], RegionShape { vertices: vec![2, 3], inputs: vec![1, 0] });
    }

    #[test]
    fn regions_that_wait_for_each_other_become_one() {
        // a > c directly, and a >> b >> c: the region of a and c would wait for b, and b for the region.
        let graph =
            batch("b", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)], &["a > c", "a >> b", "b >> c", "c >> d"]);
        let regions = regions_of(&graph);
        assert_eq!(regions[0], RegionShape { vertices: vec![0, 1, 2], inputs: vec![] });
        assert_eq!(regions[1], RegionShape { vertices: vec![3], inputs: vec![2] });
    }

    #[test]
    fn a_vertex_id_given_twice_is_refused() {
        let mut graph = streaming("s", &[("a", 1), ("b", 1)], &[]);
        graph.vertices[1].id = graph.vertices[0].id;
        let error = check_graph(&graph).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }
}

//! The graph of a job that has another parallelism than its program says.

use std::sync::Arc;

use super::JobSpec;
use crate::graph::{JobGraph, Partitioning};

impl JobSpec {
    /// The graph that runs: the submitted one, with the parallelism that its vertices have been given since. The order of vertices
    /// and edges is the same.
    ///
    /// A forward edge between vertices that are no longer equally parallel spreads records over the nearest tasks instead, as in
    /// Flink's adaptive scheduler. The fingerprint is that of the submitted graph: it tells programs apart, not deployments.
    pub fn effective_graph(&self) -> Arc<JobGraph> {
        if self.parallelism.is_empty() {
            return self.graph.clone();
        }
        let mut graph = JobGraph::clone(&self.graph);
        for vertex in &mut graph.vertices {
            vertex.parallelism = self.parallelism.get(&vertex.id).copied().unwrap_or(vertex.parallelism);
        }
        let parallelism = |id| self.parallelism_of(id);
        for edge in &mut graph.edges {
            let is_equal = parallelism(edge.source) == parallelism(edge.target);
            if edge.partitioning == Partitioning::Forward && !is_equal {
                edge.partitioning = Partitioning::Rescale;
            }
        }
        Arc::new(graph)
    }

    /// The parallelism that a vertex has; nothing for one that is not in the graph.
    pub fn parallelism_of(&self, vertex: crate::ids::VertexId) -> Option<u32> {
        let submitted = self.graph.vertex(vertex)?.parallelism;
        Some(self.parallelism.get(&vertex).copied().unwrap_or(submitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Edge, Exchange, ExecutionMode, OperatorSpec, Vertex};
    use crate::ids::{OperatorId, VertexId};

    fn vertex(id: u128) -> Vertex {
        let operator = OperatorSpec { id: OperatorId(id), uid: id.to_string(), name: id.to_string() };
        Vertex {
            id: VertexId(id),
            name: id.to_string(),
            operators: vec![operator],
            parallelism: 2,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            is_source: id == 1,
        }
    }

    fn edge(source: u128, target: u128) -> Edge {
        Edge {
            source: VertexId(source),
            target: VertexId(target),
            input: 0,
            partitioning: Partitioning::Forward,
            exchange: Exchange::Pipelined,
        }
    }

    #[test]
    fn another_parallelism_changes_forward_edges_that_become_unequal_and_nothing_else() {
        let graph = JobGraph {
            name: "job".into(),
            mode: ExecutionMode::Streaming,
            vertices: vec![vertex(1), vertex(2), vertex(3)],
            edges: vec![edge(1, 2), edge(2, 3)],
        };
        let mut spec = JobSpec::embedded(graph);
        assert!(Arc::ptr_eq(&spec.effective_graph(), &spec.graph));
        spec.parallelism = [(VertexId(1), 4), (VertexId(2), 4)].into();
        let rescaled = spec.effective_graph();
        let parallelism: Vec<u32> = rescaled.vertices.iter().map(|vertex| vertex.parallelism).collect();
        assert_eq!(parallelism, [4, 4, 2]);
        let partitioning: Vec<Partitioning> = rescaled.edges.iter().map(|edge| edge.partitioning).collect();
        assert_eq!(partitioning, [Partitioning::Forward, Partitioning::Rescale]);
        assert_eq!(spec.graph.vertices[0].parallelism, 2);
        // Back again, the edge is what it was.
        spec.parallelism = [(VertexId(3), 4), (VertexId(1), 4), (VertexId(2), 4)].into();
        assert!(spec.effective_graph().edges.iter().all(|edge| edge.partitioning == Partitioning::Forward));
    }
}

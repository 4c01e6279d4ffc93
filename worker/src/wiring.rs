//! Which channels lead into a task, and which number a channel has there. Both ends compute it from the graph.

use flott_schema::graph::{Edge, JobGraph};
use flott_schema::ids::{TaskId, VertexId};

/// A channel into a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Index of the edge in the graph.
    pub edge: usize,
    /// The sending subtask.
    pub source: u32,
}

fn parallelism(graph: &JobGraph, vertex: VertexId) -> u32 {
    graph.vertex(vertex).map_or(0, |vertex| vertex.parallelism)
}

/// The targets of `source` on an edge.
pub fn targets(graph: &JobGraph, edge: &Edge, source: u32) -> std::ops::Range<u32> {
    edge.partitioning.targets(source, parallelism(graph, edge.source), parallelism(graph, edge.target))
}

/// The channels into `task`, in the order of their numbers.
pub fn channels_into(graph: &JobGraph, task: TaskId) -> Vec<ChannelSpec> {
    let mut channels = Vec::new();
    for (index, edge) in graph.inputs(task.vertex) {
        for source in 0..parallelism(graph, edge.source) {
            if targets(graph, edge, source).contains(&task.subtask) {
                channels.push(ChannelSpec { edge: index, source });
            }
        }
    }
    channels
}

/// The number, among the channels into `task`, of the one from subtask `source` over edge `edge`.
pub fn channel_number(graph: &JobGraph, task: TaskId, edge: usize, source: u32) -> u32 {
    let count = |index: usize, edge: &Edge, below: u32| -> u32 {
        debug_assert_eq!(graph.edges[index].target, task.vertex);
        if !edge.partitioning.is_pointwise() {
            return below;
        }
        (0..below).filter(|source| targets(graph, edge, *source).contains(&task.subtask)).count() as u32
    };
    let before: u32 = graph
        .inputs(task.vertex)
        .take_while(|(index, _)| *index < edge)
        .map(|(index, input)| count(index, input, parallelism(graph, input.source)))
        .sum();
    before + count(edge, &graph.edges[edge], source)
}

#[cfg(test)]
mod tests {
    use flott_schema::graph::{Exchange, ExecutionMode, Partitioning, Vertex};

    use super::*;

    fn vertex(id: u128, parallelism: u32) -> Vertex {
        Vertex {
            id: VertexId(id),
            name: String::new(),
            operators: Vec::new(),
            parallelism,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            is_source: id == 1,
        }
    }

    #[test]
    fn sender_and_receiver_agree_on_every_channel() {
        for partitioning in [Partitioning::KeyGroup, Partitioning::Rescale] {
            for (sources, sinks) in [(1, 1), (2, 3), (4, 2), (3, 3)] {
                let edge = Edge {
                    source: VertexId(1),
                    target: VertexId(2),
                    input: 0,
                    partitioning,
                    exchange: Exchange::Pipelined,
                };
                let graph = JobGraph {
                    name: String::new(),
                    mode: ExecutionMode::Streaming,
                    vertices: vec![vertex(1, sources), vertex(2, sinks)],
                    edges: vec![edge.clone()],
                };
                let into: usize = (0..sinks)
                    .map(|subtask| channels_into(&graph, TaskId { vertex: VertexId(2), subtask }).len())
                    .sum();
                let out: usize = (0..sources).map(|source| targets(&graph, &edge, source).len()).sum();
                assert_eq!(into, out);
                for subtask in 0..sinks {
                    let task = TaskId { vertex: VertexId(2), subtask };
                    for (number, channel) in channels_into(&graph, task).into_iter().enumerate() {
                        assert_eq!(channel_number(&graph, task, channel.edge, channel.source), number as u32);
                    }
                }
            }
        }
    }
}

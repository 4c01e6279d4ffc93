//! The plan of a job as text and as the JSON that Flink's REST API gives.

use std::fmt::Write as _;

use serde::Serialize;

use crate::graph::{JobGraph, Partitioning};
use crate::ids::JobId;

/// Flink's `plan` object.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Job id.
    pub jid: String,
    /// Job name.
    pub name: String,
    /// `STREAMING` or `BATCH`.
    #[serde(rename = "type")]
    pub job_type: &'static str,
    /// Vertices, downstream first, as Flink orders them.
    pub nodes: Vec<PlanNode>,
}

/// One vertex of a [`Plan`].
#[derive(Debug, Serialize)]
pub struct PlanNode {
    /// Vertex id.
    pub id: String,
    /// Number of tasks.
    pub parallelism: u32,
    /// Always empty, as in Flink.
    pub operator: &'static str,
    /// Always empty, as in Flink.
    pub operator_strategy: &'static str,
    /// The chain, `<br/>` between operators.
    pub description: String,
    /// Edges into it; absent for sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<PlanInput>,
    /// Always empty.
    pub optimizer_properties: EmptyObject,
}

/// One edge of a [`Plan`].
#[derive(Debug, Serialize)]
pub struct PlanInput {
    /// Position among the inputs.
    pub num: usize,
    /// Source vertex.
    pub id: String,
    /// Flink's name of the partitioning.
    pub ship_strategy: &'static str,
    /// `pipelined_bounded` or `blocking`.
    pub exchange: String,
}

/// `{}`.
#[derive(Debug, Serialize)]
pub struct EmptyObject {}

impl Plan {
    /// The plan of a graph.
    pub fn of(graph: &JobGraph, job: JobId) -> Self {
        let nodes = graph.vertices.iter().rev().map(|vertex| PlanNode {
            id: vertex.id.to_string(),
            parallelism: vertex.parallelism,
            operator: "",
            operator_strategy: "",
            description: vertex
                .operators
                .iter()
                .map(|operator| escape(&operator.name))
                .collect::<Vec<_>>()
                .join("<br/>+- "),
            inputs: graph
                .inputs(vertex.id)
                .enumerate()
                .map(|(num, (_, edge))| PlanInput {
                    num,
                    id: edge.source.to_string(),
                    ship_strategy: edge.partitioning.word(),
                    exchange: edge.exchange.to_string(),
                })
                .collect(),
            optimizer_properties: EmptyObject {},
        });
        Plan {
            jid: job.to_string(),
            name: graph.name.clone(),
            job_type: graph.mode.word(),
            nodes: nodes.collect(),
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The plan for people: a line a vertex, with what it reads.
pub fn plan_text(graph: &JobGraph) -> String {
    let mut text = format!("{} ({}, {} slots)\n", graph.name, graph.mode.word(), graph.slots_needed());
    for vertex in &graph.vertices {
        let _ = write!(text, "  {} (parallelism {}", vertex.name, vertex.parallelism);
        if vertex.slot_sharing_group != "default" {
            let _ = write!(text, ", slot sharing group {}", vertex.slot_sharing_group);
        }
        text.push_str(")\n");
        for (_, edge) in graph.inputs(vertex.id) {
            let source = graph.vertex(edge.source).map_or("?", |source| source.name.as_str());
            let input = if edge.input > 0 { format!(", input {}", edge.input) } else { String::new() };
            let _ =
                writeln!(text, "    <- {source} [{}, {}{input}]", words(edge.partitioning), edge.exchange);
        }
    }
    text
}

fn words(partitioning: Partitioning) -> String {
    partitioning.word().to_lowercase()
}

//! Small graphs from short texts.

use flott_schema::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};
use flott_schema::ids::OperatorId;

/// A streaming job: vertices as `("name" or "name@group", parallelism)`, edges as `"a > b"`.
pub(crate) fn streaming(name: &str, vertices: &[(&str, u32)], edges: &[&str]) -> JobGraph {
    build(name, ExecutionMode::Streaming, vertices, edges)
}

/// A batch job: as [`streaming`], and blocking edges as `"a >> b"`.
pub(crate) fn batch(name: &str, vertices: &[(&str, u32)], edges: &[&str]) -> JobGraph {
    build(name, ExecutionMode::Batch, vertices, edges)
}

pub(crate) fn build(name: &str, mode: ExecutionMode, vertices: &[(&str, u32)], edges: &[&str]) -> JobGraph {
    let edges: Vec<(&str, &str, Exchange)> = edges
        .iter()
        .map(|edge| match edge.split_once(">>") {
            Some((source, target)) => (source.trim(), target.trim(), Exchange::Blocking),
            None => {
                let (source, target) = edge.split_once('>').unwrap_or_else(|| panic!("no edge: {edge}"));
                (source.trim(), target.trim(), Exchange::Pipelined)
            }
        })
        .collect();
    let vertices: Vec<Vertex> = vertices
        .iter()
        .map(|(vertex, parallelism)| {
            let (uid, group) = vertex.split_once('@').unwrap_or((vertex, "default"));
            let id = OperatorId::of_uid(uid);
            Vertex {
                id: id.into(),
                name: uid.to_string(),
                operators: vec![OperatorSpec { id, uid: uid.to_string(), name: uid.to_string() }],
                parallelism: *parallelism,
                max_parallelism: 32_768,
                slot_sharing_group: group.to_string(),
                is_source: edges.iter().all(|(_, target, _)| *target != uid),
            }
        })
        .collect();
    let edges = edges.iter().map(|(source, target, exchange)| Edge {
        source: OperatorId::of_uid(source).into(),
        target: OperatorId::of_uid(target).into(),
        input: 0,
        partitioning: Partitioning::Rescale,
        exchange: *exchange,
    });
    JobGraph { name: name.to_string(), mode, edges: edges.collect(), vertices }
}

//! The job graph as data: what the coordinator schedules. It names operators but holds no code.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{OperatorId, VertexId};
use crate::key_group::UPPER_BOUND_MAX_PARALLELISM;
use crate::stable_hash::stable_hash;

/// How a job runs: results as they change, or final results once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutionMode {
    /// All tasks run at once, records flow as they come.
    Streaming,
    /// Stages run one after the other, shuffles are blocking.
    Batch,
}

impl ExecutionMode {
    /// `STREAMING` or `BATCH`, as REST and plans print it.
    pub fn word(self) -> &'static str {
        match self {
            ExecutionMode::Streaming => "STREAMING",
            ExecutionMode::Batch => "BATCH",
        }
    }
}

/// How the records of an edge are spread over the target's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Partitioning {
    /// Subtask i to subtask i.
    Forward,
    /// By the key group of the record's key.
    KeyGroup,
    /// Round robin over all targets.
    Rebalance,
    /// Round robin over a share of the targets.
    Rescale,
    /// Every record to every target.
    Broadcast,
    /// To a random target.
    Shuffle,
    /// All to subtask 0.
    Global,
    /// By the job's own function.
    Custom,
}

impl Partitioning {
    /// Flink's name of the ship strategy.
    pub fn word(self) -> &'static str {
        match self {
            Partitioning::Forward => "FORWARD",
            Partitioning::KeyGroup => "HASH",
            Partitioning::Rebalance => "REBALANCE",
            Partitioning::Rescale => "RESCALE",
            Partitioning::Broadcast => "BROADCAST",
            Partitioning::Shuffle => "SHUFFLE",
            Partitioning::Global => "GLOBAL",
            Partitioning::Custom => "CUSTOM",
        }
    }

    /// Whether each task sends to a part of the targets only.
    pub fn is_pointwise(self) -> bool {
        matches!(self, Partitioning::Forward | Partitioning::Rescale)
    }

    /// The target subtasks that source subtask `source` sends to.
    pub fn targets(self, source: u32, sources: u32, targets: u32) -> std::ops::Range<u32> {
        match self {
            Partitioning::Forward | Partitioning::Rescale => {
                if sources >= targets {
                    let target = (u64::from(source) * u64::from(targets) / u64::from(sources)) as u32;
                    target..target + 1
                } else {
                    let bound = |i: u32| (u64::from(i) * u64::from(targets) / u64::from(sources)) as u32;
                    bound(source)..bound(source + 1)
                }
            }
            _ => 0..targets,
        }
    }
}

/// When the target of an edge starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// While the source is still writing.
    Pipelined,
    /// When the source has finished; the result is spooled in between.
    Blocking,
}

/// One operator of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSpec {
    /// Derived from the uid.
    pub id: OperatorId,
    /// Unique in the job; given by the author or generated.
    pub uid: String,
    /// Shown to people.
    pub name: String,
}

/// A chain of operators that runs as one task per parallel index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// The id of the first operator.
    pub id: VertexId,
    /// `Source -> Map -> ...`.
    pub name: String,
    /// The operators, upstream first.
    pub operators: Vec<OperatorSpec>,
    /// Number of tasks.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Tasks of one group share slots.
    pub slot_sharing_group: String,
    /// Whether records come from outside rather than from edges.
    pub is_source: bool,
}

/// Records flowing from one vertex to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The sending vertex.
    pub source: VertexId,
    /// The receiving vertex.
    pub target: VertexId,
    /// Logical input of the target's first operator (0, or 1 for the second input of a connect or join).
    pub input: u16,
    /// How records are spread.
    pub partitioning: Partitioning,
    /// When the target starts to read.
    pub exchange: Exchange,
}

/// Edges that a graph may have: a frame between executors names its edge by a number of 16 bits.
pub const EDGES_MAX: usize = 1 << 16;

/// Vertices that a graph may have.
pub const VERTICES_MAX: usize = 1 << 14;

/// Tasks that a graph may have. Every coordinator keeps a record of each.
pub const TASKS_MAX: usize = 1 << 20;

/// Bytes of the name of a job, of an operator, of a uid, and of a slot-sharing group, at most.
pub const NAME_BYTES_MAX: usize = 4 << 10;

/// Bytes of the name of a vertex at most, which is made of the names of its operators.
pub const VERTEX_NAME_BYTES_MAX: usize = 64 << 10;

/// The plan of a job: vertices and edges. Its edges are addressed by index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGraph {
    /// Shown to people.
    pub name: String,
    /// Streaming or batch.
    pub mode: ExecutionMode,
    /// In topological order.
    pub vertices: Vec<Vertex>,
    /// Edges by index; the order is part of the fingerprint.
    pub edges: Vec<Edge>,
}

impl JobGraph {
    /// The vertex with this id.
    pub fn vertex(&self, id: VertexId) -> Option<&Vertex> {
        self.vertices.iter().find(|vertex| vertex.id == id)
    }

    /// Edges into a vertex, with their indexes.
    pub fn inputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.target == id)
    }

    /// Edges out of a vertex, with their indexes.
    pub fn outputs(&self, id: VertexId) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.source == id)
    }

    /// Number of tasks of the whole job.
    pub fn task_count(&self) -> usize {
        self.vertices.iter().map(|vertex| vertex.parallelism as usize).fold(0, usize::saturating_add)
    }

    /// Slots the job needs when all its vertices run at once: per slot-sharing group the largest parallelism.
    /// A graph that needs more than can be counted needs the largest number.
    pub fn slots_needed(&self) -> u32 {
        let mut groups: BTreeMap<&str, u32> = BTreeMap::new();
        for vertex in &self.vertices {
            let slots = groups.entry(&vertex.slot_sharing_group).or_default();
            *slots = (*slots).max(vertex.parallelism);
        }
        groups.values().copied().fold(0, u32::saturating_add)
    }

    /// Equal on the client and on every worker, or the program is not the same.
    pub fn fingerprint(&self) -> u64 {
        stable_hash(self)
    }

    /// Refuses more of anything than whoever keeps the graph has room for.
    fn check_bounds(&self) -> Result<()> {
        check_name("the job", &self.name, NAME_BYTES_MAX)?;
        let counts = [
            (self.edges.len(), "edges", EDGES_MAX),
            (self.vertices.len(), "vertices", VERTICES_MAX),
            (self.task_count(), "tasks", TASKS_MAX),
        ];
        if let Some((count, what, most)) = counts.into_iter().find(|(count, _, most)| count > most) {
            return Err(Error::graph(format!(
                "job '{}' has {count} {what}; it may have {most}, so split it into several jobs",
                self.name
            )));
        }
        for vertex in &self.vertices {
            check_name("a vertex", &vertex.name, VERTEX_NAME_BYTES_MAX)?;
            check_name("a slot-sharing group", &vertex.slot_sharing_group, NAME_BYTES_MAX)?;
            for operator in &vertex.operators {
                check_name("an operator", &operator.name, NAME_BYTES_MAX)?;
                check_name("a uid", &operator.uid, NAME_BYTES_MAX)?;
            }
        }
        Ok(())
    }

    /// Refuses what cannot run: duplicate ids and uids, parallelism out of bounds, dangling edges, cycles,
    /// too many vertices, edges or tasks, names that are too long.
    pub fn validate(&self) -> Result<()> {
        if self.vertices.is_empty() {
            return Err(Error::graph(format!("job '{}' has no operators: nothing to execute", self.name)));
        }
        self.check_bounds()?;
        let mut uids: HashMap<&str, &str> = HashMap::new();
        for vertex in &self.vertices {
            if vertex.operators.is_empty() {
                return Err(Error::graph(format!("vertex '{}' has no operators", vertex.name)));
            }
            for operator in &vertex.operators {
                if let Some(other) = uids.insert(&operator.uid, &operator.name) {
                    return Err(Error::graph(format!(
                        "uid '{}' is used twice, by operator '{}' and by operator '{other}'; state is addressed by uid, \
                         so give each operator its own",
                        operator.uid, operator.name
                    )));
                }
            }
            check_parallelism(&vertex.name, vertex.parallelism, vertex.max_parallelism)?;
        }
        let mut inputs: HashMap<VertexId, Vec<(usize, &Edge)>> = HashMap::new();
        for (index, edge) in self.edges.iter().enumerate() {
            inputs.entry(edge.target).or_default().push((index, edge));
        }
        let mut seen = BTreeSet::new();
        for vertex in &self.vertices {
            for (index, edge) in inputs.get(&vertex.id).into_iter().flatten() {
                if !seen.contains(&edge.source) {
                    return Err(Error::graph(format!(
                        "edge {index} into '{}' comes from a vertex that is missing or further down: a cycle",
                        vertex.name
                    )));
                }
            }
            if !seen.insert(vertex.id) {
                return Err(Error::graph(format!("vertex {} is in the graph twice", vertex.id)));
            }
        }
        match self.edges.iter().find(|edge| !seen.contains(&edge.target)) {
            Some(edge) => Err(Error::graph(format!(
                "an edge leads to vertex {} which is not in the graph",
                edge.target
            ))),
            None => Ok(()),
        }
    }
}

fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<()> {
    if name.len() <= bytes_max {
        return Ok(());
    }
    let start = &name[..name.floor_char_boundary(40)];
    Err(Error::graph(format!(
        "the name of {what}, '{start}...', has {} bytes; it may have {bytes_max}, so give it a shorter one",
        name.len()
    )))
}

/// Refuses a parallelism that is zero or above the max parallelism, naming the operator.
pub fn check_parallelism(place: &str, parallelism: u32, max_parallelism: u32) -> Result<()> {
    if parallelism == 0 {
        return Err(Error::graph(format!("'{place}' has parallelism 0; it must be at least 1")));
    }
    if max_parallelism > UPPER_BOUND_MAX_PARALLELISM {
        return Err(Error::graph(format!(
            "'{place}' has max parallelism {max_parallelism}; the upper bound is {UPPER_BOUND_MAX_PARALLELISM}"
        )));
    }
    if parallelism > max_parallelism {
        return Err(Error::graph(format!(
            "'{place}' has parallelism {parallelism}, above its max parallelism {max_parallelism}; lower the parallelism \
             or raise the max parallelism (it cannot change once there is state)"
        )));
    }
    Ok(())
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exchange::Pipelined => "pipelined_bounded",
            Exchange::Blocking => "blocking",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(id: u128) -> Vertex {
        let name = format!("map-{id}");
        let operator = OperatorSpec { id: OperatorId(id), uid: name.clone(), name: name.clone() };
        Vertex {
            id: VertexId(id),
            name,
            operators: vec![operator],
            parallelism: 2,
            max_parallelism: 128,
            slot_sharing_group: format!("group {id}"),
            is_source: false,
        }
    }

    fn edge(source: u128, target: u128) -> Edge {
        Edge {
            source: VertexId(source),
            target: VertexId(target),
            input: 0,
            partitioning: Partitioning::Rebalance,
            exchange: Exchange::Pipelined,
        }
    }

    fn graph(vertices: Vec<Vertex>, edges: Vec<Edge>) -> JobGraph {
        JobGraph { name: "graph".into(), mode: ExecutionMode::Streaming, vertices, edges }
    }

    #[test]
    fn graphs_that_no_program_builds_are_refused() {
        graph(vec![vertex(1), vertex(2)], vec![edge(1, 2); EDGES_MAX]).validate().unwrap();
        let refusal = |graph: JobGraph| graph.validate().unwrap_err().to_string();

        let edges = refusal(graph(vec![vertex(1), vertex(2)], vec![edge(1, 2); EDGES_MAX + 1]));
        assert!(edges.contains("has 65537 edges"), "{edges}");
        let vertices = (1..=VERTICES_MAX as u128 + 1).map(vertex).collect();
        assert!(refusal(graph(vertices, Vec::new())).contains("has 16385 vertices"));
        let wide = |id| Vertex { parallelism: 1 << 15, max_parallelism: 1 << 15, ..vertex(id) };
        graph((1..=32).map(wide).collect(), Vec::new()).validate().unwrap();
        let tasks = refusal(graph((1..=33).map(wide).collect(), Vec::new()));
        assert!(tasks.contains("has 1081344 tasks"), "{tasks}");
        let long = "\u{e9}".repeat(NAME_BYTES_MAX / 2);
        let mut named = graph(vec![vertex(1)], Vec::new());
        named.name = long.clone();
        named.validate().unwrap();
        named.name.push('x');
        let name = refusal(named);
        assert!(name.contains("has 4097 bytes") && name.len() < 300, "{name}");
        let mut wordy = vertex(1);
        wordy.operators[0].name = long + "x";
        assert!(refusal(graph(vec![wordy], Vec::new())).contains("of an operator"));

        let mut twin = vertex(2);
        twin.id = VertexId(1);
        let twice = refusal(graph(vec![vertex(1), twin], Vec::new()));
        assert_eq!(twice, format!("vertex {} is in the graph twice", VertexId(1)));
        let mut empty = vertex(1);
        empty.operators.clear();
        assert_eq!(refusal(graph(vec![empty], Vec::new())), "vertex 'map-1' has no operators");
        assert!(refusal(graph(vec![vertex(1)], vec![edge(1, 1)])).contains("a cycle"));
        assert!(refusal(graph(vec![vertex(1)], vec![edge(1, 2)])).contains("not in the graph"));
    }

    #[test]
    fn slots_beyond_counting_are_the_largest_number() {
        let mut vertices = vec![vertex(1), vertex(2)];
        assert_eq!(graph(vertices.clone(), Vec::new()).slots_needed(), 4);
        vertices.iter_mut().for_each(|vertex| vertex.parallelism = u32::MAX);
        assert_eq!(graph(vertices, Vec::new()).slots_needed(), u32::MAX);
    }

    #[test]
    fn pointwise_targets_cover_all_and_match_from_the_receivers_side() {
        for (sources, targets) in [(1, 1), (2, 4), (4, 2), (3, 5), (5, 3), (7, 7)] {
            let mut hit = vec![0; targets as usize];
            for source in 0..sources {
                let range = Partitioning::Rescale.targets(source, sources, targets);
                assert!(!range.is_empty());
                for target in range {
                    hit[target as usize] += 1;
                }
            }
            assert!(hit.iter().all(|hits| *hits >= 1), "{sources}->{targets}: {hit:?}");
        }
    }
}

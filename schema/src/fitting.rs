//! Whether a job can start from a snapshot, as far as graph and manifest tell.
//!
//! Who may call it: whoever has both at hand before anything is started: the client, else the leader. What must never happen here: a look at the
//! types of states, which need the operators themselves.

use crate::graph::{JobGraph, OperatorSpec};
use crate::ids::OperatorId;
use crate::snapshot::{Manifest, ManifestVertex, OperatorSnapshot};
use crate::{Error, Result};

/// Operators without a successor that an error names.
const NAMED_MAX: usize = 5;

/// Whether a job with this graph can start from the snapshot: its state finds its operators, and keyed state as many key groups as it
/// has been divided into. `ignore_unclaimed`: state without an operator is dropped.
pub fn check(manifest: &Manifest, graph: &JobGraph, ignore_unclaimed: bool) -> Result<()> {
    let operators: Vec<(&OperatorSpec, u32)> = graph
        .vertices
        .iter()
        .flat_map(|vertex| vertex.operators.iter().map(|operator| (operator, vertex.max_parallelism)))
        .collect();
    let mut unclaimed = Vec::new();
    for vertex in &manifest.vertices {
        for operator in &vertex.operators {
            let states: Vec<&OperatorSnapshot> = states_of(manifest, operator.operator).collect();
            if states.is_empty() {
                continue;
            }
            match operators.iter().find(|(own, _)| own.id == operator.operator) {
                None => unclaimed.push(format!("'{}' (uid {})", operator.name, operator.uid)),
                Some((_, max_parallelism)) => {
                    let saved = key_groups_of(vertex, states.iter().copied());
                    if let Some(saved) = saved.filter(|saved| !takes_over(*max_parallelism, *saved)) {
                        return Err(Error::bad_input(format!(
                            "the keyed state of operator '{}' is divided into {saved} key groups, but the job has \
                             {max_parallelism} there; set its max parallelism to {saved}, or that of the job (-D \
                             pipeline.max-parallelism={saved})",
                            operator.name
                        )));
                    }
                }
            }
        }
    }
    if unclaimed.is_empty() || ignore_unclaimed {
        return Ok(());
    }
    let more = unclaimed.len().saturating_sub(NAMED_MAX);
    unclaimed.truncate(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let known: Vec<&str> = operators.iter().map(|(operator, _)| operator.uid.as_str()).collect();
    Err(Error::bad_input(format!(
        "it holds state of operators that the job does not have: {}{more}; the job's operators have the uids {}. Give an operator the \
         uid it had, or drop the state with --allow-non-restored-state",
        unclaimed.join(", "),
        known.join(", ")
    )))
}

/// Into how many key groups the keyed state of an operator of the vertex is divided; nothing if it has none.
///
/// That of a vertex with max parallelism 1 may be divided into more: its task has gone on with what it started from, see [`takes_over`].
pub fn key_groups_of<'a>(
    vertex: &ManifestVertex,
    states: impl Iterator<Item = &'a OperatorSnapshot>,
) -> Option<u32> {
    let ends = states.flat_map(|state| &state.keyed).map(|keyed| keyed.key_groups.end);
    ends.max().map(|end| if vertex.max_parallelism == 1 { end.max(1) } else { vertex.max_parallelism })
}

/// Whether a vertex of this max parallelism can go on with keyed state that is divided into so many key groups: it is as many, or the vertex
/// has one task for good, which has all key groups, however many they are.
pub fn takes_over(max_parallelism: u32, key_groups: u32) -> bool {
    max_parallelism == key_groups || max_parallelism == 1
}

/// The parts of an operator's state, of all its tasks; those that hold nothing are left out.
pub fn states_of(manifest: &Manifest, id: OperatorId) -> impl Iterator<Item = &OperatorSnapshot> {
    let operators = manifest.tasks.iter().flat_map(|task| &task.operators);
    let has_state = |operator: &&OperatorSnapshot| {
        let has_items = operator.lists.iter().any(|list| !list.is_empty());
        has_items || !operator.keyed.is_empty() || operator.enumerator.is_some()
    };
    operators.filter(move |operator| operator.operator == Some(id)).filter(has_state)
}

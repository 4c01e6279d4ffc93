//! What a job starts from, as the configuration says: `flott run -s` sets it.

use flott_schema::config::Configuration;
use flott_schema::config::options::{
    ClaimMode, RECOVERY_CLAIM_MODE, RECOVERY_IGNORE_UNCLAIMED, RECOVERY_PATH,
};
use flott_schema::graph::{JobGraph, OperatorSpec};
use flott_schema::ids::OperatorId;
use flott_schema::snapshot::{MANIFEST_FILE, Manifest, OperatorSnapshot, RestoreFrom};
use flott_schema::{Error, Result};
use flott_storage::manifest;

/// Operators without a successor that an error names.
const NAMED_MAX: usize = 5;

/// The snapshot that a job with this graph is to start from, if the configuration names one. What can be read here is checked here,
/// before anything is started; `is_here` says that it must be, since the job runs in this process.
pub fn restore_from(
    configuration: &Configuration,
    graph: &JobGraph,
    is_here: bool,
) -> Result<Option<RestoreFrom>> {
    let Some(path) = configuration.get(&RECOVERY_PATH)? else { return Ok(None) };
    let place = || format!("starting from '{path}'");
    let folder = manifest::folder_of(&path).map_err(|error| error.at(place()))?;
    let ignore_unclaimed = configuration.get(&RECOVERY_IGNORE_UNCLAIMED)?;
    let mut checkpoint = 0;
    // Hosts of a cluster may see what this one does not.
    if is_here || folder.exists(MANIFEST_FILE)? {
        let manifest = manifest::read(&folder).map_err(|error| error.at(place()))?;
        check(&manifest, graph, ignore_unclaimed).map_err(|error| error.at(place()))?;
        checkpoint = manifest.checkpoint;
    }
    let own = configuration.get(&RECOVERY_CLAIM_MODE)? == ClaimMode::Claim;
    Ok(Some(RestoreFrom { folder: folder.uri().to_string(), checkpoint, ignore_unclaimed, own }))
}

/// Whether a job with this graph can start from the snapshot: its state finds its operators, and keyed state as many key groups as it
/// has been divided into.
fn check(manifest: &Manifest, graph: &JobGraph, ignore_unclaimed: bool) -> Result<()> {
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
                    let is_keyed = states.iter().any(|state| !state.keyed.is_empty());
                    let saved = vertex.max_parallelism;
                    if is_keyed && *max_parallelism != saved {
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

/// The parts of an operator's state, of all its tasks.
fn states_of(manifest: &Manifest, id: OperatorId) -> impl Iterator<Item = &OperatorSnapshot> {
    let operators = manifest.tasks.iter().flat_map(|task| &task.operators);
    let has_state = |operator: &&OperatorSnapshot| {
        let has_items = operator.lists.iter().any(|list| !list.items.is_empty());
        has_items || !operator.keyed.is_empty() || operator.enumerator.is_some()
    };
    operators.filter(move |operator| operator.operator == Some(id)).filter(has_state)
}

#[cfg(test)]
mod tests {
    use flott_schema::graph::{ExecutionMode, Vertex};
    use flott_schema::ids::{JobId, TaskId};
    use flott_schema::key_group::KeyGroupRange;
    use flott_schema::snapshot::{
        KeyedSnapshot, ManifestOperator, ManifestVertex, SnapshotKind, SnapshotTimes, TaskSnapshot,
    };
    use flott_storage::Storage;

    use super::*;

    /// A job of one vertex with this operator.
    fn graph(uid: &str, max_parallelism: u32) -> JobGraph {
        let id = OperatorId::of_uid(uid);
        let vertex = Vertex {
            id: id.into(),
            name: uid.into(),
            operators: vec![OperatorSpec { id, uid: uid.into(), name: format!("Op {uid}") }],
            parallelism: 2,
            max_parallelism,
            slot_sharing_group: "default".into(),
            is_source: true,
        };
        JobGraph {
            name: "job".into(),
            mode: ExecutionMode::Streaming,
            vertices: vec![vertex],
            edges: Vec::new(),
        }
    }

    /// A snapshot of that job, with keyed state.
    fn snapshot(graph: &JobGraph) -> Manifest {
        let vertex = &graph.vertices[0];
        let operator = &vertex.operators[0];
        let keyed = KeyedSnapshot {
            key_groups: KeyGroupRange { start: 0, end: 128 },
            format: "rows-1".into(),
            tables: Vec::new(),
            files: Vec::new(),
        };
        let state = OperatorSnapshot {
            operator: Some(operator.id),
            keyed: vec![keyed],
            ..OperatorSnapshot::default()
        };
        let (uid, name) = (operator.uid.clone(), operator.name.clone());
        Manifest {
            job: JobId(1),
            job_name: "job".into(),
            checkpoint: 12,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 0,
            vertices: vec![ManifestVertex {
                vertex: vertex.id,
                name: vertex.name.clone(),
                parallelism: 2,
                max_parallelism: vertex.max_parallelism,
                operators: vec![ManifestOperator { operator: operator.id, uid, name }],
            }],
            tasks: vec![TaskSnapshot {
                task: TaskId { vertex: vertex.id, subtask: 0 },
                finished: false,
                operators: vec![state],
                channels: Vec::new(),
                times: SnapshotTimes::default(),
            }],
        }
    }

    struct Saved(tempfile::TempDir);

    impl Saved {
        fn new(manifest: &Manifest) -> Self {
            let folder = tempfile::tempdir().unwrap();
            manifest::write(&Storage::open(folder.path().to_str().unwrap()).unwrap(), manifest).unwrap();
            Saved(folder)
        }

        fn configuration(&self, more: &[&str]) -> Configuration {
            let path = format!("execution.state-recovery.path={}", self.0.path().display());
            Configuration::from_pairs([path.as_str()].iter().chain(more)).unwrap()
        }
    }

    #[test]
    fn without_a_path_a_job_starts_from_nothing() {
        let nothing = restore_from(&Configuration::new(), &graph("sum", 128), true).unwrap();
        assert_eq!(nothing, None);
    }

    #[test]
    fn a_snapshot_that_fits_is_taken_with_its_id_and_as_the_configuration_says() {
        let saved = Saved::new(&snapshot(&graph("sum", 128)));
        let restore = restore_from(&saved.configuration(&[]), &graph("sum", 128), true).unwrap().unwrap();
        let folder = format!("file://{}", saved.0.path().display());
        let expected = RestoreFrom { folder, checkpoint: 12, ignore_unclaimed: false, own: false };
        assert_eq!(restore, expected);
        let more =
            ["execution.state-recovery.claim-mode=CLAIM", "execution.savepoint.ignore-unclaimed-state=true"];
        let restore = restore_from(&saved.configuration(&more), &graph("sum", 128), true).unwrap();
        assert_eq!(restore, Some(RestoreFrom { ignore_unclaimed: true, own: true, ..expected }));
    }

    #[test]
    fn state_without_an_operator_is_named_and_dropped_only_if_that_is_said() {
        let saved = Saved::new(&snapshot(&graph("sum", 128)));
        let error =
            restore_from(&saved.configuration(&[]), &graph("count", 128), false).unwrap_err().to_string();
        for part in
            ["'Op sum' (uid sum)", "have the uids count", "--allow-non-restored-state", "starting from"]
        {
            assert!(error.contains(part), "{error}");
        }
        let allowed = ["execution.state-recovery.ignore-unclaimed-state=true"];
        assert!(restore_from(&saved.configuration(&allowed), &graph("count", 128), false).unwrap().is_some());
    }

    #[test]
    fn keyed_state_needs_its_number_of_key_groups() {
        let saved = Saved::new(&snapshot(&graph("sum", 128)));
        let error =
            restore_from(&saved.configuration(&[]), &graph("sum", 256), true).unwrap_err().to_string();
        assert!(
            error.contains("128 key groups") && error.contains("-D pipeline.max-parallelism=128"),
            "{error}"
        );
    }

    #[test]
    fn a_snapshot_that_is_not_here_may_be_where_the_job_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("execution.state-recovery.path={}/none", folder.path().display());
        let configuration = Configuration::from_pairs([path.as_str()]).unwrap();
        let error = restore_from(&configuration, &graph("sum", 128), true).unwrap_err().to_string();
        assert!(error.contains("there is no snapshot in"), "{error}");
        let there = restore_from(&configuration, &graph("sum", 128), false).unwrap().unwrap();
        assert_eq!(there.checkpoint, 0);
    }
}

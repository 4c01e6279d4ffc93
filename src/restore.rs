//! What a job starts from, as the configuration says: `flott run -s` sets it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use flott_dataflow::declared::{DeclaredOperator, states_of};
use flott_dataflow::program::Program;
use flott_schema::config::Configuration;
use flott_schema::config::options::{
    ClaimMode, RECOVERY_CLAIM_MODE, RECOVERY_IGNORE_UNCLAIMED, RECOVERY_PATH,
};
use flott_schema::graph::JobGraph;
use flott_schema::snapshot::{MANIFEST_FILE, RestoreFrom};
use flott_schema::{Error, Result, fitting};
use flott_state::RestorePlan;
use flott_storage::manifest;
use serde::{Deserialize, Serialize};

/// How long the operators of a program may take to be opened, to see which states they register.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Reasons that an error names.
const REFUSALS_MAX: usize = 5;

/// What would become of a snapshot in a job of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedRestore {
    /// The name of the job.
    pub job: String,
    /// The folder of the snapshot.
    pub path: String,
    /// What becomes of its states.
    pub plan: RestorePlan,
    /// Why the job would be refused; none if it would start.
    pub refused: Vec<String>,
}

/// The snapshot that a job with this program is to start from, if the configuration names one. What can be read here is checked here,
/// before anything is started; `is_here` says that it must be, since the job runs in this process.
pub fn restore_from(
    configuration: &Configuration,
    program: &Arc<Program>,
    is_here: bool,
) -> Result<Option<RestoreFrom>> {
    checked(configuration, &program.graph, is_here, || declared(program))
}

fn checked(
    configuration: &Configuration,
    graph: &JobGraph,
    is_here: bool,
    declared: impl FnOnce() -> Vec<DeclaredOperator>,
) -> Result<Option<RestoreFrom>> {
    let Some(path) = configuration.get(&RECOVERY_PATH)? else { return Ok(None) };
    let place = || format!("starting from '{path}'");
    let folder = manifest::folder_of(&path).map_err(|error| error.at(place()))?;
    let ignore_unclaimed = configuration.get(&RECOVERY_IGNORE_UNCLAIMED)?;
    let mut checkpoint = 0;
    // Hosts of a cluster may see what this one does not.
    let is_seen = is_here
        || match folder.exists(MANIFEST_FILE) {
            Err(error) if folder.local_path().is_none() => {
                tracing::warn!(%folder, %error, "the snapshot cannot be looked at from here; the cluster will");
                false
            }
            seen => seen?,
        };
    if is_seen {
        let manifest = manifest::read(&folder).map_err(|error| error.at(place()))?;
        fitting::check(&manifest, graph, ignore_unclaimed).map_err(|error| error.at(place()))?;
        let plan = RestorePlan::of(&manifest, graph, &declared(), ignore_unclaimed);
        refused(plan.refusals()).map_err(|error| error.at(place()))?;
        checkpoint = manifest.checkpoint;
    }
    let own = configuration.get(&RECOVERY_CLAIM_MODE)? == ClaimMode::Claim;
    Ok(Some(RestoreFrom { folder: folder.uri().to_string(), checkpoint, ignore_unclaimed, own }))
}

/// Adds what would become of the snapshot that the configuration names in a job of the program to the notes of `flott run --plan`.
pub fn note_plan(notes: &Path, configuration: &Configuration, program: &Arc<Program>) -> Result<()> {
    let Some(path) = configuration.get(&RECOVERY_PATH)? else {
        return Err(Error::configuration(
            "there is nothing to plan: no snapshot to start from is named; say flott run -s PATH --plan",
        ));
    };
    let read = || {
        let folder = manifest::folder_of(&path)?;
        let manifest = manifest::read(&folder)?;
        let ignore_unclaimed = configuration.get(&RECOVERY_IGNORE_UNCLAIMED)?;
        let plan = RestorePlan::of(&manifest, &program.graph, &declared(program), ignore_unclaimed);
        Ok(PlannedRestore {
            job: program.graph.name.clone(),
            path: folder.uri().to_string(),
            refused: plan.refusals(),
            plan,
        })
    };
    let planned = read().map_err(|error: Error| error.at(format!("planning the start from '{path}'")))?;
    let line = serde_json::to_string(&planned)?;
    let file = std::fs::OpenOptions::new().append(true).open(notes);
    file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| Error::io(notes.display(), error))
}

/// The states of the program's operators. What is not known after the deadline is decided when the tasks open.
fn declared(program: &Arc<Program>) -> Vec<DeclaredOperator> {
    let (sender, receiver) = sync_channel(1);
    let of_thread = program.clone();
    // A thread of its own: what a function does when it is opened may never end.
    let thread = std::thread::Builder::new().name("flott-states".into()).spawn(move || {
        // Who asked may have given up.
        let _ = sender.send(states_of(&of_thread));
    });
    let known = thread.ok().and_then(|_| receiver.recv_timeout(OPEN_DEADLINE).ok());
    known.unwrap_or_else(|| {
        let unknown = format!("its operators were not open within {OPEN_DEADLINE:?}");
        let operators = program.graph.vertices.iter().flat_map(|vertex| {
            vertex
                .operators
                .iter()
                .map(|operator| (operator, vertex.is_source && vertex.operators[0] == *operator))
        });
        let nothing =
            |(operator, has_enumerator): (&flott_schema::graph::OperatorSpec, bool)| DeclaredOperator {
                operator: operator.clone(),
                tables: Vec::new(),
                lists: Vec::new(),
                has_enumerator,
                unknown: Some(unknown.clone()),
            };
        operators.map(nothing).collect()
    })
}

fn refused(mut reasons: Vec<String>) -> Result<()> {
    if reasons.is_empty() {
        return Ok(());
    }
    let more = reasons.len().saturating_sub(REFUSALS_MAX);
    reasons.truncate(REFUSALS_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Error::bad_input(format!(
        "the job cannot take over the state: {}{more}. `flott run -s PATH --plan` shows all of it",
        reasons.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use flott_schema::graph::{ExecutionMode, OperatorSpec, Vertex};
    use flott_schema::ids::{JobId, OperatorId, TaskId};
    use flott_schema::key_group::KeyGroupRange;
    use flott_schema::snapshot::{
        KeyedSnapshot, Manifest, ManifestOperator, ManifestVertex, OperatorSnapshot, SnapshotKind,
        SnapshotTimes, TaskSnapshot,
    };
    use flott_storage::Storage;

    use super::*;

    /// With operators that register nothing but what the snapshot holds of them, which are no tables.
    fn restore_from(
        configuration: &Configuration,
        graph: &JobGraph,
        is_here: bool,
    ) -> Result<Option<RestoreFrom>> {
        checked(configuration, graph, is_here, Vec::new)
    }

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
        // What runs in one task for good goes on with as many as there are.
        assert!(restore_from(&saved.configuration(&[]), &graph("sum", 1), true).unwrap().is_some());
    }

    #[test]
    fn keyed_state_of_a_task_that_has_gone_on_with_more_key_groups_is_divided_into_those() {
        let saved = Saved::new(&snapshot(&graph("sum", 1)));
        for (max_parallelism, fits) in [(1, true), (128, true), (64, false)] {
            let restored = restore_from(&saved.configuration(&[]), &graph("sum", max_parallelism), true);
            assert_eq!(restored.is_ok(), fits, "{restored:?}");
        }
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

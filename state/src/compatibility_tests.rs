//! What a plan says is what a task does that starts from the snapshot.

use flott_schema::graph::{ExecutionMode, OperatorSpec};
use flott_schema::ids::{JobId, TaskId};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{ChannelSnapshot, ListSnapshot, SnapshotKind, SnapshotTimes, TaskSnapshot};

use super::*;

fn graph(uid: &str, parallelism: u32, max_parallelism: u32) -> JobGraph {
    let id = OperatorId::of_uid(uid);
    let vertex = Vertex {
        id: id.into(),
        name: uid.into(),
        operators: vec![OperatorSpec { id, uid: uid.into(), name: format!("Op {uid}") }],
        parallelism,
        max_parallelism,
        slot_sharing_group: "default".into(),
        is_source: false,
    };
    JobGraph { name: "job".into(), mode: ExecutionMode::Streaming, vertices: vec![vertex], edges: Vec::new() }
}

fn file(name: &str, size: u64) -> SnapshotFile {
    SnapshotFile { name: name.into(), path: name.into(), size, crc32c: 0 }
}

/// A snapshot of a job with the operator `sum` in two tasks: these tables, and a list.
fn snapshot(tables: &[(&str, &str, &str)]) -> Manifest {
    let graph = graph("sum", 2, 128);
    let vertex = &graph.vertices[0];
    let operator = vertex.operators[0].clone();
    let tables = tables.iter().zip(0..).map(|((name, key_type, value_type), number)| TableSnapshot {
        name: name.to_string(),
        number,
        holds: "value".into(),
        key_type: key_type.to_string(),
        value_type: value_type.to_string(),
    });
    let tables: Vec<TableSnapshot> = tables.collect();
    let task = |subtask: u32| {
        let list = ListSnapshot {
            name: "operator.seen".into(),
            mode: ListMode::Union,
            item_type: "u32".into(),
            items: vec![vec![1], vec![2]],
            file: None,
        };
        let keyed = KeyedSnapshot {
            key_groups: KeyGroupRange { start: subtask * 64, end: subtask * 64 + 64 },
            format: "rows-1".into(),
            tables: tables.clone(),
            files: vec![file(&format!("rows-{subtask}"), 50)],
        };
        let state = OperatorSnapshot {
            operator: Some(operator.id),
            lists: vec![list],
            keyed: vec![keyed],
            enumerator: None,
        };
        TaskSnapshot {
            task: TaskId { vertex: vertex.id, subtask },
            finished: false,
            operators: vec![state],
            channels: Vec::new(),
            times: SnapshotTimes::default(),
        }
    };
    Manifest {
        job: JobId(1),
        job_name: "before".into(),
        checkpoint: 7,
        kind: SnapshotKind::Checkpoint,
        timestamp_ms: 0,
        vertices: vec![ManifestVertex {
            vertex: vertex.id,
            name: vertex.name.clone(),
            parallelism: 2,
            max_parallelism: 128,
            operators: vec![ManifestOperator {
                operator: operator.id,
                uid: operator.uid.clone(),
                name: operator.name.clone(),
            }],
        }],
        tasks: vec![task(0), task(1)],
    }
}

fn declared(uid: &str, tables: &[(&str, &str, &str)], lists: &[(&str, &str)]) -> DeclaredOperator {
    let tables = tables.iter().map(|(name, key_type, value_type)| TableSpec {
        name: name.to_string(),
        holds: "value",
        key_type: key_type.to_string(),
        value_type: value_type.to_string(),
    });
    let lists = lists.iter().map(|(name, item_type)| flott_dataflow::declared::ListSpec {
        name: name.to_string(),
        item_type: item_type.to_string(),
    });
    DeclaredOperator {
        operator: OperatorSpec { id: OperatorId::of_uid(uid), uid: uid.into(), name: format!("Op {uid}") },
        tables: tables.collect(),
        lists: lists.collect(),
        has_enumerator: false,
        unknown: None,
    }
}

fn fates(plan: &RestorePlan) -> Vec<(String, &'static str, Vec<String>)> {
    let states = plan.operators.iter().flat_map(|operator| &operator.states);
    states.map(|state| (state.name.clone(), state.fate.word(), state.details.clone())).collect()
}

#[test]
fn each_state_is_kept_migrated_new_or_refused_with_the_place_in_its_type() {
    let manifest = snapshot(&[
        ("same", "str", "Order{price: u8}"),
        ("wider", "str", "Order{price: u8}"),
        ("narrower", "str", "Order{price: u64}"),
        ("other-key", "str", "u64"),
        ("gone", "str", "u64"),
    ]);
    let own = declared(
        "sum",
        &[
            ("same", "str", "Order{price: u8}"),
            ("wider", "str", "Order{price: u64, note: str}"),
            ("narrower", "str", "Order{price: u8}"),
            ("other-key", "u64", "u64"),
            ("fresh", "str", "u64"),
        ],
        &[("operator.seen", "u64")],
    );
    let plan = RestorePlan::of(&manifest, &graph("sum", 2, 128), &[own], false);
    assert_eq!(plan.operators[0].keyed_bytes, 100);
    let fates = fates(&plan);
    let fate = |name: &str| {
        let (_, word, details) = fates.iter().find(|(other, ..)| other == name).unwrap();
        (*word, details.join(", "))
    };
    assert_eq!(fate("same"), ("kept", String::new()));
    assert_eq!(fate("wider"), ("migrated", "price: u8 -> u64, note: added, str".into()));
    let (word, reason) = fate("narrower");
    assert!(word == "refused" && reason.contains("'price' was u64"), "{reason}");
    let (word, reason) = fate("other-key");
    assert!(word == "refused" && reason.contains("type of keys cannot change"), "{reason}");
    assert_eq!(fate("fresh").0, "new");
    let (word, reason) = fate("gone");
    assert!(word == "refused" && reason.contains("--allow-non-restored-state"), "{reason}");
    assert_eq!(fate("operator.seen"), ("migrated", "u32 -> u64".into()));
    let refusals = plan.refusals();
    assert_eq!(refusals.len(), 3, "{refusals:?}");
    assert!(refusals.iter().all(|reason| reason.contains("operator 'Op sum' (uid sum)")), "{refusals:?}");
}

#[test]
fn what_nobody_claims_is_refused_or_dropped_as_it_is_said() {
    let manifest = snapshot(&[("total", "str", "u64")]);
    let other = || [declared("suma", &[("total", "str", "u64")], &[])];
    let plan = RestorePlan::of(&manifest, &graph("suma", 2, 128), &other(), false);
    assert_eq!(
        fates(&plan).iter().map(|(_, word, _)| *word).collect::<Vec<_>>(),
        ["new", "refused", "refused"]
    );
    assert!(plan.refusals()[0].contains("the nearest is 'suma'"), "{:?}", plan.refusals());
    let plan = RestorePlan::of(&manifest, &graph("suma", 2, 128), &other(), true);
    assert_eq!(
        fates(&plan).iter().map(|(_, word, _)| *word).collect::<Vec<_>>(),
        ["new", "dropped", "dropped"]
    );
    assert!(plan.refusals().is_empty());
    // A state of an operator that is still there.
    let less = [declared("sum", &[], &[("operator.seen", "u32")])];
    let plan = RestorePlan::of(&manifest, &graph("sum", 2, 128), &less, true);
    assert_eq!(fates(&plan).iter().map(|(_, word, _)| *word).collect::<Vec<_>>(), ["dropped", "kept"]);
}

#[test]
fn keyed_state_needs_its_number_of_key_groups() {
    let manifest = snapshot(&[("total", "str", "u64")]);
    let own = [declared("sum", &[("total", "str", "u64")], &[("operator.seen", "u32")])];
    let plan = RestorePlan::of(&manifest, &graph("sum", 2, 256), &own, false);
    assert_eq!(plan.refusals().len(), 1);
    assert!(plan.refusals()[0].contains("128 key groups"), "{:?}", plan.refusals());
}

#[test]
fn what_an_operator_registers_that_does_not_open_here_is_decided_when_its_task_opens() {
    let manifest = snapshot(&[("total", "str", "u64")]);
    let own = DeclaredOperator { unknown: Some("no such file".into()), ..declared("sum", &[], &[]) };
    let plan = RestorePlan::of(&manifest, &graph("sum", 2, 128), &[own], false);
    assert!(
        fates(&plan)
            .iter()
            .all(|(_, word, details)| *word == "undecided" && details[0].contains("no such file"))
    );
    assert!(plan.refusals().is_empty());
}

#[test]
fn records_in_flight_need_their_tasks() {
    let mut manifest = snapshot(&[]);
    manifest.tasks[0].channels.push(ChannelSnapshot { edge: 0, source: 0, file: file("channel", 9) });
    let own = || [declared("sum", &[], &[("operator.seen", "u32")])];
    let obstacles = |graph: &JobGraph, ignore| RestorePlan::of(&manifest, graph, &own(), ignore).obstacles;
    assert!(obstacles(&graph("sum", 2, 128), false).is_empty());
    assert!(obstacles(&graph("sum", 3, 128), false)[0].contains("which had 2 tasks and has 3 now"));
    assert!(obstacles(&graph("other", 2, 128), false)[0].contains("which the job does not have"));
    assert!(obstacles(&graph("other", 2, 128), true).is_empty());
}

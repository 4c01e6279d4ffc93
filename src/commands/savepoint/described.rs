//! A manifest for people, and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use flott::schema::ids::OperatorId;
use flott::schema::key_group::KeyGroupRange;
use flott::schema::snapshot::{
    ListMode, ListSnapshot, Manifest, ManifestVertex, OperatorSnapshot, SavepointFormat, SnapshotFile,
    SnapshotKind, TableSnapshot,
};
use flott::storage::Storage;
use serde_json::{Value, json};

use super::super::table::{Table, bytes, time};

/// Items that are shown of each list for people.
const ITEMS_SHOWN: usize = 20;

/// A list state of an operator, over all tasks.
struct List<'a> {
    first: &'a ListSnapshot,
    items: Vec<&'a [u8]>,
}

/// What a snapshot holds of an operator.
struct State<'a> {
    tasks: Vec<u32>,
    lists: BTreeMap<&'a str, List<'a>>,
    tables: BTreeMap<u16, &'a TableSnapshot>,
    formats: BTreeSet<&'a str>,
    key_groups: Vec<KeyGroupRange>,
    files: BTreeSet<&'a SnapshotFile>,
    enumerator_bytes: Option<usize>,
}

impl<'a> State<'a> {
    /// That of the operator with this id; nothing if it has none.
    fn of(manifest: &'a Manifest, id: OperatorId) -> Option<Self> {
        let parts: Vec<(u32, &OperatorSnapshot)> = manifest
            .tasks
            .iter()
            .flat_map(|task| task.operators.iter().map(|operator| (task.task.subtask, operator)))
            .filter(|(_, operator)| operator.operator == Some(id))
            .collect();
        let mut lists: BTreeMap<&str, List> = BTreeMap::new();
        for list in parts.iter().flat_map(|(_, part)| &part.lists) {
            let entry = lists.entry(&list.name).or_insert_with(|| List { first: list, items: Vec::new() });
            entry.items.extend(list.items.iter().map(Vec::as_slice));
        }
        let keyed = || parts.iter().flat_map(|(_, part)| &part.keyed);
        let mut key_groups: Vec<KeyGroupRange> = keyed().map(|keyed| keyed.key_groups).collect();
        key_groups.sort_by_key(|range| range.start);
        (!parts.is_empty()).then(|| State {
            tasks: parts.iter().map(|(subtask, _)| *subtask).collect(),
            lists,
            tables: keyed().flat_map(|keyed| &keyed.tables).map(|table| (table.number, table)).collect(),
            formats: keyed().map(|keyed| keyed.format.as_str()).collect(),
            key_groups,
            files: keyed().flat_map(|keyed| &keyed.files).collect(),
            enumerator_bytes: parts.iter().find_map(|(_, part)| part.enumerator.as_ref().map(Vec::len)),
        })
    }

    fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl List<'_> {
    fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.len() as u64).sum()
    }
}

fn mode(mode: ListMode) -> &'static str {
    match mode {
        ListMode::Split => "split",
        ListMode::Union => "union",
        ListMode::Broadcast => "broadcast",
    }
}

fn kind(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Checkpoint => "checkpoint",
        SnapshotKind::FullCheckpoint => "full checkpoint",
        SnapshotKind::Savepoint(SavepointFormat::Canonical) => "canonical savepoint",
        SnapshotKind::Savepoint(SavepointFormat::Native) => "native savepoint",
    }
}

fn hex(item: &[u8]) -> String {
    item.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn known(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

/// All files, each once, and their bytes.
fn all_files(manifest: &Manifest) -> (usize, u64) {
    let files: BTreeSet<&SnapshotFile> = manifest.tasks.iter().flat_map(|task| task.files()).collect();
    (files.len(), files.iter().map(|file| file.size).sum())
}

/// Tasks of a vertex that had finished, and bytes of records in flight into it.
fn of_tasks(manifest: &Manifest, vertex: &ManifestVertex) -> (usize, u64) {
    let tasks = || manifest.tasks.iter().filter(|task| task.task.vertex == vertex.vertex);
    let in_flight = tasks().flat_map(|task| &task.channels).map(|channel| channel.file.size).sum();
    (tasks().filter(|task| task.finished).count(), in_flight)
}

/// The manifest as text for people.
pub fn as_text(folder: &Storage, manifest: &Manifest, with_items: bool) -> String {
    let mut text = format!("{} {folder}\n", kind(manifest.kind));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    let (files, size) = all_files(manifest);
    line("job", format!("{} ('{}')", manifest.job, manifest.job_name));
    line("id", manifest.checkpoint.to_string());
    line("taken", format!("{} UTC", time(manifest.timestamp_ms)));
    line("files", format!("{files}, {}", bytes(size)));
    for vertex in &manifest.vertices {
        let (finished, in_flight) = of_tasks(manifest, vertex);
        text.push_str(&format!(
            "\nvertex '{}' {}: {} tasks, {} key groups",
            vertex.name, vertex.vertex, vertex.parallelism, vertex.max_parallelism
        ));
        if finished > 0 {
            text.push_str(&format!(", {finished} finished"));
        }
        if in_flight > 0 {
            text.push_str(&format!(", {} of records in flight", bytes(in_flight)));
        }
        text.push('\n');
        for operator in &vertex.operators {
            let state = State::of(manifest, operator.operator);
            text.push_str(&format!("  operator '{}' (uid {})", operator.name, operator.uid));
            text.push_str(
                &state.map_or_else(|| ": no state\n".into(), |state| described(&state, with_items)),
            );
        }
    }
    text
}

fn described(state: &State<'_>, with_items: bool) -> String {
    let mut text = format!(", state of {} tasks\n", state.tasks.len());
    let mut table = Table::new(&["    state", "kind", "type", "items", "size"], &[3, 4]);
    let mut is_empty = true;
    for (name, list) in &state.lists {
        is_empty = false;
        let kind = format!("list, {}", mode(list.first.mode));
        let item_type = known(&list.first.item_type).to_string();
        table.row([
            format!("    {name}"),
            kind,
            item_type,
            list.items.len().to_string(),
            bytes(list.bytes()),
        ]);
    }
    for of_table in state.tables.values() {
        is_empty = false;
        let types = format!("{} -> {}", known(&of_table.key_type), known(&of_table.value_type));
        let holds = known(&of_table.holds).to_string();
        table.row([format!("    {}", of_table.name), holds, types, String::new(), String::new()]);
    }
    if let Some(size) = state.enumerator_bytes {
        is_empty = false;
        table.row([
            "    (enumerator)".into(),
            "splits".into(),
            String::new(),
            String::new(),
            bytes(size as u64),
        ]);
    }
    if !is_empty {
        text.push_str(&table.to_string());
    }
    if !state.files.is_empty() {
        let groups: Vec<String> =
            state.key_groups.iter().map(|range| format!("{}..{}", range.start, range.end)).collect();
        let formats: Vec<&str> = state.formats.iter().copied().collect();
        text.push_str(&format!(
            "    keyed state: {} files, {}, {}, key groups {}\n",
            state.files.len(),
            bytes(state.file_bytes()),
            formats.join(", "),
            groups.join(" ")
        ));
    }
    if with_items {
        for (name, list) in &state.lists {
            for item in list.items.iter().take(ITEMS_SHOWN) {
                text.push_str(&format!("    {name}: {}\n", hex(item)));
            }
            if let Some(more @ 1..) = list.items.len().checked_sub(ITEMS_SHOWN) {
                text.push_str(&format!("    {name}: and {more} more (--json shows all)\n"));
            }
        }
    }
    text
}

/// The manifest as JSON.
pub fn as_json(folder: &Storage, manifest: &Manifest, with_items: bool) -> Value {
    let (files, size) = all_files(manifest);
    let vertices: Vec<Value> = manifest
        .vertices
        .iter()
        .map(|vertex| {
            let (finished, in_flight) = of_tasks(manifest, vertex);
            let operators: Vec<Value> = vertex
                .operators
                .iter()
                .map(|operator| {
                    let state = State::of(manifest, operator.operator);
                    json!({
                        "id": operator.operator.to_string(),
                        "uid": operator.uid,
                        "name": operator.name,
                        "state": state.map(|state| state_as_json(&state, with_items)),
                    })
                })
                .collect();
            json!({
                "id": vertex.vertex.to_string(),
                "name": vertex.name,
                "parallelism": vertex.parallelism,
                "max-parallelism": vertex.max_parallelism,
                "finished-tasks": finished,
                "in-flight-bytes": in_flight,
                "operators": operators,
            })
        })
        .collect();
    json!({
        "path": folder.uri(),
        "kind": kind(manifest.kind),
        "job": manifest.job.to_string(),
        "name": manifest.job_name,
        "checkpoint": manifest.checkpoint,
        "timestamp": manifest.timestamp_ms,
        "files": files,
        "bytes": size,
        "vertices": vertices,
    })
}

fn state_as_json(state: &State<'_>, with_items: bool) -> Value {
    let lists: Vec<Value> = state
        .lists
        .iter()
        .map(|(name, list)| {
            let items = with_items.then(|| list.items.iter().map(|item| hex(item)).collect::<Vec<_>>());
            json!({
                "name": name,
                "mode": mode(list.first.mode),
                "type": list.first.item_type,
                "count": list.items.len(),
                "bytes": list.bytes(),
                "items": items,
            })
        })
        .collect();
    let tables: Vec<Value> = state
        .tables
        .values()
        .map(|table| {
            json!({
                "name": table.name,
                "number": table.number,
                "holds": table.holds,
                "key-type": table.key_type,
                "value-type": table.value_type,
            })
        })
        .collect();
    let files: Vec<Value> = state
        .files
        .iter()
        .map(|file| json!({"path": file.path, "bytes": file.size, "crc32c": format!("{:08x}", file.crc32c)}))
        .collect();
    let groups: Vec<[u32; 2]> = state.key_groups.iter().map(|range| [range.start, range.end]).collect();
    json!({
        "tasks": state.tasks,
        "lists": lists,
        "tables": tables,
        "formats": state.formats,
        "key-groups": groups,
        "files": files,
        "bytes": state.file_bytes(),
        "enumerator-bytes": state.enumerator_bytes,
    })
}

#[cfg(test)]
mod tests {
    use flott::schema::ids::{JobId, TaskId};
    use flott::schema::snapshot::{KeyedSnapshot, ManifestOperator, SnapshotTimes, TaskSnapshot};

    use super::*;

    fn task(subtask: u32, operators: Vec<OperatorSnapshot>) -> TaskSnapshot {
        TaskSnapshot {
            task: TaskId { vertex: OperatorId::of_uid("sum").into(), subtask },
            finished: subtask == 1,
            operators,
            channels: Vec::new(),
            times: SnapshotTimes::default(),
        }
    }

    fn manifest() -> Manifest {
        let id = OperatorId::of_uid("sum");
        let list = |item: u8| ListSnapshot {
            name: "splits".into(),
            mode: ListMode::Split,
            item_type: "u64".into(),
            items: vec![vec![item, 255]],
        };
        let table = TableSnapshot {
            name: "sum".into(),
            number: 0,
            holds: "value".into(),
            key_type: "String".into(),
            value_type: "i64".into(),
        };
        let file = SnapshotFile { name: "a".into(), path: "../shared/a".into(), size: 2_048, crc32c: 0xab };
        let part = |subtask: u32| OperatorSnapshot {
            operator: Some(id),
            lists: vec![list(subtask as u8)],
            keyed: vec![KeyedSnapshot {
                key_groups: KeyGroupRange { start: 64 * subtask, end: 64 * (subtask + 1) },
                format: "rocksdb-1".into(),
                tables: vec![table.clone()],
                files: vec![file.clone()],
            }],
            enumerator: None,
        };
        let operator = |uid: &str| ManifestOperator {
            operator: OperatorId::of_uid(uid),
            uid: uid.into(),
            name: format!("Op {uid}"),
        };
        let vertex = ManifestVertex {
            vertex: id.into(),
            name: "Sum -> Sink".into(),
            parallelism: 2,
            max_parallelism: 128,
            operators: vec![operator("sum"), operator("sink")],
        };
        Manifest {
            job: JobId(7),
            job_name: "words".into(),
            checkpoint: 12,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 0,
            vertices: vec![vertex],
            tasks: vec![task(0, vec![part(0)]), task(1, vec![part(1)])],
        }
    }

    #[test]
    fn people_see_operators_states_types_sizes_and_key_groups() {
        let folder = Storage::open("/checkpoints/chk-12").unwrap();
        let expected = "checkpoint file:///checkpoints/chk-12
  job       00000000000000000000000000000007 ('words')
  id        12
  taken     1970-01-01 00:00:00 UTC
  files     1, 2.0 KiB

vertex 'Sum -> Sink' ID: 2 tasks, 128 key groups, 1 finished
  operator 'Op sum' (uid sum), state of 2 tasks
    state   kind         type           items  size
    splits  list, split  u64                2   4 B
    sum     value        String -> i64
    keyed state: 1 files, 2.0 KiB, rocksdb-1, key groups 0..64 64..128
    splits: 00ff
    splits: 01ff
  operator 'Op sink' (uid sink): no state
";
        let expected = expected.replace("ID", &OperatorId::of_uid("sum").to_string());
        assert_eq!(as_text(&folder, &manifest(), true), expected);
    }

    #[test]
    fn json_has_the_same() {
        let folder = Storage::open("/checkpoints/chk-12").unwrap();
        let json = as_json(&folder, &manifest(), true);
        assert_eq!((&json["path"], &json["bytes"]), (&"file:///checkpoints/chk-12".into(), &2_048.into()));
        let operators = &json["vertices"][0]["operators"];
        let state = &operators[0]["state"];
        assert_eq!(state["lists"][0]["items"], json!(["00ff", "01ff"]));
        assert_eq!(state["tables"][0]["key-type"], "String");
        assert_eq!(state["key-groups"], json!([[0, 64], [64, 128]]));
        assert_eq!(state["files"][0]["crc32c"], "000000ab");
        assert_eq!(operators[1]["state"], Value::Null);
        assert_eq!(
            as_json(&folder, &manifest(), false)["vertices"][0]["operators"][0]["state"]["lists"][0]["items"],
            Value::Null
        );
    }
}

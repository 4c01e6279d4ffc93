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
use super::entries::Entries;
use super::values::Reader;

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
pub fn as_text(folder: &Storage, manifest: &Manifest, entries: Option<&Entries>) -> String {
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
            text.push_str(&state.map_or_else(
                || ": no state\n".into(),
                |state| described(&state, operator.operator, entries),
            ));
        }
    }
    text
}

fn described(state: &State<'_>, operator: OperatorId, entries: Option<&Entries>) -> String {
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
        let counted = entries.and_then(|entries| entries.of(operator, &of_table.name));
        let (count, size) = match (counted, entries) {
            (Some(counted), _) => (counted.count.to_string(), bytes(counted.bytes)),
            (None, Some(_)) => ("0".into(), bytes(0)),
            (None, None) => (String::new(), String::new()),
        };
        table.row([format!("    {}", of_table.name), holds, types, count, size]);
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
    if let Some(entries) = entries {
        let more = |name: &str, count: u64| match count.checked_sub(entries.limit as u64) {
            Some(more @ 1..) => format!("    {name}: and {more} more (--limit)\n"),
            _ => String::new(),
        };
        for (name, list) in &state.lists {
            let reader = Reader::new(&list.first.item_type);
            let items = list.items.iter().take(entries.limit);
            text.extend(items.map(|item| format!("    {name}: {}\n", reader.show(item))));
            text.push_str(&more(name, list.items.len() as u64));
        }
        for table in state.tables.values() {
            let Some(of_table) = entries.of(operator, &table.name) else { continue };
            let shown = of_table.shown.iter();
            text.extend(shown.map(|(key, value)| format!("    {}: {key} = {value}\n", table.name)));
            text.push_str(&more(&table.name, of_table.count));
        }
    }
    text
}

/// The manifest as JSON.
pub fn as_json(folder: &Storage, manifest: &Manifest, entries: Option<&Entries>) -> Value {
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
                        "state": state.map(|state| state_as_json(&state, operator.operator, entries)),
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

fn state_as_json(state: &State<'_>, operator: OperatorId, entries: Option<&Entries>) -> Value {
    let lists: Vec<Value> = state
        .lists
        .iter()
        .map(|(name, list)| {
            let reader = Reader::new(&list.first.item_type);
            let shown =
                |limit| list.items.iter().take(limit).map(|item| reader.show(item)).collect::<Vec<_>>();
            let items = entries.map(|entries| shown(entries.limit));
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
                "count": entries.map(|entries| entries.of(operator, &table.name).map_or(0, |table| table.count)),
                "entries": entries.map(|entries| entries_as_json(entries, operator, &table.name)),
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

fn entries_as_json(entries: &Entries, operator: OperatorId, table: &str) -> Vec<Value> {
    let shown = entries.of(operator, table).map(|table| &table.shown[..]).unwrap_or_default();
    shown.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
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
            item_type: "(u8, u8)".into(),
            items: vec![vec![item, 255]],
            file: None,
        };
        let table = TableSnapshot {
            name: "sum".into(),
            number: 0,
            holds: "value".into(),
            key_type: "str".into(),
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
    state   kind         type        items  size
    splits  list, split  (u8, u8)        2   4 B
    sum     value        str -> i64
    keyed state: 1 files, 2.0 KiB, rocksdb-1, key groups 0..64 64..128
  operator 'Op sink' (uid sink): no state
";
        let expected = expected.replace("ID", &OperatorId::of_uid("sum").to_string());
        assert_eq!(as_text(&folder, &manifest(), None), expected);
    }

    #[test]
    fn json_has_the_same() {
        let folder = Storage::open("/checkpoints/chk-12").unwrap();
        let json = as_json(&folder, &manifest(), None);
        assert_eq!((&json["path"], &json["bytes"]), (&"file:///checkpoints/chk-12".into(), &2_048.into()));
        let operators = &json["vertices"][0]["operators"];
        let state = &operators[0]["state"];
        assert_eq!(state["lists"][0]["items"], Value::Null);
        assert_eq!(state["tables"][0]["key-type"], "str");
        assert_eq!(state["key-groups"], json!([[0, 64], [64, 128]]));
        assert_eq!(state["files"][0]["crc32c"], "000000ab");
        assert_eq!(operators[1]["state"], Value::Null);
    }

    #[test]
    fn entries_are_shown_by_their_types() {
        let mut manifest = manifest();
        for task in &mut manifest.tasks {
            task.operators.iter_mut().for_each(|operator| operator.keyed.clear());
        }
        let root = tempfile::tempdir().unwrap();
        let folder = Storage::open(root.path().to_str().unwrap()).unwrap();
        let entries = Entries::read(&folder, &manifest, 1).unwrap();
        let text = as_text(&folder, &manifest, Some(&entries));
        assert!(text.contains("    splits: [0,255]\n    splits: and 1 more (--limit)\n"), "{text}");
        let json = as_json(&folder, &manifest, Some(&entries));
        assert_eq!(json["vertices"][0]["operators"][0]["state"]["lists"][0]["items"], json!([[0, 255]]));
    }
}

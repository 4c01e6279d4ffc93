//! What becomes of the states of a snapshot in a program, found before anything is started.
//!
//! Who may call it: the client, which has the operators of a program at hand. What must never happen here: another answer than a task gives
//! that starts from the snapshot (`operator`, `restored`).

use std::collections::BTreeMap;

use flott_dataflow::declared::DeclaredOperator;
use flott_dataflow::snapshot::{ListMode, TableSpec};
use flott_schema::fitting;
use flott_schema::graph::{JobGraph, Vertex};
use flott_schema::ids::OperatorId;
use flott_schema::nearest::nearest;
use flott_schema::snapshot::{
    KeyedSnapshot, Manifest, ManifestOperator, ManifestVertex, OperatorSnapshot, SnapshotFile, TableSnapshot,
};
use serde::{Deserialize, Serialize};

use crate::evolution;

/// What becomes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is taken over as it is.
    Kept,
    /// It is taken over, and its values become values of another type.
    Migrated,
    /// Nobody wants it, and that is allowed.
    Dropped,
    /// The snapshot has none of the kind: it begins empty.
    New,
    /// The job cannot start from the snapshot because of it.
    Refused,
    /// Decided when the task opens: the operator could not be opened here.
    Undecided,
}

impl Fate {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Fate::Kept => "kept",
            Fate::Migrated => "migrated",
            Fate::Dropped => "dropped",
            Fate::New => "new",
            Fate::Refused => "refused",
            Fate::Undecided => "undecided",
        }
    }
}

/// One state of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatePlan {
    /// Its name in the operator.
    pub name: String,
    /// What it is: `value`, `list`, `map`, `timers`, `window`, `split list`, `union list`, `broadcast list`, `enumerator`.
    pub kind: String,
    /// Its type in the snapshot; nothing if it is new or its type is not known.
    pub stored_type: Option<String>,
    /// Its type in the program; nothing if it is dropped or its type is not known.
    pub type_now: Option<String>,
    /// Bytes in the snapshot, where they are counted by state: the rows of tables are counted by operator.
    pub bytes: Option<u64>,
    /// What becomes of it.
    pub fate: Fate,
    /// What changes, with the place in the type; or why it is refused or not decided.
    pub details: Vec<String>,
}

/// An operator of the snapshot, of the program, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorPlan {
    /// Its uid.
    pub uid: String,
    /// Its name: in the program, if it is there.
    pub name: String,
    /// Bytes of the files with its keyed state.
    pub keyed_bytes: u64,
    /// Its states.
    pub states: Vec<StatePlan>,
}

/// What becomes of a snapshot in a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestorePlan {
    /// The job that took the snapshot.
    pub job: String,
    /// Its name.
    pub job_name: String,
    /// The id of the snapshot.
    pub checkpoint: u64,
    /// The operators that have or had state, those of the program first.
    pub operators: Vec<OperatorPlan>,
    /// What else stands in the way.
    pub obstacles: Vec<String>,
}

impl RestorePlan {
    /// For a program with this graph, whose operators have declared these states. `ignore_unclaimed`: what nobody claims is dropped, else it is
    /// refused.
    pub fn of(
        manifest: &Manifest,
        graph: &JobGraph,
        declared: &[DeclaredOperator],
        ignore_unclaimed: bool,
    ) -> Self {
        let mut stored: BTreeMap<OperatorId, Stored> = BTreeMap::new();
        for vertex in &manifest.vertices {
            for operator in &vertex.operators {
                let states: Vec<&OperatorSnapshot> =
                    fitting::states_of(manifest, operator.operator).collect();
                if !states.is_empty() {
                    stored.insert(operator.operator, Stored { operator, vertex, states });
                }
            }
        }
        let mut operators = Vec::new();
        for declared in declared {
            let id = declared.operator.id;
            let mut vertices = graph.vertices.iter();
            let vertex = vertices.find(|vertex| vertex.operators.iter().any(|operator| operator.id == id));
            operators.push(of_operator(declared, vertex, stored.remove(&id), ignore_unclaimed));
        }
        let known: Vec<&str> = declared.iter().map(|one| one.operator.uid.as_str()).collect();
        operators.extend(stored.into_values().map(|stored| of_nobody(&stored, &known, ignore_unclaimed)));
        operators.retain(|operator| !operator.states.is_empty());
        RestorePlan {
            job: manifest.job.to_string(),
            job_name: manifest.job_name.clone(),
            checkpoint: manifest.checkpoint,
            operators,
            obstacles: in_flight(manifest, graph, ignore_unclaimed),
        }
    }

    /// Why the job cannot start from the snapshot, each reason with its place; none if it can.
    pub fn refusals(&self) -> Vec<String> {
        let of_states = self.operators.iter().flat_map(|operator| {
            let refused = operator.states.iter().filter(|state| state.fate == Fate::Refused);
            refused.map(|state| {
                let OperatorPlan { uid, name, .. } = operator;
                format!(
                    "state '{}' of operator '{name}' (uid {uid}): {}",
                    state.name,
                    state.details.join("; ")
                )
            })
        });
        of_states.chain(self.obstacles.iter().cloned()).collect()
    }
}

/// What a snapshot has of an operator.
struct Stored<'m> {
    operator: &'m ManifestOperator,
    vertex: &'m ManifestVertex,
    states: Vec<&'m OperatorSnapshot>,
}

impl<'m> Stored<'m> {
    fn keyed(&self) -> impl Iterator<Item = &'m KeyedSnapshot> {
        self.states.iter().flat_map(|state| &state.keyed)
    }

    /// The tables of all tasks by their names.
    fn tables(&self) -> BTreeMap<&'m str, &'m TableSnapshot> {
        let tables = self.keyed().flat_map(|keyed| &keyed.tables);
        tables.map(|table| (table.name.as_str(), table)).collect()
    }

    fn keyed_bytes(&self) -> u64 {
        let files: std::collections::BTreeSet<&SnapshotFile> =
            self.keyed().flat_map(|keyed| &keyed.files).collect();
        files.into_iter().map(|file| file.size).sum()
    }

    /// The list states that hold something, with their bytes over all tasks.
    fn lists(&self) -> BTreeMap<&'m str, (ListMode, &'m str, u64)> {
        let mut lists = BTreeMap::new();
        for list in self.states.iter().flat_map(|state| &state.lists).filter(|list| !list.is_empty()) {
            let bytes = list.inline_bytes() as u64 + list.file.as_ref().map_or(0, |file| file.size);
            let entry = lists.entry(list.name.as_str()).or_insert((list.mode, list.item_type.as_str(), 0));
            entry.2 += bytes;
        }
        lists
    }

    fn enumerator_bytes(&self) -> Option<u64> {
        self.states.iter().find_map(|state| state.enumerator.as_ref()).map(|bytes| bytes.len() as u64)
    }

    /// All of its states, with one fate.
    fn all(&self, fate: Fate, details: &[String]) -> Vec<StatePlan> {
        let plan = |name: &str, kind: String, stored_type: Option<String>, bytes| StatePlan {
            name: name.into(),
            kind,
            stored_type,
            type_now: None,
            bytes,
            fate,
            details: details.to_vec(),
        };
        let tables = self.tables();
        let tables =
            tables.values().map(|table| plan(&table.name, table.holds.clone(), stored_type(table), None));
        let lists = self.lists();
        let lists = lists.iter().map(|(name, (mode, item_type, bytes))| {
            plan(name, list_kind(*mode).into(), known(item_type), Some(*bytes))
        });
        let enumerator = self.enumerator_bytes();
        let enumerator = enumerator.map(|bytes| plan(ENUMERATOR, ENUMERATOR.into(), None, Some(bytes)));
        tables.chain(lists).chain(enumerator).collect()
    }
}

/// The state of a split enumerator has no name of its own.
const ENUMERATOR: &str = "enumerator";

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn key_and_value(key: &str, value: &str) -> Option<String> {
    match (key, value) {
        ("", "") => None,
        _ => Some(format!(
            "{} -> {}",
            known(key).as_deref().unwrap_or("?"),
            known(value).as_deref().unwrap_or("?")
        )),
    }
}

fn stored_type(table: &TableSnapshot) -> Option<String> {
    key_and_value(&table.key_type, &table.value_type)
}

fn list_kind(mode: ListMode) -> &'static str {
    match mode {
        ListMode::Split => "split list",
        ListMode::Union => "union list",
        ListMode::Broadcast => "broadcast list",
    }
}

/// An operator that the program does not have.
fn of_nobody(stored: &Stored<'_>, known: &[&str], ignore_unclaimed: bool) -> OperatorPlan {
    let ManifestOperator { uid, name, .. } = stored.operator;
    let states = match ignore_unclaimed {
        true => stored.all(Fate::Dropped, &[]),
        false => {
            let hint = nearest(uid, known.iter().copied());
            let hint = hint.map_or_else(String::new, |near| format!(", the nearest is '{near}'"));
            let reason = format!(
                "the job has no operator with this uid{hint}; give its successor the uid '{uid}', or drop the state with \
                 --allow-non-restored-state"
            );
            stored.all(Fate::Refused, &[reason])
        }
    };
    OperatorPlan { uid: uid.clone(), name: name.clone(), keyed_bytes: stored.keyed_bytes(), states }
}

/// An operator of the program, with what the snapshot has of it.
fn of_operator(
    declared: &DeclaredOperator,
    vertex: Option<&Vertex>,
    stored: Option<Stored<'_>>,
    ignore_unclaimed: bool,
) -> OperatorPlan {
    let unclaimed = Unclaimed { declared, ignore_unclaimed };
    let mut states = Vec::new();
    let tables = stored.as_ref().map(Stored::tables).unwrap_or_default();
    for table in tables.values().filter(|table| declared.tables.iter().all(|own| own.name != table.name)) {
        let (fate, details) = unclaimed.table(&table.name);
        states.push(StatePlan {
            name: table.name.clone(),
            kind: table.holds.clone(),
            stored_type: stored_type(table),
            type_now: None,
            bytes: None,
            fate,
            details,
        });
    }
    states.extend(declared.tables.iter().map(|own| of_table(own, tables.get(own.name.as_str()).copied())));
    if let (Some(stored), Some(vertex)) = (&stored, vertex)
        && let Some(saved) = fitting::key_groups_of(stored.vertex, stored.states.iter().copied())
        && !fitting::takes_over(vertex.max_parallelism, saved)
    {
        let now = vertex.max_parallelism;
        let reason = format!(
            "keyed state is divided into {saved} key groups, and the job has {now} there; set the max parallelism to {saved}"
        );
        for state in states.iter_mut().filter(|state| tables.contains_key(state.name.as_str())) {
            state.fate = Fate::Refused;
            state.details.insert(0, reason.clone());
        }
    }
    let lists = stored.as_ref().map(Stored::lists).unwrap_or_default();
    for (name, (mode, item_type, bytes)) in &lists {
        let own = declared.lists.iter().find(|own| own.name == *name);
        let (fate, details) = match own {
            Some(own) => compared(item_type, &own.item_type),
            None => unclaimed.list(),
        };
        let type_now = own.and_then(|own| known(&own.item_type));
        states.push(StatePlan {
            name: name.to_string(),
            kind: list_kind(*mode).into(),
            stored_type: known(item_type),
            type_now,
            bytes: Some(*bytes),
            fate,
            details,
        });
    }
    // Of a list that was empty nothing tells that it was there.
    let is_new = stored.is_none();
    let new = declared.lists.iter().filter(|own| is_new && !lists.contains_key(own.name.as_str()));
    states.extend(new.map(|own| StatePlan {
        name: own.name.clone(),
        kind: "list".into(),
        stored_type: None,
        type_now: known(&own.item_type),
        bytes: None,
        fate: Fate::New,
        details: Vec::new(),
    }));
    if let Some(bytes) = stored.as_ref().and_then(Stored::enumerator_bytes) {
        states.push(StatePlan {
            name: ENUMERATOR.into(),
            kind: ENUMERATOR.into(),
            stored_type: None,
            type_now: None,
            bytes: Some(bytes),
            fate: if declared.has_enumerator { Fate::Kept } else { Fate::Dropped },
            details: Vec::new(),
        });
    }
    OperatorPlan {
        uid: declared.operator.uid.clone(),
        name: declared.operator.name.clone(),
        keyed_bytes: stored.as_ref().map_or(0, Stored::keyed_bytes),
        states,
    }
}

/// What becomes of states that an operator has not registered.
struct Unclaimed<'a> {
    declared: &'a DeclaredOperator,
    ignore_unclaimed: bool,
}

impl Unclaimed<'_> {
    fn undecided(&self) -> Option<(Fate, Vec<String>)> {
        let reason = self.declared.unknown.as_ref()?;
        Some((Fate::Undecided, vec![format!("decided when the task opens; here it does not: {reason}")]))
    }

    fn table(&self, name: &str) -> (Fate, Vec<String>) {
        self.undecided().unwrap_or_else(|| {
            if self.ignore_unclaimed {
                return (Fate::Dropped, Vec::new());
            }
            let known = nearest(name, self.declared.tables.iter().map(|table| table.name.as_str()));
            let hint = known.map_or_else(String::new, |name| format!(" (it has a '{name}')"));
            let reason = format!(
                "the operator registers no state of that name{hint}; register it, or drop it with --allow-non-restored-state"
            );
            (Fate::Refused, vec![reason])
        })
    }

    /// A list that nobody asks for goes without a word, as in Flink.
    fn list(&self) -> (Fate, Vec<String>) {
        self.undecided().unwrap_or((Fate::Dropped, Vec::new()))
    }
}

fn of_table(own: &TableSpec, stored: Option<&TableSnapshot>) -> StatePlan {
    let plan = |fate, details| StatePlan {
        name: own.name.clone(),
        kind: own.holds.into(),
        stored_type: stored.and_then(stored_type),
        type_now: key_and_value(&own.key_type, &own.value_type),
        bytes: None,
        fate,
        details,
    };
    let Some(stored) = stored else { return plan(Fate::New, Vec::new()) };
    let keys = compared(&stored.key_type, &own.key_type);
    match keys.0 {
        Fate::Kept => {}
        // Their bytes may be the same: only names or widths differ.
        Fate::Migrated if is_same(&stored.key_type, &own.key_type) => {}
        _ => {
            let reason = format!(
                "keys were of type {}, and the type of keys cannot change: give the state another name",
                stored.key_type
            );
            return plan(Fate::Refused, vec![reason]);
        }
    }
    let (fate, details) = compared(&stored.value_type, &own.value_type);
    plan(fate, details)
}

/// Whether values of both types have the same bytes.
fn is_same(stored: &str, now: &str) -> bool {
    evolution::plan(stored, now).is_ok_and(|plan| plan.is_none())
}

fn compared(stored: &str, now: &str) -> (Fate, Vec<String>) {
    if stored.is_empty() || now.is_empty() || stored == now {
        return (Fate::Kept, Vec::new());
    }
    match evolution::plan(stored, now) {
        Err(error) => (Fate::Refused, vec![error.to_string()]),
        Ok(plan) => match evolution::changes(stored, now) {
            changes if changes.is_empty() && plan.is_none() => (Fate::Kept, changes),
            changes => (Fate::Migrated, changes),
        },
    }
}

/// What stands in the way of records in flight.
fn in_flight(manifest: &Manifest, graph: &JobGraph, ignore_unclaimed: bool) -> Vec<String> {
    let has_records = |vertex: &&ManifestVertex| {
        let mut tasks = manifest.tasks.iter().filter(|task| task.task.vertex == vertex.vertex);
        tasks.any(|task| !task.channels.is_empty())
    };
    let obstacle = |saved: &ManifestVertex| {
        let what = "it is an unaligned checkpoint with records in flight into";
        match graph.vertex(saved.vertex) {
            Some(vertex) if vertex.parallelism == saved.parallelism => None,
            Some(vertex) => Some(format!(
                "{what} '{}', which had {} tasks and has {} now; keep the parallelism, or start from a savepoint or an aligned \
                 checkpoint",
                saved.name, saved.parallelism, vertex.parallelism
            )),
            None if ignore_unclaimed => None,
            None => Some(format!(
                "{what} '{}', which the job does not have; start from a savepoint or an aligned checkpoint, or drop them with \
                 --allow-non-restored-state",
                saved.name
            )),
        }
    };
    manifest.vertices.iter().filter(has_records).filter_map(obstacle).collect()
}

#[cfg(test)]
#[path = "compatibility_tests.rs"]
mod tests;

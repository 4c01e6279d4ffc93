//! What a task takes from the snapshot that it starts from: a choice made from the manifest alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flott_schema::ids::{OperatorId, TaskId};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::nearest::nearest;
use flott_schema::snapshot::{
    KeyedSnapshot, ListMode, ListSnapshot, Manifest, ManifestVertex, OperatorSnapshot, RestoreFrom,
    TableSnapshot,
};
use flott_schema::{Context, Error, ErrorKind, Result, fitting};

use crate::files;
use crate::options::TaskIdentity;

/// The snapshot that a task starts from.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) from: RestoreFrom,
    pub(crate) manifest: Arc<Manifest>,
}

/// State of an operator for a task, as a snapshot has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RestoredOperator {
    /// Its tables by name.
    pub(crate) tables: BTreeMap<String, TableSnapshot>,
    /// Who holds its rows.
    pub(crate) parts: Vec<RestoredPart>,
    /// The items for this task.
    pub(crate) lists: BTreeMap<String, Vec<Vec<u8>>>,
}

/// Keyed state that one task has handed in, of which some belongs here.
#[derive(Clone, Debug)]
pub(crate) struct RestoredPart {
    pub(crate) task: TaskId,
    pub(crate) snapshot: KeyedSnapshot,
    /// What of it belongs here.
    pub(crate) key_groups: KeyGroupRange,
    /// Numbers of tables in it, and what they are here, where they differ.
    pub(crate) renumbered: BTreeMap<u16, u16>,
    /// Where its files may be on this machine.
    pub(crate) backup: PathBuf,
    /// Set when the task that it belongs to here is gone.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl RestoredPart {
    /// An error once the task is gone: what is not fetched need not be, and the next attempt needs the way.
    pub(crate) fn check_wanted(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Cancelled, "the task is gone")),
            false => Ok(()),
        }
    }

    /// The number here of a table with this number there.
    pub(crate) fn number(&self, stored: u16) -> u16 {
        self.renumbered.get(&stored).copied().unwrap_or(stored)
    }

    /// The number there of a table with this number here.
    pub(crate) fn stored_number(&self, number: u16) -> Option<u16> {
        self.snapshot.tables.iter().map(|table| table.number).find(|stored| self.number(*stored) == number)
    }
}

impl Restored {
    /// Whether the task had finished: it itself, at the same parallelism, or all of its vertex.
    pub(crate) fn had_finished(&self, task: &TaskIdentity) -> bool {
        let id = task.attempt.task;
        let Some(vertex) = self.manifest.vertices.iter().find(|vertex| vertex.vertex == id.vertex) else {
            return false;
        };
        let mut finished =
            self.manifest.tasks.iter().filter(|one| one.task.vertex == id.vertex && one.finished);
        if vertex.parallelism == task.parallelism {
            return finished.any(|one| one.task == id);
        }
        let finished: BTreeSet<TaskId> = finished.map(|one| one.task).collect();
        finished.len() == vertex.parallelism as usize
    }

    fn vertex_of(&self, operator: OperatorId) -> Option<&ManifestVertex> {
        let holds = |vertex: &&ManifestVertex| vertex.operators.iter().any(|one| one.operator == operator);
        self.manifest.vertices.iter().find(holds)
    }

    /// How many key groups the vertex of `task` has from now on. One that is the only task for good goes on with those of its state.
    pub(crate) fn max_parallelism(&self, task: &TaskIdentity) -> u32 {
        if task.max_parallelism != 1 {
            return task.max_parallelism;
        }
        let saved = |operator: &OperatorId| {
            let vertex = self.vertex_of(*operator)?;
            fitting::key_groups_of(vertex, self.handed_in(*operator).into_iter().map(|(_, state)| state))
        };
        task.operators.iter().filter_map(saved).max().unwrap_or(1)
    }

    /// What the tasks have handed in for an operator, by their parallel indexes.
    fn handed_in(&self, operator: OperatorId) -> Vec<(TaskId, &OperatorSnapshot)> {
        let of_task = |task: &'_ flott_schema::snapshot::TaskSnapshot| task.task;
        let mut all: Vec<(TaskId, &OperatorSnapshot)> = self
            .manifest
            .tasks
            .iter()
            .flat_map(|task| task.operators.iter().map(move |state| (of_task(task), state)))
            .filter(|(_, state)| state.operator == Some(operator))
            .collect();
        all.sort_by_key(|(task, _)| task.subtask);
        all
    }

    /// The state of `operator` for `task`; `backup` says where files of a task may be on this machine.
    pub(crate) fn operator(
        &self,
        operator: OperatorId,
        task: &TaskIdentity,
        backup: impl Fn(TaskId, KeyGroupRange) -> PathBuf,
    ) -> Result<RestoredOperator> {
        let handed_in = self.handed_in(operator);
        let mut restored = RestoredOperator::default();
        let Some(vertex) = self.vertex_of(operator) else { return Ok(restored) };
        let keyed: Vec<(TaskId, &KeyedSnapshot)> = handed_in
            .iter()
            .flat_map(|(task, state)| state.keyed.iter().map(move |keyed| (*task, keyed)))
            .collect();
        let saved = fitting::key_groups_of(vertex, handed_in.iter().map(|(_, state)| *state));
        if let Some(saved) = saved.filter(|saved| *saved != task.max_parallelism) {
            return Err(Error::configuration(format!(
                "{}: keyed state of '{}' has {saved} key groups, and the job has {}; set its max parallelism to {saved}",
                self.from, vertex.name, task.max_parallelism
            )));
        }
        self.tables(&keyed, &mut restored)?;
        let own = task.key_groups();
        for (from, keyed) in keyed {
            let key_groups = KeyGroupRange {
                start: own.start.max(keyed.key_groups.start),
                end: own.end.min(keyed.key_groups.end),
            };
            if key_groups.start >= key_groups.end {
                continue;
            }
            let number = |table: &TableSnapshot| (table.number, restored.tables[&table.name].number);
            restored.parts.push(RestoredPart {
                task: from,
                snapshot: keyed.clone(),
                key_groups,
                renumbered: keyed.tables.iter().map(number).filter(|(there, here)| there != here).collect(),
                backup: backup(from, keyed.key_groups),
                cancelled: task.cancelled.clone(),
            });
        }
        restored.lists = self.lists(&handed_in, vertex.parallelism, task)?;
        Ok(restored)
    }

    /// The tables of all tasks under one set of numbers, the same in every task that looks at this manifest.
    fn tables(&self, keyed: &[(TaskId, &KeyedSnapshot)], restored: &mut RestoredOperator) -> Result<()> {
        let mut numbers = BTreeSet::new();
        for table in keyed.iter().flat_map(|(_, keyed)| &keyed.tables) {
            if let Some(known) = restored.tables.get(&table.name) {
                if (&known.key_type, &known.value_type) != (&table.key_type, &table.value_type) {
                    return Err(Error::bad_input(format!(
                        "{}: tasks disagree on the types of table '{}'; the snapshot is damaged",
                        self.from, table.name
                    )));
                }
                continue;
            }
            let mut table = table.clone();
            if !numbers.insert(table.number) {
                table.number = (0..=u16::MAX).find(|number| !numbers.contains(number)).ok_or_else(|| {
                    Error::bad_input(format!("{}: an operator has more than 65,536 tables", self.from))
                })?;
                numbers.insert(table.number);
            }
            restored.tables.insert(table.name.clone(), table);
        }
        Ok(())
    }

    fn lists(
        &self,
        handed_in: &[(TaskId, &OperatorSnapshot)],
        parallelism: u32,
        task: &TaskIdentity,
    ) -> Result<BTreeMap<String, Vec<Vec<u8>>>> {
        let mut by_name: BTreeMap<&str, Vec<(u32, &ListSnapshot)>> = BTreeMap::new();
        for (from, state) in handed_in {
            for list in &state.lists {
                by_name.entry(&list.name).or_default().push((from.subtask, list));
            }
        }
        let own = task.attempt.task.subtask;
        let mut lists = BTreeMap::new();
        for (name, parts) in by_name {
            let mode = parts[0].1.mode;
            if parts.iter().any(|(_, list)| list.mode != mode) {
                return Err(Error::bad_input(format!(
                    "{}: tasks disagree on how list state '{name}' is spread; the snapshot is damaged",
                    self.from
                )));
            }
            let get =
                |list: &ListSnapshot| files::get_items(&self.from.folder, list).at(|| self.from.to_string());
            let all = || {
                let each: Result<Vec<_>> = parts.iter().map(|(_, list)| get(list)).collect();
                each.map(|each| each.into_iter().flatten())
            };
            let items = match mode {
                ListMode::Union => all()?.collect(),
                ListMode::Broadcast => get(parts[own as usize % parts.len()].1)?,
                // As long as nobody comes or goes, everybody keeps what is his.
                ListMode::Split if parallelism == task.parallelism => {
                    let of_own = parts.iter().filter(|(subtask, _)| *subtask == own);
                    let of_own: Result<Vec<_>> = of_own.map(|(_, list)| get(list)).collect();
                    of_own?.into_iter().flatten().collect()
                }
                ListMode::Split => {
                    all()?.skip(own as usize).step_by(task.parallelism.max(1) as usize).collect()
                }
            };
            lists.insert(name.to_owned(), items);
        }
        Ok(lists)
    }
}

impl Restored {
    /// Text of the type of the items of a list state; empty if it is not known.
    pub(crate) fn item_type(&self, operator: OperatorId, list: &str) -> &str {
        let operators = self.manifest.tasks.iter().flat_map(|task| &task.operators);
        let lists = operators.filter(|state| state.operator == Some(operator)).flat_map(|state| &state.lists);
        let mut known = lists.filter(|one| one.name == list).map(|one| one.item_type.as_str());
        known.find(|text| !text.is_empty()).unwrap_or_default()
    }
}

/// State of a snapshot that no operator of a job claims is refused, unless it is to be dropped. `operators`:
/// all of the job, with their uids.
pub fn check_operators<'a>(
    from: &RestoreFrom,
    manifest: &Manifest,
    operators: impl IntoIterator<Item = (OperatorId, &'a str)>,
) -> Result<()> {
    let operators: BTreeMap<OperatorId, &str> = operators.into_iter().collect();
    let has_state = |state: &&OperatorSnapshot| {
        let lists = state.lists.iter().any(|list| !list.is_empty());
        lists || !state.keyed.is_empty() || state.enumerator.is_some()
    };
    let states = manifest.tasks.iter().flat_map(|task| &task.operators).filter(has_state);
    let unclaimed = states.filter_map(|state| state.operator).find(|id| !operators.contains_key(id));
    let Some(operator) = unclaimed.filter(|_| !from.ignore_unclaimed) else { return Ok(()) };
    let known = manifest.vertices.iter().flat_map(|vertex| &vertex.operators);
    let uid = known.into_iter().find(|one| one.operator == operator).map_or("", |one| one.uid.as_str());
    let hint = match nearest(uid, operators.values().copied()) {
        Some(other) => format!("the job has an operator '{other}': give it the uid '{uid}', or"),
        None => "give its successor this uid, or".into(),
    };
    Err(Error::configuration(format!(
        "{from} has state of the operator with uid '{uid}' ({operator}), and the job has no such operator; {hint} \
         allow that the state is dropped (--allow-non-restored-state)"
    )))
}

/// State of the split enumerator of a source.
pub fn enumerator_state(manifest: &Manifest, operator: OperatorId) -> Option<&[u8]> {
    let states = manifest.tasks.iter().flat_map(|task| &task.operators);
    states.filter(|state| state.operator == Some(operator)).find_map(|state| state.enumerator.as_deref())
}

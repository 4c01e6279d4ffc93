//! A state backend in memory, for tests: it keeps what operators hand in, in the stored form, and watches that they keep the rules.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::rc::Rc;

use flott_schema::ids::OperatorId;
use flott_schema::key_group::KeyGroupRange;
use flott_schema::{Error, Result};

use crate::codec::decode_value;
use crate::snapshot::{
    FrozenRows, FrozenSink, ListMode, RowSink, ScanPlace, ScanRange, ScannedRow, StateBackend, TableId,
    TableSpec, TaskState, WantedKey,
};

/// What a [`MemoryState`] asks of its operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryKind {
    /// All rows at each snapshot.
    #[default]
    AllRows,
    /// The rows changed since the last one.
    Changes,
    /// The same; and tables may forget rows, and are to keep no more than this many bytes.
    Fetching {
        /// Budget of each operator.
        budget_bytes: usize,
    },
}

/// Rows by key group and key.
type Rows = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

/// A table in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTable {
    /// As it was registered.
    pub spec: TableSpec,
    /// Values by key group and key.
    pub rows: Rows,
}

/// A list state in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryList {
    /// How it is spread.
    pub mode: ListMode,
    /// Text of the type of its items.
    pub item_type: String,
    /// The items in their wire form.
    pub items: Vec<Vec<u8>>,
}

/// What one operator handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryOperator {
    /// By name.
    pub tables: BTreeMap<String, MemoryTable>,
    /// By name.
    pub lists: BTreeMap<String, MemoryList>,
}

/// What the operators of one task handed in for one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySnapshot {
    /// By the id of the operator.
    pub operators: BTreeMap<OperatorId, MemoryOperator>,
}

impl MemorySnapshot {
    /// Number of rows in all tables of that name.
    pub fn row_count(&self, table: &str) -> usize {
        let tables = self.operators.values().filter_map(|operator| operator.tables.get(table));
        tables.map(|table| table.rows.len()).sum()
    }
}

/// The state of the operators of one task.
pub struct MemoryState {
    kind: MemoryKind,
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
    restored: Option<MemorySnapshot>,
    operators: RefCell<BTreeMap<OperatorId, Rc<MemoryBackend>>>,
}

impl MemoryState {
    /// For a task that starts from nothing.
    pub fn new(kind: MemoryKind, subtask: u32, parallelism: u32, max_parallelism: u32) -> Rc<Self> {
        let operators = RefCell::default();
        Rc::new(MemoryState { kind, subtask, parallelism, max_parallelism, restored: None, operators })
    }

    /// For a task that starts from what all tasks of its vertex handed in for one snapshot: with the rows of its key groups, and its
    /// share of the lists.
    pub fn restored_from(
        parts: &[MemorySnapshot],
        kind: MemoryKind,
        subtask: u32,
        parallelism: u32,
        max_parallelism: u32,
    ) -> Rc<Self> {
        let key_groups = KeyGroupRange::of_subtask(subtask, max_parallelism, parallelism);
        let mut restored = MemorySnapshot::default();
        let mut split: BTreeMap<(OperatorId, String), u32> = BTreeMap::new();
        for (id, part) in parts.iter().flat_map(|part| &part.operators) {
            let operator = restored.operators.entry(*id).or_default();
            for (name, table) in &part.tables {
                let all = operator.tables.entry(name.clone());
                let all = all.or_insert_with(|| MemoryTable { spec: table.spec.clone(), rows: Rows::new() });
                let own = table.rows.iter().filter(|((group, _), _)| key_groups.contains(u32::from(*group)));
                all.rows.extend(own.map(|(key, value)| (key.clone(), value.clone())));
            }
            for (name, list) in &part.lists {
                let first = !operator.lists.contains_key(name);
                let all = operator.lists.entry(name.clone()).or_insert_with(|| MemoryList {
                    mode: list.mode,
                    item_type: list.item_type.clone(),
                    items: Vec::new(),
                });
                let turn = split.entry((*id, name.clone())).or_default();
                for item in &list.items {
                    let own = match list.mode {
                        ListMode::Split => *turn % parallelism == subtask,
                        ListMode::Union => true,
                        ListMode::Broadcast => first,
                    };
                    *turn += 1;
                    if own {
                        all.items.push(item.clone());
                    }
                }
            }
        }
        let (restored, operators) = (Some(restored), RefCell::default());
        Rc::new(MemoryState { kind, subtask, parallelism, max_parallelism, restored, operators })
    }

    /// Parallel index, parallelism, number of key groups of the task.
    pub fn place(&self) -> (u32, u32, u32) {
        (self.subtask, self.parallelism, self.max_parallelism)
    }

    /// A barrier comes: what is frozen from now on belongs to this snapshot.
    pub fn begin(&self, checkpoint: u64) {
        for operator in self.operators.borrow().values() {
            let part = PartOf::default();
            operator.0.parts.borrow_mut().insert(checkpoint, part.clone());
            operator.0.part.replace(part);
        }
    }

    /// Whether all that was begun for a snapshot was handed in.
    pub fn is_complete(&self, checkpoint: u64) -> bool {
        self.operators.borrow().values().all(|operator| {
            let parts = operator.0.parts.borrow();
            parts.get(&checkpoint).is_none_or(|part| part.borrow().is_complete())
        })
    }

    /// What was handed in for a snapshot. Fails if it is not complete, if an operator broke a rule, or if one that has tables did not
    /// freeze all of them.
    pub fn snapshot(&self, checkpoint: u64) -> Result<MemorySnapshot> {
        let mut snapshot = MemorySnapshot::default();
        for (id, operator) in self.operators.borrow().iter() {
            snapshot.operators.insert(*id, operator.0.take_part(checkpoint)?);
        }
        Ok(snapshot)
    }

    /// Rows looked up, and rows written outside of a snapshot, by all operators.
    pub fn fetched_and_written(&self) -> (usize, usize) {
        let operators = self.operators.borrow();
        let counts = operators.values().map(|operator| (operator.0.fetched.get(), operator.0.written.get()));
        counts.fold((0, 0), |(fetched, written), (more, also)| (fetched + more, written + also))
    }

    /// Rows handed in for snapshots so far, those that are gone among them.
    pub fn frozen_rows(&self) -> usize {
        self.operators.borrow().values().map(|operator| operator.0.frozen.get()).sum()
    }
}

impl TaskState for MemoryState {
    fn operator(&self, operator: OperatorId, _uid: &str) -> Rc<dyn StateBackend> {
        let mut operators = self.operators.borrow_mut();
        let backend = operators.entry(operator).or_insert_with(|| {
            let restored = self.restored.as_ref().map(|restored| restored.operators.get(&operator).cloned());
            Rc::new(MemoryBackend(Rc::new(Shared {
                kind: self.kind,
                key_groups: KeyGroupRange::of_subtask(self.subtask, self.max_parallelism, self.parallelism),
                is_restored: restored.is_some(),
                restored: restored.flatten().unwrap_or_default(),
                tables: RefCell::default(),
                part: RefCell::default(),
                parts: RefCell::default(),
                fetched: Cell::new(0),
                written: Cell::new(0),
                frozen: Cell::new(0),
            })))
        });
        backend.clone()
    }
}

/// The state of one operator.
struct MemoryBackend(Rc<Shared>);

struct Shared {
    kind: MemoryKind,
    key_groups: KeyGroupRange,
    is_restored: bool,
    restored: MemoryOperator,
    tables: RefCell<Vec<Live>>,
    /// Of the last snapshot that was begun.
    part: RefCell<PartOf>,
    parts: RefCell<BTreeMap<u64, PartOf>>,
    fetched: Cell<usize>,
    written: Cell<usize>,
    frozen: Cell<usize>,
}

/// A registered table.
struct Live {
    spec: TableSpec,
    /// Everything handed in so far.
    rows: Rows,
    /// Keys written outside of snapshots since the last barrier.
    written: BTreeSet<(u16, Vec<u8>)>,
    /// How long rows live behind their stamps, milliseconds.
    life_ms: Option<i64>,
}

/// Whether a value ends with a stamp that is so long ago. What may stand in front of the stamp is no byte above 0x7f: where that is not
/// so, the stamp is read as a later one.
fn has_expired(value: &[u8], life_ms: i64, now_ms: i64) -> bool {
    let more = value.iter().rev().skip(1).take_while(|byte| **byte >= 0x80).count();
    let stamp = value.get(value.len().saturating_sub(more + 1)..).map(decode_value::<i64>);
    matches!(stamp, Some(Ok(stamp_ms)) if stamp_ms != 0 && stamp_ms + life_ms <= now_ms)
}

type PartOf = Rc<RefCell<Part>>;

/// A snapshot.
#[derive(Default)]
struct Part {
    tables: BTreeMap<u16, Rows>,
    open: BTreeSet<u16>,
    lists: BTreeMap<String, MemoryList>,
    failure: Option<Error>,
}

impl Part {
    fn is_complete(&self) -> bool {
        self.open.is_empty() || self.failure.is_some()
    }
}

impl Shared {
    fn take_part(&self, checkpoint: u64) -> Result<MemoryOperator> {
        let part = self.parts.borrow_mut().remove(&checkpoint);
        let part = part.ok_or_else(|| Error::internal(format!("snapshot {checkpoint} was not begun")))?;
        let mut part = part.take();
        if let Some(failure) = part.failure {
            return Err(failure);
        }
        let mut tables = BTreeMap::new();
        for (number, live) in (0..).zip(self.tables.borrow().iter()) {
            let name = &live.spec.name;
            let rows = part.tables.remove(&number);
            let rows = rows.ok_or_else(|| Error::internal(format!("table '{name}' was not frozen")))?;
            if part.open.contains(&number) {
                return Err(Error::internal(format!("table '{name}' has not handed in all of its rows")));
            }
            tables.insert(name.clone(), MemoryTable { spec: live.spec.clone(), rows });
        }
        Ok(MemoryOperator { tables, lists: part.lists })
    }

    /// Encodes rows, and gives each to `take`.
    fn encode(
        &self,
        table: TableId,
        rows: Box<dyn FrozenRows>,
        mut take: impl FnMut((u16, Vec<u8>), Option<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        struct Sink<'a> {
            key_groups: KeyGroupRange,
            count: usize,
            take: &'a mut dyn FnMut((u16, Vec<u8>), Option<Vec<u8>>) -> Result<()>,
        }
        impl RowSink for Sink<'_> {
            fn row(&mut self, key_group: u16, key: &[u8], value: Option<&[u8]>) -> Result<()> {
                if !self.key_groups.contains(u32::from(key_group)) {
                    return Err(Error::internal(format!(
                        "a row of key group {key_group} is not this task's"
                    )));
                }
                self.count += 1;
                (self.take)((key_group, key.to_vec()), value.map(<[u8]>::to_vec))
            }
        }
        let name = self.tables.borrow()[usize::from(table.0)].spec.name.clone();
        let expected = rows.len();
        let mut sink = Sink { key_groups: self.key_groups, count: 0, take: &mut take };
        rows.encode(&mut sink)?;
        if sink.count == expected {
            return Ok(());
        }
        let count = sink.count;
        Err(Error::internal(format!("table '{name}' said {expected} rows, and encoded {count}")))
    }

    fn wants_changes(&self) -> bool {
        self.kind != MemoryKind::AllRows
    }

    /// Rows of a snapshot: into it, and among those that can be fetched.
    fn freeze_rows(&self, part: &PartOf, table: TableId, rows: Box<dyn FrozenRows>) -> Result<()> {
        self.encode(table, rows, |key, value| {
            self.frozen.set(self.frozen.get() + 1);
            let (mut part, mut tables) = (part.borrow_mut(), self.tables.borrow_mut());
            let live = &mut tables[usize::from(table.0)];
            if live.written.contains(&key) {
                return Err(Error::internal(format!(
                    "a row of table '{}' was handed in for a snapshot behind a newer one that was written",
                    live.spec.name
                )));
            }
            if !self.wants_changes() && value.is_none() {
                return Err(Error::internal("all rows were asked for, not those that are gone"));
            }
            let frozen = part.tables.entry(table.0).or_default();
            for rows in [frozen, &mut live.rows] {
                match &value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(&key),
                };
            }
            Ok(())
        })
    }
}

impl StateBackend for MemoryBackend {
    fn table(&self, spec: TableSpec) -> Result<TableId> {
        let mut tables = self.0.tables.borrow_mut();
        let name = &spec.name;
        if tables.iter().any(|table| table.spec.name == *name) {
            return Err(Error::internal(format!("state '{name}' is registered twice")));
        }
        let restored = self.0.restored.tables.get(name);
        if let Some(restored) = restored.filter(|restored| restored.spec != spec) {
            let restored = &restored.spec;
            return Err(Error::user(format!("table {restored:?} cannot be read as {spec:?}")));
        }
        let rows = restored.map(|restored| restored.rows.clone()).unwrap_or_default();
        tables.push(Live { spec, rows, written: BTreeSet::new(), life_ms: None });
        Ok(TableId(tables.len() as u16 - 1))
    }

    fn load(&self, table: TableId, row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let rows = self.0.tables.borrow()[usize::from(table.0)].rows.clone();
        rows.iter().try_for_each(|((_, key), value)| row(key, value))
    }

    fn wants_changes(&self) -> bool {
        self.0.wants_changes()
    }

    fn freeze(&self, table: TableId) -> Box<dyn FrozenSink> {
        let shared = self.0.part.borrow().clone();
        let mut part = shared.borrow_mut();
        let live = &mut self.0.tables.borrow_mut()[usize::from(table.0)];
        live.written.clear();
        let base = if self.0.wants_changes() { live.rows.clone() } else { Rows::new() };
        part.open.insert(table.0);
        if part.tables.insert(table.0, base).is_some() {
            let name = &live.spec.name;
            part.failure = Some(Error::internal(format!("table '{name}' was frozen twice for one snapshot")));
        }
        drop(part);
        Box::new(MemorySink { shared: self.0.clone(), part: shared, table, done: false })
    }

    fn can_fetch(&self) -> bool {
        matches!(self.0.kind, MemoryKind::Fetching { .. })
    }

    fn rows_expire(&self, table: TableId, life_ms: i64) {
        self.0.tables.borrow_mut()[usize::from(table.0)].life_ms = Some(life_ms);
    }

    /// Drops all that may be dropped.
    fn set_time(&self, now_ms: i64) {
        for live in self.0.tables.borrow_mut().iter_mut() {
            if let Some(life_ms) = live.life_ms {
                live.rows.retain(|_, value| !has_expired(value, life_ms, now_ms));
            }
        }
    }

    fn budget_bytes(&self) -> usize {
        if let MemoryKind::Fetching { budget_bytes } = self.0.kind { budget_bytes } else { usize::MAX }
    }

    fn fetch(
        &self,
        table: TableId,
        keys: &[WantedKey<'_>],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.0.fetched.set(self.0.fetched.get() + keys.len());
        let tables = self.0.tables.borrow();
        let rows = &tables[usize::from(table.0)].rows;
        for (position, (key_group, key)) in keys.iter().enumerate() {
            if !self.0.key_groups.contains(u32::from(*key_group)) {
                return Err(Error::internal(format!("a row of key group {key_group} is not this task's")));
            }
            if let Some(value) = rows.get(&(*key_group, key.to_vec())) {
                found(position, value)?;
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        table: TableId,
        range: &ScanRange,
        after: Option<&ScanPlace>,
        row: ScannedRow<'_>,
    ) -> Result<Option<ScanPlace>> {
        let groups = range.key_groups;
        if groups.start < self.0.key_groups.start || groups.end > self.0.key_groups.end {
            return Err(Error::internal(format!("rows of key groups {groups:?} are not all this task's")));
        }
        let begin = match after {
            Some(place) => Bound::Excluded((place.key_group, place.key.clone())),
            None => Bound::Included((groups.start as u16, range.from.clone())),
        };
        let rows = self.0.tables.borrow()[usize::from(table.0)].rows.clone();
        for ((group, key), value) in rows.range((begin, Bound::Unbounded)) {
            if u32::from(*group) >= groups.end {
                break;
            }
            if key[..] < range.from[..] || !range.is_below(key) {
                continue;
            }
            if row(*group, key, value)? == ControlFlow::Break(()) {
                return Ok(Some(ScanPlace { key_group: *group, key: key.clone() }));
            }
        }
        Ok(None)
    }

    fn write(&self, table: TableId, rows: Box<dyn FrozenRows>) -> Result<()> {
        if !self.can_fetch() {
            return Err(Error::internal("rows were written to where they cannot be fetched"));
        }
        self.0.encode(table, rows, |key, value| {
            self.0.written.set(self.0.written.get() + 1);
            let live = &mut self.0.tables.borrow_mut()[usize::from(table.0)];
            match value {
                Some(value) => live.rows.insert(key.clone(), value),
                None => live.rows.remove(&key),
            };
            live.written.insert(key);
            Ok(())
        })
    }

    fn set_list(&self, name: &str, mode: ListMode, item_type: &str, items: Vec<Vec<u8>>) -> Result<()> {
        let list = MemoryList { mode, item_type: item_type.to_string(), items };
        match self.0.part.borrow().borrow_mut().lists.insert(name.to_string(), list) {
            None => Ok(()),
            Some(_) => Err(Error::internal(format!("list '{name}' was set twice for one snapshot"))),
        }
    }

    fn list(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        Ok(self.0.restored.lists.get(name).map(|list| list.items.clone()).unwrap_or_default())
    }

    fn is_restored(&self) -> bool {
        self.0.is_restored
    }
}

struct MemorySink {
    shared: Rc<Shared>,
    part: PartOf,
    table: TableId,
    done: bool,
}

impl FrozenSink for MemorySink {
    fn rows(&mut self, rows: Box<dyn FrozenRows>) {
        if let Err(error) = self.shared.freeze_rows(&self.part, self.table, rows) {
            self.part.borrow_mut().failure.get_or_insert(error);
        }
    }

    fn done(mut self: Box<Self>) {
        self.done = true;
        self.part.borrow_mut().open.remove(&self.table.0);
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        if !self.done {
            let error = Error::internal("the rows of a snapshot were given up");
            self.part.borrow_mut().failure.get_or_insert(error);
        }
    }
}

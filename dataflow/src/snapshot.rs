//! What operators hand in at a barrier, and where they get it back when they start again.
//!
//! What lives here: the traits between the state of operators, which is typed and in memory, and a state backend, which keeps rows of
//! bytes in files. Who may call it: operators, through their context; backends implement it. What must never happen here: knowledge of
//! files, or work on a record's way that could wait for a barrier.
//!
//! An operator has **list states** (small; given whole at each barrier) and **tables** of keyed state. A table is frozen at a barrier: what
//! must be written is moved out of it as typed rows, at once or piece by piece behind the barrier, and encoded on another thread. A row is
//! (key group, table, key, value); a key's bytes are a prefix that the table chooses (say, a window) and the key in its wire form.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use flott_schema::Result;
use flott_schema::ids::OperatorId;
use flott_schema::key_group::KeyGroupRange;

pub use flott_schema::snapshot::{AfterBarrier, Alignment, Barrier, ListMode, SnapshotKind};

/// A table of keyed state, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Unique in the operator.
    pub name: String,
    /// For people: `value`, `list`, `map`, `timers`, `window`.
    pub holds: &'static str,
    /// Text of the type of its keys, see [`crate::types`]; empty if not known.
    pub key_type: String,
    /// Text of the type of its values.
    pub value_type: String,
}

/// A registered table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u16);

/// Work for another thread.
pub type Background = Box<dyn FnOnce() -> Result<()> + Send>;

/// Takes rows in their stored form.
pub trait RowSink {
    /// A row of the table at hand; without a value: there is none any more. The last of several rows of one key counts.
    fn row(&mut self, key_group: u16, key: &[u8], value: Option<&[u8]>) -> Result<()>;
}

/// Typed rows that were moved out of a table. They may cross threads.
pub trait FrozenRows: Send {
    /// Number of rows.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Memory that they take until they are encoded, bytes, about; 0 where nobody has counted it.
    fn memory_bytes(&self) -> usize {
        0
    }
    /// Gives every row in its stored form, in any order.
    fn encode(self: Box<Self>, rows: &mut dyn RowSink) -> Result<()>;
}

/// Takes the rows of one table for one snapshot; dropped before it is done, it makes the snapshot fail.
pub trait FrozenSink {
    /// Some of the rows.
    fn rows(&mut self, rows: Box<dyn FrozenRows>);
    /// Those were all.
    fn done(self: Box<Self>);
}

/// A key whose row is wanted.
pub type WantedKey<'a> = (u16, &'a [u8]);

/// Which rows of a table a scan gives: of each of these key groups, those whose keys lie in a range of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// Key groups of the task.
    pub key_groups: KeyGroupRange,
    /// The first key.
    pub from: Vec<u8>,
    /// The key that all stay below, if there is one.
    pub below: Option<Vec<u8>>,
}

impl ScanRange {
    /// All rows of these key groups.
    pub fn all(key_groups: KeyGroupRange) -> Self {
        ScanRange { key_groups, from: Vec::new(), below: None }
    }

    /// The rows whose keys begin with `prefix`.
    pub fn of_prefix(key_groups: KeyGroupRange, prefix: Vec<u8>) -> Self {
        let mut below = prefix.clone();
        while below.pop_if(|last| *last == u8::MAX).is_some() {}
        let below = below.pop().map(|last| {
            below.push(last + 1);
            below
        });
        ScanRange { key_groups, from: prefix, below }
    }

    /// Whether a key is not behind the range.
    pub fn is_below(&self, key: &[u8]) -> bool {
        self.below.as_ref().is_none_or(|below| key < &below[..])
    }
}

/// The row that a scan stopped behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPlace {
    /// Its key group.
    pub key_group: u16,
    /// Its key.
    pub key: Vec<u8>,
}

/// Takes a row (key group, key, value), and says whether the scan goes on.
pub type ScannedRow<'a> = &'a mut dyn FnMut(u16, &[u8], &[u8]) -> Result<ControlFlow<()>>;

/// State of one operator in one task. Calls come from the task's thread.
pub trait StateBackend {
    /// Registers a table in `open`. An error says why the restored table of that name cannot be read as this one.
    fn table(&self, spec: TableSpec) -> Result<TableId>;

    /// Gives every restored row (key, value) of a table: for tables that hold all of their rows in memory. Called once, after `table`.
    fn load(&self, table: TableId, row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()>;

    /// Whether a snapshot wants the rows changed since the last one, rows that are gone among them, and not all rows. Tables then keep track of
    /// what changes.
    fn wants_changes(&self) -> bool;

    /// Begins the part of a table in the snapshot at hand. To be called for every registered table, within `snapshot`.
    fn freeze(&self, table: TableId) -> Box<dyn FrozenSink>;

    /// Whether rows that were written can be had again one by one, so that a table may forget them.
    fn can_fetch(&self) -> bool {
        false
    }

    /// Says in `open`, behind [`StateBackend::table`], that each value of a table ends with the time at which it was last renewed (epoch
    /// milliseconds, an `i64` in postcard's format; 0: it has none), and may be dropped when that is `life_ms` ago or longer, by the time
    /// that [`StateBackend::set_time`] has told.
    fn rows_expire(&self, _table: TableId, _life_ms: i64) {}

    /// Says which processing time (epoch milliseconds) the operator goes by from now on, where rows expire. Before the first call none do.
    fn set_time(&self, _now_ms: i64) {}

    /// Bytes that the tables of this operator may keep in memory, where rows can be fetched.
    fn budget_bytes(&self) -> usize {
        usize::MAX
    }

    /// Looks up rows; `found` gets the position of each key that has one, and its value. Keys come sorted or not.
    fn fetch(
        &self,
        _table: TableId,
        _keys: &[WantedKey<'_>],
        _found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        Ok(())
    }

    /// Gives the rows of a table in the order of key group and key, those that were handed in or written a moment ago among them, until all were
    /// given or `row` has the scan stop. Gives the place behind which it goes on in another call, where it finds what was written meanwhile.
    fn scan(
        &self,
        _table: TableId,
        _range: &ScanRange,
        _after: Option<&ScanPlace>,
        _row: ScannedRow<'_>,
    ) -> Result<Option<ScanPlace>> {
        Ok(None)
    }

    /// Writes rows outside of a snapshot, so that the table may forget them. They can be fetched when this returns, and are newer than any
    /// handed in before, also than those frozen ones that are still on their way; they do not belong to a snapshot whose barrier has come.
    fn write(&self, _table: TableId, _rows: Box<dyn FrozenRows>) -> Result<()> {
        Ok(())
    }

    /// Sets the items of a list state for the snapshot at hand, within `snapshot`.
    fn set_list(&self, name: &str, mode: ListMode, item_type: &str, items: Vec<Vec<u8>>) -> Result<()>;

    /// Has work done that the snapshot at hand waits for, within `snapshot`: on another thread, if there is one for it. An error of the work
    /// makes the snapshot fail.
    fn complete_later(&self, work: Background) -> Result<()> {
        work()
    }

    /// The restored items of a list state, in `open`; none if there was no such state.
    fn list(&self, name: &str) -> Result<Vec<Vec<u8>>>;

    /// The same as items of the type with this text: those of another type become such, or the error says why they cannot.
    fn list_as(&self, name: &str, _item_type: &str) -> Result<Vec<Vec<u8>>> {
        self.list(name)
    }

    /// Whether the operator starts from a snapshot in which it had state, or from which it is new.
    fn is_restored(&self) -> bool;
}

/// State of the operators of one task.
pub trait TaskState {
    /// That of one operator; every call with one operator gives the same.
    fn operator(&self, operator: OperatorId, uid: &str) -> Rc<dyn StateBackend>;
}

/// Something in a task that acts when a snapshot is complete: a sink that commits.
pub trait CheckpointListener {
    /// The snapshot is complete and will be what the job starts from after a failure. Called in order; some may be left out: what belongs to
    /// earlier ones is due as well.
    fn completed(&mut self, checkpoint: u64) -> Result<()>;
    /// The task has ended, and this is its last snapshot: hands in what is still to be committed.
    fn last_snapshot(&mut self, barrier: &Barrier) -> Result<()>;
    /// Whether anything waits to be committed.
    fn has_uncommitted(&self) -> bool;
}

/// What a task shares with its operators for snapshots; in [`crate::context::TaskContext`].
#[derive(Default)]
pub struct Snapshots {
    state: Option<Rc<dyn TaskState>>,
    listeners: RefCell<Vec<Rc<RefCell<dyn CheckpointListener>>>>,
    finished: Cell<bool>,
    on_demand: bool,
}

impl Snapshots {
    /// For a task with this state, which may have finished before the snapshot that it starts from: then signals pass its operators by, and
    /// only its sinks do what is left to do.
    pub fn new(state: Rc<dyn TaskState>, finished: bool) -> Self {
        Snapshots { state: Some(state), finished: Cell::new(finished), ..Snapshots::default() }
    }

    /// The job takes no checkpoints by itself, so that at the end nothing waits for one.
    pub fn on_demand(self) -> Self {
        Snapshots { on_demand: true, ..self }
    }

    /// Whether what a task has to commit at its end waits for a snapshot.
    pub fn last_commit_waits(&self) -> bool {
        self.are_taken() && !self.on_demand
    }

    /// The state of the task's operators; none if the job takes no snapshots and starts from none.
    pub fn state(&self) -> Option<&Rc<dyn TaskState>> {
        self.state.as_ref()
    }

    /// Whether snapshots may be taken: what must not be visible before one is complete has to wait for it.
    pub fn are_taken(&self) -> bool {
        self.state.is_some()
    }

    /// Whether the task had finished before the snapshot that it starts from.
    pub fn had_finished(&self) -> bool {
        self.finished.get()
    }

    /// Adds a listener, in `open`.
    pub fn listen(&self, listener: Rc<RefCell<dyn CheckpointListener>>) {
        self.listeners.borrow_mut().push(listener);
    }

    /// A snapshot is complete.
    pub fn completed(&self, checkpoint: u64) -> Result<()> {
        self.listeners.borrow().iter().try_for_each(|listener| listener.borrow_mut().completed(checkpoint))
    }

    /// The task has ended: its listeners hand in what is left, for `barrier` or for none yet.
    pub fn last_snapshot(&self, barrier: &Barrier) -> Result<()> {
        self.listeners.borrow().iter().try_for_each(|listener| listener.borrow_mut().last_snapshot(barrier))
    }

    /// Whether a listener waits for a snapshot to complete.
    pub fn has_uncommitted(&self) -> bool {
        self.listeners.borrow().iter().any(|listener| listener.borrow().has_uncommitted())
    }
}

//! The typed tables of one operator's keyed states, by key slot.

use std::rc::Rc;

use flott_schema::{Error, Result};

use super::columns::{Cell, StateTable};
use super::epochs::Epochs;
use crate::snapshot::{StateBackend, TableId, TableSpec};

/// Number of key slots looked at for expired state after each batch, per table.
const CLEANED_PER_BATCH: usize = 64;

/// How the names of other tables and lists of operators begin, see `keyed_snapshot`, [`crate::operators::list_state`] and
/// [`crate::operators::broadcast`].
const RESERVED: [&str; 4] = ["event-timers", "processing-timers", "operator.", "broadcast."];

/// All keyed states of an operator. A key has a slot, a small number; each state is a column indexed by it.
#[derive(Default)]
pub struct StateStore {
    pub(super) tables: Vec<Column>,
    pub(super) registry: Option<Registry>,
    pub(super) epochs: Epochs,
    /// Per slot: states and timers that exist for the key. A key without any is forgotten.
    pub(super) references: Vec<u32>,
    /// The slot of the current key.
    slot: usize,
    /// Processing time, for time to live.
    now_ms: i64,
    /// Whether the backend drops rows by that time.
    rows_expire: bool,
    cursor: usize,
}

/// A registered state.
pub(super) struct Column {
    name: String,
    pub table: Box<dyn StateTable>,
    /// In snapshots.
    pub id: Option<TableId>,
}

impl Column {
    /// Finds the frozen cells among `from..until`, no more than `limit` of which there are rows, and marks them as copied. Gives the slot
    /// to go on with.
    pub fn take_frozen(
        &mut self,
        epochs: Epochs,
        from: usize,
        until: usize,
        limit: usize,
        slots: &mut Vec<u32>,
    ) -> usize {
        let mut slot = from;
        loop {
            let marks = &self.table.marks()[slot..until];
            let Some(clean) = marks.iter().position(|mark| epochs.is_frozen(*mark)) else { return until };
            slot += clean;
            if slots.len() == limit {
                return slot;
            }
            let empty = self.table.is_empty(slot);
            let mark = &mut self.table.marks()[slot];
            if !empty {
                epochs.copied(mark);
                slots.push(slot as u32);
            } else {
                if epochs.is_stored(*mark) {
                    slots.push(slot as u32);
                }
                epochs.told_gone(mark);
            }
            slot += 1;
        }
    }

    /// Those of these slots of which the backend has not the right row.
    pub fn dirty(&mut self, epochs: Epochs, slots: &[u32]) -> Vec<u32> {
        let dirty = slots.iter().copied().filter(|slot| {
            let mark = self.table.marks()[*slot as usize];
            !epochs.is_clean(mark) && (epochs.is_stored(mark) || !self.table.is_empty(*slot as usize))
        });
        dirty.collect()
    }
}

/// Where states are registered for snapshots.
pub(super) struct Registry {
    pub state: Rc<dyn StateBackend>,
    /// In front of the name of each state.
    pub scope: &'static str,
    pub key_type: String,
}

impl StateStore {
    /// Registers a state; names are unique within an operator.
    pub(super) fn register(&mut self, name: &str, table: Box<dyn StateTable>) -> Result<u32> {
        if self.tables.iter().any(|other| other.name == name) {
            return Err(Error::user(format!(
                "state '{name}' is registered twice in one operator; give each state its own name"
            )));
        }
        if RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
            return Err(Error::user(format!(
                "state '{name}' has a name of which the first part is taken; begin it with another word than {}",
                RESERVED.join(", ")
            )));
        }
        let spec = |registry: &Registry| TableSpec {
            name: format!("{}{name}", registry.scope),
            holds: table.holds(),
            key_type: registry.key_type.clone(),
            value_type: table.value_type(),
        };
        let id = match &self.registry {
            Some(registry) => {
                let id = registry.state.table(spec(registry))?;
                if let Some(life_ms) = table.row_life_ms() {
                    registry.state.rows_expire(id, life_ms);
                    self.rows_expire = true;
                }
                Some(id)
            }
            None => None,
        };
        let mut column = Column { name: name.to_string(), table, id };
        column.table.grow(self.references.len(), self.epochs);
        self.tables.push(column);
        Ok(self.tables.len() as u32 - 1)
    }

    /// The typed table of a handle, with the current slot, its references, and the time.
    #[inline]
    pub(super) fn table<T: 'static>(&mut self, index: u32) -> Cell<'_, T> {
        let column = &mut self.tables[index as usize];
        Cell {
            table: column
                .table
                .as_any()
                .downcast_mut()
                .expect("a handle belongs to the table it was registered with"),
            slot: self.slot,
            references: &mut self.references[self.slot],
            now_ms: self.now_ms,
            epochs: self.epochs,
        }
    }

    /// Processing time.
    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Makes `slot` the current key's.
    #[inline]
    pub(super) fn enter(&mut self, slot: usize) {
        self.slot = slot;
    }

    pub(super) fn set_now_ms(&mut self, now_ms: i64) {
        let registry = self.registry.as_ref().filter(|_| self.rows_expire && now_ms != self.now_ms);
        if let Some(registry) = registry {
            registry.state.set_time(now_ms);
        }
        self.now_ms = now_ms;
    }

    pub(super) fn grow(&mut self, slots: usize) {
        self.references.resize(slots, 0);
        for column in &mut self.tables {
            column.table.grow(slots, self.epochs);
        }
    }

    /// Room for slots.
    pub(super) fn slots(&self) -> usize {
        self.references.len()
    }

    #[inline]
    pub(super) fn references(&mut self, slot: usize) -> &mut u32 {
        &mut self.references[slot]
    }

    /// Fills an empty cell with what the backend has.
    pub(super) fn restore(&mut self, column: usize, slot: usize, stored: &[u8], now_ms: i64) -> Result<()> {
        let table = &mut self.tables[column].table;
        let begins = table.restore(slot, stored, now_ms)?;
        self.references[slot] += u32::from(!table.is_empty(slot));
        let mark = &mut table.marks()[slot];
        *mark = self.epochs.stored();
        if begins {
            // To be told, lest the life of the state begins again with the next start.
            self.epochs.dirty(mark);
        }
        Ok(())
    }

    /// Whether the backend still has to be told of a key without states that it has none.
    pub(super) fn is_stored(&mut self, slot: usize) -> bool {
        let epochs = self.epochs;
        epochs.wants_changes()
            && self.tables.iter_mut().any(|column| epochs.is_stored(column.table.marks()[slot]))
    }

    /// Whether the key of a slot has timers: what refers to it and is no state.
    pub(super) fn has_timers(&self, slot: usize) -> bool {
        let states = self.tables.iter().filter(|column| !column.table.is_empty(slot)).count();
        self.references[slot] as usize > states
    }

    /// Empties the cells of a slot whose key is forgotten.
    pub(super) fn forget(&mut self, slot: usize) {
        self.references[slot] = 0;
        for column in &mut self.tables {
            column.table.forget(slot);
        }
    }

    /// The slot is nobody's from now on.
    pub(super) fn free(&mut self, slot: usize) {
        if !self.epochs.is_tracked() {
            return;
        }
        for column in &mut self.tables {
            self.epochs.blank(&mut column.table.marks()[slot]);
        }
    }

    /// Looks at a few slots for expired state; gives those that have nothing left.
    pub(super) fn clean_some(&mut self, emptied: &mut Vec<usize>) {
        let slots = self.references.len();
        if slots == 0 || !self.tables.iter().any(|column| column.table.has_ttl()) {
            return;
        }
        for _ in 0..CLEANED_PER_BATCH.min(slots) {
            self.cursor = (self.cursor + 1) % slots;
            if self.references[self.cursor] == 0 {
                continue;
            }
            for column in &mut self.tables {
                let gone = column.table.clean(self.cursor, self.now_ms, self.epochs);
                self.references[self.cursor] -= gone;
            }
            if self.references[self.cursor] == 0 {
                emptied.push(self.cursor);
            }
        }
    }
}

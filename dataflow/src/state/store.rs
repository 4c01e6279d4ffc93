//! The typed tables of one operator's keyed states, by key slot.

use std::any::Any;

use flott_schema::{Error, Result};

use super::ttl::StateTtl;

/// Number of key slots looked at for expired state after each batch, per table.
const CLEANED_PER_BATCH: usize = 64;

/// All keyed states of an operator. A key has a slot, a small number; each state is a column indexed by it.
#[derive(Default)]
pub struct StateStore {
    tables: Vec<(String, Box<dyn StateTable>)>,
    /// Per slot: states and timers that exist for the key. A key without any is forgotten.
    references: Vec<u32>,
    /// The slot of the current key.
    slot: usize,
    /// Processing time, for time to live.
    now_ms: i64,
    cursor: usize,
}

/// A column of states.
pub(super) trait StateTable: Any {
    /// Makes room for slots below `slots`.
    fn grow(&mut self, slots: usize);
    /// Drops what has expired in `slot`; returns how many references are gone.
    fn clean(&mut self, slot: usize, now_ms: i64) -> u32;
    fn has_ttl(&self) -> bool;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl StateStore {
    /// Registers a state; names are unique within an operator.
    pub(super) fn register(&mut self, name: &str, table: Box<dyn StateTable>) -> Result<u32> {
        if self.tables.iter().any(|(other, _)| other == name) {
            return Err(Error::user(format!(
                "state '{name}' is registered twice in one operator; give each state its own name"
            )));
        }
        self.tables.push((name.to_string(), table));
        let slots = self.references.len();
        if let Some((_, table)) = self.tables.last_mut() {
            table.grow(slots);
        }
        Ok(self.tables.len() as u32 - 1)
    }

    /// The typed table of a handle, with the current slot, its references, and the time.
    #[inline]
    pub(super) fn table<T: 'static>(&mut self, index: u32) -> Cell<'_, T> {
        let (_, table) = &mut self.tables[index as usize];
        Cell {
            table: table
                .as_any()
                .downcast_mut()
                .expect("a handle belongs to the table it was registered with"),
            slot: self.slot,
            references: &mut self.references[self.slot],
            now_ms: self.now_ms,
        }
    }

    /// Makes `slot` the current key's.
    #[inline]
    pub(super) fn enter(&mut self, slot: usize) {
        self.slot = slot;
    }

    pub(super) fn set_now_ms(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    pub(super) fn grow(&mut self, slots: usize) {
        self.references.resize(slots, 0);
        for (_, table) in &mut self.tables {
            table.grow(slots);
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

    /// Looks at a few slots for expired state; gives those that have nothing left.
    pub(super) fn clean_some(&mut self, emptied: &mut Vec<usize>) {
        let slots = self.references.len();
        if slots == 0 || !self.tables.iter().any(|(_, table)| table.has_ttl()) {
            return;
        }
        for _ in 0..CLEANED_PER_BATCH.min(slots) {
            self.cursor = (self.cursor + 1) % slots;
            if self.references[self.cursor] == 0 {
                continue;
            }
            for (_, table) in &mut self.tables {
                self.references[self.cursor] -= table.clean(self.cursor, self.now_ms);
            }
            if self.references[self.cursor] == 0 {
                emptied.push(self.cursor);
            }
        }
    }
}

/// A typed table at the current slot.
pub(super) struct Cell<'a, T> {
    pub table: &'a mut T,
    pub slot: usize,
    pub references: &'a mut u32,
    pub now_ms: i64,
}

/// One value a key.
pub(super) struct ValueTable<V> {
    cells: Vec<Option<V>>,
    stamps: Vec<i64>,
    ttl: Option<StateTtl>,
}

impl<V: 'static> ValueTable<V> {
    pub fn new(ttl: Option<StateTtl>) -> Self {
        ValueTable { cells: Vec::new(), stamps: Vec::new(), ttl }
    }
}

impl<'a, V: 'static> Cell<'a, ValueTable<V>> {
    #[inline]
    pub fn get(self) -> Option<&'a mut V> {
        if let Some(ttl) = self.table.ttl {
            let stamp = &mut self.table.stamps[self.slot];
            if ttl.hides(*stamp, self.now_ms) {
                *self.references -= u32::from(self.table.cells[self.slot].take().is_some());
                return None;
            }
            if ttl.renews_on_read() {
                *stamp = self.now_ms;
            }
        }
        self.table.cells[self.slot].as_mut()
    }

    #[inline]
    pub fn set(self, value: V) {
        if self.table.ttl.is_some() {
            self.table.stamps[self.slot] = self.now_ms;
        }
        let old = self.table.cells[self.slot].replace(value);
        *self.references += u32::from(old.is_none());
    }

    /// Renews the life after a change in place.
    #[inline]
    pub fn touch(self) {
        if self.table.ttl.is_some() {
            self.table.stamps[self.slot] = self.now_ms;
        }
    }

    pub fn take(self) -> Option<V> {
        let expired = self.table.ttl.is_some_and(|ttl| ttl.hides(self.table.stamps[self.slot], self.now_ms));
        let value = self.table.cells[self.slot].take();
        *self.references -= u32::from(value.is_some());
        value.filter(|_| !expired)
    }
}

impl<V: 'static> StateTable for ValueTable<V> {
    fn grow(&mut self, slots: usize) {
        self.cells.resize_with(slots, || None);
        if self.ttl.is_some() {
            self.stamps.resize(slots, 0);
        }
    }

    fn clean(&mut self, slot: usize, now_ms: i64) -> u32 {
        match self.ttl {
            Some(ttl) if ttl.is_expired(self.stamps[slot], now_ms) => {
                u32::from(self.cells[slot].take().is_some())
            }
            _ => 0,
        }
    }

    fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A container (list, map) a key, whose entries expire one by one.
pub(super) struct ContainerTable<C> {
    pub cells: Vec<C>,
    pub ttl: Option<StateTtl>,
}

/// What a container must be able to do.
pub(super) trait Container: Default + 'static {
    fn is_empty(&self) -> bool;
    fn drop_expired(&mut self, ttl: &StateTtl, now_ms: i64);
}

impl<'a, C: Container> Cell<'a, ContainerTable<C>> {
    /// Changes the container, keeping count of whether it holds anything.
    pub fn change<R>(self, change: impl FnOnce(&mut C) -> R) -> R {
        let cell = &mut self.table.cells[self.slot];
        let before = !cell.is_empty();
        let result = change(cell);
        let after = !cell.is_empty();
        *self.references = *self.references + u32::from(after) - u32::from(before);
        result
    }

    /// The container, after what must not be seen was dropped.
    pub fn visible(self) -> &'a mut C {
        if let Some(ttl) = self.table.ttl
            && ttl.visibility == super::TtlVisibility::NeverReturnExpired
        {
            let cell = &mut self.table.cells[self.slot];
            let before = !cell.is_empty();
            cell.drop_expired(&ttl, self.now_ms);
            *self.references -= u32::from(before && cell.is_empty());
        }
        &mut self.table.cells[self.slot]
    }
}

impl<C: Container> StateTable for ContainerTable<C> {
    fn grow(&mut self, slots: usize) {
        self.cells.resize_with(slots, C::default);
    }

    fn clean(&mut self, slot: usize, now_ms: i64) -> u32 {
        let Some(ttl) = &self.ttl else { return 0 };
        let cell = &mut self.cells[slot];
        if cell.is_empty() {
            return 0;
        }
        cell.drop_expired(ttl, now_ms);
        u32::from(cell.is_empty())
    }

    fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

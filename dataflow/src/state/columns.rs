//! The columns of keyed states: a cell for each key slot, with the marks that snapshots need.
//!
//! Stored forms of cells, in postcard's format: a value as `(value, stamp)`, a list as a sequence of those, a map as a sequence of
//! `(key, (value, stamp))`. A stamp is when the entry was last renewed, epoch milliseconds; 0 without time to live, and what has stamp 0
//! begins its life when it is restored to a state that has one.

use std::any::Any;

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::Result;

use super::epochs::Epochs;
use super::ttl::{StateTtl, TtlVisibility};
use crate::batch::Record;
use crate::codec::{decode_value, encode_value};
use crate::types::Shape;

/// A column of states without its type.
pub(super) trait StateTable: Any {
    /// Makes room for slots below `slots`.
    fn grow(&mut self, slots: usize, epochs: Epochs);
    /// Drops what has expired in `slot`; returns how many references are gone.
    fn clean(&mut self, slot: usize, now_ms: i64, epochs: Epochs) -> u32;
    fn has_ttl(&self) -> bool;
    /// How long rows live behind the stamp with which they end, milliseconds, if each has one.
    fn row_life_ms(&self) -> Option<i64> {
        None
    }
    fn as_any(&mut self) -> &mut dyn Any;

    /// For people: what a cell holds.
    fn holds(&self) -> &'static str;
    /// Text of the type of a cell, stamps included: of what is stored, since it is rewritten by this text when the type has changed.
    fn value_type(&self) -> String;
    fn is_empty(&self, slot: usize) -> bool;
    /// The marks of all slots; none if nothing is tracked.
    fn marks(&mut self) -> &mut [u8];
    /// Copies cells, empty ones as well.
    fn copy(&self, slots: &[u32]) -> Box<dyn FrozenColumn>;
    /// Takes what was copied because it was written while frozen; none if nothing was.
    fn take_copied(&mut self, slots: &mut Vec<u32>) -> Option<Box<dyn FrozenColumn>>;
    /// Fills an empty cell. Whether its life begins now, and not when the backend says.
    fn restore(&mut self, slot: usize, stored: &[u8], now_ms: i64) -> Result<bool>;
    /// Empties a cell of which nothing has to be told any more.
    fn forget(&mut self, slot: usize);
    /// Bytes of a cell itself.
    fn cell_bytes(&self) -> usize;
    /// Bytes of a cell's stored form, 0 for an empty one.
    fn stored_bytes(&self, slot: usize, scratch: &mut Vec<u8>) -> usize;
}

/// Cells that were copied out of a column. They may cross threads.
pub(super) trait FrozenColumn: Send {
    /// Appends the stored form of a cell; `false` if it is empty.
    fn encode(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool>;
}

impl<E: Serialize + Send> FrozenColumn for Vec<Option<E>> {
    fn encode(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool> {
        match &self[index] {
            Some(cell) => encode_value(cell, bytes).map(|()| true),
            None => Ok(false),
        }
    }
}

/// The marks of a column, and what was copied because it was written while frozen.
pub(super) struct Marks<E> {
    marks: Vec<u8>,
    copied: Vec<(u32, Option<E>)>,
}

impl<E> Default for Marks<E> {
    fn default() -> Self {
        Marks { marks: Vec::new(), copied: Vec::new() }
    }
}

impl<E> Marks<E> {
    fn grow(&mut self, slots: usize, epochs: Epochs) {
        if epochs.is_tracked() {
            self.marks.resize(slots, epochs.unused());
        }
    }

    /// A cell is about to be written; `copy` gives what it holds.
    #[inline]
    fn write(&mut self, slot: usize, epochs: Epochs, copy: impl FnOnce() -> Option<E>) {
        if !epochs.is_tracked() {
            return;
        }
        let mark = &mut self.marks[slot];
        if epochs.is_frozen(*mark) {
            let cell = copy();
            if cell.is_some() {
                epochs.copied(mark);
                self.copied.push((slot as u32, cell));
            } else {
                if epochs.is_stored(*mark) {
                    self.copied.push((slot as u32, None));
                }
                epochs.told_gone(mark);
            }
        }
        epochs.dirty(mark);
    }

    fn take_copied(&mut self, slots: &mut Vec<u32>) -> Option<Box<dyn FrozenColumn>>
    where
        E: Serialize + Send + 'static,
    {
        if self.copied.is_empty() {
            return None;
        }
        let (taken, cells): (Vec<u32>, Vec<Option<E>>) = self.copied.drain(..).unzip();
        *slots = taken;
        Some(Box::new(cells))
    }
}

/// A typed table at the current slot.
pub(super) struct Cell<'a, T> {
    pub table: &'a mut T,
    pub slot: usize,
    pub references: &'a mut u32,
    pub now_ms: i64,
    pub epochs: Epochs,
}

/// One value a key.
pub(super) struct ValueTable<V> {
    cells: Vec<Option<V>>,
    stamps: Vec<i64>,
    ttl: Option<StateTtl>,
    marks: Marks<(V, i64)>,
}

impl<V: Record> ValueTable<V> {
    pub fn new(ttl: Option<StateTtl>) -> Self {
        ValueTable { cells: Vec::new(), stamps: Vec::new(), ttl, marks: Marks::default() }
    }

    fn stored(&self, slot: usize) -> Option<(V, i64)> {
        let stamp = self.stamps.get(slot).copied().unwrap_or_default();
        self.cells[slot].clone().map(|value| (value, stamp))
    }

    #[inline]
    fn write(&mut self, slot: usize, epochs: Epochs) {
        let ValueTable { cells, stamps, marks, .. } = self;
        marks.write(slot, epochs, || {
            let stamp = stamps.get(slot).copied().unwrap_or_default();
            cells[slot].clone().map(|value| (value, stamp))
        });
    }

    fn remove(&mut self, slot: usize, epochs: Epochs) -> Option<V> {
        if self.cells[slot].is_some() {
            self.write(slot, epochs);
        }
        self.cells[slot].take()
    }
}

impl<'a, V: Record> Cell<'a, ValueTable<V>> {
    /// The value, for reading.
    #[inline]
    pub fn get(self) -> Option<&'a V> {
        if let Some(ttl) = self.table.ttl {
            let stamp = self.table.stamps[self.slot];
            if ttl.hides(stamp, self.now_ms) {
                *self.references -= u32::from(self.table.remove(self.slot, self.epochs).is_some());
                return None;
            }
            if ttl.renews_on_read() && stamp != self.now_ms && self.table.cells[self.slot].is_some() {
                self.table.write(self.slot, self.epochs);
                self.table.stamps[self.slot] = self.now_ms;
            }
        }
        self.table.cells[self.slot].as_ref()
    }

    /// The value, which the caller changes in place; that renews its life.
    #[inline]
    pub fn get_mut(self) -> Option<&'a mut V> {
        if let Some(ttl) = self.table.ttl {
            if ttl.hides(self.table.stamps[self.slot], self.now_ms) {
                *self.references -= u32::from(self.table.remove(self.slot, self.epochs).is_some());
                return None;
            }
            if self.table.cells[self.slot].is_some() {
                self.table.write(self.slot, self.epochs);
                self.table.stamps[self.slot] = self.now_ms;
            }
        } else if self.table.cells[self.slot].is_some() {
            self.table.write(self.slot, self.epochs);
        }
        self.table.cells[self.slot].as_mut()
    }

    #[inline]
    pub fn set(self, value: V) {
        self.table.write(self.slot, self.epochs);
        if self.table.ttl.is_some() {
            self.table.stamps[self.slot] = self.now_ms;
        }
        let old = self.table.cells[self.slot].replace(value);
        *self.references += u32::from(old.is_none());
    }

    pub fn take(self) -> Option<V> {
        let expired = self.table.ttl.is_some_and(|ttl| ttl.hides(self.table.stamps[self.slot], self.now_ms));
        let value = self.table.remove(self.slot, self.epochs);
        *self.references -= u32::from(value.is_some());
        value.filter(|_| !expired)
    }
}

impl<V: Record> StateTable for ValueTable<V> {
    fn grow(&mut self, slots: usize, epochs: Epochs) {
        self.cells.resize_with(slots, || None);
        self.marks.grow(slots, epochs);
        if self.ttl.is_some() {
            self.stamps.resize(slots, 0);
        }
    }

    fn clean(&mut self, slot: usize, now_ms: i64, epochs: Epochs) -> u32 {
        match self.ttl {
            Some(ttl) if ttl.is_expired(self.stamps[slot], now_ms) => {
                u32::from(self.remove(slot, epochs).is_some())
            }
            _ => 0,
        }
    }

    fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    fn row_life_ms(&self) -> Option<i64> {
        self.ttl.map(|ttl| ttl.duration_ms)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn holds(&self) -> &'static str {
        "value"
    }

    fn value_type(&self) -> String {
        Shape::of::<(V, i64)>().canonical_text()
    }

    fn is_empty(&self, slot: usize) -> bool {
        self.cells[slot].is_none()
    }

    fn marks(&mut self) -> &mut [u8] {
        &mut self.marks.marks
    }

    fn copy(&self, slots: &[u32]) -> Box<dyn FrozenColumn> {
        let cells: Vec<Option<(V, i64)>> = slots.iter().map(|slot| self.stored(*slot as usize)).collect();
        Box::new(cells)
    }

    fn take_copied(&mut self, slots: &mut Vec<u32>) -> Option<Box<dyn FrozenColumn>> {
        self.marks.take_copied(slots)
    }

    fn restore(&mut self, slot: usize, stored: &[u8], now_ms: i64) -> Result<bool> {
        let (value, stamp): (V, i64) = decode_value(stored)?;
        self.cells[slot] = Some(value);
        if self.ttl.is_none() {
            return Ok(false);
        }
        self.stamps[slot] = if stamp == 0 { now_ms } else { stamp };
        Ok(stamp == 0)
    }

    fn forget(&mut self, slot: usize) {
        self.cells[slot] = None;
    }

    fn cell_bytes(&self) -> usize {
        size_of::<Option<V>>() + size_of::<i64>() * usize::from(self.ttl.is_some()) + 1
    }

    fn stored_bytes(&self, slot: usize, scratch: &mut Vec<u8>) -> usize {
        if std::mem::needs_drop::<V>() { bytes_of(self.cells[slot].as_ref(), scratch) } else { 0 }
    }
}

fn bytes_of<E: Serialize>(cell: Option<&E>, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    match cell.map(|cell| encode_value(cell, scratch)) {
        Some(Ok(())) => scratch.len(),
        // What cannot be encoded is reported when it has to be.
        Some(Err(_)) | None => 0,
    }
}

/// A container (list, map) a key, whose entries expire one by one.
pub(super) struct ContainerTable<C> {
    cells: Vec<C>,
    ttl: Option<StateTtl>,
    marks: Marks<C>,
}

/// What a container must be able to do.
pub(super) trait Container: Default + Clone + Serialize + DeserializeOwned + Send + 'static {
    /// For people.
    const HOLDS: &'static str;
    /// Text of the type of its stored form.
    fn type_text() -> String;
    fn is_empty(&self) -> bool;
    fn has_expired(&self, ttl: &StateTtl, now_ms: i64) -> bool;
    fn drop_expired(&mut self, ttl: &StateTtl, now_ms: i64);
    /// Gives all stamps.
    fn for_each_stamp(&mut self, visit: impl FnMut(&mut i64));
}

impl<C: Container> ContainerTable<C> {
    pub fn new(ttl: Option<StateTtl>) -> Self {
        ContainerTable { cells: Vec::new(), ttl, marks: Marks::default() }
    }

    fn write(&mut self, slot: usize, epochs: Epochs) {
        let cell = &self.cells[slot];
        self.marks.write(slot, epochs, || (!cell.is_empty()).then(|| cell.clone()));
    }

    /// Drops what has expired; whether the cell is empty by that.
    fn expire(&mut self, slot: usize, ttl: &StateTtl, now_ms: i64, epochs: Epochs) -> bool {
        if !self.cells[slot].has_expired(ttl, now_ms) {
            return false;
        }
        self.write(slot, epochs);
        self.cells[slot].drop_expired(ttl, now_ms);
        self.cells[slot].is_empty()
    }
}

impl<'a, C: Container> Cell<'a, ContainerTable<C>> {
    /// The time to live of its entries.
    pub fn ttl(&self) -> Option<StateTtl> {
        self.table.ttl
    }

    /// The stamp of an entry that is made or renewed now.
    pub fn stamp(&self) -> i64 {
        if self.table.ttl.is_some() { self.now_ms } else { 0 }
    }

    /// The container with all that is in it, for reading.
    pub fn peek(self) -> &'a C {
        &self.table.cells[self.slot]
    }

    /// Whether there is nothing, not even what has expired.
    pub fn is_empty(&self) -> bool {
        self.table.cells[self.slot].is_empty()
    }

    /// Changes the container, keeping count of whether it holds anything.
    pub fn change<R>(self, change: impl FnOnce(&mut C) -> R) -> R {
        self.table.write(self.slot, self.epochs);
        let cell = &mut self.table.cells[self.slot];
        let before = !cell.is_empty();
        let result = change(cell);
        let after = !cell.is_empty();
        *self.references = *self.references + u32::from(after) - u32::from(before);
        result
    }

    /// The container, after what must not be seen was dropped, for reading.
    pub fn visible(self) -> &'a mut C {
        if let Some(ttl) = self.table.ttl
            && ttl.visibility == TtlVisibility::NeverReturnExpired
        {
            *self.references -= u32::from(self.table.expire(self.slot, &ttl, self.now_ms, self.epochs));
        }
        &mut self.table.cells[self.slot]
    }

    /// The same, for reading that renews lives.
    pub fn visible_renewed(self) -> &'a mut C {
        if self.table.ttl.is_some_and(|ttl| ttl.renews_on_read()) && !self.is_empty() {
            self.table.write(self.slot, self.epochs);
        }
        self.visible()
    }
}

impl<C: Container> StateTable for ContainerTable<C> {
    fn grow(&mut self, slots: usize, epochs: Epochs) {
        self.cells.resize_with(slots, C::default);
        self.marks.grow(slots, epochs);
    }

    fn clean(&mut self, slot: usize, now_ms: i64, epochs: Epochs) -> u32 {
        let Some(ttl) = self.ttl else { return 0 };
        u32::from(self.expire(slot, &ttl, now_ms, epochs))
    }

    fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn holds(&self) -> &'static str {
        C::HOLDS
    }

    fn value_type(&self) -> String {
        C::type_text()
    }

    fn is_empty(&self, slot: usize) -> bool {
        self.cells[slot].is_empty()
    }

    fn marks(&mut self) -> &mut [u8] {
        &mut self.marks.marks
    }

    fn copy(&self, slots: &[u32]) -> Box<dyn FrozenColumn> {
        let cells =
            slots.iter().map(|slot| Some(&self.cells[*slot as usize]).filter(|cell| !cell.is_empty()));
        Box::new(cells.map(|cell| cell.cloned()).collect::<Vec<Option<C>>>())
    }

    fn take_copied(&mut self, slots: &mut Vec<u32>) -> Option<Box<dyn FrozenColumn>> {
        self.marks.take_copied(slots)
    }

    fn restore(&mut self, slot: usize, stored: &[u8], now_ms: i64) -> Result<bool> {
        let cell: &mut C = &mut self.cells[slot];
        *cell = decode_value(stored)?;
        let has_ttl = self.ttl.is_some();
        let mut begins = false;
        cell.for_each_stamp(|stamp| {
            if !has_ttl {
                *stamp = 0;
            } else if *stamp == 0 {
                *stamp = now_ms;
                begins = true;
            }
        });
        Ok(begins)
    }

    fn forget(&mut self, slot: usize) {
        self.cells[slot] = C::default();
    }

    fn cell_bytes(&self) -> usize {
        size_of::<C>() + 1
    }

    fn stored_bytes(&self, slot: usize, scratch: &mut Vec<u8>) -> usize {
        bytes_of(Some(&self.cells[slot]).filter(|cell| !cell.is_empty()), scratch)
    }
}

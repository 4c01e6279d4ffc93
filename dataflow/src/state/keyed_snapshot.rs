//! Keys, states and timers of an operator in snapshots.
//!
//! Each state is a table: the key of a row is the key in postcard's format, values are described in `columns`. Timers are the tables
//! `event-timers` and `processing-timers`: the key of a row is the time, ordered (see `rows`), and the key; its value is empty.

use std::rc::Rc;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use super::columns::FrozenColumn;
use super::epochs::{Epochs, Tracking};
use super::keyed::KeyedState;
use super::rows::{TypedRows, Written, group_of, push_ordered, take_ordered};
use super::store::Registry;
use super::timers::{TimeDomain, Timers};
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::key::{Key, stable_hash};
use crate::snapshot::{FrozenRows, FrozenSink, RowSink, StateBackend, TableId, TableSpec};
use crate::types::Shape;

/// Frozen rows copied in one call of [`KeyedState::drain_some`], and for each record of the batch before it. Few in tests, so that their
/// snapshots are met half done.
const DRAINED_A_CALL: usize = if cfg!(test) { 5 } else { 2048 };
const DRAINED_A_RECORD: usize = if cfg!(test) { 0 } else { 4 };
/// Marks looked at in one call, for each row that may be copied.
const LOOKED_AT_A_ROW: usize = 32;

/// How keys are spread over key groups.
pub(super) struct Groups<K> {
    hash: fn(&K) -> u64,
    max_parallelism: u32,
}

impl<K> Clone for Groups<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Groups<K> {}

impl<K: Key> Groups<K> {
    /// The key group of a key.
    pub fn of(&self, key: &K) -> u16 {
        group_of((self.hash)(key), self.max_parallelism)
    }
}

/// A timer and its key.
pub(super) type KeyTimer<K> = (i64, K);

/// Where keyed state is kept beyond memory and failure.
pub(super) struct Backing<K> {
    pub state: Rc<dyn StateBackend>,
    pub groups: Groups<K>,
    /// Those of the task.
    pub key_groups: KeyGroupRange,
    pub timers: [TimerTable<K>; 2],
    taking: Option<Taking>,
    /// Processing time at which the operator was opened.
    opened_ms: i64,
}

/// The timers of one clock, in snapshots.
pub(super) struct TimerTable<K> {
    pub table: TableId,
    sink: Option<Box<dyn FrozenSink>>,
    /// Gone since the last barrier, and before it.
    pub gone: Vec<KeyTimer<K>>,
    frozen_gone: Vec<KeyTimer<K>>,
    copied: Vec<KeyTimer<K>>,
}

/// The snapshot at hand: the columns from `column` on are still to be handed in.
struct Taking {
    sinks: Vec<Option<Box<dyn FrozenSink>>>,
    column: usize,
    slot: usize,
    /// Slots at the barrier.
    slots: usize,
}

/// Rows of a column with their keys.
struct ColumnRows<K> {
    keys: Vec<K>,
    column: Box<dyn FrozenColumn>,
    groups: Groups<K>,
}

impl<K: Key> FrozenRows for ColumnRows<K> {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn encode(self: Box<Self>, rows: &mut dyn RowSink) -> Result<()> {
        let (mut key_bytes, mut value) = (Vec::new(), Vec::new());
        for (index, key) in self.keys.iter().enumerate() {
            key_bytes.clear();
            value.clear();
            encode_value(key, &mut key_bytes)?;
            let filled = self.column.encode(index, &mut value)?;
            rows.row(self.groups.of(key), &key_bytes, filled.then_some(&value))?;
        }
        Ok(())
    }
}

pub(super) fn timer_rows<K: Key>(
    timers: Vec<KeyTimer<K>>,
    written: Written,
    groups: Groups<K>,
) -> Box<dyn FrozenRows> {
    TypedRows::boxed(timers, move |(timestamp_ms, key): &KeyTimer<K>, bytes, _value| {
        push_ordered(*timestamp_ms, bytes);
        encode_value(key, bytes)?;
        Ok((groups.of(key), written))
    })
}

impl<K: Key> KeyedState<K> {
    /// Has the state go into snapshots, if the operator's does. To be called before states are registered; [`KeyedState::restore`] when they
    /// are. `scope` stands in front of the names of states and timers, for operators with several of these.
    pub fn attach(&mut self, ctx: &OperatorContext, scope: &'static str) -> Result<()> {
        self.attach_by(ctx, scope, stable_hash)
    }

    /// The same, for keys that are more than the key of the stream: `hash` gives the stable hash of that, which decides the key group.
    pub fn attach_by(
        &mut self,
        ctx: &OperatorContext,
        scope: &'static str,
        hash: fn(&K) -> u64,
    ) -> Result<()> {
        let Some(state) = ctx.state.clone() else { return Ok(()) };
        let tracking = Tracking::of(Some(&*state));
        let key_type = Shape::of::<K>().canonical_text();
        let timers = |name: &str| -> Result<TimerTable<K>> {
            let table = state.table(TableSpec {
                name: format!("{scope}{name}"),
                holds: "timers",
                key_type: key_type.clone(),
                value_type: Shape::of::<()>().canonical_text(),
            })?;
            let (gone, frozen_gone, copied) = Default::default();
            Ok(TimerTable { table, sink: None, gone, frozen_gone, copied })
        };
        let timers = [timers("event-timers")?, timers("processing-timers")?];
        self.store.epochs = Epochs::new(tracking);
        self.timers = [Timers::new(tracking), Timers::new(tracking)];
        self.store.registry = Some(Registry { state: state.clone(), scope, key_type });
        let groups = Groups { hash, max_parallelism: ctx.task.max_parallelism };
        let (key_groups, opened_ms) = (ctx.task.key_groups(), ctx.task.now_ms());
        self.backing = Some(Backing { state, groups, key_groups, timers, taking: None, opened_ms });
        Ok(())
    }

    /// Gets restored states and timers back.
    pub fn restore(&mut self) -> Result<()> {
        let Some(backing) = self.backing.take() else { return Ok(()) };
        if let Some(fetching) = &mut self.fetching {
            fetching.partial = backing.state.is_restored();
        }
        let columns: Vec<TableId> = self.store.tables.iter().filter_map(|column| column.id).collect();
        if self.fetching.is_none() {
            for (column, table) in columns.into_iter().enumerate() {
                backing.state.load(table, &mut |key, value| {
                    let key: K = decode_value(key)?;
                    let slot = self.find_or_add(stable_hash(&key), &key) as usize;
                    self.store.restore(column, slot, value, backing.opened_ms)
                })?;
            }
        }
        if self.fetching.is_some() {
            let is_restored = backing.state.is_restored();
            self.backing = Some(backing);
            return if is_restored { self.find_first_timers() } else { Ok(()) };
        }
        for domain in [TimeDomain::Event, TimeDomain::Processing] {
            backing.state.load(backing.timers[domain as usize].table, &mut |mut key, _| {
                let timestamp_ms = take_ordered(&mut key)?;
                let key: K = decode_value(key)?;
                let slot = self.find_or_add(stable_hash(&key), &key);
                if self.timers[domain as usize].restore(timestamp_ms, slot) {
                    *self.store.references(slot as usize) += 1;
                }
                Ok(())
            })?;
        }
        self.backing = Some(backing);
        Ok(())
    }

    /// A barrier: what there is now belongs to the snapshot. Rows of an earlier one are handed in first.
    pub fn freeze(&mut self) {
        while !self.drain(usize::MAX) {}
        self.resolve_timers();
        let Some(backing) = &mut self.backing else { return };
        self.store.epochs.switch();
        for (timers, table) in self.timers.iter_mut().zip(&mut backing.timers) {
            timers.rows().freeze();
            table.frozen_gone = std::mem::take(&mut table.gone);
            table.sink = Some(backing.state.freeze(table.table));
        }
        let ids = self.store.tables.iter().filter_map(|column| column.id);
        let sinks = ids.map(|id| Some(backing.state.freeze(id))).collect();
        backing.taking = Some(Taking { sinks, column: 0, slot: 0, slots: self.store.slots() });
    }

    /// Whether rows of a snapshot are still to be handed in.
    pub fn is_draining(&self) -> bool {
        self.backing.as_ref().is_some_and(|backing| backing.taking.is_some())
    }

    /// Hands in some rows of the snapshot at hand, if there is one: more after a batch of many records, so that the state does not grow
    /// faster than it drains.
    pub fn drain_some(&mut self, records: usize) {
        if self.is_draining() {
            self.drain(DRAINED_A_CALL + records * DRAINED_A_RECORD);
        }
    }

    /// Hands in about so many rows; whether those were all.
    pub fn drain(&mut self, wanted: usize) -> bool {
        if !self.is_draining() {
            return true;
        }
        self.hand_over_copies();
        let mut left = wanted;
        let done = self.drain_timers(&mut left) && self.drain_columns(left);
        if done {
            self.store.epochs.all_copied();
            if let Some(backing) = &mut self.backing {
                let timers = backing.timers.iter_mut().filter_map(|table| table.sink.take());
                let columns = backing.taking.take().into_iter().flat_map(|taking| taking.sinks).flatten();
                timers.chain(columns).for_each(FrozenSink::done);
            }
        }
        // Keys may have waited for it to be told that they are gone.
        self.forget_empty();
        done
    }

    /// Names the keys of timers that are gone or were copied, while their slots are still theirs.
    pub(super) fn resolve_timers(&mut self) {
        let Some(backing) = &mut self.backing else { return };
        let key = |slot: u32| {
            self.keys[slot as usize].clone().expect("the key of a timer is known until it is named")
        };
        for (timers, table) in self.timers.iter_mut().zip(&mut backing.timers) {
            let (copied, gone) = timers.rows().take_gone();
            table.copied.extend(copied.map(|((time, slot), ())| (time, key(slot))));
            table.gone.extend(gone.map(|(time, slot)| (time, key(slot))));
        }
    }

    /// Hands over what was copied because it was written, while its slots are still its own.
    pub(super) fn hand_over_copies(&mut self) {
        self.resolve_timers();
        let Some(backing) = &mut self.backing else { return };
        let Some(taking) = &mut backing.taking else { return };
        let mut slots = Vec::new();
        for (column, sink) in self.store.tables.iter_mut().zip(&mut taking.sinks) {
            if let (Some(column), Some(sink)) = (column.table.take_copied(&mut slots), sink) {
                let keys = keys_of(&self.keys, &slots);
                sink.rows(Box::new(ColumnRows { keys, column, groups: backing.groups }));
            }
        }
    }

    /// Hands in all frozen timers, so that the backend may be given newer ones.
    pub(super) fn hand_in_timers(&mut self) {
        self.resolve_timers();
        while !self.drain_timers(&mut { usize::MAX }) {}
    }

    fn drain_timers(&mut self, left: &mut usize) -> bool {
        let Some(backing) = &mut self.backing else { return true };
        let groups = backing.groups;
        for (timers, table) in self.timers.iter_mut().zip(&mut backing.timers) {
            let Some(sink) = &mut table.sink else { continue };
            // First what is gone: the last of several rows of one key counts.
            let gone = table.frozen_gone.len().saturating_sub(*left);
            let gone = table.frozen_gone.split_off(gone);
            *left -= gone.len();
            if !gone.is_empty() {
                sink.rows(timer_rows(gone, Written::Gone, groups));
            }
            if !table.frozen_gone.is_empty() {
                return false;
            }
            let mut rows = std::mem::take(&mut table.copied);
            let mut slots = Vec::new();
            let done = loop {
                let before = slots.len();
                let done = timers.rows().drain(*left, &mut slots);
                *left = left.saturating_sub(slots.len() - before);
                if done || *left == 0 || slots.len() == before {
                    break done;
                }
            };
            let key = |slot: u32| self.keys[slot as usize].clone().expect("a timer has a key");
            rows.extend(slots.into_iter().map(|((time, slot), _)| (time, key(slot))));
            if !rows.is_empty() {
                sink.rows(timer_rows(rows, Written::Row, groups));
            }
            if !done {
                return false;
            }
        }
        true
    }

    fn drain_columns(&mut self, wanted: usize) -> bool {
        let Some(backing) = &mut self.backing else { return true };
        let Some(taking) = &mut backing.taking else { return true };
        let (mut rows_left, mut marks_left) = (wanted, wanted.saturating_mul(LOOKED_AT_A_ROW));
        while let Some(column) = self.store.tables.get_mut(taking.column) {
            if rows_left == 0 || marks_left == 0 {
                return false;
            }
            let from = taking.slot;
            let until = from.saturating_add(marks_left).min(taking.slots);
            let mut slots: Vec<u32> = Vec::new();
            taking.slot = column.take_frozen(self.store.epochs, from, until, rows_left, &mut slots);
            marks_left -= taking.slot - from;
            rows_left -= slots.len();
            if let Some(Some(sink)) = taking.sinks.get_mut(taking.column)
                && !slots.is_empty()
            {
                let (keys, column) = (keys_of(&self.keys, &slots), column.table.copy(&slots));
                sink.rows(Box::new(ColumnRows { keys, column, groups: backing.groups }));
                let references = &self.store.references;
                let emptied = slots.iter().filter(|slot| references[**slot as usize] == 0);
                self.maybe_empty.extend(emptied.map(|slot| *slot as usize));
            }
            if taking.slot == taking.slots {
                taking.column += 1;
                taking.slot = 0;
            }
        }
        true
    }

    /// Writes the cells of these slots outside of a snapshot, where the backend has others.
    pub(super) fn write_dirty(&mut self, slots: &[u32]) -> Result<()> {
        let Some(backing) = &self.backing else { return Ok(()) };
        for column in &mut self.store.tables {
            let Some(table) = column.id else { continue };
            let dirty = column.dirty(self.store.epochs, slots);
            if dirty.is_empty() {
                continue;
            }
            let (keys, column) = (keys_of(&self.keys, &dirty), column.table.copy(&dirty));
            let rows = ColumnRows { keys, column, groups: backing.groups };
            backing.state.write(table, Box::new(rows))?;
        }
        Ok(())
    }
}

fn keys_of<K: Key>(keys: &[Option<K>], slots: &[u32]) -> Vec<K> {
    let keys = slots.iter().map(|slot| keys[*slot as usize].clone());
    keys.map(|key| key.expect("a slot with rows to hand in has a key")).collect()
}

//! A table of values that are updated record by record, with its rows in snapshots, and more of them than memory holds.
//!
//! A row's key is the key in postcard's format, its value the value in that format.
//!
//! Rows that the backend can give back need not be in memory: what a batch misses is fetched together, and what is used least is
//! forgotten when the budget is spent, written first where the backend has an older row (the clock of `epochs`). A row
//! that is frozen is never forgotten; where frozen ones leave no room, all of them are handed in at once.

use std::borrow::Borrow;
use std::rc::Rc;

use flott_schema::Result;

use super::epochs::{Epochs, PASSED_MAX, Tracking};
use super::rows::{TypedRows, Written, group_of, push_key};
use super::update_table::UpdateTable;
use crate::batch::Record;
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::key::{Key, stable_hash};
use crate::operators::bounded::size::{SAMPLED_OF_SLICE, mean_owned_bytes_of};
use crate::snapshot::{FrozenRows, FrozenSink, StateBackend, TableId, TableSpec, WantedKey};
use crate::types::Shape;

/// Frozen rows copied in one call of [`StoredTable::drain_some`], and bytes of them: large rows go in smaller pieces, but not so
/// small that a table fills faster than it drains.
const DRAINED_A_CALL: usize = 4096;
const DRAINED_BYTES: usize = 512 << 10;
/// Slots looked at in one call, for each row that may be copied.
const LOOKED_AT_A_ROW: usize = 32;
/// Entries forgotten at once beyond what is needed: a pause that many writes share, and that nobody notices.
const FORGOTTEN_AHEAD: usize = 16 << 10;
/// Of the slots that the budget allows, so many in twenty are filled: beyond fifteen the table would grow.
const FILLED_OF_20: usize = 14;
/// Marks looked at together.
const CHUNK: usize = 64;

/// A table from `K` to `V`; see the head of the file.
pub struct StoredTable<K, V> {
    table: UpdateTable<K, V>,
    epochs: Epochs,
    backend: Option<Backend>,
    /// The snapshot at hand, until all of its rows are handed in.
    sink: Option<Box<dyn FrozenSink>>,
    /// Frozen rows stand from here on, in a table of this capacity.
    cursor: usize,
    capacity: usize,
    /// Copied because they were written while frozen.
    copied: Vec<(K, V)>,
    /// Whether the backend may have rows that are not in memory.
    partial: bool,
    /// Whether the keys of the batch at hand that are not in memory are known to have no row.
    known: bool,
    /// Where the clock's hand stands.
    hand: usize,
    /// What an entry owns besides its own size: a moving mean of samples, bytes.
    owned_bytes: usize,
    batches: usize,
    /// Keys that the batch at hand was the first to use, with their hashes.
    came: Vec<(u64, K)>,
}

/// Where the rows go.
struct Backend {
    state: Rc<dyn StateBackend>,
    table: TableId,
    max_parallelism: u32,
    can_fetch: bool,
}

impl<K, V> Default for StoredTable<K, V> {
    fn default() -> Self {
        StoredTable {
            table: UpdateTable::default(),
            epochs: Epochs::default(),
            backend: None,
            sink: None,
            cursor: 0,
            capacity: 0,
            copied: Vec::new(),
            partial: false,
            known: true,
            hand: 0,
            owned_bytes: 0,
            batches: 0,
            came: Vec::new(),
        }
    }
}

impl<K: Key, V: Record> StoredTable<K, V> {
    /// Registers the table, if the operator's state goes into snapshots, and gets its rows back unless they can be fetched later.
    pub fn open(&mut self, ctx: &OperatorContext, name: &str) -> Result<()> {
        let Some(state) = ctx.state.clone() else { return Ok(()) };
        let table = state.table(TableSpec {
            name: name.to_string(),
            holds: "value",
            key_type: Shape::of::<K>().canonical_text(),
            value_type: Shape::of::<V>().canonical_text(),
        })?;
        self.epochs = Epochs::new(Tracking::of(Some(&*state)));
        self.table.keep_marks();
        if state.can_fetch() {
            self.partial = state.is_restored();
        } else {
            let StoredTable { table: entries, epochs, .. } = self;
            state.load(table, &mut |key, value| {
                let key: K = decode_value(key)?;
                let position = entries.insert_new(stable_hash(&key), key, decode_value(value)?);
                *entries.mark_mut(position) = epochs.stored();
                Ok(())
            })?;
        }
        let (max_parallelism, can_fetch) = (ctx.task.max_parallelism, state.can_fetch());
        self.backend = Some(Backend { state, table, max_parallelism, can_fetch });
        Ok(())
    }

    /// The table without what snapshots cost, if there are none.
    #[inline]
    pub fn untracked(&mut self) -> Option<&mut UpdateTable<K, V>> {
        (!self.epochs.is_tracked()).then_some(&mut self.table)
    }

    /// Number of keys in memory.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Memory held, bytes, about.
    pub fn memory_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<(K, V)>() + 2) + self.table.len() * self.owned_bytes
    }

    /// Whether a batch gains from [`StoredTable::prefetch_ahead`].
    pub fn is_large(&self) -> bool {
        self.table.is_large()
    }

    /// Prefetches for position `index` of a batch: call with each index in turn before the lookup.
    #[inline(always)]
    pub fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        self.table.prefetch_ahead(hashes, index);
        self.table.prefetch_mark_ahead(hashes, index);
    }

    /// The position of a key's entry in memory.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.table.find(hash, key)
    }

    /// The value at a position that [`StoredTable::find`] gave, with nothing inserted since, to be changed.
    #[inline(always)]
    pub fn value_mut(&mut self, position: usize) -> &mut V {
        if self.epochs.write(self.table.mark_mut(position)) {
            self.copy(position);
        }
        self.table.value_mut(position)
    }

    #[cold]
    fn copy(&mut self, position: usize) {
        self.copied.extend(self.table.at(position).cloned());
    }

    /// Whether a key of this batch that is not in memory has no row either.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Adds an entry for a key that is not in the table, and known not to be. Positions found before are void.
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) {
        let position = self.table.insert_new(hash, key, value);
        *self.table.mark_mut(position) = self.epochs.fresh();
    }

    /// Before a batch of so many records: makes room for as many keys.
    pub fn begin_batch(&mut self, records: usize) -> Result<()> {
        if let Some(backend) = self.backend.as_ref().filter(|backend| backend.can_fetch) {
            // Asked for each time: operators that are opened later have their share of it.
            let budget_bytes = backend.state.budget_bytes();
            let owned_bytes = mean_owned_bytes_of(self.table.sample(self.batches, SAMPLED_OF_SLICE));
            let mean = if self.batches == 0 { owned_bytes } else { (self.owned_bytes * 3 + owned_bytes) / 4 };
            self.owned_bytes = mean;
            self.batches = self.batches.wrapping_add(1);
            let (capacity, entries) = allowed(budget_bytes, size_of::<(K, V)>() + 2, self.owned_bytes);
            self.make_room(records, capacity, entries)?;
        }
        self.known = !self.partial;
        Ok(())
    }

    /// Makes room for `records` more entries, of so many at most, in a table of at most `capacity` slots if that is possible.
    fn make_room(&mut self, records: usize, capacity: usize, entries: usize) -> Result<()> {
        // What one batch has used counts when another uses it again, before the hand comes.
        for (hash, key) in std::mem::take(&mut self.came) {
            if let Some(position) = self.table.find(hash, &key) {
                self.epochs.untouch(self.table.mark_mut(position));
            }
        }
        let wanted = self.table.len() + records;
        if wanted > entries {
            if wanted * 4 > capacity * 3 {
                // Frozen rows cannot be forgotten, and the table must not grow for them.
                self.drain_all();
            }
            if self.sink.is_none() {
                self.forget(entries.saturating_sub(records))?;
            }
        }
        // Below, it doubles by itself.
        let slots = self.table.capacity();
        let is_last_step = slots < capacity && slots * 2 > capacity && wanted * 4 > slots * 3;
        if is_last_step || slots > capacity + capacity / 8 {
            self.table.set_capacity(capacity);
        }
        Ok(())
    }

    /// Gets the rows of those of these keys, with their hashes, that are not in memory.
    #[cold]
    pub fn fetch<Q: Borrow<K>>(&mut self, keys: impl Iterator<Item = (u64, Q)>) -> Result<()> {
        self.known = true;
        let Some(backend) = &self.backend else { return Ok(()) };
        let missing = keys.filter(|(hash, key)| self.table.find(*hash, key.borrow()).is_none());
        let mut missing: Vec<(u64, K)> = missing.map(|(hash, key)| (hash, key.borrow().clone())).collect();
        missing.sort_unstable_by_key(|(hash, _)| *hash);
        missing.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(missing.len());
        for (_, key) in &missing {
            encode_value(key, &mut bytes)?;
            ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let wanted: Vec<WantedKey<'_>> = missing
            .iter()
            .zip(starts.zip(&ends))
            .map(|((hash, _), (start, end))| (group_of(*hash, backend.max_parallelism), &bytes[start..*end]))
            .collect();
        let (table, epochs) = (&mut self.table, &self.epochs);
        backend.state.fetch(backend.table, &wanted, &mut |position, value| {
            let (hash, key) = &missing[position];
            let position = table.insert_new(*hash, key.clone(), decode_value(value)?);
            *table.mark_mut(position) = epochs.stored();
            Ok(())
        })?;
        drop(wanted);
        self.came = missing;
        Ok(())
    }

    /// Forgets entries until so many and some fewer are left: those not used since the hand last passed. Dirty ones are written first.
    fn forget(&mut self, entries: usize) -> Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        let goal = entries - (entries / 32).min(FORGOTTEN_AHEAD);
        let mut dirty = Vec::new();
        // As often around as an entry may be passed by before it goes.
        let mut steps = self.table.capacity() * PASSED_MAX + self.table.len();
        while self.table.len() > goal && steps > 0 {
            steps -= 1;
            let position = if self.hand < self.table.capacity() { self.hand } else { 0 };
            if self.table.at(position).is_none() || self.epochs.pass(self.table.mark_mut(position)) {
                self.hand = position + 1;
                continue;
            }
            // Another entry may come to this position.
            let (key, value, mark) = self.table.remove_at(position);
            if !self.epochs.is_clean(mark) {
                dirty.push((key, value));
            }
        }
        self.partial = true;
        if dirty.is_empty() {
            return Ok(());
        }
        backend.state.write(backend.table, rows_of(dirty, self.owned_bytes, backend.max_parallelism))
    }

    /// A barrier: what the table holds now belongs to the snapshot. Rows of an earlier one are handed in first.
    pub fn freeze(&mut self) {
        self.drain_all();
        let Some(backend) = &self.backend else { return };
        self.epochs.switch();
        self.sink = Some(backend.state.freeze(backend.table));
        (self.cursor, self.capacity) = (0, self.table.capacity());
    }

    /// Whether rows of a snapshot are still to be handed in.
    pub fn is_draining(&self) -> bool {
        self.sink.is_some()
    }

    /// Hands in some rows of the snapshot at hand, if there is one: more after a batch of many records, so that the table does not grow
    /// faster than it drains.
    pub fn drain_some(&mut self, records: usize) {
        if self.sink.is_some() {
            let by_size = self.rows_of_a_piece().max(records * 2);
            self.drain(by_size.min(DRAINED_A_CALL + records * 4));
        }
    }

    fn rows_of_a_piece(&self) -> usize {
        DRAINED_BYTES / (size_of::<(K, V)>() + self.owned_bytes).max(1) + 1
    }

    /// Hands in all frozen rows, in pieces: where the backend is slower, it holds up who hands in.
    fn drain_all(&mut self) {
        let wanted = self.rows_of_a_piece();
        while !self.drain(wanted) {}
    }

    /// Hands in about so many rows; whether those were all.
    pub fn drain(&mut self, wanted: usize) -> bool {
        let (Some(sink), Some(backend)) = (&mut self.sink, &self.backend) else { return true };
        let mut rows = std::mem::take(&mut self.copied);
        if self.capacity != self.table.capacity() {
            // It has grown: entries stand elsewhere.
            (self.cursor, self.capacity) = (0, self.table.capacity());
        }
        let until = self.cursor.saturating_add(wanted.saturating_mul(LOOKED_AT_A_ROW)).min(self.capacity);
        while self.cursor < until && rows.len() < wanted {
            let epochs = self.epochs;
            let end = self.capacity.min(self.cursor + CHUNK);
            let marks = &self.table.marks()[self.cursor..end];
            if marks.iter().fold(false, |any, mark| any | epochs.is_frozen(*mark)) {
                for position in self.cursor..end {
                    if let Some(entry) = self.table.at(position)
                        && epochs.is_frozen(self.table.marks()[position])
                    {
                        rows.push(entry.clone());
                        epochs.copied(self.table.mark_mut(position));
                    }
                }
            }
            self.cursor = end;
        }
        if !rows.is_empty() {
            sink.rows(rows_of(rows, self.owned_bytes, backend.max_parallelism));
        }
        if self.cursor < self.capacity {
            return false;
        }
        self.epochs.all_copied();
        if let Some(sink) = self.sink.take() {
            sink.done();
        }
        true
    }
}

fn rows_of<K: Key, V: Record>(
    rows: Vec<(K, V)>,
    owned_bytes: usize,
    max_parallelism: u32,
) -> Box<dyn FrozenRows> {
    TypedRows::owning(rows, owned_bytes, move |(key, value): &(K, V), key_bytes, value_bytes| {
        encode_value(value, value_bytes)?;
        Ok((push_key(key, max_parallelism, key_bytes)?, Written::Row))
    })
}

/// The capacity of a table that fills `budget_bytes`, and how many entries it may have.
fn allowed(budget_bytes: usize, slot_bytes: usize, owned_bytes: usize) -> (usize, usize) {
    // Far more than there may be, and no product overflows.
    let twenty_bytes = (slot_bytes * 20).saturating_add(owned_bytes.saturating_mul(FILLED_OF_20));
    let twenties = (budget_bytes / twenty_bytes).min(1 << 32);
    let capacity = twenties * 20 / 16 * 16;
    (capacity, capacity * FILLED_OF_20 / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fills_its_budget_with_slots_and_what_entries_own() {
        assert_eq!(allowed(1 << 20, 16, 0), (65520, 45864));
        // Half for what entries own: fewer slots leave more for them.
        let (capacity, entries) = allowed(1 << 20, 16, 100);
        assert_eq!((capacity, entries), (12176, 8523));
        assert!(capacity * 16 + entries * 100 <= 1 << 20);
        assert_eq!(allowed(100, 16, 0), (0, 0));
        let unlimited = allowed(usize::MAX, 1 << 12, 1 << 20);
        assert!(unlimited.0 > 1 << 30 && unlimited.1 > 1 << 30, "{unlimited:?}");
    }
}

//! Slices that memory has no room for.
//!
//! When the tables exceed the budget, they forget: first the slices kept for late records, then those that were not used lately, the one that is
//! needed latest first; then, of the others and of `live`, keys that were not used lately. What is forgotten is fetched when it is needed.

use std::borrow::Borrow;
use std::ops::Bound;

use flott_schema::Result;

use super::SlicingWindows;
use super::fire::{Emission, Left};
use super::tables::{SliceRows, SliceTable};
use crate::batch::Record;
use crate::key::{Key, KeySelector, key_of};
use crate::operators::bounded::size::mean_owned_bytes;
use crate::window::Window;
use crate::window::logic::SlicedLogic;

/// Bytes of an entry's share of the buckets, and of its mark.
const INDEX_BYTES: usize = 9;

/// What is known of the room that the tables take.
#[derive(Default)]
pub(super) struct Room {
    /// Whether rows may be forgotten.
    pub(super) is_bounded: bool,
    /// Whether the backend may have rows that are not in memory.
    pub(super) is_partial: bool,
    /// Records that come before the room is looked at again.
    records_left: usize,
    turn: usize,
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// So many records were added: forgets what there is no room for.
    #[inline]
    pub(super) fn keep_within_budget(&mut self, records: usize) -> Result<()> {
        if !self.room.is_bounded {
            return Ok(());
        }
        self.rows.tell_gone()?;
        self.live_rows.tell_gone()?;
        match self.room.records_left.checked_sub(records) {
            Some(left) => self.room.records_left = left,
            None => self.make_room(0)?,
        }
        Ok(())
    }

    /// Forgets what there is no room for, if `held` states of slices are in memory besides the tables.
    #[cold]
    pub(super) fn make_room(&mut self, held: usize) -> Result<()> {
        let budget_bytes = self.rows.budget_bytes();
        let (entry_bytes, live_bytes) = self.entry_bytes();
        let entries: usize = self.tables.all().map(|table| table.keys.len()).sum();
        let used_bytes = (entries + held) * entry_bytes + self.live.len() * live_bytes;
        let spare_bytes =
            if used_bytes <= budget_bytes { budget_bytes - used_bytes } else { budget_bytes / 8 };
        // A record adds one entry at most to the tables, and to `live` if it is late.
        self.room.records_left = spare_bytes / (entry_bytes + live_bytes);
        if used_bytes <= budget_bytes {
            return Ok(());
        }
        self.room.is_partial = true;
        let mut excess_bytes = used_bytes - (budget_bytes - budget_bytes / 8);
        let (past, cold, hot) = self.candidates();
        for number in past.into_iter().chain(cold) {
            if excess_bytes == 0 {
                return Ok(());
            }
            let freed = self.forget_slice(number, excess_bytes.div_ceil(entry_bytes))?;
            excess_bytes = excess_bytes.saturating_sub(freed * entry_bytes);
        }
        // Each of the others its share.
        let live = match &self.emission {
            // What is given one after the other stays where it is.
            Some(Emission { left: Left::Live { .. } | Left::LiveStored(_), .. }) => 0,
            _ => self.live.len(),
        };
        let hot_entries: usize = hot.iter().map(|number| self.tables.get(*number).len()).sum();
        let hot_bytes = hot_entries * entry_bytes + live * live_bytes;
        if excess_bytes == 0 || hot_bytes == 0 {
            return Ok(());
        }
        let share = |entries: usize| {
            let share = entries as u128 * excess_bytes as u128 / hot_bytes as u128;
            (share as usize + 1).min(entries)
        };
        for number in hot {
            let count = share(self.tables.get(number).len());
            self.forget_slice(number, count)?;
        }
        if live > 0 {
            self.live.forget(share(live), &(), &mut self.live_rows, &mut self.live_stored)?;
        }
        Ok(())
    }

    /// About what an entry of a slice takes, and one of `live`, bytes: vectors grow to twice what is needed.
    fn entry_bytes(&mut self) -> (usize, usize) {
        self.room.turn = self.room.turn.wrapping_add(1);
        let turn = self.room.turn;
        let largest = self.tables.all().max_by_key(|table| table.keys.len());
        let owned_bytes = largest.map_or(0, |table| mean_owned_bytes(table.keys.keys().entries(), turn));
        let entry_bytes = 2 * size_of::<(S::Key, L::State)>() + INDEX_BYTES + owned_bytes;
        let owned_bytes = mean_owned_bytes(self.live.keys().entries(), turn);
        let live_bytes = 2 * size_of::<(S::Key, L::Panes)>() + INDEX_BYTES + owned_bytes;
        (entry_bytes, live_bytes)
    }

    /// The tables that may forget: those of past slices, those of slices not used since this was asked last, and the others; each the latest
    /// first.
    fn candidates(&mut self) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        // What is given one after the other stays where it is.
        let firing = match &self.emission {
            Some(Emission { left: Left::Kept { table, .. } | Left::Stored { table, .. }, .. }) => {
                Some(*table)
            }
            Some(Emission { left: Left::Open { .. }, .. }) => self.open.values().next().copied(),
            _ => None,
        };
        let is_free = |number: &u32| Some(*number) != firing;
        let past: Vec<u32> = self.past.values().rev().copied().filter(is_free).collect();
        let open: Vec<u32> = self.open.values().rev().copied().filter(is_free).collect();
        let (hot, cold) = open.into_iter().partition(|number| self.tables.is_touched(*number));
        self.tables.all().for_each(|table| table.touched = false);
        (past, cold, hot)
    }

    /// Gives how many entries were forgotten.
    fn forget_slice(&mut self, number: u32, count: usize) -> Result<usize> {
        let SlicingWindows { tables, rows, .. } = self;
        let SliceTable { end, keys, stored, .. } = tables.get_untouched(number);
        let before = keys.len();
        keys.forget(count, end, rows, stored)?;
        Ok(before - keys.len())
    }

    /// Gets what a late record of a key may change or make fire again: the slices of the windows that hold the slice.
    pub(super) fn fetch_late(
        &mut self,
        slice_end: i64,
        last_window_end: i64,
        hash: u64,
        key: &S::Key,
    ) -> Result<()> {
        let SlicingWindows { tables, rows, past, live, live_rows, live_stored, layout, .. } = self;
        let group = rows.group_of(hash);
        let range =
            (Bound::Excluded(slice_end.saturating_sub(layout.size())), Bound::Included(last_window_end));
        let missing = past.range(range).filter(|(_, number)| {
            tables.stored(**number).contains(group) && tables.get(**number).find(hash, key).is_none()
        });
        let missing: Vec<(i64, u32)> = missing.map(|(end, number)| (*end, *number)).collect();
        if !missing.is_empty() {
            rows.fetch(missing.iter().map(|(end, _)| (end, key)), |rows, position, state| {
                let table = tables.get_mut(missing[position].1);
                table.keys.insert_restored(hash, key.clone(), state, rows);
            })?;
        }
        if live_stored.contains(group) && live.keys().find(hash, key).is_none() {
            live_rows.fetch([(&(), key)].into_iter(), |rows, _, panes| {
                live.insert_restored(hash, key.clone(), panes, rows);
            })?;
        }
        Ok(())
    }
}

/// Gets the rows of a slice that these records add to and that are not in memory; `hashes` begin with those of the records.
#[cold]
pub(super) fn fetch_missing<S, T, K, V>(
    selector: &S,
    table: &mut SliceTable<K, V>,
    rows: &mut SliceRows<K, V>,
    records: &[T],
    hashes: &[u64],
) -> Result<()>
where
    S: KeySelector<T, Key = K>,
    K: Key,
    V: Record,
{
    let SliceTable { end, keys, stored, .. } = table;
    let missing = records.iter().zip(hashes).filter(|(record, hash)| {
        stored.contains(rows.group_of(**hash))
            && keys.keys().find(**hash, selector.key(record).borrow()).is_none()
    });
    let mut missing: Vec<(u64, K)> =
        missing.map(|(record, hash)| (*hash, key_of(selector, record))).collect();
    missing.sort_unstable_by_key(|(hash, _)| *hash);
    // Of keys with the same hash, one may be left twice: it is found the second time.
    missing.dedup_by(|a, b| a == b);
    if missing.is_empty() {
        return Ok(());
    }
    rows.fetch(missing.iter().map(|(_, key)| (&*end, key)), |rows, position, state| {
        let (hash, key) = &missing[position];
        if keys.keys().find(*hash, key).is_none() {
            keys.insert_restored(*hash, key.clone(), state, rows);
        }
    })
}

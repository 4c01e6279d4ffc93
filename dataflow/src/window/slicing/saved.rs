//! What snapshots hold of sliced windows: the slices of table `slices`; in `live`, for each key, the slices of the windows that fire next;
//! in `ahead` the keys that have fired further than the others.

use flott_schema::key_group::key_group_of;
use flott_schema::{Error, Result};

use super::SlicingWindows;
use super::fire::{Emission, Left};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, stable_hash};
use crate::state::KeyTable;
use crate::window::Window;
use crate::window::clocks::{Progress, SavedClocks, save};
use crate::window::logic::SlicedLogic;
use crate::window::saving::{LOOKED_AT_ONCE, Outgoing, Row};

/// Keys for which windows have fired that have not fired for others. There are some behind a start from a snapshot that was taken in the
/// middle of a firing, or from tasks that were not equally far.
pub(super) struct Ahead<K> {
    /// The end of the last window that has fired.
    keys: KeyTable<K, i64>,
    rows: Outgoing<(), K, i64>,
    /// Keys in the last snapshot.
    stored: Vec<K>,
}

impl<K: Key> Default for Ahead<K> {
    fn default() -> Self {
        Ahead { keys: KeyTable::default(), rows: Outgoing::default(), stored: Vec::new() }
    }
}

impl<K: Key> Ahead<K> {
    /// Whether the window has fired for a key.
    #[inline]
    pub(super) fn has_fired(&self, key: &K, window_end: i64) -> bool {
        !self.keys.is_empty() && self.keys.get(stable_hash(key), key).is_some_and(|end| *end >= window_end)
    }

    /// The window has fired for all keys.
    pub(super) fn passed(&mut self, window_end: i64) {
        if self.keys.entries().iter().all(|(_, end)| *end <= window_end) && !self.keys.is_empty() {
            self.keys = KeyTable::default();
        }
    }

    fn insert(&mut self, key: K, end: i64) {
        let hash = stable_hash(&key);
        *self.keys.get_or_insert_with(hash, &key, || end) = end;
    }

    /// A barrier: all is handed in, as little as it is. `firing`: keys for which a window has fired that fires now.
    fn hand_in<'a>(&mut self, firing: impl Iterator<Item = (&'a K, i64)>) {
        let Ahead { keys, rows, stored } = self;
        stored.drain(..).for_each(|key| rows.note_gone((), key));
        rows.freeze();
        let mut add = |key: &K, end: i64| {
            rows.add(Row { prefix: (), key: key.clone(), value: Some(end) });
            stored.push(key.clone());
        };
        keys.entries().iter().for_each(|(key, end)| add(key, *end));
        firing.for_each(|(key, end)| add(key, end));
        rows.finish();
    }
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// Registers the state, and takes over what was restored.
    pub(super) fn open_state(&mut self, ctx: &OperatorContext) -> Result<()> {
        let saved = SavedClocks::load(ctx)?;
        let max_parallelism = ctx.task.max_parallelism;
        let fired_end = |hash: u64| saved.of_group(key_group_of(hash, max_parallelism)).fired_end;
        let SlicingWindows { tables, rows, open, past, live, live_rows, ahead, layout, .. } = self;
        rows.open(ctx, "slices", |rows, end, key, state| {
            let hash = stable_hash(&key);
            let slices = if end <= fired_end(hash) { &mut *past } else { &mut *open };
            let number = *slices.entry(end).or_insert_with(|| tables.add(end));
            tables.get_mut(number).keys.insert_restored(hash, key, state, rows);
            Ok(())
        })?;
        let least = saved.least();
        self.fired_end = least.fired_end;
        if !layout.is_single() {
            let mut live_end = i64::MAX;
            live_rows.open(ctx, "live", |rows, (), key, panes| {
                let hash = stable_hash(&key);
                live_end = live_end.min(fired_end(hash));
                live.insert_restored(hash, key, panes, rows);
                Ok(())
            })?;
            if !live.is_empty() {
                // The next window lies behind this one.
                self.fired_end = live_end;
                if layout.window_end_from(live_end) != live_end {
                    return Err(Error::user(format!(
                        "the windows in the snapshot lie at other times than those of operator '{}'; slide and offset of windows \
                         must stay what they were when the snapshot was taken",
                        ctx.name
                    )));
                }
            }
            for (key, _) in live.keys().entries() {
                let end = fired_end(stable_hash(key));
                if end > self.fired_end {
                    ahead.insert(key.clone(), end);
                }
            }
            let Ahead { keys, rows, stored } = ahead;
            rows.open(ctx, "ahead", |_, (), key, end| {
                stored.push(key.clone());
                let further = keys.get_or_insert_with(stable_hash(&key), &key, || end);
                *further = end.max(*further);
                Ok(())
            })?;
        }
        (self.watermark_ms, self.clock_ms) = (least.watermark_ms, least.clock_ms);
        Ok(())
    }

    /// A barrier.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.drain(usize::MAX);
        self.function_drains = false;
        // In the middle of a firing, the window before is the last one that has fired for all keys.
        let fired_end = match self.emission {
            Some(_) => self.fired_end.saturating_sub(self.layout.slide()),
            None => self.fired_end,
        };
        let (watermark_ms, clock_ms) = (self.watermark_ms, self.clock_ms);
        save(&self.ctx, Progress { watermark_ms, clock_ms, fired_end })?;
        if self.ctx.state.is_none() {
            return Ok(());
        }
        let SlicingWindows { tables, rows, live, live_rows, ahead, emission, layout, .. } = self;
        rows.freeze();
        tables.begin_drain();
        if let Some(Emission { window_end, left: Left::Drained(entries) }) = emission {
            for (key, state) in entries.as_slice() {
                rows.add(Row { prefix: *window_end, key: key.clone(), value: Some(state.clone()) });
                rows.note_gone(*window_end, key.clone());
            }
        }
        if !layout.is_single() {
            live_rows.freeze();
            live.begin_drain();
            let (fired, end) = match emission {
                Some(Emission { window_end, left: Left::Live { next } }) => (*next, *window_end),
                _ => (0, 0),
            };
            let fired = live.keys().entries()[..fired].iter().map(|(key, _)| (key, end));
            ahead.hand_in(fired);
        }
        if let Some(states) = self.logic.states() {
            states.freeze();
            self.function_drains = true;
        }
        Ok(())
    }

    /// Whether rows are still to be copied for a snapshot.
    pub(super) fn is_draining(&self) -> bool {
        self.rows.is_draining() || self.live_rows.is_draining() || self.function_drains
    }

    /// Copies some of them.
    pub(super) fn drain_some(&mut self) {
        if self.is_draining() {
            self.drain(LOOKED_AT_ONCE);
        }
    }

    /// Copies rows, looking at so many at most.
    pub(super) fn drain(&mut self, mut budget: usize) {
        let SlicingWindows { tables, rows, live, live_rows, .. } = self;
        if rows.is_draining() && tables.drain(rows, &mut budget) {
            rows.finish();
        }
        if live_rows.is_draining() && live.drain(&(), live_rows, &mut budget) {
            live_rows.finish();
        }
        if self.function_drains {
            self.function_drains = self.logic.states().is_some_and(|states| !states.drain(budget));
        }
    }
}

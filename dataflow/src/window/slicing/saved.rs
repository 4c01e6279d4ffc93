//! What snapshots hold of sliced windows: the slices of table `slices`; in `live`, for each key, the slices of the windows that fire next;
//! in `ahead` the keys that have fired further than the others.

use std::collections::BTreeMap;

use flott_schema::key_group::key_group_of;
use flott_schema::{Error, Result};

use super::SlicingWindows;
use super::fire::{Emission, Left, LiveStored};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, stable_hash};
use crate::state::KeyTable;
use crate::window::Window;
use crate::window::beyond::{Groups, Scan};
use crate::window::clocks::{Progress, SavedClocks, save_further};
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
    /// The same of all keys of a key group that were restored, where these are not in memory. It is saved with the clocks.
    groups: BTreeMap<u16, i64>,
}

impl<K: Key> Default for Ahead<K> {
    fn default() -> Self {
        Ahead {
            keys: KeyTable::default(),
            rows: Outgoing::default(),
            stored: Vec::new(),
            groups: BTreeMap::new(),
        }
    }
}

impl<K: Key> Ahead<K> {
    /// Whether the window has fired for a key.
    #[inline]
    pub(super) fn has_fired(&self, key: &K, window_end: i64) -> bool {
        if self.keys.is_empty() && self.groups.is_empty() {
            return false;
        }
        let hash = stable_hash(key);
        let end = self.keys.get(hash, key).max(self.groups.get(&self.rows.group_of(hash)));
        end.is_some_and(|end| *end >= window_end)
    }

    /// The window has fired for all keys.
    pub(super) fn passed(&mut self, window_end: i64) {
        if self.keys.entries().iter().all(|(_, end)| *end <= window_end) && !self.keys.is_empty() {
            self.keys = KeyTable::default();
        }
        self.groups.retain(|_, end| *end > window_end);
    }

    fn insert(&mut self, key: K, end: i64) {
        let hash = stable_hash(&key);
        *self.keys.get_or_insert_with(hash, &key, || end) = end;
    }

    /// A barrier: all is handed in, as little as it is. `firing`: keys for which a window has fired that fires now.
    fn hand_in<'a>(&mut self, firing: impl Iterator<Item = (&'a K, i64)>)
    where
        K: 'a,
    {
        let Ahead { keys, rows, stored, .. } = self;
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

/// What a window has fired for that is still firing.
struct Given<K> {
    window_end: i64,
    /// All keys of these key groups.
    groups: Vec<u16>,
    keys: Vec<K>,
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// Registers the state, and takes over what was restored: as far as it can be fetched later, only what there is.
    pub(super) fn open_state(&mut self, ctx: &OperatorContext) -> Result<()> {
        let saved = SavedClocks::load(ctx)?;
        let max_parallelism = ctx.task.max_parallelism;
        let fired_end = |hash: u64| saved.of_group(key_group_of(hash, max_parallelism)).fired_end;
        let fired_end_of = |group: u16| saved.of_group(group.into()).fired_end;
        let is_restored = ctx.state.as_ref().is_some_and(|state| state.is_restored());
        let fetches = ctx.state.as_ref().is_some_and(|state| state.can_fetch());
        let SlicingWindows {
            tables,
            rows,
            open,
            past,
            live,
            live_rows,
            live_stored,
            ahead,
            layout,
            room,
            ..
        } = self;
        room.is_bounded = fetches;
        room.is_partial = fetches && is_restored;
        if fetches {
            rows.register(ctx, "slices")?;
            if is_restored {
                rows.prefixes(ctx.task.key_groups(), |group, end| {
                    let slices = if end <= fired_end_of(group) { &mut *past } else { &mut *open };
                    let number = *slices.entry(end).or_insert_with(|| tables.add(end));
                    tables.get_mut(number).stored.insert(group);
                    Ok(())
                })?;
            }
        } else {
            rows.open(ctx, "slices", |rows, end, key, state| {
                let hash = stable_hash(&key);
                let slices = if end <= fired_end(hash) { &mut *past } else { &mut *open };
                let number = *slices.entry(end).or_insert_with(|| tables.add(end));
                tables.get_mut(number).keys.insert_restored(hash, key, state, rows);
                Ok(())
            })?;
        }
        let least = saved.least();
        self.fired_end = least.fired_end;
        if !layout.is_single() {
            let mut live_end = i64::MAX;
            if fetches {
                live_rows.register(ctx, "live")?;
                if is_restored {
                    live_rows.prefixes(ctx.task.key_groups(), |group, ()| {
                        live_end = live_end.min(fired_end_of(group));
                        live_stored.insert(group);
                        Ok(())
                    })?;
                }
            } else {
                live_rows.open(ctx, "live", |rows, (), key, panes| {
                    let hash = stable_hash(&key);
                    live_end = live_end.min(fired_end(hash));
                    live.insert_restored(hash, key, panes, rows);
                    Ok(())
                })?;
            }
            if !live.is_empty() || !live_stored.is_empty() {
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
            let groups = ctx.task.key_groups();
            for group in (groups.start..groups.end).map(|group| group as u16) {
                let end = fired_end_of(group);
                if live_stored.contains(group) && end > self.fired_end {
                    ahead.groups.insert(group, end);
                }
            }
            let Ahead { keys, rows, stored, .. } = ahead;
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
        let given = self.given_of_stored()?;
        let mut further = self.ahead.groups.clone();
        further.extend(given.groups.iter().map(|group| (*group, given.window_end)));
        save_further(&self.ctx, Progress { watermark_ms, clock_ms, fired_end }, &further)?;
        if self.ctx.state.is_none() {
            return Ok(());
        }
        let SlicingWindows { tables, rows, live, live_rows, ahead, emission, layout, .. } = self;
        rows.freeze();
        tables.begin_drain();
        let left = match emission {
            Some(Emission { window_end, left: Left::Drained(entries) }) => Some((window_end, entries)),
            Some(Emission { window_end, left: Left::Stored { keeps: false, page, .. } }) => {
                Some((window_end, page))
            }
            _ => None,
        };
        if let Some((window_end, entries)) = left {
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
                Some(Emission { window_end, left: Left::LiveStored(_) }) => (live.len(), *window_end),
                _ => (0, 0),
            };
            let fired = live.keys().entries()[..fired].iter().map(|(key, _)| key);
            ahead.hand_in(fired.chain(&given.keys).map(|key| (key, end)));
        }
        if let Some(states) = self.logic.states() {
            states.freeze();
            self.function_drains = true;
        }
        Ok(())
    }

    /// In the middle of a firing: of the keys of `live` that are not in memory, those that the window has fired for.
    fn given_of_stored(&mut self) -> Result<Given<S::Key>> {
        let SlicingWindows { emission, live_rows, ctx, .. } = self;
        let mut all = Given { window_end: i64::MIN, groups: Vec::new(), keys: Vec::new() };
        let Some(Emission { window_end, left: Left::LiveStored(left) }) = emission else { return Ok(all) };
        all.window_end = *window_end;
        let LiveStored { page, given, .. } = left;
        live_rows.write_out(std::mem::take(given))?;
        // It only stops in front of a key.
        let Some((next, _)) = page.as_slice().first() else { return Ok(all) };
        let at = live_rows.group_of(stable_hash(next));
        all.groups = (ctx.task.key_groups().start as u16..at).collect();
        // Of the key group at hand, those before the next key.
        let mut groups = Groups::default();
        groups.insert(at);
        let mut before = Scan::of(groups, &())?;
        let mut come_to_next = false;
        while !before.is_done() && !come_to_next {
            live_rows.page(&mut before, |_, (), key, _| {
                come_to_next = come_to_next || *next == key;
                if !come_to_next {
                    all.keys.push(key);
                }
                true
            })?;
        }
        Ok(all)
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

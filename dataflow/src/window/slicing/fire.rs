//! Windows fire when the clock has come to their end.

use std::vec::IntoIter;

use flott_schema::Result;

use super::SlicingWindows;
use crate::batch::Record;
use crate::key::{KeySelector, stable_hash};
use crate::operator::Collector;
use crate::operators::bounded::ending::Pace;
use crate::stage::Flow;
use crate::state::MISSING;
use crate::window::Window;
use crate::window::function::Firing;
use crate::window::logic::SlicedLogic;
use crate::window::pause::Pause;

/// With more keys than this, what they keep is not in the cache when their turn comes.
const LARGE: usize = 16 * 1024;
/// How many keys ahead it is fetched then.
const AHEAD: usize = 12;

/// A window that is giving its results; the outputs may have no room for all of them at once.
pub(super) struct Emission<K, V> {
    pub(super) window_end: i64,
    pub(super) left: Left<K, V>,
}

/// What it has still to give.
pub(super) enum Left<K, V> {
    /// These, which are needed no longer.
    Drained(IntoIter<(K, V)>),
    /// The entries of a table from an index on.
    Kept { table: u32, next: usize },
    /// Everything, and open slices are not in `live` yet.
    Open,
    /// The keys of `live` from an index on.
    Live { next: usize },
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// The clock has come to `clock_ms`: fires what is complete, and drops what is over.
    pub(super) fn advance(&mut self, clock_ms: i64, out: &mut Collector<L::Out>) -> Result<Flow> {
        if clock_ms > self.clock_ms {
            self.clock_ms = clock_ms;
            self.places.forget();
        }
        let complete_end = self.layout.last_complete_end(self.clock_ms);
        let pace = &mut Pace::default();
        loop {
            if self.emission.is_none() {
                match self.next_window_end() {
                    Some(end) if end <= complete_end => self.begin(end),
                    _ => break,
                }
            }
            let flow = self.emit(pace, out)?;
            self.pause = Pause::after(flow, out);
            if flow == Flow::Again {
                return Ok(flow);
            }
            self.emission = None;
        }
        self.fired_end = self.fired_end.max(complete_end);
        self.drop_over()?;
        Ok(Flow::Done)
    }

    /// The end of the next window that holds anything.
    pub(super) fn next_window_end(&self) -> Option<i64> {
        if let Some(emission) = &self.emission {
            return Some(emission.window_end);
        }
        if !self.live.is_empty() {
            return Some(self.fired_end + self.layout.slide());
        }
        self.open.first_key_value().map(|(end, _)| self.layout.window_end_from(*end))
    }

    fn begin(&mut self, window_end: i64) {
        let left = if self.layout.is_single() { self.begin_single() } else { Left::Open };
        self.emission = Some(Emission { window_end, left });
        self.fired_end = window_end;
    }

    fn begin_single(&mut self) -> Left<S::Key, L::State> {
        let (end, table) = self.open.pop_first().expect("the window that fires is an open slice");
        if self.late.is_over(end - 1, self.clock_ms) {
            return Left::Drained(self.tables.remove(table, &mut self.rows).into_iter());
        }
        self.keep_past(end, table);
        Left::Kept { table, next: 0 }
    }

    /// Keeps a slice that windows have fired with. There may be one already, of keys that were restored from a task further on.
    fn keep_past(&mut self, end: i64, number: u32) {
        let Some(other) = self.past.insert(end, number) else { return };
        let SlicingWindows { tables, rows, logic, .. } = self;
        let entries = tables.remove(other, rows);
        let keys = &mut tables.get_mut(number).keys;
        for (key, state) in entries {
            let hash = stable_hash(&key);
            match keys.keys().find(hash, &key) {
                Some(entry) => logic.merge(keys.value_mut(entry, &end, rows), state),
                None => {
                    keys.insert_new(hash, key, state, rows);
                }
            }
        }
    }

    /// Moves the open slices up to `window_end` into `live`.
    fn gather(&mut self, window_end: i64, pace: &mut Pace) -> Flow {
        while let Some(first) = self.open.first_entry() {
            let (end, table) = (*first.key(), *first.get());
            if end > window_end {
                break;
            }
            first.remove();
            let last_window_end = self.layout.slice_of(end - 1).last_window_end;
            let over = last_window_end.is_none_or(|last| self.late.is_over(last - 1, self.clock_ms));
            let entries = if over || self.late.lateness_ms == 0 {
                self.tables.remove(table, &mut self.rows)
            } else {
                self.keep_past(end, table);
                self.tables.get(table).entries().to_vec()
            };
            let count = entries.len();
            self.gather_entries(end, entries);
            if pace.is_spent(count) {
                return Flow::Again;
            }
        }
        Flow::Done
    }

    fn gather_entries(&mut self, end: i64, entries: Vec<(S::Key, L::State)>) {
        let SlicingWindows { live, live_rows, hashes, found, logic, layout, .. } = self;
        hashes.clear();
        hashes.extend(entries.iter().map(|(key, _)| stable_hash(key)));
        live.keys().find_all(hashes, 0, entries.iter().map(|(key, _)| key), found);
        let large = live.len() >= LARGE;
        for (index, (key, state)) in entries.into_iter().enumerate() {
            if large && let Some(ahead) = found.get(index + AHEAD).filter(|entry| **entry != MISSING) {
                L::prefetch_push(&live.keys().entries()[*ahead as usize].1);
            }
            // The keys of a slice differ, so none has been inserted since it was missed.
            let entry = match found[index] {
                MISSING => {
                    let hash = hashes[index];
                    live.insert_new(hash, key, logic.new_panes(hash, layout.slices_per_window()), live_rows)
                }
                entry => entry as usize,
            };
            logic.push_pane(live.value_mut(entry, &(), live_rows), end, state);
        }
    }

    /// Gives results as long as the outputs have room.
    fn emit(&mut self, pace: &mut Pace, out: &mut Collector<L::Out>) -> Result<Flow> {
        if let Some(Emission { window_end, left: Left::Open }) = self.emission {
            if self.gather(window_end, pace) == Flow::Again {
                return Ok(Flow::Again);
            }
            self.emission = Some(Emission { window_end, left: Left::Live { next: 0 } });
        }
        let clocks = self.clocks();
        let SlicingWindows { emission, logic, tables, live, live_rows, ahead, layout, window, .. } = self;
        let Some(Emission { window_end, left }) = emission else { return Ok(Flow::Done) };
        let start = *window_end - layout.size();
        let window = &window(start, *window_end);
        out.set_timestamp(window.max_timestamp());
        match left {
            Left::Drained(entries) => {
                while entries.len() > 0 {
                    if pace.must_pause(1, out) {
                        return Ok(Flow::Again);
                    }
                    let Some((key, state)) = entries.next() else { break };
                    logic.emit_last(Firing { key: &key, window, clocks }, state, out)?;
                }
            }
            Left::Kept { table, next } => {
                let keys = &mut tables.get_mut(*table).keys;
                while *next < keys.len() {
                    if pace.must_pause(1, out) {
                        return Ok(Flow::Again);
                    }
                    // A result leaves the state as it is.
                    let (key, state) = keys.unchanged_mut(*next);
                    logic.emit(Firing { key, window, clocks }, state, out)?;
                    *next += 1;
                }
            }
            Left::Open => {}
            Left::Live { next } => {
                let large = live.len() >= LARGE;
                while *next < live.len() {
                    if pace.must_pause(1, out) {
                        return Ok(Flow::Again);
                    }
                    if large && let Some((_, ahead)) = live.keys().entries().get(*next + AHEAD) {
                        L::prefetch_emit(ahead);
                    }
                    let (key, panes) = live.entry_mut(*next, &(), live_rows);
                    if logic.evict(panes, start) {
                        if !ahead.has_fired(key, *window_end) {
                            logic.emit_panes(Firing { key, window, clocks }, panes, out)?;
                        }
                        *next += 1;
                    } else {
                        // The last key takes its place.
                        let key = key.clone();
                        live.remove(stable_hash(&key), &key, &(), live_rows);
                    }
                }
                if live.is_empty() {
                    live.reset();
                }
                ahead.passed(*window_end);
            }
        }
        Ok(Flow::Done)
    }

    /// Drops slices that no late record can need any more.
    fn drop_over(&mut self) -> Result<()> {
        while let Some(first) = self.past.first_entry() {
            let last_window_end = self.layout.slice_of(*first.key() - 1).last_window_end;
            if last_window_end.is_some_and(|last| !self.late.is_over(last - 1, self.clock_ms)) {
                break;
            }
            self.tables.remove(first.remove(), &mut self.rows);
        }
        let clocks = self.clocks();
        self.logic.expire(self.clock_ms.saturating_sub(self.late.lateness_ms), clocks)
    }
}

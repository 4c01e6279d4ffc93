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
use crate::window::beyond::{Groups, Scan};
use crate::window::function::Firing;
use crate::window::logic::SlicedLogic;
use crate::window::pause::Pause;
use crate::window::saving::Row;

/// With more keys than this, what they keep is not in the cache when their turn comes.
const LARGE: usize = 16 * 1024;
/// How many keys ahead it is fetched then.
const AHEAD: usize = 12;
/// Entries moved into `live` at once, where that may have to make room for them.
const MOVED_AT_ONCE: usize = 4096;

/// A window that is giving its results; the outputs may have no room for all of them at once.
pub(super) struct Emission<K, V, P> {
    pub(super) window_end: i64,
    pub(super) left: Left<K, V, P>,
}

/// What it has still to give.
pub(super) enum Left<K, V, P> {
    /// What the backend has of a slice, and then the table. If it is not to be kept, a page is removed when it has been read.
    Stored { table: u32, keeps: bool, scan: Scan, page: IntoIter<(K, V)> },
    /// These, which are needed no longer.
    Drained(IntoIter<(K, V)>),
    /// The entries of a table from an index on.
    Kept { table: u32, next: usize },
    /// Everything, and open slices are not in `live` yet; the first of them may be half moved.
    Open { moving: Option<Scan> },
    /// The keys of `live` from an index on.
    Live { next: usize },
    /// The keys of `live` that are not in memory.
    LiveStored(LiveStored<K, P>),
}

/// A firing that has come to the keys of `live` that are not in memory.
pub(super) struct LiveStored<K, P> {
    pub(super) scan: Scan,
    /// Read, and not given yet; they stand in the backend as they are.
    pub(super) page: IntoIter<(K, P)>,
    /// Given, and changed, to be written.
    pub(super) given: Vec<Row<(), K, P>>,
    /// Where there are rows after it.
    survivors: Groups,
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
                    Some(end) if end <= complete_end => self.begin(end)?,
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
        let flow = self.drop_over(pace)?;
        self.pause = Pause::after(flow, out);
        Ok(flow)
    }

    /// The end of the next window that holds anything.
    pub(super) fn next_window_end(&self) -> Option<i64> {
        if let Some(emission) = &self.emission {
            return Some(emission.window_end);
        }
        if !self.live.is_empty() || !self.live_stored.is_empty() {
            return Some(self.fired_end + self.layout.slide());
        }
        self.open.first_key_value().map(|(end, _)| self.layout.window_end_from(*end))
    }

    fn begin(&mut self, window_end: i64) -> Result<()> {
        let left = if self.layout.is_single() { self.begin_single()? } else { Left::Open { moving: None } };
        self.emission = Some(Emission { window_end, left });
        self.fired_end = window_end;
        Ok(())
    }

    fn begin_single(&mut self) -> Result<Left<S::Key, L::State, L::Panes>> {
        let (end, table) = self.open.pop_first().expect("the window that fires is an open slice");
        let keeps = !self.late.is_over(end - 1, self.clock_ms);
        if keeps {
            self.keep_past(end, table);
        }
        let stored = self.tables.stored(table);
        if !stored.is_empty() {
            let scan = Scan::of(stored.clone(), &end)?;
            return Ok(Left::Stored { table, keeps, scan, page: Vec::new().into_iter() });
        }
        Ok(self.begin_table(table, keeps))
    }

    /// The slice of a table in memory fires.
    fn begin_table(&mut self, table: u32, keeps: bool) -> Left<S::Key, L::State, L::Panes> {
        match keeps {
            true => Left::Kept { table, next: 0 },
            false => Left::Drained(self.tables.remove(table, &mut self.rows).into_iter()),
        }
    }

    /// Keeps a slice that windows have fired with. There may be one already, of keys that were restored from a task further on.
    fn keep_past(&mut self, end: i64, number: u32) {
        let Some(other) = self.past.insert(end, number) else { return };
        let SlicingWindows { tables, rows, logic, .. } = self;
        let others = tables.stored(other).clone();
        let entries = tables.remove(other, rows);
        let table = tables.get_mut(number);
        table.stored.add_all(&others);
        let keys = &mut table.keys;
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
    fn gather(&mut self, window_end: i64, pace: &mut Pace) -> Result<Flow> {
        while let Some((end, table)) = self.open.first_key_value().map(|(end, table)| (*end, *table)) {
            if end > window_end {
                break;
            }
            let last_window_end = self.layout.slice_of(end - 1).last_window_end;
            let over = last_window_end.is_none_or(|last| self.late.is_over(last - 1, self.clock_ms));
            let keeps = !over && self.late.lateness_ms > 0;
            let stored = self.tables.stored(table);
            if !stored.is_empty() && self.gather_stored(end, table, keeps, pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.open.remove(&end);
            let entries = if keeps {
                self.keep_past(end, table);
                self.tables.get(table).entries().to_vec()
            } else {
                self.tables.remove(table, &mut self.rows)
            };
            let count = entries.len();
            if self.room.is_bounded {
                let mut entries = entries.into_iter();
                while entries.len() > 0 {
                    let some = entries.by_ref().take(MOVED_AT_ONCE).collect();
                    self.gather_entries(end, some)?;
                    self.make_room(entries.len())?;
                }
            } else {
                self.gather_entries(end, entries)?;
            }
            if pace.is_spent(count) {
                return Ok(Flow::Again);
            }
        }
        Ok(Flow::Done)
    }

    /// Moves what the backend has of a slice into `live`. What was moved is removed at once unless it is to be kept, so that the rest is what is
    /// still to be moved.
    fn gather_stored(&mut self, end: i64, table: u32, keeps: bool, pace: &mut Pace) -> Result<Flow> {
        let Some(Emission { left: Left::Open { moving }, .. }) = &mut self.emission else {
            return Ok(Flow::Done);
        };
        let mut scan = match moving.take() {
            Some(scan) => scan,
            None => Scan::of(self.tables.stored(table).clone(), &end)?,
        };
        while !scan.is_done() {
            let entries = self.read_slice(table, keeps, &mut scan)?;
            let count = entries.len();
            self.gather_entries(end, entries)?;
            self.make_room(0)?;
            if pace.is_spent(count) {
                if let Some(Emission { left: Left::Open { moving }, .. }) = &mut self.emission {
                    *moving = Some(scan);
                }
                return Ok(Flow::Again);
            }
        }
        if !keeps {
            self.tables.get_mut(table).stored = Groups::default();
        }
        Ok(Flow::Done)
    }

    /// The next rows of a slice that the backend has and memory has not.
    fn read_slice(&mut self, table: u32, keeps: bool, scan: &mut Scan) -> Result<Vec<(S::Key, L::State)>> {
        let SlicingWindows { tables, rows, .. } = self;
        let keys = tables.get(table);
        let mut entries = Vec::new();
        rows.page(scan, |rows, end, key, state| {
            let is_new = keys.find(stable_hash(&key), &key).is_none();
            if is_new {
                if !keeps {
                    rows.note_gone(end, key.clone());
                }
                entries.push((key, state));
            }
            is_new
        })?;
        Ok(entries)
    }

    fn gather_entries(&mut self, end: i64, entries: Vec<(S::Key, L::State)>) -> Result<()> {
        let SlicingWindows { live, live_rows, live_stored, hashes, found, logic, layout, .. } = self;
        hashes.clear();
        hashes.extend(entries.iter().map(|(key, _)| stable_hash(key)));
        live.keys().find_all(hashes, 0, entries.iter().map(|(key, _)| key), found);
        if !live_stored.is_empty() {
            let missing = |index: &usize| {
                found[*index] == MISSING && live_stored.contains(live_rows.group_of(hashes[*index]))
            };
            let missing: Vec<usize> = (0..entries.len()).filter(missing).collect();
            live_rows.fetch(
                missing.iter().map(|index| (&(), &entries[*index].0)),
                |rows, position, panes| {
                    let index = missing[position];
                    let key = entries[index].0.clone();
                    found[index] = live.insert_restored(hashes[index], key, panes, rows) as u32;
                },
            )?;
        }
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
        Ok(())
    }

    /// Gives results as long as the outputs have room.
    fn emit(&mut self, pace: &mut Pace, out: &mut Collector<L::Out>) -> Result<Flow> {
        if let Some(Emission { window_end, left: Left::Open { .. } }) = self.emission {
            if self.gather(window_end, pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.emission = Some(Emission { window_end, left: Left::Live { next: 0 } });
        }
        if let Some(Emission { window_end, left: Left::Stored { .. } }) = self.emission {
            let Some(left) = self.emit_stored(window_end, pace, out)? else { return Ok(Flow::Again) };
            self.emission = Some(Emission { window_end, left });
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
            Left::Open { .. } | Left::Stored { .. } | Left::LiveStored(_) => {}
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
                let window_end = *window_end;
                if !self.live_stored.is_empty() {
                    let scan = Scan::of(self.live_stored.clone(), &())?;
                    let (page, given, survivors) = (Vec::new().into_iter(), Vec::new(), Groups::default());
                    let left = Left::LiveStored(LiveStored { scan, page, given, survivors });
                    self.emission = Some(Emission { window_end, left });
                }
            }
        }
        self.emit_live_stored(pace, out)
    }

    /// Gives the results of what the backend has of the slice that fires; then gives what is left: its table.
    fn emit_stored(
        &mut self,
        window_end: i64,
        pace: &mut Pace,
        out: &mut Collector<L::Out>,
    ) -> Result<Option<Left<S::Key, L::State, L::Panes>>> {
        let clocks = self.clocks();
        let window = (self.window)(window_end - self.layout.size(), window_end);
        out.set_timestamp(window.max_timestamp());
        loop {
            let SlicingWindows { emission, logic, .. } = self;
            let Some(Emission { left: Left::Stored { table, keeps, scan, page }, .. }) = emission else {
                return Ok(None);
            };
            while page.len() > 0 {
                if pace.must_pause(1, out) {
                    return Ok(None);
                }
                let Some((key, mut state)) = page.next() else { break };
                let firing = Firing { key: &key, window: &window, clocks };
                match keeps {
                    true => logic.emit(firing, &mut state, out)?,
                    false => logic.emit_last(firing, state, out)?,
                }
            }
            let (table, keeps) = (*table, *keeps);
            if scan.is_done() {
                if !keeps {
                    self.tables.get_mut(table).stored = Groups::default();
                }
                return Ok(Some(self.begin_table(table, keeps)));
            }
            let mut scan = std::mem::take(scan);
            let entries = self.read_slice(table, keeps, &mut scan)?.into_iter();
            let left = Left::Stored { table, keeps, scan, page: entries };
            self.emission = Some(Emission { window_end, left });
        }
    }

    /// Gives the results of the keys of `live` that are not in memory, and writes what becomes of them.
    fn emit_live_stored(&mut self, pace: &mut Pace, out: &mut Collector<L::Out>) -> Result<Flow> {
        let clocks = self.clocks();
        let SlicingWindows { emission, logic, live, live_rows, live_stored, ahead, layout, window, .. } =
            self;
        let Some(Emission { window_end, left }) = emission else { return Ok(Flow::Done) };
        if let Left::LiveStored(LiveStored { scan, page, given, survivors }) = left {
            let start = *window_end - layout.size();
            let window = &window(start, *window_end);
            out.set_timestamp(window.max_timestamp());
            loop {
                while page.len() > 0 {
                    if pace.must_pause(1, out) {
                        return Ok(Flow::Again);
                    }
                    let Some((key, mut panes)) = page.next() else { break };
                    let stays = logic.evict(&mut panes, start);
                    if stays {
                        survivors.insert(live_rows.group_of(stable_hash(&key)));
                        if !ahead.has_fired(&key, *window_end) {
                            logic.emit_panes(Firing { key: &key, window, clocks }, &panes, out)?;
                        }
                    }
                    given.push(Row { prefix: (), key, value: stays.then_some(panes) });
                }
                live_rows.write_out(std::mem::take(given))?;
                if scan.is_done() {
                    break;
                }
                let mut entries = Vec::new();
                live_rows.page(scan, |_, (), key, panes| {
                    let is_new = live.keys().find(stable_hash(&key), &key).is_none();
                    if is_new {
                        entries.push((key, panes));
                    }
                    is_new
                })?;
                *page = entries.into_iter();
            }
            *live_stored = std::mem::take(survivors);
        }
        ahead.passed(*window_end);
        Ok(Flow::Done)
    }
}

//! Records that do not go into an open slice.

use std::ops::Bound;

use flott_schema::Result;

use super::SlicingWindows;
use super::adding::add_to;
use super::places::{Fate, Place};
use super::room::fetch_missing;
use crate::batch::Record;
use crate::key::{KeySelector, key_of};
use crate::operator::Collector;
use crate::window::Window;
use crate::window::function::Firing;
use crate::window::logic::SlicedLogic;

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    pub(super) fn add_elsewhere(
        &mut self,
        place: Place,
        record: T,
        time_ms: i64,
        hash: u64,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        match place.fate {
            Fate::Open { table } => {
                let SlicingWindows { selector, logic, tables, rows, .. } = self;
                let table = tables.get_mut(table);
                if !table.stored.is_empty() {
                    fetch_missing(selector, table, rows, std::slice::from_ref(&record), &[hash])?;
                }
                add_to(selector, logic, table, rows, hash, record, time_ms);
            }
            Fate::TooLate => self.late.refuse(record, time_ms, out),
            Fate::Gap if self.late.is_over(time_ms, self.clock_ms) => self.late.refuse(record, time_ms, out),
            Fate::Gap => {}
            Fate::Behind { last_window_end } => {
                let key = key_of(&self.selector, &record);
                if self.room.is_partial {
                    self.fetch_late(place.end, last_window_end, hash, &key)?;
                }
                if last_window_end > self.fired_end {
                    let keeps = self.late.lateness_ms > 0;
                    let copy = if keeps { Some(record.clone()) } else { None };
                    self.add_to_live(place.end, hash, &key, record, time_ms);
                    let Some(record) = copy else { return Ok(()) };
                    self.add_to_past(place.end, hash, record, time_ms);
                } else {
                    self.add_to_past(place.end, hash, record, time_ms);
                }
                self.fire_again(place.end, last_window_end, hash, &key, out)?;
            }
        }
        Ok(())
    }

    fn add_to_past(&mut self, slice_end: i64, hash: u64, record: T, time_ms: i64) {
        let SlicingWindows { selector, logic, tables, rows, past, .. } = self;
        let table = *past.entry(slice_end).or_insert_with(|| tables.add(slice_end));
        add_to(selector, logic, tables.get_mut(table), rows, hash, record, time_ms);
    }

    fn add_to_live(&mut self, slice_end: i64, hash: u64, key: &S::Key, record: T, time_ms: i64) {
        let SlicingWindows { logic, live, live_rows, layout, .. } = self;
        let state = logic.start(record, time_ms);
        let entry = match live.keys().find(hash, key) {
            Some(entry) => entry,
            None => {
                let panes = logic.new_panes(hash, layout.slices_per_window());
                live.insert_new(hash, key.clone(), panes, live_rows)
            }
        };
        logic.add_late(live.value_mut(entry, &(), live_rows), slice_end, state);
    }

    /// Fires the windows of a key again that hold the slice, have fired, and are not over.
    fn fire_again(
        &mut self,
        slice_end: i64,
        last_window_end: i64,
        hash: u64,
        key: &S::Key,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        let clocks = self.clocks();
        let SlicingWindows { layout, logic, past, tables, window, .. } = self;
        let (size, last) = (layout.size(), last_window_end.min(self.fired_end));
        let over_before = self.clock_ms.saturating_sub(self.late.lateness_ms).saturating_add(2);
        let mut end = layout.window_end_from(slice_end.max(over_before));
        if end > last {
            return Ok(());
        }
        let range = (Bound::Excluded(end - size), Bound::Included(last));
        let mut slices = past
            .range(range)
            .filter_map(|(end, table)| tables.get(*table).get(hash, key).map(|state| (*end, state)))
            .peekable();
        let mut panes = logic.new_panes(hash, 0);
        while end <= last {
            while let Some((slice_end, state)) = slices.next_if(|(slice_end, _)| *slice_end <= end) {
                logic.push_pane(&mut panes, slice_end, state.clone());
            }
            logic.evict(&mut panes, end - size);
            let window = &window(end - size, end);
            out.set_timestamp(window.max_timestamp());
            logic.emit_panes(Firing { key, window, clocks }, &panes, out)?;
            end += layout.slide();
        }
        Ok(())
    }
}

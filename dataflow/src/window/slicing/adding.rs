//! The way of the records of a batch into the tables of their slices.
//!
//! Records in order come in long runs of one slice, each added by one tight loop. Records out of order change between
//! neighbouring slices all the time: they are first gathered in a pile for each slice, so that the loop stays tight,
//! and one table after the other is touched.

use std::borrow::Borrow;
use std::vec::{Drain, IntoIter};

use flott_schema::Result;

use super::SlicingWindows;
use super::places::{Fate, Place, REMEMBERED};
use super::room::fetch_missing;
use super::tables::{SliceRows, SliceTable};
use crate::batch::{Record, Timestamps};
use crate::key::{KeySelector, key_of};
use crate::operator::Collector;
use crate::state::MISSING;
use crate::window::Window;
use crate::window::logic::SlicedLogic;

/// Records whose keys are looked up together: what they touch stays in the first-level cache.
const PIECE: usize = 128;
/// Runs shorter than this on average are better gathered.
const SHORT_RUN: usize = 4;

/// Records of one slice.
pub(super) struct Pile<T> {
    table: u32,
    records: Vec<T>,
    hashes: Vec<u64>,
    times: Vec<i64>,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Pile { table: 0, records: Vec::new(), hashes: Vec::new(), times: Vec::new() }
    }
}

/// Owned records, of which those still to come can be seen.
trait Remaining<T>: Iterator<Item = T> {
    fn remaining(&self) -> &[T];
}

impl<T> Remaining<T> for IntoIter<T> {
    fn remaining(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T> Remaining<T> for Drain<'_, T> {
    fn remaining(&self) -> &[T] {
        self.as_slice()
    }
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// Adds a batch, whose hashes are in `hashes`.
    pub(super) fn add_batch(
        &mut self,
        records: Vec<T>,
        times: &Timestamps,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        let count = records.len();
        let runs = match self.scattered {
            true => self.add_scattered(records, times, out)?,
            false => self.add_runs(records, times, out)?,
        };
        self.scattered = runs * SHORT_RUN > count;
        Ok(())
    }

    /// Gives the number of runs.
    fn add_runs(
        &mut self,
        records: Vec<T>,
        times: &Timestamps,
        out: &mut Collector<L::Out>,
    ) -> Result<usize> {
        let count = records.len();
        let mut records = records.into_iter();
        let (mut index, mut runs) = (0, 0);
        while index < count {
            let place = self.find_place(times.get(index))?;
            let run = match times {
                Timestamps::Same(_) => count - index,
                Timestamps::Each(each) => {
                    each[index..].iter().take_while(|time| place.contains(**time)).count()
                }
            };
            match place.fate {
                Fate::Open { table } => {
                    let SlicingWindows { tables, rows, selector, logic, hashes, found, .. } = self;
                    let table = tables.get_mut(table);
                    if !table.stored.is_empty() {
                        fetch_missing(selector, table, rows, &records.as_slice()[..run], &hashes[index..])?;
                    }
                    add_run(selector, logic, table, rows, found, &mut records, run, hashes, times, index);
                }
                _ => self.add_elsewhere_all(place, records.by_ref().take(run), times, index, out)?,
            }
            index += run;
            runs += 1;
        }
        Ok(runs)
    }

    /// Gives the number of runs.
    fn add_scattered(
        &mut self,
        records: Vec<T>,
        times: &Timestamps,
        out: &mut Collector<L::Out>,
    ) -> Result<usize> {
        self.piles.resize_with(REMEMBERED, Pile::default);
        let (mut runs, mut last) = (0, 0);
        for (index, record) in records.into_iter().enumerate() {
            let time_ms = times.get(index);
            let place = self.find_place(time_ms)?;
            runs += usize::from(place.end != last);
            last = place.end;
            let Fate::Open { table } = place.fate else {
                self.add_elsewhere(place, record, time_ms, self.hashes[index], out)?;
                continue;
            };
            if self.piles[place.number()].table != table {
                self.clear_pile(place.number())?;
            }
            let pile = &mut self.piles[place.number()];
            pile.table = table;
            pile.records.push(record);
            pile.hashes.push(self.hashes[index]);
            pile.times.push(time_ms);
        }
        for number in 0..self.piles.len() {
            self.clear_pile(number)?;
        }
        Ok(runs)
    }

    /// Adds the records of a pile to their table.
    fn clear_pile(&mut self, number: usize) -> Result<()> {
        let SlicingWindows { tables, rows, selector, logic, found, piles, .. } = self;
        let Pile { table, records, hashes, times } = &mut piles[number];
        let count = records.len();
        if count == 0 {
            return Ok(());
        }
        let each = Timestamps::Each(std::mem::take(times));
        let table = tables.get_mut(*table);
        if !table.stored.is_empty() {
            fetch_missing(selector, table, rows, records, hashes)?;
        }
        add_run(selector, logic, table, rows, found, &mut records.drain(..), count, hashes, &each, 0);
        hashes.clear();
        if let Timestamps::Each(mut emptied) = each {
            emptied.clear();
            *times = emptied;
        }
        Ok(())
    }

    fn add_elsewhere_all(
        &mut self,
        place: Place,
        records: impl Iterator<Item = T>,
        times: &Timestamps,
        first: usize,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        for (record, index) in records.zip(first..) {
            self.add_elsewhere(place, record, times.get(index), self.hashes[index], out)?;
        }
        Ok(())
    }
}

/// Adds the next `run` records to the table of their slice; the first of them is at `index` of hashes and times.
#[inline(always)]
fn add_run<S, T, W, L>(
    selector: &S,
    logic: &mut L,
    table: &mut SliceTable<S::Key, L::State>,
    rows: &mut SliceRows<S::Key, L::State>,
    found: &mut Vec<u32>,
    records: &mut impl Remaining<T>,
    run: usize,
    hashes: &[u64],
    times: &Timestamps,
    mut index: usize,
) where
    S: KeySelector<T>,
    L: SlicedLogic<S::Key, T, W>,
{
    let end = index + run;
    while index < end {
        let piece = (end - index).min(PIECE);
        let keys = records.remaining().iter().take(piece).map(|record| selector.key(record));
        table.keys.keys().find_all(hashes, index, keys, found);
        for (record, entry) in records.take(piece).zip(&*found) {
            let time_ms = times.get(index);
            match *entry {
                MISSING => add_to(selector, logic, table, rows, hashes[index], record, time_ms),
                entry => {
                    let state = table.keys.value_mut(entry as usize, &table.end, rows);
                    logic.add(state, record, time_ms);
                }
            }
            index += 1;
        }
    }
}

/// Adds a record whose key is looked up alone.
#[cold]
pub(super) fn add_to<S, T, W, L>(
    selector: &S,
    logic: &mut L,
    table: &mut SliceTable<S::Key, L::State>,
    rows: &mut SliceRows<S::Key, L::State>,
    hash: u64,
    record: T,
    time_ms: i64,
) where
    S: KeySelector<T>,
    L: SlicedLogic<S::Key, T, W>,
{
    let found = table.keys.keys().find(hash, selector.key(&record).borrow());
    match found {
        Some(entry) => logic.add(table.keys.value_mut(entry, &table.end, rows), record, time_ms),
        None => {
            let key = key_of(selector, &record);
            table.keys.insert_new(hash, key, logic.start(record, time_ms), rows);
        }
    }
}

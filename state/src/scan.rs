//! Rows of a table in their order, wherever they are: in the database, or in memory on their way there.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use flott_dataflow::snapshot::{ScanPlace, ScanRange, ScannedRow};
use flott_schema::Result;

use crate::rocks::Database;
use crate::rows::Run;

/// Gives the rows of a range behind a place, until `row` has it stop; then the place to go on behind. `waiting` are the runs that may not be in the
/// database yet, from young to old.
pub(crate) fn scan(
    database: &Database,
    waiting: &[Arc<Run>],
    table: u16,
    range: &ScanRange,
    after: Option<&ScanPlace>,
    row: ScannedRow<'_>,
) -> Result<Option<ScanPlace>> {
    let mut stored = database.rows_of(table);
    // Where each run has come to, and where the rows of the key group end in it.
    let mut places: Vec<usize> = Vec::with_capacity(waiting.len());
    let begin = after.map_or(range.key_groups.start, |place| u32::from(place.key_group));
    for group in begin..range.key_groups.end {
        let group = group as u16;
        let behind = after.filter(|place| place.key_group == group);
        let from = behind.map_or(&range.from[..], |place| &place.key[..]);
        places.clear();
        places.extend(waiting.iter().map(|run| run.position(group, table, from)));
        stored.seek(group, from)?;
        let key_at = |run: &Run, index: usize| {
            let row = (index < run.len()).then(|| run.row(index))?;
            let is_wanted = row.key_group == group && row.table == table && range.is_below(row.key);
            // The borrow is that of the run.
            is_wanted.then_some(index)
        };
        loop {
            let in_database = stored.row(group).filter(|(key, _)| range.is_below(key));
            let mut first: Option<(usize, usize)> = None;
            for (age, (run, place)) in waiting.iter().zip(&places).enumerate() {
                let Some(index) = key_at(run, *place) else { continue };
                let is_first =
                    first.is_none_or(|(other, at)| run.row(index).key < waiting[other].row(at).key);
                if is_first {
                    first = Some((age, index));
                }
            }
            let in_run = first.map(|(age, index)| waiting[age].row(index));
            let (key, value, from_database) = match (in_run, in_database) {
                (None, None) => break,
                (Some(row), None) => (row.key, row.value, false),
                (None, Some((key, value))) => (key, Some(value), true),
                (Some(row), Some((key, value))) => match row.key.cmp(key) {
                    Ordering::Less => (row.key, row.value, false),
                    Ordering::Equal => (row.key, row.value, true),
                    Ordering::Greater => (key, Some(value), true),
                },
            };
            let is_behind = behind.is_some_and(|place| place.key == key);
            let goes_on = match value {
                Some(value) if !is_behind => row(group, key, value)?,
                _ => ControlFlow::Continue(()),
            };
            if goes_on.is_break() {
                return Ok(Some(ScanPlace { key_group: group, key: key.to_vec() }));
            }
            for (run, place) in waiting.iter().zip(&mut places) {
                if key_at(run, *place).is_some_and(|index| run.row(index).key == key) {
                    *place += 1;
                }
            }
            if from_database {
                stored.next()?;
            }
        }
    }
    Ok(None)
}

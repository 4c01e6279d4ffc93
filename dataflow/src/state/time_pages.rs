//! Rows whose keys begin with a time, read in the order of time, a page at a time.
//!
//! Such rows are stored in the order of key group, time and what follows it. What was read is all before a *horizon*: a time, and a key group for
//! rows of that very time.

use std::ops::ControlFlow;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use super::rows::{push_ordered, take_ordered};
use crate::snapshot::{ScanPlace, ScanRange, StateBackend, TableId};

/// Of a row's time, those of this key group and behind it; and of later times.
pub(crate) type Horizon = (i64, u16);

/// A table in the order of time.
pub(crate) struct TimePages<'a> {
    pub(crate) state: &'a dyn StateBackend,
    pub(crate) table: TableId,
    /// Stands in front of the time.
    pub(crate) lead: &'a [u8],
    /// Those of the task.
    pub(crate) key_groups: KeyGroupRange,
}

impl TimePages<'_> {
    /// Gives rows from `horizon` on, about `page` of them: `take` reads what follows the time in a row's key, `found` is given that with time and key
    /// group. Answers with the new horizon, or with none when those were all.
    pub(crate) fn next<T>(
        &self,
        horizon: Horizon,
        page: usize,
        take: &mut dyn FnMut(&[u8]) -> Result<T>,
        found: &mut dyn FnMut(Horizon, T),
    ) -> Result<Option<Horizon>> {
        let key_groups = self.key_groups;
        let (mut time_ms, first) = horizon;
        let mut group = key_groups.start.max(first.into());
        loop {
            // What is left of the time at the horizon.
            let mut count = 0;
            while group < key_groups.end {
                let range = ScanRange::of_prefix(one(group), self.prefix(time_ms));
                let (rows, _) = self.read(&range, usize::MAX, take)?;
                count += rows.len();
                rows.into_iter().for_each(|(time_ms, row)| found((time_ms, group as u16), row));
                group += 1;
                if count >= page {
                    return Ok(Some((time_ms, group as u16)));
                }
            }
            // What is later: as far as is known of all key groups.
            let Some(next_ms) = time_ms.checked_add(1) else { return Ok(None) };
            let groups = (key_groups.end - key_groups.start) as usize;
            let mut known_ms = i64::MAX;
            let mut is_all = true;
            let mut later: Vec<(Horizon, T)> = Vec::new();
            for group in key_groups.start..key_groups.end {
                let range = ScanRange {
                    from: self.prefix(next_ms),
                    ..ScanRange::of_prefix(one(group), self.lead.to_vec())
                };
                let (rows, place) = self.read(&range, (page / groups).max(1), take)?;
                if place.is_some() {
                    is_all = false;
                    known_ms = rows.last().map_or(known_ms, |(last_ms, _)| known_ms.min(*last_ms));
                }
                later.extend(rows.into_iter().map(|(time_ms, row)| ((time_ms, group as u16), row)));
            }
            if !is_all {
                later.retain(|((time_ms, _), _)| *time_ms < known_ms);
            }
            let is_any = !later.is_empty();
            later.into_iter().for_each(|(at, row)| found(at, row));
            if is_all {
                return Ok(None);
            }
            (time_ms, group) = (known_ms, key_groups.start);
            if is_any {
                return Ok(Some((time_ms, group as u16)));
            }
        }
    }

    fn prefix(&self, time_ms: i64) -> Vec<u8> {
        let mut prefix = self.lead.to_vec();
        push_ordered(time_ms, &mut prefix);
        prefix
    }

    /// Reads so many rows of a range, and says where there may be more.
    #[allow(clippy::type_complexity)]
    fn read<T>(
        &self,
        range: &ScanRange,
        wanted: usize,
        take: &mut dyn FnMut(&[u8]) -> Result<T>,
    ) -> Result<(Vec<(i64, T)>, Option<ScanPlace>)> {
        let mut rows: Vec<(i64, T)> = Vec::new();
        let place = self.state.scan(self.table, range, None, &mut |_, key, _| {
            let mut rest = key.get(self.lead.len()..).unwrap_or_default();
            rows.push((take_ordered(&mut rest)?, take(rest)?));
            Ok(if rows.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok((rows, place))
    }
}

fn one(group: u32) -> KeyGroupRange {
    KeyGroupRange { start: group, end: group + 1 }
}

//! Rows of windows that the backend has and memory has not.
//!
//! Where rows can be fetched, a table is a cache: what has grown too large forgets rows, those written first that the backend has not as
//! they are. A row in memory counts more than the backend's. What is gone is told to the backend before it is asked for anything.

use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use super::Window;
use super::saving::{Outgoing, Prefix, Row, encode};
use crate::codec::{decode_value, encode_value, take_value};
use crate::key::{Key, stable_hash};
use crate::snapshot::{ScanPlace, ScanRange, WantedKey};
use crate::state::rows::{TypedRows, group_of};
use crate::state::time_pages::{Horizon, TimePages};

/// Rows that are gone, of which the backend need not be told at once, and the share of the budget that they may take until the next barrier.
const GONE_MAX: usize = if cfg!(test) { 4 } else { 4096 };
const GONE_SHARE: usize = 16;
/// Rows written at once.
const WRITTEN_AT_ONCE: usize = 16 * 1024;
/// Rows read at once, and bytes of their values. Few rows in tests, so that firings stop between them.
const PAGE_ROWS: usize = if cfg!(test) { 3 } else { 4096 };
const PAGE_BYTES: usize = 4 << 20;
/// Rows that are read before the next prefix is sought instead.
const READ_BEFORE_SEEK: usize = if cfg!(test) { 2 } else { 32 };

/// Key groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(Vec<u64>);

impl Groups {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, group: u16) {
        let word = usize::from(group) / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (group % 64);
    }

    #[inline]
    pub(crate) fn contains(&self, group: u16) -> bool {
        self.0.get(usize::from(group) / 64).is_some_and(|word| word & (1 << (group % 64)) != 0)
    }

    pub(crate) fn add_all(&mut self, others: &Groups) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word |= other);
    }

    /// The first run of key groups from `start` on that are all in it.
    fn run_from(&self, start: u32) -> Option<KeyGroupRange> {
        let end = self.0.len() as u32 * 64;
        let is_in = |group: &u32| self.contains(*group as u16);
        let start = (start..end).find(is_in)?;
        let end = (start..end).find(|group| !is_in(group)).unwrap_or(end);
        Some(KeyGroupRange { start, end })
    }
}

/// A way through the rows of a prefix in some key groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    groups: Groups,
    prefix: Vec<u8>,
    place: Option<ScanPlace>,
    done: bool,
}

impl Scan {
    /// All rows of these key groups that `prefix` stands in front of.
    pub(crate) fn of<P: Prefix>(groups: Groups, prefix: &P) -> Result<Self> {
        let mut bytes = Vec::new();
        prefix.push(&mut bytes)?;
        Ok(Scan { done: groups.is_empty(), groups, prefix: bytes, place: None })
    }

    /// All rows of these key groups.
    pub(crate) fn of_all(key_groups: KeyGroupRange) -> Self {
        let mut groups = Groups::default();
        (key_groups.start..key_groups.end).for_each(|group| groups.insert(group as u16));
        Scan { groups, ..Scan::default() }
    }

    /// Whether there are no more rows.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }
}

impl<P, K, V> Outgoing<P, K, V>
where
    P: Prefix,
    K: Key,
    V: Clone + Send + Serialize + DeserializeOwned + 'static,
{
    /// Whether rows may be forgotten.
    pub(crate) fn can_fetch(&self) -> bool {
        self.table.as_ref().is_some_and(|(state, _)| state.can_fetch())
    }

    /// Bytes that the operator may keep in memory.
    pub(crate) fn budget_bytes(&self) -> usize {
        self.table.as_ref().map_or(usize::MAX, |(state, _)| state.budget_bytes())
    }

    /// The key group of a key with this hash.
    #[inline]
    pub(crate) fn group_of(&self, hash: u64) -> u16 {
        group_of(hash, self.max_parallelism)
    }

    /// Whether a row was used since it was last passed by.
    pub(super) fn pass(&self, mark: &mut u8) -> bool {
        self.epochs.pass(mark)
    }

    /// A row leaves memory; gives it back if the backend has not got it as it is, to be written.
    pub(super) fn forget(&mut self, mut mark: u8, row: Row<P, K, V>) -> Option<Row<P, K, V>> {
        if self.epochs.is_frozen(mark) {
            self.epochs.copied(&mut mark);
            self.copied.push(Row {
                prefix: row.prefix.clone(),
                key: row.key.clone(),
                value: row.value.clone(),
            });
        }
        (!self.epochs.is_clean(mark)).then_some(row)
    }

    /// Writes rows, and tells what is gone.
    pub(crate) fn write_out(&mut self, rows: Vec<Row<P, K, V>>) -> Result<()> {
        // Frozen rows that were copied are older than what is written.
        self.send_copied();
        let Some((state, table)) = &self.table else { return Ok(()) };
        let mut rows = std::mem::take(&mut self.gone).into_iter().chain(rows).peekable();
        let max_parallelism = self.max_parallelism;
        while rows.peek().is_some() {
            let some: Vec<Row<P, K, V>> = rows.by_ref().take(WRITTEN_AT_ONCE).collect();
            let encode = move |row: &Row<P, K, V>, key: &mut Vec<u8>, value: &mut Vec<u8>| {
                encode(row, max_parallelism, key, value)
            };
            state.write(*table, TypedRows::boxed(some, encode))?;
        }
        Ok(())
    }

    /// Tells what is gone, if that is much.
    pub(crate) fn tell_gone(&mut self) -> Result<()> {
        if self.gone.len() <= GONE_MAX || !self.can_fetch() {
            return Ok(());
        }
        let gone_bytes = self.gone.len() * size_of::<Row<P, K, V>>();
        if gone_bytes > self.budget_bytes() / GONE_SHARE { self.write_out(Vec::new()) } else { Ok(()) }
    }

    /// Gets rows; `found` is given the position of each that there is, and its value.
    pub(crate) fn fetch<'a>(
        &mut self,
        wanted: impl ExactSizeIterator<Item = (&'a P, &'a K)>,
        mut found: impl FnMut(&mut Self, usize, V),
    ) -> Result<()> {
        if wanted.len() == 0 {
            return Ok(());
        }
        self.write_out(Vec::new())?;
        let Some((state, table)) = self.table.clone() else { return Ok(()) };
        let (mut bytes, mut ends, mut groups) = (Vec::new(), vec![0], Vec::with_capacity(wanted.len()));
        for (prefix, key) in wanted {
            prefix.push(&mut bytes)?;
            encode_value(key, &mut bytes)?;
            ends.push(bytes.len());
            groups.push(self.group_of(stable_hash(key)));
        }
        let keys = ends.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
        let keys: Vec<WantedKey<'_>> = groups.into_iter().zip(keys).collect();
        state.fetch(table, &keys, &mut |position, value| {
            found(self, position, decode_value(value)?);
            Ok(())
        })
    }

    /// Gives the next rows on a scan's way: a page of them, counting those for which `row` says so.
    pub(crate) fn page(
        &mut self,
        scan: &mut Scan,
        mut row: impl FnMut(&mut Self, P, K, V) -> bool,
    ) -> Result<()> {
        self.raw_page(scan, |rows, mut key, value| {
            let prefix = P::take(&mut key)?;
            Ok(row(rows, prefix, decode_value(key)?, decode_value(value)?))
        })
    }

    /// Has the next rows on a scan's way be gone; gives their number.
    pub(crate) fn remove_page(&mut self, scan: &mut Scan) -> Result<usize> {
        let mut count = 0;
        self.raw_page(scan, |rows, mut key, _| {
            let prefix = P::take(&mut key)?;
            rows.note_gone(prefix, decode_value(key)?);
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// Gives the keys of the next rows in the order of time, where `lead`, a time and a window stand in front of the key. Gives the next horizon.
    pub(crate) fn keys_in_time<W: Window>(
        &mut self,
        lead: &[u8],
        key_groups: KeyGroupRange,
        horizon: Horizon,
        page: usize,
        found: &mut dyn FnMut(Horizon, K),
    ) -> Result<Option<Horizon>> {
        self.write_out(Vec::new())?;
        let Some((state, table)) = &self.table else { return Ok(None) };
        let pages = TimePages { state: &**state, table: *table, lead, key_groups };
        let mut key_behind = |mut rest: &[u8]| {
            take_value::<W>(&mut rest)?;
            decode_value(rest)
        };
        pages.next(horizon, page, &mut key_behind, found)
    }

    fn raw_page(
        &mut self,
        scan: &mut Scan,
        mut row: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.write_out(Vec::new())?;
        let Some((state, table)) = self.table.clone() else { return Ok(()) };
        let (mut rows_left, mut bytes_left) = (PAGE_ROWS, PAGE_BYTES);
        // Rows that do not count are not read for ever either.
        let mut looked_at_left = PAGE_ROWS * 8;
        let mut group = scan.place.as_ref().map_or(0, |place| u32::from(place.key_group));
        while let Some(key_groups) = scan.groups.run_from(group) {
            let range = ScanRange::of_prefix(key_groups, scan.prefix.clone());
            let stopped = state.scan(table, &range, scan.place.as_ref(), &mut |_, key, value| {
                looked_at_left -= 1;
                if row(self, key, value)? {
                    rows_left -= 1;
                    bytes_left = bytes_left.saturating_sub(value.len());
                }
                let goes_on = rows_left > 0 && bytes_left > 0 && looked_at_left > 0;
                Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if stopped.is_some() {
                scan.place = stopped;
                return Ok(());
            }
            scan.place = None;
            group = key_groups.end;
        }
        scan.done = true;
        Ok(())
    }

    /// Finds what stands in front of the backend's rows: `found` is given each key group and prefix that there are rows of. Where prefixes have
    /// many rows these are not all looked at.
    pub(crate) fn prefixes(
        &self,
        key_groups: KeyGroupRange,
        mut found: impl FnMut(u16, P) -> Result<()>,
    ) -> Result<()> {
        let Some((state, table)) = &self.table else { return Ok(()) };
        for start in key_groups.start..key_groups.end {
            let mut range = ScanRange::all(KeyGroupRange { start, end: start + 1 });
            loop {
                let mut last: Option<Vec<u8>> = None;
                let mut seen = 0;
                let stopped = state.scan(*table, &range, None, &mut |group, key, _| {
                    seen += 1;
                    if last.as_ref().is_none_or(|last| !key.starts_with(last)) {
                        let mut rest = key;
                        let prefix = P::take(&mut rest)?;
                        last = Some(key[..key.len() - rest.len()].to_vec());
                        found(group, prefix)?;
                        seen = 0;
                    }
                    Ok(if seen < READ_BEFORE_SEEK {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    })
                })?;
                let (Some(_), Some(last)) = (stopped, last) else { break };
                match ScanRange::of_prefix(range.key_groups, last).below {
                    Some(next) => range.from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_groups_are_given_in_runs() {
        let mut groups = Groups::default();
        assert!(groups.is_empty() && groups.run_from(0).is_none());
        [3, 4, 5, 63, 64, 127, 300].into_iter().for_each(|group| groups.insert(group));
        let mut others = Groups::default();
        others.insert(6);
        groups.add_all(&others);
        assert!(groups.contains(6) && groups.contains(300) && !groups.contains(7) && !groups.contains(9999));
        let mut runs = Vec::new();
        let mut from = 0;
        while let Some(run) = groups.run_from(from) {
            runs.push((run.start, run.end));
            from = run.end;
        }
        assert_eq!(runs, [(3, 7), (63, 65), (127, 128), (300, 301)]);
        assert_eq!(groups.run_from(5), Some(KeyGroupRange { start: 5, end: 7 }));
    }
}

//! What leads to the rows of windows that merge, where those are with the backend: the windows of a key, and the timers of triggers by time.
//!
//! A row of a window begins with its end, so the windows that end next are found by themselves. A key's list is handed in with each row of
//! the key; it may name windows that are gone, and never lacks one. Timers stand in the rows of their windows, and here once more.

use std::collections::BTreeMap;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, stable_hash};
use crate::snapshot::ListMode;
use crate::window::Window;
use crate::window::beyond::Scan;
use crate::window::general::rules::Kept;
use crate::window::general::timers::OwnTimers;
use crate::window::saving::{OfTimer, OfWindow, Outgoing, Row};

/// Names of the tables; frozen.
const LISTS: &str = "windows-of-keys";
const TIMERS: &str = "trigger-timers";
/// Name of the list state that says that there is an index; frozen.
const INDEXED: &str = "indexed";

/// The index. Tables are registered in any case, so that a snapshot with an index is read where none is kept.
pub(super) struct Index<K, W> {
    pub(super) lists: Outgoing<(), K, Vec<W>>,
    pub(super) timers: Outgoing<OfTimer<W>, K, ()>,
    /// Whether rows may be with the backend alone.
    is_kept: bool,
}

impl<K, W> Default for Index<K, W> {
    fn default() -> Self {
        Index { lists: Outgoing::default(), timers: Outgoing::default(), is_kept: false }
    }
}

impl<K: Key, W: Window> Index<K, W> {
    /// Whether what the operator starts from has an index.
    pub(super) fn open(&mut self, ctx: &OperatorContext) -> Result<bool> {
        self.lists.register(ctx, LISTS)?;
        self.timers.register(ctx, TIMERS)?;
        self.is_kept = self.lists.can_fetch();
        let Some(state) = &ctx.state else { return Ok(false) };
        Ok(!state.list(INDEXED)?.is_empty())
    }

    /// A barrier.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.lists.freeze();
        self.timers.freeze();
        match &self.lists.table {
            Some((state, _)) if self.is_kept => state.set_list(INDEXED, ListMode::Union, "", vec![vec![1]]),
            _ => Ok(()),
        }
    }

    /// All frozen rows were handed in.
    pub(super) fn finish(&mut self) {
        self.lists.finish();
        self.timers.finish();
    }

    /// Tells what is gone, if that is much.
    pub(super) fn tell_gone(&mut self) -> Result<()> {
        self.lists.tell_gone()?;
        self.timers.tell_gone()
    }

    /// Timers of a window are no more.
    pub(super) fn note_timers_gone(&mut self, key: &K, window: &W, own: &OwnTimers) {
        if self.is_kept && !own.is_empty() {
            rows_of(key, window, own).for_each(|row| self.timers.note_gone(row.prefix, row.key));
        }
    }

    /// For each of these keys its windows, with the key's position.
    pub(super) fn windows_of(&mut self, keys: &[(u64, K)]) -> Result<Vec<(OfWindow<W>, usize)>> {
        let mut windows = Vec::with_capacity(keys.len());
        self.lists.fetch(keys.iter().map(|(_, key)| (&(), key)), |_, position, list| {
            windows.extend(list.into_iter().map(|window| (OfWindow(window), position)));
        })?;
        Ok(windows)
    }

    /// Makes an index of rows that were written without.
    pub(super) fn build<S: Record, TS: Record>(
        &mut self,
        rows: &mut Outgoing<OfWindow<W>, K, Kept<S, TS>>,
        key_groups: KeyGroupRange,
    ) -> Result<()> {
        let mut scan = Scan::of_all(key_groups);
        while !scan.is_done() {
            // By hash: equal keys are next to each other, or a few apart.
            let mut found: BTreeMap<u64, Vec<(K, Vec<W>)>> = BTreeMap::new();
            let mut timers = Vec::new();
            rows.page(&mut scan, |_, OfWindow(window), key, kept| {
                timers.extend(rows_of(&key, &window, &kept.timers));
                let keys = found.entry(stable_hash(&key)).or_default();
                match keys.iter_mut().find(|(other, _)| *other == key) {
                    Some((_, windows)) => windows.push(window),
                    None => keys.push((key, vec![window])),
                }
                true
            })?;
            let mut lists: Vec<(K, Vec<W>)> = found.into_values().flatten().collect();
            let keys: Vec<(u64, K)> = lists.iter().map(|(key, _)| (stable_hash(key), key.clone())).collect();
            for (window, position) in self.windows_of(&keys)? {
                lists[position].1.push(window.0);
            }
            let row = |(key, windows)| Row { prefix: (), key, value: Some(windows) };
            self.lists.write_out(lists.into_iter().map(row).collect())?;
            self.timers.write_out(timers)?;
        }
        Ok(())
    }
}

/// The rows of a window's timers.
pub(super) fn rows_of<K: Clone, W: Clone>(
    key: &K,
    window: &W,
    own: &OwnTimers,
) -> impl Iterator<Item = Row<OfTimer<W>, K, ()>> {
    own.iter().map(|(domain, time_ms)| Row {
        prefix: OfTimer { domain, time_ms, window: window.clone() },
        key: key.clone(),
        value: Some(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TimeDomain;
    use crate::window::TimeWindow;
    use crate::window::saving::{Prefix, encode};

    #[test]
    fn the_stored_form_of_the_index_is_frozen() {
        assert_eq!((LISTS, TIMERS, INDEXED), ("windows-of-keys", "trigger-timers", "indexed"));
        let window = TimeWindow::new(1, -300);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let row = Row { prefix: (), key: "ab".to_string(), value: Some(vec![window, TimeWindow::new(2, 3)]) };
        encode(&row, 128, &mut key, &mut value).unwrap();
        assert_eq!((key, value), (vec![2, b'a', b'b'], vec![2, 2, 0xd7, 4, 4, 6]));
        for (domain, lead) in [(TimeDomain::Event, 0), (TimeDomain::Processing, 1)] {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            let timer = OfTimer { domain, time_ms: 5, window };
            let row = Row { prefix: timer.clone(), key: 7u8, value: Some(()) };
            encode(&row, 128, &mut key, &mut value).unwrap();
            assert_eq!(key, [lead, 0x80, 0, 0, 0, 0, 0, 0, 5, 2, 0xd7, 4, 7]);
            assert!(value.is_empty());
            let mut rest = &key[..];
            assert_eq!((OfTimer::take(&mut rest).unwrap(), rest), (timer, &[7u8][..]));
        }
        assert!(OfTimer::<TimeWindow>::take(&mut &[2u8; 20][..]).is_err());
    }
}

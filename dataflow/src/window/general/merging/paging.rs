//! Keys whose windows memory has no room for.
//!
//! A key is in memory with all of its windows, or not at all. When the budget is spent, keys that were not used lately are forgotten, what the
//! backend has not as it is written first. A key comes back before its next record is added, or when something of it is due.

use std::borrow::Borrow;

use flott_schema::Result;
use flott_schema::key_group::KeyGroupRange;

use super::index::rows_of;
use super::{First, Held, Merging, NONE, row};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, key_of, stable_hash};
use crate::operators::bounded::size::{SAMPLED_OF_SLICE, mean_owned_bytes_of};
use crate::state::epochs::PASSED_MAX;
use crate::state::time_pages::Horizon;
use crate::state::{KeyTable, TimeDomain};
use crate::window::clocks::SavedClocks;
use crate::window::general::Rules;
use crate::window::general::rules::Kept;
use crate::window::general::wakes::Wakes;
use crate::window::saving::{OfTimer, OfWindow, Row};
use crate::window::trigger::{TimerRequest, Trigger};
use crate::window::{Window, WindowAssigner};

/// Keys of which something is due that are fetched together, at most.
const DUE_AT_ONCE: usize = if cfg!(test) { 3 } else { 512 };
/// Bytes of an entry's share of the buckets, of the queue and of its mark.
const INDEX_BYTES: usize = 24;
/// Entries of the queue that do not count any more, before it is made anew.
const STALE_MAX: usize = if cfg!(test) { 4 } else { 1024 };

/// What is known of keys that are not in memory.
pub(super) struct Paging<K> {
    /// Whether there may be such keys.
    is_partial: bool,
    key_groups: KeyGroupRange,
    /// How long behind its end a window is dropped.
    lateness_ms: i64,
    /// How far the tasks were that wrote what was restored.
    saved: SavedClocks,
    /// Of windows that are not in memory, those have ended whose end and key group come before.
    ended: Horizon,
    /// By the ends of windows that have not ended.
    ends: Wakes<K>,
    /// By the ends of windows that are to be dropped later than they end.
    drops: Wakes<K>,
    /// By the timers of triggers, of each clock.
    timers: [Wakes<K>; 2],
    /// Records that come before the room is looked at again.
    records_left: usize,
    /// About what a window takes.
    entry_bytes: usize,
    turn: usize,
    /// Where the clock's hand stands that chooses what is forgotten.
    hand: usize,
    /// Entries of the queue that do not count any more.
    stale: usize,
}

impl<K: Key> Paging<K> {
    fn new(ctx: &OperatorContext, lateness_ms: i64) -> Self {
        Paging {
            is_partial: false,
            key_groups: ctx.task.key_groups(),
            lateness_ms,
            saved: SavedClocks::default(),
            ended: (i64::MIN, 0),
            ends: Wakes::default(),
            drops: Wakes::default(),
            timers: Default::default(),
            records_left: 0,
            entry_bytes: 1,
            turn: 0,
            hand: 0,
            stale: 0,
        }
    }

    /// Whether a window with this end, and a key of this group, has ended if it is not in memory.
    fn has_ended(&self, at: Horizon) -> bool {
        at < self.ended || at.0 <= self.saved.of_group(at.1.into()).clock_ms
    }

    /// Where nothing that is not in memory ends any more up to `clock_ms`, it has ended.
    fn move_ended(&mut self, clock_ms: i64) {
        let clock = (clock_ms.saturating_add(1), 0);
        self.ended = self.ended.max(self.ends.next().map_or(clock, |next| next.min(clock)));
    }
}

/// Whether windows are dropped later than they end.
fn drops_later<T, A, Tr, L>(rules: &Rules<T, A, Tr, L>) -> bool {
    !rules.shares_end_timer || rules.late.lateness_ms > 0
}

impl<K: Key, W: Window, S: Record, TS: Record + Default> Merging<K, W, S, TS> {
    /// Where rows can be fetched: nothing is loaded.
    pub(super) fn open_paging<T, A, Tr, L>(
        &mut self,
        rules: &Rules<T, A, Tr, L>,
        ctx: &OperatorContext,
        saved: &SavedClocks,
        is_indexed: bool,
    ) -> Result<()> {
        let mut paging = Paging::new(ctx, rules.late.lateness_ms);
        if ctx.state.as_ref().is_some_and(|state| state.is_restored()) {
            if !is_indexed {
                self.index.build(&mut self.rows, paging.key_groups)?;
            }
            let next_ms = saved.least().clock_ms.saturating_add(1);
            if rules.shares_end_timer {
                paging.ends.begin_at(next_ms);
            }
            if drops_later(rules) {
                paging.drops.begin_at(next_ms.saturating_sub(rules.late.lateness_ms));
            }
            paging.timers.iter_mut().for_each(|timers| timers.begin_at(i64::MIN));
            paging.saved = saved.clone();
            paging.is_partial = true;
        }
        self.paging = Some(paging);
        Ok(())
    }

    /// When something that is not in memory may next be due on the clock of the windows.
    pub(super) fn next_beyond_ms(&self) -> Option<i64> {
        let paging = self.paging.as_ref()?;
        // One that would be dropped behind the end of time never is.
        let drop_ms = paging.drops.next().and_then(|(time_ms, _)| time_ms.checked_add(paging.lateness_ms));
        let drop_ms = drop_ms.filter(|drop_ms| *drop_ms < i64::MAX);
        paging.ends.next().map(|(time_ms, _)| time_ms).into_iter().chain(drop_ms).min()
    }

    /// No timer of a key that is not in memory fires before this.
    pub(super) fn next_timer_beyond_ms(&self, domain: TimeDomain) -> i64 {
        self.paging.as_ref().map_or(i64::MAX, |paging| paging.timers[domain as usize].next_ms())
    }

    /// Gets the windows of the keys of a batch.
    pub(super) fn load_keys<T, A, Tr, L, Se>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        selector: &Se,
        hashes: &[u64],
        records: &[T],
    ) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
        Se: KeySelector<T, Key = K>,
    {
        if !self.paging.as_ref().is_some_and(|paging| paging.is_partial) {
            return Ok(());
        }
        let is_missing = |keys: &KeyTable<K, First>, record: &T, hash: u64| {
            keys.find(hash, selector.key(record).borrow()).is_none()
        };
        let with_hashes = || records.iter().zip(hashes.iter().copied());
        let count = with_hashes().filter(|(record, hash)| is_missing(&self.keys, record, *hash)).count();
        if count == 0 {
            return Ok(());
        }
        // Keys of this batch may have to go for that; they are missing then too.
        self.make_room(rules, count)?;
        let missing = with_hashes().filter(|(record, hash)| is_missing(&self.keys, record, *hash));
        let mut missing: Vec<(u64, K)> =
            missing.map(|(record, hash)| (hash, key_of(selector, record))).collect();
        missing.sort_unstable_by_key(|(hash, _)| *hash);
        // Of keys with the same hash, one may be left twice: its windows are found the second time.
        missing.dedup_by(|a, b| a == b);
        self.load(rules, missing)
    }

    /// Gets what is due next, if it is not in memory, nor anything that is due before.
    pub(super) fn load_due<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        domain: TimeDomain,
        until_ms: i64,
    ) -> Result<bool>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let mut is_any = false;
        while self.paging.as_ref().is_some_and(|paging| paging.is_partial) {
            // Not when keys have been taken and are not loaded yet.
            if rules.shares_end_timer {
                self.move_ended(rules.clock_ms());
            }
            let is_own = domain == rules.domain;
            let due_ms = self.due.first_key_value().map(|(due_ms, _)| *due_ms).filter(|_| is_own);
            let first_ms = due_ms.unwrap_or(i64::MAX).min(rules.timers.next_ms(domain));
            let before_ms = if first_ms <= until_ms { first_ms.saturating_sub(1) } else { until_ms };
            let mut keys = self.take_due(rules, domain, before_ms, until_ms)?;
            if keys.is_empty() {
                break;
            }
            is_any = true;
            self.make_room(rules, keys.len())?;
            keys.retain(|(hash, key)| self.keys.find(*hash, key).is_none());
            self.load(rules, keys)?;
        }
        Ok(is_any)
    }

    /// Takes keys of which something is due up to `until_ms`, if it is for the first of them up to `before_ms`.
    fn take_due<T, A, Tr, L>(
        &mut self,
        rules: &Rules<T, A, Tr, L>,
        domain: TimeDomain,
        before_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<(u64, K)>> {
        let Merging { rows, index, paging: Some(paging), .. } = self else { return Ok(Vec::new()) };
        let budget_bytes = rows.budget_bytes();
        let (page, key_groups) = (Wakes::<K>::page(budget_bytes), paging.key_groups);
        let wanted = (budget_bytes / 8 / paging.entry_bytes).clamp(1, DUE_AT_ONCE);
        let lateness_ms = paging.lateness_ms;
        let is_own = domain == rules.domain;
        loop {
            let ms = |wakes: &Wakes<K>| wakes.next().map(|(time_ms, _)| time_ms);
            let timer_ms = ms(&paging.timers[domain as usize]);
            let end_ms = ms(&paging.ends).filter(|_| is_own);
            let drop_ms = ms(&paging.drops).filter(|_| is_own).and_then(|ms| ms.checked_add(lateness_ms));
            let Some(first_ms) =
                timer_ms.into_iter().chain(end_ms).chain(drop_ms).min().filter(|ms| *ms <= before_ms)
            else {
                return Ok(Vec::new());
            };
            let keys = if timer_ms == Some(first_ms) {
                let lead = [OfTimer::<W>::lead(domain)];
                let timers = &mut index.timers;
                paging.timers[domain as usize].take(until_ms, wanted, page, &mut |from, page, found| {
                    timers.keys_in_time::<W>(&lead, key_groups, from, page, found)
                })?
            } else {
                let (wakes, until_ms) = match end_ms == Some(first_ms) {
                    true => (&mut paging.ends, until_ms),
                    false => (&mut paging.drops, until_ms.saturating_sub(lateness_ms)),
                };
                wakes.take(until_ms, wanted, page, &mut |from, page, found| {
                    rows.keys_in_time::<W>(&[], key_groups, from, page, found)
                })?
            };
            if !keys.is_empty() {
                return Ok(keys.into_iter().map(|key| (stable_hash(&key), key)).collect());
            }
        }
    }

    /// Gets the windows of keys that are not in memory.
    fn load<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, keys: Vec<(u64, K)>) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        if keys.is_empty() {
            return Ok(());
        }
        self.index.tell_gone()?;
        let wanted = self.index.windows_of(&keys)?;
        let mut found = Vec::with_capacity(wanted.len());
        let places = wanted.iter().map(|(window, position)| (window, &keys[*position].1));
        self.rows.fetch(places, |_, position, kept| found.push((position, kept)))?;
        for (position, kept) in found {
            let (window, key) = &wanted[position];
            let (hash, key) = &keys[*key];
            let first = self.keys.get(*hash, key).map_or(NONE, |first| first.number);
            if self.chain(first).any(|held| held.of.as_ref().is_some_and(|(_, other)| *other == window.0)) {
                continue;
            }
            let at = (window.0.max_timestamp(), self.rows.group_of(*hash));
            let ended = self.paging.as_ref().is_some_and(|paging| paging.has_ended(at));
            let mark = self.rows.stored();
            self.restore(rules, mark, (*hash, key.clone()), window.0.clone(), kept, ended);
            if let Some(entry) = self.keys.find(*hash, key) {
                self.keys.value_mut(entry).is_listed = true;
            }
        }
        Ok(())
    }

    /// All that was due on the clock of the windows is done.
    pub(super) fn move_ended(&mut self, clock_ms: i64) {
        if let Some(paging) = &mut self.paging {
            paging.move_ended(clock_ms);
        }
    }

    /// So many records were added: forgets what there is no room for.
    pub(super) fn keep_within_budget<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        records: usize,
    ) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let Some(paging) = &mut self.paging else { return Ok(()) };
        match paging.records_left.checked_sub(records) {
            Some(left) => paging.records_left = left,
            None => {
                if rules.shares_end_timer {
                    paging.move_ended(rules.clock_ms());
                }
                self.make_room(rules, 0)?;
            }
        }
        self.rows.tell_gone()?;
        self.index.tell_gone()
    }

    /// Forgets what there is no room for, if so many windows more are to be in memory.
    #[cold]
    fn make_room<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, more: usize) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let entry_bytes = self.entry_bytes();
        let budget_bytes = self.rows.budget_bytes();
        let used_bytes = (self.windows.len() - self.free.len() + more) * entry_bytes;
        let Some(paging) = &mut self.paging else { return Ok(()) };
        paging.entry_bytes = entry_bytes;
        let spare_bytes =
            if used_bytes <= budget_bytes { budget_bytes - used_bytes } else { budget_bytes / 8 };
        // A record adds one window at most, or something to one.
        paging.records_left = spare_bytes / entry_bytes;
        if used_bytes <= budget_bytes {
            return Ok(());
        }
        paging.is_partial = true;
        let excess_bytes = used_bytes - (budget_bytes - budget_bytes / 8);
        self.forget(rules, excess_bytes.div_ceil(entry_bytes))
    }

    /// About what a window takes, bytes: vectors grow to twice what is needed.
    fn entry_bytes(&mut self) -> usize {
        let Some(paging) = &mut self.paging else { return 1 };
        paging.turn = paging.turn.wrapping_add(1);
        let step = self.windows.len().div_ceil(SAMPLED_OF_SLICE).max(1);
        let sample = || {
            let sample = self.windows.iter().skip(paging.turn % step).step_by(step);
            sample.filter_map(|held| held.of.as_ref().map(|(key, _)| (key, &held.kept)))
        };
        let owned_bytes = mean_owned_bytes_of(sample().map(|(_, kept)| kept))
            + 2 * mean_owned_bytes_of(sample().map(|(key, _)| key));
        2 * size_of::<Held<K, W, S, TS>>() + 2 * size_of::<(K, First)>() + INDEX_BYTES + owned_bytes
    }

    /// Forgets about so many windows.
    fn forget<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, count: usize) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let mut forgotten = Forgotten { rows: Vec::new(), lists: Vec::new(), timers: Vec::new(), count: 0 };
        // As often around as a window may be passed by before it goes.
        let mut steps = self.windows.len() * PASSED_MAX;
        while forgotten.count < count && steps > 0 {
            steps -= 1;
            let Some(paging) = &mut self.paging else { return Ok(()) };
            paging.hand = if paging.hand + 1 < self.windows.len() { paging.hand + 1 } else { 0 };
            let hand = paging.hand;
            let held = &mut self.windows[hand];
            if held.of.is_none() || self.rows.pass(&mut held.mark) {
                continue;
            }
            self.forget_key(rules, hand as u32, &mut forgotten);
        }
        self.keys.shrink();
        self.rows.write_out(forgotten.rows)?;
        self.index.lists.write_out(forgotten.lists)?;
        self.index.timers.write_out(forgotten.timers)?;
        let Some(paging) = &mut self.paging else { return Ok(()) };
        if paging.stale > STALE_MAX.max(self.windows.len()) {
            paging.stale = 0;
            self.due.clear();
            for (number, held) in (0..).zip(&self.windows) {
                if held.of.is_some() && held.waits_for_ms < i64::MAX {
                    self.due.entry(held.waits_for_ms).or_default().push(number);
                }
            }
        }
        Ok(())
    }

    /// Forgets the key of a window, with all of its windows, unless something of it is due now.
    fn forget_key<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        number: u32,
        forgotten: &mut Forgotten<K, W, S, TS>,
    ) where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let Some((key, _)) = &self.windows[number as usize].of else { return };
        let (key, hash) = (key.clone(), stable_hash(key));
        let group = self.rows.group_of(hash);
        let first = self.keys.get(hash, &key).map_or(NONE, |first| first.number);
        let clock_ms = |domain| match domain {
            TimeDomain::Event => rules.watermark_ms,
            TimeDomain::Processing => rules.passed_ms,
        };
        let Some(paging) = &self.paging else { return };
        let stays = self.chain(first).any(|held| {
            let Some((_, window)) = &held.of else { return false };
            // Else it would come back as what it is not.
            let is_misjudged =
                rules.shares_end_timer && held.ended != paging.has_ended((window.max_timestamp(), group));
            is_misjudged
                || held.waits_for_ms <= rules.clock_ms()
                || held.kept.timers.iter().any(|(domain, time_ms)| time_ms <= clock_ms(domain))
        });
        if stays {
            return;
        }
        self.copy_key(number);
        let Merging { rows, index: _, paging: Some(paging), windows, free, .. } = self else { return };
        let page = Wakes::<K>::page(rows.budget_bytes());
        let (mut list, mut is_dirty) = (Vec::new(), false);
        let mut next = first;
        while next != NONE {
            let number = next;
            let held = &mut windows[number as usize];
            next = held.next;
            let Some((_, window)) = held.of.take() else { continue };
            let at = (window.max_timestamp(), group);
            if rules.shares_end_timer && !held.ended {
                paging.ends.note(at, &key, page);
            }
            if drops_later(rules) && at.0.saturating_add(rules.late.lateness_ms) < i64::MAX {
                paging.drops.note(at, &key, page);
            }
            for (domain, time_ms) in held.kept.timers.iter() {
                paging.timers[domain as usize].note((time_ms, group), &key, page);
            }
            paging.stale += usize::from(held.waits_for_ms < i64::MAX);
            held.waits_for_ms = i64::MAX;
            held.timers -= rules.timers.forget(number, &held.kept.timers);
            if held.timers == 0 {
                free.push(number);
            }
            let value = Some(std::mem::take(&mut held.kept));
            let row = Row { prefix: OfWindow(window), key: key.clone(), value };
            list.push(row.prefix.0.clone());
            if let Some(row) = rows.forget(held.mark, row) {
                is_dirty = true;
                if let Some(kept) = &row.value {
                    forgotten.timers.extend(rows_of(&key, &row.prefix.0, &kept.timers));
                }
                forgotten.rows.push(row);
            }
            forgotten.count += 1;
        }
        self.keys.remove(hash, &key);
        if is_dirty {
            forgotten.lists.push(Row { prefix: (), key, value: Some(list) });
        }
    }

    /// Copies the frozen windows of the key of a window, before one of them changes or another one joins them.
    pub(super) fn copy_key(&mut self, number: u32) {
        if self.paging.is_none() || !self.rows.is_draining() {
            return;
        }
        let Some((key, _)) = &self.windows[number as usize].of else { return };
        let Some(entry) = self.keys.find(stable_hash(key), key) else { return };
        let First { number: first, .. } = *self.keys.value_mut(entry);
        if !self.chain(first).any(|held| self.rows.is_frozen(held.mark)) {
            return;
        }
        let Merging { rows, index, windows, .. } = self;
        let (mut list, mut next, mut of) = (Vec::new(), first, None);
        while next != NONE {
            let held = &mut windows[next as usize];
            next = held.next;
            let Some((key, window)) = &held.of else { continue };
            if rows.is_frozen(held.mark) {
                rows_of(key, window, &held.kept.timers).for_each(|row| index.timers.add(row));
                rows.copy(&mut held.mark, || row(key, window, Some(&held.kept)));
            }
            list.push(window.clone());
            of = Some(key.clone());
        }
        if let Some(key) = of {
            index.lists.add(Row { prefix: (), key, value: Some(list) });
        }
        self.keys.value_mut(entry).is_listed = true;
    }

    /// Does what the trigger wants of the timers of a window.
    #[inline]
    pub(super) fn apply_requests<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, number: u32) {
        if rules.requests.is_empty() {
            return;
        }
        let Held { of, kept, timers, .. } = &mut self.windows[number as usize];
        if self.paging.is_some()
            && let Some((key, window)) = of
        {
            for request in &rules.requests {
                if let TimerRequest::Delete(domain, time_ms) = *request
                    && kept.timers.contains(domain, time_ms)
                {
                    let timer = OfTimer { domain, time_ms, window: window.clone() };
                    self.index.timers.note_gone(timer, key.clone());
                }
            }
        }
        rules.timers.apply(&mut rules.requests, number, timers, &mut kept.timers);
    }

    /// The windows of a key from one on.
    fn chain(&self, first: u32) -> impl Iterator<Item = &Held<K, W, S, TS>> {
        let mut next = first;
        std::iter::from_fn(move || {
            let held = (next != NONE).then(|| &self.windows[next as usize])?;
            next = held.next;
            Some(held)
        })
    }
}

/// What was forgotten, and is to be written.
struct Forgotten<K, W, S, TS> {
    rows: Vec<Row<OfWindow<W>, K, Kept<S, TS>>>,
    lists: Vec<Row<(), K, Vec<W>>>,
    timers: Vec<Row<OfTimer<W>, K, ()>>,
    /// Windows, the others among them.
    count: usize,
}

//! For each key a list of windows, which merge when a record brings them together.
//!
//! What lives here: the windows in memory. Beside them `paging`, which has keys leave memory and come back, and `index`, what leads to their rows.
//! Who may call it: the operator. What must never happen here: a key in memory with some of its windows and not with all.

mod index;
mod paging;

use std::borrow::Borrow;
use std::collections::BTreeMap;

use flott_schema::Result;
use flott_schema::key_group::key_group_of;

use self::index::Index;
use self::paging::Paging;
use super::rules::Kept;
use super::{Adding, FiredTimer, Holder, Rules};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, key_of, stable_hash};
use crate::operator::Collector;
use crate::operators::bounded::ending::Pace;
use crate::state::{KeyTable, TimeDomain};
use crate::window::clocks::SavedClocks;
use crate::window::logic::WindowLogic;
use crate::window::saving::{OfTimer, OfWindow, Outgoing, Row};
use crate::window::trigger::{Trigger, TriggerResult};
use crate::window::{Window, WindowAssigner};

const NONE: u32 = u32::MAX;

/// Windows of keys. `S` is what the logic keeps of a key and window, `TS` what the trigger keeps.
pub(crate) struct Merging<K, W, S, TS> {
    rows: Outgoing<OfWindow<W>, K, Kept<S, TS>>,
    index: Index<K, W>,
    /// If not all need be in memory.
    paging: Option<Paging<K>>,
    /// Windows from this number to that may be frozen.
    frozen: (usize, usize),
    windows: Vec<Held<K, W, S, TS>>,
    free: Vec<u32>,
    keys: KeyTable<K, First>,
    /// When windows fire or are dropped. An entry counts if it is the one that its window is waiting for: a window
    /// that grows is not moved in the queue, but looked at when its old end has come.
    due: BTreeMap<i64, Vec<u32>>,
    /// Windows that a record makes merge.
    met: Vec<u32>,
}

/// The first window of a key.
#[derive(Clone, Copy, Debug)]
struct First {
    number: u32,
    /// Whether the backend may have a list of the key's windows.
    is_listed: bool,
}

struct Held<K, W, S, TS> {
    /// `None` when the window is gone; timers that nobody has deleted are then ignored.
    of: Option<(K, W)>,
    kept: Kept<S, TS>,
    /// The next window of the key.
    next: u32,
    timers: u32,
    /// The entry in the queue that counts; `i64::MAX` if there is none.
    waits_for_ms: i64,
    /// The clock has passed the end, and the trigger knows.
    ended: bool,
    /// Of its row in snapshots.
    mark: u8,
}

impl<K: Key, W, S, TS> Default for Merging<K, W, S, TS> {
    fn default() -> Self {
        Merging {
            rows: Outgoing::default(),
            index: Index::default(),
            paging: None,
            frozen: (0, 0),
            windows: Vec::new(),
            free: Vec::new(),
            keys: KeyTable::default(),
            due: BTreeMap::new(),
            met: Vec::new(),
        }
    }
}

impl<K: Key, W: Window, S: Record, TS: Record + Default> Merging<K, W, S, TS> {
    fn held(&mut self, number: u32) -> &mut Held<K, W, S, TS> {
        &mut self.windows[number as usize]
    }

    /// Finds the windows of the key that merge with `window`, into `met`; gives what they merge into.
    fn meet<T, A: WindowAssigner<T, Window = W>>(&mut self, assigner: &A, first: u32, window: W) -> W {
        self.met.clear();
        let mut merged = window;
        // What has grown may meet windows that it did not meet before.
        loop {
            let met_before = self.met.len();
            let (mut number, mut count) = (first, 0);
            while number != NONE {
                let held = &self.windows[number as usize];
                if let Some((_, other)) = &held.of
                    && !self.met.contains(&number)
                    && let Some(both) = assigner.merge(&merged, other)
                {
                    merged = both;
                    self.met.push(number);
                }
                number = held.next;
                count += 1;
            }
            if self.met.len() == met_before || self.met.len() == count {
                break;
            }
        }
        let windows = &self.windows;
        self.met.sort_unstable_by(|a, b| {
            let window = |number: &u32| windows[*number as usize].of.as_ref().map(|(_, window)| window);
            window(a).cmp(&window(b))
        });
        merged
    }

    /// A new window of a key, in front of its other windows.
    fn add_window(&mut self, hash: u64, key: K, window: W) -> u32 {
        let held = Held {
            of: Some((key.clone(), window)),
            kept: Kept::default(),
            next: NONE,
            timers: 0,
            waits_for_ms: i64::MAX,
            ended: false,
            mark: self.rows.fresh(),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.windows[number as usize] = held;
                number
            }
            None => {
                self.windows.push(held);
                self.windows.len() as u32 - 1
            }
        };
        match self.keys.find(hash, &key) {
            Some(entry) => {
                let first = self.keys.value_mut(entry).number;
                // What is frozen is without this one.
                self.copy_key(first);
                self.keys.value_mut(entry).number = number;
                self.held(number).next = first;
            }
            None => {
                self.keys.insert_new(hash, key, First { number, is_listed: false });
            }
        }
        number
    }

    /// A window is about to change.
    #[inline]
    fn touch(&mut self, number: u32) {
        self.copy_key(number);
        let Merging { rows, windows, .. } = self;
        let Held { of: Some((key, window)), kept, mark, .. } = &mut windows[number as usize] else { return };
        rows.write(mark, || row(key, window, Some(kept)));
    }

    /// The row of a window is no more, because the window is not, or is another one.
    fn forget_row(&mut self, number: u32) {
        self.copy_key(number);
        let Merging { rows, index, windows, .. } = self;
        let Held { of: Some((key, window)), kept, mark, .. } = &mut windows[number as usize] else { return };
        index.note_timers_gone(key, window, &kept.timers);
        rows.remove(*mark, |with_value| row(key, window, with_value.then_some(&*kept)));
        *mark = rows.fresh();
    }

    /// Forgets a window, whose timers the trigger has deleted and whose row is forgotten.
    fn remove_window(&mut self, number: u32) {
        let held = self.held(number);
        let Some((key, _)) = held.of.take() else { return };
        let next = held.next;
        held.kept = Kept::default();
        let unused = held.timers == 0;
        let hash = stable_hash(&key);
        let entry = self.keys.find(hash, &key).expect("the key of a window has an entry");
        let First { number: first, is_listed } = *self.keys.value_mut(entry);
        if first == number && next == NONE {
            self.keys.remove(hash, &key);
            if is_listed {
                self.index.lists.note_gone((), key);
            }
        } else if first == number {
            self.keys.value_mut(entry).number = next;
        } else {
            let mut before = first;
            while self.windows[before as usize].next != number {
                before = self.windows[before as usize].next;
            }
            self.held(before).next = next;
        }
        if unused {
            self.free.push(number);
        }
    }

    /// Has the trigger delete the timers and the state it keeps of a window.
    fn clear_trigger<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, number: u32)
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let held = self.held(number);
        let Some((_, window)) = &held.of else { return };
        rules.ask(window, &mut held.kept.trigger, |trigger, ctx| trigger.clear(window, ctx));
        self.apply_requests(rules, number);
        self.held(number).kept.trigger = None;
    }

    /// Merges the windows met into `merged`; gives the number of that.
    fn merge<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, merged: &W) -> u32
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
        L: WindowLogic<K, T, W, State = S>,
    {
        let met = std::mem::take(&mut self.met);
        let survivor = met[0];
        let mut states = Vec::new();
        for number in &met {
            self.forget_row(*number);
            states.extend(self.held(*number).kept.trigger.clone());
            self.clear_trigger(rules, *number);
        }
        for number in &met[1..] {
            let later = self.held(*number).kept.contents.take();
            self.remove_window(*number);
            let contents = &mut self.held(survivor).kept.contents;
            match (contents.as_mut(), later) {
                (Some(contents), Some(later)) => rules.logic.merge(contents, later),
                (None, later) => *contents = later,
                (Some(_), None) => {}
            }
        }
        self.met = met;
        let clock_ms = rules.clock_ms();
        let held = self.held(survivor);
        if let Some((_, window)) = &mut held.of {
            *window = merged.clone();
        }
        held.ended = merged.max_timestamp() <= clock_ms;
        rules.ask(merged, &mut held.kept.trigger, |trigger, ctx| trigger.on_merge(states, merged, ctx));
        self.apply_requests(rules, survivor);
        survivor
    }

    /// Queues a window for what it waits for next.
    fn wait<T, A, Tr, L>(&mut self, rules: &Rules<T, A, Tr, L>, number: u32)
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let held = &mut self.windows[number as usize];
        let Some((_, window)) = &held.of else { return };
        let due_ms = match rules.shares_end_timer && !held.ended {
            true => Some(window.max_timestamp()),
            false => rules.drop_ms(window),
        };
        if let Some(due_ms) = due_ms
            && due_ms < held.waits_for_ms
        {
            held.waits_for_ms = due_ms;
            self.due.entry(due_ms).or_default().push(number);
        }
    }

    /// Adds a window that was kept as a row.
    fn restore<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        mark: u8,
        (hash, key): (u64, K),
        window: W,
        kept: Kept<S, TS>,
        ended: bool,
    ) where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let number = self.add_window(hash, key, window);
        let timers = rules.timers.restore(number, &kept.timers);
        let held = self.held(number);
        (held.mark, held.ended, held.timers, held.kept) = (mark, ended, timers, kept);
        self.wait(rules, number);
    }

    fn settle<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        number: u32,
        result: TriggerResult,
        out: &mut Collector<L::Out>,
    ) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
        L: WindowLogic<K, T, W, State = S>,
    {
        self.apply_requests(rules, number);
        let held = &mut self.windows[number as usize];
        let Some((key, window)) = &held.of else { return Ok(()) };
        let last = held.ended && rules.is_over(window.max_timestamp());
        rules.settle(result, key, window, &mut held.kept.contents, last, out)
    }
}

impl<K, T, A, Tr, L> Holder<K, T, A, Tr, L> for Merging<K, A::Window, L::State, Tr::State>
where
    K: Key,
    T: Record,
    A: WindowAssigner<T>,
    Tr: Trigger<T, A::Window>,
    L: WindowLogic<K, T, A::Window>,
{
    fn add<Se: KeySelector<T, Key = K>>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        adding: Adding<'_, Se, T, A::Window>,
        out: &mut Collector<L::Out>,
    ) -> Result<Option<T>> {
        let Adding { selector, hashes, index, record, timestamp_ms, window } = adding;
        let hash = hashes[index];
        self.keys.prefetch_ahead(hashes, index);
        let first = self.keys.get(hash, selector.key(&record).borrow()).map_or(NONE, |first| first.number);
        let merged = self.meet(&rules.assigner, first, window);
        // Late by itself is not too late: what counts is the window it becomes part of.
        if rules.is_over(merged.max_timestamp()) {
            return Ok(Some(record));
        }
        let number = match self.met.as_slice() {
            [] => {
                let number = self.add_window(hash, key_of(selector, &record), merged.clone());
                self.held(number).ended = merged.max_timestamp() <= rules.clock_ms();
                number
            }
            [only] if self.windows[*only as usize].of.as_ref().is_some_and(|(_, held)| *held == merged) => {
                *only
            }
            _ => self.merge(rules, &merged),
        };
        self.touch(number);
        let kept = &mut self.held(number).kept;
        let result = rules.ask(&merged, &mut kept.trigger, |trigger, ctx| {
            trigger.on_element(&record, timestamp_ms, &merged, ctx)
        });
        rules.add::<K>(&mut kept.contents, record, timestamp_ms);
        self.settle(rules, number, result, out)?;
        self.wait(rules, number);
        Ok(None)
    }

    fn begin<Se: KeySelector<T, Key = K>>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        selector: &Se,
        hashes: &[u64],
        records: &[T],
    ) -> Result<()> {
        self.load_keys(rules, selector, hashes, records)
    }

    fn end(&mut self, rules: &mut Rules<T, A, Tr, L>, records: usize) -> Result<()> {
        self.keep_within_budget(rules, records)
    }

    fn bring(&mut self, rules: &mut Rules<T, A, Tr, L>, domain: TimeDomain, until_ms: i64) -> Result<bool> {
        self.load_due(rules, domain, until_ms)
    }

    fn caught_up(&mut self, rules: &Rules<T, A, Tr, L>) {
        self.move_ended(rules.clock_ms());
    }

    fn next_timer_ms(&self, domain: TimeDomain) -> i64 {
        self.next_timer_beyond_ms(domain)
    }

    fn next_due_ms(&self) -> Option<i64> {
        let due_ms = self.due.first_key_value().map(|(due_ms, _)| *due_ms);
        due_ms.into_iter().chain(self.next_beyond_ms()).min()
    }

    fn on_due(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        due_ms: i64,
        _pace: &mut Pace,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        let Some(mut first) = self.due.first_entry().filter(|first| *first.key() <= due_ms) else {
            return Ok(());
        };
        let due_ms = *first.key();
        let Some(number) = first.get_mut().pop() else {
            first.remove();
            return Ok(());
        };
        let held = self.held(number);
        if held.waits_for_ms != due_ms {
            return Ok(());
        }
        held.waits_for_ms = i64::MAX;
        let Some((_, window)) = &held.of else { return Ok(()) };
        let max_timestamp = window.max_timestamp();
        if rules.shares_end_timer && !held.ended && max_timestamp <= due_ms {
            self.touch(number);
            let held = self.held(number);
            held.ended = true;
            let Some((_, window)) = &held.of else { return Ok(()) };
            let result = rules.ask_at_end(window, &mut held.kept.trigger);
            self.settle(rules, number, result, out)?;
        }
        let over = max_timestamp.saturating_add(rules.late.lateness_ms) <= due_ms;
        if over && due_ms < i64::MAX {
            self.forget_row(number);
            self.clear_trigger(rules, number);
            self.remove_window(number);
        } else {
            self.wait(rules, number);
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        timer: FiredTimer,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        self.touch(timer.slot);
        let held = &mut self.windows[timer.slot as usize];
        held.timers -= 1;
        held.kept.timers.remove(timer.domain, timer.time_ms);
        if self.paging.is_some()
            && let Some((key, window)) = &held.of
        {
            let FiredTimer { domain, time_ms, .. } = timer;
            self.index.timers.note_gone(OfTimer { domain, time_ms, window: window.clone() }, key.clone());
        }
        let Some((_, window)) = &held.of else {
            if held.timers == 0 {
                self.free.push(timer.slot);
            }
            return Ok(());
        };
        let result = rules.ask_on_timer(window, &mut held.kept.trigger, timer);
        self.settle(rules, timer.slot, result, out)
    }

    fn open(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        ctx: &OperatorContext,
        saved: &SavedClocks,
    ) -> Result<()> {
        let is_indexed = self.index.open(ctx)?;
        if self.index.lists.can_fetch() {
            self.rows.register(ctx, "windows")?;
            return self.open_paging(rules, ctx, saved, is_indexed);
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.open(ctx, "windows", |rows, OfWindow(window), key, kept| {
            let hash = stable_hash(&key);
            let was_at_ms = saved.of_group(key_group_of(hash, ctx.task.max_parallelism)).clock_ms;
            let ended = window.max_timestamp() <= was_at_ms;
            self.restore(rules, rows.stored(), (hash, key), window, kept, ended);
            Ok(())
        })?;
        self.rows = rows;
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        self.rows.freeze();
        self.frozen = (0, self.windows.len());
        self.index.freeze()
    }

    fn is_draining(&self) -> bool {
        self.rows.is_draining()
    }

    fn drain(&mut self, budget: usize) {
        if !self.rows.is_draining() {
            return;
        }
        let (next, end) = self.frozen;
        let until = next.saturating_add(budget).min(end);
        if self.paging.is_some() {
            (next..until).for_each(|number| {
                if self.rows.is_frozen(self.windows[number].mark) {
                    self.copy_key(number as u32);
                }
            });
        }
        let Merging { rows, windows, .. } = self;
        for held in &mut windows[next..until] {
            if let Some((key, window)) = &held.of {
                rows.copy(&mut held.mark, || row(key, window, Some(&held.kept)));
            }
        }
        self.frozen.0 = until;
        if until == end {
            self.rows.finish();
            self.index.finish();
        }
    }
}

fn row<K: Clone, W: Clone, V: Clone>(key: &K, window: &W, kept: Option<&V>) -> Row<OfWindow<W>, K, V> {
    Row { prefix: OfWindow(window.clone()), key: key.clone(), value: kept.cloned() }
}

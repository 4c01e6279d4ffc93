//! For each window a table of the keys that it has records of.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use flott_schema::Result;
use flott_schema::key_group::key_group_of;

use super::rules::Kept;
use super::{Adding, FiredTimer, Holder, Rules};
use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, key_of, stable_hash};
use crate::operator::Collector;
use crate::operators::bounded::ending::Pace;
use crate::window::clocks::SavedClocks;
use crate::window::logic::WindowLogic;
use crate::window::marked::MarkedTable;
use crate::window::saving::{OfWindow, Outgoing};
use crate::window::trigger::{TimerRequest, Trigger, TriggerResult};
use crate::window::{Window, WindowAssigner};

const NO_SLOT: u32 = u32::MAX;

fn no_slot() -> u32 {
    NO_SLOT
}

/// Windows with their keys. `S` is what the logic keeps of a key and window, `TS` what the trigger keeps.
pub(crate) struct ByWindow<K, W, S, TS> {
    rows: Outgoing<OfWindow<W>, K, Entry<S, TS>>,
    windows: Vec<Option<Held<K, W, S, TS>>>,
    free: Vec<u32>,
    numbers: BTreeMap<W, u32>,
    /// The window of the last record, which is most likely that of the next one.
    latest: Option<(W, u32)>,
    /// When windows fire (if they do so all keys at once) and when they are dropped.
    due: BTreeSet<(i64, W)>,
    /// The window that is firing, and the key it has come to.
    firing: Option<(i64, u32, usize)>,
    slots: Slots<K, W>,
}

struct Held<K, W, S, TS> {
    window: OfWindow<W>,
    keys: MarkedTable<K, Entry<S, TS>>,
    /// The clock has passed the end, and the trigger knows.
    ended: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry<S, TS> {
    kept: Kept<S, TS>,
    /// Where its timers are counted.
    #[serde(skip, default = "no_slot")]
    slot: u32,
    /// The window has fired for this key, though not for others: it was restored from a task that was further on.
    #[serde(skip)]
    has_fired: bool,
}

impl<S, TS> Default for Entry<S, TS> {
    fn default() -> Self {
        Entry { kept: Kept::default(), slot: NO_SLOT, has_fired: false }
    }
}

impl<K, W: Ord, S, TS> Default for ByWindow<K, W, S, TS> {
    fn default() -> Self {
        ByWindow {
            rows: Outgoing::default(),
            windows: Vec::new(),
            free: Vec::new(),
            numbers: BTreeMap::new(),
            latest: None,
            due: BTreeSet::new(),
            firing: None,
            slots: Slots { slots: Vec::new(), free: Vec::new() },
        }
    }
}

/// Keys and windows that have timers.
struct Slots<K, W> {
    slots: Vec<Slot<K, W>>,
    free: Vec<u32>,
}

struct Slot<K, W> {
    /// `None` when the key and window are gone; timers that nobody has deleted are then ignored.
    owner: Option<(K, W)>,
    timers: u32,
}

impl<K: Clone, W: Clone> Slots<K, W> {
    fn add(&mut self, key: &K, window: &W) -> u32 {
        let slot = Slot { owner: Some((key.clone(), window.clone())), timers: 0 };
        match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        }
    }

    fn timers(&mut self, slot: u32) -> &mut u32 {
        &mut self.slots[slot as usize].timers
    }

    /// The key and window are gone.
    fn release(&mut self, slot: u32) {
        self.slots[slot as usize].owner = None;
        self.free_unused(slot);
    }

    fn free_unused(&mut self, slot: u32) {
        let place = &self.slots[slot as usize];
        if place.owner.is_none() && place.timers == 0 {
            self.free.push(slot);
        }
    }
}

impl<K: Key, W: Window, S: Record, TS: Record + Default> ByWindow<K, W, S, TS> {
    fn held(&mut self, number: u32) -> &mut Held<K, W, S, TS> {
        self.windows[number as usize].as_mut().expect("the number of a window that is held")
    }

    /// The number of a window, which is made if it is new.
    #[inline]
    fn number_of<T, A, Tr, L>(&mut self, rules: &Rules<T, A, Tr, L>, window: &W) -> u32
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        if let Some((latest, number)) = &self.latest
            && latest == window
        {
            return *number;
        }
        let number = match self.numbers.get(window) {
            Some(number) => *number,
            None => self.add_window(rules, window),
        };
        self.latest = Some((window.clone(), number));
        number
    }

    fn add_window<T, A, Tr, L>(&mut self, rules: &Rules<T, A, Tr, L>, window: &W) -> u32
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let ended = window.max_timestamp() <= rules.clock_ms();
        if rules.shares_end_timer && !ended {
            self.due.insert((window.max_timestamp(), window.clone()));
        }
        if let Some(drop_ms) = rules.drop_ms(window) {
            self.due.insert((drop_ms, window.clone()));
        }
        let held = Held { window: OfWindow(window.clone()), keys: MarkedTable::default(), ended };
        let number = self.free.pop().unwrap_or_else(|| {
            self.windows.push(None);
            self.windows.len() as u32 - 1
        });
        self.windows[number as usize] = Some(held);
        self.numbers.insert(window.clone(), number);
        number
    }

    fn drop_window<T, A, Tr, L>(&mut self, rules: &mut Rules<T, A, Tr, L>, window: &W)
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
    {
        let Some(number) = self.numbers.remove(window) else { return };
        self.latest = None;
        self.free.push(number);
        let Some(mut held) = self.windows[number as usize].take() else { return };
        for (_, entry) in held.keys.take_entries(&held.window, &mut self.rows) {
            let Entry { mut kept, slot, .. } = entry;
            rules.ask(window, &mut kept.trigger, |trigger, ctx| trigger.clear(window, ctx));
            if slot == NO_SLOT {
                rules.requests.clear();
            } else {
                rules.timers.apply(&mut rules.requests, slot, self.slots.timers(slot), &mut kept.timers);
                self.slots.release(slot);
            }
        }
    }

    /// Does what the trigger wants of timers.
    #[inline]
    fn apply_requests<T, A, Tr, L>(
        slots: &mut Slots<K, W>,
        rules: &mut Rules<T, A, Tr, L>,
        key: &K,
        window: &W,
        entry: &mut Entry<S, TS>,
    ) {
        if rules.requests.is_empty() {
            return;
        }
        if entry.slot == NO_SLOT {
            rules.requests.retain(|request| matches!(request, TimerRequest::Register(..)));
            if rules.requests.is_empty() {
                return;
            }
            entry.slot = slots.add(key, window);
        }
        rules.timers.apply(&mut rules.requests, entry.slot, slots.timers(entry.slot), &mut entry.kept.timers);
    }

    /// Does what the trigger has decided for a key, whose entry was marked as changed, and forgets the key if nothing is left of it.
    fn settle<T, A, Tr, L>(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        number: u32,
        index: usize,
        result: TriggerResult,
        out: &mut Collector<L::Out>,
    ) -> Result<()>
    where
        T: Record,
        A: WindowAssigner<T, Window = W>,
        Tr: Trigger<T, W, State = TS>,
        L: WindowLogic<K, T, W, State = S>,
    {
        let held = self.windows[number as usize].as_mut().expect("the window of the key is held");
        let (key, entry) = held.keys.unchanged_mut(index);
        let window = &held.window.0;
        Self::apply_requests(&mut self.slots, rules, key, window, entry);
        if result == TriggerResult::Continue {
            return Ok(());
        }
        let last = held.ended && rules.is_over(window.max_timestamp());
        rules.settle(result, key, window, &mut entry.kept.contents, last, out)?;
        let bare = entry.kept.contents.is_none() && entry.kept.trigger.is_none();
        let timers = if entry.slot == NO_SLOT { 0 } else { *self.slots.timers(entry.slot) };
        // Removing moves another key, which a window in the middle of firing might then miss.
        if bare && timers == 0 && self.firing.is_none() {
            let (key, slot) = (key.clone(), entry.slot);
            held.keys.remove(stable_hash(&key), &key, &held.window, &mut self.rows);
            if slot != NO_SLOT {
                self.slots.release(slot);
            }
        }
        Ok(())
    }
}

impl<K, T, A, Tr, L> Holder<K, T, A, Tr, L> for ByWindow<K, A::Window, L::State, Tr::State>
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
        if rules.is_over(window.max_timestamp()) {
            return Ok(Some(record));
        }
        let number = self.number_of(rules, &window);
        let ByWindow { windows, rows, .. } = self;
        let held = windows[number as usize].as_mut().expect("the number of a window that is held");
        let keys = &mut held.keys;
        keys.keys().prefetch_ahead(hashes, index);
        let found = keys.keys().find(hashes[index], selector.key(&record).borrow());
        let entry = found.unwrap_or_else(|| {
            keys.insert_new(hashes[index], key_of(selector, &record), Entry::default(), rows)
        });
        let kept = &mut keys.value_mut(entry, &held.window, rows).kept;
        let result = rules.ask(&window, &mut kept.trigger, |trigger, ctx| {
            trigger.on_element(&record, timestamp_ms, &window, ctx)
        });
        rules.add::<K>(&mut kept.contents, record, timestamp_ms);
        if result != TriggerResult::Continue || !rules.requests.is_empty() {
            self.settle(rules, number, entry, result, out)?;
        }
        Ok(None)
    }

    fn next_due_ms(&self) -> Option<i64> {
        let first = self.due.first().map(|(due_ms, _)| *due_ms);
        self.firing.map(|(time_ms, ..)| time_ms).or(first)
    }

    fn on_due(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        _due_ms: i64,
        pace: &mut Pace,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        if self.firing.is_none() {
            let Some((time_ms, window)) = self.due.pop_first() else { return Ok(()) };
            let Some(number) = self.numbers.get(&window).copied() else { return Ok(()) };
            let held = self.held(number);
            if held.ended || !rules.shares_end_timer {
                self.drop_window(rules, &window);
                return Ok(());
            }
            held.ended = true;
            self.firing = Some((time_ms, number, 0));
        }
        let Some((time_ms, number, mut index)) = self.firing else { return Ok(()) };
        while index < self.held(number).keys.len() {
            if pace.must_pause(1, out) {
                self.firing = Some((time_ms, number, index));
                return Ok(());
            }
            let ByWindow { windows, rows, .. } = &mut *self;
            let held = windows[number as usize].as_mut().expect("the window that fires is held");
            let entry = held.keys.value_mut(index, &held.window, rows);
            index += 1;
            if std::mem::take(&mut entry.has_fired) {
                continue;
            }
            let result = rules.ask_at_end(&held.window.0, &mut entry.kept.trigger);
            self.settle(rules, number, index - 1, result, out)?;
        }
        self.firing = None;
        let window = &self.held(number).window.0;
        if rules.drop_ms(window) == Some(time_ms) {
            let window = window.clone();
            self.drop_window(rules, &window);
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        timer: FiredTimer,
        out: &mut Collector<L::Out>,
    ) -> Result<()> {
        let slot = &mut self.slots.slots[timer.slot as usize];
        slot.timers -= 1;
        let Some((key, window)) = slot.owner.clone() else {
            self.slots.free_unused(timer.slot);
            return Ok(());
        };
        let Some(number) = self.numbers.get(&window).copied() else { return Ok(()) };
        let ByWindow { windows, rows, .. } = &mut *self;
        let held = windows[number as usize].as_mut().expect("a window with a number is held");
        let Some(entry) = held.keys.keys().find(stable_hash(&key), &key) else { return Ok(()) };
        let kept = &mut held.keys.value_mut(entry, &held.window, rows).kept;
        kept.timers.remove(timer.domain, timer.time_ms);
        let result = rules.ask_on_timer(&window, &mut kept.trigger, timer);
        self.settle(rules, number, entry, result, out)
    }

    fn open(
        &mut self,
        rules: &mut Rules<T, A, Tr, L>,
        ctx: &OperatorContext,
        saved: &SavedClocks,
    ) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.open(ctx, "windows", |rows, window, key, mut entry| {
            let number = self.number_of(rules, &window.0);
            let held = self.windows[number as usize].as_mut().expect("the window was just added");
            let hash = stable_hash(&key);
            let was_at_ms = saved.of_group(key_group_of(hash, ctx.task.max_parallelism)).clock_ms;
            entry.has_fired = !held.ended && window.0.max_timestamp() <= was_at_ms;
            if !entry.kept.timers.is_empty() {
                entry.slot = self.slots.add(&key, &window.0);
                *self.slots.timers(entry.slot) = rules.timers.restore(entry.slot, &entry.kept.timers);
            }
            held.keys.insert_restored(hash, key, entry, rows);
            Ok(())
        })?;
        self.rows = rows;
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        self.rows.freeze();
        self.windows.iter_mut().flatten().for_each(|held| held.keys.begin_drain());
        Ok(())
    }

    fn is_draining(&self) -> bool {
        self.rows.is_draining()
    }

    fn drain(&mut self, mut budget: usize) {
        let ByWindow { windows, rows, .. } = self;
        if rows.is_draining()
            && windows.iter_mut().flatten().all(|held| held.keys.drain(&held.window, rows, &mut budget))
        {
            rows.finish();
        }
    }
}

//! Functions over the records of a window, with state of the key and of the window.

use std::collections::BTreeMap;

use flott_schema::{Error, Result};

use super::Window;
use super::elements::Elements;
use super::trigger::Clocks;
use crate::context::{OperatorContext, TaskContext};
use crate::function::Function;
use crate::key::{Key, stable_hash};
use crate::operator::Collector;
use crate::operators::open::OpenContext;
use crate::state::{KeyTable, KeyedState, StateStore};

/// Any number of results for the records of a key and window (Flink's `ProcessWindowFunction`). Results carry the
/// window's max timestamp; side outputs are reached through `out.side(..)`.
pub trait ProcessWindowFunction<K, I, O, W>: Function {
    /// Called once before the first window: registers states.
    fn open(&mut self, _ctx: &mut WindowOpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// A window has fired. Behind a reduce or aggregate `elements` holds its result alone.
    fn process(
        &mut self,
        key: &K,
        ctx: &mut WindowContext<'_, K, W>,
        elements: Elements<'_, I>,
        out: &mut Collector<O>,
    ) -> Result<()>;

    /// The window is dropped; called for keys that have used its per-window state, which is to be cleared here.
    fn clear(&mut self, _key: &K, _ctx: &mut WindowContext<'_, K, W>) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Where a window function registers its states.
pub struct WindowOpenContext<'a> {
    operator: &'a OperatorContext,
    global: &'a mut StateStore,
    window: Option<&'a mut StateStore>,
}

impl WindowOpenContext<'_> {
    /// The task: subtask, parallelism, settings.
    pub fn task(&self) -> &TaskContext {
        &self.operator.task
    }

    /// For states that all windows of a key share.
    pub fn global(&mut self) -> OpenContext<'_> {
        OpenContext::keyed(self.operator, self.global)
    }

    /// For states that each window of a key has for itself. Windows that merge cannot have any.
    pub fn window(&mut self) -> Result<OpenContext<'_>> {
        let operator = self.operator;
        let store = self.window.as_deref_mut().ok_or_else(|| {
            Error::user(format!(
                "operator '{}': windows that merge have no per-window state; use the state of the key",
                operator.name
            ))
        })?;
        Ok(OpenContext::keyed(operator, store))
    }
}

/// What a window function can see of the window that fired.
pub struct WindowContext<'a, K, W> {
    key: &'a K,
    window: &'a W,
    clocks: Clocks,
    states: &'a mut WindowStates<K, W>,
}

impl<K: Key, W: Window> WindowContext<'_, K, W> {
    /// The window.
    pub fn window(&self) -> &W {
        self.window
    }

    /// The watermark, epoch milliseconds; `i64::MIN` before the first.
    pub fn watermark(&self) -> i64 {
        self.clocks.watermark_ms
    }

    /// Processing time, epoch milliseconds.
    pub fn processing_time(&self) -> i64 {
        self.clocks.now_ms
    }

    /// The states of the key, to be given to handles registered with [`WindowOpenContext::global`].
    pub fn global_state(&mut self) -> &mut StateStore {
        self.states.enter_key(self.key, self.clocks.now_ms)
    }

    /// The states of the key and window, to be given to handles registered with [`WindowOpenContext::window`].
    ///
    /// # Panics
    /// If the windows merge; then no handle can have been registered.
    pub fn window_state(&mut self) -> &mut StateStore {
        self.states.enter_window(self.key, self.window, self.clocks.now_ms)
    }
}

/// Keys are looked up when a function first asks for their state, so that functions without state pay nothing.
struct WindowStates<K, W> {
    global: KeyedState<K>,
    global_slot: Option<u32>,
    /// `None` if windows merge.
    window: Option<KeyedState<(K, W)>>,
    window_slot: Option<u32>,
    /// The keys with per-window state, in the order their windows are dropped.
    used: BTreeMap<(i64, W), KeyTable<K, ()>>,
    left: usize,
}

/// In front of the names of states of the key, and of the key and window, in snapshots; frozen.
const KEY_STATES: &str = "key/";
const WINDOW_STATES: &str = "window/";

/// The states of a function, for snapshots.
pub(crate) trait FunctionStates {
    /// A barrier: what there is belongs to the snapshot.
    fn freeze(&mut self);
    /// Hands in about so many rows; whether those were all.
    fn drain(&mut self, rows: usize) -> bool;
}

impl<K: Key, W: Window> FunctionStates for WindowStates<K, W> {
    fn freeze(&mut self) {
        self.global.freeze();
        self.window.iter_mut().for_each(KeyedState::freeze);
    }

    fn drain(&mut self, rows: usize) -> bool {
        let global = !self.global.is_draining() || self.global.drain(rows);
        let window = self.window.iter_mut().all(|states| !states.is_draining() || states.drain(rows));
        global && window
    }
}

/// How often keys that have no state any more are looked for.
const SWEEP_EVERY: usize = 256;

impl<K: Key, W: Window> WindowStates<K, W> {
    fn new(merges: bool) -> Self {
        WindowStates {
            global: KeyedState::default(),
            global_slot: None,
            window: (!merges).then(KeyedState::default),
            window_slot: None,
            used: BTreeMap::new(),
            left: 0,
        }
    }

    /// Has the states go into snapshots; called before they are registered.
    fn attach(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.global.attach(ctx, KEY_STATES)?;
        match &mut self.window {
            // What decides the key group is the key.
            Some(states) => states.attach_by(ctx, WINDOW_STATES, |(key, _)| stable_hash(key)),
            None => Ok(()),
        }
    }

    /// Gets restored states back, and which windows have some.
    fn restore(&mut self) -> Result<()> {
        self.global.restore()?;
        let WindowStates { window: Some(states), used, .. } = self else { return Ok(()) };
        states.restore()?;
        states.for_each_key(|(key, window), _| {
            let keys = used.entry((window.max_timestamp(), window.clone())).or_default();
            keys.get_or_insert_with(stable_hash(key), key, || ());
        });
        states.end();
        Ok(())
    }

    fn enter_key(&mut self, key: &K, now_ms: i64) -> &mut StateStore {
        if self.global_slot.is_none() {
            self.global.begin(now_ms);
            self.global_slot = Some(self.global.enter(stable_hash(key), key));
        }
        self.global.store()
    }

    fn enter_window(&mut self, key: &K, window: &W, now_ms: i64) -> &mut StateStore {
        let states = self.window.as_mut().expect("windows that merge have no per-window state");
        if self.window_slot.is_none() {
            let both = (key.clone(), window.clone());
            states.begin(now_ms);
            self.window_slot = Some(states.enter(stable_hash(&both), &both));
            let used = self.used.entry((window.max_timestamp(), both.1)).or_default();
            used.get_or_insert_with(stable_hash(key), key, || ());
        }
        states.store()
    }

    fn leave(&mut self) {
        let (global, window) = (self.global_slot.take(), self.window_slot.take());
        if global.is_none() && window.is_none() {
            return;
        }
        if let Some(slot) = global {
            self.global.leave(slot);
        }
        if let (Some(states), Some(slot)) = (&mut self.window, window) {
            states.leave(slot);
        }
        self.left += 1;
        if self.left.is_multiple_of(SWEEP_EVERY) {
            self.global.end();
            self.window.iter_mut().for_each(KeyedState::end);
        }
    }
}

/// Calls a [`ProcessWindowFunction`], keeping its states.
pub(crate) struct Runner<K, W, F> {
    function: F,
    states: WindowStates<K, W>,
}

impl<K: Key, W: Window, F> Runner<K, W, F> {
    pub(crate) fn new(function: F) -> Self {
        Runner { function, states: WindowStates::new(false) }
    }

    pub(super) fn open<I, O>(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()>
    where
        F: ProcessWindowFunction<K, I, O, W>,
    {
        self.states = WindowStates::new(merges);
        self.states.attach(ctx)?;
        self.function.open(&mut WindowOpenContext {
            operator: ctx,
            global: self.states.global.store(),
            window: self.states.window.as_mut().map(KeyedState::store),
        })?;
        self.states.restore()
    }

    pub(super) fn states(&mut self) -> &mut dyn FunctionStates {
        &mut self.states
    }

    pub(super) fn process<I, O>(
        &mut self,
        firing: Firing<'_, K, W>,
        elements: Elements<'_, I>,
        out: &mut Collector<O>,
    ) -> Result<()>
    where
        F: ProcessWindowFunction<K, I, O, W>,
    {
        let Firing { key, window, clocks } = firing;
        let ctx = &mut WindowContext { key, window, clocks, states: &mut self.states };
        self.function.process(key, ctx, elements, out)?;
        self.states.leave();
        Ok(())
    }

    /// Windows with a max timestamp up to `until_ms` have been dropped.
    pub(super) fn expire<I, O>(&mut self, until_ms: i64, clocks: Clocks) -> Result<()>
    where
        F: ProcessWindowFunction<K, I, O, W>,
    {
        while let Some(first) = self.states.used.first_entry() {
            let (max_timestamp, window) = first.key();
            if *max_timestamp > until_ms || *max_timestamp == i64::MAX {
                break;
            }
            let window = window.clone();
            for (key, ()) in first.remove().entries() {
                let ctx = &mut WindowContext { key, window: &window, clocks, states: &mut self.states };
                self.function.clear(key, ctx)?;
                self.states.leave();
            }
            // Asking for the state in `clear` has noted the window again.
            self.states.used.remove(&(window.max_timestamp(), window));
        }
        Ok(())
    }

    pub(super) fn close<I, O>(&mut self) -> Result<()>
    where
        F: ProcessWindowFunction<K, I, O, W>,
    {
        self.function.close()
    }
}

/// A key and window that fire.
#[derive(Debug)]
pub(crate) struct Firing<'a, K, W> {
    pub(super) key: &'a K,
    pub(super) window: &'a W,
    pub(super) clocks: Clocks,
}

impl<K, W> Firing<'_, K, W> {
    pub(crate) fn key(&self) -> &K {
        self.key
    }

    pub(crate) fn window(&self) -> &W {
        self.window
    }
}

/// A window function that is a closure `(key, window, elements, out)`.
#[derive(Clone)]
pub(crate) struct Apply<F>(pub(crate) F);

impl<K: Key, I, O, W: Window, F> ProcessWindowFunction<K, I, O, W> for Apply<F>
where
    F: FnMut(&K, &W, Elements<'_, I>, &mut Collector<O>) + Function,
{
    fn process(
        &mut self,
        key: &K,
        ctx: &mut WindowContext<'_, K, W>,
        elements: Elements<'_, I>,
        out: &mut Collector<O>,
    ) -> Result<()> {
        (self.0)(key, ctx.window(), elements, out);
        Ok(())
    }
}

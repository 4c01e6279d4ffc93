//! Handles to keyed state. A function holds them as fields, registers them in `open`, and uses them with the context
//! of the record or timer it is called for: `self.count.set(ctx, 3)`.

use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use flott_schema::Result;

use super::columns::{Cell, Container, ContainerTable, ValueTable};
use super::key_table::KeyTable;
use super::store::StateStore;
use super::ttl::StateTtl;
use crate::batch::Record;
use crate::key::{Key, stable_hash};
use crate::time::AggregateFunction;
use crate::types::Shape;

/// A context with a current key.
pub trait KeyedScope {
    /// The states of the current key.
    fn states(&mut self) -> &mut StateStore;
}

impl KeyedScope for StateStore {
    fn states(&mut self) -> &mut StateStore {
        self
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($param:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($param),+> {
            table: Option<u32>,
            value: PhantomData<fn() -> ($($param,)+)>,
        }

        impl<$($param),+> Default for $name<$($param),+> {
            fn default() -> Self {
                $name { table: None, value: PhantomData }
            }
        }

        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                $name { table: self.table, value: PhantomData }
            }
        }

        impl<$($param),+> $name<$($param),+> {
            fn table(&self) -> u32 {
                self.table.expect(concat!(stringify!($name), " is used but was not registered in open()"))
            }
        }
    };
}

handle! {
    /// One value a key.
    ValueState<V>
}
handle! {
    /// A list a key.
    ListState<V>
}
handle! {
    /// A map a key.
    MapState<MK, V>
}

impl<V: Record> ValueState<V> {
    /// Registers the state under `name`, unique within the operator.
    pub fn register(store: &mut StateStore, name: &str, ttl: Option<StateTtl>) -> Result<Self> {
        let table = store.register(name, Box::new(ValueTable::<V>::new(ttl)))?;
        Ok(ValueState { table: Some(table), value: PhantomData })
    }

    fn cell<'a>(&self, scope: &'a mut impl KeyedScope) -> Cell<'a, ValueTable<V>> {
        scope.states().table(self.table())
    }

    /// The value of the current key.
    #[inline]
    pub fn get<'a>(&self, scope: &'a mut impl KeyedScope) -> Option<&'a V> {
        self.cell(scope).get()
    }

    /// A copy of the value of the current key.
    #[inline]
    pub fn get_cloned(&self, scope: &mut impl KeyedScope) -> Option<V> {
        self.get(scope).cloned()
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, scope: &mut impl KeyedScope, value: V) {
        self.cell(scope).set(value);
    }

    /// Changes the value in place, starting from `V::default()`, and gives what `change` returns.
    #[inline]
    pub fn update<R>(&self, scope: &mut impl KeyedScope, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        if let Some(value) = self.cell(scope).get_mut() {
            return change(value);
        }
        let mut value = V::default();
        let result = change(&mut value);
        self.cell(scope).set(value);
        result
    }

    /// Takes the value, leaving none.
    pub fn take(&self, scope: &mut impl KeyedScope) -> Option<V> {
        self.cell(scope).take()
    }

    /// Forgets the value.
    pub fn clear(&self, scope: &mut impl KeyedScope) {
        self.take(scope);
    }
}

/// Entries with the time they were last renewed, 0 without time to live.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Stamped<V> {
    entries: Vec<(V, i64)>,
}

impl<V> Default for Stamped<V> {
    fn default() -> Self {
        Stamped { entries: Vec::new() }
    }
}

impl<V: Record> Container for Stamped<V> {
    const HOLDS: &'static str = "list";

    fn type_text() -> String {
        Shape::of::<Vec<(V, i64)>>().canonical_text()
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn has_expired(&self, ttl: &StateTtl, now_ms: i64) -> bool {
        self.entries.iter().any(|(_, stamp)| ttl.is_expired(*stamp, now_ms))
    }

    fn for_each_stamp(&mut self, mut visit: impl FnMut(&mut i64)) {
        self.entries.iter_mut().for_each(|(_, stamp)| visit(stamp));
    }

    fn drop_expired(&mut self, ttl: &StateTtl, now_ms: i64) {
        self.entries.retain(|(_, stamp)| !ttl.is_expired(*stamp, now_ms));
    }
}

impl<V: Record> ListState<V> {
    /// Registers the state under `name`, unique within the operator.
    pub fn register(store: &mut StateStore, name: &str, ttl: Option<StateTtl>) -> Result<Self> {
        let table = store.register(name, Box::new(ContainerTable::<Stamped<V>>::new(ttl)))?;
        Ok(ListState { table: Some(table), value: PhantomData })
    }

    fn cell<'a>(&self, scope: &'a mut impl KeyedScope) -> Cell<'a, ContainerTable<Stamped<V>>> {
        scope.states().table(self.table())
    }

    /// Appends a value.
    pub fn add(&self, scope: &mut impl KeyedScope, value: V) {
        let cell = self.cell(scope);
        let stamp = cell.stamp();
        cell.change(|list| list.entries.push((value, stamp)));
    }

    /// The values in order of addition. Reads all of them, however far the iterator is followed.
    pub fn iter<'a, C: KeyedScope>(&self, scope: &'a mut C) -> impl Iterator<Item = &'a V> + use<'a, C, V> {
        let cell = self.cell(scope);
        let (ttl, now_ms) = (cell.ttl(), cell.now_ms);
        let entries = &mut cell.visible_renewed().entries;
        if let Some(ttl) = ttl.filter(StateTtl::renews_on_read) {
            entries.iter_mut().for_each(|(_, stamp)| ttl.renew_iterated(stamp, now_ms));
        }
        entries.iter().map(|(value, _)| value)
    }

    /// The number of values.
    pub fn len(&self, scope: &mut impl KeyedScope) -> usize {
        self.cell(scope).visible().entries.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self, scope: &mut impl KeyedScope) -> bool {
        self.len(scope) == 0
    }

    /// Replaces all values.
    pub fn set(&self, scope: &mut impl KeyedScope, values: impl IntoIterator<Item = V>) {
        let cell = self.cell(scope);
        let stamp = cell.stamp();
        cell.change(|list| list.entries = values.into_iter().map(|value| (value, stamp)).collect());
    }

    /// Takes all values, leaving none.
    pub fn take(&self, scope: &mut impl KeyedScope) -> Vec<V> {
        if self.cell(scope).visible().is_empty() {
            return Vec::new();
        }
        let entries = self.cell(scope).change(|list| std::mem::take(&mut list.entries));
        entries.into_iter().map(|(value, _)| value).collect()
    }

    /// Forgets all values.
    pub fn clear(&self, scope: &mut impl KeyedScope) {
        let cell = self.cell(scope);
        if !cell.is_empty() {
            cell.change(|list| list.entries.clear());
        }
    }
}

/// A map whose entries expire one by one. Made when first written, so that an empty one costs nothing.
#[derive(Clone)]
pub(super) struct StampedMap<MK, V> {
    table: Option<KeyTable<MK, (V, i64)>>,
}

impl<MK, V> Default for StampedMap<MK, V> {
    fn default() -> Self {
        StampedMap { table: None }
    }
}

impl<MK: Key, V: Record> Serialize for StampedMap<MK, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.table.as_ref().map_or(&[][..], KeyTable::entries).serialize(serializer)
    }
}

impl<'de, MK: Key, V: Record> Deserialize<'de> for StampedMap<MK, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut table = KeyTable::default();
        for (key, value) in Vec::<(MK, (V, i64))>::deserialize(deserializer)? {
            let hash = stable_hash(&key);
            if table.find(hash, &key).is_some() {
                return Err(serde::de::Error::custom("a key stands in a map twice"));
            }
            table.insert_new(hash, key, value);
        }
        Ok(StampedMap { table: Some(table) })
    }
}

impl<MK: Key, V: Record> Container for StampedMap<MK, V> {
    const HOLDS: &'static str = "map";

    fn type_text() -> String {
        Shape::of::<Vec<(MK, (V, i64))>>().canonical_text()
    }

    fn is_empty(&self) -> bool {
        self.table.as_ref().is_none_or(KeyTable::is_empty)
    }

    fn has_expired(&self, ttl: &StateTtl, now_ms: i64) -> bool {
        let mut entries = self.table.iter().flat_map(KeyTable::entries);
        entries.any(|(_, (_, stamp))| ttl.is_expired(*stamp, now_ms))
    }

    fn for_each_stamp(&mut self, mut visit: impl FnMut(&mut i64)) {
        self.table.iter_mut().flat_map(KeyTable::values_mut).for_each(|(_, (_, stamp))| visit(stamp));
    }

    fn drop_expired(&mut self, ttl: &StateTtl, now_ms: i64) {
        let Some(table) = &mut self.table else { return };
        let expired: Vec<MK> = table
            .entries()
            .iter()
            .filter(|(_, (_, stamp))| ttl.is_expired(*stamp, now_ms))
            .map(|(key, _)| key.clone())
            .collect();
        for key in expired {
            table.remove(stable_hash(&key), &key);
        }
    }
}

impl<MK: Key, V: Record> MapState<MK, V> {
    /// Registers the state under `name`, unique within the operator.
    pub fn register(store: &mut StateStore, name: &str, ttl: Option<StateTtl>) -> Result<Self> {
        let table = store.register(name, Box::new(ContainerTable::<StampedMap<MK, V>>::new(ttl)))?;
        Ok(MapState { table: Some(table), value: PhantomData })
    }

    fn cell<'a>(&self, scope: &'a mut impl KeyedScope) -> Cell<'a, ContainerTable<StampedMap<MK, V>>> {
        scope.states().table(self.table())
    }

    /// The value under `key`.
    pub fn get<'a>(&self, scope: &'a mut impl KeyedScope, key: &MK) -> Option<&'a V> {
        let hash = stable_hash(key);
        let cell = self.cell(scope);
        if let Some(ttl) = cell.ttl().filter(StateTtl::renews_on_read) {
            let now_ms = cell.now_ms;
            let found = cell.peek().table.as_ref()?.get(hash, key).map(|(_, stamp)| *stamp)?;
            if !ttl.hides(found, now_ms) && found != now_ms {
                self.cell(scope).change(|map| {
                    let table = map.table.as_mut()?;
                    let entry = table.find(hash, key)?;
                    table.value_mut(entry).1 = now_ms;
                    Some(())
                });
            }
        }
        let cell = self.cell(scope);
        let (ttl, now_ms) = (cell.ttl(), cell.now_ms);
        let (value, stamp) = cell.peek().table.as_ref()?.get(hash, key)?;
        Some(value).filter(|_| !ttl.is_some_and(|ttl| ttl.hides(*stamp, now_ms)))
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, scope: &mut impl KeyedScope, key: &MK) -> bool {
        self.get(scope, key).is_some()
    }

    /// Sets the value under `key`.
    pub fn put(&self, scope: &mut impl KeyedScope, key: MK, value: V) {
        let cell = self.cell(scope);
        let stamp = cell.stamp();
        cell.change(|map| {
            let table = map.table.get_or_insert_default();
            let hash = stable_hash(&key);
            match table.find(hash, &key) {
                Some(entry) => *table.value_mut(entry) = (value, stamp),
                None => {
                    table.insert_new(hash, key, (value, stamp));
                }
            }
        });
    }

    /// Removes and gives the value under `key`.
    pub fn remove(&self, scope: &mut impl KeyedScope, key: &MK) -> Option<V> {
        let cell = self.cell(scope);
        if cell.is_empty() {
            return None;
        }
        let (ttl, now_ms) = (cell.ttl(), cell.now_ms);
        let (_, (value, stamp)) = cell.change(|map| map.table.as_mut()?.remove(stable_hash(key), key))?;
        Some(value).filter(|_| !ttl.is_some_and(|ttl| ttl.hides(stamp, now_ms)))
    }

    /// The entries, in no particular order. Reads those that the iterator gives.
    pub fn iter<'a, C: KeyedScope>(
        &self,
        scope: &'a mut C,
    ) -> impl Iterator<Item = (&'a MK, &'a V)> + use<'a, C, MK, V> {
        let cell = self.cell(scope);
        let (ttl, now_ms) = (cell.ttl(), cell.now_ms);
        let entries = cell.visible_renewed().table.iter_mut().flat_map(KeyTable::values_mut);
        entries.map(move |(key, (value, stamp))| {
            if let Some(ttl) = ttl {
                ttl.renew_iterated(stamp, now_ms);
            }
            (key, &*value)
        })
    }

    /// The number of entries.
    pub fn len(&self, scope: &mut impl KeyedScope) -> usize {
        self.cell(scope).visible().table.as_ref().map_or(0, KeyTable::len)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self, scope: &mut impl KeyedScope) -> bool {
        self.len(scope) == 0
    }

    /// Forgets all entries.
    pub fn clear(&self, scope: &mut impl KeyedScope) {
        let cell = self.cell(scope);
        if !cell.is_empty() {
            cell.change(|map| map.table = None);
        }
    }
}

/// A value a key that every added value is reduced into.
pub struct ReducingState<V> {
    value: ValueState<V>,
    reduce: fn(&mut V, V),
}

impl<V> Clone for ReducingState<V> {
    fn clone(&self) -> Self {
        ReducingState { value: self.value.clone(), reduce: self.reduce }
    }
}

impl<V: Record> ReducingState<V> {
    /// A handle, to be registered in `open`.
    pub fn new(reduce: fn(&mut V, V)) -> Self {
        ReducingState { value: ValueState::default(), reduce }
    }

    /// Registers the state under `name`, unique within the operator.
    pub fn register(&mut self, store: &mut StateStore, name: &str, ttl: Option<StateTtl>) -> Result<()> {
        self.value = ValueState::register(store, name, ttl)?;
        Ok(())
    }

    /// Reduces `value` into the state.
    pub fn add(&self, scope: &mut impl KeyedScope, value: V) {
        if let Some(state) = self.value.cell(scope).get_mut() {
            (self.reduce)(state, value);
        } else {
            self.value.set(scope, value);
        }
    }

    /// The reduced value.
    pub fn get<'a>(&self, scope: &'a mut impl KeyedScope) -> Option<&'a V> {
        self.value.get(scope)
    }

    /// Forgets it.
    pub fn clear(&self, scope: &mut impl KeyedScope) {
        self.value.clear(scope);
    }
}

/// An accumulator a key that every added value is aggregated into.
pub struct AggregatingState<A: AggregateFunction> {
    value: ValueState<A::Accumulator>,
    function: A,
}

impl<A: AggregateFunction> Clone for AggregatingState<A> {
    fn clone(&self) -> Self {
        AggregatingState { value: self.value.clone(), function: self.function.clone() }
    }
}

impl<A: AggregateFunction> AggregatingState<A> {
    /// A handle, to be registered in `open`.
    pub fn new(function: A) -> Self {
        AggregatingState { value: ValueState::default(), function }
    }

    /// Registers the state under `name`, unique within the operator.
    pub fn register(&mut self, store: &mut StateStore, name: &str, ttl: Option<StateTtl>) -> Result<()> {
        self.value = ValueState::register(store, name, ttl)?;
        Ok(())
    }

    /// Aggregates `value` into the state.
    pub fn add(&self, scope: &mut impl KeyedScope, value: A::In) {
        if let Some(accumulator) = self.value.cell(scope).get_mut() {
            self.function.add(accumulator, value);
        } else {
            let mut accumulator = self.function.create();
            self.function.add(&mut accumulator, value);
            self.value.set(scope, accumulator);
        }
    }

    /// The result so far.
    pub fn get(&self, scope: &mut impl KeyedScope) -> Option<A::Out> {
        self.value.get(scope).map(|accumulator| self.function.result(accumulator))
    }

    /// Forgets it.
    pub fn clear(&self, scope: &mut impl KeyedScope) {
        self.value.clear(scope);
    }
}

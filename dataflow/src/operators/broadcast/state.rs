//! The maps of broadcast state.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use flott_schema::nearest::nearest;
use flott_schema::{Error, Result};

use crate::batch::Record;
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::key::{Key, stable_hash};
use crate::snapshot::ListMode;
use crate::state::KeyTable;
use crate::types::Shape;

/// Names a map of broadcast state and the types of its entries (Flink's `MapStateDescriptor`). A function holds a
/// clone of it as field.
pub struct BroadcastState<K, V> {
    name: Arc<str>,
    entries: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Record> BroadcastState<K, V> {
    /// A map called `name`, unique within the operator.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        BroadcastState { name: name.into(), entries: PhantomData }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The map to be made in each task.
    pub fn declare(&self) -> DeclaredState {
        DeclaredState { name: self.name.clone(), make: || Box::new(BroadcastMap::<K, V>::default()) }
    }
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        BroadcastState { name: self.name.clone(), entries: PhantomData }
    }
}

impl<K, V> fmt::Debug for BroadcastState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastState({:?})", self.name)
    }
}

/// A [`BroadcastState`] without its types.
#[derive(Clone)]
pub struct DeclaredState {
    name: Arc<str>,
    make: fn() -> Box<dyn AnyMap>,
}

impl DeclaredState {
    /// The name of the map.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The entries of one map.
pub struct BroadcastMap<K, V> {
    table: KeyTable<K, V>,
}

impl<K: Key, V> Default for BroadcastMap<K, V> {
    fn default() -> Self {
        BroadcastMap { table: KeyTable::default() }
    }
}

impl<K: Key, V> BroadcastMap<K, V> {
    /// The value under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.table.get(stable_hash(key), key)
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.table.entries().iter().map(|(key, value)| (key, value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Sets the value under `key`, giving the one before.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let hash = stable_hash(&key);
        match self.table.find(hash, &key) {
            Some(entry) => Some(std::mem::replace(self.table.value_mut(entry), value)),
            None => {
                self.table.insert_new(hash, key, value);
                None
            }
        }
    }

    /// Removes and gives the value under `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.table.remove(stable_hash(key), key).map(|(_, value)| value)
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.table = KeyTable::default();
    }
}

fn list_name(map: &str) -> String {
    format!("broadcast.{map}")
}

/// A map without its types.
trait AnyMap {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Text of the type of its entries.
    fn item_type(&self) -> String;
    /// The entries in postcard's format: `(key, value)`.
    fn items(&self) -> Result<Vec<Vec<u8>>>;
    fn restore(&mut self, items: &[Vec<u8>]) -> Result<()>;
}

impl<K: Key, V: Record> AnyMap for BroadcastMap<K, V> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn item_type(&self) -> String {
        Shape::of::<(K, V)>().canonical_text()
    }

    fn items(&self) -> Result<Vec<Vec<u8>>> {
        let encode = |entry: &(K, V)| {
            let mut bytes = Vec::new();
            encode_value(entry, &mut bytes).map(|()| bytes)
        };
        self.table.entries().iter().map(encode).collect()
    }

    fn restore(&mut self, items: &[Vec<u8>]) -> Result<()> {
        for item in items {
            let (key, value) = decode_value(item)?;
            self.put(key, value);
        }
        Ok(())
    }
}

/// The maps of one operator.
pub struct BroadcastStates {
    maps: Vec<(Arc<str>, Box<dyn AnyMap>)>,
    operator: Arc<str>,
}

impl BroadcastStates {
    /// Empty maps.
    pub fn new(declared: &[DeclaredState], operator: &Arc<str>) -> Self {
        let maps = declared.iter().map(|state| (state.name.clone(), (state.make)())).collect();
        BroadcastStates { maps, operator: operator.clone() }
    }

    /// Hands in all maps, each as the list state `broadcast.` and its name.
    pub fn snapshot(&self, ctx: &OperatorContext) -> Result<()> {
        let Some(state) = &ctx.state else { return Ok(()) };
        self.maps.iter().try_for_each(|(name, map)| {
            state.set_list(&list_name(name), ListMode::Broadcast, &map.item_type(), map.items()?)
        })
    }

    /// Fills the maps with what was restored.
    pub fn restore(&mut self, ctx: &OperatorContext) -> Result<()> {
        let Some(state) = &ctx.state else { return Ok(()) };
        self.maps
            .iter_mut()
            .try_for_each(|(name, map)| map.restore(&state.list_as(&list_name(name), &map.item_type())?))
    }

    /// The map of `state`.
    #[inline]
    pub fn get<K: Key, V: Record>(&self, state: &BroadcastState<K, V>) -> Result<&BroadcastMap<K, V>> {
        let index = self.index(&state.name)?;
        self.maps[index].1.as_any().downcast_ref().ok_or_else(|| self.of_another_type(state))
    }

    /// The map of `state`, to be changed.
    #[inline]
    pub fn get_mut<K: Key, V: Record>(
        &mut self,
        state: &BroadcastState<K, V>,
    ) -> Result<&mut BroadcastMap<K, V>> {
        let index = self.index(&state.name)?;
        if !self.maps[index].1.as_any().is::<BroadcastMap<K, V>>() {
            return Err(self.of_another_type(state));
        }
        Ok(self.maps[index].1.as_any_mut().downcast_mut().expect("its type was checked just now"))
    }

    #[inline]
    fn index(&self, name: &Arc<str>) -> Result<usize> {
        // Clones of one `BroadcastState` share the name, so pointers usually decide.
        let same = self.maps.iter().position(|(other, _)| Arc::ptr_eq(other, name));
        match same.or_else(|| self.maps.iter().position(|(other, _)| other == name)) {
            Some(index) => Ok(index),
            None => Err(self.unknown(name)),
        }
    }

    #[cold]
    fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.maps.iter().map(|(name, _)| &**name).collect();
        let meant = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean '{meant}'?"),
            None => format!("the broadcast stream was given: {}", names.join(", ")),
        };
        Error::user(format!("operator '{}' has no broadcast state '{name}'; {meant}", self.operator))
    }

    #[cold]
    fn of_another_type<K, V>(&self, state: &BroadcastState<K, V>) -> Error {
        Error::user(format!(
            "broadcast state '{}' of operator '{}' has other types than {} to {}; use one BroadcastState for the \
             stream and the function",
            state.name,
            self.operator,
            std::any::type_name::<K>(),
            std::any::type_name::<V>()
        ))
    }
}

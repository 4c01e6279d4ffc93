//! What a function gets when it is opened.

use flott_schema::{Error, Result};

use crate::batch::Record;
use crate::context::{OperatorContext, TaskContext};
use crate::key::Key;
use crate::operators::list_state::ListStateHandle;
use crate::snapshot::ListMode;
use crate::state::{AggregatingState, ListState, MapState, ReducingState, StateStore, StateTtl, ValueState};
use crate::time::AggregateFunction;

/// Where a function runs, and, on a keyed stream, the place to register its states.
pub struct OpenContext<'a> {
    operator: &'a OperatorContext,
    store: Option<&'a mut StateStore>,
    /// Names of list states.
    lists: Vec<String>,
}

impl<'a> OpenContext<'a> {
    /// For a function on a stream without keys.
    pub fn plain(operator: &'a OperatorContext) -> Self {
        OpenContext { operator, store: None, lists: Vec::new() }
    }

    /// For a function on a keyed stream.
    pub fn keyed(operator: &'a OperatorContext, store: &'a mut StateStore) -> Self {
        OpenContext { operator, store: Some(store), lists: Vec::new() }
    }

    /// The task: subtask, parallelism, settings.
    pub fn task(&self) -> &TaskContext {
        &self.operator.task
    }

    /// The operator's name.
    pub fn operator_name(&self) -> &str {
        &self.operator.name
    }

    pub(super) fn operator(&self) -> &OperatorContext {
        self.operator
    }

    /// Whether the job starts from a snapshot.
    pub fn is_restored(&self) -> bool {
        self.operator.state.as_ref().is_some_and(|state| state.is_restored())
    }

    /// A list state of the function itself: when the job starts again, each item goes to one of the tasks, evenly. The function sets the
    /// items in its `snapshot`.
    pub fn operator_list_state<T: Record>(&mut self, name: &str) -> Result<ListStateHandle<T>> {
        self.list_of_mode(name, ListMode::Split)
    }

    /// The same, but when the job starts again, each task gets the items of all.
    pub fn union_list_state<T: Record>(&mut self, name: &str) -> Result<ListStateHandle<T>> {
        self.list_of_mode(name, ListMode::Union)
    }

    fn list_of_mode<T: Record>(&mut self, name: &str, mode: ListMode) -> Result<ListStateHandle<T>> {
        if self.lists.iter().any(|other| other == name) {
            return Err(Error::user(format!(
                "list state '{name}' is registered twice in operator '{}'; give each state its own name",
                self.operator.name
            )));
        }
        self.lists.push(name.to_string());
        let handle = ListStateHandle::new(name, mode);
        handle.declare(self.operator)?;
        Ok(handle)
    }

    fn store(&mut self, name: &str) -> Result<&mut StateStore> {
        let operator = self.operator;
        self.store.as_deref_mut().ok_or_else(|| {
            Error::user(format!(
                "state '{name}' needs a keyed stream, but operator '{}' has none; call key_by before it",
                operator.name
            ))
        })
    }

    /// Registers a value state.
    pub fn value_state<V: Record>(&mut self, name: &str) -> Result<ValueState<V>> {
        ValueState::register(self.store(name)?, name, None)
    }

    /// Registers a value state whose values expire.
    pub fn value_state_with_ttl<V: Record>(&mut self, name: &str, ttl: StateTtl) -> Result<ValueState<V>> {
        ValueState::register(self.store(name)?, name, Some(ttl))
    }

    /// Registers a list state.
    pub fn list_state<V: Record>(&mut self, name: &str) -> Result<ListState<V>> {
        ListState::register(self.store(name)?, name, None)
    }

    /// Registers a list state whose elements expire.
    pub fn list_state_with_ttl<V: Record>(&mut self, name: &str, ttl: StateTtl) -> Result<ListState<V>> {
        ListState::register(self.store(name)?, name, Some(ttl))
    }

    /// Registers a map state.
    pub fn map_state<K: Key, V: Record>(&mut self, name: &str) -> Result<MapState<K, V>> {
        MapState::register(self.store(name)?, name, None)
    }

    /// Registers a map state whose entries expire.
    pub fn map_state_with_ttl<K: Key, V: Record>(
        &mut self,
        name: &str,
        ttl: StateTtl,
    ) -> Result<MapState<K, V>> {
        MapState::register(self.store(name)?, name, Some(ttl))
    }

    /// Registers a reducing state.
    pub fn reducing_state<V: Record>(
        &mut self,
        name: &str,
        reduce: fn(&mut V, V),
    ) -> Result<ReducingState<V>> {
        let mut state = ReducingState::new(reduce);
        state.register(self.store(name)?, name, None)?;
        Ok(state)
    }

    /// Registers an aggregating state.
    pub fn aggregating_state<A: AggregateFunction>(
        &mut self,
        name: &str,
        function: A,
    ) -> Result<AggregatingState<A>> {
        let mut state = AggregatingState::new(function);
        state.register(self.store(name)?, name, None)?;
        Ok(state)
    }
}

//! State of one operator in one task.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use flott_dataflow::snapshot::{
    Background, FrozenRows, FrozenSink, ListMode, ScanPlace, ScanRange, ScannedRow, StateBackend, TableId,
    TableSpec, WantedKey,
};
use flott_schema::ids::OperatorId;
use flott_schema::snapshot::{ListSnapshot, TableSnapshot};
use flott_schema::{Context, Error, Result};

use crate::evolution::{self, Plan};
use crate::keyed::Keyed;
use crate::layer::Layer;
use crate::memory::TaskMemory;
use crate::options::{Backend, TaskIdentity};
use crate::pipeline::Pipeline;
use crate::place::Place;
use crate::pool::guarded;
use crate::restored::{Restored, RestoredOperator};
use crate::service::StateService;
use crate::snapshot::{Part, Pending};

/// What the operators of a task share.
pub(crate) struct Shared {
    pub(crate) service: Arc<StateService>,
    pub(crate) task: TaskIdentity,
    pub(crate) restored: Option<Restored>,
    pub(crate) current: RefCell<Option<Current>>,
    pub(crate) memory: Arc<TaskMemory>,
}

impl Shared {
    pub(crate) fn new(
        service: Arc<StateService>,
        task: TaskIdentity,
        restored: Option<Restored>,
        memory: Arc<TaskMemory>,
    ) -> Rc<Self> {
        service.tuning.resize_cache(memory.cache_bytes(), true);
        Rc::new(Shared { service, task, restored, current: RefCell::default(), memory })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.service.tuning.resize_cache(self.memory.cache_bytes(), false);
    }
}

/// What an operator starts from, fetched.
#[derive(Default)]
pub(crate) struct Fetched {
    restored: RestoredOperator,
    keyed: Option<Keyed>,
}

impl Fetched {
    /// Fetches what `operator` starts from; on any thread.
    pub(crate) fn fetch(
        service: &Arc<StateService>,
        task: &TaskIdentity,
        restored: Option<&Restored>,
        memory: &Arc<TaskMemory>,
        operator: OperatorId,
    ) -> Result<Self> {
        let of_operator = choose(service, task, restored, operator)?;
        let keyed = match of_operator.parts.is_empty() {
            true => None,
            false => {
                let keyed = open_keyed(service, task, restored, memory, operator, &of_operator);
                Some(keyed.at(|| format!("operator {operator}"))?)
            }
        };
        Ok(Fetched { restored: of_operator, keyed })
    }
}

fn choose(
    service: &StateService,
    task: &TaskIdentity,
    restored: Option<&Restored>,
    operator: OperatorId,
) -> Result<RestoredOperator> {
    let Some(restored) = restored else { return Ok(RestoredOperator::default()) };
    let backup = |from, key_groups| service.backup(restored.manifest.job, from, operator, key_groups);
    restored.operator(operator, task, backup)
}

fn open_keyed(
    service: &Arc<StateService>,
    task: &TaskIdentity,
    restored: Option<&Restored>,
    memory: &Arc<TaskMemory>,
    operator: OperatorId,
    of_operator: &RestoredOperator,
) -> Result<Keyed> {
    let place = Arc::new(Place::new(service, task, operator)?);
    let from = restored.map(|restored| (&restored.from, of_operator.parts.clone()));
    memory.add_operator();
    Keyed::open(place, from, memory.clone())
}

/// The snapshot that operators hand in for at the moment.
pub(crate) struct Current {
    pub(crate) pending: Arc<Pending>,
    pub(crate) lists: BTreeMap<OperatorId, Vec<ListSnapshot>>,
    /// Of each operator with tables, its layer, and the tables that have not been handed in.
    pub(crate) layers: BTreeMap<OperatorId, (Arc<Layer>, BTreeSet<u16>)>,
    /// Whether it was given up: what is handed in is not for it.
    pub(crate) is_abandoned: bool,
}

/// State of one operator.
pub(crate) struct OperatorState {
    operator: OperatorId,
    uid: RefCell<String>,
    shared: Rc<Shared>,
    restored: RestoredOperator,
    /// Why what it starts from cannot be had, where nobody has been told yet.
    refused: Option<Error>,
    tables: RefCell<BTreeMap<String, TableSnapshot>>,
    keyed: OnceCell<Keyed>,
}

impl OperatorState {
    /// State of `operator`, with what was fetched for it.
    pub(crate) fn open(shared: Rc<Shared>, operator: OperatorId, fetched: Fetched) -> Self {
        let mut state = Self::new(shared, operator);
        state.restored = fetched.restored;
        state.keyed = fetched.keyed.map_or_else(OnceCell::new, OnceCell::from);
        state
    }

    /// State of an operator that was not named when its task was opened. What it starts from is fetched when
    /// it registers its first table.
    pub(crate) fn open_late(shared: Rc<Shared>, operator: OperatorId) -> Self {
        let mut state = Self::new(shared, operator);
        match state.choose() {
            Ok(restored) => state.restored = restored,
            Err(error) => state.refused = Some(error),
        }
        state
    }

    fn new(shared: Rc<Shared>, operator: OperatorId) -> Self {
        OperatorState {
            operator,
            uid: RefCell::default(),
            shared,
            restored: RestoredOperator::default(),
            refused: None,
            tables: RefCell::default(),
            keyed: OnceCell::new(),
        }
    }

    /// What it starts from.
    fn choose(&self) -> Result<RestoredOperator> {
        let Shared { service, task, restored, .. } = &*self.shared;
        choose(service, task, restored.as_ref(), self.operator)
    }

    fn check(&self) -> Result<()> {
        match &self.refused {
            Some(error) => Err(Error::new(error.kind(), error.to_string()).at(self.place())),
            None => Ok(()),
        }
    }

    /// Makes the operator known to people.
    pub(crate) fn name(&self, uid: &str) {
        uid.clone_into(&mut self.uid.borrow_mut());
    }

    fn place(&self) -> String {
        match &**self.uid.borrow() {
            "" => format!("operator {}", self.operator),
            uid => format!("operator '{uid}'"),
        }
    }

    fn keyed(&self) -> Result<&Keyed> {
        if let Some(keyed) = self.keyed.get() {
            return Ok(keyed);
        }
        self.check()?;
        let Shared { service, task, restored, memory, .. } = &*self.shared;
        let keyed = open_keyed(service, task, restored.as_ref(), memory, self.operator, &self.restored);
        let keyed = keyed.at(|| self.place())?;
        Ok(self.keyed.get_or_init(|| keyed))
    }

    /// The tables that the operator has registered.
    fn registered(&self) -> Vec<TableSnapshot> {
        let mut tables: Vec<TableSnapshot> = self.tables.borrow().values().cloned().collect();
        tables.sort_unstable_by_key(|table| table.number);
        tables
    }

    /// A snapshot begins: tables are not loaded any more.
    pub(crate) fn all_loaded(&self) {
        if let Some(keyed) = self.keyed.get() {
            keyed.all_loaded();
        }
    }

    /// Begins its part of a snapshot.
    pub(crate) fn begin(&self, pending: &Arc<Pending>) -> Result<Option<(Arc<Layer>, BTreeSet<u16>)>> {
        let Some(keyed) = self.keyed.get() else { return Ok(None) };
        let tables = self.registered();
        if tables.is_empty() {
            return Ok(None);
        }
        let numbers = tables.iter().map(|table| table.number).collect();
        Ok(Some((keyed.begin(pending, tables)?, numbers)))
    }

    /// The layer of a snapshot has been closed: it has passed, or was given up.
    pub(crate) fn layer_closed(&self) {
        if let Some(keyed) = self.keyed.get() {
            keyed.pipeline.poke();
        }
    }

    pub(crate) fn completed(&self, checkpoint: u64) {
        if let Some(keyed) = self.keyed.get() {
            keyed.completed(checkpoint);
        }
    }

    pub(crate) fn aborted(&self, checkpoint: u64) {
        if let Some(keyed) = self.keyed.get() {
            keyed.aborted(checkpoint);
        }
    }

    pub(crate) fn superseded(&self, checkpoint: u64) {
        if let Some(keyed) = self.keyed.get() {
            keyed.superseded(checkpoint);
        }
    }

    /// An error if the state is not usable any more.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.keyed.get().map_or(Ok(()), |keyed| keyed.pipeline.check_usable())
    }

    /// Refuses restored tables that were not registered, or drops them if that is allowed.
    pub(crate) fn check_claimed(&self) -> Result<()> {
        let Some(restored) = &self.shared.restored else { return Ok(()) };
        let registered = self.tables.borrow();
        for table in self.restored.tables.values().filter(|table| !registered.contains_key(&table.name)) {
            if !restored.from.ignore_unclaimed {
                let known =
                    flott_schema::nearest::nearest(&table.name, registered.keys().map(String::as_str));
                let hint = known.map_or(String::new(), |name| format!(" (it has a '{name}')"));
                return Err(Error::configuration(format!(
                    "{} has a table '{}' of this operator, which does not register one of that name{hint}; \
                     register it, or allow that its rows are dropped (--allow-non-restored-state)",
                    restored.from, table.name
                ))
                .at(self.place()));
            }
            if let Some(keyed) = self.keyed.get() {
                keyed.drop_table(table.number)?;
            }
        }
        Ok(())
    }

    /// The task is gone.
    pub(crate) fn close(&self) {
        if let Some(keyed) = self.keyed.get() {
            keyed.close();
        }
    }

    /// How stored values of a table become values of its type now, if they are not. Keys cannot change: they
    /// say where a row belongs.
    fn evolution(&self, spec: &TableSpec, stored: &TableSnapshot) -> Result<Option<Plan>> {
        let plan = |of: &str, stored: &str, now: &str| {
            if stored.is_empty() || now.is_empty() {
                return Ok(None);
            }
            evolution::plan(stored, now).map_err(|error| {
                let restored = self.shared.restored.as_ref();
                let from = restored.map_or(String::new(), |restored| restored.from.to_string());
                Error::configuration(format!(
                    "table '{}' has {of} of type {stored} in {from}, and is registered with {now}: {error}; \
                     keep the type, or give the table another name",
                    spec.name
                ))
                .at(self.place())
            })
        };
        if plan("keys", &stored.key_type, &spec.key_type)?.is_some() {
            return Err(Error::configuration(format!(
                "table '{}' has keys of type {}, and is registered with {}; the type of keys cannot change: \
                 give the table another name",
                spec.name, stored.key_type, spec.key_type
            ))
            .at(self.place()));
        }
        plan("values", &stored.value_type, &spec.value_type)
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> Option<&crate::rocks::RocksStore> {
        self.keyed.get()?.database()
    }

    #[cfg(test)]
    pub(crate) fn wait_checked(&self) -> Result<()> {
        self.keyed.get().map_or(Ok(()), Keyed::wait_checked)
    }

    #[cfg(test)]
    pub(crate) fn drain(&self) {
        if let Some(keyed) = self.keyed.get() {
            keyed.pipeline.drain();
        }
    }

    /// Layers that are not stored, though all that can be stored is.
    #[cfg(test)]
    pub(crate) fn layers_left(&self) -> usize {
        self.drain();
        self.keyed.get().map_or(0, |keyed| keyed.pipeline.layers())
    }
}

impl StateBackend for OperatorState {
    fn table(&self, spec: TableSpec) -> Result<TableId> {
        let keyed = self.keyed()?;
        let mut tables = self.tables.borrow_mut();
        if tables.contains_key(&spec.name) {
            return Err(Error::user(format!("table '{}' is registered twice", spec.name)).at(self.place()));
        }
        let number = match self.restored.tables.get(&spec.name) {
            Some(stored) => {
                if let Some(plan) = self.evolution(&spec, stored)? {
                    keyed.evolve(stored.number, plan).at(|| self.place())?;
                }
                stored.number
            }
            None => {
                // Behind all there ever were, so that rows of a table that is dropped now are not taken for
                // its.
                let stored = self.restored.tables.values().map(|table| table.number);
                let last = stored.chain(tables.values().map(|table| table.number)).max();
                last.map_or(Some(0), |last| last.checked_add(1)).ok_or_else(|| {
                    Error::user("an operator has no numbers left for more tables").at(self.place())
                })?
            }
        };
        let TableSpec { name, holds, key_type, value_type } = spec;
        let table = TableSnapshot { name: name.clone(), number, holds: holds.into(), key_type, value_type };
        tables.insert(name, table);
        Ok(TableId(number))
    }

    fn rows_expire(&self, table: TableId, life_ms: i64) {
        if let Some(keyed) = self.keyed.get() {
            keyed.rows_expire(table.0, life_ms);
        }
    }

    fn set_time(&self, now_ms: i64) {
        if let Some(keyed) = self.keyed.get() {
            keyed.set_time(now_ms);
        }
    }

    fn load(&self, table: TableId, row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.keyed()?.load(table.0, row).at(|| self.place())
    }

    fn wants_changes(&self) -> bool {
        self.shared.service.options.backend == Backend::RocksDb
    }

    fn freeze(&self, table: TableId) -> Box<dyn FrozenSink> {
        let mut current = self.shared.current.borrow_mut();
        let is_abandoned = current.as_ref().is_some_and(|current| current.is_abandoned);
        let layer = current.as_mut().and_then(|current| current.layers.get_mut(&self.operator));
        match (layer, self.keyed.get()) {
            (_, Some(keyed)) if is_abandoned => keyed.pipeline.late_sink(table.0),
            (Some((layer, open)), Some(keyed)) => {
                open.remove(&table.0);
                keyed.pipeline.sink(layer.clone(), table.0)
            }
            (_, keyed) => {
                Box::new(Nowhere { place: self.place(), pipeline: keyed.map(|keyed| keyed.pipeline.clone()) })
            }
        }
    }

    fn can_fetch(&self) -> bool {
        self.wants_changes()
    }

    fn budget_bytes(&self) -> usize {
        if self.can_fetch() { self.shared.memory.tables_bytes() } else { usize::MAX }
    }

    fn fetch(
        &self,
        table: TableId,
        keys: &[WantedKey<'_>],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.keyed()?.fetch(table.0, keys, found).at(|| self.place())
    }

    fn scan(
        &self,
        table: TableId,
        range: &ScanRange,
        after: Option<&ScanPlace>,
        row: ScannedRow<'_>,
    ) -> Result<Option<ScanPlace>> {
        self.keyed()?.scan(table.0, range, after, row).at(|| self.place())
    }

    fn write(&self, table: TableId, rows: Box<dyn FrozenRows>) -> Result<()> {
        self.keyed()?.write(table.0, rows).at(|| self.place())
    }

    fn set_list(&self, name: &str, mode: ListMode, item_type: &str, items: Vec<Vec<u8>>) -> Result<()> {
        let mut current = self.shared.current.borrow_mut();
        let Some(current) = &mut *current else {
            return Err(Error::internal(format!("list state '{name}' was set outside of a snapshot"))
                .at(self.place()));
        };
        let lists = current.lists.entry(self.operator).or_default();
        if lists.iter().any(|list| list.name == name) || self.tables.borrow().contains_key(name) {
            return Err(Error::user(format!("there is more than one state named '{name}'")).at(self.place()));
        }
        let (name, item_type) = (name.into(), item_type.into());
        lists.push(ListSnapshot { name, mode, item_type, items, file: None });
        Ok(())
    }

    fn complete_later(&self, work: Background) -> Result<()> {
        let pending = self.shared.current.borrow().as_ref().map(|current| current.pending.clone());
        let Some(pending) = pending else { return work() };
        pending.add_part();
        let part_of = pending.clone();
        let submitted = self.shared.service.transfer.submit(move || {
            part_of.part_done(guarded(work).map(|()| (Part::None, 0)));
        });
        if let Err(error) = submitted {
            pending.part_done(Err(error));
        }
        Ok(())
    }

    fn list(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        self.check()?;
        Ok(self.restored.lists.get(name).cloned().unwrap_or_default())
    }

    fn list_as(&self, name: &str, item_type: &str) -> Result<Vec<Vec<u8>>> {
        let items = self.list(name)?;
        let Some(restored) = self.shared.restored.as_ref().filter(|_| !items.is_empty()) else {
            return Ok(items);
        };
        let stored = restored.item_type(self.operator, name);
        if stored.is_empty() || item_type.is_empty() {
            return Ok(items);
        }
        let plan = evolution::plan(stored, item_type).map_err(|error| {
            let from = &restored.from;
            Error::configuration(format!(
                "list state '{name}' has items of type {stored} in {from}, and is registered with {item_type}: {error}; keep the \
                 type, or give the state another name"
            ))
            .at(self.place())
        })?;
        let Some(plan) = plan else { return Ok(items) };
        let rewrite = |item: &Vec<u8>| {
            let mut bytes = Vec::new();
            plan.rewrite(item, &mut bytes)
                .map(|()| bytes)
                .at(|| format!("{}, list state '{name}'", self.place()))
        };
        items.iter().map(rewrite).collect()
    }

    fn is_restored(&self) -> bool {
        self.shared.restored.is_some()
    }
}

impl Drop for OperatorState {
    fn drop(&mut self) {
        self.close();
        // Closing a database and deleting files takes time, which the thread of other tasks does not have.
        // Where too much waits it is done here.
        if let Some(keyed) = self.keyed.take() {
            drop(self.shared.service.transfer.submit(move || drop(keyed)));
        }
    }
}

/// Takes rows of a table that was not there when the snapshot began. They get lost.
struct Nowhere {
    place: String,
    pipeline: Option<Arc<Pipeline>>,
}

impl FrozenSink for Nowhere {
    fn rows(&mut self, _: Box<dyn FrozenRows>) {
        let error =
            Error::internal("rows of a table were handed in outside of a snapshot").at(self.place.clone());
        tracing::error!("{error}");
        if let Some(pipeline) = &self.pipeline {
            pipeline.refuse(&error);
        }
    }

    fn done(self: Box<Self>) {}
}

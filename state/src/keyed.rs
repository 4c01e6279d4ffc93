//! Where the rows of one operator in a task are kept, by either backend.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use flott_dataflow::snapshot::{FrozenRows, ScanPlace, ScanRange, ScannedRow, WantedKey};
use flott_schema::snapshot::{RestoreFrom, TableSnapshot};
use flott_schema::{Error, Result};

use crate::evolution::Plan;
use crate::heap::HeapStore;
use crate::layer::Layer;
use crate::memory::TaskMemory;
use crate::options::Backend;
use crate::pipeline::{Pipeline, Store};
use crate::place::{Place, discard};
use crate::restored::RestoredPart;
#[cfg(test)]
use crate::rocks::RocksStore;
use crate::rocks::{Begun, Members, restore};
use crate::rows::WantedRow;
use crate::snapshot::Pending;
use crate::source::RowSource;

/// Rows of one operator in a task.
pub(crate) struct Keyed {
    pub(crate) pipeline: Arc<Pipeline>,
    store: Kept,
    place: Arc<Place>,
}

enum Kept {
    Heap {
        store: Arc<HeapStore>,
        /// What tables are loaded from, until the first snapshot.
        sources: RefCell<Vec<RowSource>>,
        /// Tables whose values become others while they are loaded.
        plans: RefCell<BTreeMap<u16, Plan>>,
    },
    Rocks(Arc<Members>),
}

impl Keyed {
    /// Fetches the parts of a snapshot to start with, if there are any.
    pub(crate) fn open(
        place: Arc<Place>,
        from: Option<(&RestoreFrom, Vec<RestoredPart>)>,
        memory: Arc<TaskMemory>,
    ) -> Result<Self> {
        let service = place.service.clone();
        let from = from.filter(|(_, parts)| !parts.is_empty());
        let pipeline = |store: Arc<dyn Store>| {
            let name = format!("operator {}", place.operator);
            Pipeline::new(name, store, service.compute.clone(), memory.clone(), service.options.buffer_bytes)
        };
        let (pipeline, store) = match (service.options.backend, from) {
            (Backend::HashMap, from) => {
                let sources = from.map_or(Ok(Vec::new()), |(from, parts)| sources(&place, from, parts))?;
                let store = Arc::new(HeapStore::new(place.clone()));
                let (sources, plans) = (RefCell::new(sources), RefCell::default());
                (pipeline(store.clone()), Kept::Heap { store, sources, plans })
            }
            (Backend::RocksDb, Some((from, parts))) => {
                let (members, rest) = Members::new(restore(&place, from, parts)?);
                let members = Arc::new(members);
                let pipeline = pipeline(members.clone());
                members.check(from, rest, &pipeline)?;
                (pipeline, Kept::Rocks(members))
            }
            (Backend::RocksDb, None) => {
                let members = Members::new(vec![Begun::empty(&place)?]).0;
                let members = Arc::new(members);
                (pipeline(members.clone()), Kept::Rocks(members))
            }
        };
        Ok(Keyed { pipeline, store, place })
    }

    /// Gives the rows of a table that the snapshot had.
    pub(crate) fn load(&self, table: u16, row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let (sources, plans) = match &self.store {
            Kept::Heap { sources, plans, .. } => (sources.borrow(), plans.borrow()),
            Kept::Rocks(store) => {
                let row = &mut |_, _, key: &[u8], value: &[u8]| row(key, value);
                return store.each(table, row);
            }
        };
        let Some(plan) = plans.get(&table) else {
            return sources.iter().try_for_each(|source| source.each_of(table, row));
        };
        let mut now = Vec::new();
        let mut rewritten = |key: &[u8], value: &[u8]| {
            now.clear();
            plan.rewrite(value, &mut now)?;
            row(key, &now)
        };
        sources.iter().try_for_each(|source| source.each_of(table, &mut rewritten))
    }

    /// All tables have been loaded that ever will be.
    pub(crate) fn all_loaded(&self) {
        if let Kept::Heap { sources, .. } = &self.store {
            let count = sources.take().len();
            (0..count).for_each(|index| discard(&self.place.path(&format!("part-{index}"))));
        }
    }

    /// Has the values of a table become what `plan` says: now, or while they are loaded.
    pub(crate) fn evolve(&self, table: u16, plan: Plan) -> Result<()> {
        match &self.store {
            Kept::Heap { plans, .. } => drop(plans.borrow_mut().insert(table, plan)),
            Kept::Rocks(store) => {
                let value = &|stored: &[u8], now: &mut Vec<u8>| plan.rewrite(stored, now);
                store.rewrite(table, value)?;
            }
        }
        Ok(())
    }

    /// Rows of a table end with a stamp, and live so long behind it.
    pub(crate) fn rows_expire(&self, table: u16, life_ms: i64) {
        if let Kept::Rocks(store) = &self.store {
            store.rows_expire(table, life_ms);
        }
    }

    /// The processing time by which they do.
    pub(crate) fn set_time(&self, now_ms: i64) {
        if let Kept::Rocks(store) = &self.store {
            store.set_time(now_ms);
        }
    }

    /// Begins a snapshot: gives the layer for its rows.
    pub(crate) fn begin(&self, pending: &Arc<Pending>, tables: Vec<TableSnapshot>) -> Result<Arc<Layer>> {
        if let Kept::Rocks(store) = &self.store {
            store.hold(pending.barrier.checkpoint);
        }
        self.pipeline.begin(pending.clone(), tables)
    }

    /// Forgets the rows of a table that nobody has registered.
    pub(crate) fn drop_table(&self, table: u16) -> Result<()> {
        match &self.store {
            Kept::Heap { .. } => Ok(()),
            Kept::Rocks(store) => store.drop_table(table),
        }
    }

    /// Looks up rows, those that are on their way first.
    pub(crate) fn fetch(
        &self,
        table: u16,
        keys: &[WantedKey<'_>],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Kept::Rocks(store) = &self.store else { return Err(forgets_nothing()) };
        let waiting = self.pipeline.waiting()?;
        let mut missing = Vec::with_capacity(keys.len());
        for (position, (key_group, key)) in keys.iter().enumerate() {
            let wanted = WantedRow::new(*key_group, table, key);
            match waiting.iter().find_map(|run| run.get(&wanted)) {
                Some(Some(value)) => found(position, value)?,
                Some(None) => {}
                None => missing.push(position),
            }
        }
        store.get(table, keys, &missing, found)
    }

    /// Gives rows in their order, those that are on their way among them.
    pub(crate) fn scan(
        &self,
        table: u16,
        range: &ScanRange,
        after: Option<&ScanPlace>,
        row: ScannedRow<'_>,
    ) -> Result<Option<ScanPlace>> {
        let Kept::Rocks(store) = &self.store else { return Err(forgets_nothing()) };
        // What is stored from here on is found in both.
        let waiting = self.pipeline.waiting()?;
        store.scan(&waiting, table, range, after, row)
    }

    /// Takes rows that their table forgets.
    pub(crate) fn write(&self, table: u16, rows: Box<dyn FrozenRows>) -> Result<()> {
        match &self.store {
            Kept::Rocks(_) => self.pipeline.write(table, rows),
            Kept::Heap { .. } => Err(forgets_nothing()),
        }
    }

    /// A snapshot is complete.
    pub(crate) fn completed(&self, checkpoint: u64) {
        match &self.store {
            Kept::Heap { store, .. } => store.completed(checkpoint),
            Kept::Rocks(store) => store.completed(checkpoint),
        }
    }

    /// A snapshot was given up.
    pub(crate) fn aborted(&self, checkpoint: u64) {
        match &self.store {
            Kept::Heap { store, .. } => store.aborted(checkpoint),
            Kept::Rocks(store) => store.aborted(checkpoint),
        }
    }

    /// A later snapshot is complete, and nobody has said what became of this one.
    pub(crate) fn superseded(&self, checkpoint: u64) {
        match &self.store {
            Kept::Heap { store, .. } => store.superseded(checkpoint),
            Kept::Rocks(store) => store.superseded(checkpoint),
        }
    }

    /// The task is gone: nothing is begun any more.
    pub(crate) fn close(&self) {
        self.pipeline.close();
        if let Kept::Rocks(store) = &self.store {
            store.close();
        }
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> Option<&RocksStore> {
        match &self.store {
            Kept::Rocks(store) => Some(store.first()),
            Kept::Heap { .. } => None,
        }
    }

    /// Waits until all files that it began with have been read to the end.
    #[cfg(test)]
    pub(crate) fn wait_checked(&self) -> Result<()> {
        match &self.store {
            Kept::Rocks(store) => store.wait_checked(),
            Kept::Heap { .. } => Ok(()),
        }
    }
}

fn sources(place: &Arc<Place>, from: &RestoreFrom, parts: Vec<RestoredPart>) -> Result<Vec<RowSource>> {
    let (at, from) = (place.clone(), from.clone());
    place.service.transfer.for_each(parts.into_iter().enumerate().collect(), move |(index, part)| {
        RowSource::fetch(&at.service, &from, part, &at.path(&format!("part-{index}")))
    })
}

fn forgets_nothing() -> Error {
    Error::internal("its state is in memory alone, and its tables must keep all rows")
}

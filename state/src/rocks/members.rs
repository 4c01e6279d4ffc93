//! The databases of one operator in a task: mostly one, or one for each task whose key groups it has taken over.
//!
//! Each has key groups of its own, so a row is in one of them; each is a keyed state of its own in snapshots.

use std::sync::Arc;

use flott_dataflow::snapshot::{ScanPlace, ScanRange, ScannedRow, WantedKey};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::RestoreFrom;
use flott_schema::{Error, Result};

use super::restore::Begun;
use super::store::RocksStore;
use crate::checks::Unchecked;
use crate::layer::Layer;
use crate::pipeline::{Pipeline, Store};
use crate::rows::Run;
use crate::scan::scan;

/// The databases, in the order of their key groups, which are all of the task's.
pub(crate) struct Members {
    stores: Vec<RocksStore>,
}

/// What is left to do for a database that has begun.
pub(crate) struct Rest {
    unchecked: Vec<Unchecked>,
    has_others: bool,
}

impl Members {
    /// Of one operator; at least one.
    pub(crate) fn new(begun: Vec<Begun>) -> (Self, Vec<Rest>) {
        let (mut stores, mut rest) = (Vec::new(), Vec::new());
        for Begun { place, database, reusable, unchecked, has_others } in begun {
            stores.push(RocksStore::new(place, database, reusable, !unchecked.is_empty()));
            rest.push(Rest { unchecked, has_others });
        }
        (Members { stores }, rest)
    }

    /// Reads the files that the databases began with to the end, and then deletes rows of others, on the threads of
    /// the service. Damage makes the state unusable.
    pub(crate) fn check(
        self: &Arc<Self>,
        from: &RestoreFrom,
        rest: Vec<Rest>,
        pipeline: &Arc<Pipeline>,
    ) -> Result<()> {
        for (number, Rest { unchecked, has_others }) in rest.into_iter().enumerate() {
            if unchecked.is_empty() && !has_others {
                continue;
            }
            self.stores[number].checks.begin(from.clone(), unchecked);
            let (members, pipeline) = (self.clone(), pipeline.clone());
            let pool = self.stores[number].place().service.transfer.clone();
            pool.submit(move || {
                let store = &members.stores[number];
                if let Err(error) = store.checks.run() {
                    return pipeline.refuse(&error);
                }
                if has_others && let Err(error) = store.database.keep(store.place().key_groups) {
                    // They take room, and no more.
                    tracing::warn!("rows of other key groups are not deleted: {error}");
                }
            })?;
        }
        Ok(())
    }

    /// Looks up rows; `found` gets the position of each key that has one, and its value.
    pub(crate) fn get(
        &self,
        table: u16,
        keys: &[WantedKey<'_>],
        positions: &[usize],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for store in &self.stores {
            let key_groups = store.place().key_groups;
            // A file may hold rows of others, which are not to be found.
            let is_here = |position: &&usize| is_of(key_groups, keys[**position].0);
            let some: Vec<usize>;
            let here = if positions.iter().all(|position| is_here(&position)) {
                positions
            } else {
                some = positions.iter().filter(is_here).copied().collect();
                &some
            };
            if !here.is_empty() {
                store.database.get(table, keys, here, found).map_err(|error| store.explain(error))?;
            }
        }
        Ok(())
    }

    /// Gives the rows (key group, table, key, value) of one table.
    pub(crate) fn each(
        &self,
        table: u16,
        row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.stores.iter().try_for_each(|store| {
            let read = store.database.each(store.place().key_groups, Some(table), row);
            read.map_err(|error| store.explain(error))
        })
    }

    /// Gives rows in their order, with those of `waiting`: see [`scan`].
    pub(crate) fn scan(
        &self,
        waiting: &[Arc<Run>],
        table: u16,
        range: &ScanRange,
        after: Option<&ScanPlace>,
        row: ScannedRow<'_>,
    ) -> Result<Option<ScanPlace>> {
        for store in &self.stores {
            let own = store.place().key_groups;
            let start = range.key_groups.start.max(own.start);
            let key_groups = KeyGroupRange { start, end: range.key_groups.end.min(own.end) };
            let is_behind = after.is_some_and(|place| u32::from(place.key_group) >= key_groups.end);
            if key_groups.start >= key_groups.end || is_behind {
                continue;
            }
            let after = after.filter(|place| is_of(key_groups, place.key_group));
            let range = ScanRange { key_groups, ..range.clone() };
            let stopped = scan(&store.database, waiting, table, &range, after, &mut *row);
            if let Some(place) = stopped.map_err(|error| store.explain(error))? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Rows of a table end with a stamp, and live so long behind it.
    pub(crate) fn rows_expire(&self, table: u16, life_ms: i64) {
        self.stores.iter().for_each(|store| store.database.expiry.rows_expire(table, life_ms));
    }

    /// The processing time by which they do.
    pub(crate) fn set_time(&self, now_ms: i64) {
        self.stores.iter().for_each(|store| store.database.expiry.set_time(now_ms));
    }

    /// The barrier of a snapshot has come: what lives at it is in the snapshot.
    pub(crate) fn hold(&self, checkpoint: u64) {
        self.stores.iter().for_each(|store| store.database.expiry.hold(checkpoint));
    }

    /// Deletes the rows of a table.
    pub(crate) fn drop_table(&self, table: u16) -> Result<()> {
        self.stores.iter().try_for_each(|store| store.database.drop_table(table, store.place().key_groups))
    }

    /// Puts other values in place of those of a table: `value` appends what becomes of one.
    pub(crate) fn rewrite(
        &self,
        table: u16,
        value: &dyn Fn(&[u8], &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.stores
            .iter()
            .try_for_each(|store| store.database.rewrite(table, store.place().key_groups, value))
    }

    pub(crate) fn completed(&self, checkpoint: u64) {
        self.stores.iter().for_each(|store| store.completed(checkpoint));
    }

    pub(crate) fn aborted(&self, checkpoint: u64) {
        self.stores.iter().for_each(|store| store.aborted(checkpoint));
    }

    pub(crate) fn superseded(&self, checkpoint: u64) {
        self.stores.iter().for_each(|store| store.superseded(checkpoint));
    }

    pub(crate) fn close(&self) {
        self.stores.iter().for_each(RocksStore::close);
    }

    #[cfg(test)]
    pub(crate) fn first(&self) -> &RocksStore {
        &self.stores[0]
    }

    /// Waits until all files have been read to the end.
    #[cfg(test)]
    pub(crate) fn wait_checked(&self) -> Result<()> {
        self.stores.iter().try_for_each(|store| store.checks.wait())
    }
}

/// Whether a row belongs to these key groups.
pub(super) fn is_of(key_groups: KeyGroupRange, key_group: u16) -> bool {
    key_groups.contains(key_group.into())
}

impl Store for Members {
    fn part(&self, layer: &Layer, runs: &[Arc<Run>]) -> Result<()> {
        self.stores.iter().try_for_each(|store| store.part(layer, runs))
    }

    fn apply(&self, layer: &Layer) -> Result<()> {
        if let Some(pending) = &layer.snapshot {
            // One is counted already.
            (1..self.stores.len()).for_each(|_| pending.add_part());
        }
        self.stores.iter().try_for_each(|store| store.apply(layer))
    }

    fn needs_all_layers(&self) -> bool {
        true
    }
}

impl RocksStore {
    /// What could not be read, in the words of the damaged file if there is one.
    fn explain(&self, error: Error) -> Error {
        self.checks.explain(error)
    }
}

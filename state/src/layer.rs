//! Rows on their way that belong together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flott_dataflow::snapshot::{FrozenRows, RowSink};
use flott_schema::Result;
use flott_schema::snapshot::TableSnapshot;

use crate::pool::{guarded, lock};
use crate::rows::{RowBuffer, RowRef, Run, merge};
use crate::snapshot::Pending;

/// Rows that belong together.
pub(crate) struct Layer {
    /// The snapshot whose last rows these are; none: rows that were written outside of one.
    pub(crate) snapshot: Option<Arc<Pending>>,
    /// The tables of the operator at that time.
    pub(crate) tables: Vec<TableSnapshot>,
    rows: Mutex<Rows>,
    /// Whether the task's thread may add rows, or sinks for them. Changed by that thread alone.
    is_open: AtomicBool,
    pub(crate) sinks_open: AtomicUsize,
    /// Whether some of its rows got lost.
    pub(crate) is_lost: AtomicBool,
    /// A buffer is sorted when it has so many bytes.
    run_bytes: usize,
    spares: Arc<Spares>,
}

/// Memory of runs that are stored, for the next ones: to get so much anew each time costs more than what is done with it.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<RowBuffer>>);

impl Spares {
    fn take(&self) -> RowBuffer {
        lock(&self.0).pop().unwrap_or_default()
    }

    /// Keeps what a layer has used, if nobody looks into it any more, but not more than `most_bytes`.
    pub(crate) fn keep(&self, runs: Vec<Arc<Run>>, most_bytes: usize) {
        let mut spares = lock(&self.0);
        let mut bytes: usize = spares.iter().map(RowBuffer::held_bytes).sum();
        for spare in runs.into_iter().filter_map(Arc::into_inner).map(RowBuffer::reusing) {
            bytes += spare.held_bytes();
            if bytes > most_bytes {
                return;
            }
            spares.push(spare);
        }
    }
}

#[derive(Default)]
struct Rows {
    open: RowBuffer,
    /// From old to young.
    runs: Vec<Arc<Run>>,
    /// A part that is being stored, older than the others.
    storing: Vec<Arc<Run>>,
}

impl Layer {
    pub(crate) fn new(
        snapshot: Option<Arc<Pending>>,
        tables: Vec<TableSnapshot>,
        run_bytes: usize,
        spares: &Arc<Spares>,
    ) -> Arc<Self> {
        Arc::new(Layer {
            is_open: AtomicBool::new(true),
            snapshot,
            tables,
            rows: Mutex::default(),
            sinks_open: AtomicUsize::new(0),
            is_lost: AtomicBool::new(false),
            run_bytes,
            spares: spares.clone(),
        })
    }

    /// No more rows come, but through sinks that are open.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let rows = lock(&self.rows);
        rows.open.memory_bytes() + rows.sorted_bytes()
    }

    /// All rows that are not stored as sorted runs, from old to young.
    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        let mut rows = lock(&self.rows);
        rows.seal(self.run_bytes);
        rows.storing.iter().chain(&rows.runs).cloned().collect()
    }

    /// A part that is large enough to be stored: it can be looked up until it is.
    pub(crate) fn begin_part(&self, part_bytes: usize) -> Option<Vec<Arc<Run>>> {
        let mut rows = lock(&self.rows);
        if rows.sorted_bytes() < part_bytes {
            return None;
        }
        rows.storing = std::mem::take(&mut rows.runs);
        Some(rows.storing.clone())
    }

    /// The part is stored: gives its runs.
    pub(crate) fn end_part(&self) -> Vec<Arc<Run>> {
        std::mem::take(&mut lock(&self.rows).storing)
    }

    /// All is stored, and nobody adds anything: gives its runs.
    pub(crate) fn take_runs(&self) -> Vec<Arc<Run>> {
        std::mem::take(&mut lock(&self.rows).runs)
    }

    /// Gives the rows in order.
    pub(crate) fn each(&self, row: &mut dyn FnMut(RowRef<'_>) -> Result<()>) -> Result<()> {
        let runs = self.runs();
        merge(runs.iter().map(|run| &**run), row)
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        let rows = lock(&self.rows);
        rows.open.is_empty() && rows.runs.is_empty()
    }

    pub(crate) fn encode(&self, table: u16, piece: Box<dyn FrozenRows>) -> Result<()> {
        let mut rows = lock(&self.rows);
        if rows.open.is_empty() && rows.open.held_bytes() == 0 {
            rows.open = self.spares.take();
        }
        let result = guarded(|| piece.encode(&mut TableRows { table, rows: &mut rows.open }));
        if rows.open.memory_bytes() >= self.run_bytes {
            rows.seal(self.run_bytes);
        }
        result
    }
}

impl Rows {
    fn sorted_bytes(&self) -> usize {
        self.runs.iter().chain(&self.storing).map(|run| run.memory_bytes()).sum()
    }

    fn seal(&mut self, run_bytes: usize) {
        if self.open.is_empty() {
            return;
        }
        self.runs.push(Arc::new(std::mem::take(&mut self.open).sort()));
        // Lookups seal too, and must not leave many small runs. A row is copied as often as the size of its
        // run doubles.
        while let [.., older, younger] = &self.runs[..]
            && older.len() <= 2 * younger.len()
            && older.memory_bytes() + younger.memory_bytes() <= run_bytes
        {
            let mut both = RowBuffer::default();
            let mut push = |row: RowRef<'_>| both.push(row.key_group, row.table, row.key, row.value);
            merge([&**older, &**younger], &mut push).expect("rows that were in a buffer fit into one");
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(Arc::new(both.sort()));
        }
    }
}

struct TableRows<'a> {
    table: u16,
    rows: &'a mut RowBuffer,
}

impl RowSink for TableRows<'_> {
    fn row(&mut self, key_group: u16, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.rows.push(key_group, self.table, key, value)
    }
}

//! The way of an operator's rows from its tables to where they are stored, off the task's thread.
//!
//! Rows go in layers: those of a snapshot, and those that tables wrote in order to forget them. A layer takes
//! rows in any order; when it is whole it is handed to the store, and one layer after the other; what a large
//! one has gathered goes before, in parts. So rows that were written behind a barrier never get into the
//! snapshot of that barrier, and an old row never covers a new one. Until its layer is stored, a row can be
//! looked up in memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use flott_dataflow::snapshot::{FrozenRows, FrozenSink, RowSink};
use flott_schema::snapshot::TableSnapshot;
use flott_schema::{Error, ErrorKind, Result};

use crate::layer::{Layer, Spares};
use crate::memory::TaskMemory;
use crate::pool::{Pool, guarded, lock, wait_until};
use crate::rows::Run;
use crate::snapshot::{Part, Pending};

/// A buffer is sorted when it has so large a share of the bytes that may wait, and a layer of written rows is stored then: while one is,
/// the next is gathered.
const RUNS_A_BUFFER: usize = 2;
/// Pieces of a snapshot that may wait to be encoded.
const PIECES_MAX: usize = 1_024;
/// How long the task's thread waits for the background.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where layers go.
pub(crate) trait Store: Send + Sync {
    /// Stores some of the rows of a layer before it is whole: sorted runs, from old to young, none empty.
    fn part(&self, layer: &Layer, runs: &[Arc<Run>]) -> Result<()>;

    /// Stores the rows of a layer that are left, and begins to write the snapshot that it ends, if any: the
    /// end of that part is told to the snapshot, but an error that is returned is told by the caller.
    fn apply(&self, layer: &Layer) -> Result<()>;

    /// Whether the state is not usable any more when the rows of one layer got lost.
    fn needs_all_layers(&self) -> bool;
}

/// The way of one operator's rows.
pub(crate) struct Pipeline {
    /// Names the operator in errors.
    name: String,
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    memory: Arc<TaskMemory>,
    /// Bytes of rows that may wait in memory before some are stored, if there is as much.
    buffer_bytes_max: usize,
    spares: Arc<Spares>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// From old to young.
    layers: VecDeque<Arc<Layer>>,
    pieces: VecDeque<Piece>,
    /// Whether a thread works on it.
    is_running: bool,
    /// Why the state is not usable any more.
    broken: Option<String>,
    /// Of what kind that is, unless it is a bug.
    broken_kind: Option<ErrorKind>,
    is_closed: bool,
}

struct Piece {
    layer: Arc<Layer>,
    table: u16,
    /// Memory that its rows take.
    bytes: usize,
    rows: Box<dyn FrozenRows>,
}

impl Pipeline {
    pub(crate) fn new(
        name: String,
        store: Arc<dyn Store>,
        pool: Arc<Pool>,
        memory: Arc<TaskMemory>,
        buffer_bytes_max: usize,
    ) -> Arc<Self> {
        let (spares, state, changed) = Default::default();
        Arc::new(Pipeline { name, store, pool, memory, buffer_bytes_max, spares, state, changed })
    }

    fn buffer_bytes(&self) -> usize {
        self.memory.waiting_bytes(self.buffer_bytes_max)
    }

    fn run_bytes(&self) -> usize {
        self.buffer_bytes() / RUNS_A_BUFFER
    }

    /// These runs are stored.
    fn keep_spares(&self, runs: Vec<Arc<Run>>) {
        self.spares.keep(runs, self.memory.spare_bytes(self.buffer_bytes()));
    }

    fn layer(&self, snapshot: Option<Arc<Pending>>, tables: Vec<TableSnapshot>) -> Arc<Layer> {
        Layer::new(snapshot, tables, self.run_bytes(), &self.spares)
    }

    /// A layer for the rows of a snapshot. What is written from now on is not part of it.
    pub(crate) fn begin(&self, snapshot: Arc<Pending>, tables: Vec<TableSnapshot>) -> Result<Arc<Layer>> {
        let mut state = lock(&self.state);
        self.check(&state)?;
        state.close_written();
        snapshot.add_part();
        let layer = self.layer(Some(snapshot), tables);
        state.layers.push_back(layer.clone());
        Ok(layer)
    }

    /// Takes rows of a table for a snapshot.
    pub(crate) fn sink(self: &Arc<Self>, layer: Arc<Layer>, table: u16) -> Box<dyn FrozenSink> {
        layer.sinks_open.fetch_add(1, Ordering::AcqRel);
        Box::new(Sink { pipeline: self.clone(), layer, table, is_done: false })
    }

    /// Takes rows of a table for a snapshot that is not wanted any more: they are stored where the rows that
    /// this table wrote before are, and below those that it writes from now on.
    pub(crate) fn late_sink(self: &Arc<Self>, table: u16) -> Box<dyn FrozenSink> {
        if !self.store.needs_all_layers() {
            return Box::new(Unwanted);
        }
        let layer = self.layer(None, Vec::new());
        layer.close();
        let sink = self.sink(layer.clone(), table);
        let mut state = lock(&self.state);
        state.close_written();
        state.layers.push_back(layer);
        sink
    }

    /// Looks whether there is something to do: layers have been closed.
    pub(crate) fn poke(self: &Arc<Self>) {
        self.schedule(&mut lock(&self.state));
    }

    /// Writes rows outside of a snapshot. They can be looked up when this returns.
    pub(crate) fn write(self: &Arc<Self>, table: u16, rows: Box<dyn FrozenRows>) -> Result<()> {
        let mut state = lock(&self.state);
        self.check(&state)?;
        // Pieces of a snapshot that waits for the task's thread itself cannot be waited for.
        let deadline = Instant::now() + DEADLINE;
        while state.front_is_ready() && state.written_bytes() > self.buffer_bytes() {
            self.schedule(&mut state);
            let (guard, is_early) = wait_until(&self.changed, state, deadline);
            state = guard;
            self.check(&state)?;
            if !is_early {
                return Err(self.too_slow("rows that were written before are not stored"));
            }
        }
        let last = state.layers.back().filter(|layer| layer.snapshot.is_none() && layer.is_open());
        let layer = match last {
            Some(layer) => layer.clone(),
            None => {
                let layer = self.layer(None, Vec::new());
                state.layers.push_back(layer.clone());
                layer
            }
        };
        drop(state);
        let encoded = layer.encode(table, rows);
        if layer.memory_bytes() >= self.run_bytes() {
            layer.close();
        }
        let mut state = lock(&self.state);
        if let Err(error) = &encoded {
            state.broken.get_or_insert(error.to_string());
        }
        self.schedule(&mut state);
        encoded.map_err(|error| error.at(self.name.clone()))
    }

    /// The sorted runs that hold rows which are not stored yet, from young to old. Waits until all that was
    /// handed in has been encoded.
    pub(crate) fn waiting(self: &Arc<Self>) -> Result<Vec<Arc<Run>>> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = lock(&self.state);
        self.check(&state)?;
        while state.is_encoding() {
            self.schedule(&mut state);
            let (guard, is_early) = wait_until(&self.changed, state, deadline);
            state = guard;
            self.check(&state)?;
            if !is_early {
                return Err(self.too_slow("rows of a snapshot are not encoded"));
            }
        }
        let layers: Vec<Arc<Layer>> = state.layers.iter().cloned().collect();
        drop(state);
        let mut runs: Vec<Arc<Run>> = layers.iter().flat_map(|layer| layer.runs()).collect();
        runs.reverse();
        Ok(runs)
    }

    /// Waits until every layer that is whole has been stored.
    #[cfg(test)]
    pub(crate) fn drain(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        while state.is_running || !state.pieces.is_empty() || state.front_is_ready() {
            self.schedule(&mut state);
            state = wait_until(&self.changed, state, Instant::now() + DEADLINE).0;
        }
    }

    /// Layers that are not stored.
    #[cfg(test)]
    pub(crate) fn layers(&self) -> usize {
        lock(&self.state).layers.len()
    }

    /// An error if the state is not usable any more.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.check(&lock(&self.state))
    }

    /// Rows got lost: the state is not usable any more, if it needs them.
    pub(crate) fn refuse(&self, error: &Error) {
        if self.store.needs_all_layers() {
            let mut state = lock(&self.state);
            if state.broken.is_none() {
                (state.broken, state.broken_kind) = (Some(error.to_string()), Some(error.kind()));
            }
        }
    }

    /// The task is gone: what has not been begun is not done any more.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.pieces.clear();
        let layers = std::mem::take(&mut state.layers);
        drop(state);
        for snapshot in layers.iter().filter_map(|layer| layer.snapshot.as_ref()) {
            snapshot.give_up();
        }
    }

    fn check(&self, state: &MutexGuard<'_, State>) -> Result<()> {
        match &state.broken {
            Some(why) => Err(Error::internal(format!("its state is not usable since an error: {why}"))
                .with_kind(state.broken_kind.unwrap_or(ErrorKind::Internal))
                .at(self.name.clone())),
            None => Ok(()),
        }
    }

    fn too_slow(&self, what: &str) -> Error {
        Error::new(ErrorKind::Io, format!("{what} after {DEADLINE:?}; is the disk too slow?"))
            .at(self.name.clone())
    }

    fn hand_in(self: &Arc<Self>, piece: Piece) {
        let deadline = Instant::now() + DEADLINE;
        let mut state = lock(&self.state);
        while state.pieces_are_many(self.buffer_bytes()) && state.broken.is_none() {
            let (guard, is_early) = wait_until(&self.changed, state, deadline);
            state = guard;
            if !is_early {
                let why = self.too_slow("rows of a snapshot are not encoded");
                state.broken.get_or_insert(why.to_string());
            }
        }
        if state.broken.is_some() || state.is_closed {
            piece.layer.is_lost.store(true, Ordering::Release);
            return;
        }
        state.pieces.push_back(piece);
        self.schedule(&mut state);
    }

    fn sink_closed(self: &Arc<Self>, layer: &Layer, is_done: bool) {
        let mut state = lock(&self.state);
        if !is_done {
            layer.is_lost.store(true, Ordering::Release);
        }
        layer.sinks_open.fetch_sub(1, Ordering::AcqRel);
        self.schedule(&mut state);
    }

    fn schedule(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) {
        if state.is_running || (state.pieces.is_empty() && !state.front_is_ready()) {
            return;
        }
        state.is_running = true;
        let pipeline = self.clone();
        if let Err(error) = self.pool.submit(move || pipeline.run()) {
            state.is_running = false;
            state.broken.get_or_insert(error.to_string());
            self.changed.notify_all();
        }
    }

    fn run(self: Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            // The piece stays in the queue while it is encoded, so that who looks up rows waits for it.
            if let Some(Piece { layer, table, rows, .. }) = state.pieces.front_mut() {
                let (layer, table) = (layer.clone(), *table);
                let rows = std::mem::replace(rows, Box::new(Nothing));
                drop(state);
                let encoded = layer.encode(table, rows);
                let mut state = lock(&self.state);
                state.pieces.pop_front();
                if let Err(error) = encoded {
                    layer.is_lost.store(true, Ordering::Release);
                    self.lose(&mut state, &layer, error);
                }
                let is_front = state.layers.front().is_some_and(|front| Arc::ptr_eq(front, &layer));
                let is_broken = state.broken.is_some();
                drop(state);
                if is_front
                    && !is_broken
                    && !layer.is_lost.load(Ordering::Acquire)
                    && self.store_part(&layer)
                    && self.gives_way()
                {
                    return;
                }
            } else if let Some(layer) = state.front_is_ready().then(|| state.layers[0].clone()) {
                let is_broken = state.broken.is_some();
                drop(state);
                self.store(&layer, is_broken);
                lock(&self.state).layers.pop_front();
                self.keep_spares(layer.take_runs());
                if self.gives_way() {
                    return;
                }
            } else {
                state.is_running = false;
                drop(state);
                self.changed.notify_all();
                return;
            }
            self.changed.notify_all();
        }
    }

    /// What is left comes behind the work of other operators, so that one which fills faster than it stores does not
    /// keep the thread. Whether there was room behind them.
    fn gives_way(self: &Arc<Self>) -> bool {
        self.changed.notify_all();
        let pipeline = self.clone();
        self.pool.submit(move || pipeline.run()).is_ok()
    }

    /// Stores what a layer has gathered, if that is much: whether it was. Those before it are stored.
    fn store_part(&self, layer: &Layer) -> bool {
        let Some(runs) = layer.begin_part(self.buffer_bytes()) else { return false };
        let stored = guarded(|| self.store.part(layer, &runs));
        if let Err(error) = stored {
            layer.is_lost.store(true, Ordering::Release);
            self.lose(&mut lock(&self.state), layer, error);
        }
        drop(runs);
        self.keep_spares(layer.end_part());
        true
    }

    fn store(&self, layer: &Layer, is_broken: bool) {
        let lost = layer.is_lost.load(Ordering::Acquire);
        let result = if is_broken || lost {
            Err(Error::internal("not all of its rows were handed in"))
        } else {
            guarded(|| self.store.apply(layer))
        };
        if let Err(error) = result {
            let mut state = lock(&self.state);
            let told = self.lose(&mut state, layer, error);
            drop(state);
            if let Some(snapshot) = &layer.snapshot {
                snapshot.part_done(Err(told));
            }
        }
    }

    /// Rows of a layer got lost: neither its snapshot nor what comes behind it can be right.
    fn lose(&self, state: &mut MutexGuard<'_, State>, layer: &Layer, error: Error) -> Error {
        let error = error.at(self.name.clone());
        if self.store.needs_all_layers() {
            state.broken.get_or_insert_with(|| error.to_string());
        }
        if let Some(snapshot) = &layer.snapshot {
            snapshot.fail(Error::new(error.kind(), error.to_string()));
        }
        error
    }
}

impl State {
    /// What is written from now on goes into another layer.
    fn close_written(&self) {
        if let Some(written) = self.layers.back().filter(|layer| layer.snapshot.is_none()) {
            written.close();
        }
    }

    fn front_is_ready(&self) -> bool {
        let Some(front) = self.layers.front() else { return false };
        if front.is_open() || front.sinks_open.load(Ordering::Acquire) > 0 {
            return false;
        }
        !self.pieces.iter().any(|piece| Arc::ptr_eq(&piece.layer, front))
    }

    /// Whether no more pieces may wait, where their rows may take so many bytes. One may, whatever it takes.
    fn pieces_are_many(&self, buffer_bytes: usize) -> bool {
        let bytes: usize = self.pieces.iter().map(|piece| piece.bytes).sum();
        self.pieces.len() >= PIECES_MAX || bytes > buffer_bytes
    }

    fn is_encoding(&self) -> bool {
        !self.pieces.is_empty()
    }

    fn written_bytes(&self) -> usize {
        self.layers.iter().filter(|layer| layer.snapshot.is_none()).map(|layer| layer.memory_bytes()).sum()
    }
}

struct Nothing;

impl FrozenRows for Nothing {
    fn len(&self) -> usize {
        0
    }

    fn encode(self: Box<Self>, _: &mut dyn RowSink) -> Result<()> {
        Ok(())
    }
}

/// Takes rows that are not needed.
struct Unwanted;

impl FrozenSink for Unwanted {
    fn rows(&mut self, _: Box<dyn FrozenRows>) {}

    fn done(self: Box<Self>) {}
}

struct Sink {
    pipeline: Arc<Pipeline>,
    layer: Arc<Layer>,
    table: u16,
    is_done: bool,
}

impl FrozenSink for Sink {
    fn rows(&mut self, rows: Box<dyn FrozenRows>) {
        if !rows.is_empty() {
            let (layer, bytes) = (self.layer.clone(), rows.memory_bytes());
            self.pipeline.hand_in(Piece { layer, table: self.table, bytes, rows });
        }
    }

    fn done(mut self: Box<Self>) {
        self.is_done = true;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.pipeline.sink_closed(&self.layer, self.is_done);
    }
}

/// For errors inside a store: nothing to write for the snapshot of this layer.
pub(crate) fn nothing_to_write(layer: &Layer) {
    if let Some(snapshot) = &layer.snapshot {
        snapshot.part_done(Ok((Part::None, 0)));
    }
}

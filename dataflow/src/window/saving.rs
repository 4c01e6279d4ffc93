//! Rows of windows on their way into snapshots and back.
//!
//! A row is a window, slice or nothing in front (its [`Prefix`]), a key, and what is kept of it. A barrier changes the epoch of a table; its
//! rows are then copied out piece by piece, and one that is written or removed before its turn is copied first.

use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::{Error, Result};

use super::Window;
use crate::codec::{decode_value, encode_value, take_value};
use crate::context::OperatorContext;
use crate::key::Key;
use crate::snapshot::{FrozenSink, StateBackend, TableId, TableSpec};
use crate::state::epochs::Epochs;
use crate::state::rows::{TypedRows, Written, push_key, push_ordered, take_ordered};
use crate::state::{TimeDomain, Tracking};
use crate::types::Shape;

/// Rows handed over at once.
const PIECE: usize = 4096;
/// Rows looked at in one call, so that the task goes on meanwhile.
pub(crate) const LOOKED_AT_ONCE: usize = 16 * 1024;

/// What stands in front of the key in a row.
pub(crate) trait Prefix: Clone + Send + 'static {
    /// Appends its stored form.
    fn push(&self, bytes: &mut Vec<u8>) -> Result<()>;
    /// Reads it off the front.
    fn take(bytes: &mut &[u8]) -> Result<Self>;
    /// Text of the type of what stands in front of a value, and that.
    fn key_type<K: Key>() -> String {
        Shape::of::<K>().canonical_text()
    }
}

impl Prefix for () {
    fn push(&self, _bytes: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn take(_bytes: &mut &[u8]) -> Result<Self> {
        Ok(())
    }
}

/// The end of a slice.
impl Prefix for i64 {
    fn push(&self, bytes: &mut Vec<u8>) -> Result<()> {
        push_ordered(*self, bytes);
        Ok(())
    }

    fn take(bytes: &mut &[u8]) -> Result<Self> {
        take_ordered(bytes)
    }
}

/// A window: by its max timestamp, then by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfWindow<W>(pub(crate) W);

impl<W: Window> Prefix for OfWindow<W> {
    fn push(&self, bytes: &mut Vec<u8>) -> Result<()> {
        push_ordered(self.0.max_timestamp(), bytes);
        encode_value(&self.0, bytes)
    }

    fn take(bytes: &mut &[u8]) -> Result<Self> {
        take_ordered(bytes)?;
        take_value(bytes).map(OfWindow)
    }

    fn key_type<K: Key>() -> String {
        Shape::of::<(W, K)>().canonical_text()
    }
}

/// A timer of a key and window: by its clock and time, then by the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfTimer<W> {
    pub(crate) domain: TimeDomain,
    pub(crate) time_ms: i64,
    pub(crate) window: W,
}

impl<W> OfTimer<W> {
    /// What stands in front of the time.
    pub(crate) fn lead(domain: TimeDomain) -> u8 {
        match domain {
            TimeDomain::Event => 0,
            TimeDomain::Processing => 1,
        }
    }
}

impl<W: Window> Prefix for OfTimer<W> {
    fn push(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.push(Self::lead(self.domain));
        push_ordered(self.time_ms, bytes);
        encode_value(&self.window, bytes)
    }

    fn take(bytes: &mut &[u8]) -> Result<Self> {
        let domain = match bytes.split_off_first() {
            Some(0) => TimeDomain::Event,
            Some(1) => TimeDomain::Processing,
            _ => return Err(Error::bad_input("a timer in a snapshot is of no known clock")),
        };
        let time_ms = take_ordered(bytes)?;
        Ok(OfTimer { domain, time_ms, window: take_value(bytes)? })
    }

    fn key_type<K: Key>() -> String {
        Shape::of::<(W, K)>().canonical_text()
    }
}

/// A row; without a value: it is gone.
pub(crate) struct Row<P, K, V> {
    pub(crate) prefix: P,
    pub(crate) key: K,
    pub(crate) value: Option<V>,
}

pub(crate) fn encode<P: Prefix, K: Key, V: Serialize>(
    row: &Row<P, K, V>,
    max_parallelism: u32,
    key: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> Result<(u16, Written)> {
    row.prefix.push(key)?;
    let group = push_key(&row.key, max_parallelism, key)?;
    let Some(kept) = &row.value else { return Ok((group, Written::Gone)) };
    encode_value(kept, value)?;
    Ok((group, Written::Row))
}

/// The rows of a table that snapshots take.
pub(crate) struct Outgoing<P, K, V> {
    pub(super) epochs: Epochs,
    pub(super) table: Option<(Rc<dyn StateBackend>, TableId)>,
    pub(super) max_parallelism: u32,
    /// Takes the rows of the snapshot at hand.
    sink: Option<Box<dyn FrozenSink>>,
    /// Frozen rows that were copied out.
    pub(super) copied: Vec<Row<P, K, V>>,
    /// Rows that are gone since the last barrier, and that the backend has.
    pub(super) gone: Vec<Row<P, K, V>>,
}

impl<P, K, V> Default for Outgoing<P, K, V> {
    fn default() -> Self {
        Outgoing {
            epochs: Epochs::default(),
            table: None,
            max_parallelism: 1,
            sink: None,
            copied: Vec::new(),
            gone: Vec::new(),
        }
    }
}

impl<P, K, V> Outgoing<P, K, V>
where
    P: Prefix,
    K: Key,
    V: Clone + Send + Serialize + DeserializeOwned + 'static,
{
    /// Registers the table `name`, if snapshots are taken, and gives its restored rows to `restore`.
    pub(crate) fn open(
        &mut self,
        ctx: &OperatorContext,
        name: &str,
        mut restore: impl FnMut(&mut Self, P, K, V) -> Result<()>,
    ) -> Result<()> {
        self.register(ctx, name)?;
        let Some((state, table)) = self.table.clone() else { return Ok(()) };
        state.load(table, &mut |key, value| {
            let mut key = key;
            let prefix = P::take(&mut key)?;
            restore(self, prefix, decode_value(key)?, decode_value(value)?)
        })
    }

    /// Registers the table `name`, if snapshots are taken; its restored rows stay where they are.
    pub(crate) fn register(&mut self, ctx: &OperatorContext, name: &str) -> Result<()> {
        let Some(state) = &ctx.state else { return Ok(()) };
        let table = state.table(TableSpec {
            name: name.to_string(),
            holds: "window",
            key_type: P::key_type::<K>(),
            value_type: Shape::of::<V>().canonical_text(),
        })?;
        self.epochs = Epochs::new(Tracking::of(Some(&**state)));
        self.table = Some((state.clone(), table));
        self.max_parallelism = ctx.task.max_parallelism;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn is_tracked(&self) -> bool {
        self.epochs.is_tracked()
    }

    /// The mark of a new row.
    #[inline(always)]
    pub(crate) fn fresh(&self) -> u8 {
        self.epochs.fresh()
    }

    /// The mark of a restored row.
    pub(crate) fn stored(&self) -> u8 {
        self.epochs.stored()
    }

    /// A row is about to be written: `row` gives a copy of it, if a snapshot still needs it as it is.
    #[inline(always)]
    pub(crate) fn write(&mut self, mark: &mut u8, row: impl FnOnce() -> Row<P, K, V>) {
        if self.epochs.write(mark) {
            self.copied.push(row());
        }
    }

    /// A row is about to be removed; `row` is asked for it with its value, and without.
    pub(crate) fn remove(&mut self, mut mark: u8, mut row: impl FnMut(bool) -> Row<P, K, V>) {
        if self.epochs.is_frozen(mark) {
            self.copied.push(row(true));
            self.epochs.copied(&mut mark);
        }
        if self.epochs.is_stored(mark) {
            self.gone.push(row(false));
        }
    }

    /// Notes that a row is gone which the backend may have; for rows without a mark.
    pub(crate) fn note_gone(&mut self, prefix: P, key: K) {
        if self.epochs.wants_changes() {
            self.gone.push(Row { prefix, key, value: None });
        }
    }

    /// A barrier, when no row is frozen: rows become frozen, those that are gone go ahead.
    pub(crate) fn freeze(&mut self) {
        let Some((backend, table)) = &self.table else { return };
        self.sink = Some(backend.freeze(*table));
        self.epochs.switch();
        let gone = std::mem::take(&mut self.gone);
        self.send(gone);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether a row is to be copied before it changes.
    #[inline]
    pub(crate) fn is_frozen(&self, mark: u8) -> bool {
        self.epochs.is_frozen(mark)
    }

    /// Copies a row if it is frozen.
    #[inline]
    pub(crate) fn copy(&mut self, mark: &mut u8, row: impl FnOnce() -> Row<P, K, V>) {
        if self.epochs.is_frozen(*mark) {
            self.epochs.copied(mark);
            self.add(row());
        }
    }

    /// Hands in a row that has no mark.
    pub(crate) fn add(&mut self, row: Row<P, K, V>) {
        self.copied.push(row);
        if self.copied.len() >= PIECE {
            self.send_copied();
        }
    }

    pub(super) fn send_copied(&mut self) {
        let copied = std::mem::take(&mut self.copied);
        self.send(copied);
    }

    fn send(&mut self, rows: Vec<Row<P, K, V>>) {
        if let Some(sink) = &mut self.sink
            && !rows.is_empty()
        {
            let max_parallelism = self.max_parallelism;
            sink.rows(TypedRows::boxed(rows, move |row, key, value| {
                encode(row, max_parallelism, key, value)
            }));
        }
    }

    /// No row is frozen any more.
    pub(crate) fn finish(&mut self) {
        self.send_copied();
        self.epochs.all_copied();
        if let Some(sink) = self.sink.take() {
            sink.done();
        }
    }
}

//! Rows in memory: gathered in any order, then sorted.

use std::cell::Cell;
use std::sync::OnceLock;

use flott_schema::{Error, Result};

use super::filter::{Filter, hash_of};

/// In place of a value's length: the row is gone.
const GONE: u32 = u32::MAX;

/// Bytes of a key that an entry holds, so that most comparisons need not look at the key itself.
const PREFIX_BYTES: usize = 12;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRef<'a> {
    pub(crate) key_group: u16,
    pub(crate) table: u16,
    pub(crate) key: &'a [u8],
    /// None: there is no such row any more.
    pub(crate) value: Option<&'a [u8]>,
}

/// Where a row is, and how it sorts.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Key group, table and the first bytes of the key, filled up with zeros. Where two differ, the rows are
    /// in this order.
    prefix: u128,
    /// Where key and value begin; in a buffer, grows with the order in which rows came.
    at: u64,
    key_bytes: u32,
    value_bytes: u32,
}

/// Rows in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct RowBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Rows in their order, one for each key.
#[derive(Debug)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Made when a row is looked up: most runs are only written.
    filter: OnceLock<Filter>,
}

/// A row that is looked up.
pub(crate) struct WantedRow<'a> {
    prefix: u128,
    key: &'a [u8],
    hash: u64,
}

impl<'a> WantedRow<'a> {
    pub(crate) fn new(key_group: u16, table: u16, key: &'a [u8]) -> Self {
        let prefix = prefix_of(key_group, table, key);
        WantedRow { prefix, key, hash: hash_of(prefix, key.get(PREFIX_BYTES..).unwrap_or_default()) }
    }
}

pub(crate) fn prefix_of(key_group: u16, table: u16, key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&key_group.to_be_bytes());
    bytes[2..4].copy_from_slice(&table.to_be_bytes());
    let length = key.len().min(PREFIX_BYTES);
    bytes[4..4 + length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(bytes)
}

impl Entry {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at as usize..][..self.key_bytes as usize]
    }

    /// Bytes of key and value.
    fn row_bytes(&self) -> usize {
        let value_bytes = if self.value_bytes == GONE { 0 } else { self.value_bytes };
        self.key_bytes as usize + value_bytes as usize
    }

    fn row<'a>(&self, bytes: &'a [u8]) -> RowRef<'a> {
        let value = &bytes[self.at as usize + self.key_bytes as usize..];
        RowRef {
            key_group: (self.prefix >> 112) as u16,
            table: (self.prefix >> 96) as u16,
            key: self.key(bytes),
            value: (self.value_bytes != GONE).then(|| &value[..self.value_bytes as usize]),
        }
    }
}

/// Rows of up to so many bytes on average are moved into their order.
const GATHERED_BYTES_MAX: usize = 64;
/// What a thread keeps at most for the next run, bytes.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Moves the bytes of small rows into the order of their entries while they are in the processor's caches: so they are read
/// one behind the other when the run is merged, and not each from a page of its own.
fn gather(bytes: Vec<u8>, entries: &mut [Entry]) -> Vec<u8> {
    thread_local! {
        /// The buffer that the last run of this thread has left.
        static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    if bytes.len() / GATHERED_BYTES_MAX > entries.len() {
        return bytes;
    }
    let mut gathered = SPARE.take();
    gathered.clear();
    gathered.reserve(bytes.len());
    for entry in entries {
        let row = &bytes[entry.at as usize..][..entry.row_bytes()];
        entry.at = gathered.len() as u64;
        gathered.extend_from_slice(row);
    }
    if bytes.capacity() <= SPARE_BYTES_MAX {
        SPARE.set(bytes);
    }
    gathered
}

impl RowBuffer {
    /// Adds a row. Of several rows of one key the last counts.
    pub(crate) fn push(
        &mut self,
        key_group: u16,
        table: u16,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let length = |bytes: &[u8], of: &str| match u32::try_from(bytes.len()) {
            Ok(length) if length != GONE => Ok(length),
            _ => Err(Error::user(format!(
                "the {of} of a row has {} bytes; a row of keyed state holds less than 4 GiB",
                bytes.len()
            ))),
        };
        let entry = Entry {
            prefix: prefix_of(key_group, table, key),
            at: self.bytes.len() as u64,
            key_bytes: length(key, "key")?,
            value_bytes: value.map_or(Ok(GONE), |value| length(value, "value"))?,
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        if self.bytes.len() as u64 == entry.at {
            // No two rows begin at the same place, whatever they hold.
            self.bytes.push(0);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// An empty buffer in the memory of a run that is not needed any more.
    pub(crate) fn reusing(run: Run) -> Self {
        let Run { mut bytes, mut entries, .. } = run;
        bytes.clear();
        entries.clear();
        RowBuffer { bytes, entries }
    }

    /// Bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Bytes of memory that it holds, also for rows to come.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The rows in their order.
    pub(crate) fn sort(self) -> Run {
        let RowBuffer { bytes, mut entries } = self;
        entries.sort_unstable_by(|a, b| {
            let by_key = || a.key(&bytes).cmp(b.key(&bytes));
            // Of one key, the last row comes first, and is the one that is kept.
            a.prefix.cmp(&b.prefix).then_with(by_key).then_with(|| b.at.cmp(&a.at))
        });
        entries.dedup_by(|a, b| a.prefix == b.prefix && a.key(&bytes) == b.key(&bytes));
        let bytes = gather(bytes, &mut entries);
        Run { bytes, entries, filter: OnceLock::new() }
    }
}

impl Run {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        let filter_bytes = self.filter.get().map_or(0, Filter::memory_bytes);
        self.bytes.len() + self.entries.len() * size_of::<Entry>() + filter_bytes
    }

    pub(crate) fn row(&self, index: usize) -> RowRef<'_> {
        self.entries[index].row(&self.bytes)
    }

    /// How row `index` sorts: whole where the prefixes differ.
    pub(crate) fn prefix(&self, index: usize) -> u128 {
        self.entries[index].prefix
    }

    /// The index of the first row of a table's key, or of what comes behind it.
    pub(crate) fn position(&self, key_group: u16, table: u16, key: &[u8]) -> usize {
        let prefix = prefix_of(key_group, table, key);
        let order = |entry: &Entry| entry.prefix.cmp(&prefix).then_with(|| entry.key(&self.bytes).cmp(key));
        self.entries.partition_point(|entry| order(entry).is_lt())
    }

    /// The value of a row; `Some(None)` if it says that there is none any more.
    pub(crate) fn get(&self, wanted: &WantedRow<'_>) -> Option<Option<&[u8]>> {
        let filter = self.filter.get_or_init(|| {
            let rest = |entry: &Entry| entry.key(&self.bytes).get(PREFIX_BYTES..).unwrap_or_default();
            Filter::of(self.len(), self.entries.iter().map(|entry| hash_of(entry.prefix, rest(entry))))
        });
        if !filter.may_have(wanted.hash) {
            return None;
        }
        let by_key = |entry: &Entry| entry.key(&self.bytes).cmp(wanted.key);
        let order = |entry: &Entry| entry.prefix.cmp(&wanted.prefix).then_with(|| by_key(entry));
        let index = self.entries.binary_search_by(order).ok()?;
        Some(self.row(index).value)
    }
}

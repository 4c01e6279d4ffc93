//! How the memory of a task for its state is divided.
//!
//! Most of it belongs to the tables, where a row costs least to reach and no second copy of it is needed. RocksDB's cache
//! holds indexes, filters, and the blocks that were read last, which are seldom read again: what is used often is in the
//! tables. Rows that wait to be stored are gathered, so that files are not many and small.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Parts of a task's memory. The cache and the rows that wait have one each, tables the others.
const PARTS: usize = 8;
/// The cache of a task whose memory for state is not limited, bytes.
const CACHE_BYTES: usize = 64 << 20;
/// Rows that may wait in any case, bytes.
const WAITING_BYTES_MIN: usize = 64 << 10;

/// Memory of a task for its state.
#[derive(Debug)]
pub(crate) struct TaskMemory {
    /// 0: unlimited.
    bytes: usize,
    /// Operators with keyed state share it equally.
    operators: AtomicUsize,
}

impl TaskMemory {
    /// So many bytes; unlimited if 0.
    pub(crate) fn new(bytes: usize) -> Self {
        TaskMemory { bytes, operators: AtomicUsize::new(0) }
    }

    /// An operator more has keyed state.
    pub(crate) fn add_operator(&self) {
        self.operators.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes for what the databases of the task cache.
    pub(crate) fn cache_bytes(&self) -> usize {
        if self.bytes == 0 { CACHE_BYTES } else { self.bytes / PARTS }
    }

    /// Bytes for the tables of one operator.
    pub(crate) fn tables_bytes(&self) -> usize {
        match self.bytes {
            0 => usize::MAX,
            bytes => bytes / PARTS * (PARTS - 2) / self.operators(),
        }
    }

    /// Bytes of rows of one operator that may wait to be stored, where `most` are enough.
    pub(crate) fn waiting_bytes(&self, most: usize) -> usize {
        match self.bytes {
            0 => most,
            bytes => most.min((bytes / PARTS / self.operators()).max(WAITING_BYTES_MIN)),
        }
    }

    /// Bytes of memory that one operator may hold back for rows to come, where rows of `waiting_bytes` may wait: twice as much
    /// is in use where vectors have grown.
    pub(crate) fn spare_bytes(&self, waiting_bytes: usize) -> usize {
        if self.bytes == 0 { waiting_bytes * 2 } else { waiting_bytes / 2 }
    }

    fn operators(&self) -> usize {
        self.operators.load(Ordering::Relaxed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_are_what_the_task_has() {
        let memory = TaskMemory::new(80 << 20);
        for operators in 1..4 {
            memory.add_operator();
            let of_one = memory.tables_bytes() + memory.waiting_bytes(usize::MAX);
            let all = memory.cache_bytes() + of_one * operators;
            assert!(all <= 80 << 20 && all > (80 << 20) - 100, "{all}");
        }
        assert_eq!(memory.waiting_bytes(1_000), 1_000);
        assert_eq!(TaskMemory::new(1_000).waiting_bytes(usize::MAX), WAITING_BYTES_MIN);
        let unlimited = TaskMemory::new(0);
        assert_eq!((unlimited.tables_bytes(), unlimited.waiting_bytes(7)), (usize::MAX, 7));
    }
}

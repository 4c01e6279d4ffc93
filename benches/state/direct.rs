//! The baseline: state in RocksDB alone, read and written for every record.

use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteOptions};

use crate::{Case, Outcome};

pub fn run(case: &Case, folder: &Path) -> Outcome {
    let mut table = BlockBasedOptions::default();
    // Half of what it may have for blocks, half for what is not in a file yet.
    let share_bytes = case.budget_bytes.map_or(1 << 30, |budget| budget as usize / 2);
    table.set_block_cache(&Cache::new_lru_cache(share_bytes));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(share_bytes.min(64 << 20));
    let database = DB::open(&options, folder.join("db")).expect("a database");
    let mut without_log = WriteOptions::default();
    without_log.disable_wal(true);
    // As after a long run: every key has a row, and most rows are in files.
    let mut rows = rocksdb::WriteBatch::default();
    for key in 0..case.keys {
        rows.put(key.to_be_bytes(), [0; 8]);
    }
    database.write_opt(rows, &without_log).expect("a write");
    database.flush().expect("a flush");
    let before = crate::cpu_seconds();
    let key = case.key();
    for index in 0..case.records {
        let key = key(index).to_be_bytes();
        let before = database.get_pinned(key).expect("a read");
        let before = before.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes);
        database.put_opt(key, (before + index).to_le_bytes(), &without_log).expect("a write");
    }
    Outcome { cpu_seconds: crate::cpu_seconds() - before, ..Outcome::default() }
}

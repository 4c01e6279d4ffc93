//! Settings of the databases, and the memory they share.

use std::sync::Mutex;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, IngestExternalFileOptions, LogLevel,
    Options, ReadOptions,
};

use crate::options::StateOptions;
use crate::pool::lock;

/// By this size the cache is divided into parts, bytes.
const CACHE_BYTES: usize = 64 << 20;
/// Size of a file that is written in one piece.
pub(crate) const FILE_BYTES: u64 = 64 << 20;
/// Files a database keeps open.
const OPEN_FILES_MAX: i32 = 512;
/// Files that may overlap: one or more come with each checkpoint, and they hold nobody up.
const OVERLAPPING_FILES: i32 = 8;
const BITS_PER_KEY: f64 = 10.0;
/// Read at once of each file that is compacted: there are about ten, and none of this is in the cache's share.
const COMPACTION_READ_BYTES: usize = 512 << 10;

/// Settings of the databases of an executor.
pub(crate) struct Tuning {
    options: Options,
    /// Blocks, indexes and filters of all databases, with the sum of what their tasks give.
    cache: Mutex<(Cache, usize)>,
}

impl std::fmt::Debug for Tuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuning").finish_non_exhaustive()
    }
}

impl Tuning {
    pub(crate) fn new(state: &StateOptions) -> Self {
        let mut blocks = BlockBasedOptions::default();
        // Its size here decides into how many parts it is divided, so that threads do not wait for each
        // other.
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        blocks.set_block_cache(&cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // In pieces: the index or the filter of a whole file may be larger than the cache.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_format_version(5);
        if state.bloom_filter {
            blocks.set_bloom_filter(BITS_PER_KEY, false);
        }
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        // Most keys that are looked up have a row: where the last of them are, a filter would only take memory.
        options.set_optimize_filters_for_hits(true);
        options.set_compaction_readahead_size(COMPACTION_READ_BYTES);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_background_jobs(state.threads.clamp(1, 64) as i32);
        options.set_target_file_size_base(FILE_BYTES);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_level_zero_file_num_compaction_trigger(OVERLAPPING_FILES);
        // Nothing goes through memtables but what cuts key groups off.
        options.set_write_buffer_size(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        Tuning { options, cache: Mutex::new((cache, 0)) }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// A task has come that gives so much to the cache, or goes.
    pub(crate) fn resize_cache(&self, bytes: usize, comes: bool) {
        let mut cache = lock(&self.cache);
        let (cache, capacity) = &mut *cache;
        *capacity = if comes { *capacity + bytes } else { capacity.saturating_sub(bytes) };
        cache.set_capacity(*capacity);
    }

    /// For files that were written to be ingested.
    pub(crate) fn ingest() -> IngestExternalFileOptions {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options
    }

    /// For reading some rows in their order.
    pub(crate) fn page() -> ReadOptions {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        options
    }

    /// For reading all rows once.
    pub(crate) fn scan() -> ReadOptions {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        options.set_readahead_size(1 << 20);
        options
    }
}

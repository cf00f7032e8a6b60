//! A profile in RocksDB's words.

use crate::{Compression, Profile, StatisticsLevel};
use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, Cache, DBCompressionType, DBRecoveryMode,
    DataBlockIndexType, Options, statistics::StatsLevel,
};

/// Levels of the tree (RocksDB's default).
const LEVELS: usize = 7;
/// "The window is what the codec thinks best", in RocksDB's words.
const WINDOW_BITS: i32 = -14;
/// Keys for each slot of a block's hash index (RocksDB's default): about one byte a restart point.
const HASH_RATIO: f64 = 0.75;
/// RocksDB's refill period for its rate limiter.
const REFILL_US: i64 = 100_000;
/// RocksDB's fairness between its background priorities.
const FAIRNESS: i32 = 10;
/// RocksDB's own log of what it does: so many files of this size are kept.
const INFO_LOGS: usize = 4;
const INFO_LOG_BYTES: usize = 4 << 20;

pub(super) fn options(profile: &Profile, cache: &Cache) -> Options {
    let mut options = Options::default();
    database(&mut options, profile);
    column(&mut options, profile, cache);
    options
}

fn database(options: &mut Options, profile: &Profile) {
    options.create_if_missing(true);
    // Batches without a log entry span columns: they reach the disk together or not at all.
    options.set_atomic_flush(true);
    // A torn tail is what a crash leaves; anything else missing from the log is damage and is said.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_background_jobs(profile.background_jobs);
    options.set_max_subcompactions(profile.subcompactions);
    options.set_max_open_files(profile.max_open_files);
    // Writers take turns already, so that the order of our log is that of RocksDB.
    options.set_allow_concurrent_memtable_write(false);
    options.set_bytes_per_sync(profile.bytes_per_sync);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    if let Some(rate) = profile.background_bytes_per_s {
        let rate = i64::try_from(rate).unwrap_or(i64::MAX);
        options.set_ratelimiter(rate, REFILL_US, FAIRNESS);
    }
    statistics(options, profile.statistics);
}

fn statistics(options: &mut Options, level: StatisticsLevel) {
    let level = match level {
        StatisticsLevel::Off => return,
        StatisticsLevel::Counters => StatsLevel::ExceptHistogramOrTimers,
        StatisticsLevel::Timers => StatsLevel::ExceptDetailedTimers,
    };
    options.enable_statistics();
    options.set_statistics_level(level);
}

fn column(options: &mut Options, profile: &Profile, cache: &Cache) {
    options.set_write_buffer_size(profile.write_buffer_bytes);
    options.set_max_write_buffer_number(profile.write_buffers);
    options.set_level_zero_file_num_compaction_trigger(profile.level0_trigger);
    options.set_max_bytes_for_level_base(profile.level_base_bytes);
    options.set_target_file_size_base(profile.file_bytes);
    options.set_block_based_table_factory(&table(profile, cache));
    compression(options, profile);
}

fn table(profile: &Profile, cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(profile.block_size_bytes);
    // A key's place in its block by hash: two misses of the processor's cache fewer for each get.
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(HASH_RATIO);
    // Indexes and filters count against the cache, so that its size bounds the memory for reading.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    if profile.pin_index_and_filters {
        table.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);
    }
    table.set_optimize_filters_for_memory(true);
    if let Some(bits) = profile.bloom_bits_per_key {
        table.set_bloom_filter(bits, false);
    }
    table
}

fn compression(options: &mut Options, profile: &Profile) {
    use DBCompressionType as Codec;
    match profile.compression {
        Compression::None => options.set_compression_type(Codec::None),
        Compression::Snappy => options.set_compression_type(Codec::Snappy),
        Compression::Lz4 => options.set_compression_type(Codec::Lz4),
        Compression::Zstd => {
            options.set_compression_type(Codec::Zstd);
            options.set_compression_options(WINDOW_BITS, profile.zstd_level, 0, 0);
        }
        Compression::Tiered => {
            let mut levels = [Codec::Lz4; LEVELS];
            levels[..2].fill(Codec::None);
            levels[LEVELS - 1] = Codec::Zstd;
            options.set_compression_per_level(&levels);
            options.set_bottommost_compression_type(Codec::Zstd);
            options.set_bottommost_compression_options(WINDOW_BITS, profile.zstd_level, 0, 0, true);
        }
    }
}

//! Settings of the disk engine that fit together.
//!
//! A profile is a place to start from; every knob stays reachable:
//! ```
//! use chronolith_engine::{Compression, Profile};
//! let profile = Profile { block_cache_bytes: 256 << 20, ..Profile::read_heavy() };
//! assert_eq!(profile.compression, Compression::Tiered);
//! ```
//! What each profile costs and gains is measured in `docs/tuning.md`.

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy on all levels.
    Snappy,
    /// LZ4 on all levels.
    Lz4,
    /// Zstd on all levels.
    Zstd,
    /// Levels 0 and 1 not at all, since they are soon rewritten; LZ4 in the middle; Zstd at the
    /// bottom, where nine tenths of the data lie.
    Tiered,
}

/// Which of RocksDB's own statistics are kept; ours are always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsLevel {
    /// None: what comes from them is absent from [`crate::Stats`].
    Off,
    /// Counters only.
    Counters,
    /// Counters and the times of compactions and flushes.
    Timers,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// How files are compressed.
    pub compression: Compression,
    /// Zstd's own level, 1 to 22. Level 3 compresses blocks no better than 1, 6 a twentieth better at half the
    /// load rate, 12 no better than 6.
    pub zstd_level: i32,
    /// Memory for uncompressed blocks, indexes and filters, shared by all columns.
    pub block_cache_bytes: usize,
    /// Unit of reading, caching and compression.
    pub block_size_bytes: usize,
    /// Whether the files' indexes and filters stay in the cache, found without a search.
    pub pin_index_and_filters: bool,
    /// Bits of Bloom filter for each key; 10 let about 1 % of absent keys through. None: no filter.
    pub bloom_bits_per_key: Option<f64>,
    /// A memtable of this size is flushed to a file.
    pub write_buffer_bytes: usize,
    /// Memtables of one column, before writers wait for their flush.
    pub write_buffers: i32,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
    /// Threads that one compaction may be split over.
    pub subcompactions: u32,
    /// Files in level 0 that start a compaction.
    pub level0_trigger: i32,
    /// Size of level 1; each next level is ten times larger.
    pub level_base_bytes: u64,
    /// Size of a file of level 1.
    pub file_bytes: u64,
    /// Files kept open; -1 keeps all.
    pub max_open_files: i32,
    /// Logs larger than this together force a flush, which bounds the time to open.
    pub max_log_bytes: u64,
    /// Limit on what flushes and compactions write a second, so that they leave disk time to
    /// foreground syncs. None: no limit.
    pub background_bytes_per_s: Option<u64>,
    /// Hand written file data to the disk in pieces of this size, instead of all at the end.
    pub bytes_per_sync: u64,
    /// Which of RocksDB's own statistics are kept.
    pub statistics: StatisticsLevel,
}

const MIB: usize = 1 << 20;

impl Default for Profile {
    fn default() -> Self {
        Self {
            compression: Compression::Tiered,
            zstd_level: 1,
            block_cache_bytes: 256 * MIB,
            block_size_bytes: 8 << 10,
            pin_index_and_filters: true,
            bloom_bits_per_key: Some(10.0),
            write_buffer_bytes: 64 * MIB,
            write_buffers: 3,
            background_jobs: 4,
            subcompactions: 1,
            level0_trigger: 4,
            level_base_bytes: 256 << 20,
            file_bytes: 64 << 20,
            max_open_files: -1,
            max_log_bytes: 512 << 20,
            background_bytes_per_s: None,
            bytes_per_sync: 1 << 20,
            statistics: StatisticsLevel::Timers,
        }
    }
}

impl Profile {
    /// Small and quick to open and to close, for development and tests.
    #[must_use]
    pub fn dev() -> Self {
        Self {
            compression: Compression::Lz4,
            block_cache_bytes: 32 * MIB,
            write_buffer_bytes: 8 * MIB,
            write_buffers: 2,
            background_jobs: 2,
            level_base_bytes: 32 << 20,
            file_bytes: 8 << 20,
            max_log_bytes: 64 << 20,
            ..Self::default()
        }
    }

    /// For loads and for streams of writes: large memtables, late compaction.
    #[must_use]
    pub fn write_heavy() -> Self {
        Self {
            write_buffer_bytes: 256 * MIB,
            write_buffers: 4,
            level0_trigger: 8,
            level_base_bytes: 1 << 30,
            file_bytes: 128 << 20,
            max_log_bytes: 2 << 30,
            ..Self::default()
        }
    }

    /// For point reads: a large cache, small blocks, early compaction.
    #[must_use]
    pub fn read_heavy() -> Self {
        Self {
            block_cache_bytes: 1024 * MIB,
            block_size_bytes: 4 << 10,
            level0_trigger: 2,
            ..Self::default()
        }
    }

    /// For a server of its own: more memory, and background work that leaves disk time to syncs.
    #[must_use]
    pub fn production() -> Self {
        Self {
            block_cache_bytes: 1024 * MIB,
            write_buffer_bytes: 128 * MIB,
            write_buffers: 4,
            background_jobs: 8,
            subcompactions: 2,
            level_base_bytes: 512 << 20,
            max_log_bytes: 1 << 30,
            background_bytes_per_s: Some(256 << 20),
            ..Self::default()
        }
    }

    /// The profile of this name: `dev`, `default`, `write_heavy`, `read_heavy` or `production`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "dev" => Some(Self::dev()),
            "default" => Some(Self::default()),
            "write_heavy" => Some(Self::write_heavy()),
            "read_heavy" => Some(Self::read_heavy()),
            "production" => Some(Self::production()),
            _ => None,
        }
    }

    /// The names that [`Profile::named`] knows.
    pub const NAMES: [&'static str; 5] =
        ["dev", "default", "write_heavy", "read_heavy", "production"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_profile() {
        for name in Profile::NAMES {
            assert!(Profile::named(name).is_some(), "{name}");
        }
        assert_eq!(Profile::named("fastest"), None);
    }
}

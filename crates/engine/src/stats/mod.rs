//! What an engine did and what it holds, as figures that are true.
//!
//! [`Stats`] is one moment; [`Stats::since`] makes rates of two moments; `Display` prints a table;
//! [`Stats::open_metrics`] is for a scraper. A figure that a backend cannot give is absent, never 0.
//!
//! ```
//! use chronolith_engine::{Durability, Engine, MemoryEngine, WriteBatch};
//! let engine = MemoryEngine::new();
//! let column = engine.column("c")?;
//! let before = engine.stats()?;
//! let mut batch = WriteBatch::new();
//! batch.put(column, "key", "value");
//! engine.write(batch, Durability::NoWal)?;
//! engine.get(column, b"key")?;
//! let after = engine.stats()?;
//! assert_eq!((after.gets, after.records_written), (1, 1));
//! assert!(after.since(&before).batches_per_s > 0.0);
//! assert_eq!(after.cache, None, "a memory engine has no cache");
//! println!("{after}");
//! # Ok::<(), chronolith_engine::Error>(())
//! ```

mod metrics;
mod monitor;
mod table;

pub use monitor::{Line, Monitor, Thresholds, Trend};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::time::Duration;

/// Longest latency that is told apart: what takes longer counts as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// Two digits: a quantile is right within 1 %, in 17 KiB.
const DIGITS: u8 = 2;

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("the bounds are sound constants")
}

/// One engine at one moment; counts since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The backend.
    pub backend: &'static str,
    /// How long it has been open.
    pub open_for: Duration,
    /// Keys looked up.
    pub gets: u64,
    /// Keys looked up and found.
    pub gets_found: u64,
    /// Bytes of the values found.
    pub bytes_read: u64,
    /// Cursors positioned.
    pub seeks: u64,
    /// Cursors moved by one.
    pub steps: u64,
    /// Batches written.
    pub batches: u64,
    /// Changes in them.
    pub records_written: u64,
    /// Bytes of keys and values in them.
    pub bytes_written: u64,
    /// Latency of gets; every sixteenth is timed.
    pub get_latency: Latency,
    /// Latency of batches.
    pub write_latency: Latency,
    /// The block cache.
    pub cache: Option<CacheStats>,
    /// Compactions.
    pub compactions: Option<CompactionStats>,
    /// Time that writers had to wait for flushes or compactions.
    pub stalled: Option<Duration>,
    /// Bytes written to the write-ahead log.
    pub log_bytes: Option<u64>,
    /// Bytes written by flushes of memtables.
    pub flushed_bytes: Option<u64>,
    /// Memory by part.
    pub memory: MemoryParts,
    /// Files that hold data.
    pub files: Option<u64>,
    /// Bytes of those files.
    pub disk_bytes: Option<u64>,
    /// Estimated bytes of the newest version of all keys.
    pub live_bytes: Option<u64>,
    /// Bytes of keys and values for each byte of the files that hold them.
    pub compression_ratio: Option<f64>,
    /// Estimated number of keys.
    pub estimated_keys: Option<u64>,
}

/// A cache of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks found.
    pub hits: u64,
    /// Blocks that had to be read.
    pub misses: u64,
}

/// Compactions since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// How many.
    pub count: Option<u64>,
    /// How long, added up over threads.
    pub time: Option<Duration>,
    /// Processor time.
    pub cpu_time: Duration,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Memory of an engine by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Keys and values held in RAM.
    pub records: Option<u64>,
    /// Tables of recent writes.
    pub memtables: Option<u64>,
    /// Cached blocks, with indexes and filters.
    pub cache: Option<u64>,
    /// What readers of open files hold outside the cache.
    pub table_readers: Option<u64>,
}

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn sum<'a>(parts: impl Iterator<Item = &'a Mutex<Option<Histogram<u64>>>>) -> Self {
        let mut sum = histogram();
        for part in parts {
            if let Some(part) = &*part.lock() {
                sum.add(part).expect("all have the same bounds");
            }
        }
        Self(sum)
    }

    /// How many were timed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The mean; absent where nothing was timed.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.mean().round() as u64))
    }

    /// The latency that this share (0.0 to 1.0) did not exceed; absent where nothing was timed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let value = || Duration::from_nanos(self.0.value_at_quantile(share));
        (!self.0.is_empty()).then(value)
    }

    fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.0.clone();
        match difference.subtract(&earlier.0) {
            Ok(()) => Self(difference),
            // Not an earlier state of this engine: then everything is new.
            Err(_) => self.clone(),
        }
    }
}

/// What happened between two moments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rates {
    /// The time between them.
    pub interval: Duration,
    /// Keys looked up a second.
    pub gets_per_s: f64,
    /// Cursor moves a second, of either kind.
    pub moves_per_s: f64,
    /// Batches a second.
    pub batches_per_s: f64,
    /// Changes a second.
    pub records_per_s: f64,
    /// Bytes of keys and values written a second.
    pub bytes_written_per_s: f64,
    /// Bytes of values read a second.
    pub bytes_read_per_s: f64,
    /// Latency of gets in the interval.
    pub get_latency: Latency,
    /// Latency of batches in the interval.
    pub write_latency: Latency,
    /// Share of blocks found in the cache in the interval.
    pub cache_hit_rate: Option<f64>,
    /// Blocks looked up in the cache in the interval.
    pub cache_lookups: Option<u64>,
    /// Share of the interval in which writers waited for flushes or compactions.
    pub stalled_share: Option<f64>,
    /// Bytes that compactions wrote a second.
    pub compaction_bytes_per_s: Option<f64>,
}

impl CacheStats {
    /// Share of blocks found; absent before the first look-up.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
        }
    }
}

impl Stats {
    /// Bytes written to disk for each byte that callers wrote.
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        let compacted = self.compactions?.written_bytes;
        let disk = self.log_bytes? + self.flushed_bytes? + compacted;
        (self.bytes_written > 0).then(|| disk as f64 / self.bytes_written as f64)
    }

    /// What happened since `earlier`, an older moment of the same engine.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Rates {
        let interval = self.open_for.saturating_sub(earlier.open_for);
        let seconds = interval.as_secs_f64().max(f64::EPSILON);
        let rate = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / seconds;
        let cache = self.cache.zip(earlier.cache).map(|(later, earlier)| later.since(&earlier));
        let stalled = self.stalled.zip(earlier.stalled);
        let compactions = self.compactions.zip(earlier.compactions);
        Rates {
            interval,
            gets_per_s: rate(self.gets, earlier.gets),
            moves_per_s: rate(self.seeks + self.steps, earlier.seeks + earlier.steps),
            batches_per_s: rate(self.batches, earlier.batches),
            records_per_s: rate(self.records_written, earlier.records_written),
            bytes_written_per_s: rate(self.bytes_written, earlier.bytes_written),
            bytes_read_per_s: rate(self.bytes_read, earlier.bytes_read),
            get_latency: self.get_latency.since(&earlier.get_latency),
            write_latency: self.write_latency.since(&earlier.write_latency),
            cache_hit_rate: cache.and_then(|cache| cache.hit_rate()),
            cache_lookups: cache.map(|cache| cache.hits + cache.misses),
            stalled_share: stalled
                .map(|(later, earlier)| later.saturating_sub(earlier).as_secs_f64() / seconds),
            compaction_bytes_per_s: compactions
                .map(|(later, earlier)| rate(later.written_bytes, earlier.written_bytes)),
        }
    }

    /// Figures that every backend has from its meter; the rest absent.
    pub(crate) fn of(backend: &'static str, meter: &crate::meter::Meter) -> Self {
        let counts = meter.counts();
        Self {
            backend,
            open_for: meter.open_for(),
            gets: counts.gets,
            gets_found: counts.gets_found,
            bytes_read: counts.read_bytes,
            seeks: counts.seeks,
            steps: counts.steps,
            batches: counts.batches,
            records_written: counts.records,
            bytes_written: counts.written_bytes,
            get_latency: meter.get_latency(),
            write_latency: meter.write_latency(),
            cache: None,
            compactions: None,
            stalled: None,
            log_bytes: None,
            flushed_bytes: None,
            memory: MemoryParts::default(),
            files: None,
            disk_bytes: None,
            live_bytes: None,
            compression_ratio: None,
            estimated_keys: None,
        }
    }
}

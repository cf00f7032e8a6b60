//! RocksDB's own counters and properties, as our figures. What it does not give stays absent.

use super::families::Families;
use crate::{CacheStats, CompactionStats, MemoryParts, Stats};
use rocksdb::{
    Cache, Options,
    properties::{self, PropName},
    statistics::{Histogram, Ticker},
};
use std::{path::PathBuf, time::Duration};

type Result<T> = std::result::Result<T, rocksdb::Error>;

/// Fills in everything but the bytes on disk.
pub(super) fn fill(
    stats: &mut Stats,
    families: &Families,
    options: &Options,
    cache: &Cache,
) -> Result<()> {
    if options.get_statistics().is_some() {
        counters(stats, options);
    }
    let sum = |property| sum(families, property);
    stats.memory = MemoryParts {
        records: None,
        memtables: sum(properties::SIZE_ALL_MEM_TABLES)?,
        cache: Some(cache.get_usage() as u64),
        table_readers: sum(properties::ESTIMATE_TABLE_READERS_MEM)?,
    };
    stats.estimated_keys = sum(properties::ESTIMATE_NUM_KEYS)?;
    stats.live_bytes = sum(properties::ESTIMATE_LIVE_DATA_SIZE)?;
    stats.compression_ratio = compression_ratio(families)?;
    Ok(())
}

/// Bytes of the files and of what is not written out yet.
pub(super) fn size_bytes(families: &Families) -> Result<Option<u64>> {
    let files = sum(families, properties::TOTAL_SST_FILES_SIZE)?;
    let memtables = sum(families, properties::CUR_SIZE_ALL_MEM_TABLES)?;
    Ok(files.zip(memtables).map(|(files, memtables)| files + memtables))
}

fn counters(stats: &mut Stats, options: &Options) {
    let ticker = |ticker| options.get_ticker_count(ticker);
    stats.cache = Some(CacheStats {
        hits: ticker(Ticker::BlockCacheHit),
        misses: ticker(Ticker::BlockCacheMiss),
    });
    let compactions = options.get_histogram_data(Histogram::CompactionTime);
    let timed = compactions.count() > 0 || ticker(Ticker::CompactWriteBytes) == 0;
    stats.compactions = Some(CompactionStats {
        count: timed.then(|| compactions.count()),
        time: timed.then(|| Duration::from_micros(compactions.sum())),
        cpu_time: Duration::from_micros(ticker(Ticker::CompactionCpuTotalTime)),
        read_bytes: ticker(Ticker::CompactReadBytes),
        written_bytes: ticker(Ticker::CompactWriteBytes),
    });
    stats.stalled = Some(Duration::from_micros(ticker(Ticker::StallMicros)));
    stats.flushed_bytes = Some(ticker(Ticker::FlushWriteBytes));
}

/// The property added up over all columns; absent where one column does not give it.
fn sum(families: &Families, property: &PropName) -> Result<Option<u64>> {
    let mut sum = Some(0);
    for family in families.all() {
        let value = families.database().property_int_value_cf(family, property)?;
        sum = sum.zip(value).map(|(sum, value)| sum + value);
    }
    Ok(sum)
}

/// Keys and values for each byte of the files' data blocks; absent where there are no files.
fn compression_ratio(families: &Families) -> Result<Option<f64>> {
    let (mut raw, mut stored) = (0, 0);
    for family in families.all() {
        let property = properties::AGGREGATED_TABLE_PROPERTIES;
        let text = families.database().property_value_cf(family, property)?.unwrap_or_default();
        let figure = |name| figure(&text, name).unwrap_or(0);
        raw += figure("raw key size") + figure("raw value size");
        stored += figure("data block size");
    }
    Ok((stored > 0).then(|| raw as f64 / stored as f64))
}

/// A figure of a text like `a=1; b=2;`.
fn figure(text: &str, name: &str) -> Option<u64> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(key, _)| key.trim() == name);
    found.and_then(|(_, value)| value.trim().parse().ok())
}

/// Counts the data files, and all files' bytes.
pub(super) fn fill_disk(stats: &mut Stats, files: &[PathBuf]) {
    let is_table = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "sst");
    stats.files = Some(files.iter().filter(is_table).count() as u64);
    // A file may be removed by a compaction between listing and asking: then it counts nothing.
    let sizes = files.iter().filter_map(|file| file.metadata().ok()).map(|found| found.len());
    stats.disk_bytes = Some(sizes.sum());
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let text = "# data blocks=2; raw key size=30; raw value size=7; data block size=11; ";
        assert_eq!(figure(text, "raw key size"), Some(30));
        assert_eq!(figure(text, "data block size"), Some(11));
        assert_eq!(figure(text, "key size"), None);
    }
}

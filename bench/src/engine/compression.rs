//! Codecs, and the levels of Zstd, on three kinds of real data: ratio, load rate, rate of gets that
//! decompress.
//!
//! ```text
//! data set ─▶ codec ─▶ load, flush, compact: clock, ratio ─▶ open with a small cache ─▶ random gets: clock
//! ```
//! Gets are measured with a cache far smaller than the data: from a cache they would cost the same whatever
//! the codec, since it holds blocks uncompressed.

use super::{
    data::{self, Kind, Rng, key, value},
    suites::{Bench, timed},
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use chronolith_engine::{BulkLoader, ColumnId, Compression, Durability, KeyRange, Profile};
use std::time::{Duration, Instant};

/// Zstd's level says how long it looks for repetitions; 12 compresses blocks of 8 KiB no better than 6.
const ZSTD_LEVELS: [i32; 5] = [1, 3, 6, 9, 12];
/// For the gets; each data set has tens of megabytes.
const CACHE_BYTES: usize = 8 << 20;
const VALUE_BYTES: usize = 1024;

type Records = Vec<(Bytes, Bytes)>;

/// What is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DataSet {
    /// Configurations of services, 1 KiB each.
    Json,
    /// Kubernetes pods, 1 KiB each.
    Kubernetes,
    /// Every package that this machine's Debian knows.
    Packages,
}

impl DataSet {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Kubernetes => "kubernetes",
            Self::Packages => "packages",
        }
    }

    fn records(self, count: u64) -> Result<Records> {
        let made = |kind| {
            let record =
                |number| (key(number).to_vec().into(), value(number, kind, VALUE_BYTES).into());
            (0..count).map(record).collect()
        };
        match self {
            Self::Json => Ok(made(Kind::Json)),
            Self::Kubernetes => Ok(made(Kind::Kubernetes)),
            Self::Packages => packages(),
        }
    }
}

fn packages() -> Result<Records> {
    let all = data::packages()?.into_iter().map(|(key, value)| (key.into(), value.into()));
    let mut records: Records = all.collect();
    records.sort();
    records.dedup_by(|one, other| one.0 == other.0);
    Ok(records)
}

/// Every codec, those with levels at each.
fn codecs() -> Vec<(String, Compression, i32)> {
    let plain =
        [("none", Compression::None), ("snappy", Compression::Snappy), ("lz4", Compression::Lz4)];
    let usual = Profile::default().zstd_level;
    let plain = plain.map(|(name, codec)| (name.to_owned(), codec, usual));
    let levels = |name, codec| ZSTD_LEVELS.map(|level| (format!("{name} {level}"), codec, level));
    [&plain[..], &levels("zstd", Compression::Zstd), &levels("tiered", Compression::Tiered)]
        .concat()
}

impl Bench<'_> {
    /// Only where there are files.
    pub(super) fn compression(&mut self) -> Result<()> {
        for set in self.scale.data_sets.clone() {
            let records = set.records(self.scale.records / 5)?;
            for (codec, compression, zstd_level) in codecs() {
                let profile = Profile { compression, zstd_level, ..self.profile.clone() };
                self.codec_case(&format!("{}, {codec}", set.name()), &records, &profile)?;
            }
        }
        Ok(())
    }

    fn codec_case(&mut self, name: &str, records: &Records, profile: &Profile) -> Result<()> {
        let (mut subject, column) = self.subject_with(profile)?;
        let took = load(&subject, column, records)?;
        let stats = subject.engine.stats()?;
        let mut row = self.row("compression", format!("{name}: load, compact"));
        (row.disk_bytes, row.ratio) = (stats.disk_bytes, stats.compression_ratio);
        self.done(row.took(records.len() as u64, took));

        subject.reopen(&Profile { block_cache_bytes: CACHE_BYTES, ..profile.clone() })?;
        let (engine, count) = (&*subject.engine, self.scale.operations / 4);
        let column = engine.column("bench")?;
        let mut rng = Rng::new(2);
        let (took, latencies) = timed(count, |_| {
            let (key, value) = &records[rng.below(records.len() as u64) as usize];
            ensure!(engine.get(column, key)?.as_deref() == Some(&value[..]), "a record is wrong");
            Ok(())
        })?;
        let row = self.row("compression", format!("{name}: gets, mostly uncached"));
        self.done(row.took(count, took).latencies(&latencies));
        Ok(())
    }
}

/// Until everything lies compressed in its last place.
fn load(
    subject: &super::subject::Subject,
    column: ColumnId,
    records: &Records,
) -> Result<Duration> {
    let engine = &*subject.engine;
    let begun = Instant::now();
    let mut loader = BulkLoader::new(engine, Durability::NoWal);
    for (key, value) in records {
        loader.put(column, key.clone(), value.clone())?;
    }
    loader.finish()?;
    engine.flush()?;
    engine.compact_range(column, KeyRange::all())?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_is_there_and_those_with_levels_at_each() {
        let names: Vec<String> = codecs().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), 3 + 2 * ZSTD_LEVELS.len());
        for name in ["none", "snappy", "lz4", "zstd 1", "zstd 12", "tiered 3"] {
            assert!(names.iter().any(|have| have == name), "{name}: {names:?}");
        }
        assert!(ZSTD_LEVELS.contains(&Profile::default().zstd_level), "the default is measured");
    }
}

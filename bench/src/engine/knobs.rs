//! The knobs of the disk engine, each alone.

use super::{
    data::{Rng, key, scattered},
    suites::{Bench, check, histogram, timed, values},
};
use anyhow::Result;
use chronolith_engine::{Durability, Profile, WriteBatch};
use std::time::Instant;

/// Records of a batch where the batch is not what is measured.
const LOAD_BATCH: u64 = 1_000;
const MIB: usize = 1 << 20;

/// Sizes of this suite where the caller names none: with those of the others all data would fit into the
/// smallest cache and the smallest write buffer, and no knob would show. 600 MB do not fit into a cache of
/// 512 MiB, and fill the largest write buffer.
pub(super) const RECORDS: u64 = 600_000;
pub(super) const VALUE_BYTES: usize = 1_000;

impl Bench<'_> {
    pub(super) fn knobs(&mut self) -> Result<()> {
        self.caches()?;
        for mib in [64, 128, 256, 512] {
            let profile = Profile { write_buffer_bytes: mib * MIB, ..self.profile.clone() };
            self.load_case(format!("write buffer {mib} MiB: random load"), &profile)?;
        }
        for jobs in [2, 4, 8, 16] {
            let profile = Profile { background_jobs: jobs, ..self.profile.clone() };
            self.load_case(format!("background jobs {jobs}: random load"), &profile)?;
        }
        // What happens where writers outrun flushes: they are stopped.
        let starved = Profile {
            write_buffer_bytes: 4 * MIB,
            write_buffers: 2,
            background_jobs: 1,
            ..self.profile.clone()
        };
        self.load_case("starved (2 buffers of 4 MiB, 1 job): random load".into(), &starved)
    }

    /// One data set, read with caches smaller and larger than it, with blocks of each size, and with
    /// indexes and filters pinned or not.
    fn caches(&mut self) -> Result<()> {
        for kib in [4, 8, 16, 32] {
            let profile = Profile { block_size_bytes: kib << 10, ..self.profile.clone() };
            let (subject, _) = self.loaded(&profile)?;
            self.read_case(&subject, format!("blocks of {kib} KiB: random gets"))?;
        }
        let (mut subject, _) = self.loaded(&self.profile)?;
        for mib in [32, 256, 512, 1024, 2048] {
            let profile = Profile { block_cache_bytes: mib * MIB, ..self.profile.clone() };
            subject.reopen(&profile)?;
            self.read_case(&subject, format!("block cache {mib} MiB: random gets"))?;
        }
        for (name, pin_index_and_filters) in [("pinned", true), ("not pinned", false)] {
            subject.reopen(&Profile { pin_index_and_filters, ..self.profile.clone() })?;
            self.read_case(&subject, format!("indexes and filters {name}: random gets"))?;
        }
        Ok(())
    }

    /// Random gets, once for the cache and once for the clock.
    fn read_case(&mut self, subject: &super::subject::Subject, case: String) -> Result<()> {
        let (engine, operations) = (&*subject.engine, self.scale.operations);
        let column = engine.column("bench")?;
        let mut rng = Rng::new(3);
        let mut get = |_| check(engine, column, rng.below(self.scale.records));
        (0..operations).try_for_each(&mut get)?;
        let before = engine.stats()?;
        let (took, latencies) = timed(operations, get)?;
        let hits = engine.stats()?.since(&before).cache_hit_rate;
        let note = hits.map_or_else(String::new, |rate| format!("{:.1} % hits", rate * 100.0));
        let row = self.row("knobs", case).took(operations, took).latencies(&latencies);
        self.done(super::report::Row { note, ..row });
        Ok(())
    }

    fn load_case(&mut self, case: String, profile: &Profile) -> Result<()> {
        let (subject, column) = self.subject_with(profile)?;
        let values = values(self.scale.records, self.scale.value_bytes);
        let mut latencies = histogram();
        let begun = Instant::now();
        for first in (0..self.scale.records).step_by(LOAD_BATCH as usize) {
            let mut batch = WriteBatch::new();
            for number in first..(first + LOAD_BATCH).min(self.scale.records) {
                let number = scattered(number, self.scale.records);
                batch.put(column, key(number), &values[number as usize]);
            }
            let written = Instant::now();
            subject.engine.write(batch, Durability::Buffered)?;
            latencies.saturating_record(written.elapsed().as_nanos() as u64);
        }
        let row = self.row("knobs", case).took(self.scale.records, begun.elapsed());
        let stats = subject.engine.stats()?;
        let stalled =
            stats.stalled.map_or_else(String::new, |time| format!("stalled {time:.1?}, "));
        let written = stats
            .write_amplification()
            .map_or_else(String::new, |times| format!("write amplification {times:.1}"));
        self.done(super::report::Row { note: stalled + &written, ..row.latencies(&latencies) });
        Ok(())
    }
}

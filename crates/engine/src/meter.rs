//! Counts and latencies of what an engine does, cheap enough to be always on.
//!
//! ```text
//! thread ─▶ its shard: relaxed counters on a cache line of its own;  every 16th read and every write timed
//! stats  ─▶ sum of all shards
//! ```
//! Counts are exact. Read latencies are a sample: two clock readings cost as much as a quarter of a
//! read from memory.

use crate::stats::Latency;
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// More than the threads that usually meet; threads beyond it share.
const SHARDS: usize = 16;
/// One read in so many is timed.
const SAMPLED: u64 = 16;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Relaxed) % SHARDS);
}

/// Counts of one engine since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) gets: u64,
    pub(crate) gets_found: u64,
    pub(crate) read_bytes: u64,
    pub(crate) seeks: u64,
    pub(crate) steps: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) written_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Meter {
    shards: [Shard; SHARDS],
    opened: Instant,
}

/// Two cache lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    gets: AtomicU64,
    gets_found: AtomicU64,
    read_bytes: AtomicU64,
    seeks: AtomicU64,
    steps: AtomicU64,
    batches: AtomicU64,
    records: AtomicU64,
    written_bytes: AtomicU64,
    reads: Mutex<Option<Histogram<u64>>>,
    writes: Mutex<Option<Histogram<u64>>>,
}

/// A read that is being timed, or is not.
pub(crate) struct Timer(Option<Instant>);

/// What one cursor did; counted when the cursor is dropped.
pub(crate) struct Walked<'a> {
    meter: &'a Meter,
    pub(crate) seeks: u64,
    pub(crate) steps: u64,
}

impl<'a> Walked<'a> {
    pub(crate) fn new(meter: &'a Meter) -> Self {
        Self { meter, seeks: 0, steps: 0 }
    }
}

impl Drop for Walked<'_> {
    fn drop(&mut self) {
        self.meter.walked(self.seeks, self.steps);
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self { shards: Default::default(), opened: Instant::now() }
    }
}

impl Meter {
    fn shard(&self) -> &Shard {
        &self.shards[SHARD.get()]
    }

    /// Begins a get.
    pub(crate) fn get_begins(&self) -> Timer {
        let number = self.shard().gets.fetch_add(1, Relaxed);
        Timer(number.is_multiple_of(SAMPLED).then(Instant::now))
    }

    /// Ends a get that found `size` bytes, or nothing.
    pub(crate) fn get_ends(&self, timer: Timer, found: Option<usize>) {
        let shard = self.shard();
        if let Some(size) = found {
            shard.gets_found.fetch_add(1, Relaxed);
            shard.read_bytes.fetch_add(size as u64, Relaxed);
        }
        if let Timer(Some(begun)) = timer {
            record(&shard.reads, begun.elapsed());
        }
    }

    /// Gets with these answers, not timed one by one.
    pub(crate) fn gets(&self, values: &[Option<Bytes>]) {
        let shard = self.shard();
        let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
        shard.gets.fetch_add(values.len() as u64, Relaxed);
        shard.gets_found.fetch_add(values.iter().flatten().count() as u64, Relaxed);
        shard.read_bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn walked(&self, seeks: u64, steps: u64) {
        let shard = self.shard();
        shard.seeks.fetch_add(seeks, Relaxed);
        shard.steps.fetch_add(steps, Relaxed);
    }

    /// One batch, applied.
    pub(crate) fn written(&self, records: usize, bytes: usize, begun: Instant) {
        let shard = self.shard();
        shard.batches.fetch_add(1, Relaxed);
        shard.records.fetch_add(records as u64, Relaxed);
        shard.written_bytes.fetch_add(bytes as u64, Relaxed);
        record(&shard.writes, begun.elapsed());
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            sum.gets += shard.gets.load(Relaxed);
            sum.gets_found += shard.gets_found.load(Relaxed);
            sum.read_bytes += shard.read_bytes.load(Relaxed);
            sum.seeks += shard.seeks.load(Relaxed);
            sum.steps += shard.steps.load(Relaxed);
            sum.batches += shard.batches.load(Relaxed);
            sum.records += shard.records.load(Relaxed);
            sum.written_bytes += shard.written_bytes.load(Relaxed);
        }
        sum
    }

    pub(crate) fn get_latency(&self) -> Latency {
        Latency::sum(self.shards.iter().map(|shard| &shard.reads))
    }

    pub(crate) fn write_latency(&self) -> Latency {
        Latency::sum(self.shards.iter().map(|shard| &shard.writes))
    }

    pub(crate) fn open_for(&self) -> Duration {
        self.opened.elapsed()
    }
}

fn record(histogram: &Mutex<Option<Histogram<u64>>>, took: Duration) {
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    histogram.lock().get_or_insert_with(crate::stats::histogram).saturating_record(took);
}

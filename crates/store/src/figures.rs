//! What the store counts of itself: how long the disk takes, how many proposals wait, fail.
//!
//! Counting is relaxed atomics: it takes no lock and delays nothing.

use chronolith_raft::{Disk, DiskFile, PeerMessage, PeerTransport};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Upper edges of the buckets of durations, in microseconds: etcd's, from 1 ms on each twice the one
/// before, and finer ones below, where our syncs are.
pub const DURATION_EDGES_US: [u64; 18] = [
    100, 200, 350, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000,
    512_000, 1_024_000, 2_048_000, 4_096_000, 8_192_000,
];

/// Durations, in buckets.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; DURATION_EDGES_US.len() + 1],
    sum_us: AtomicU64,
}

/// What [`DURATION_EDGES_US`] counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationCounts {
    /// One for each edge, and one for everything slower. Not cumulative.
    pub buckets: [u64; DURATION_EDGES_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    pub(crate) fn record(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_EDGES_US.partition_point(|edge| *edge < took_us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
    }

    pub(crate) fn counts(&self) -> DurationCounts {
        let buckets = std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed));
        DurationCounts { buckets, sum_us: self.sum_us.load(Relaxed) }
    }
}

/// Proposals on their way.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    pub(crate) pending: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// One proposal, pending for as long as this lives.
pub(crate) struct Pending<'a>(&'a Proposals);

impl Proposals {
    pub(crate) fn begin(&self) -> Pending<'_> {
        self.pending.fetch_add(1, Relaxed);
        Pending(self)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

/// What a store has counted since it was opened.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Writes to the Raft log, each with its sync.
    pub wal_syncs: DurationCounts,
    /// Commits of applied runs to the engine.
    pub commits: DurationCounts,
    /// Proposals that wait to be applied.
    pub proposals_pending: u64,
    /// Proposals that were refused or lost.
    pub proposals_failed: u64,
    /// Leaders that were seen to begin.
    pub leader_changes: u64,
}

/// A lone member's transport: there is nobody to send to.
pub(crate) struct NoPeers;

impl PeerTransport for NoPeers {
    fn send(&mut self, _: Vec<PeerMessage>) {}
}

/// A disk that tells how long its synced writes take.
pub(crate) struct Timed<D> {
    pub(crate) disk: D,
    pub(crate) syncs: Arc<Durations>,
}

struct TimedFile {
    file: Arc<dyn DiskFile>,
    syncs: Arc<Durations>,
}

impl<D: Disk> Disk for Timed<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn zero(&self, name: &str, size_bytes: u64) -> io::Result<()> {
        self.disk.zero(name, size_bytes)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name)?;
        Ok(Arc::new(TimedFile { file, syncs: Arc::clone(&self.syncs) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

impl DiskFile for TimedFile {
    fn size_bytes(&self) -> io::Result<u64> {
        self.file.size_bytes()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, buffer)
    }

    fn write_synced(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        let since = Instant::now();
        let written = self.file.write_synced(offset, blocks);
        self.syncs.record(since.elapsed());
        written
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_whose_edge_it_does_not_exceed() {
        let durations = Durations::default();
        for took_us in [100, 101, 10_000_000] {
            durations.record(Duration::from_micros(took_us));
        }
        let DurationCounts { buckets, sum_us } = durations.counts();
        assert_eq!((buckets[0], buckets[1], buckets[DURATION_EDGES_US.len()]), (1, 1, 1));
        assert_eq!((buckets.iter().sum::<u64>(), sum_us), (3, 10_000_201));
    }

    #[test]
    fn a_proposal_is_pending_for_as_long_as_it_is_waited_for() {
        let proposals = Proposals::default();
        let pending = proposals.begin();
        assert_eq!(proposals.pending.load(Relaxed), 1);
        drop(pending);
        assert_eq!(proposals.pending.load(Relaxed), 0);
    }
}

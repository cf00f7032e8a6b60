//! The ways to write, and one to read.

/// What happens to the records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// They are written into an empty database.
    Fill,
    /// They are there already, and written again.
    Overwrite,
    /// They are there, and deleted.
    Delete,
    /// They are there, and read.
    Read,
}

/// Batch size, order, sync, share of the records.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) change: Change,
    pub(super) batch: usize,
    pub(super) random: bool,
    pub(super) sync: bool,
    /// Slow ways get fewer records.
    pub(super) divisor: usize,
}

const fn fill(name: &'static str, batch: usize, random: bool) -> Workload {
    Workload { name, change: Change::Fill, batch, random, sync: false, divisor: 1 }
}

const fn synced(name: &'static str, batch: usize, divisor: usize) -> Workload {
    Workload { sync: true, divisor, ..fill(name, batch, true) }
}

const fn change(name: &'static str, change: Change, batch: usize) -> Workload {
    Workload { change, ..fill(name, batch, true) }
}

pub(super) const WORKLOADS: [Workload; 14] = [
    fill("one by one, sequential", 1, false),
    fill("one by one, random", 1, true),
    fill("batches of 100, random", 100, true),
    fill("batches of 1 K, sequential", 1_000, false),
    fill("batches of 1 K, random", 1_000, true),
    fill("batches of 10 K, random", 10_000, true),
    fill("batches of 100 K, random", 100_000, true),
    synced("one by one, synced", 1, 200),
    synced("batches of 1 K, synced", 1_000, 1),
    change("overwrite one by one", Change::Overwrite, 1),
    change("overwrite in batches of 1 K", Change::Overwrite, 1_000),
    change("delete one by one", Change::Delete, 1),
    change("delete in batches of 1 K", Change::Delete, 1_000),
    change("random gets", Change::Read, 1),
];

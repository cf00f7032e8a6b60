//! What an index holds and what happened to it, counted when asked: appends pay nothing for it.

use std::sync::atomic::Ordering;

use crate::blocks::BlockRef;
use crate::index::Index;
use crate::series::Series;

/// A count of everything. Taken series by series while appends go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Registered series.
    pub series: u64,
    /// Points, late ones included.
    pub points: u64,
    /// Points waiting in late sides.
    pub late_points: u64,
    /// Blocks as appended, group columns included.
    pub raw_blocks: u64,
    /// Packed blocks.
    pub packed_blocks: u64,
    /// Points in packed blocks.
    pub packed_points: u64,
    /// Bytes of packed blocks.
    pub packed_bytes: u64,
    /// Bytes charged to the budget.
    pub used_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Late points that went through a merge.
    pub merged_late_points: u64,
    /// Merges of late points into blocks.
    pub merges: u64,
    /// Merges that found no memory in the system: their points are readable and wait for the next one.
    pub failed_merges: u64,
    /// Appends that found the budget full.
    pub waits: u64,
    /// How long they waited or worked to make room, together.
    pub waited_nanos: u64,
    /// Appends refused because the budget stayed full.
    pub refused_full: u64,
    /// Appends refused because retention keeps nothing that old.
    pub refused_too_old: u64,
    /// Appends refused because their time is beyond [`crate::MAX_TIME`].
    pub refused_out_of_range: u64,
    /// Calls refused because the series they name is not registered.
    pub refused_unknown_series: u64,
    /// Registrations refused because of `max_series`.
    pub refused_too_many_series: u64,
    /// Rows of a wrong width, and groups that are empty or name a series twice.
    pub refused_malformed: u64,
    /// Calls that did not get a series from its owner in time.
    pub refused_busy: u64,
    /// Appends refused because a failed write has stopped durability.
    pub refused_poisoned: u64,
    /// Points that retention threw away.
    pub retained_away: u64,
    /// How often retention ran by itself.
    pub retentions: u64,
    /// How often it could not read or remove a file then; it tries again the next time.
    pub failed_retentions: u64,
    /// Bytes of the log that a recovery would replay now.
    pub log_bytes: u64,
    /// Whether a failed write has stopped durability: reopen the index.
    pub poisoned: bool,
}

impl Stats {
    fn add(&mut self, series: &Series) {
        let body = series.body.read();
        self.series += 1;
        self.late_points += body.late.len() as u64;
        self.merged_late_points += series.late_points.load(Ordering::Relaxed);
        self.merges += series.merges.load(Ordering::Relaxed);
        self.failed_merges += series.failed_merges.load(Ordering::Relaxed);
        self.points += body.late.len() as u64;
        for (_, block) in body.blocks.iter() {
            self.points += block.len() as u64;
            if matches!(block, BlockRef::Packed(_)) {
                self.packed_blocks += 1;
                self.packed_points += block.len() as u64;
                self.packed_bytes += block.size_bytes();
            } else {
                self.raw_blocks += 1;
            }
        }
    }

    /// Bytes of memory for each point that is packed.
    #[must_use]
    pub fn bytes_per_packed_point(&self) -> Option<f64> {
        (self.packed_points > 0).then(|| self.packed_bytes as f64 / self.packed_points as f64)
    }
}

impl Index {
    /// Counts everything now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.inner.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = Stats {
            used_bytes: self.inner.budget.used(),
            budget_bytes: self.inner.budget.limit(),
            waits: get(&counters.waits),
            waited_nanos: get(&counters.waited_nanos),
            refused_full: get(&counters.refused_full),
            refused_too_old: get(&counters.too_old),
            refused_out_of_range: get(&counters.out_of_range),
            refused_unknown_series: get(&counters.unknown_series),
            refused_too_many_series: get(&counters.too_many_series),
            refused_malformed: get(&counters.malformed),
            refused_busy: get(&counters.busy),
            refused_poisoned: get(&counters.poisoned),
            retained_away: get(&counters.retained_away),
            retentions: get(&counters.retentions),
            failed_retentions: get(&counters.failed_retentions),
            ..Stats::default()
        };
        if let Some(files) = self.inner.persist.get() {
            (stats.log_bytes, stats.poisoned) = files.state();
        }
        self.inner.table.iter().for_each(|series| stats.add(series));
        stats
    }
}

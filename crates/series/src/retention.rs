//! Throwing old points away, block by block.
//!
//! By age: blocks that end before `now - max_age`. By bytes: of all series, the block that ends earliest
//! goes first, until the rest fits. Readers that hold a removed block keep it until they are done. A thread
//! of the index does this at an interval, by the clock of the index, and then removes the segment files that
//! hold nothing else; a file goes whole or stays whole.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::block::BLOCK_POINTS;
use crate::blocks::BlockRef;
use crate::error::Error;
use crate::index::{Index, Inner};
use crate::series::Series;

/// What one call of [`Index::retain`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Points that are gone.
    pub points: usize,
    /// Blocks that are gone.
    pub blocks: usize,
    /// Their bytes, free again once the last reader has let go of them.
    pub size_bytes: u64,
}

impl Retained {
    fn add(&mut self, block: &BlockRef) {
        self.points += block.len();
        self.blocks += 1;
        self.size_bytes += block.size_bytes();
    }
}

impl Inner {
    fn retain(&self, now: i64) -> Retained {
        let retention = self.options.retention;
        let mut retained = Retained::default();
        if let Some(max_age) = retention.max_age {
            let keeps_from = now.saturating_sub(max_age);
            self.keeps_from.fetch_max(keeps_from, Ordering::Relaxed);
            for series in self.table.iter() {
                drop_before(series, keeps_from, &mut retained);
            }
        }
        if let Some(max_bytes) = retention.max_bytes {
            drop_oldest(self, max_bytes, &mut retained);
        }
        self.counters.retained_away.fetch_add(retained.points as u64, Ordering::Relaxed);
        retained
    }

    fn retain_files(&self) -> Result<usize, Error> {
        self.persist.get().map_or(Ok(0), |files| files.retain(self))
    }

    /// What the thread does that retains: a file that resists is counted, and tried again the next time.
    pub(crate) fn retain_by_itself(&self) {
        self.retain(self.options.clock.now());
        if self.retain_files().is_err() {
            self.counters.failed_retentions.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.retentions.fetch_add(1, Ordering::Release);
    }

    /// No point older than this is held or wanted any more: files that end before it can go. What ends
    /// before the age that is kept, or, with a limit of bytes, before the oldest point in memory.
    pub(crate) fn files_needed_from(&self) -> i64 {
        let by_age = self.keeps_from.load(Ordering::Relaxed);
        if self.options.retention.max_bytes.is_none() {
            return by_age;
        }
        let oldest = |series: &Arc<Series>| {
            let body = series.body.read();
            body.blocks.first_time(0).into_iter().chain(body.late.oldest()).min()
        };
        self.table.iter().filter_map(oldest).min().map_or(by_age, |oldest| oldest.max(by_age))
    }
}

impl Index {
    /// Throws away what the retention of this index does not keep at time `now`. By itself this happens
    /// every [`crate::Options::retain_every`], files included.
    pub fn retain(&self, now: i64) -> Retained {
        self.inner.retain(now)
    }

    /// Removes segment files that hold nothing any more that is to be kept. Says how many.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn retain_files(&self) -> Result<usize, Error> {
        self.inner.retain_files()
    }
}

/// Removes all blocks of `series` that end before `keeps_from`.
fn drop_before(series: &Arc<Series>, keeps_from: i64, retained: &mut Retained) {
    drop_whole(series, keeps_from, retained);
    let _only_one = series.merging.lock();
    let removed = series.change(|body| {
        // The last block may be open: it stays.
        let closed = body.blocks.len().saturating_sub(1);
        let old = body.blocks.iter().take(closed);
        let count = old.take_while(|(_, block)| block.last_time() < keeps_from).count();
        retained.points += body.late.forget_before(keeps_from);
        body.blocks.remove_front(count)
    });
    removed.iter().for_each(|block| retained.add(block));
}

/// A series that nobody appends to any more loses its last block too.
fn drop_whole(series: &Arc<Series>, keeps_from: i64, retained: &mut Retained) {
    let Some(mut tail) = series.tail.try_lock() else { return };
    if tail.last >= keeps_from {
        return;
    }
    (tail.open, tail.used) = (None, BLOCK_POINTS);
    let _only_one = series.merging.lock();
    let removed = series.change(|body| {
        body.grows = false;
        let all = body.blocks.len();
        body.blocks.remove_front(all)
    });
    removed.iter().for_each(|block| retained.add(block));
}

/// Removes the globally oldest closed blocks until at most `max_bytes` are used.
fn drop_oldest(inner: &Inner, max_bytes: u64, retained: &mut Retained) {
    let oldest = |series: &Arc<Series>| {
        let body = series.body.read();
        (body.blocks.len() > 1).then(|| (body.blocks.block(0).last_time(), series.id))
    };
    let mut heap: BinaryHeap<_> = inner.table.iter().filter_map(oldest).map(Reverse).collect();
    let mut freed = 0;
    let excess = inner.budget.used().saturating_sub(max_bytes);
    while freed < excess
        && let Some(Reverse((_, id))) = heap.pop()
    {
        let Some(series) = inner.table.get(id) else { continue };
        let _only_one = series.merging.lock();
        let removed = series.change(|body| {
            let closed = body.blocks.len().saturating_sub(1);
            body.blocks.remove_front(closed.min(1))
        });
        for block in &removed {
            freed += block.size_bytes();
            retained.add(block);
        }
        heap.extend(oldest(series).map(Reverse));
    }
}

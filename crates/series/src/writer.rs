//! Appending: the owner of a series puts points behind its newest one, or absorbs late ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::block::{BLOCK_POINTS, RawBlock};
use crate::blocks::BlockRef;
use crate::budget::{Wait, Waited};
use crate::error::Error;
use crate::index::Inner;
use crate::late::{Appended, LATE_BYTES, LATE_POINTS, Late};
use crate::memory::UNIT_BYTES;
use crate::point::{MAX_TIME, Point, SeriesId, check_time};
use crate::series::{Series, Tail};
use crate::sync::MutexGuard;

/// Sealed runs that are worth a merge: more at a time rewrite the same block less often, but readers look
/// through each of them.
const MERGED_RUNS: usize = 3;
/// Sealed runs of one series at which its writer waits for the merge that is under way: readers look
/// through all of them, and each holds memory.
const MOST_RUNS: usize = 12;

/// A batch that stopped part of the way.
#[derive(Debug, thiserror::Error)]
#[error("{stored} points of the batch were stored, the next was not: {error}")]
pub struct Partial {
    /// How many points, from the first on, were stored.
    pub stored: usize,
    /// Why the next one was not.
    #[source]
    pub error: Error,
}

/// The right to append to one series, held by one thread at a time. Dropping it gives the right back.
///
/// A point is readable by every thread when its `append` has returned.
///
/// ```
/// use chronolith_series::{Index, Labels, Point};
/// let index = Index::new();
/// let cpu = index.register(Labels::new([("__name__", "cpu")])?)?;
/// let mut writer = index.writer(cpu)?;
/// for second in 0..100 {
///     let waited = writer.append(second * 1000, 0.5)?;
///     assert!(waited.duration().is_zero());
/// }
/// assert_eq!(index.get(cpu, 99_000), Some(0.5));
/// # Ok::<(), chronolith_series::Error>(())
/// ```
pub struct Writer<'i> {
    // The tail's content, moved here while owned: one cache line that is ours alone.
    block: Option<Arc<RawBlock>>,
    used: usize,
    last: i64,
    wait: Wait,
    /// A group fills the last block of this series: only the group can close it.
    in_open_group: bool,
    index: &'i Inner,
    series: &'i Arc<Series>,
    tail: MutexGuard<'i, Tail>,
}

impl<'i> Writer<'i> {
    pub(crate) fn new(
        index: &'i Inner,
        series: &'i Arc<Series>,
        mut tail: MutexGuard<'i, Tail>,
    ) -> Writer<'i> {
        let block = tail.open.take();
        let used = if block.is_some() { tail.used } else { BLOCK_POINTS };
        let (last, wait) = (tail.last, index.options.wait);
        Writer { block, used, last, wait, in_open_group: false, index, series, tail }
    }

    /// The series that this appends to.
    #[must_use]
    pub fn series(&self) -> SeriesId {
        self.series.id
    }

    /// The newest time appended so far; `i64::MIN` if there is none.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.last
    }

    /// Sets what this writer does when the memory budget is full.
    pub fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Appends a point, waiting for memory as `set_wait` says, and tells how long that took.
    ///
    /// # Errors
    /// A time out of range or older than retention keeps, or no memory within the time allowed. Then
    /// nothing was stored.
    #[inline]
    pub fn append(&mut self, time: i64, value: f64) -> Result<Waited, Error> {
        if time > self.last
            && time <= MAX_TIME
            && self.used < BLOCK_POINTS
            && let Some(block) = &self.block
        {
            block.append(self.used, time, value);
            self.used += 1;
            self.last = time;
            return Ok(Waited::NOT);
        }
        self.append_slowly(time, value)
    }

    /// Appends points of any order; the fast way is in order. Returns how long it waited for memory.
    ///
    /// # Errors
    /// [`Partial`] says how many points were stored before the first one that could not be.
    pub fn extend(&mut self, points: &[Point]) -> Result<Waited, Partial> {
        let mut waited = Waited::NOT;
        let mut stored = 0;
        while stored < points.len() {
            let rest = &points[stored..];
            let room = BLOCK_POINTS - self.used;
            let chunk = &rest[..room.min(rest.len())];
            if let Some(block) = &self.block
                && self.follows(chunk)
            {
                block.extend(self.used, chunk);
                self.used += chunk.len();
                self.last = chunk[chunk.len() - 1].time;
                stored += chunk.len();
                continue;
            }
            // The first point of a block, or a chunk that is not in order: point by point.
            for point in &rest[..chunk.len().max(1)] {
                match self.append(point.time, point.value) {
                    Ok(more) => waited = waited.and(more),
                    Err(error) => return Err(Partial { stored, error }),
                }
                stored += 1;
            }
        }
        Ok(waited)
    }

    /// Whether `chunk` is not empty, in order, and behind everything so far.
    fn follows(&self, chunk: &[Point]) -> bool {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return false };
        first.time > self.last
            && last.time <= MAX_TIME
            && chunk.is_sorted_by(|earlier, later| earlier.time < later.time)
    }

    /// Merges what is late into the blocks now, closing the open block if late points fall into it.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no memory to give; nothing is lost then.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.series.change_late(Late::seal);
        self.merge()?;
        if self.series.body.read().late.run_count() > 0 {
            self.close_block();
            self.merge()?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn append_slowly(&mut self, time: i64, value: f64) -> Result<Waited, Error> {
        let refused = |error| self.index.counters.refused(error);
        check_time(time).map_err(refused)?;
        self.index.check_files()?;
        let keeps_from = self.index.keeps_from.load(Ordering::Relaxed);
        if time < keeps_from {
            return Err(refused(Error::TooOld { time, keeps_from }));
        }
        if time > self.last { self.open_block(time, value) } else { self.append_late(time, value) }
    }

    fn open_block(&mut self, time: i64, value: f64) -> Result<Waited, Error> {
        let (charge, waited) = self.index.take(self.series, UNIT_BYTES as u64, self.wait)?;
        let block = Arc::new(RawBlock::new(self.index.pool.take()?, charge));
        block.append(0, time, value);
        let linked = BlockRef::Raw(Arc::clone(&block));
        self.series.change(|body| body.push(time, linked, true));
        (self.block, self.used, self.last) = (Some(block), 1, time);
        Ok(waited)
    }

    fn append_late(&mut self, time: i64, value: f64) -> Result<Waited, Error> {
        let point = Point { time, value };
        let (outcome, waited) = match self.series.change_late(|late| late.append(point, None)) {
            Appended::NeedsCharge => {
                let (charge, waited) = self.index.take(self.series, LATE_BYTES, self.wait)?;
                (self.series.change_late(|late| late.append(point, Some(charge))), waited)
            }
            outcome => (outcome, Waited::NOT),
        };
        if self.index.persist.get().is_some() {
            // After it is readable: a sync that comes between takes it by its time, or finds it here.
            self.series.taken.lock().note_late(point);
        }
        if outcome == Appended::Sealed {
            self.series.late_points.fetch_add(LATE_POINTS as u64, Ordering::Relaxed);
            self.have_merged()?;
        }
        Ok(waited)
    }

    /// A run was sealed. When enough of them wait, the pool merges them while this writer goes on and sorts
    /// the next; or this writer does, if the pool is busy with other series, or too far behind with this.
    fn have_merged(&mut self) -> Result<(), Error> {
        let (waiting, crowded) = {
            let body = self.series.body.read();
            (body.late.run_count(), body.open_block_is_crowded())
        };
        if crowded {
            self.close_block();
        }
        let under_way = || self.series.merging.try_lock().is_none();
        if waiting < MERGED_RUNS || waiting < MOST_RUNS && (under_way() || self.hand_over()) {
            return Ok(());
        }
        self.merge()
    }

    /// Whether the pool will merge all that is sealed now.
    fn hand_over(&self) -> bool {
        if self.series.handed_over.swap(true, Ordering::AcqRel) {
            return true;
        }
        let series = Arc::clone(self.series);
        let (pool, budget) = (Arc::clone(&self.index.pool), Arc::clone(&self.index.budget));
        let taken = self.index.workers.hand_over(move || series.merge_handed_over(&pool, &budget));
        if !taken {
            self.series.handed_over.store(false, Ordering::Release);
        }
        taken
    }

    fn merge(&self) -> Result<(), Error> {
        self.series.merge(&self.index.pool, &self.index.budget)
    }

    /// No point will be added to the open block any more.
    pub(crate) fn close_block(&mut self) {
        (self.block, self.used, self.in_open_group) = (None, BLOCK_POINTS, false);
        self.series.body.write().grows = false;
    }

    /// Links a block that was filled elsewhere and starts at `first`.
    pub(crate) fn link(&mut self, first: i64, block: BlockRef) {
        self.in_open_group = true;
        self.series.change(|body| body.push(first, block, true));
    }

    /// Links a block that nobody will append to.
    pub(crate) fn link_closed(&mut self, first: i64, block: BlockRef) {
        self.series.change(|body| body.push(first, block, false));
    }

    pub(crate) fn set_newest(&mut self, last: i64) {
        self.last = last;
    }

    pub(crate) fn is_in_open_group(&self) -> bool {
        self.in_open_group
    }

    pub(crate) fn owned_series(&self) -> &'i Series {
        self.series
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.tail.open = self.block.take();
        self.tail.used = self.used;
        self.tail.last = self.last;
    }
}

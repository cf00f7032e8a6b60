//! One series: who may append (the tail, owned by one at a time) and what readers see (the body).
//!
//! ```text
//!   tail (mutex: the owner)    open block, how full it is, newest time
//!   body (read-write lock)     block list, late side          locked to link a block, never per point
//! ```
//!
//! Lock order: tail, then merging, then body. Nobody waits for memory while holding the body.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::block::{BLOCK_POINTS, RawBlock};
use crate::blocks::{BlockList, BlockRef};
use crate::budget::Budget;
use crate::error::Error;
use crate::labels::Labels;
use crate::late::{self, Late, overlay};
use crate::packed::PackedBlock;
use crate::persist::Taken;
use crate::point::{MAX_TIME, Point, SeriesId};
use crate::pool::Pool;

/// The appending side of a series.
pub(crate) struct Tail {
    /// The block being filled: the last of the list, until it is full or closed early.
    pub(crate) open: Option<Arc<RawBlock>>,
    /// Points in the open block.
    pub(crate) used: usize,
    /// Newest time ever appended.
    pub(crate) last: i64,
}

/// What readers see.
#[derive(Default)]
pub(crate) struct Body {
    pub(crate) blocks: BlockList,
    pub(crate) late: Late,
}

impl Body {
    /// The value at `time`.
    #[inline]
    pub(crate) fn get(&self, time: i64) -> Option<f64> {
        if !self.late.is_empty() {
            let late = self.late.get(time);
            if late.is_some() {
                return late;
            }
        }
        self.blocks.get(time, usize::MAX)
    }
}

/// One registered series.
pub(crate) struct Series {
    pub(crate) id: SeriesId,
    pub(crate) labels: Option<Arc<Labels>>,
    pub(crate) tail: Mutex<Tail>,
    pub(crate) body: RwLock<Body>,
    /// Held by whoever replaces or removes blocks, so that there is one at a time.
    pub(crate) merging: Mutex<()>,
    pub(crate) removed: AtomicBool,
    pub(crate) late_points: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) signals: Signals,
    /// What of it is on disk; locked before the body.
    pub(crate) taken: Mutex<Taken>,
}

/// What a reader with a copy of the block list looks at to know whether the copy still holds.
///
/// Changed only while the body is locked for writing, the version before `has_late`: who sees a late
/// side gone also sees the version of the list that took its points in. A line of its own.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Signals {
    version: AtomicU64,
    has_late: AtomicBool,
}

impl Signals {
    /// The version of the block list; `None` while late points must be looked at too.
    #[inline]
    pub(crate) fn version(&self) -> Option<u64> {
        let has_late = self.has_late.load(Ordering::Acquire);
        let version = self.version.load(Ordering::Acquire);
        (!has_late).then_some(version)
    }
}

/// Copies up to this many blocks while the body is locked: cheaper than holding on to each of them.
const COPY_LOCKED_BLOCKS: usize = 4;

impl Series {
    pub(crate) fn new(id: SeriesId, labels: Option<Arc<Labels>>) -> Series {
        Series {
            id,
            labels,
            tail: Mutex::new(Tail { open: None, used: 0, last: i64::MIN }),
            body: RwLock::new(Body::default()),
            merging: Mutex::new(()),
            removed: AtomicBool::new(false),
            late_points: AtomicU64::new(0),
            merges: AtomicU64::new(0),
            signals: Signals::default(),
            taken: Mutex::default(),
        }
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Changes what readers see, and tells those that keep a copy.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Body) -> R) -> R {
        let mut body = self.body.write();
        let result = change(&mut body);
        self.signals.version.fetch_add(1, Ordering::Release);
        self.signals.has_late.store(!body.late.is_empty(), Ordering::Release);
        result
    }

    /// The block list as it is, and its version.
    pub(crate) fn list(&self) -> (u64, BlockList) {
        let body = self.body.read();
        (self.signals.version.load(Ordering::Acquire), body.blocks.clone())
    }

    /// The value at `time`.
    #[inline]
    pub(crate) fn get(&self, time: i64) -> Option<f64> {
        self.body.read().get(time)
    }

    /// Appends the points with `low ≤ time ≤ high`, in order, to `out`.
    pub(crate) fn copy(&self, low: i64, high: i64, out: &mut Vec<Point>) {
        let body = self.body.read();
        if body.blocks.overlapping(low, high).len() > COPY_LOCKED_BLOCKS {
            drop(body);
            return self.view(low, high).copy(low, high, out);
        }
        let start = out.len();
        body.blocks.copy(low, high, usize::MAX, out);
        if !body.late.is_empty() {
            let late = body.late.between(low, high);
            drop(body);
            lay_over(out, start, &late);
        }
    }

    /// Appends the points of the first blocks from `low` on that together can hold `count`; returns the
    /// time to go on from, above `MAX_TIME` at the end.
    pub(crate) fn copy_some(&self, low: i64, count: usize, out: &mut Vec<Point>) -> i64 {
        let until = {
            let body = self.body.read();
            let blocks = body.blocks.overlapping(low, MAX_TIME);
            let enough = blocks.start + count.div_ceil(BLOCK_POINTS) + 1;
            body.blocks.first_time(enough).unwrap_or(MAX_TIME + 1)
        };
        self.copy(low, until - 1, out);
        until
    }

    /// An unchanging view of the points with `low ≤ time ≤ high`.
    pub(crate) fn view(&self, low: i64, high: i64) -> View {
        let body = self.body.read();
        let mut blocks = BlockList::default();
        for at in body.blocks.overlapping(low, high) {
            let first = body.blocks.first_time(at).expect("inside the list");
            blocks.push(first, body.blocks.block(at).clone());
        }
        let open_limit = blocks.last().map_or(0, BlockRef::len);
        let late = if body.late.is_empty() { Vec::new() } else { body.late.between(low, high) };
        View { blocks, open_limit, late }
    }

    /// How many points there are, a late point that overwrites counting until it is merged.
    pub(crate) fn len(&self) -> usize {
        let body = self.body.read();
        body.blocks.iter().map(|(_, block)| block.len()).sum::<usize>() + body.late.len()
    }

    /// Merges sealed runs of late points into the closed blocks they fall into.
    pub(crate) fn merge(
        &self,
        pool: &Arc<Pool>,
        budget: &Arc<Budget>,
        open: Open,
    ) -> Result<(), Error> {
        let _only_one = self.merging.lock();
        let (runs, plan) = {
            let body = self.body.read();
            let runs = body.late.runs();
            let mut points: Vec<Point> = Vec::new();
            for run in &runs {
                points = overlay(&points, &run.points);
            }
            let closed = match open {
                Open::LastMayGrow => body.blocks.len().saturating_sub(1),
                Open::AllClosed => body.blocks.len(),
            };
            (runs, late::plan(&body.blocks, closed, &points))
        };
        if runs.is_empty() {
            return Ok(());
        }
        let mut outcome = Vec::with_capacity(plan.rewrites.len());
        for step in &plan.rewrites {
            let at = step.target.as_ref().map(|(at, _)| *at);
            outcome.push((at, late::rewrite(step, pool, budget)?));
        }
        self.change(|body| {
            body.blocks.splice(outcome);
            body.late.merged(runs.len(), plan.rest);
        });
        self.merges.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Packs closed blocks that are still raw, all but the newest `keep_raw`. Says how many.
    pub(crate) fn pack(&self, budget: &Arc<Budget>, keep_raw: usize) -> usize {
        let _only_one = self.merging.lock();
        let closed: Vec<(usize, BlockRef)> = {
            let body = self.body.read();
            let count = body.blocks.len().saturating_sub(keep_raw.max(1));
            let raw = |block: &BlockRef| !matches!(block, BlockRef::Packed(_));
            let blocks = body.blocks.iter().take(count).enumerate();
            blocks.filter(|(_, (_, b))| raw(b)).map(|(at, (_, b))| (at, b.clone())).collect()
        };
        let mut points = Vec::new();
        for (at, block) in &closed {
            points.clear();
            block.points(&mut points);
            let packed = PackedBlock::pack(&points, budget);
            // Positions hold: only the owner of `merging` takes blocks out, and new ones come at the end.
            self.change(|body| body.blocks.replace(*at, BlockRef::Packed(Arc::new(packed))));
        }
        closed.len()
    }
}

/// Whether the last block of a series may still be appended to while its late points are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// An owner may be appending to it: late points inside it wait.
    LastMayGrow,
    /// The caller is the owner and has closed it.
    AllClosed,
}

/// Points that never change again, of one series: a snapshot.
#[derive(Clone)]
pub(crate) struct View {
    blocks: BlockList,
    open_limit: usize,
    late: Vec<Point>,
}

impl View {
    pub(crate) fn copy(&self, low: i64, high: i64, out: &mut Vec<Point>) {
        let start = out.len();
        self.blocks.copy(low, high, self.open_limit, out);
        let from = self.late.partition_point(|point| point.time < low);
        let to = self.late.partition_point(|point| point.time <= high);
        lay_over(out, start, &self.late[from..to.max(from)]);
    }

    pub(crate) fn get(&self, time: i64) -> Option<f64> {
        match self.late.binary_search_by_key(&time, |point| point.time) {
            Ok(at) => Some(self.late[at].value),
            Err(_) => self.blocks.get(time, self.open_limit),
        }
    }

    /// How many pieces `piece` can give.
    pub(crate) fn pieces(&self) -> usize {
        self.blocks.len().max(1)
    }

    /// The points of block `at` and the late ones up to the next block, in order, appended to `out`.
    pub(crate) fn piece(&self, at: usize, low: i64, high: i64, out: &mut Vec<Point>) {
        let start = out.len();
        let from = if at == 0 { i64::MIN } else { self.blocks.first_time(at).unwrap_or(i64::MAX) };
        let until = self.blocks.first_time(at + 1).unwrap_or(i64::MAX);
        if at < self.blocks.len() {
            self.blocks.copy_block(at, low, high, self.open_limit, out);
        }
        if !self.late.is_empty() {
            let from = self.late.partition_point(|p| p.time < from.max(low));
            let to = self.late.partition_point(|p| p.time < until && p.time <= high);
            lay_over(out, start, &self.late[from..to.max(from)]);
        }
    }
}

/// Merges `late` into `out[start..]`; late values win.
fn lay_over(out: &mut Vec<Point>, start: usize, late: &[Point]) {
    if !late.is_empty() {
        let merged = overlay(&out[start..], late);
        out.truncate(start);
        out.extend(merged);
    }
}

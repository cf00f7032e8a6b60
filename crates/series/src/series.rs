//! One series: who may append (the tail, owned by one at a time) and what readers see (the body).
//!
//! ```text
//!   tail (mutex: the owner)    open block, how full it is, newest time
//!   body (read-write lock)     block list, late side          locked to link a block, never per point
//! ```
//!
//! Lock order: tail, then merging, then body. Nobody waits for memory while holding the body.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Counter;

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
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, RwLock};

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
    /// Whether somebody may still append to the last block: late points inside it wait for that to end.
    pub(crate) grows: bool,
}

impl Body {
    /// Links a block behind all others; `grows` if somebody appends to it.
    pub(crate) fn push(&mut self, first: i64, block: BlockRef, grows: bool) {
        self.blocks.push(first, block);
        self.grows = grows;
    }

    /// Whether more late points wait for the open block to close than it has itself: then waiting costs
    /// more than a short block.
    pub(crate) fn open_block_is_crowded(&self) -> bool {
        let Some(last) = self.blocks.last().filter(|_| self.grows) else { return false };
        self.late.sealed_since(last.first_time()) >= last.len()
    }

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
    pub(crate) late_points: Counter,
    pub(crate) merges: Counter,
    /// Merges in the pool that found no memory; their points wait in the late side.
    pub(crate) failed_merges: Counter,
    /// A merge is queued in the pool and has not begun: it will find all runs sealed until then.
    pub(crate) handed_over: AtomicBool,
    pub(crate) signals: Signals,
    /// What of it is on disk; locked before the body.
    pub(crate) taken: Mutex<Taken>,
}

/// What a reader with a copy of the block list looks at to know whether the copy still holds.
///
/// Changed only while the body is locked for writing, the version before `has_late`: who sees a late
/// side gone also sees the version of the list that took its points in. A line of its own.
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
            late_points: Counter::new(0),
            merges: Counter::new(0),
            failed_merges: Counter::new(0),
            handed_over: AtomicBool::new(false),
            signals: Signals { version: AtomicU64::new(0), has_late: AtomicBool::new(false) },
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

    /// Changes the late side only: copies of the block list stay good, but no longer answer alone.
    #[inline]
    pub(crate) fn change_late<R>(&self, change: impl FnOnce(&mut Late) -> R) -> R {
        let mut body = self.body.write();
        let result = change(&mut body.late);
        if !self.signals.has_late.load(Ordering::Relaxed) && !body.late.is_empty() {
            self.signals.has_late.store(true, Ordering::Release);
        }
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

    /// Merges sealed runs of late points into the closed blocks they fall into. Appends go on meanwhile,
    /// in order and late; readers see every point once, in its run until the block that has it is there.
    pub(crate) fn merge(&self, pool: &Arc<Pool>, budget: &Arc<Budget>) -> Result<(), Error> {
        let _only_one = self.merging.lock();
        let (runs, base, closed) = {
            let body = self.body.read();
            // What is closed now stays so: a block that is linked meanwhile comes behind all of these.
            let closed = body.blocks.len().saturating_sub(usize::from(body.grows));
            (body.late.runs(), body.blocks.clone(), closed)
        };
        if runs.is_empty() {
            return Ok(());
        }
        let sorted = runs.iter().fold(Vec::new(), |all, run| overlay(&all, &run.points));
        let plan = late::plan(&base, closed, &sorted);
        let mut outcome = Vec::with_capacity(plan.rewrites.len());
        for step in &plan.rewrites {
            outcome.push((step.replaced.clone(), late::rewrite(step, pool, budget)?));
        }
        let mut merged = base.splice(outcome);
        let replaced = self.change(|body| {
            // What was linked meanwhile stays at the end.
            let linked = body.blocks.between(base.len()..body.blocks.len());
            linked.for_each(|(first, block)| merged.push(first, block));
            body.late.merged(runs.len(), plan.rest);
            std::mem::replace(&mut body.blocks, merged)
        });
        // Many blocks may end here: not while readers and the writer wait.
        drop((replaced, base, runs));
        self.merges.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// As `merge`, in a thread of the pool. What it could not do stays where it is, readable: the writer
    /// merges it itself when more waits, and reports what is wrong then.
    pub(crate) fn merge_handed_over(&self, pool: &Arc<Pool>, budget: &Arc<Budget>) {
        // Before the runs are looked at: whoever seals one later and still finds this set has it merged.
        self.handed_over.swap(false, Ordering::AcqRel);
        if self.merge(pool, budget).is_err() {
            self.failed_merges.fetch_add(1, Ordering::Relaxed);
        }
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

/// `RUSTFLAGS="--cfg loom" cargo test -p chronolith-series --release --lib loom`
#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use crate::late::Appended;
    use crate::sync::{model, thread};

    fn add_late(series: &Series, budget: &Arc<Budget>, time: i64, value: f64) {
        let charge = budget.try_take(1).expect("room");
        let point = Point::new(time, value);
        series.change_late(|late| {
            assert_eq!(late.append(point, Some(charge)), Appended::Kept);
            late.seal();
        });
    }

    /// A closed block of two points and an open one; the third point is late and sealed.
    fn merging(late: (i64, f64)) -> (Arc<Series>, Arc<Pool>, Arc<Budget>) {
        let (pool, budget) = (Arc::new(Pool::new()), Budget::new(1 << 20));
        let series = Arc::new(Series::new(SeriesId(0), None));
        for points in [&[(10, 1.0), (20, 2.0)][..], &[(30, 3.0)]] {
            let charge = budget.try_take(1).expect("room");
            let block = RawBlock::new(pool.take().expect("modelled memory"), charge);
            let points: Vec<Point> = points.iter().map(|(t, v)| Point::new(*t, *v)).collect();
            block.extend(0, &points);
            series.change(|body| body.push(points[0].time, BlockRef::Raw(Arc::new(block)), true));
        }
        add_late(&series, &budget, late.0, late.1);
        (series, pool, budget)
    }

    fn merge_beside(late: (i64, f64), read: impl Fn(&Series) + Send + Sync + 'static) {
        model(move || {
            let (series, pool, budget) = merging(late);
            let merging = {
                let series = Arc::clone(&series);
                thread::spawn(move || series.merge(&pool, &budget).expect("modelled memory"))
            };
            read(&series);
            merging.join().expect("no panic");
            read(&series);
            assert!(series.body.read().late.is_empty());
        });
    }

    fn points(series: &Series) -> Vec<(i64, f64)> {
        let mut out = Vec::new();
        series.copy(0, 100, &mut out);
        out.iter().map(|point| (point.time, point.value)).collect()
    }

    #[test]
    fn loom_a_range_beside_a_merge_has_every_point_once() {
        merge_beside((15, 9.0), |series| {
            assert_eq!(points(series), [(10, 1.0), (15, 9.0), (20, 2.0), (30, 3.0)]);
        });
    }

    #[test]
    fn loom_an_overwrite_is_never_undone_by_its_merge() {
        merge_beside((20, 9.0), |series| {
            assert_eq!(series.get(20), Some(9.0));
            assert_eq!(points(series), [(10, 1.0), (20, 9.0), (30, 3.0)]);
        });
    }

    /// What `Reader` does: it believes its copy of the list only while the signals say so.
    #[test]
    fn loom_a_readers_copy_never_misses_what_was_merged_after_it() {
        merge_beside((15, 9.0), |series| {
            let (version, list) = series.list();
            let got = match series.signals.version() == Some(version) {
                true => list.get(15, usize::MAX),
                false => series.get(15),
            };
            assert_eq!(got, Some(9.0));
        });
    }

    /// A writer seals two runs and hands each over; a merge may be queued, begun, or done at the second.
    #[test]
    fn loom_a_run_sealed_while_a_merge_begins_is_merged_by_it_or_by_the_next() {
        model(|| {
            let (series, pool, budget) = merging((15, 9.0));
            let hand_over = || {
                let parts = (Arc::clone(&series), Arc::clone(&pool), Arc::clone(&budget));
                let (series, pool, budget) = parts;
                (!series.handed_over.swap(true, Ordering::AcqRel))
                    .then(|| thread::spawn(move || series.merge_handed_over(&pool, &budget)))
            };
            let first = hand_over();
            add_late(&series, &budget, 16, 8.0);
            let second = hand_over();
            for job in [first, second].into_iter().flatten() {
                job.join().expect("no panic");
            }
            assert!(series.body.read().late.is_empty(), "a run was forgotten");
            let expected = [(10, 1.0), (15, 9.0), (16, 8.0), (20, 2.0), (30, 3.0)];
            assert_eq!(points(&series), expected);
        });
    }
}

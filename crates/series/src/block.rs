//! A raw block: up to 512 points in time order, appended by one owner, read by anyone at any time.
//!
//! ```text
//!   unit:  t0 v0 │ t1 v1 │ t2 v2 │ … │ t511 v511        len: how many of them readers may see
//! ```
//!
//! The publication protocol, whole:
//! 1. the owner writes the cells of point `n` (relaxed), then stores `len = n + 1` (release);
//! 2. a reader loads `len` (acquire), then reads cells of points below it (relaxed).
//!
//! A point below `len` never changes again: overwrites travel as late points and are merged into a new
//! block. So a reader that remembers a `len` has a snapshot. A model of this runs under loom.
//!
//! Time and value lie side by side: a lookup then misses the cache once, not twice, and points of many
//! series arriving tick by tick touch one line each, not two.

use crate::budget::Charge;
use crate::memory::Cells;
use crate::point::Point;
use crate::pool::Unit;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Points in a full block.
pub(crate) const BLOCK_POINTS: usize = crate::memory::UNIT_CELLS / 2;

/// Cells for points, and how many are published. Small, so that many heads stay in the caches.
pub(crate) struct RawBlock {
    unit: Unit,
    len: AtomicU32,
    _charge: Charge,
}

impl RawBlock {
    pub(crate) fn new(unit: Unit, charge: Charge) -> RawBlock {
        RawBlock { unit, len: AtomicU32::new(0), _charge: charge }
    }

    /// Step 1 for one point. Only the owner calls this, with `at` = the length it last published.
    #[inline]
    pub(crate) fn append(&self, at: usize, time: i64, value: f64) {
        self.write(at, time, value);
        self.publish(at + 1);
    }

    /// Step 1 for many points at once: readers see all of them or none.
    #[inline]
    pub(crate) fn extend(&self, at: usize, points: &[Point]) {
        let cells = &self.unit.cells()[2 * at..2 * (at + points.len())];
        for (cell, point) in cells.chunks_exact(2).zip(points) {
            cell[0].store(point.time.cast_unsigned(), Ordering::Relaxed);
            cell[1].store(point.value.to_bits(), Ordering::Relaxed);
        }
        self.publish(at + points.len());
    }

    #[inline]
    fn write(&self, at: usize, time: i64, value: f64) {
        let cells = self.unit.cells();
        cells[2 * at].store(time.cast_unsigned(), Ordering::Relaxed);
        cells[2 * at + 1].store(value.to_bits(), Ordering::Relaxed);
    }

    #[inline]
    fn publish(&self, len: usize) {
        self.len.store(len as u32, Ordering::Release);
    }

    /// Step 2: how many points may be read.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire) as usize
    }

    #[inline]
    pub(crate) fn time(&self, at: usize) -> i64 {
        self.unit.cells()[2 * at].load(Ordering::Relaxed).cast_signed()
    }

    #[inline]
    pub(crate) fn value(&self, at: usize) -> f64 {
        f64::from_bits(self.unit.cells()[2 * at + 1].load(Ordering::Relaxed))
    }

    /// Copies the points `from..to`, which the caller knows to be published.
    #[inline]
    pub(crate) fn copy(&self, from: usize, to: usize, out: &mut Vec<Point>) {
        copy_cells(&self.unit.cells()[2 * from..2 * to], out);
    }

    /// What readers keep of this block once nobody appends to it; see [`Closed`].
    pub(crate) fn closed(&self) -> Closed {
        Closed { cells: self.unit.cells().clone(), len: self.len() as u32 }
    }
}

/// The points of a block that nobody appends to any more, reached without its head: a lookup then misses
/// the cache once, for the point. Whoever keeps one keeps the block beside it, so that the unit is not
/// given to another block.
#[derive(Clone)]
pub(crate) struct Closed {
    cells: Cells,
    len: u32,
}

impl Closed {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn time(&self, at: usize) -> i64 {
        self.cells[2 * at].load(Ordering::Relaxed).cast_signed()
    }

    #[inline]
    pub(crate) fn value(&self, at: usize) -> f64 {
        f64::from_bits(self.cells[2 * at + 1].load(Ordering::Relaxed))
    }

    /// Where `time` would be, if every step of the interval `first..next` were alike.
    #[inline]
    pub(crate) fn near(&self, time: i64, first: i64, next: i64) -> usize {
        guess(time, first, next, self.len()).min(self.len() - 1)
    }

    /// The value at `time`. On a regular grid this looks at one point and no neighbour.
    #[inline]
    pub(crate) fn get(&self, time: i64, first: i64, next: i64) -> Option<f64> {
        let near = self.near(time, first, next);
        if self.time(near) == time {
            return Some(self.value(near));
        }
        let at = lower_bound(|at| self.time(at), self.len(), time, near);
        (at < self.len() && self.time(at) == time).then(|| self.value(at))
    }

    /// Positions of the first point from `low` on and of the first one behind `high`.
    #[inline]
    pub(crate) fn bounds(&self, low: i64, high: i64, first: i64, next: i64) -> (usize, usize) {
        let from = if low <= first { 0 } else { self.position(low, first, next) };
        if high >= next - 1 {
            return (from, self.len());
        }
        let last = self.near(high, first, next);
        let to = match self.time(last) == high {
            true => last + 1,
            false => lower_bound(|at| self.time(at), self.len(), high + 1, last),
        };
        (from, to.max(from))
    }

    #[inline]
    fn position(&self, time: i64, first: i64, next: i64) -> usize {
        let near = self.near(time, first, next);
        match self.time(near) == time {
            true => near,
            false => lower_bound(|at| self.time(at), self.len(), time, near),
        }
    }

    /// Loads every cache line of the points `from..to`, so that all their misses are under way at once.
    #[inline]
    pub(crate) fn touch(&self, from: usize, to: usize) {
        const LINE_CELLS: usize = 8;
        let lines = self.cells[2 * from..2 * to].iter().step_by(LINE_CELLS);
        std::hint::black_box(lines.fold(0, |all, cell| all ^ cell.load(Ordering::Relaxed)));
    }

    #[inline]
    pub(crate) fn copy(&self, from: usize, to: usize, out: &mut Vec<Point>) {
        copy_cells(&self.cells[2 * from..2 * to], out);
    }
}

#[inline]
fn copy_cells(cells: &[AtomicU64], out: &mut Vec<Point>) {
    out.extend(cells.chunks_exact(2).map(|cell| Point {
        time: cell[0].load(Ordering::Relaxed).cast_signed(),
        value: f64::from_bits(cell[1].load(Ordering::Relaxed)),
    }));
}

/// The first position in `0..len` whose time is not below `time`, looking first near `guess`.
///
/// Points mostly come in regular steps, so a guess by proportion is right or one off; doubling steps
/// from there keep the worst case at twice a binary search.
#[inline]
pub(crate) fn lower_bound(
    time_at: impl Fn(usize) -> i64,
    len: usize,
    time: i64,
    guess: usize,
) -> usize {
    if len == 0 {
        return 0;
    }
    let guess = guess.min(len - 1);
    let (mut low, mut high) = if time_at(guess) < time {
        gallop_up(&time_at, len, time, guess)
    } else {
        gallop_down(&time_at, time, guess)
    };
    while low < high {
        let middle = low.midpoint(high);
        if time_at(middle) < time { low = middle + 1 } else { high = middle }
    }
    low
}

/// `time_at(from) < time`: an interval that holds the answer.
#[inline]
fn gallop_up(time_at: impl Fn(usize) -> i64, len: usize, time: i64, from: usize) -> (usize, usize) {
    let (mut low, mut step) = (from + 1, 1);
    loop {
        let probe = low + step - 1;
        if probe >= len {
            return (low, len);
        }
        if time_at(probe) >= time {
            return (low, probe);
        }
        low = probe + 1;
        step *= 2;
    }
}

/// `time_at(from) >= time`: an interval that holds the answer.
#[inline]
fn gallop_down(time_at: impl Fn(usize) -> i64, time: i64, from: usize) -> (usize, usize) {
    let (mut high, mut step) = (from, 1);
    while high > 0 {
        let probe = high.saturating_sub(step);
        if time_at(probe) < time {
            return (probe + 1, high);
        }
        high = probe;
        step *= 2;
    }
    (0, 0)
}

/// Where `time` would be among `len` points spread evenly over `first..next`.
#[inline]
pub(crate) fn guess(time: i64, first: i64, next: i64, len: usize) -> usize {
    // A time that no point can have may wrap: a wrong guess only costs probes.
    let share = time.wrapping_sub(first) as f64 / next.wrapping_sub(first) as f64;
    (share * len as f64 + 0.5) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lower_bound_equals_the_naive_answer_from_every_guess() {
        let times: Vec<i64> = (0..40).map(|i| i * i - 100).collect();
        for len in [0, 1, 2, 7, 40] {
            for guess in [0, 1, 5, 39, 1000] {
                for time in -110..1500 {
                    let naive = times[..len].partition_point(|t| *t < time);
                    assert_eq!(lower_bound(|at| times[at], len, time, guess), naive);
                }
            }
        }
    }

    #[test]
    fn a_guess_on_a_regular_grid_is_exact() {
        for at in 0..512_i64 {
            assert_eq!(guess(1000 + at * 50, 1000, 1000 + 512 * 50, 512), at as usize);
        }
    }
}

/// The publication protocol under every interleaving: `RUSTFLAGS="--cfg loom" cargo test -p chronolith-series --release loom`.
#[cfg(all(test, loom))]
mod loom_model {
    use std::sync::Arc as StdArc;

    use super::*;
    use crate::budget::Budget;
    use crate::pool::Pool;

    fn block() -> loom::sync::Arc<RawBlock> {
        let unit = StdArc::new(Pool::new()).take().expect("modelled memory");
        let charge = Budget::new(1 << 20).try_take(1).expect("room");
        loom::sync::Arc::new(RawBlock::new(unit, charge))
    }

    fn check_prefix(block: &RawBlock, sizes: &[usize]) {
        let len = block.len();
        assert!(sizes.contains(&len), "a batch is seen whole or not at all");
        for at in 0..len {
            assert_eq!((block.time(at), block.value(at)), (10 + at as i64, at as f64));
        }
    }

    #[test]
    fn loom_readers_see_only_whole_points_and_whole_batches() {
        crate::sync::model(|| {
            let block = block();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let block = loom::sync::Arc::clone(&block);
                    loom::thread::spawn(move || {
                        check_prefix(&block, &[0, 1, 3]);
                    })
                })
                .collect();
            block.append(0, 10, 0.0);
            block.extend(1, &[Point::new(11, 1.0), Point::new(12, 2.0)]);
            readers.into_iter().for_each(|reader| reader.join().expect("no reader fails"));
        });
    }

    #[test]
    fn loom_what_a_reader_saw_stays() {
        crate::sync::model(|| {
            let block = block();
            let reader = {
                let block = loom::sync::Arc::clone(&block);
                loom::thread::spawn(move || {
                    let first = block.len();
                    let second = block.len();
                    assert!(first <= second, "lengths only grow");
                    check_prefix(&block, &[0, 1, 2]);
                })
            };
            block.append(0, 10, 0.0);
            block.append(1, 11, 1.0);
            reader.join().expect("the reader does not fail");
        });
    }
}

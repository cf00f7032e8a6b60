//! Late points: what does not come after the newest point of its series.
//!
//! ```text
//!   active (sorted, small) ──full──▶ runs (sealed, immutable, oldest first) ──merge──▶ blocks
//! ```
//!
//! Newest wins: the active side over later runs over earlier runs over blocks. Every reader looks at all
//! of them, so a late point is visible from the moment its append returns, merged or not. A merge
//! rewrites only the blocks that the late points fall into, never more.

use std::sync::Arc;

use crate::block::{BLOCK_POINTS, RawBlock};
use crate::blocks::{BlockList, BlockRef};
use crate::budget::{Budget, Charge};
use crate::error::Error;
use crate::memory::UNIT_BYTES;
use crate::point::Point;
use crate::pool::Pool;

/// Late points of a series before they are sealed for merging. Larger: fewer rewrites of the same
/// block, slower insertion. 512 points cost about as much to insert into as to merge.
pub(crate) const LATE_POINTS: usize = 512;
/// What the late side of a series is charged while it holds anything.
pub(crate) const LATE_BYTES: u64 = (LATE_POINTS * size_of::<Point>()) as u64;
/// Fewer points than this do not get a block of their own: they join a neighbour.
const SMALLEST_NEW_BLOCK: usize = BLOCK_POINTS / 2;

/// A sealed run of late points, sorted, each time once.
pub(crate) struct LateRun {
    pub(crate) points: Vec<Point>,
    _charge: Option<Charge>,
}

/// The late side of one series.
#[derive(Default)]
pub(crate) struct Late {
    active: Vec<Point>,
    charge: Option<Charge>,
    runs: Vec<Arc<LateRun>>,
}

impl Late {
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.runs.is_empty()
    }

    pub(crate) fn run_count(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.active.len() >= LATE_POINTS
    }

    /// Whether the first late point since the last seal needs a charge.
    pub(crate) fn needs_charge(&self) -> bool {
        self.charge.is_none()
    }

    pub(crate) fn set_charge(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Keeps `point`, replacing an older late value of the same time.
    pub(crate) fn insert(&mut self, point: Point) {
        match self.active.last() {
            Some(last) if last.time >= point.time => self.insert_inside(point),
            _ => self.active.push(point),
        }
    }

    fn insert_inside(&mut self, point: Point) {
        let at = self.active.partition_point(|late| late.time < point.time);
        if self.active[at].time == point.time {
            self.active[at].value = point.value;
        } else {
            self.active.insert(at, point);
        }
    }

    /// Seals the active points into a run.
    pub(crate) fn seal(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let points = std::mem::replace(&mut self.active, Vec::with_capacity(LATE_POINTS));
        self.runs.push(Arc::new(LateRun { points, _charge: self.charge.take() }));
    }

    pub(crate) fn runs(&self) -> Vec<Arc<LateRun>> {
        self.runs.clone()
    }

    /// Takes out the `count` oldest runs, which were merged, except for `rest`.
    pub(crate) fn merged(&mut self, count: usize, rest: Vec<Point>) {
        let charge = (!rest.is_empty()).then(|| {
            // The remainder keeps no charge: it is smaller than what was just given back.
            Arc::new(LateRun { points: rest, _charge: None })
        });
        self.runs.splice(..count, charge);
    }

    /// Late points that are not in blocks yet.
    pub(crate) fn len(&self) -> usize {
        self.active.len() + self.runs.iter().map(|run| run.points.len()).sum::<usize>()
    }

    /// Drops late points older than `keep_from`.
    pub(crate) fn forget_before(&mut self, keep_from: i64) -> usize {
        let before = self.len();
        self.active.retain(|point| point.time >= keep_from);
        for run in &mut self.runs {
            if run.points.first().is_some_and(|first| first.time < keep_from) {
                let points = run.points.iter().filter(|p| p.time >= keep_from).copied().collect();
                *run = Arc::new(LateRun { points, _charge: None });
            }
        }
        self.runs.retain(|run| !run.points.is_empty());
        before - self.len()
    }

    #[inline]
    pub(crate) fn get(&self, time: i64) -> Option<f64> {
        let find = |points: &[Point]| {
            let at = points.binary_search_by_key(&time, |point| point.time).ok()?;
            Some(points[at].value)
        };
        find(&self.active).or_else(|| self.runs.iter().rev().find_map(|run| find(&run.points)))
    }

    /// All late points of `low..=high`, sorted, newest value of each time.
    pub(crate) fn between(&self, low: i64, high: i64) -> Vec<Point> {
        let within = |points: &[Point]| -> Vec<Point> {
            let from = points.partition_point(|point| point.time < low);
            let to = points.partition_point(|point| point.time <= high);
            points[from..to.max(from)].to_vec()
        };
        let mut all: Vec<Point> = Vec::new();
        for run in self.runs.iter().map(|run| run.points.as_slice()).chain([self.active.as_slice()])
        {
            all = overlay(&all, &within(run));
        }
        all
    }
}

/// Both sorted sequences in one; where both have a time, `newer` wins.
pub(crate) fn overlay(older: &[Point], newer: &[Point]) -> Vec<Point> {
    if older.is_empty() {
        return newer.to_vec();
    }
    let mut out = Vec::with_capacity(older.len() + newer.len());
    let mut old = 0;
    for point in newer {
        while old < older.len() && older[old].time < point.time {
            out.push(older[old]);
            old += 1;
        }
        old += usize::from(old < older.len() && older[old].time == point.time);
        out.push(*point);
    }
    out.extend_from_slice(&older[old..]);
    out
}

/// Sorts by time; of several points of one time only the last given stays.
pub(crate) fn sort_newest_wins(points: &mut Vec<Point>) {
    points.sort_by_key(|point| point.time);
    points.reverse();
    points.dedup_by_key(|point| point.time);
    points.reverse();
}

/// What a merge will do: the blocks it replaces, each with the late points that fall there.
pub(crate) struct Plan {
    pub(crate) rewrites: Vec<Rewrite>,
    /// Late points that fall into the open block: they stay late until it closes.
    pub(crate) rest: Vec<Point>,
}

/// One block and the late points to be merged with it.
pub(crate) struct Rewrite {
    /// Nothing closed to join: the points become blocks in front of all others.
    pub(crate) target: Option<(usize, BlockRef)>,
    late: Vec<Point>,
}

/// Where a rewritten block was, if anywhere, and the blocks that stand there now, with first times.
pub(crate) type Rewritten = (Option<usize>, Vec<(i64, BlockRef)>);

/// Assigns late points to the closed blocks of `list`: the first `closed` ones.
pub(crate) fn plan(list: &BlockList, closed: usize, late: &[Point]) -> Plan {
    let open_from = list.first_time(closed).unwrap_or(i64::MAX);
    let cut = late.partition_point(|point| point.time < open_from);
    let (mut now, rest) = late.split_at(cut);
    let mut rewrites = Vec::new();
    while let Some(first) = now.first() {
        if closed == 0 {
            rewrites.push(Rewrite { target: None, late: now.to_vec() });
            break;
        }
        let at = list.covering(first.time).unwrap_or(0);
        let until = list.first_time(at + 1).unwrap_or(i64::MAX).min(open_from);
        let count = now.partition_point(|point| point.time < until);
        let target = Some((at, list.block(at).clone()));
        rewrites.push(Rewrite { target, late: now[..count].to_vec() });
        now = &now[count..];
    }
    Plan { rewrites, rest: rest.to_vec() }
}

/// The blocks that replace the block of one rewrite.
pub(crate) fn rewrite(
    step: &Rewrite,
    pool: &Arc<Pool>,
    budget: &Arc<Budget>,
) -> Result<Vec<(i64, BlockRef)>, Error> {
    let Some((_, block)) = &step.target else {
        return build(&step.late, pool, budget);
    };
    let old_first = block.first_time();
    let before = step.late.partition_point(|point| point.time < old_first);
    let after = step.late.partition_point(|point| point.time <= block.last_time());
    // Large groups before and after the block get blocks of their own: the old one is kept as it is.
    let (own_before, own_after) = (own_block(before), own_block(step.late.len() - after));
    let (low, high) =
        (if own_before { before } else { 0 }, if own_after { after } else { step.late.len() });
    let mut out = build(&step.late[..low], pool, budget)?;
    if low < high {
        let mut old = Vec::with_capacity(BLOCK_POINTS);
        block.points(&mut old);
        out.append(&mut build(&overlay(&old, &step.late[low..high]), pool, budget)?);
    } else {
        out.push((old_first, block.clone()));
    }
    out.append(&mut build(&step.late[high..], pool, budget)?);
    Ok(out)
}

fn own_block(points: usize) -> bool {
    points >= SMALLEST_NEW_BLOCK
}

/// Sorted points as raw blocks of even size. Charged even above the budget: what they replace is freed.
pub(crate) fn build(
    points: &[Point],
    pool: &Arc<Pool>,
    budget: &Arc<Budget>,
) -> Result<Vec<(i64, BlockRef)>, Error> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let blocks = points.len().div_ceil(BLOCK_POINTS);
    let each = points.len().div_ceil(blocks);
    points
        .chunks(each)
        .map(|chunk| {
            let block = RawBlock::new(pool.take()?, budget.take_anyway(UNIT_BYTES as u64));
            block.extend(0, chunk);
            Ok((chunk[0].time, BlockRef::Raw(Arc::new(block))))
        })
        .collect()
}

impl BlockList {
    /// Puts the outcome of a merge in place. Blocks that writers linked meanwhile stay at the end.
    /// Only the chunks from the first changed block on are built anew: late points are mostly recent.
    pub(crate) fn splice(&mut self, outcome: Vec<Rewritten>) {
        let changed_from = outcome.first().map_or(self.len(), |(at, _)| at.unwrap_or(0));
        let mut merged = self.whole_chunks_until(changed_from);
        let kept = merged.len();
        let mut outcome = outcome.into_iter().peekable();
        if let Some((_, new)) = outcome.next_if(|(at, _)| at.is_none()) {
            new.into_iter().for_each(|(first, block)| merged.push(first, block));
        }
        for (at, (first, block)) in self.iter().enumerate().skip(kept) {
            match outcome.next_if(|(next, _)| *next == Some(at)) {
                Some((_, new)) => {
                    new.into_iter().for_each(|(first, block)| merged.push(first, block))
                }
                None => merged.push(first, block.clone()),
            }
        }
        *self = merged;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn points(times: &[i64], value: f64) -> Vec<Point> {
        times.iter().map(|t| Point::new(*t, value)).collect()
    }

    #[test]
    fn overlay_keeps_order_and_the_newer_value() {
        let merged = overlay(&points(&[1, 3, 5], 0.0), &points(&[0, 3, 6], 1.0));
        let expected = [(0, 1.0), (1, 0.0), (3, 1.0), (5, 0.0), (6, 1.0)];
        assert_eq!(merged, expected.map(|(t, v)| Point::new(t, v)));
    }

    #[test]
    fn sorting_keeps_the_last_of_equal_times() {
        let mut unsorted = vec![Point::new(2, 1.0), Point::new(1, 1.0), Point::new(2, 2.0)];
        sort_newest_wins(&mut unsorted);
        assert_eq!(unsorted, [Point::new(1, 1.0), Point::new(2, 2.0)]);
    }

    #[test]
    fn the_active_side_wins_over_runs_and_later_runs_over_earlier() {
        let mut late = Late::default();
        for value in [1.0, 2.0] {
            points(&[5, 1, 9], value).into_iter().for_each(|point| late.insert(point));
            late.seal();
        }
        late.insert(Point::new(5, 3.0));
        assert_eq!(late.get(5), Some(3.0));
        assert_eq!(late.get(1), Some(2.0));
        assert_eq!(late.get(4), None);
        let expected = [(1, 2.0), (5, 3.0), (9, 2.0)];
        assert_eq!(late.between(0, 10), expected.map(|(t, v)| Point::new(t, v)));
    }
}

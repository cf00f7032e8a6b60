//! Late points: what does not come after the newest point of its series.
//!
//! ```text
//!   active (as they came, 512) ──sealed, sorted──▶ runs (immutable, oldest first) ──merge──▶ blocks
//!   └───────── the writer collects and sorts the next run ─────────┘ └─ while the pool merges ─┘
//! ```
//!
//! Newest wins: the end of the active side over its front over later runs over earlier runs over blocks.
//! Every reader looks at all of them, so a late point is visible from the moment its append returns, merged
//! or not. A merge rewrites only the blocks that the late points fall into, never more. Sorting and
//! merging overlap: sealed runs are handed to the pool of workers, and their writer goes on.

use std::ops::Range;
use std::sync::Arc;

use crate::block::{BLOCK_POINTS, RawBlock};
use crate::blocks::{BlockList, BlockRef};
use crate::budget::{Budget, Charge};
use crate::error::Error;
use crate::memory::UNIT_BYTES;
use crate::point::Point;
use crate::pool::Pool;

/// Late points of a series before they are sealed for merging. Larger: fewer rewrites of the same block,
/// slower reads, which look at each of these: 512 take about a tenth of a microsecond.
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

/// What became of a late point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// Nothing: it must bring a charge for the memory of the side.
    NeedsCharge,
    /// It is in.
    Kept,
    /// It is in, and filled the side, which is sealed now.
    Sealed,
}

/// The late side of one series.
#[derive(Default)]
pub(crate) struct Late {
    /// In the order in which they came.
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

    /// Keeps `point` and seals the side when it is full. The first point since the last seal brings
    /// memory with it, or is not kept.
    pub(crate) fn append(&mut self, point: Point, charge: Option<Charge>) -> Appended {
        self.charge = charge.or(self.charge.take());
        if self.charge.is_none() {
            return Appended::NeedsCharge;
        }
        self.active.push(point);
        if self.active.len() < LATE_POINTS {
            return Appended::Kept;
        }
        self.seal();
        Appended::Sealed
    }

    /// Seals the active points into a run.
    pub(crate) fn seal(&mut self) {
        if self.active.is_empty() {
            return;
        }
        let mut points = std::mem::replace(&mut self.active, Vec::with_capacity(LATE_POINTS));
        sort_newest_wins(&mut points);
        self.runs.push(Arc::new(LateRun { points, _charge: self.charge.take() }));
    }

    /// Sealed points from `time` on.
    pub(crate) fn sealed_since(&self, time: i64) -> usize {
        let since = |run: &Arc<LateRun>| {
            run.points.len() - run.points.partition_point(|point| point.time < time)
        };
        self.runs.iter().map(since).sum()
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

    /// The earliest time of a late point.
    pub(crate) fn oldest(&self) -> Option<i64> {
        let sealed = self.runs.iter().filter_map(|run| run.points.first());
        sealed.chain(&self.active).map(|point| point.time).min()
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
        let find = |run: &Arc<LateRun>| {
            let at = run.points.binary_search_by_key(&time, |point| point.time).ok()?;
            Some(run.points[at].value)
        };
        newest_of(&self.active, time).or_else(|| self.runs.iter().rev().find_map(find))
    }

    /// All late points of `low..=high`, sorted, newest value of each time.
    pub(crate) fn between(&self, low: i64, high: i64) -> Vec<Point> {
        let mut all: Vec<Point> = Vec::new();
        for run in &self.runs {
            let from = run.points.partition_point(|point| point.time < low);
            let to = run.points.partition_point(|point| point.time <= high);
            all = overlay(&all, &run.points[from..to.max(from)]);
        }
        let within = self.active.iter().filter(|point| (low..=high).contains(&point.time));
        let mut active: Vec<Point> = within.copied().collect();
        sort_newest_wins(&mut active);
        overlay(&all, &active)
    }
}

/// The last value of `time` among points in any order.
fn newest_of(points: &[Point], time: i64) -> Option<f64> {
    // A lane at a time without a branch inside: several times as fast as point by point.
    const LANE: usize = 16;
    let holds = |lane: &&[Point]| lane.iter().fold(false, |any, point| any | (point.time == time));
    let lane = points.rchunks(LANE).find(holds)?;
    lane.iter().rev().find(|point| point.time == time).map(|point| point.value)
}

/// Both sorted sequences in one; where both have a time, `newer` wins.
pub(crate) fn overlay(older: &[Point], newer: &[Point]) -> Vec<Point> {
    let mut out = Vec::with_capacity(older.len() + newer.len());
    overlay_into(older, newer, &mut out);
    out
}

/// As `overlay`, appending to `out`.
fn overlay_into(older: &[Point], newer: &[Point], out: &mut Vec<Point>) {
    let mut rest = older;
    for point in newer {
        let before = count_before(rest, point.time);
        out.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        rest = &rest[usize::from(rest.first().is_some_and(|old| old.time == point.time))..];
        out.push(*point);
    }
    out.extend_from_slice(rest);
}

/// How many of the sorted `points` lie before `time`: mostly few, so steps double from the front.
fn count_before(points: &[Point], time: i64) -> usize {
    let mut step = 1;
    while step <= points.len() && points[step - 1].time < time {
        step *= 2;
    }
    let from = step / 2;
    from + points[from..points.len().min(step)].partition_point(|point| point.time < time)
}

/// Sorts by time; of several points of one time only the last given stays.
pub(crate) fn sort_newest_wins(points: &mut Vec<Point>) {
    points.sort_by_key(|point| point.time);
    points.dedup_by(|later, kept| {
        let same = later.time == kept.time;
        if same {
            *kept = *later;
        }
        same
    });
}

/// What a merge will do: the blocks it replaces, each with the late points that fall there.
pub(crate) struct Plan {
    pub(crate) rewrites: Vec<Rewrite>,
    /// Late points that fall into the open block: they stay late until it closes.
    pub(crate) rest: Vec<Point>,
}

/// Blocks beside each other, and the late points to be merged with each. They are rewritten together, so
/// that what does not fit into one any more fills the next: blocks stay full, memory does not grow.
pub(crate) struct Rewrite {
    /// Which blocks of the list; an empty range at its front if there is nothing closed to join.
    pub(crate) replaced: Range<usize>,
    steps: Vec<Step>,
}

struct Step {
    block: Option<BlockRef>,
    late: Vec<Point>,
}

/// Which blocks were rewritten, and the blocks that stand there now, with first times.
pub(crate) type Rewritten = (Range<usize>, Vec<(i64, BlockRef)>);

/// Assigns late points to the closed blocks of `list`: the first `closed` ones.
pub(crate) fn plan(list: &BlockList, closed: usize, late: &[Point]) -> Plan {
    let open_from = list.first_time(closed).unwrap_or(i64::MAX);
    let cut = late.partition_point(|point| point.time < open_from);
    let (mut now, rest) = late.split_at(cut);
    let mut rewrites: Vec<Rewrite> = Vec::new();
    if closed == 0 && !now.is_empty() {
        let step = Step { block: None, late: std::mem::take(&mut now).to_vec() };
        rewrites.push(Rewrite { replaced: 0..0, steps: vec![step] });
    }
    while let Some(first) = now.first() {
        let at = list.covering(first.time).unwrap_or(0);
        let until = list.first_time(at + 1).unwrap_or(i64::MAX).min(open_from);
        let (here, later) = now.split_at(now.partition_point(|point| point.time < until));
        let step = Step { block: Some(list.block(at).clone()), late: here.to_vec() };
        match rewrites.last_mut().filter(|last| last.replaced.end == at) {
            Some(last) => {
                last.replaced.end += 1;
                last.steps.push(step);
            }
            None => rewrites.push(Rewrite { replaced: at..at + 1, steps: vec![step] }),
        }
        now = later;
    }
    Plan { rewrites, rest: rest.to_vec() }
}

/// The blocks that replace those of one rewrite.
pub(crate) fn rewrite(
    rewrite: &Rewrite,
    pool: &Arc<Pool>,
    budget: &Arc<Budget>,
) -> Result<Vec<(i64, BlockRef)>, Error> {
    let mut builder = Builder::new(pool, budget);
    let mut old = Vec::with_capacity(BLOCK_POINTS);
    let last = rewrite.steps.len() - 1;
    for (n, Step { block, late }) in rewrite.steps.iter().enumerate() {
        let Some(block) = block else {
            builder.points.extend_from_slice(late);
            continue;
        };
        // Large groups in front of and behind what is rewritten get blocks of their own: the old one is
        // then kept as it is.
        let before = late.partition_point(|point| point.time < block.first_time());
        let after = late.partition_point(|point| point.time <= block.last_time());
        let from = if n == 0 && own_block(before) { before } else { 0 };
        let to = if n == last && own_block(late.len() - after) { after } else { late.len() };
        builder.own(&late[..from])?;
        if from < to {
            old.clear();
            block.points(&mut old);
            overlay_into(&old, &late[from..to], &mut builder.points);
            builder.build_full()?;
        } else {
            builder.finish()?;
            builder.built.push((block.first_time(), block.clone()));
        }
        if to < late.len() {
            builder.finish()?;
            builder.own(&late[to..])?;
        }
    }
    builder.finish()?;
    Ok(builder.built)
}

fn own_block(points: usize) -> bool {
    points >= SMALLEST_NEW_BLOCK
}

/// Makes raw blocks of sorted points. Charged even above the budget: what they replace is freed.
struct Builder<'a> {
    pool: &'a Arc<Pool>,
    budget: &'a Arc<Budget>,
    /// Not in a block yet.
    points: Vec<Point>,
    built: Vec<(i64, BlockRef)>,
}

impl<'a> Builder<'a> {
    fn new(pool: &'a Arc<Pool>, budget: &'a Arc<Budget>) -> Builder<'a> {
        let points = Vec::with_capacity(4 * BLOCK_POINTS);
        Builder { pool, budget, points, built: Vec::new() }
    }

    /// Makes full blocks, as long as what is left is enough for one more.
    fn build_full(&mut self) -> Result<(), Error> {
        let mut from = 0;
        while self.points.len() - from >= 2 * BLOCK_POINTS {
            self.build(from, from + BLOCK_POINTS)?;
            from += BLOCK_POINTS;
        }
        self.points.drain(..from);
        Ok(())
    }

    /// Makes blocks of all that is left: of two, each gets half, so that both have room for late points.
    fn finish(&mut self) -> Result<(), Error> {
        self.build_full()?;
        let all = self.points.len();
        let half = if all > BLOCK_POINTS { all.div_ceil(2) } else { all };
        self.build(0, half)?;
        self.build(half, all)?;
        self.points.clear();
        Ok(())
    }

    /// Makes blocks of nothing but `points`.
    fn own(&mut self, points: &[Point]) -> Result<(), Error> {
        if !points.is_empty() {
            self.points.extend_from_slice(points);
            self.finish()?;
        }
        Ok(())
    }

    fn build(&mut self, from: usize, to: usize) -> Result<(), Error> {
        let points = &self.points[from..to];
        if let Some(first) = points.first() {
            let charge = self.budget.take_anyway(UNIT_BYTES as u64);
            let block = RawBlock::new(self.pool.take()?, charge);
            block.extend(0, points);
            self.built.push((first.time, BlockRef::Raw(Arc::new(block))));
        }
        Ok(())
    }
}

impl BlockList {
    /// This list with the outcome of a merge in place. Only the chunks from the first changed block on are
    /// built anew: late points are mostly recent.
    pub(crate) fn splice(&self, outcome: Vec<Rewritten>) -> BlockList {
        let changed_from = outcome.first().map_or(self.len(), |(replaced, _)| replaced.start);
        let mut merged = self.whole_chunks_until(changed_from);
        let mut at = merged.len();
        for (replaced, new) in outcome {
            self.between(at..replaced.start).for_each(|(first, block)| merged.push(first, block));
            new.into_iter().for_each(|(first, block)| merged.push(first, block));
            at = replaced.end;
        }
        self.between(at..self.len()).for_each(|(first, block)| merged.push(first, block));
        merged
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
    fn overlay_equals_a_map_whatever_lies_between() {
        let older = points(&(0..40).map(|n| n * 3).collect::<Vec<_>>(), 0.0);
        for step in [1, 2, 3, 7, 50, 200] {
            for start in [-20, 0, 1, 60, 130] {
                let newer: Vec<i64> = (0..9).map(|n| start + n * step).collect();
                let newer = points(&newer, 1.0);
                let mut map = std::collections::BTreeMap::new();
                map.extend(older.iter().chain(&newer).map(|point| (point.time, point.value)));
                let expected: Vec<Point> = map.iter().map(|(t, v)| Point::new(*t, *v)).collect();
                assert_eq!(overlay(&older, &newer), expected);
            }
        }
    }

    #[test]
    fn sorting_keeps_the_last_of_equal_times() {
        let mut unsorted = vec![Point::new(2, 1.0), Point::new(1, 1.0), Point::new(2, 2.0)];
        sort_newest_wins(&mut unsorted);
        assert_eq!(unsorted, [Point::new(1, 1.0), Point::new(2, 2.0)]);
    }

    fn list_of(blocks: &[&[i64]]) -> (BlockList, Arc<Pool>, Arc<Budget>) {
        let (pool, budget) = (Arc::new(Pool::new()), Budget::new(1 << 40));
        let mut list = BlockList::default();
        for times in blocks {
            let mut builder = Builder::new(&pool, &budget);
            builder.own(&points(times, 0.0)).expect("memory");
            builder.built.into_iter().for_each(|(first, block)| list.push(first, block));
        }
        (list, pool, budget)
    }

    fn merge(list: &mut BlockList, closed: usize, late: &[Point]) -> Vec<Point> {
        let (pool, budget) = (Arc::new(Pool::new()), Budget::new(1 << 40));
        let plan = plan(list, closed, late);
        let outcome = plan
            .rewrites
            .iter()
            .map(|step| (step.replaced.clone(), rewrite(step, &pool, &budget).expect("memory")));
        let outcome = outcome.collect();
        *list = list.splice(outcome);
        plan.rest
    }

    fn all(list: &BlockList) -> Vec<Point> {
        let mut out = Vec::new();
        list.iter().for_each(|(_, block)| block.points(&mut out));
        out
    }

    #[test]
    fn blocks_beside_each_other_are_rewritten_together_and_stay_full() {
        let blocks: Vec<Vec<i64>> = (0..150)
            .map(|n| {
                (0..BLOCK_POINTS as i64).map(|at| (n * BLOCK_POINTS as i64 + at) * 4).collect()
            })
            .collect();
        let blocks: Vec<&[i64]> = blocks.iter().map(Vec::as_slice).collect();
        let (mut list, ..) = list_of(&blocks);
        let before = all(&list);
        let raw = |list: &BlockList, at: usize| match list.block(at) {
            BlockRef::Raw(block) => Arc::clone(block),
            _ => panic!("blocks are built raw"),
        };
        let others: Vec<Arc<RawBlock>> = (0..70).chain(100..150).map(|at| raw(&list, at)).collect();
        // One late point in each of the blocks 70 to 99, and one in the last, which is open.
        let block_time = BLOCK_POINTS as i64 * 4;
        let times: Vec<i64> = (70..100).chain([149]).map(|n| n * block_time + 5).collect();
        let late = points(&times, 1.0);
        let rest = merge(&mut list, 149, &late);
        assert_eq!(rest, points(&times[30..], 1.0));
        assert_eq!(all(&list), overlay(&before, &late[..30]));
        assert_eq!(list.len(), 151, "30 blocks and 30 points are 31 blocks, not 60");
        let kept: Vec<Arc<RawBlock>> = (0..70).chain(101..151).map(|at| raw(&list, at)).collect();
        let same = kept.iter().zip(&others).all(|(kept, old)| Arc::ptr_eq(kept, old));
        assert!(same, "a block that no late point falls into is not touched");
        for (first, block) in list.iter() {
            assert_eq!(block.first_time(), first);
            assert_eq!(list.get(first, usize::MAX), Some(0.0));
        }
    }

    #[test]
    fn large_groups_around_a_block_get_blocks_of_their_own_and_leave_it_alone() {
        let (mut list, ..) = list_of(&[&[10_000, 10_001], &[20_000, 20_001]]);
        let kept = match list.block(0) {
            BlockRef::Raw(block) => Arc::clone(block),
            _ => panic!("blocks are built raw"),
        };
        let times: Vec<i64> = (0..600).chain(15_000..15_300).collect();
        let late = points(&times, 1.0);
        assert!(merge(&mut list, 2, &late).is_empty());
        assert_eq!(list.len(), 5);
        assert!(matches!(list.block(2), BlockRef::Raw(block) if Arc::ptr_eq(block, &kept)));
        assert_eq!(all(&list), overlay(&points(&[10_000, 10_001, 20_000, 20_001], 0.0), &late));
    }

    #[test]
    fn late_points_without_any_closed_block_come_in_front() {
        let (mut list, ..) = list_of(&[&[1000]]);
        let late = points(&(0..1300).collect::<Vec<_>>(), 1.0);
        assert_eq!(merge(&mut list, 0, &late), late[1000..]);
        assert_eq!(list.len(), 3);
        assert_eq!(all(&list), overlay(&late[..1000], &points(&[1000], 0.0)));
    }

    #[test]
    fn the_active_side_wins_over_runs_and_later_runs_over_earlier() {
        let mut late = Late::default();
        for value in [1.0, 2.0] {
            points(&[5, 1, 9], value).into_iter().for_each(|point| late.active.push(point));
            late.seal();
        }
        late.active.extend(points(&[5], 2.5));
        late.active.extend(points(&[5], 3.0));
        assert_eq!(late.get(5), Some(3.0));
        assert_eq!(late.get(1), Some(2.0));
        assert_eq!(late.get(4), None);
        let expected = [(1, 2.0), (5, 3.0), (9, 2.0)];
        assert_eq!(late.between(0, 10), expected.map(|(t, v)| Point::new(t, v)));
    }
}

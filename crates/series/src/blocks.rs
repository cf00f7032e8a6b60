//! The block list of a series: disjoint blocks in time order, each found by its first time.
//!
//! Blocks are linked, never copied, when points come in order. Only the last block of the list can still
//! grow; all others are closed and never change, so a clone of the list and the last block's length is
//! a snapshot.

use std::sync::Arc;

use crate::block::{Closed, RawBlock, guess, lower_bound};
use crate::group::GroupBlock;
use crate::packed::PackedBlock;
use crate::point::{MAX_TIME, Point};

/// One block, in whichever form it is kept.
#[derive(Clone)]
pub(crate) enum BlockRef {
    /// As appended point by point.
    Raw(Arc<RawBlock>),
    /// One column of a group's rows.
    Column(Arc<GroupBlock>, u32),
    /// Compressed.
    Packed(Arc<PackedBlock>),
}

impl BlockRef {
    pub(crate) fn len(&self) -> usize {
        match self {
            BlockRef::Raw(block) => block.len(),
            BlockRef::Column(block, _) => block.rows(),
            BlockRef::Packed(block) => block.len(),
        }
    }

    /// The time of the first point.
    pub(crate) fn first_time(&self) -> i64 {
        match self {
            BlockRef::Raw(block) => block.time(0),
            BlockRef::Column(block, _) => block.time(0),
            BlockRef::Packed(block) => block.first_time(),
        }
    }

    /// The time of the last point. Blocks in a list are never empty.
    pub(crate) fn last_time(&self) -> i64 {
        match self {
            BlockRef::Raw(block) => block.time(block.len() - 1),
            BlockRef::Column(block, _) => block.time(block.rows() - 1),
            BlockRef::Packed(block) => block.last_time(),
        }
    }

    /// Bytes of memory that points of this block take; a column's share of its group.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            BlockRef::Raw(_) => crate::memory::UNIT_BYTES as u64,
            BlockRef::Column(block, _) => block.column_bytes(),
            BlockRef::Packed(block) => block.size_bytes(),
        }
    }

    /// The value at `time`; `first..next` is the interval that this block covers.
    #[inline]
    pub(crate) fn get(
        &self,
        time: i64,
        limit: usize,
        first: i64,
        next: Option<i64>,
    ) -> Option<f64> {
        match self {
            BlockRef::Raw(block) => {
                let len = block.len().min(limit);
                let at = find(|at| block.time(at), len, time, first, next);
                (at < len && block.time(at) == time).then(|| block.value(at))
            }
            BlockRef::Column(block, column) => {
                let len = block.rows().min(limit);
                let at = find(|at| block.time(at), len, time, first, next);
                (at < len && block.time(at) == time).then(|| block.value(at, *column as usize))
            }
            BlockRef::Packed(block) => block.get(time),
        }
    }

    /// Appends the points with `low ≤ time ≤ high` to `out`.
    #[inline]
    pub(crate) fn copy(&self, low: i64, high: i64, span: &Span, out: &mut Vec<Point>) {
        match self {
            BlockRef::Raw(block) => {
                let (from, to) = span.bounds(low, high, block.len(), |at| block.time(at));
                block.copy(from, to, out);
            }
            BlockRef::Column(block, column) => {
                let (from, to) = span.bounds(low, high, block.rows(), |at| block.time(at));
                block.copy(*column as usize, from, to, out);
            }
            BlockRef::Packed(block) => block.copy(low, high, out),
        }
    }

    /// All points that readers may see now.
    pub(crate) fn points(&self, out: &mut Vec<Point>) {
        let whole = Span { limit: usize::MAX, first: i64::MIN, next: None };
        self.copy(-MAX_TIME, MAX_TIME, &whole, out);
    }
}

/// Which interval a block covers, and how many of its points count.
pub(crate) struct Span {
    limit: usize,
    first: i64,
    next: Option<i64>,
}

impl Span {
    #[inline]
    fn bounds(
        &self,
        low: i64,
        high: i64,
        len: usize,
        time_at: impl Fn(usize) -> i64,
    ) -> (usize, usize) {
        let len = len.min(self.limit);
        if len == 0 {
            return (0, 0);
        }
        let from = if low <= self.first || low <= time_at(0) {
            0
        } else {
            find(&time_at, len, low, self.first, self.next)
        };
        let whole = self.next.is_some_and(|next| high >= next - 1) || high >= MAX_TIME;
        let to = if whole { len } else { find(&time_at, len, high + 1, self.first, self.next) };
        (from, to.max(from))
    }
}

/// The first position whose time is not below `time`, by proportion first.
#[inline]
fn find(
    time_at: impl Fn(usize) -> i64,
    len: usize,
    time: i64,
    first: i64,
    next: Option<i64>,
) -> usize {
    if len == 0 || time <= first {
        return 0;
    }
    let next = match next {
        Some(next) => next,
        // The open block: as if the next point came one average step after the last.
        None => {
            let last = time_at(len - 1);
            if time > last {
                return len;
            }
            last + (last - first) / (len as i64 - 1).max(1)
        }
    };
    lower_bound(time_at, len, time, guess(time, first, next.max(first + 1), len))
}

/// Blocks of a chunk: copying one that a reader holds on to is cheap, and a root of these stays short.
const CHUNK_BLOCKS: usize = 64;

/// What a search needs to know of a block: two of these fill a cache line.
#[derive(Clone)]
struct Entry {
    first: i64,
    /// Where the points lie, if the block is raw and another one follows it, so that it is closed.
    closed: Option<Closed>,
}

/// Up to `CHUNK_BLOCKS` blocks. A search looks at this head and at one or two entries, at no block.
#[derive(Default)]
#[repr(align(64))]
struct Chunk {
    /// One for each block; behind the last block of a full chunk one more, for where the next begins.
    entries: Vec<Entry>,
    blocks: Vec<BlockRef>,
    /// Where the first block starts.
    first: i64,
    /// Blocks in a unit of time, on average: blocks of a steady series start at regular times.
    density: f64,
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let mut blocks = Vec::with_capacity(CHUNK_BLOCKS);
        blocks.extend_from_slice(&self.blocks);
        let mut entries = Vec::with_capacity(CHUNK_BLOCKS + 1);
        entries.extend_from_slice(&self.entries);
        Chunk { entries, blocks, ..*self }
    }
}

impl Chunk {
    /// Adds a block that starts at `first`: the one before it is closed now.
    fn push(&mut self, first: i64, block: BlockRef) {
        self.follow();
        self.entries.push(Entry { first, closed: None });
        self.blocks.push(block);
        if self.blocks.len() == 1 {
            self.first = first;
        } else {
            let distance = first.wrapping_sub(self.first) as f64;
            self.density = (self.blocks.len() - 1) as f64 / distance;
        }
    }

    /// Another block follows the last one.
    fn follow(&mut self) {
        if let (Some(entry), Some(BlockRef::Raw(block))) =
            (self.entries.last_mut(), self.blocks.last())
        {
            entry.closed = Some(block.closed());
        }
    }

    /// How many blocks start at or before `time`.
    #[inline]
    fn starting_until(&self, time: i64) -> usize {
        let count = self.blocks.len();
        let starts = &self.entries[..count];
        if count == 0 || time < self.first {
            return 0;
        }
        // A time that no point can have may wrap: a wrong guess only costs probes.
        let near = (time.wrapping_sub(self.first) as f64 * self.density) as usize;
        let near = near.min(count - 1);
        // Mostly the first probe is right.
        let after = starts.get(near + 1).is_none_or(|entry| time < entry.first);
        if starts[near].first <= time && after {
            return near + 1;
        }
        lower_bound(|at| starts[at].first, count, time.saturating_add(1), near)
    }

    /// Where the block behind `place` starts, if there is one.
    #[inline]
    fn next(&self, place: usize) -> Option<i64> {
        self.entries.get(place + 1).map(|entry| entry.first)
    }

    /// The points of the block at `place` and the interval that it covers, if it is raw and closed.
    #[inline]
    fn closed(&self, place: usize) -> Option<(&Closed, i64, i64)> {
        let entry = &self.entries[place];
        Some((entry.closed.as_ref()?, entry.first, self.next(place)?))
    }

    #[inline]
    fn span(&self, place: usize, open_limit: usize) -> Span {
        let next = self.next(place);
        let limit = if next.is_some() { usize::MAX } else { open_limit };
        Span { limit, first: self.entries[place].first, next }
    }

    /// Appends the points of the block at `place` with `low ≤ time ≤ high`.
    #[inline]
    fn copy(&self, place: usize, low: i64, high: i64, open_limit: usize, out: &mut Vec<Point>) {
        if let Some((closed, first, next)) = self.closed(place) {
            let (from, to) = closed.bounds(low, high, first, next);
            return closed.copy(from, to, out);
        }
        self.blocks[place].copy(low, high, &self.span(place, open_limit), out);
    }
}

/// Full chunks, and where each starts.
#[derive(Clone, Default)]
struct Root {
    starts: Vec<i64>,
    chunks: Vec<Arc<Chunk>>,
}

/// The blocks of one series. A clone shares everything; a change copies at most one chunk and the root.
#[derive(Clone, Default)]
pub(crate) struct BlockList {
    full: Arc<Root>,
    /// The last chunk, not full unless the next push is due.
    tail: Arc<Chunk>,
}

impl BlockList {
    pub(crate) fn push(&mut self, first: i64, block: BlockRef) {
        if self.tail.blocks.len() == CHUNK_BLOCKS {
            let mut full = std::mem::take(&mut self.tail);
            let chunk = Arc::make_mut(&mut full);
            chunk.follow();
            chunk.entries.push(Entry { first, closed: None });
            let root = Arc::make_mut(&mut self.full);
            root.starts.push(full.first);
            root.chunks.push(full);
        }
        let tail = Arc::make_mut(&mut self.tail);
        debug_assert!(
            tail.entries.last().is_none_or(|last| last.first < first),
            "blocks come in order"
        );
        tail.push(first, block);
    }

    pub(crate) fn len(&self) -> usize {
        self.full.chunks.len() * CHUNK_BLOCKS + self.tail.blocks.len()
    }

    fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.full.chunks.iter().chain([&self.tail])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &BlockRef)> {
        self.chunks().flat_map(|chunk| {
            chunk.entries.iter().zip(&chunk.blocks).map(|(entry, block)| (entry.first, block))
        })
    }

    #[inline]
    fn chunk(&self, at: usize) -> &Chunk {
        self.full.chunks.get(at / CHUNK_BLOCKS).unwrap_or(&self.tail)
    }

    #[inline]
    pub(crate) fn first_time(&self, at: usize) -> Option<i64> {
        (at < self.len()).then(|| self.chunk(at).entries[at % CHUNK_BLOCKS].first)
    }

    #[inline]
    pub(crate) fn block(&self, at: usize) -> &BlockRef {
        &self.chunk(at).blocks[at % CHUNK_BLOCKS]
    }

    pub(crate) fn last(&self) -> Option<&BlockRef> {
        self.tail.blocks.last()
    }

    /// The block that covers `time`, the last one that starts at or before it: its chunk and its place.
    #[inline]
    fn find(&self, time: i64) -> Option<(&Chunk, usize)> {
        let tail = &*self.tail;
        if time >= tail.first {
            return Some((tail, tail.starting_until(time).checked_sub(1)?));
        }
        let root = &*self.full;
        let chunk = root.starts.partition_point(|start| *start <= time).checked_sub(1)?;
        let chunk = &*root.chunks[chunk];
        Some((chunk, chunk.starting_until(time).checked_sub(1)?))
    }

    /// The block that covers `time`: the last one that starts at or before it.
    #[inline]
    pub(crate) fn covering(&self, time: i64) -> Option<usize> {
        self.starting_until(time).checked_sub(1)
    }

    /// How many blocks start at or before `time`.
    fn starting_until(&self, time: i64) -> usize {
        let full = self.full.chunks.len();
        if full == 0 || self.tail.first <= time {
            return full * CHUNK_BLOCKS + self.tail.starting_until(time);
        }
        match self.full.starts.partition_point(|start| *start <= time).checked_sub(1) {
            Some(chunk) => chunk * CHUNK_BLOCKS + self.full.chunks[chunk].starting_until(time),
            None => 0,
        }
    }

    /// The blocks that can hold points of `low..=high`.
    pub(crate) fn overlapping(&self, low: i64, high: i64) -> std::ops::Range<usize> {
        let from = self.covering(low).unwrap_or(0);
        let to = self.starting_until(high);
        from..to.max(from)
    }

    /// The blocks of `range`, and where each starts.
    pub(crate) fn between(
        &self,
        range: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (i64, BlockRef)> {
        range.map(|at| {
            let (chunk, place) = (self.chunk(at), at % CHUNK_BLOCKS);
            (chunk.entries[place].first, chunk.blocks[place].clone())
        })
    }

    /// Replaces the block at `at` in place, by one with the same points.
    pub(crate) fn replace(&mut self, at: usize, block: BlockRef) {
        let chunk = match at / CHUNK_BLOCKS < self.full.chunks.len() {
            true => &mut Arc::make_mut(&mut self.full).chunks[at / CHUNK_BLOCKS],
            false => &mut self.tail,
        };
        let (chunk, place) = (Arc::make_mut(chunk), at % CHUNK_BLOCKS);
        chunk.entries[place].closed = None;
        chunk.blocks[place] = block;
    }

    pub(crate) fn remove_front(&mut self, count: usize) -> Vec<BlockRef> {
        let removed = self.between(0..count.min(self.len())).map(|(_, block)| block).collect();
        if count > 0 {
            let mut rest = BlockList::default();
            self.between(count..self.len()).for_each(|(first, block)| rest.push(first, block));
            *self = rest;
        }
        removed
    }

    /// The first blocks of this list, in whole chunks: as many as fit into `count`. Shared, not copied.
    pub(crate) fn whole_chunks_until(&self, count: usize) -> BlockList {
        let chunks = (count / CHUNK_BLOCKS).min(self.full.chunks.len());
        let Some(last) = chunks.checked_sub(1) else { return BlockList::default() };
        // The last of them becomes the tail, whose end nothing follows yet.
        let mut tail = Arc::clone(&self.full.chunks[last]);
        let reopened = Arc::make_mut(&mut tail);
        reopened.entries.truncate(CHUNK_BLOCKS);
        reopened.entries[CHUNK_BLOCKS - 1].closed = None;
        let root = Root {
            starts: self.full.starts[..last].to_vec(),
            chunks: self.full.chunks[..last].to_vec(),
        };
        BlockList { full: Arc::new(root), tail }
    }

    /// The value at `time`, counting `open_limit` points of the last block.
    #[inline]
    pub(crate) fn get(&self, time: i64, open_limit: usize) -> Option<f64> {
        let (chunk, place) = self.find(time)?;
        match chunk.closed(place) {
            Some((closed, first, next)) => closed.get(time, first, next),
            None => Self::get_elsewhere(chunk, place, time, open_limit),
        }
    }

    /// From a column, a packed block, or the open one.
    #[inline(never)]
    fn get_elsewhere(chunk: &Chunk, place: usize, time: i64, open_limit: usize) -> Option<f64> {
        let span = chunk.span(place, open_limit);
        chunk.blocks[place].get(time, span.limit, span.first, span.next)
    }

    /// Where `time` would be in a closed raw block, if every step is alike: the block, and the position.
    /// `None` for other kinds of blocks.
    #[inline]
    pub(crate) fn guess_closed(&self, time: i64) -> Option<(&Closed, usize)> {
        let (chunk, place) = self.find(time)?;
        let (closed, first, next) = chunk.closed(place)?;
        Some((closed, closed.near(time, first, next)))
    }

    /// The points with `low ≤ time ≤ high`, if all of them lie in one closed raw block: the block, where
    /// they probably begin, and about how many there are.
    #[inline]
    pub(crate) fn guess_range(&self, low: i64, high: i64) -> Option<(&Closed, usize, usize)> {
        let (chunk, place) = self.find(low)?;
        let (closed, first, next) = chunk.closed(place)?;
        (high < next)
            .then(|| (closed, closed.near(low, first, next), closed.near(high, first, next)))
    }

    /// Appends the points of block `at` with `low ≤ time ≤ high`.
    #[inline]
    pub(crate) fn copy_block(
        &self,
        at: usize,
        low: i64,
        high: i64,
        open_limit: usize,
        out: &mut Vec<Point>,
    ) {
        self.chunk(at).copy(at % CHUNK_BLOCKS, low, high, open_limit, out);
    }

    /// Appends all points with `low ≤ time ≤ high`.
    #[inline]
    pub(crate) fn copy(&self, low: i64, high: i64, open_limit: usize, out: &mut Vec<Point>) {
        // Mostly they lie in one block.
        if let Some((chunk, place)) = self.find(low)
            && let Some((closed, first, next)) = chunk.closed(place)
            && high < next
        {
            let (near, far) = (closed.near(low, first, next), closed.near(high, first, next));
            closed.touch(near, far.max(near));
            let (from, to) = closed.bounds(low, high, first, next);
            return closed.copy(from, to, out);
        }
        for at in self.overlapping(low, high) {
            self.copy_block(at, low, high, open_limit, out);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::pool::Pool;

    fn list(blocks: i64, step: impl Fn(i64) -> i64) -> BlockList {
        let (pool, budget) = (Arc::new(Pool::new()), Budget::new(1 << 40));
        let mut list = BlockList::default();
        let mut time = 0;
        for n in 0..blocks {
            let charge = budget.take_anyway(1);
            let block = RawBlock::new(pool.take().expect("memory"), charge);
            block.extend(0, &[Point::new(time, n as f64), Point::new(time + 1, -1.0)]);
            list.push(time, BlockRef::Raw(Arc::new(block)));
            time += 2 + step(n);
        }
        list
    }

    #[test]
    fn every_block_is_found_whatever_their_distances_and_however_many_chunks() {
        for step in [|_| 5_i64, |n: i64| n * n, |n: i64| if n % 64 == 63 { 1 << 40 } else { 0 }] {
            for blocks in [1, 2, 63, 64, 65, 128, 129, 300] {
                let list = list(blocks, step);
                let firsts: Vec<i64> = list.iter().map(|(first, _)| first).collect();
                assert_eq!(firsts.len(), blocks as usize);
                for (n, first) in firsts.iter().enumerate() {
                    for time in [first - 1, *first, first + 1, first + 2] {
                        let naive = firsts.partition_point(|start| *start <= time);
                        assert_eq!(list.starting_until(time), naive);
                    }
                    assert_eq!(list.get(*first, usize::MAX), Some(n as f64));
                    let mut out = Vec::new();
                    list.copy(*first, *first, usize::MAX, &mut out);
                    assert_eq!(out, [Point::new(*first, n as f64)]);
                }
                assert_eq!(list.get(-1, usize::MAX), None);
                assert_eq!(list.get(i64::MAX, usize::MAX), None);
            }
        }
    }

    #[test]
    fn whole_chunks_are_the_front_of_the_list_and_can_be_pushed_to() {
        let list = list(200, |_| 5);
        for count in [0, 1, 63, 64, 65, 127, 128, 199, 200] {
            let mut front = list.whole_chunks_until(count);
            assert_eq!(front.len(), count / CHUNK_BLOCKS * CHUNK_BLOCKS);
            for (first, block) in list.iter().skip(front.len()) {
                front.push(first, block.clone());
            }
            assert!(front.iter().map(|(first, _)| first).eq(list.iter().map(|(first, _)| first)));
            for (n, (first, _)) in list.iter().enumerate() {
                assert_eq!(front.get(first, usize::MAX), Some(n as f64));
            }
        }
    }
}

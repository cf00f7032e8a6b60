//! The block list of a series: disjoint blocks in time order, each found by its first time.
//!
//! Blocks are linked, never copied, when points come in order. Only the last block of the list can still
//! grow; all others are closed and never change, so a clone of the list and the last block's length is
//! a snapshot.

use std::sync::Arc;

use crate::block::{BLOCK_POINTS, RawBlock, guess, lower_bound};
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

/// Up to `CHUNK_BLOCKS` blocks. Their first times lie here, so that a search touches no block.
struct Chunk {
    firsts: [i64; CHUNK_BLOCKS],
    blocks: Vec<BlockRef>,
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk { firsts: [i64::MAX; CHUNK_BLOCKS], blocks: Vec::new() }
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let mut blocks = Vec::with_capacity(CHUNK_BLOCKS);
        blocks.extend_from_slice(&self.blocks);
        Chunk { firsts: self.firsts, blocks }
    }
}

impl Chunk {
    fn firsts(&self) -> &[i64] {
        &self.firsts[..self.blocks.len()]
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
            let root = Arc::make_mut(&mut self.full);
            root.starts.push(self.tail.firsts[0]);
            root.chunks.push(std::mem::take(&mut self.tail));
        }
        let tail = Arc::make_mut(&mut self.tail);
        debug_assert!(
            tail.firsts().last().is_none_or(|last| *last < first),
            "blocks come in order"
        );
        tail.firsts[tail.blocks.len()] = first;
        tail.blocks.push(block);
    }

    pub(crate) fn len(&self) -> usize {
        self.full.chunks.len() * CHUNK_BLOCKS + self.tail.blocks.len()
    }

    fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.full.chunks.iter().chain([&self.tail])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &BlockRef)> {
        self.chunks().flat_map(|chunk| chunk.firsts().iter().copied().zip(&chunk.blocks))
    }

    #[inline]
    fn chunk(&self, at: usize) -> &Chunk {
        self.full.chunks.get(at / CHUNK_BLOCKS).unwrap_or(&self.tail)
    }

    #[inline]
    pub(crate) fn first_time(&self, at: usize) -> Option<i64> {
        (at < self.len()).then(|| self.chunk(at).firsts[at % CHUNK_BLOCKS])
    }

    #[inline]
    pub(crate) fn block(&self, at: usize) -> &BlockRef {
        &self.chunk(at).blocks[at % CHUNK_BLOCKS]
    }

    pub(crate) fn last(&self) -> Option<&BlockRef> {
        self.tail.blocks.last()
    }

    /// The block that covers `time`: the last one that starts at or before it.
    #[inline]
    pub(crate) fn covering(&self, time: i64) -> Option<usize> {
        self.starting_until(time).checked_sub(1)
    }

    /// How many blocks start at or before `time`.
    #[inline]
    fn starting_until(&self, time: i64) -> usize {
        // Blocks of a steady series start at regular times too: mostly the first probe is right.
        let within = |chunk: &Chunk| match chunk.firsts() {
            [] => 0,
            [first] => usize::from(*first <= time),
            firsts @ [first, .., last] => {
                let near = guess(time, *first, *last, firsts.len() - 1);
                lower_bound(|at| firsts[at], firsts.len(), time.saturating_add(1), near)
            }
        };
        let full = self.full.chunks.len();
        if full == 0 || self.tail.firsts[0] <= time {
            return full * CHUNK_BLOCKS + within(&self.tail);
        }
        match self.full.starts.partition_point(|start| *start <= time).checked_sub(1) {
            Some(chunk) => chunk * CHUNK_BLOCKS + within(&self.full.chunks[chunk]),
            None => 0,
        }
    }

    /// The blocks that can hold points of `low..=high`.
    pub(crate) fn overlapping(&self, low: i64, high: i64) -> std::ops::Range<usize> {
        let from = self.covering(low).unwrap_or(0);
        let to = self.starting_until(high);
        from..to.max(from)
    }

    /// Replaces the block at `at` in place, by one with the same points.
    pub(crate) fn replace(&mut self, at: usize, block: BlockRef) {
        let chunk = match at / CHUNK_BLOCKS < self.full.chunks.len() {
            true => &mut Arc::make_mut(&mut self.full).chunks[at / CHUNK_BLOCKS],
            false => &mut self.tail,
        };
        Arc::make_mut(chunk).blocks[at % CHUNK_BLOCKS] = block;
    }

    pub(crate) fn remove_front(&mut self, count: usize) -> Vec<BlockRef> {
        let removed = self.iter().take(count).map(|(_, block)| block.clone()).collect();
        if count > 0 {
            let mut rest = BlockList::default();
            self.iter().skip(count).for_each(|(first, block)| rest.push(first, block.clone()));
            *self = rest;
        }
        removed
    }

    #[inline]
    fn span(&self, at: usize, open_limit: usize) -> Span {
        let next = self.first_time(at + 1);
        let limit = if next.is_some() { usize::MAX } else { open_limit };
        Span { limit, first: self.chunk(at).firsts[at % CHUNK_BLOCKS], next }
    }

    /// The value at `time`, counting `open_limit` points of the last block.
    #[inline]
    pub(crate) fn get(&self, time: i64, open_limit: usize) -> Option<f64> {
        let at = self.covering(time)?;
        let span = self.span(at, open_limit);
        self.block(at).get(time, span.limit, span.first, span.next)
    }

    /// Where `time` would be in a raw block, if every step is alike: the block, and the position.
    /// `None` for other kinds of blocks, and for the open one.
    #[inline]
    pub(crate) fn guess_raw(&self, time: i64) -> Option<(&RawBlock, usize)> {
        let at = self.covering(time)?;
        let BlockRef::Raw(block) = self.block(at) else { return None };
        let (first, next) = (self.first_time(at)?, self.first_time(at + 1)?);
        Some((block, guess(time, first, next, BLOCK_POINTS).min(BLOCK_POINTS - 1)))
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
        self.block(at).copy(low, high, &self.span(at, open_limit), out);
    }

    /// Appends all points with `low ≤ time ≤ high`.
    #[inline]
    pub(crate) fn copy(&self, low: i64, high: i64, open_limit: usize, out: &mut Vec<Point>) {
        for at in self.overlapping(low, high) {
            self.copy_block(at, low, high, open_limit, out);
        }
    }
}

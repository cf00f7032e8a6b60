//! Loading very many records, in chunks. NOT atomic: what was written stays when the rest fails.
//!
//! ```text
//! put … put │ chunk full ─▶ one batch ─▶ its rate ─▶ next chunk's size
//! ```
//! It begins with the chunks that measured best: large ones on disk (a batch is sorted before it is
//! written, and the more there is to sort, the closer neighbours lie), in memory those that stay in the
//! processor's cache meanwhile. It goes down as long as smaller ones are faster. A size is left only for
//! one that measured better, so a noisy machine cannot drive it down, which is what happens to a rule
//! that answers to deviation alone.

use crate::{ColumnId, Durability, Engine, Result, WriteBatch};
use std::time::{Duration, Instant};

/// Bounds of the adaptive size, in records.
const MIN_CHUNK: usize = 1_000;
/// Where it begins unless the engine prefers smaller batches.
pub(crate) const MAX_CHUNK: usize = 100_000;
/// A chunk is written at this size whatever its count, so that large values do not fill the memory.
const MAX_CHUNK_BYTES: usize = 32 << 20;
/// Room made before it is known how many records will come.
const FIRST_CAPACITY: usize = 16_384;
/// Chunks of one size before it is judged: one alone says little.
const WINDOW: usize = 3;
/// Another size must be better by this to be kept; less is noise.
const BETTER: f64 = 1.03;
const SHRINKING: usize = 2;

/// See the module.
///
/// ```
/// use chronolith_engine::{BulkLoader, Durability, Engine, MemoryEngine};
/// let engine = MemoryEngine::new();
/// let column = engine.column("c")?;
/// let mut loader = BulkLoader::new(&engine, Durability::Buffered)
///     .on_progress(|progress| println!("{} records", progress.records));
/// for number in 0..10_000u32 {
///     loader.put(column, number.to_be_bytes().to_vec(), "value")?;
/// }
/// let report = loader.finish()?;
/// assert_eq!(report.records, 10_000);
/// # Ok::<(), chronolith_engine::Error>(())
/// ```
pub struct BulkLoader<'a> {
    engine: &'a dyn Engine,
    durability: Durability,
    /// Without any room until its first record comes: after the last record none is made.
    chunk: WriteBatch,
    size: ChunkSize,
    expected: Expected,
    progress: Progress,
    begun: Instant,
    listener: Option<Listener<'a>>,
}

type Listener<'a> = Box<dyn FnMut(&Progress) + 'a>;

/// How far a load is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Records written.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Chunks written.
    pub chunks: u64,
    /// Records of the last chunk.
    pub last_chunk: usize,
    /// Rate of the last chunk.
    pub last_records_per_s: f64,
    /// Rate of the best chunk.
    pub best_records_per_s: f64,
    /// Time since the loader was made.
    pub elapsed: Duration,
    /// Mean and squared deviation so far (Welford).
    mean: f64,
    deviations: f64,
}

impl Progress {
    /// Deviation of the chunks' rates relative to their mean; absent before the second chunk.
    #[must_use]
    pub fn relative_deviation(&self) -> Option<f64> {
        (self.chunks > 1).then(|| (self.deviations / self.chunks as f64).sqrt() / self.mean)
    }

    fn chunk_done(&mut self, records: usize, bytes: usize, took: Duration) {
        let rate = records as f64 / took.as_secs_f64().max(1e-9);
        self.records += records as u64;
        self.bytes += bytes as u64;
        self.chunks += 1;
        self.last_chunk = records;
        self.last_records_per_s = rate;
        self.best_records_per_s = self.best_records_per_s.max(rate);
        let step = rate - self.mean;
        self.mean += step / self.chunks as f64;
        self.deviations += step * (rate - self.mean);
    }
}

impl<'a> BulkLoader<'a> {
    /// A loader that adapts its chunks to the rate it measures. With [`Durability::Sync`] the load is
    /// on stable storage when [`BulkLoader::finish`] returns; chunks are not synced one by one.
    #[must_use]
    pub fn new(engine: &'a dyn Engine, durability: Durability) -> Self {
        let start = engine.preferred_batch_records().clamp(MIN_CHUNK, MAX_CHUNK);
        Self::with_size(engine, durability, ChunkSize::adaptive(start))
    }

    /// A loader with chunks of `records`.
    #[must_use]
    pub fn with_fixed_chunks(
        engine: &'a dyn Engine,
        durability: Durability,
        records: usize,
    ) -> Self {
        Self::with_size(engine, durability, ChunkSize::fixed(records.max(1)))
    }

    fn with_size(engine: &'a dyn Engine, durability: Durability, size: ChunkSize) -> Self {
        Self {
            engine,
            durability,
            chunk: WriteBatch::new(),
            size,
            expected: Expected::default(),
            progress: Progress::default(),
            begun: Instant::now(),
            listener: None,
        }
    }

    /// Makes room for so many records at once, where the caller knows how many will come. More may
    /// come, or fewer.
    #[must_use]
    pub fn expecting(mut self, records: usize) -> Self {
        self.expected = Expected { announced: Some(records), ..self.expected };
        self
    }

    /// Calls `listener` after each chunk.
    #[must_use]
    pub fn on_progress(mut self, listener: impl FnMut(&Progress) + 'a) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Adds a record; writes a chunk when it is full.
    pub fn put(
        &mut self,
        column: ColumnId,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        if self.chunk.is_empty() {
            let records = self.expected.room(self.size.now);
            let size = records.saturating_mul(key.len() + value.len()).min(MAX_CHUNK_BYTES);
            self.chunk = WriteBatch::with_capacity(records, size);
        }
        self.chunk.put(column, key, value);
        let full = self.chunk.len() >= self.size.now || self.chunk.size_bytes() >= MAX_CHUNK_BYTES;
        if full { self.write_chunk() } else { Ok(()) }
    }

    /// Writes what is left, and syncs if that was asked for.
    pub fn finish(mut self) -> Result<Progress> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        if self.durability == Durability::Sync {
            self.engine.write(WriteBatch::new(), Durability::Sync)?;
        }
        self.progress.elapsed = self.begun.elapsed();
        Ok(self.progress)
    }

    fn write_chunk(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let (records, bytes) = (chunk.len(), chunk.size_bytes());
        self.expected.came(records);
        let begun = Instant::now();
        self.engine.write(chunk, self.chunk_durability())?;
        self.progress.chunk_done(records, bytes, begun.elapsed());
        self.progress.elapsed = self.begun.elapsed();
        self.size.measured(self.progress.last_records_per_s);
        if let Some(listener) = &mut self.listener {
            listener(&self.progress);
        }
        Ok(())
    }

    /// One sync at the end makes all chunks durable.
    fn chunk_durability(&self) -> Durability {
        match self.durability {
            Durability::NoWal => Durability::NoWal,
            _ => Durability::Buffered,
        }
    }
}

/// How many records the next chunk is likely to get: room for more is memory taken in vain.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    announced: Option<usize>,
    came: usize,
    last_chunk: usize,
}

impl Expected {
    /// Room for the next chunk, of `limit` records at most.
    fn room(&self, limit: usize) -> usize {
        let guess = match self.announced.and_then(|records| records.checked_sub(self.came)) {
            // Fewer were announced than came: the announcement says nothing about the rest.
            None | Some(0) if self.last_chunk > 0 => self.last_chunk,
            None | Some(0) => FIRST_CAPACITY,
            Some(rest) => rest,
        };
        guess.min(limit)
    }

    fn came(&mut self, records: usize) {
        self.came += records;
        self.last_chunk = records;
    }
}

/// The size of the next chunk.
#[derive(Debug)]
struct ChunkSize {
    now: usize,
    best: usize,
    best_rate: f64,
    /// Rate of the present size, added up.
    sum: f64,
    seen: usize,
    settled: bool,
}

impl ChunkSize {
    fn adaptive(start: usize) -> Self {
        Self { settled: false, ..Self::fixed(start) }
    }

    fn fixed(now: usize) -> Self {
        Self { now, best: now, best_rate: 0.0, sum: 0.0, seen: 0, settled: true }
    }

    fn measured(&mut self, rate: f64) {
        if self.settled {
            return;
        }
        self.sum += rate;
        self.seen += 1;
        if self.seen == WINDOW {
            self.judge(self.sum / WINDOW as f64);
            (self.sum, self.seen) = (0.0, 0);
        }
    }

    fn judge(&mut self, rate: f64) {
        let better = rate > self.best_rate * BETTER;
        if better {
            (self.best, self.best_rate) = (self.now, rate);
        }
        if better && self.now > MIN_CHUNK {
            self.now = (self.now / SHRINKING).max(MIN_CHUNK);
        } else {
            self.now = self.best;
            self.settled = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the rate that `of` gives to each size, until the size settles.
    fn settle(of: impl Fn(usize) -> f64) -> usize {
        let mut size = ChunkSize::adaptive(MAX_CHUNK);
        for _ in 0..100 {
            size.measured(of(size.now));
        }
        assert!(size.settled);
        size.now
    }

    #[test]
    fn the_size_settles_where_the_rate_peaks() {
        assert_eq!(settle(|_| 1e6), MAX_CHUNK);
        assert_eq!(settle(|size| size as f64), MAX_CHUNK);
        assert_eq!(settle(|size| 100_000.0 - (size as f64 - 25_000.0).abs()), 25_000);
        assert_eq!(settle(|size| 1e9 / size as f64), MIN_CHUNK);
    }

    fn after(announced: Option<usize>, chunks: &[usize]) -> Expected {
        let mut expected = Expected { announced, ..Expected::default() };
        chunks.iter().for_each(|records| expected.came(*records));
        expected
    }

    #[test]
    fn room_is_made_for_what_was_announced_and_has_not_come() {
        assert_eq!(after(Some(250), &[]).room(100), 100);
        assert_eq!(after(Some(250), &[100, 100]).room(100), 50);
        assert_eq!(after(Some(250), &[100, 100, 100]).room(100), 100, "more than was announced");
        assert_eq!(after(Some(0), &[]).room(100), 100);
    }

    #[test]
    fn room_that_nobody_announced_is_that_of_the_chunk_before() {
        assert_eq!(after(None, &[]).room(MAX_CHUNK), FIRST_CAPACITY);
        assert_eq!(after(None, &[MAX_CHUNK]).room(MAX_CHUNK), MAX_CHUNK);
        assert_eq!(after(None, &[MAX_CHUNK]).room(MIN_CHUNK), MIN_CHUNK, "the size went down");
        assert_eq!(after(None, &[70]).room(MAX_CHUNK), 70, "large values");
    }

    #[test]
    fn a_full_chunk_makes_no_room_for_records_that_may_never_come() {
        let engine = crate::MemoryEngine::new();
        let column = engine.column("c").unwrap();
        let mut loader = BulkLoader::with_fixed_chunks(&engine, Durability::Buffered, 10);
        for number in 0..10u32 {
            loader.put(column, number.to_be_bytes(), "").unwrap();
        }
        assert_eq!(std::mem::take(&mut loader.chunk).into_encoded().capacity(), 0);
        assert_eq!(loader.finish().unwrap().records, 10);
    }

    #[test]
    fn a_fixed_size_stays() {
        let mut size = ChunkSize::fixed(10);
        (0..100).for_each(|rate| size.measured(f64::from(rate)));
        assert_eq!(size.now, 10);
    }

    #[test]
    fn the_deviation_is_that_of_the_rates() {
        let mut progress = Progress::default();
        assert_eq!(progress.relative_deviation(), None);
        progress.chunk_done(100, 0, Duration::from_secs(1));
        progress.chunk_done(300, 0, Duration::from_secs(1));
        let deviation = progress.relative_deviation().unwrap();
        assert!((deviation - 0.5).abs() < 1e-9, "{deviation}");
        assert_eq!((progress.records, progress.chunks), (400, 2));
    }
}

//! The data that every workload appends, the ways in which it arrives, and the proof that it is there.

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chronolith_series::{
    Durability, GroupWriter, Index, MAX_TIME, Options, Point, Pool, SeriesId, Wait, Writer,
};

/// Milliseconds between two points of a series, as in the original.
pub const STEP_MS: i64 = 50;
/// Points by which a late point may be late.
const LATENESS: u64 = 1000;

/// How many series, and how many points each.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Series.
    pub series: u32,
    /// Points of each series.
    pub points: i64,
}

impl Shape {
    /// All points.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.series) * self.points.cast_unsigned()
    }

    /// Memory for all points in raw blocks, with room for the blocks that are only begun.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.total() as usize * 17) + (self.series as usize * 2 * 8256) + (64 << 20)
    }
}

/// How points reach the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Series after series, each point its own call.
    SeriesByPoint,
    /// Series after series, in batches of so many points.
    SeriesByBatch(usize),
    /// Tick after tick over all series, each point its own call.
    TicksByPoint,
    /// Tick after tick, one row of a registered group a call.
    TicksByRow,
    /// Series after series by point, so many percent of them late.
    Late(u64),
}

/// What one insertion took.
#[derive(Debug, Clone, Copy)]
pub struct Inserted {
    /// Until every point was readable.
    pub visible: Duration,
    /// Until every point was in a block as well: nothing left to merge.
    pub settled: Duration,
    /// The longest that any writer was busy appending.
    pub writer_only: Duration,
    /// Processor time of all writers while they appended: it does not run while another thread has their
    /// core.
    pub processor: Duration,
}

/// An index with its series registered and room for everything, from `pool` or from fresh memory.
pub fn index(shape: Shape, pool: Option<Arc<Pool>>) -> anyhow::Result<Index> {
    let budget_bytes = shape.size_bytes() as u64 * 4;
    let options =
        Options { pool, budget_bytes, wait: Wait::Never, workers: 1, ..Options::default() };
    let index = Index::with(options)?;
    for id in 0..shape.series {
        index.register_id(SeriesId(id))?;
    }
    Ok(index)
}

/// The value of every point: its time, as in the original.
#[must_use]
pub fn value_at(time: i64) -> f64 {
    time as f64
}

/// Runs `work` on `threads` threads that all start together; from the first start to the last end.
pub fn on_threads<R: Send>(
    threads: usize,
    work: impl Fn(usize) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<(Duration, Vec<(Duration, R)>)> {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| -> anyhow::Result<(Instant, Instant, R)> {
        barrier.wait();
        let start = Instant::now();
        let result = work(thread)?;
        Ok((start, Instant::now(), result))
    };
    let outcomes = thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let run = &run;
                    move || run(thread)
                })
            })
            .collect();
        let joined = spawned
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?);
        joined.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let first = outcomes.iter().map(|(start, ..)| *start).min().context("no thread")?;
    let last = outcomes.iter().map(|(_, end, _)| *end).max().context("no thread")?;
    Ok((
        last - first,
        outcomes.into_iter().map(|(start, end, result)| (end - start, result)).collect(),
    ))
}

/// Appends everything, settles, and returns the three clocks.
pub fn insert(
    index: &Index,
    shape: Shape,
    arrival: Arrival,
    threads: usize,
) -> anyhow::Result<Inserted> {
    let next = AtomicU32::new(0);
    let order = match arrival {
        Arrival::Late(percent) => arrival_order(shape.points, percent),
        _ => Vec::new(),
    };
    let ready: Vec<Point> = match arrival {
        Arrival::SeriesByBatch(_) => {
            (0..shape.points).map(|n| Point::new(n * STEP_MS, value_at(n * STEP_MS))).collect()
        }
        _ => Vec::new(),
    };
    let append = |thread| match arrival {
        Arrival::SeriesByPoint => each_series(index, shape, &next, |w| by_point(w, shape)),
        Arrival::SeriesByBatch(size) => {
            each_series(index, shape, &next, |w| by_batch(w, &ready, size))
        }
        Arrival::Late(_) => each_series(index, shape, &next, |w| in_order_of(w, &order)),
        Arrival::TicksByPoint => ticks_by_point(index, shape, thread, threads),
        Arrival::TicksByRow => ticks_by_row(index, shape, thread, threads),
    };
    let (visible, busy) = on_threads(threads, |thread| {
        let before = thread_time();
        append(thread)?;
        Ok(thread_time().saturating_sub(before))
    })?;
    let start = Instant::now();
    ensure!(index.settle()? == 0, "a series is still owned");
    let settled = visible + start.elapsed();
    let writer_only = busy.iter().map(|(busy, _)| *busy).max().context("no thread")?;
    let processor = busy.iter().map(|(_, processor)| *processor).sum();
    Ok(Inserted { visible, settled, writer_only, processor })
}

/// Processor time of the calling thread so far.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What one durable round took.
pub struct Durable {
    /// As without durability.
    pub inserted: Inserted,
    /// Until every point was on stable storage as well.
    pub durable: Duration,
    /// Opening again, until every point was readable.
    pub reopening: Duration,
    /// Bytes written for each point.
    pub bytes_per_point: f64,
}

/// Appends everything, settles, syncs; then opens the directory again and reads everything back.
pub fn durable(
    shape: Shape,
    pool: Option<Arc<Pool>>,
    durability: Durability,
    threads: usize,
) -> anyhow::Result<Durable> {
    let budget_bytes = shape.size_bytes() as u64 * 4;
    let options = || Options {
        pool: pool.clone(),
        budget_bytes,
        durability: Some(durability.clone()),
        ..Options::default()
    };
    let index = Index::with(options())?;
    for id in 0..shape.series {
        index.register_id(SeriesId(id))?;
    }
    let inserted = insert(&index, shape, Arrival::SeriesByPoint, threads)?;
    let start = Instant::now();
    let synced = index.sync()?;
    let durable = inserted.settled + start.elapsed();
    ensure!(synced.points == shape.total(), "{} points synced", synced.points);
    drop(index);
    let start = Instant::now();
    let index = Index::with(options())?;
    let reopening = start.elapsed();
    verify(&index, shape)?;
    let bytes_per_point = synced.size_bytes as f64 / shape.total() as f64;
    Ok(Durable { inserted, durable, reopening, bytes_per_point })
}

/// What kinds of values are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// As in the original: value = time.
    Ramp,
    /// A counter that grows by 0 to 99 each step.
    Counter,
    /// A gauge with two decimals that wanders; times jitter by a few milliseconds.
    Gauge,
    /// Floats without any pattern in their last 40 bits.
    Noise,
}

impl Data {
    /// All kinds.
    pub const ALL: [Data; 4] = [Data::Ramp, Data::Counter, Data::Gauge, Data::Noise];

    /// For the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Data::Ramp => "the original's ramp",
            Data::Counter => "counter",
            Data::Gauge => "jittered gauge of two decimals",
            Data::Noise => "noise",
        }
    }

    /// The points of one series: the same for each, so that they can be compared without keeping all.
    fn points(self, count: i64) -> Vec<Point> {
        let mut random = Random::new(77);
        let (mut counter, mut gauge) = (0_u64, 5000_i64);
        (0..count)
            .map(|n| {
                let time = n * STEP_MS;
                counter += random.below(100);
                gauge += random.below(21).cast_signed() - 10;
                match self {
                    Data::Ramp => Point::new(time, value_at(time)),
                    Data::Counter => Point::new(time, counter as f64),
                    Data::Gauge => {
                        Point::new(time + random.below(8).cast_signed(), gauge as f64 / 100.0)
                    }
                    Data::Noise => Point::new(time, 1.0 + random.below(1 << 40) as f64 / 1e12),
                }
            })
            .collect()
    }
}

/// What packing took.
pub struct Packed {
    /// Packing every closed block.
    pub packing: Duration,
    /// Reading every point back out of the packed blocks, without comparing.
    pub reading: Duration,
    /// Memory for each packed point.
    pub bytes_per_point: f64,
}

/// Fills an index with `data`, packs it with `threads` threads, reads it and compares every point.
pub fn pack(
    data: Data,
    shape: Shape,
    pool: Option<Arc<Pool>>,
    threads: usize,
) -> anyhow::Result<Packed> {
    let budget_bytes = shape.size_bytes() as u64 * 4;
    let index =
        Index::with(Options { pool, budget_bytes, workers: threads - 1, ..Options::default() })?;
    let points = data.points(shape.points);
    for id in 0..shape.series {
        index.register_id(SeriesId(id))?;
        index.writer(SeriesId(id))?.extend(&points)?;
    }
    let start = Instant::now();
    index.pack(1);
    let packing = start.elapsed();
    let next = AtomicU32::new(0);
    let (reading, _) = on_threads(threads, |_| {
        let mut out = Vec::with_capacity(points.len());
        loop {
            let id = next.fetch_add(1, Ordering::Relaxed);
            if id >= shape.series {
                return Ok(());
            }
            out.clear();
            index.range_into(SeriesId(id), -MAX_TIME..=MAX_TIME, &mut out);
            ensure!(out.len() == points.len(), "series {id}: {} rows read", out.len());
        }
    })?;
    for id in 0..shape.series {
        let got = index.range(SeriesId(id), -MAX_TIME..=MAX_TIME);
        ensure!(got.iter().zip(&points).all(|(a, b)| a.same_bits(b)), "series {id} differs");
    }
    let bytes_per_point = index.stats().bytes_per_packed_point().context("nothing was packed")?;
    Ok(Packed { packing, reading, bytes_per_point })
}

/// Appends the points `points` of every series, series after series.
pub fn append_points(
    index: &Index,
    series: u32,
    points: std::ops::Range<i64>,
    threads: usize,
) -> anyhow::Result<Duration> {
    let next = AtomicU32::new(0);
    let shape = Shape { series, points: points.end };
    let (elapsed, _) = on_threads(threads, |_| {
        each_series(index, shape, &next, |writer| {
            for n in points.clone() {
                writer.append(n * STEP_MS, value_at(n * STEP_MS))?;
            }
            Ok(())
        })
    })?;
    Ok(elapsed)
}

/// Pulls whole series off a common counter, as the original does.
fn each_series(
    index: &Index,
    shape: Shape,
    next: &AtomicU32,
    append: impl Fn(&mut Writer<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        if id >= shape.series {
            return Ok(());
        }
        append(&mut index.writer(SeriesId(id))?)?;
    }
}

fn by_point(writer: &mut Writer<'_>, shape: Shape) -> anyhow::Result<()> {
    for n in 0..shape.points {
        let time = n * STEP_MS;
        writer.append(time, value_at(time))?;
    }
    Ok(())
}

/// The points stand ready, as after a decoder: the clock runs for the index, not for making them.
fn by_batch(writer: &mut Writer<'_>, ready: &[Point], size: usize) -> anyhow::Result<()> {
    for batch in ready.chunks(size) {
        writer.extend(batch)?;
    }
    Ok(())
}

fn in_order_of(writer: &mut Writer<'_>, order: &[i64]) -> anyhow::Result<()> {
    for time in order {
        writer.append(*time, value_at(*time))?;
    }
    Ok(())
}

/// The series of one thread: a contiguous share.
fn share(shape: Shape, thread: usize, threads: usize) -> Vec<SeriesId> {
    let (series, thread, threads) = (shape.series as usize, thread, threads);
    (series * thread / threads..series * (thread + 1) / threads)
        .map(|id| SeriesId(id as u32))
        .collect()
}

fn ticks_by_point(
    index: &Index,
    shape: Shape,
    thread: usize,
    threads: usize,
) -> anyhow::Result<()> {
    let ids = share(shape, thread, threads);
    let mut writers = ids.iter().map(|id| index.writer(*id)).collect::<Result<Vec<_>, _>>()?;
    for n in 0..shape.points {
        let time = n * STEP_MS;
        for writer in &mut writers {
            writer.append(time, value_at(time))?;
        }
    }
    Ok(())
}

fn ticks_by_row(index: &Index, shape: Shape, thread: usize, threads: usize) -> anyhow::Result<()> {
    let ids = share(shape, thread, threads);
    if ids.is_empty() {
        return Ok(());
    }
    let mut group: GroupWriter<'_> = index.group(&ids)?;
    let mut row = vec![0.0; ids.len()];
    for n in 0..shape.points {
        let time = n * STEP_MS;
        row.fill(value_at(time));
        group.append_row(time, &row)?;
    }
    Ok(())
}

/// The times of one series in the order in which they arrive: `percent` of them wait until up to
/// `LATENESS` later points have gone ahead.
#[must_use]
pub fn arrival_order(points: i64, percent: u64) -> Vec<i64> {
    let mut random = Random::new(123_456);
    let mut arrivals: Vec<(i64, i64)> = (0..points)
        .map(|n| {
            let late = random.below(100) < percent;
            let by = if late { 1 + random.below(LATENESS).cast_signed() } else { 0 };
            (n + by, n * STEP_MS)
        })
        .collect();
    arrivals.sort_unstable_by_key(|(at, time)| (*at, *time));
    arrivals.into_iter().map(|(_, time)| time).collect()
}

/// Reads everything back and compares every point: rows read equal rows written, or the run fails.
pub fn verify(index: &Index, shape: Shape) -> anyhow::Result<()> {
    let next = AtomicU32::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    on_threads(threads, |_| {
        loop {
            let id = next.fetch_add(1, Ordering::Relaxed);
            if id >= shape.series {
                return Ok(());
            }
            verify_series(index, id, shape)?;
        }
    })
    .map(drop)
}

/// As `verify`, for one series.
pub fn verify_series(index: &Index, id: u32, shape: Shape) -> anyhow::Result<()> {
    let points = index.range(SeriesId(id), -MAX_TIME..=MAX_TIME);
    let (read, written) = (points.len(), shape.points);
    ensure!(read as i64 == written, "series {id}: {read} rows read, {written} written");
    for (n, point) in points.iter().enumerate() {
        let time = n as i64 * STEP_MS;
        let expected = Point::new(time, value_at(time));
        ensure!(point.same_bits(&expected), "series {id}: read {point:?}, wrote {expected:?}");
    }
    Ok(())
}

/// A small generator of its own: runs are the same everywhere.
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(limit)) >> 64) as u64
    }
}

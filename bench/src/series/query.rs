//! Lookups, scans, the mix, and readers beside writers: every answer checked while the clock runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use chronolith_series::{Index, Key, Point, SeriesId};

use super::load::{self, Arrival, Random, STEP_MS, Shape, on_threads, value_at};

/// Lookups given to the index at once in the batched workload.
const LOOKUP_BATCH: usize = 256;
/// Ranges given to the index at once in the batched workload.
const SCAN_BATCH: usize = 32;
/// Scans of each series, as in the original.
const SCANS_PER_SERIES: u64 = 5;
/// The original's seed.
const SEED: u64 = 123_456;

/// How a sample is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Every tenth point, series after series, as in the original.
    EveryTenth,
    /// Random points, one call each.
    Random,
    /// Random points, `LOOKUP_BATCH` a call.
    RandomBatched,
}

/// How ranges are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scans {
    /// One call each.
    OneByOne,
    /// `SCAN_BATCH` a call.
    Batched,
}

/// A count of answers and the time they took.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Answers.
    pub count: u64,
    /// From the first start to the last end.
    pub elapsed: Duration,
    /// Points that the answers held.
    pub points: u64,
}

/// Looks up a tenth of all points, `times` over.
pub fn lookups(
    index: &Index,
    shape: Shape,
    kind: Lookup,
    threads: usize,
    times: u64,
) -> anyhow::Result<Answered> {
    let count = shape.total() / 10 * times;
    let each = count / threads as u64;
    let samples: Vec<Vec<Key>> =
        (0..threads).map(|thread| sample(shape, kind, thread as u64, each)).collect();
    let (elapsed, _) = on_threads(threads, |thread| match kind {
        Lookup::EveryTenth | Lookup::Random => one_by_one(index, &samples[thread]),
        Lookup::RandomBatched => batched(index, &samples[thread]),
    })?;
    let count = each * threads as u64;
    Ok(Answered { count, elapsed, points: count })
}

/// Looks up `count` random points, batched.
pub fn sampled(
    index: &Index,
    shape: Shape,
    threads: usize,
    count: u64,
) -> anyhow::Result<Answered> {
    let each = count / threads as u64;
    let of = |thread| sample(shape, Lookup::RandomBatched, thread as u64, each);
    let samples: Vec<Vec<Key>> = (0..threads).map(of).collect();
    let (elapsed, _) = on_threads(threads, |thread| batched(index, &samples[thread]))?;
    let count = each * threads as u64;
    Ok(Answered { count, elapsed, points: count })
}

fn sample(shape: Shape, kind: Lookup, thread: u64, count: u64) -> Vec<Key> {
    let mut random = Random::new(SEED + thread);
    let points = shape.points.cast_unsigned();
    let key =
        |n: u64| Key::new(SeriesId((n / points) as u32), (n % points).cast_signed() * STEP_MS);
    (0..count)
        .map(|n| match kind {
            Lookup::EveryTenth => key((thread * count + n) * 10 % shape.total()),
            Lookup::Random | Lookup::RandomBatched => key(random.below(shape.total())),
        })
        .collect()
}

fn one_by_one(index: &Index, keys: &[Key]) -> anyhow::Result<()> {
    let mut reader = index.reader();
    for key in keys {
        let got = reader.get(key.series, key.time);
        ensure!(got == Some(value_at(key.time)), "{key:?} gave {got:?}");
    }
    Ok(())
}

fn batched(index: &Index, keys: &[Key]) -> anyhow::Result<()> {
    let mut reader = index.reader();
    let mut out = Vec::with_capacity(LOOKUP_BATCH);
    for keys in keys.chunks(LOOKUP_BATCH) {
        out.clear();
        reader.get_many(keys, &mut out);
        for (key, got) in keys.iter().zip(&out) {
            ensure!(*got == Some(value_at(key.time)), "{key:?} gave {got:?}");
        }
    }
    Ok(())
}

/// One scan: a series, its first and its last time.
#[derive(Clone, Copy)]
struct Scan {
    series: SeriesId,
    low: i64,
    high: i64,
}

/// The original's scans, `times` over: five a series, starting anywhere, 10 to 100 points, clipped.
pub fn scans(
    index: &Index,
    shape: Shape,
    kind: Scans,
    threads: usize,
    times: u64,
) -> anyhow::Result<Answered> {
    let mut random = Random::new(SEED);
    let mut all = Vec::new();
    for _ in 0..times {
        for id in 0..shape.series {
            for _ in 0..SCANS_PER_SERIES {
                let from = random.below(shape.points.cast_unsigned()).cast_signed();
                let length = 10 + random.below(91).cast_signed();
                let to = (from + length).min(shape.points) - 1;
                all.push(Scan { series: SeriesId(id), low: from * STEP_MS, high: to * STEP_MS });
            }
        }
    }
    let share = all.len().div_ceil(threads);
    let (elapsed, done) = on_threads(threads, |thread| {
        let mine = all.chunks(share).nth(thread).unwrap_or_default();
        match kind {
            Scans::OneByOne => run_scans(index, mine),
            Scans::Batched => run_scans_batched(index, mine),
        }
    })?;
    let points = done.iter().map(|(_, points)| points).sum();
    Ok(Answered { count: all.len() as u64, elapsed, points })
}

/// As `run_scans`, `SCAN_BATCH` ranges a call.
fn run_scans_batched(index: &Index, scans: &[Scan]) -> anyhow::Result<u64> {
    let mut reader = index.reader();
    let mut out: Vec<Point> = Vec::with_capacity(128 * SCAN_BATCH);
    let (mut ranges, mut ends) = (Vec::with_capacity(SCAN_BATCH), Vec::with_capacity(SCAN_BATCH));
    let mut points = 0;
    for scans in scans.chunks(SCAN_BATCH) {
        ranges.clear();
        ends.clear();
        out.clear();
        ranges.extend(scans.iter().map(|scan| (scan.series, scan.low..=scan.high)));
        reader.ranges_into(&ranges, &mut out, &mut ends);
        let mut from = 0;
        for (scan, end) in scans.iter().zip(&ends) {
            check_scan(&out[from..*end], scan)?;
            from = *end;
        }
        points += out.len() as u64;
    }
    Ok(points)
}

fn run_scans(index: &Index, scans: &[Scan]) -> anyhow::Result<u64> {
    let mut reader = index.reader();
    let mut out: Vec<Point> = Vec::with_capacity(128);
    let mut points = 0;
    for scan in scans {
        out.clear();
        reader.range_into(scan.series, scan.low..=scan.high, &mut out);
        check_scan(&out, scan)?;
        points += out.len() as u64;
    }
    Ok(points)
}

/// Right number of points, and the first and the last are right; `verify` compares every point.
fn check_scan(points: &[Point], scan: &Scan) -> anyhow::Result<()> {
    let expected = (scan.high - scan.low) / STEP_MS + 1;
    let ends = (points.first().map(|p| p.time), points.last().map(|p| p.time));
    ensure!(
        points.len() as i64 == expected && ends == (Some(scan.low), Some(scan.high)),
        "scan of {}..={} gave {} points",
        scan.low,
        scan.high,
        points.len()
    );
    Ok(())
}

/// The original's mix over a full index: 50 % new points, 30 % ranges of 10 to 100, 10 % of 5 to 10,
/// 10 % lookups. Returns the operations and how many points were added to each series.
pub fn mixed(index: &Index, shape: Shape, threads: usize) -> anyhow::Result<(Answered, Vec<i64>)> {
    let each = shape.total() / threads as u64;
    let (elapsed, added) = on_threads(threads, |thread| mix(index, shape, thread, threads, each))?;
    let mut per_series = vec![0; shape.series as usize];
    for (_, added) in &added {
        for (series, count) in added.iter().enumerate() {
            per_series[series] += count;
        }
    }
    let count = each * threads as u64;
    Ok((Answered { count, elapsed, points: count }, per_series))
}

fn mix(
    index: &Index,
    shape: Shape,
    thread: usize,
    threads: usize,
    count: u64,
) -> anyhow::Result<Vec<i64>> {
    let mut random = Random::new(SEED + thread as u64);
    let mut added = vec![0_i64; shape.series as usize];
    let mut reader = index.reader();
    let mut out = Vec::with_capacity(128);
    let own = u64::from(shape.series).div_ceil(threads as u64);
    for _ in 0..count {
        let kind = random.below(100);
        let any = SeriesId(random.below(u64::from(shape.series)) as u32);
        let from = random.below(shape.points.cast_unsigned()).cast_signed();
        if kind < 50 {
            // A series belongs to one thread, so that the next time is known and all can be checked.
            let mine = random.below(own) * threads as u64 + thread as u64;
            let mine = if mine < u64::from(shape.series) { mine as u32 } else { thread as u32 };
            let time = (shape.points + added[mine as usize]) * STEP_MS;
            index.append(SeriesId(mine), time, value_at(time))?;
            added[mine as usize] += 1;
        } else if kind < 90 {
            let length = if kind < 80 { 10 + random.below(91) } else { 5 + random.below(6) };
            let to = (from + length.cast_signed()).min(shape.points) - 1;
            let scan = Scan { series: any, low: from * STEP_MS, high: to * STEP_MS };
            out.clear();
            reader.range_into(any, scan.low..=scan.high, &mut out);
            check_scan(&out, &scan)?;
        } else {
            let got = reader.get(any, from * STEP_MS);
            ensure!(got == Some(value_at(from * STEP_MS)), "lookup gave {got:?}");
        }
    }
    Ok(added)
}

/// What the thread does that reads beside writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// There is none.
    Nobody,
    /// `PACED_SCANS` every millisecond, as dashboards do: most of the time it sleeps.
    Paced,
    /// Scan after scan, without a pause.
    FlatOut,
}

/// Scans a millisecond of a paced reader: a hundred thousand a second.
const PACED_SCANS: u32 = 100;

/// Writers, and beside them a reader that scans what is already there: what the writers reach, and how
/// many scans the reader made meanwhile.
pub fn beside(
    index: &Index,
    shape: Shape,
    writers: usize,
    reader: Beside,
) -> anyhow::Result<(load::Inserted, u64)> {
    if reader == Beside::Nobody {
        return Ok((load::insert(index, shape, Arrival::SeriesByPoint, writers)?, 0));
    }
    let done = AtomicBool::new(false);
    let scans = AtomicU64::new(0);
    let inserted = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(index, shape, reader, &done, &scans));
        let inserted = load::insert(index, shape, Arrival::SeriesByPoint, writers);
        done.store(true, Ordering::Relaxed);
        reader.join().ok().context("the reader panicked")??;
        inserted
    })?;
    Ok((inserted, scans.load(Ordering::Relaxed)))
}

/// Scans of what is there: in order, without gaps, and starting where asked.
fn read_until(
    index: &Index,
    shape: Shape,
    pace: Beside,
    done: &AtomicBool,
    scans: &AtomicU64,
) -> anyhow::Result<()> {
    let mut random = Random::new(SEED);
    let mut reader = index.reader();
    let mut out: Vec<Point> = Vec::with_capacity(128);
    let (mut made, mut found) = (0_u32, 0);
    while !done.load(Ordering::Relaxed) {
        let series = SeriesId(random.below(u64::from(shape.series)) as u32);
        let low = random.below(shape.points.cast_unsigned()).cast_signed() * STEP_MS;
        out.clear();
        reader.range_into(series, low..=low + 54 * STEP_MS, &mut out);
        let steady = out.iter().enumerate().all(|(n, p)| p.time == low + n as i64 * STEP_MS);
        ensure!(steady, "a scan beside writers has a gap");
        found += u64::from(!out.is_empty());
        made = made.wrapping_add(1);
        if pace == Beside::Paced && made.is_multiple_of(PACED_SCANS) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    scans.store(found, Ordering::Relaxed);
    Ok(())
}

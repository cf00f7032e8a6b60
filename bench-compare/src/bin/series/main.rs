//! Every in-memory ordered index for Rust worth the name under the same load as the time-series index.
//!
//! `cargo run --release -p chronolith-bench-compare --bin series`. Each index gets the original's data
//! (1,024 series × 10,000 points) from the same threads behind the same barrier; then random lookups and
//! the original's scans. Every answer is checked while the clock runs: a wrong one fails the run. Ours is
//! visible and settled when the clock stops, as the others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use chronolith_bench::series::load::{self, Random, STEP_MS, Shape, on_threads};
use chronolith_series::Pool;
use clap::Parser;
use comfy_table::Table;

mod peers;

use peers::{Art, Ours, Peer, ShardedMap};

/// Compares in-memory ordered indexes under time-series load.
#[derive(Parser)]
struct Args {
    /// Series.
    #[arg(long, default_value_t = 1024)]
    series: u32,
    /// Points of each series.
    #[arg(long, default_value_t = 10_000)]
    points: i64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rounds; the best counts.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Rates in millions a second.
#[derive(Clone, Copy, Default)]
struct Rates {
    by_series: f64,
    by_tick: f64,
    lookups: f64,
    scans: f64,
}

impl Rates {
    fn best(self, other: Rates) -> Rates {
        Rates {
            by_series: self.by_series.max(other.by_series),
            by_tick: self.by_tick.max(other.by_tick),
            lookups: self.lookups.max(other.lookups),
            scans: self.scans.max(other.scans),
        }
    }

    fn all(self) -> [f64; 4] {
        [self.by_series, self.by_tick, self.lookups, self.scans]
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shape = Shape { series: args.series, points: args.points };
    let pool = Arc::new(Pool::new());
    pool.prefault(shape.size_bytes())?;
    let ours = measure(&args, shape, &|| Ok(Ours(load::index(shape, Some(Arc::clone(&pool)))?)))?;
    let rows = [
        ("chronolith-series", ours),
        ("BTreeMap, 256 locks", measure(&args, shape, &|| Ok(ShardedMap::new()))?),
        ("crossbeam-skiplist", measure(&args, shape, &|| Ok(crossbeam_skiplist::SkipMap::new()))?),
        ("scc TreeIndex", measure(&args, shape, &|| Ok(scc::TreeIndex::new()))?),
        ("congee", measure(&args, shape, &|| Ok(Art(congee::Congee::default())))?),
        ("bplustree", measure(&args, shape, &|| Ok(bplustree::BPlusTree::new()))?),
    ];
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "index",
        "series by series",
        "tick by tick",
        "random lookups",
        "scans of 54",
    ]);
    for (name, rates) in rows {
        let cells = rates.all().into_iter().zip(ours.all());
        let cells = cells.map(|(rate, ours)| format!("{rate:.2} ({:.1}×)", ours / rate));
        table.add_row([name.to_owned()].into_iter().chain(cells));
    }
    println!(
        "{} × {} points, {} threads, millions a second (ours is so many times faster)",
        args.series, args.points, args.threads
    );
    println!("{table}");
    Ok(())
}

fn measure<P: Peer>(
    args: &Args,
    shape: Shape,
    make: &dyn Fn() -> anyhow::Result<P>,
) -> anyhow::Result<Rates> {
    let mut best = Rates::default();
    for _ in 0..args.rounds {
        let by_tick = fill_by_tick(&make()?, shape, args.threads)?;
        let peer = make()?;
        let by_series = fill_by_series(&peer, shape, args.threads)?;
        let lookups = lookups(&peer, shape, args.threads)?;
        let scans = scans(&peer, shape, args.threads)?;
        best = best.best(Rates { by_series, by_tick, lookups, scans });
    }
    Ok(best)
}

fn millions(count: u64, elapsed: std::time::Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64() / 1e6
}

fn fill_by_series(peer: &impl Peer, shape: Shape, threads: usize) -> anyhow::Result<f64> {
    let next = AtomicU32::new(0);
    let (elapsed, _) = on_threads(threads, |_| {
        loop {
            let series = next.fetch_add(1, Ordering::Relaxed);
            if series >= shape.series {
                return Ok(());
            }
            peer.append(series, &mut (0..shape.points).map(|n| n * STEP_MS))?;
        }
    })?;
    Ok(millions(shape.total(), elapsed))
}

/// Each thread has its share of the series and goes over them at every tick.
fn fill_by_tick(peer: &impl Peer, shape: Shape, threads: usize) -> anyhow::Result<f64> {
    let (elapsed, _) = on_threads(threads, |thread| {
        let mine: Vec<u32> = (thread as u32..shape.series).step_by(threads).collect();
        peer.append_ticks(&mine, &mut (0..shape.points).map(|n| n * STEP_MS))
    })?;
    Ok(millions(shape.total(), elapsed))
}

fn lookups(peer: &impl Peer, shape: Shape, threads: usize) -> anyhow::Result<f64> {
    let each = shape.total() / 10 / threads as u64;
    let (elapsed, _) = on_threads(threads, |thread| {
        let mut reader = peer.reader();
        let mut random = Random::new(thread as u64);
        for _ in 0..each {
            let series = random.below(u64::from(shape.series)) as u32;
            let time = random.below(shape.points.cast_unsigned()).cast_signed() * STEP_MS;
            ensure!(reader.get(series, time) == Some(time as f64), "lookup of {series}, {time}");
        }
        Ok(())
    })?;
    Ok(millions(each * threads as u64, elapsed))
}

fn scans(peer: &impl Peer, shape: Shape, threads: usize) -> anyhow::Result<f64> {
    let each = u64::from(shape.series) * 50;
    let (elapsed, _) = on_threads(threads, |thread| {
        let mut reader = peer.reader();
        let mut random = Random::new(thread as u64);
        for _ in 0..each {
            let series = random.below(u64::from(shape.series)) as u32;
            let from = random.below(shape.points.cast_unsigned()).cast_signed();
            let to = (from + 10 + random.below(91).cast_signed()).min(shape.points) - 1;
            let count = reader.scan(series, from * STEP_MS, to * STEP_MS);
            ensure!(count as i64 == to - from + 1, "a scan of {series} gave {count} points");
        }
        Ok(())
    })?;
    Ok(millions(each * threads as u64, elapsed))
}

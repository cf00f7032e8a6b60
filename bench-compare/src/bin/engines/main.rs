//! Our engines, the bare `rocksdb` crate and LevelDB: the same records, the same order, one run.
//!
//! `cargo run --release -p chronolith-bench-compare --features rocksdb,leveldb --bin engines`
//!
//! ```text
//! workload ─▶ round 1: each engine, fresh ─▶ round 2: … ─▶ the best of each ─▶ rates, ratios, CPU
//! ```
//! All write to a log, handed to the operating system or synced alike; all have write buffers of
//! 64 MiB, caches of 256 MiB and the same Bloom filters. A clock stops when the last record is readable:
//! no engine is made to flush or compact at the end. Rounds alternate between the engines and the best
//! of each counts, so that other load on the machine hits all alike.

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Parser;
use comfy_table::{CellAlignment, Table};
use std::time::Instant;
use workload::{Change, WORKLOADS, Workload};

#[cfg(feature = "rocksdb")]
mod bare;
#[cfg(feature = "leveldb")]
mod leveldb;
mod ours;
mod workload;

/// The allocator of the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Records of a workload.
    #[arg(long, default_value_t = 200_000)]
    records: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Rounds; the best of each engine counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only engines whose name contains this.
    #[arg(long, default_value = "")]
    engine: String,
    /// Also bare `RocksDB` without its log, which loses what is not flushed: what is left is the cost of
    /// everything but the log. Not in synced workloads, since there is nothing to sync.
    #[arg(long)]
    also_without_log: bool,
}

/// An engine under comparison.
trait Contestant {
    fn write(&self, records: &[Record], sync: bool) -> Result<()>;
    fn delete(&self, records: &[Record]) -> Result<()>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

type Record = (Bytes, Bytes);
type Open = fn(&std::path::Path) -> Result<Box<dyn Contestant>>;

const MEMORY: &str = "chronolith memory";
const ROCKSDB: &str = "chronolith rocksdb";
const BARE: &str = "bare rocksdb";
const WITHOUT_LOG: &str = "rocksdb without log";
const LEVELDB: &str = "leveldb";

/// What is set against what, and the ratio of their rates to be reached, where there is one.
const RATIOS: [(&str, &str, Option<f64>); 3] =
    [(MEMORY, LEVELDB, Some(1.0)), (ROCKSDB, LEVELDB, Some(1.0)), (ROCKSDB, BARE, Some(0.95))];

/// All of this build; the one without a log, which promises less than the others, where it is asked for.
fn contestants(also_without_log: bool) -> Result<Vec<(&'static str, Open)>> {
    let mut all: Vec<(&'static str, Open)> = vec![(MEMORY, ours::memory)];
    #[cfg(feature = "rocksdb")]
    all.extend([(ROCKSDB, ours::rocksdb as Open), (BARE, bare::open as Open)]);
    #[cfg(feature = "rocksdb")]
    if also_without_log {
        all.push((WITHOUT_LOG, bare::open_without_log));
    }
    let built = cfg!(feature = "rocksdb") || !also_without_log;
    ensure!(built, "--also-without-log needs a build with --features rocksdb");
    #[cfg(feature = "leveldb")]
    all.push((LEVELDB, |dir| Ok(leveldb::open(dir)?)));
    Ok(all)
}

/// The best round of one engine in one workload.
#[derive(Clone, Copy, Default)]
struct Best {
    records_per_s: f64,
    cpu_us_per_record: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let sequential = records(&args);
    let mut random = sequential.clone();
    shuffle(&mut random);
    let mut contestants = contestants(args.also_without_log)?;
    contestants.retain(|(name, _)| name.contains(&args.engine));
    let mut rows = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&args.only)) {
        let records = if workload.random { &random } else { &sequential };
        let records = &records[..records.len() / workload.divisor];
        rows.push((workload.name, best(&contestants, args.rounds, workload, records)?));
    }
    println!("{}", rates(&contestants, &rows));
    Ok(())
}

fn best(
    contestants: &[(&str, Open)],
    rounds: u32,
    workload: &Workload,
    records: &[Record],
) -> Result<Vec<Best>> {
    let mut best = vec![Best::default(); contestants.len()];
    for _ in 0..rounds {
        for (best, (name, open)) in best.iter_mut().zip(contestants) {
            if workload.sync && *name == WITHOUT_LOG {
                continue;
            }
            let this = run(*open, workload, records)?;
            if this.records_per_s > best.records_per_s {
                *best = this;
            }
        }
    }
    Ok(best)
}

/// One engine, one workload, once.
fn run(open: Open, workload: &Workload, records: &[Record]) -> Result<Best> {
    let dir = tempfile::tempdir_in(".")?;
    let engine = open(&dir.path().join("data"))?;
    if workload.change != Change::Fill {
        records.chunks(1_000).try_for_each(|batch| engine.write(batch, false))?;
    }
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
    for batch in records.chunks(workload.batch) {
        match workload.change {
            Change::Fill | Change::Overwrite => engine.write(batch, workload.sync)?,
            Change::Delete => engine.delete(batch)?,
            Change::Read => read(&*engine, batch)?,
        }
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    for (key, value) in records.iter().step_by(97) {
        let expected = (workload.change != Change::Delete).then_some(&value[..]);
        ensure!(engine.get(key)?.as_deref() == expected, "a record is lost or wrong");
    }
    let count = records.len() as f64;
    Ok(Best { records_per_s: count / took, cpu_us_per_record: cpu * 1e6 / count })
}

fn read(engine: &dyn Contestant, records: &[Record]) -> Result<()> {
    for (key, value) in records {
        let found = engine.get(key)?;
        ensure!(found.is_some_and(|found| found.len() == value.len()), "a record is lost");
    }
    Ok(())
}

/// CPU time of this process, all threads, in steps of a hundredth.
fn cpu_seconds() -> Result<f64> {
    const TICKS_PER_S: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may hold spaces: utime and stime are 14th and 15th.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|tick| tick.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_S)
}

/// Rates and CPU of all, then ratios with their verdicts.
fn rates(contestants: &[(&str, Open)], rows: &[(&str, Vec<Best>)]) -> Table {
    let place = |name| contestants.iter().position(|(other, _)| *other == name);
    let ratios: Vec<_> = RATIOS
        .iter()
        .filter_map(|(one, other, least)| Some((one, place(*one)?, other, place(*other)?, least)))
        .collect();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let names = contestants.iter().map(|(name, _)| format!("{name}, records/s (CPU µs)"));
    let titles = ratios.iter().map(|(one, _, other, ..)| format!("{one} / {other}"));
    table.set_header(std::iter::once("workload".to_owned()).chain(names).chain(titles));
    for (name, best) in rows {
        let cells = best.iter().map(|best| match best.records_per_s > 0.0 {
            true => format!("{:.0} ({:.2})", best.records_per_s, best.cpu_us_per_record),
            false => "–".to_owned(),
        });
        let verdicts = ratios.iter().map(|(_, one, _, other, least)| {
            let ratio = best[*one].records_per_s / best[*other].records_per_s;
            let missed = least.is_some_and(|least| ratio < least);
            format!("{ratio:.2}{}", if missed { " FAIL" } else { "" })
        });
        table.add_row(std::iter::once((*name).to_owned()).chain(cells).chain(verdicts));
    }
    let figures = table.column_iter_mut().skip(1);
    figures.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// Half of a value compresses: text and a number that no other value has.
fn records(args: &Args) -> Vec<Record> {
    let record = |number: usize| {
        let id = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut value =
            format!("{{\"id\":\"{id:016x}\",\"enabled\":true,\"weight\":{},\"name\":\"", id % 9973);
        while value.len() < args.value_bytes {
            value += &format!("{:016x}service-", id.rotate_left(value.len() as u32));
        }
        value.truncate(args.value_bytes);
        (Bytes::from(format!("{number:016}")), Bytes::from(value))
    };
    (0..args.records).map(record).collect()
}

/// Fisher and Yates, with a fixed seed.
fn shuffle(records: &mut [Record]) {
    let mut state = 1u64;
    for last in (1..records.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        records.swap(last, (state >> 33) as usize % (last + 1));
    }
}

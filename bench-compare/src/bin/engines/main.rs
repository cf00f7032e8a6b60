//! Our engines, the bare `rocksdb` crate and LevelDB: the same records, the same order, one run.
//!
//! `cargo run --release -p chronolith-bench-compare --features rocksdb,leveldb --bin engines`
//!
//! All write to a log (LevelDB cannot do without), with the options of our default profile where an
//! engine has them. Rounds alternate between the engines and the best of each counts, so that other
//! load on the machine hits all alike.

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Parser;
use comfy_table::{CellAlignment, Table};
use std::time::Instant;

#[cfg(feature = "rocksdb")]
mod bare;
#[cfg(feature = "leveldb")]
mod leveldb;
mod ours;

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
}

/// An engine under comparison.
trait Contestant {
    fn write(&self, records: &[Record], sync: bool) -> Result<()>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

type Record = (Bytes, Bytes);
type Open = fn(&std::path::Path) -> Result<Box<dyn Contestant>>;

fn contestants() -> Vec<(&'static str, Open)> {
    let mut all: Vec<(&'static str, Open)> = vec![("chronolith memory", ours::memory)];
    #[cfg(feature = "rocksdb")]
    all.extend([
        ("chronolith rocksdb", ours::rocksdb as Open),
        ("bare rocksdb", bare::open as Open),
    ]);
    #[cfg(feature = "leveldb")]
    all.push(("leveldb", leveldb::open));
    all
}

/// A way to write: batch size, order, sync, share of the records.
struct Workload {
    name: &'static str,
    batch: usize,
    random: bool,
    sync: bool,
    divisor: usize,
}

const WRITES: [Workload; 7] = [
    Workload {
        name: "batches of 100 K, random",
        batch: 100_000,
        random: true,
        sync: false,
        divisor: 1,
    },
    Workload {
        name: "batches of 1 K, random",
        batch: 1_000,
        random: true,
        sync: false,
        divisor: 1,
    },
    Workload {
        name: "batches of 1 K, sequential",
        batch: 1_000,
        random: false,
        sync: false,
        divisor: 1,
    },
    Workload { name: "one by one, random", batch: 1, random: true, sync: false, divisor: 1 },
    Workload { name: "one by one, sequential", batch: 1, random: false, sync: false, divisor: 1 },
    Workload { name: "batches of 1 K, synced", batch: 1_000, random: true, sync: true, divisor: 1 },
    Workload { name: "one by one, synced", batch: 1, random: true, sync: true, divisor: 200 },
];

fn main() -> Result<()> {
    let args = Args::parse();
    let sequential = records(&args);
    let mut random = sequential.clone();
    shuffle(&mut random);
    let contestants = contestants();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let names = contestants.iter().map(|(name, _)| (*name).to_owned());
    table.set_header(std::iter::once("records a second".to_owned()).chain(names));
    for workload in WRITES.iter().filter(|workload| workload.name.contains(&args.only)) {
        let records = if workload.random { &random } else { &sequential };
        let records = &records[..records.len() / workload.divisor];
        table.add_row(row(
            workload.name,
            &best(&contestants, args.rounds, |open| write(open, records, workload))?,
        ));
    }
    if "random gets".contains(&args.only) {
        table.add_row(row(
            "random gets",
            &best(&contestants, args.rounds, |open| read(open, &random))?,
        ));
    }
    table
        .column_iter_mut()
        .skip(1)
        .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    Ok(())
}

fn row(name: &str, rates: &[f64]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(rates.iter().map(|rate| format!("{rate:.0}"))).collect()
}

fn best(
    contestants: &[(&str, Open)],
    rounds: u32,
    run: impl Fn(Open) -> Result<f64>,
) -> Result<Vec<f64>> {
    let mut best = vec![0.0f64; contestants.len()];
    for _ in 0..rounds {
        for (best, (_, open)) in best.iter_mut().zip(contestants) {
            *best = best.max(run(*open)?);
        }
    }
    Ok(best)
}

fn write(open: Open, records: &[Record], workload: &Workload) -> Result<f64> {
    let dir = tempfile::tempdir_in(".")?;
    let engine = open(&dir.path().join("data"))?;
    let begun = Instant::now();
    for batch in records.chunks(workload.batch) {
        engine.write(batch, workload.sync)?;
    }
    let rate = records.len() as f64 / begun.elapsed().as_secs_f64();
    for (key, value) in records.iter().step_by(97) {
        ensure!(engine.get(key)?.as_deref() == Some(&value[..]), "a record is lost or wrong");
    }
    Ok(rate)
}

fn read(open: Open, records: &[Record]) -> Result<f64> {
    let dir = tempfile::tempdir_in(".")?;
    let engine = open(&dir.path().join("data"))?;
    records.chunks(1_000).try_for_each(|batch| engine.write(batch, false))?;
    let begun = Instant::now();
    for (key, value) in records {
        ensure!(
            engine.get(key)?.is_some_and(|found| found.len() == value.len()),
            "a record is lost"
        );
    }
    Ok(records.len() as f64 / begun.elapsed().as_secs_f64())
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

//! Our embedded, versioned, hashed store against LevelDB's plain fill: the same records in the same order,
//! in one run.
//!
//! `cargo run --release -p chronolith-bench-compare --features leveldb --bin versions`
//!
//! ```text
//! synced    every batch is on the disk when its writer goes on (ours and LevelDB's)
//! buffered  LevelDB's own fill: nothing is on the disk before the end, where one sync is counted in
//! ```
//! Ours keeps every version, hashes each revision into the log, and its clock runs until a signed
//! checkpoint covers all of it. Several threads write synced batches to LevelDB, so that it can share a
//! sync; ours shares them by waiting behind. Rounds alternate; median and best of each are shown. Values do
//! not compress. Everything is read back and compared after each fill.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chronolith_store::embedded::{Pending, Store};
use clap::Parser;
use comfy_table::{CellAlignment, Table};
use std::{
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    time::Instant,
};

#[cfg(feature = "leveldb")]
#[path = "../engines/leveldb.rs"]
mod leveldb;

/// As in the shipped program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Records of a fill.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// Records of a batch.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000])]
    batch: Vec<usize>,
    /// Threads that write synced batches to LevelDB; batches of ours that may be on their way to the disk.
    #[arg(long, default_value_t = 16)]
    window: usize,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the databases go.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

type Record = (Bytes, Bytes);

/// Something that batches are written to.
#[allow(dead_code, reason = "what the engines' comparison asks of LevelDB too")]
trait Contestant {
    fn write(&self, records: &[Record], sync: bool) -> Result<()>;
    fn delete(&self, records: &[Record]) -> Result<()>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// A way to fill a new directory; records a second.
type Fill = fn(&Path, &[Record], usize, usize) -> Result<f64>;

fn fills() -> Vec<(&'static str, Fill)> {
    let mut all: Vec<(&'static str, Fill)> = vec![("chronolith, synced and proven", ours)];
    #[cfg(feature = "leveldb")]
    all.extend([
        ("leveldb, synced", level::synced as Fill),
        ("leveldb, buffered", level::buffered as Fill),
        ("leveldb, buffered, one record a write", level::one_by_one as Fill),
    ]);
    all
}

fn main() -> Result<()> {
    let args = Args::parse();
    let records = records(&args);
    let mut table = Table::new();
    table.set_header(["fill", "batch", "median, records/s", "best", "of ours"]);
    for batch in &args.batch {
        add_rows(&mut table, &args, &records, *batch)?;
    }
    (2..5).for_each(|column| {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    });
    println!("{table}");
    Ok(())
}

fn add_rows(table: &mut Table, args: &Args, records: &[Record], batch: usize) -> Result<()> {
    let fills = fills();
    let mut rates = vec![Vec::new(); fills.len()];
    for _ in 0..args.rounds {
        for ((_, fill), rates) in fills.iter().zip(&mut rates) {
            let dir = tempfile::tempdir_in(&args.dir)?;
            rates.push(fill(dir.path(), records, batch, args.window)?);
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let medians: Vec<f64> = rates.iter_mut().map(median).collect();
    for (((name, _), rates), rate) in fills.iter().zip(&rates).zip(&medians) {
        let best = rates.last().copied().unwrap_or_default();
        table.add_row([
            (*name).to_owned(),
            batch.to_string(),
            format!("{rate:.0}"),
            format!("{best:.0}"),
            format!("{:.2}", rate / medians[0]),
        ]);
    }
    Ok(())
}

/// Ascending keys; values are stretches of noise, which no compression makes smaller.
fn records(args: &Args) -> Vec<Record> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take((8 << 20) / 8)
    .flatten()
    .collect();
    let places = noise.len() - args.value_bytes;
    let record = |n: usize| {
        let at = n.wrapping_mul(7919) % places;
        (format!("{n:016}").into(), noise.slice(at..at + args.value_bytes))
    };
    (0..args.records).map(record).collect()
}

fn rate(records: &[Record], begun: Instant) -> f64 {
    records.len() as f64 / begun.elapsed().as_secs_f64()
}

fn ours(dir: &Path, records: &[Record], batch: usize, window: usize) -> Result<f64> {
    let store = Store::open(dir)?;
    let begun = Instant::now();
    let (sent, pending) = sync_channel::<Pending<'_>>(window);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || pending.iter().try_for_each(|it| it.wait().map(drop)));
        for records in records.chunks(batch) {
            if sent.send(store.submit_puts(records.iter().cloned())?).is_err() {
                break;
            }
        }
        drop(sent);
        waiter.join().map_err(|_| anyhow::anyhow!("the waiting thread panicked"))??;
        anyhow::Ok(())
    })?;
    store.checkpoint()?;
    let rate = rate(records, begun);
    for (key, value) in records {
        let found = store.get(key.clone())?.context("a record is gone")?;
        ensure!(found.value == *value, "a record has another value");
    }
    store.close()?;
    Ok(rate)
}

#[cfg(feature = "leveldb")]
mod level {
    use super::*;

    fn checked(database: &dyn Contestant, records: &[Record]) -> Result<()> {
        for (key, value) in records {
            let found = database.get(key)?.context("a record is gone")?;
            ensure!(found == *value, "a record has another value");
        }
        Ok(())
    }

    pub(super) fn synced(
        dir: &Path,
        records: &[Record],
        batch: usize,
        threads: usize,
    ) -> Result<f64> {
        let database = leveldb::open(dir)?;
        let begun = Instant::now();
        let share = records.chunks(batch).count().div_ceil(threads) * batch;
        std::thread::scope(|scope| {
            let writers: Vec<_> = records
                .chunks(share)
                .map(|share| {
                    let database = &*database;
                    scope.spawn(move || {
                        share.chunks(batch).try_for_each(|records| database.write(records, true))
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| {
                writer.join().map_err(|_| anyhow::anyhow!("a writing thread panicked"))?
            })
        })?;
        let rate = rate(records, begun);
        checked(&*database, records)?;
        Ok(rate)
    }

    pub(super) fn buffered(dir: &Path, records: &[Record], batch: usize, _: usize) -> Result<f64> {
        let database = leveldb::open(dir)?;
        let begun = Instant::now();
        let mut batches = records.chunks(batch).peekable();
        while let Some(records) = batches.next() {
            database.write(records, batches.peek().is_none())?;
        }
        let rate = rate(records, begun);
        checked(&*database, records)?;
        Ok(rate)
    }

    pub(super) fn one_by_one(dir: &Path, records: &[Record], _: usize, _: usize) -> Result<f64> {
        buffered(dir, records, 1, 1)
    }
}

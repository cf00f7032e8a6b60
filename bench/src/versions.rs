//! `chronolith bench versions`: versioned, hashed, durable records a second, in this process.
//!
//! ```text
//!   batches ─▶ submit ─▶ wait for the disk (a second thread, up to `window` batches behind)
//!                │                └─ clock "durable"
//!                └─ follower ─▶ log ─▶ signed checkpoint ── clock "proven" ─▶ every record read back
//! ```
//! Each row is a database of its own. The rate is records divided by the time until all of them are
//! durable, hashed, and covered by a signed checkpoint. After the clock has stopped, everything is read
//! back and, with `--verify`, hashed again against the log.

use anyhow::{Context, ensure};
use bytes::Bytes;
use chronolith_store::embedded::{Options, Pending, Store};
use comfy_table::Table;
use std::{
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

/// What to write, and where.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Records of each row.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records of a batch; one row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    batch: Vec<u64>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128)]
    value: usize,
    /// Batches that may be on the way to the disk while the next one is applied.
    #[arg(long, default_value_t = 16)]
    window: usize,
    /// Order of the keys: one after the other, scattered, or few keys with many versions.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Order::Sequential])]
    order: Vec<Order>,
    /// Also run each row without the log, and say what the log costs.
    #[arg(long)]
    compare: bool,
    /// Keep the keys on disk (RocksDB) instead of in memory.
    #[arg(long)]
    on_disk: bool,
    /// Hash everything again after each row, and compare it with the log.
    #[arg(long)]
    verify: bool,
    /// Where the databases go; a temporary directory beside it is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Which keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    Sequential,
    Scattered,
    Rewritten,
}

/// Keys that `rewritten` writes again and again.
const HOT_KEYS: u64 = 10_000;

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sequential => "sequential",
            Self::Scattered => "scattered",
            Self::Rewritten => "rewritten",
        })
    }
}

struct Row {
    durable: Duration,
    proven: Duration,
    read_back: u64,
    verified: Option<Duration>,
}

/// Runs the workload; an answer that is not what was written fails it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let home = args.dir.join(format!("bench-versions-{}", std::process::id()));
    std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    let result = rows(args, &home);
    std::fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    println!("{}", result?);
    Ok(())
}

fn rows(args: &Args, home: &Path) -> anyhow::Result<Table> {
    let mut table = Table::new();
    table.set_header(HEADER);
    // Memory is touched for the first time in a process's first rows: each mode runs early and late,
    // and the better run counts.
    let modes: &[bool] = if args.compare { &[false, true, true, false] } else { &[true] };
    let mut number = 0;
    for order in &args.order {
        for batch in &args.batch {
            let mut best: [Option<Row>; 2] = [None, None];
            for &verifiable in modes {
                number += 1;
                let row = row(args, &home.join(number.to_string()), *order, *batch, verifiable)?;
                let best = &mut best[usize::from(verifiable)];
                if best.as_ref().is_none_or(|best| row.proven < best.proven) {
                    *best = Some(row);
                }
            }
            add_rows(&mut table, args, *order, *batch, &best);
        }
    }
    Ok(table)
}

const HEADER: [&str; 8] =
    ["order", "batch", "log", "durable/s", "proven/s", "read back", "verified/s", "log costs"];

/// One line for each mode that ran; what the log costs where both did.
fn add_rows(table: &mut Table, args: &Args, order: Order, batch: u64, best: &[Option<Row>; 2]) {
    let rate = |time: Duration| args.records as f64 / time.as_secs_f64();
    let shown =
        |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.0}", rate(time)));
    let unlogged = best[0].as_ref().map(|row| rate(row.durable));
    for (verifiable, row) in [false, true].into_iter().zip(best) {
        let Some(row) = row else { continue };
        let costs =
            unlogged.filter(|_| verifiable).map(|unlogged| 1.0 - rate(row.proven) / unlogged);
        table.add_row([
            order.to_string(),
            batch.to_string(),
            if verifiable { "on" } else { "off" }.to_owned(),
            shown(Some(row.durable)),
            shown(verifiable.then_some(row.proven)),
            row.read_back.to_string(),
            shown(row.verified),
            costs.map_or("-".to_owned(), |costs| format!("{:.1} %", costs * 100.0)),
        ]);
    }
}

fn row(args: &Args, dir: &Path, order: Order, batch: u64, verifiable: bool) -> anyhow::Result<Row> {
    let options = Options { verifiable, on_disk: args.on_disk, ..Options::default() };
    let store = Store::open_with(dir, &options)?;
    let value = Bytes::from(vec![b'v'; args.value]);
    let begun = Instant::now();
    write(&store, args, order, batch, &value)?;
    let durable = begun.elapsed();
    if verifiable {
        store.checkpoint()?;
    }
    let proven = begun.elapsed();
    let read_back = read_back(&store, args.records, order, &value)?;
    let begun = Instant::now();
    let verified = match args.verify && verifiable {
        true => {
            store.verify(None, &mut |_, _| {})?;
            Some(begun.elapsed())
        }
        false => None,
    };
    store.close()?;
    Ok(Row { durable, proven, read_back, verified })
}

fn write(
    store: &Store,
    args: &Args,
    order: Order,
    batch: u64,
    value: &Bytes,
) -> anyhow::Result<()> {
    let (sent, pending) = sync_channel::<Pending<'_>>(args.window);
    std::thread::scope(|scope| {
        let waiter =
            scope.spawn(move || pending.iter().try_for_each(|pending| pending.wait().map(drop)));
        let mut start = 0;
        while start < args.records {
            let end = (start + batch).min(args.records);
            let writes = (start..end).map(|n| (key(n, order), value.clone()));
            let pending = store.submit_puts(writes)?;
            if sent.send(pending).is_err() {
                break;
            }
            start = end;
        }
        drop(sent);
        waiter.join().map_err(|_| anyhow::anyhow!("the waiting thread panicked"))??;
        Ok(())
    })
}

fn key(number: u64, order: Order) -> Bytes {
    let number = match order {
        Order::Sequential => number,
        // An odd factor scatters all 64-bit numbers without a repetition.
        Order::Scattered => number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        Order::Rewritten => number % HOT_KEYS,
    };
    format!("{number:016x}").into()
}

/// Reads every key and compares its value; how many there were.
fn read_back(store: &Store, records: u64, order: Order, value: &Bytes) -> anyhow::Result<u64> {
    let expected = if order == Order::Rewritten { records.min(HOT_KEYS) } else { records };
    for number in 0..expected {
        let found = store.get(key(number, order))?;
        let found = found.with_context(|| format!("record {number} is gone"))?;
        ensure!(found.value == *value, "record {number} has another value");
        let versions =
            if order == Order::Rewritten { (records - number).div_ceil(HOT_KEYS) } else { 1 };
        ensure!(
            found.version.cast_unsigned() == versions,
            "record {number} has {} versions",
            found.version
        );
    }
    Ok(expected)
}

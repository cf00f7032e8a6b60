//! What a compaction costs, and what it leaves in memory, by how much of removed versions is kept.
//!
//! `cargo run --release -p chronolith-store --example compaction_costs`
#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement may panic")]

use chronolith_store::embedded::{Options, Store, Write};
use std::{
    fs,
    time::{Duration, Instant},
};

const REVISIONS: usize = 200_000;
const KEYS: usize = 50_000;

/// Resident memory in bytes.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn main() {
    let arg = std::env::args().nth(1).unwrap_or_default();
    let (verifiable, meta_retention) = match arg.as_str() {
        "nothing" => (false, Duration::ZERO),
        "hashes" => (true, Duration::ZERO),
        "meta" => (true, Duration::MAX),
        _ => return eprintln!("usage: compaction_costs nothing | hashes | meta"),
    };
    let dir = tempfile::tempdir().unwrap();
    let options = Options { verifiable, meta_retention, ..Options::default() };
    let store = Store::open_with(dir.path(), &options).unwrap();
    for number in 0..REVISIONS {
        let (key, value) = (format!("key/{:08}", number % KEYS), vec![number as u8; 128]);
        let _ = store.submit([Write::Put(key.into(), value.into())]).unwrap();
    }
    store.put("last", "one").unwrap();
    let at = Instant::now();
    store.compact(store.revision()).unwrap();
    let took = at.elapsed();
    let log = store.reader().remains(0, usize::MAX).unwrap();
    let ops: usize = log.iter().map(|remains| remains.changes.len()).sum();
    println!(
        "{arg}: {REVISIONS} revisions of {KEYS} keys: {:.2} us a revision, {} revisions and {ops} operations left, {:.0} MB resident",
        took.as_secs_f64() * 1e6 / REVISIONS as f64,
        log.len(),
        resident() / 1e6
    );
}

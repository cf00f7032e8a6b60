//! What a record costs the embedded store: a fill in batches, with and without the log of the history.
//!
//! `cargo run --release -p chronolith-store --example fill -- [records] [batch] [sequential|scattered] [on|off]`
//!
//! `chronolith bench versions` is the same with more to choose from; this one compiles in a minute, for
//! whoever works on the path of a write.
#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement may panic")]

use bytes::Bytes;
use chronolith_store::embedded::{Options, Store};
use std::{sync::mpsc::sync_channel, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Batches that may be on their way to the disk.
const WINDOW: usize = 16;

fn main() {
    let mut args = std::env::args().skip(1);
    let records: u64 = args.next().map_or(1_000_000, |text| text.parse().unwrap());
    let batch: u64 = args.next().map_or(1_000, |text| text.parse().unwrap());
    let scattered = args.next().is_some_and(|order| order == "scattered");
    let verifiable = args.next().is_none_or(|log| log == "on");
    let dir = tempfile::tempdir_in(".").unwrap();
    let options = Options { verifiable, ..Options::default() };
    let store = Store::open_with(dir.path(), &options).unwrap();
    let value = Bytes::from(vec![b'v'; 128]);
    let key = |n: u64| {
        let n = if scattered { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { n };
        Bytes::from(format!("{n:016x}"))
    };
    let begun = Instant::now();
    let (sent, pending) = sync_channel(WINDOW);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            pending.iter().for_each(|it: chronolith_store::embedded::Pending<'_>| {
                it.wait().unwrap();
            });
        });
        for first in (0..records).step_by(usize::try_from(batch).unwrap()) {
            let pairs = (first..records.min(first + batch)).map(|n| (key(n), value.clone()));
            sent.send(store.submit_puts(pairs).unwrap()).unwrap();
        }
        drop(sent);
        waiter.join().unwrap();
    });
    let durable = begun.elapsed();
    if verifiable {
        store.checkpoint().unwrap();
    }
    let rate = |time: std::time::Duration| records as f64 / time.as_secs_f64();
    println!(
        "batch {batch} {} log {}: durable {:.0}/s, proven {:.0}/s",
        if scattered { "scattered" } else { "sequential" },
        if verifiable { "on" } else { "off" },
        rate(durable),
        rate(begun.elapsed()),
    );
    store.close().unwrap();
}

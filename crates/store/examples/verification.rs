//! How fast a directory is verified: what `chronolith verify DIRECTORY` does, of an embedded database with one
//! record a revision.
//!
//! `cargo run --release -p chronolith-store --example verification -- [revisions] [memory|disk]` (`disk` with
//! `--features rocksdb`)
#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement may panic")]

use bytes::Bytes;
use chronolith_store::{
    embedded::{Options, Store, verify_directory},
    offline::Offline,
};
use std::{sync::mpsc::sync_channel, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Revisions that may be on their way to the disk.
const WINDOW: usize = 1_024;
const VALUE_BYTES: usize = 128;
/// As many as the program proves at once.
const PROVEN_AT_ONCE: i64 = 1_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let revisions: u64 = args.next().map_or(1_000_000, |text| text.parse().unwrap());
    let on_disk = args.next().is_some_and(|engine| engine == "disk");
    let home = tempfile::tempdir_in(".").unwrap();
    let store = Store::open_with(home.path(), &Options { on_disk, ..Options::default() }).unwrap();
    fill(&store, revisions);
    store.checkpoint().unwrap();
    store.close().unwrap();

    let dir = home.path().join("main");
    let begun = Instant::now();
    let report = verify_directory(&dir, None, None, &mut |_, _| {}).unwrap();
    let took = begun.elapsed();
    assert_eq!((report.revisions, report.versions, report.unsigned), (revisions, revisions, 0));
    println!(
        "{revisions} revisions of {VALUE_BYTES} bytes: verified in {:.2} s, {:.0} a second",
        took.as_secs_f64(),
        revisions as f64 / took.as_secs_f64()
    );

    let begun = Instant::now();
    let offline = Offline::open(&dir).unwrap();
    let opened = begun.elapsed();
    let begun = Instant::now();
    let bundle = offline.prove_range(2, 1 + PROVEN_AT_ONCE).unwrap();
    assert_eq!(bundle.revisions.len() as i64, PROVEN_AT_ONCE);
    println!(
        "of that {:.2} s to read the engine; a proof of {PROVEN_AT_ONCE} revisions made in {:.1} ms",
        opened.as_secs_f64(),
        begun.elapsed().as_secs_f64() * 1e3
    );
}

fn fill(store: &Store, revisions: u64) {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let (sent, pending) = sync_channel(WINDOW);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            pending.iter().for_each(|it: chronolith_store::embedded::Pending<'_>| {
                it.wait().unwrap();
            });
        });
        for n in 0..revisions {
            let pair = (Bytes::from(format!("{n:016x}")), value.clone());
            sent.send(store.submit_puts([pair]).unwrap()).unwrap();
        }
        drop(sent);
        waiter.join().unwrap();
    });
}

//! Each figure that RocksDB keeps, against what the test itself counts: bytes of files, of log records,
//! compactions that it asked for, stalls that it caused.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)]

use chronolith_engine::{
    ColumnId, Compression, Durability, Engine, KeyRange, Monitor, Profile, RocksEngine, Stats,
    WriteBatch,
};
use std::{fs, path::Path, time::Duration};

const RECORDS: u32 = 5_000;
const VALUE_BYTES: u64 = 100;
const KEY_BYTES: u64 = 4;

/// No compaction but those that are asked for.
fn profile() -> Profile {
    Profile { compression: Compression::None, level0_trigger: 100, ..Profile::dev() }
}

fn put_all(engine: &dyn Engine, column: ColumnId, durability: Durability) {
    let mut batch = WriteBatch::new();
    for number in 0..RECORDS {
        let value = vec![number as u8; VALUE_BYTES as usize];
        batch.put(column, number.to_be_bytes(), value);
    }
    engine.write(batch, durability).unwrap();
}

fn size_of_tables(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|file| file.extension().is_some_and(|ending| ending == "sst"));
    tables.map(|table| table.metadata().unwrap().len()).sum()
}

#[test]
fn log_flushes_and_compactions_add_up_to_the_write_amplification() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &profile()).unwrap();
    let column = engine.column("c").unwrap();
    let stats = || engine.stats().unwrap();

    let mut batch = WriteBatch::new();
    batch.put(column, "key", "value");
    engine.write(batch, Durability::Buffered).unwrap();
    // Record header, sequence number, RocksDB's header of a batch; tag, column, two lengths, contents.
    assert_eq!(stats().log_bytes, Some(20 + 8 + 12 + 4 + 3 + 5));

    put_all(&engine, column, Durability::NoWal);
    assert_eq!(stats().log_bytes, Some(52), "an unlogged batch is not in the log");
    engine.flush().unwrap();
    let first = size_of_tables(dir.path());
    assert_eq!(stats().flushed_bytes, Some(first));
    put_all(&engine, column, Durability::NoWal);
    engine.flush().unwrap();
    let both = size_of_tables(dir.path());
    assert_eq!(stats().flushed_bytes, Some(both));
    assert_eq!(stats().compactions.unwrap().count, Some(0));

    let before = stats();
    engine.compact_range(column, KeyRange::all()).unwrap();
    let (after, left) = (stats(), size_of_tables(dir.path()));
    let compactions = after.compactions.unwrap();
    assert_eq!(compactions.count, Some(1));
    assert_eq!(compactions.written_bytes, left);
    assert!(compactions.read_bytes >= both * 9 / 10, "{compactions:?}, {both} bytes to read");
    let time = compactions.time.unwrap();
    assert!(time > Duration::ZERO && time <= after.open_for - before.open_for, "{time:?}");
    assert!(compactions.cpu_time <= time);

    let written = 8 + 2 * u64::from(RECORDS) * (KEY_BYTES + VALUE_BYTES);
    assert_eq!(after.bytes_written, written);
    let amplification = (52 + both + left) as f64 / written as f64;
    assert_eq!(after.write_amplification(), Some(amplification));
    assert_eq!(after.estimated_keys, Some(u64::from(RECORDS) + 1));
    let live = after.live_bytes.unwrap();
    assert!(live > left * 9 / 10 && live <= left, "{live} of {left} bytes are live");
    let ratio = after.compression_ratio.unwrap();
    assert!((0.9..1.2).contains(&ratio), "nothing is compressed: {ratio}");
}

#[test]
fn every_block_is_found_or_missed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &profile()).unwrap();
    let column = engine.column("c").unwrap();
    put_all(&engine, column, Durability::NoWal);
    engine.flush().unwrap();
    let get = |number: u32| engine.get(column, &number.to_be_bytes()).unwrap().unwrap();
    get(0);
    let before = engine.stats().unwrap();
    (0..500).for_each(|_| drop(get(0)));
    let after = engine.stats().unwrap();
    let (before_cache, after_cache) = (before.cache.unwrap(), after.cache.unwrap());
    assert_eq!(after_cache.misses, before_cache.misses, "the block is cached");
    assert!(after_cache.hits >= before_cache.hits + 500);
    assert_eq!(after.since(&before).cache_hit_rate, Some(1.0));
    get(RECORDS - 1);
    let missed = engine.stats().unwrap();
    assert_eq!(missed.cache.unwrap().misses, after_cache.misses + 1, "another block");
    assert!(missed.memory.cache.unwrap() > after.memory.cache.unwrap());
}

/// Memtables that fill faster than they are flushed stop the writers.
fn stalled() -> (Stats, Stats) {
    let dir = tempfile::tempdir().unwrap();
    let starved =
        Profile { write_buffer_bytes: 64 << 10, write_buffers: 2, background_jobs: 1, ..profile() };
    let engine = RocksEngine::open(dir.path(), &starved).unwrap();
    let column = engine.column("c").unwrap();
    let before = engine.stats().unwrap();
    for number in 0..4_000u32 {
        let mut batch = WriteBatch::new();
        batch.put(column, number.to_be_bytes(), vec![0; 1_000]);
        engine.write(batch, Durability::NoWal).unwrap();
    }
    (before, engine.stats().unwrap())
}

#[test]
fn stalls_are_timed_and_warned_of() {
    let (before, after) = stalled();
    assert_eq!(before.stalled, Some(Duration::ZERO));
    let stalled = after.stalled.unwrap();
    assert!(stalled > Duration::ZERO && stalled <= after.open_for, "{stalled:?}");
    let share = after.since(&before).stalled_share.unwrap();
    let expected = stalled.as_secs_f64() / (after.open_for - before.open_for).as_secs_f64();
    assert!((share - expected).abs() < 1e-9, "{share} {expected}");

    let mut monitor = Monitor::default();
    monitor.thresholds.stalled_share = share / 2.0;
    monitor.lines(before.clone());
    let line = |lines: Vec<chronolith_engine::Line>| {
        lines.into_iter().find(|line| line.name == "writers stalled").unwrap()
    };
    assert!(line(monitor.lines(after.clone())).warns);
    let mut calm = Monitor::default();
    calm.thresholds.stalled_share = share * 2.0;
    calm.lines(before);
    assert!(!line(calm.lines(after.clone())).warns);
    assert!(after.open_metrics().contains("stall"), "{}", after.open_metrics());
}

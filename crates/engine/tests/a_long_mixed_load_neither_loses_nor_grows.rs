//! Hours of mixed load with checkpoints, compactions and reopenings; everything is verified, and the
//! process may not grow.
//!
//! ```text
//! MALLOC_ARENA_MAX=1 CHRONOLITH_SOAK_SECONDS=14400 cargo test --release -p chronolith-engine --features rocksdb \
//!     --test a_long_mixed_load_neither_loses_nor_grows -- --ignored --nocapture --test-threads 1
//! ```
//! With one arena, since glibc keeps what was freed apart for each thread: with its default of eight a core the
//! process grows for a while without losing anything.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::Backend;
use bytes::Bytes;
use chronolith_engine::{
    Checkpoints, ColumnId, Durability, Engine, KeyRange, WriteBatch, copy_checkpoint,
};
use std::{
    env, fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const SECONDS: &str = "CHRONOLITH_SOAK_SECONDS";
const DEFAULT_SECONDS: u64 = 4 * 3600;
/// The engine is open for so long at a time; half-way a checkpoint is taken and a compaction runs.
const ROUND: Duration = Duration::from_secs(10);
/// Rounds and batches after which caches and allocators have reached their size: on a busy machine the
/// first rounds do little.
const WARM_ROUNDS: u32 = 2;
const WARM_BATCHES: u64 = 100_000;
const WRITERS: u32 = 2;
const KEYS: u32 = 40_000;
/// The least of so many rounds is set against the least of as many before: what an allocator keeps goes up
/// and down from round to round, what leaks never goes down.
const COMPARED_ROUNDS: usize = 10;
/// How far that may grow after the process is warm.
const GROWTH: f64 = 1.5;

#[test]
#[ignore = "hours long; the command is above"]
fn memory() {
    soak(&backend::DURABLE);
}

#[cfg(feature = "rocksdb")]
#[test]
#[ignore = "hours long; the command is above"]
fn rocksdb() {
    soak(&backend::ROCKSDB);
}

/// The version that each key must have; 0 where it must be absent.
type Model = Vec<u32>;

fn soak(backend: &Backend) {
    let seconds = env::var(SECONDS).map_or(DEFAULT_SECONDS, |text| text.parse().unwrap());
    let (dir, begun) = (tempfile::tempdir().unwrap(), Instant::now());
    let mut models: Vec<Model> = vec![vec![0; KEYS as usize]; WRITERS as usize];
    let mut warm_kib: Vec<u64> = Vec::new();
    let (mut round, mut batches) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) || round <= WARM_ROUNDS {
        let engine = (backend.create)(&dir.path().join("engine"));
        let column = engine.column("c").unwrap();
        verify(&*engine, column, &models);
        let writes = one_round(backend, &*engine, column, dir.path(), &mut models);
        verify(&*engine, column, &models);
        let stats = engine.stats().unwrap();
        engine.close().unwrap();
        let now_kib = resident_kib();
        println!(
            "{:>6} s  round {round}: {writes} batches, {now_kib} KiB resident, disk {} MiB",
            begun.elapsed().as_secs(),
            stats.disk_bytes.unwrap_or(0) >> 20
        );
        batches += writes;
        if round >= WARM_ROUNDS && batches >= WARM_BATCHES {
            warm_kib.push(now_kib);
        }
        check_growth(&warm_kib);
        round += 1;
    }
}

fn check_growth(resident_kib: &[u64]) {
    let rounds = resident_kib.chunks_exact(COMPARED_ROUNDS);
    let mut least = rounds.map(|rounds| rounds.iter().min().copied().unwrap_or(0));
    let Some((first, last)) = least.next().zip(least.next_back()) else { return };
    assert!(last as f64 <= first as f64 * GROWTH, "{last} KiB at least, at first {first}");
}

fn one_round(
    backend: &Backend,
    engine: &dyn Engine,
    column: ColumnId,
    dir: &Path,
    models: &mut [Model],
) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        let write =
            |(writer, model)| scope.spawn(move || writes(engine, column, writer, model, done));
        let writers: Vec<_> = (0..).zip(models).map(write).collect();
        let reader = scope.spawn(move || reads(engine, column, done));
        thread::sleep(ROUND / 2);
        let checkpoints = Checkpoints::new(dir.join("checkpoints"), 2);
        let checkpoint = checkpoints.take(engine).unwrap();
        engine.compact_range(column, KeyRange::all()).unwrap();
        opens(backend, &checkpoint, &dir.join("copy"));
        thread::sleep(ROUND / 2);
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    })
}

/// A checkpoint taken in the middle of writing holds whole batches.
fn opens(backend: &Backend, checkpoint: &Path, copy: &Path) {
    copy_checkpoint(checkpoint, copy).unwrap();
    let engine = (backend.restore)(copy).unwrap();
    let column = engine.column("c").unwrap();
    check_pairs(&*engine, column);
    drop(engine);
    fs::remove_dir_all(copy).unwrap();
}

fn key(writer: u32, number: u32) -> [u8; 8] {
    (u64::from(writer) << 32 | u64::from(number)).to_be_bytes()
}

/// The version, then bytes that follow from it.
fn value(version: u32) -> Bytes {
    let mut value = version.to_be_bytes().to_vec();
    value.resize(4 + 50 + version as usize % 300, version as u8);
    value.into()
}

fn version(value: &[u8]) -> u32 {
    let version = u32::from_be_bytes(value[..4].try_into().unwrap());
    assert_eq!(value, self::value(version), "a value is damaged");
    version
}

/// Writes batches of neighbouring pairs, always both keys of a pair to the same version.
fn writes(
    engine: &dyn Engine,
    column: ColumnId,
    writer: u32,
    model: &mut Model,
    done: &AtomicBool,
) -> u64 {
    let (mut batches, mut state) = (0, u64::from(writer) << 32 | u64::from(model[0]));
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32
    };
    let mut last = model.iter().copied().max().unwrap_or(0);
    while !done.load(Ordering::Relaxed) {
        let mut batch = WriteBatch::new();
        last += 1;
        for _ in 0..1 + random() % 50 {
            let pair = random() % (KEYS / 2) * 2;
            let removed = random().is_multiple_of(8);
            for number in [pair, pair + 1] {
                match removed {
                    true => batch.delete(column, key(writer, number)),
                    false => batch.put(column, key(writer, number), value(last)),
                }
                model[number as usize] = if removed { 0 } else { last };
            }
        }
        let sync = random().is_multiple_of(64);
        engine.write(batch, if sync { Durability::Sync } else { Durability::Buffered }).unwrap();
        batches += 1;
    }
    batches
}

/// Reads single keys, whose versions never go back, and whole views, whose pairs agree.
fn reads(engine: &dyn Engine, column: ColumnId, done: &AtomicBool) {
    let mut newest = vec![0; (WRITERS * KEYS) as usize];
    for step in 0u32.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let place = step.wrapping_mul(2_654_435_761) % (WRITERS * KEYS);
        let found = engine.get(column, &key(place / KEYS, place % KEYS)).unwrap();
        if let Some(found) = found {
            let seen = &mut newest[place as usize];
            let version = version(&found);
            assert!(version >= *seen, "a key went back from version {seen} to {version}");
            *seen = version;
        }
        if step % 50_000 == 0 {
            check_pairs(engine, column);
        }
    }
}

/// Both keys of a pair are there in the same version, or neither.
fn check_pairs(engine: &dyn Engine, column: ColumnId) {
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        let (first, of_first) = (cursor.key_bytes(), version(cursor.value()));
        assert_eq!(first[7] % 2, 0, "the first of a pair is missing");
        cursor.next().unwrap();
        assert!(cursor.valid() && cursor.key()[..7] == first[..7], "half a pair");
        assert_eq!(version(cursor.value()), of_first, "a pair of two versions");
        cursor.next().unwrap();
    }
}

fn verify(engine: &dyn Engine, column: ColumnId, models: &[Model]) {
    for (writer, model) in (0..).zip(models) {
        for (number, expected) in (0..).zip(model) {
            let found = engine.get(column, &key(writer, number)).unwrap();
            assert_eq!(found.map_or(0, |found| version(&found)), *expected, "{writer}/{number}");
        }
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

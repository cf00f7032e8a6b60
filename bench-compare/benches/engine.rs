//! Micro-benchmarks of the engines, with Criterion's HTML report.
//!
//! `cargo bench -p chronolith-bench-compare --bench engine` (add `--features rocksdb`), then
//! `target/criterion/report/index.html`.
#![allow(missing_docs, clippy::unwrap_used, reason = "Criterion's macros; a benchmark may panic")]

use chronolith_engine::{
    ColumnId, Durability, Engine, KeyRange, MemoryEngine, Overlay, WriteBatch,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::{hint::black_box, sync::Arc};

const RECORDS: u64 = 100_000;

fn key(number: u64) -> Vec<u8> {
    format!("key/{number:012}").into_bytes()
}

fn batch(column: ColumnId, first: u64, count: u64) -> WriteBatch {
    let mut batch = WriteBatch::with_capacity(count as usize, count as usize * 116);
    for number in first..first + count {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % RECORDS;
        batch.put(column, key(number), vec![b'v'; 100]);
    }
    batch
}

fn filled(engine: Arc<dyn Engine>) -> (Arc<dyn Engine>, ColumnId) {
    let column = engine.column("c").unwrap();
    let mut batch = WriteBatch::new();
    (0..RECORDS).for_each(|number| batch.put(column, key(number), vec![b'v'; 100]));
    engine.write(batch, Durability::NoWal).unwrap();
    (engine, column)
}

fn reads(criterion: &mut Criterion, engine: &Arc<dyn Engine>, column: ColumnId) {
    let mut group = criterion.benchmark_group(engine.name());
    let mut number = 0;
    let mut next = move || {
        number = (number + 7919) % RECORDS;
        key(number)
    };
    group.bench_function("get, hit", |bencher| {
        bencher.iter_batched(
            &mut next,
            |key| black_box(engine.get(column, &key)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("get, miss", |bencher| {
        bencher.iter(|| black_box(engine.get(column, b"key/absent")));
    });
    group.bench_function("snapshot", |bencher| bencher.iter(|| black_box(engine.snapshot())));
    group.bench_function("seek and 10 steps", |bencher| {
        let snapshot = engine.snapshot().unwrap();
        bencher.iter_batched(
            || key(RECORDS / 3),
            |key| {
                let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
                cursor.seek(&key).unwrap();
                (0..10).for_each(|_| cursor.next().unwrap());
                black_box(cursor.value().len())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn writes(criterion: &mut Criterion, engine: &Arc<dyn Engine>, column: ColumnId) {
    let mut group = criterion.benchmark_group(engine.name());
    for size in [1, 3, 100, 1000] {
        let mut first = 0;
        group.bench_function(format!("batch of {size}, no log"), |bencher| {
            bencher.iter_batched(
                || {
                    first += size;
                    batch(column, first, size)
                },
                |batch| engine.write(batch, Durability::NoWal).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("batch of 3 beside a snapshot", |bencher| {
        let mut first = 0;
        bencher.iter_batched(
            || {
                first += 3;
                (engine.snapshot().unwrap(), batch(column, first, 3))
            },
            |(snapshot, batch)| {
                engine.write(batch, Durability::NoWal).unwrap();
                snapshot
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("transaction of 3 puts and 3 gets", |bencher| {
        bencher.iter(|| {
            let mut overlay = Overlay::new(Arc::clone(engine)).unwrap();
            for number in 0..3 {
                overlay.put(column, key(number), "value");
                black_box(overlay.get(column, &key(number)).unwrap());
            }
            overlay.commit(Durability::NoWal).unwrap();
        });
    });
    group.finish();
}

fn memory(criterion: &mut Criterion) {
    let (engine, column) = filled(Arc::new(MemoryEngine::new()));
    reads(criterion, &engine, column);
    writes(criterion, &engine, column);
}

#[cfg(feature = "rocksdb")]
fn rocksdb(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let engine =
        chronolith_engine::RocksEngine::open(dir.path(), &chronolith_engine::Profile::default());
    let (engine, column) = filled(Arc::new(engine.unwrap()));
    engine.flush().unwrap();
    reads(criterion, &engine, column);
    writes(criterion, &engine, column);
}

#[cfg(not(feature = "rocksdb"))]
fn rocksdb(_criterion: &mut Criterion) {}

criterion_group!(engines, memory, rocksdb);
criterion_main!(engines);

//! The workloads. Each fills a fresh engine, measures, and checks every answer.

use super::{
    Scale,
    data::{self, Kind as Data, Rng, Zipf, is_value_of, key, scattered, value},
    report::Row,
    subject::{Kind, Subject},
};
use crate::interrupt;
use anyhow::{Context, Result, ensure};
use chronolith_engine::{BulkLoader, ColumnId, Durability, Engine, KeyRange, Profile, WriteBatch};
use hdrhistogram::Histogram;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const RANGE: u64 = 100;
pub(super) const DURABILITIES: [(&str, Durability); 3] = [
    ("log off", Durability::NoWal),
    ("log on", Durability::Buffered),
    ("synced", Durability::Sync),
];

/// What a suite measures with.
pub(super) struct Bench<'a> {
    pub(super) scale: &'a Scale,
    pub(super) kind: Kind,
    pub(super) profile: Profile,
    pub(super) rows: Vec<Row>,
    pub(super) each: &'a dyn Fn(&Row),
}

/// Latencies in nanoseconds, up to a minute, right within 1 %.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("the bounds are sound constants")
}

/// Runs `operation` so often, and times each.
pub(super) fn timed(
    count: u64,
    mut operation: impl FnMut(u64) -> Result<()>,
) -> Result<(Duration, Histogram<u64>)> {
    let mut latencies = histogram();
    let begun = Instant::now();
    let mut last = begun;
    for number in 0..count {
        interrupt::check()?;
        operation(number)?;
        let now = Instant::now();
        latencies.saturating_record((now - last).as_nanos() as u64);
        last = now;
    }
    Ok((last - begun, latencies))
}

fn put(
    engine: &dyn Engine,
    column: ColumnId,
    number: u64,
    size: usize,
    durability: Durability,
) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.put(column, key(number), value(number, Data::Json, size));
    Ok(engine.write(batch, durability)?)
}

pub(super) fn check(engine: &dyn Engine, column: ColumnId, number: u64) -> Result<()> {
    let found = engine.get(column, &key(number))?;
    ensure!(
        found.is_some_and(|found| is_value_of(&found, number)),
        "record {number} is lost or wrong"
    );
    Ok(())
}

/// A key just below that of record `number`, which no record has.
fn absent(number: u64) -> [u8; 16] {
    let mut key = key(number);
    key[15] = b'-';
    key
}

/// Ready-made values: making them must not be measured.
pub(super) fn values(count: u64, size: usize) -> Vec<bytes::Bytes> {
    (0..count).map(|number| value(number, Data::Json, size).into()).collect()
}

impl Bench<'_> {
    pub(super) fn subject(&self) -> Result<(Subject, ColumnId)> {
        self.subject_with(&self.profile)
    }

    pub(super) fn subject_with(&self, profile: &Profile) -> Result<(Subject, ColumnId)> {
        interrupt::check()?;
        let subject = Subject::new(self.kind, &self.scale.dir, profile)?;
        let column = subject.engine.column("bench")?;
        Ok((subject, column))
    }

    pub(super) fn loaded(&self, profile: &Profile) -> Result<(Subject, ColumnId)> {
        let (subject, column) = self.subject_with(profile)?;
        let mut loader = BulkLoader::new(&*subject.engine, Durability::NoWal);
        for number in 0..self.scale.records {
            let number = scattered(number, self.scale.records);
            loader.put(column, key(number), value(number, Data::Json, self.scale.value_bytes))?;
        }
        loader.finish()?;
        subject.engine.flush()?;
        Ok((subject, column))
    }

    pub(super) fn row(&self, suite: &'static str, case: impl Into<String>) -> Row {
        Row::new(suite, self.kind.name(), case)
    }

    pub(super) fn done(&mut self, row: Row) {
        (self.each)(&row);
        self.rows.push(row);
    }

    /// Batch sizes × log off, on, synced; random order of keys.
    pub(super) fn batches(&mut self) -> Result<()> {
        for size in [100, 500, 1_000, 5_000, 10_000, 100_000] {
            for (name, durability) in DURABILITIES {
                let count = self.scale.operations.max(size);
                let row = self.batch_case(size, count, durability)?;
                self.done(Row { case: format!("{size} records, {name}"), ..row });
            }
        }
        Ok(())
    }

    fn batch_case(&self, size: u64, count: u64, durability: Durability) -> Result<Row> {
        let (subject, column) = self.subject()?;
        let values = values(count, self.scale.value_bytes);
        let record_bytes = key(0).len() + self.scale.value_bytes;
        let mut latencies = histogram();
        let begun = Instant::now();
        for first in (0..count).step_by(size as usize) {
            let mut batch = WriteBatch::with_capacity(size as usize, size as usize * record_bytes);
            for number in first..(first + size).min(count) {
                let number = scattered(number, count);
                batch.put(column, key(number), &values[number as usize]);
            }
            let written = Instant::now();
            subject.engine.write(batch, durability)?;
            latencies.saturating_record(written.elapsed().as_nanos() as u64);
        }
        let took = begun.elapsed();
        (0..count).step_by(97).try_for_each(|number| check(&*subject.engine, column, number))?;
        Ok(self.row("batches", "").took(count, took).latencies(&latencies))
    }

    pub(super) fn reads(&mut self) -> Result<()> {
        let (subject, column) = self.loaded(&self.profile)?;
        let (engine, records, operations) =
            (&*subject.engine, self.scale.records, self.scale.operations);
        let mut rng = Rng::new(1);
        let (took, latencies) = timed(operations, |_| check(engine, column, rng.below(records)))?;
        self.done(self.row("reads", "random, hit").took(operations, took).latencies(&latencies));

        let miss = |number| {
            let found = engine.get(column, &absent(number))?;
            ensure!(found.is_none(), "a record that was never written");
            Ok(())
        };
        let (took, latencies) = timed(operations, |_| miss(rng.below(records)))?;
        self.done(self.row("reads", "random, miss").took(operations, took).latencies(&latencies));

        let (took, latencies) =
            timed(operations, |number| check(engine, column, number % records))?;
        self.done(
            self.row("reads", "sequential, hit").took(operations, took).latencies(&latencies),
        );

        let (took, latencies) = timed(operations, |number| miss(number % records))?;
        self.done(
            self.row("reads", "sequential, miss").took(operations, took).latencies(&latencies),
        );

        let begun = Instant::now();
        let scanned = scan(engine, column, KeyRange::all())?;
        ensure!(scanned == records, "{scanned} of {records} records scanned");
        self.done(self.row("reads", "scan of everything").took(records, begun.elapsed()));

        let begun = Instant::now();
        let scanned = scan_back(engine, column, KeyRange::all())?;
        ensure!(scanned == records, "{scanned} of {records} records scanned backward");
        self.done(self.row("reads", "scan backward").took(records, begun.elapsed()));

        let ranges = operations / 20;
        let (took, latencies) = timed(ranges, |_| {
            let first = rng.below(records.saturating_sub(RANGE).max(1));
            let last = (first + RANGE).min(records);
            let range = KeyRange::half_open(key(first).to_vec().into(), key(last).to_vec().into());
            ensure!(scan(engine, column, range)? == last - first, "a range lacks records");
            Ok(())
        })?;
        self.done(self.row("reads", "ranges of 100").took(ranges, took).latencies(&latencies));

        let (took, latencies) = timed(ranges, |_| {
            let number = rng.below(records);
            let (start, end) = (absent(number).to_vec().into(), key(number).to_vec().into());
            let found = scan(engine, column, KeyRange::half_open(start, end))?;
            ensure!(found == 0, "a record that was never written");
            Ok(())
        })?;
        self.done(self.row("reads", "ranges, miss").took(ranges, took).latencies(&latencies));
        Ok(())
    }

    pub(super) fn writes(&mut self) -> Result<()> {
        let (count, size) = (self.scale.operations, self.scale.value_bytes);
        for (name, random) in [("sequential, one by one", false), ("random, one by one", true)] {
            let (subject, column) = self.subject()?;
            let (took, latencies) = timed(count, |number| {
                let number = if random { scattered(number, count) } else { number };
                put(&*subject.engine, column, number, size, Durability::Buffered)
            })?;
            (0..count)
                .step_by(97)
                .try_for_each(|number| check(&*subject.engine, column, number))?;
            self.done(self.row("writes", name).took(count, took).latencies(&latencies));
        }
        // A sync takes about a millisecond, and all threads together must not take minutes.
        let synced = (count / 100).clamp(20, 2_000);
        for threads in [1, 2, 4, 16] {
            for (name, durability, count) in
                [("log on", Durability::Buffered, count), ("synced", Durability::Sync, synced)]
            {
                let (subject, column) = self.subject()?;
                let (took, latencies) = concurrent(threads, count, |thread, number| {
                    let number = scattered(thread * count + number, threads * count);
                    put(&*subject.engine, column, number, size, durability)
                })?;
                let all = threads * count;
                (0..all)
                    .step_by(97)
                    .try_for_each(|number| check(&*subject.engine, column, number))?;
                let case = format!("random, {threads} threads, {name}");
                self.done(self.row("writes", case).took(all, took).latencies(&latencies));
            }
        }
        Ok(())
    }

    pub(super) fn mixed(&mut self) -> Result<()> {
        for (case, reads_percent) in
            [("80 % reads, 20 % writes", 80), ("50 % reads, 50 % writes", 50)]
        {
            let row = self.mixed_case(reads_percent)?;
            self.done(Row { case: case.into(), ..row });
        }
        Ok(())
    }

    pub(super) fn mixed_case(&self, reads_percent: u64) -> Result<Row> {
        const THREADS: u64 = 2;
        let (subject, column) = self.loaded(&self.profile)?;
        let (engine, records, size) =
            (&*subject.engine, self.scale.records, self.scale.value_bytes);
        let count = self.scale.operations / THREADS;
        let (took, latencies) = concurrent(THREADS, count, |thread, number| {
            let mut rng = Rng::new(thread << 32 | number);
            let record = rng.below(records);
            match rng.below(100) < reads_percent {
                true => check(engine, column, record),
                false => put(engine, column, record, size, Durability::Buffered),
            }
        })?;
        Ok(self.row("mixed", "").took(count * THREADS, took).latencies(&latencies))
    }

    /// YCSB's core workloads: with their standard distributions, then all keys alike.
    pub(super) fn ycsb(&mut self) -> Result<()> {
        let zipf = Zipf::new(self.scale.records);
        for workload in ['A', 'B', 'C', 'D', 'E', 'F'] {
            let standard = if workload == 'D' { Keys::Latest } else { Keys::Zipfian };
            for keys in [standard, Keys::Uniform] {
                self.ycsb_case(workload, keys, &zipf)?;
            }
        }
        Ok(())
    }

    fn ycsb_case(&mut self, workload: char, keys: Keys, zipf: &Zipf) -> Result<()> {
        let (subject, column) = self.loaded(&self.profile)?;
        let run = Ycsb {
            engine: &*subject.engine,
            column,
            keys,
            zipf,
            size: self.scale.value_bytes,
            inserted: AtomicU64::new(self.scale.records),
        };
        let count = self.scale.operations / if workload == 'E' { 10 } else { 1 };
        let mut rng = Rng::new(u64::from(workload as u32));
        let (took, latencies) = timed(count, |_| run.operation(workload, &mut rng))?;
        let case = format!("workload {workload}, {}", keys.name());
        self.done(self.row("ycsb", case).took(count, took).latencies(&latencies));
        Ok(())
    }

    /// What the engine must reach on a machine of two cores.
    pub(super) fn targets(&mut self) -> Result<()> {
        const BATCH: u64 = 100_000;
        const BATCH_SECONDS: f64 = 0.2;
        const GETS_PER_S: f64 = 300_000.0;
        const P99_US: f64 = 1_000.0;
        // The median of three: a single sync says what else the disk was doing.
        let rounds = (0..3).map(|_| self.batch_case(BATCH, BATCH, Durability::Sync));
        let mut rounds = rounds.collect::<Result<Vec<_>>>()?;
        rounds.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let row = rounds.swap_remove(1);
        let note = format!("under {BATCH_SECONDS} s");
        let passed = Some(row.seconds < BATCH_SECONDS);
        self.done(Row {
            suite: "targets",
            case: "100 K records, one synced batch".into(),
            note,
            passed,
            ..row
        });

        let (subject, column) = self.loaded(&self.profile)?;
        let (engine, records) = (&*subject.engine, self.scale.records);
        // Once through everything, so that it is cached.
        (0..records).try_for_each(|number| check(engine, column, number))?;
        let numbers: Vec<[u8; 16]> =
            (0..self.scale.operations).map(|n| key(data::mix(n) % records)).collect();
        let begun = Instant::now();
        for key in &numbers {
            ensure!(engine.get(column, key)?.is_some(), "a record is lost");
        }
        let row = self.row("targets", format!("random gets of {records} cached keys, one thread"));
        let row = row.took(numbers.len() as u64, begun.elapsed());
        let (passed, note) = (Some(row.per_s >= GETS_PER_S), format!("at least {GETS_PER_S}/s"));
        self.done(Row { note, passed, ..row });
        drop(subject);

        let row = self.mixed_case(50)?;
        let passed = row.p99_us.map(|p99| p99 < P99_US);
        let case = "p99 at half reads, half writes".into();
        self.done(Row { suite: "targets", case, note: "under 1 ms".into(), passed, ..row });
        Ok(())
    }
}

fn scan(engine: &dyn Engine, column: ColumnId, range: KeyRange) -> Result<u64> {
    let snapshot = engine.snapshot()?;
    let mut cursor = snapshot.cursor(column, range)?;
    cursor.seek_to_first()?;
    let mut count = 0;
    while cursor.valid() {
        ensure!(cursor.value().len() >= 16, "a value is cut short");
        count += 1;
        cursor.next()?;
    }
    Ok(count)
}

fn scan_back(engine: &dyn Engine, column: ColumnId, range: KeyRange) -> Result<u64> {
    let snapshot = engine.snapshot()?;
    let mut cursor = snapshot.cursor(column, range)?;
    cursor.seek_to_last()?;
    let mut count = 0;
    while cursor.valid() {
        count += 1;
        cursor.prev()?;
    }
    Ok(count)
}

/// Runs `operation` so often on each thread; the time is that of the slowest.
fn concurrent(
    threads: u64,
    count: u64,
    operation: impl Fn(u64, u64) -> Result<()> + Sync,
) -> Result<(Duration, Histogram<u64>)> {
    let operation = &operation;
    let begun = Instant::now();
    let parts = thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || timed(count, |number| operation(thread, number)));
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        let join =
            |handle: thread::ScopedJoinHandle<'_, Result<_>>| handle.join().expect("no panic");
        handles.into_iter().map(join).collect::<Result<Vec<(Duration, Histogram<u64>)>>>()
    })?;
    let took = begun.elapsed();
    let mut sum = histogram();
    parts.iter().try_for_each(|(_, part)| sum.add(part)).context("histograms differ")?;
    Ok((took, sum))
}

/// Which records are asked for.
#[derive(Clone, Copy)]
enum Keys {
    /// Few again and again, wherever they lie.
    Zipfian,
    /// The newest most often.
    Latest,
    /// All alike.
    Uniform,
}

impl Keys {
    fn name(self) -> &'static str {
        match self {
            Self::Zipfian => "zipfian",
            Self::Latest => "latest",
            Self::Uniform => "uniform",
        }
    }
}

struct Ycsb<'a> {
    engine: &'a dyn Engine,
    column: ColumnId,
    keys: Keys,
    zipf: &'a Zipf,
    size: usize,
    /// Records written so far: inserts continue behind them.
    inserted: AtomicU64,
}

impl Ycsb<'_> {
    fn operation(&self, workload: char, rng: &mut Rng) -> Result<()> {
        let percent = rng.below(100);
        match workload {
            'A' if percent < 50 => self.update(self.record(rng)),
            'B' if percent < 5 => self.update(self.record(rng)),
            'D' | 'E' if percent < 5 => self.insert(),
            'E' => self.scan(self.record(rng), 1 + rng.below(RANGE)),
            'F' if percent < 50 => {
                let record = self.record(rng);
                self.read(record)?;
                self.update(record)
            }
            _ => self.read(self.record(rng)),
        }
    }

    fn record(&self, rng: &mut Rng) -> u64 {
        let inserted = self.inserted.load(Ordering::Relaxed);
        match self.keys {
            Keys::Zipfian => self.zipf.scrambled(rng),
            Keys::Latest => inserted - 1 - self.zipf.rank(rng),
            Keys::Uniform => rng.below(inserted),
        }
    }

    fn read(&self, record: u64) -> Result<()> {
        check(self.engine, self.column, record)
    }

    fn update(&self, record: u64) -> Result<()> {
        put(self.engine, self.column, record, self.size, Durability::Buffered)
    }

    fn insert(&self) -> Result<()> {
        let record = self.inserted.load(Ordering::Relaxed);
        self.update(record)?;
        self.inserted.store(record + 1, Ordering::Relaxed);
        Ok(())
    }

    fn scan(&self, first: u64, count: u64) -> Result<()> {
        let last = (first + count).min(self.inserted.load(Ordering::Relaxed));
        let range = KeyRange::half_open(key(first).to_vec().into(), key(last).to_vec().into());
        ensure!(scan(self.engine, self.column, range)? == last - first, "a scan lacks records");
        Ok(())
    }
}

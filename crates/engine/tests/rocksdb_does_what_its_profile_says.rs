//! What only the disk engine has: codecs, files, damage in them, statistics of RocksDB's own.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)]

use chronolith_engine::{
    ColumnId, Compression, Durability, Engine, Error, KeyRange, Profile, RocksEngine, WriteBatch,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const RECORDS: u32 = 20_000;

/// A configuration record, as services keep them: no two alike.
fn record(number: u32) -> String {
    let id = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{{\"service\":\"api-{}\",\"id\":\"{id:016x}\",\"port\":{},\"region\":\"eu-west-{}\",\
         \"replicas\":{},\"enabled\":true,\"image\":\"registry.example.com/api:1.{}\"}}",
        number % 97,
        1024 + id % 60_000,
        number % 3,
        number % 7,
        id % 31
    )
}

fn load(engine: &RocksEngine, column: ColumnId) {
    let mut batch = WriteBatch::new();
    for number in 0..RECORDS {
        batch.put(column, format!("config/{number:08}"), record(number));
    }
    engine.write(batch, Durability::Buffered).unwrap();
    engine.flush().unwrap();
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "sst")).collect()
}

/// The codec of a table's blocks, from its properties, which are never compressed themselves. Their
/// keys share prefixes: `rocksdb.compression` follows `rocksdb.comparator`. The value is the name of a
/// set of codecs and the numbers of those that were used.
fn codec(file: &Path) -> &'static str {
    const CODECS: [(&str, &str); 4] = [
        ("ression;;", "none"),
        ("ressionBuiltinV2;01;", "snappy"),
        ("ressionBuiltinV2;04;", "lz4"),
        ("ressionBuiltinV2;07;", "zstd"),
    ];
    let bytes = fs::read(file).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let found: Vec<_> = CODECS.iter().filter(|(text, _)| has(text)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].1
}

#[test]
fn tables_are_compressed_with_the_codec_that_was_chosen() {
    let cases = [
        (Compression::None, "none", "none"),
        (Compression::Snappy, "snappy", "snappy"),
        (Compression::Lz4, "lz4", "lz4"),
        (Compression::Zstd, "zstd", "zstd"),
        (Compression::Tiered, "none", "zstd"),
    ];
    for (compression, fresh, compacted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile { compression, ..Profile::dev() };
        let engine = RocksEngine::open(dir.path(), &profile).unwrap();
        let column = engine.column("c").unwrap();
        load(&engine, column);
        assert!(
            tables(dir.path()).iter().all(|file| codec(file) == fresh),
            "{compression:?}, level 0"
        );
        engine.compact_range(column, KeyRange::all()).unwrap();
        let codecs: Vec<_> = tables(dir.path()).iter().map(|file| codec(file)).collect();
        assert!(
            !codecs.is_empty() && codecs.iter().all(|codec| *codec == compacted),
            "{compression:?}: {codecs:?}"
        );
        let ratio = engine.stats().unwrap().compression_ratio.unwrap();
        assert_eq!(ratio > 2.0, compression != Compression::None, "{compression:?}: ratio {ratio}");
    }
}

/// An object as Kubernetes stores it: much of it is alike, names and identifiers are not.
fn pod(number: u32) -> String {
    let id = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"web-{number}\",\"namespace\":\"ns-{}\",\
         \"uid\":\"{id:016x}\",\"labels\":{{\"app\":\"web-{}\"}}}},\"spec\":{{\"containers\":[{{\"name\":\"web\",\
         \"image\":\"registry.example.com/web:1.{}\"}}],\"nodeName\":\"node-{}\"}},\"status\":{{\"phase\":\"Running\",\
         \"podIP\":\"10.0.{}.{}\"}}}}",
        id % 40,
        id % 13,
        id % 31,
        id % 211,
        id % 250,
        number % 250
    )
}

/// The stanzas of the packages that this machine has; none where it is no Debian.
fn packages() -> Vec<String> {
    let text = fs::read("/var/lib/dpkg/status").unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split("\n\n").filter(|stanza| !stanza.trim().is_empty()).map(str::to_owned).collect()
}

#[test]
fn realistic_records_take_half_their_size_or_less() {
    let kinds = [
        ("JSON configuration", (0..RECORDS).map(record).collect()),
        ("Kubernetes objects", (0..RECORDS).map(pod).collect()),
        ("Debian packages", packages()),
    ];
    for (kind, records) in kinds.into_iter().filter(|(_, records)| !records.is_empty()) {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path(), &Profile::default()).unwrap();
        let column = engine.column("c").unwrap();
        let mut batch = WriteBatch::new();
        let mut raw = 0;
        for (number, record) in (0u32..).zip(records) {
            raw += 4 + record.len() as u64;
            batch.put(column, number.to_be_bytes(), record);
        }
        engine.write(batch, Durability::NoWal).unwrap();
        engine.compact_range(column, KeyRange::all()).unwrap();
        let ratio = engine.stats().unwrap().compression_ratio.unwrap();
        assert!(ratio >= 2.0, "{kind}: {ratio}");
        let stored: u64 =
            tables(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(raw as f64 / stored as f64 >= 2.0, "{kind}: {raw} bytes in files of {stored}");
    }
}

#[test]
fn a_damaged_table_is_named_and_the_rest_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    let (damaged, sound) = (engine.column("damaged").unwrap(), engine.column("sound").unwrap());
    load(&engine, sound);
    let before = tables(dir.path());
    load(&engine, damaged);
    engine.close().unwrap();
    let file = tables(dir.path()).into_iter().find(|file| !before.contains(file)).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000..1016].fill(0x55);
    fs::write(&file, bytes).unwrap();

    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    let first = b"config/00000000";
    match engine.get(damaged, first) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path.file_name(), file.file_name()),
        other => panic!("{other:?}"),
    }
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(damaged, KeyRange::all()).unwrap();
    assert!(matches!(cursor.seek_to_first(), Err(Error::Corrupt { .. })));
    assert_eq!(engine.get(sound, first).unwrap().unwrap(), record(0));
    let last = format!("config/{:08}", RECORDS - 1);
    assert_eq!(engine.get(damaged, last.as_bytes()).unwrap().unwrap(), record(RECORDS - 1));
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    let second = RocksEngine::open(dir.path(), &Profile::dev());
    assert!(matches!(second, Err(Error::InUse { .. })), "{:?}", second.map(drop));
    engine.close().unwrap();
    RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
}

#[test]
fn a_column_may_have_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["default", "~default", "keys", "Ω", ""];
    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    let columns = names.map(|name| engine.column(name).unwrap());
    engine.close().unwrap();
    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    assert_eq!(names.map(|name| engine.column(name).unwrap()), columns);
}

#[test]
fn rocksdbs_own_counters_are_the_counts_that_happened() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path(), &Profile::dev()).unwrap();
    let column = engine.column("c").unwrap();
    load(&engine, column);
    load(&engine, column);
    engine.compact_range(column, KeyRange::all()).unwrap();
    let stats = engine.stats().unwrap();
    let compactions = stats.compactions.unwrap();
    assert!(compactions.count.unwrap() >= 1 && compactions.written_bytes > 0, "{compactions:?}");
    assert!(compactions.read_bytes > 0, "{compactions:?}");
    assert!(stats.log_bytes.unwrap() >= stats.bytes_written);
    assert!(stats.flushed_bytes.unwrap() > 0);
    assert!(stats.write_amplification().unwrap() > 1.0);
    assert_eq!(stats.estimated_keys, Some(u64::from(RECORDS)));
    let size: u64 = tables(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(stats.disk_bytes.unwrap() >= size);
    assert_eq!(stats.files, Some(tables(dir.path()).len() as u64));
    assert!(stats.memory.cache.is_some() && stats.memory.memtables.unwrap() > 0);

    let before = stats.cache.unwrap();
    for _ in 0..100 {
        engine.get(column, b"config/00000007").unwrap().unwrap();
    }
    let after = engine.stats().unwrap().cache.unwrap();
    assert!(after.hits - before.hits >= 99, "{before:?} {after:?}");
    assert!(after.misses - before.misses <= 3, "{before:?} {after:?}");
}

#[test]
fn without_statistics_their_figures_are_absent() {
    let dir = tempfile::tempdir().unwrap();
    let statistics = chronolith_engine::StatisticsLevel::Off;
    let engine = RocksEngine::open(dir.path(), &Profile { statistics, ..Profile::dev() }).unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.cache, stats.compactions, stats.flushed_bytes), (None, None, None));
    assert_eq!(stats.write_amplification(), None);
    assert!(!stats.open_metrics().contains("cache_hits"));
}

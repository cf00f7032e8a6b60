//! Crashes of the disk engine as its log sees them: what is flushed, what is only in the log, what the
//! log has lost. A crash is a copy of the files of a running engine.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)]

use chronolith_engine::{
    ColumnId, Durability, Durability::*, Engine, Error, Profile, RocksEngine, WriteBatch,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

struct Crash {
    dir: tempfile::TempDir,
    engine: RocksEngine,
    column: ColumnId,
}

impl Crash {
    fn new() -> Self {
        Self::with(&Profile::dev())
    }

    fn with(profile: &Profile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open(dir.path().join("data"), profile).unwrap();
        let column = engine.column("c").unwrap();
        Self { dir, engine, column }
    }

    fn put(&self, key: &str, value: &str, durability: Durability) {
        let mut batch = WriteBatch::new();
        batch.put(self.column, key, value);
        self.engine.write(batch, durability).unwrap();
    }

    /// The files as they are now.
    fn files(&self) -> PathBuf {
        let to = self.dir.path().join("crashed");
        copy(&self.dir.path().join("data"), &to);
        to
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir.join("batches")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Where the records of the only log end: space that is allocated ahead is zero.
fn end(dir: &Path) -> u64 {
    let bytes = fs::read(&logs(dir)[0]).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

/// Cuts the only log off at `length`.
fn cut(dir: &Path, length: u64) {
    let logs = logs(dir);
    assert_eq!(logs.len(), 1);
    fs::OpenOptions::new().write(true).open(&logs[0]).unwrap().set_len(length).unwrap();
}

/// The values of the keys after opening; `-` for none.
fn values(dir: &Path, keys: &[&str]) -> Vec<String> {
    let engine = RocksEngine::open(dir, &Profile::dev()).unwrap();
    let column = engine.column("c").unwrap();
    let value = |key: &&str| match engine.get(column, key.as_bytes()).unwrap() {
        Some(value) => String::from_utf8(value.to_vec()).unwrap(),
        None => "-".into(),
    };
    keys.iter().map(value).collect()
}

#[test]
fn what_is_only_in_the_log_comes_back_in_order() {
    let crash = Crash::new();
    crash.put("a", "1", Buffered);
    crash.put("a", "2", Sync);
    crash.put("b", "1", Buffered);
    let mut batch = WriteBatch::new();
    batch.delete_range(crash.column, "b", "c");
    batch.put(crash.column, "c", "1");
    crash.engine.write(batch, Buffered).unwrap();
    let files = crash.files();
    assert_eq!(values(&files, &["a", "b", "c"]), ["2", "-", "1"]);
    assert_eq!(values(&files, &["a", "b", "c"]), ["2", "-", "1"], "and stays");
}

#[test]
fn a_flushed_batch_is_not_replayed_over_a_newer_one_without_log() {
    let crash = Crash::new();
    crash.put("a", "logged", Buffered);
    crash.put("a", "not logged", NoWal);
    crash.engine.flush().unwrap();
    crash.put("b", "logged", Buffered);
    assert_eq!(values(&crash.files(), &["a", "b"]), ["not logged", "logged"]);
}

#[test]
fn an_unlogged_batch_that_was_not_flushed_is_gone_and_those_around_it_are_there() {
    let crash = Crash::new();
    crash.put("a", "1", Buffered);
    crash.put("lost", "1", NoWal);
    crash.put("b", "1", Buffered);
    crash.put("a", "2", Buffered);
    assert_eq!(values(&crash.files(), &["a", "lost", "b"]), ["2", "-", "1"]);
}

/// A machine that stops loses what the log was not synced for; files may hold more than the log then.
#[test]
fn a_log_that_lost_its_end_brings_nothing_old_back() {
    let crash = Crash::new();
    crash.put("a", "old", Buffered);
    let length = end(&crash.dir.path().join("data"));
    crash.put("a", "new", Buffered);
    crash.put("b", "new", Buffered);
    crash.engine.flush().unwrap();
    let files = crash.files();
    cut(&files, length);
    assert_eq!(values(&files, &["a", "b"]), ["new", "new"]);
}

#[test]
fn a_torn_batch_is_not_there_and_the_ones_before_it_are() {
    let crash = Crash::new();
    crash.put("a", "1", Buffered);
    crash.put("b", "1", Buffered);
    let files = crash.files();
    cut(&files, end(&files) - 1);
    assert_eq!(values(&files, &["a", "b"]), ["1", "-"]);
}

#[test]
fn ingested_records_and_logged_ones_keep_their_order() {
    let crash = Crash::new();
    crash.put("a", "logged", Buffered);
    crash.put("b", "logged", Buffered);
    let records = [("a", "ingested"), ("x", "ingested")].map(|(k, v)| (k.into(), v.into()));
    crash.engine.ingest(crash.column, &mut records.into_iter()).unwrap();
    crash.put("x", "later", Buffered);
    assert_eq!(values(&crash.files(), &["a", "b", "x"]), ["ingested", "logged", "later"]);
}

#[test]
fn outgrown_logs_are_flushed_and_removed() {
    const LIMIT: u64 = 1 << 20;
    const RECORDS: usize = 3_000;
    let crash = Crash::with(&Profile { max_log_bytes: LIMIT, ..Profile::dev() });
    let (data, value) = (crash.dir.path().join("data"), "v".repeat(1_000));
    for number in 0..RECORDS {
        crash.put(&format!("{number:05}"), &value, Buffered);
    }
    crash.engine.close().unwrap();
    assert!(!data.join("batches/log-1").exists(), "a log whose batches are flushed is removed");
    let files = crash.files();
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("{number:05}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert!(values(&files, &keys).iter().all(|found| *found == value));
    assert_eq!(logs(&files).len(), 1, "opening begins a new log and removes the others");
}

/// An opening that is cut off once the next log exists, and before the one it replayed is removed.
#[test]
fn a_second_crash_while_opening_leaves_logs_that_are_read() {
    let crash = Crash::new();
    crash.put("a", "1", Buffered);
    let files = crash.files();
    let (log, kept) = (logs(&files).remove(0), crash.dir.path().join("kept"));
    fs::hard_link(&log, &kept).unwrap();
    assert_eq!(values(&files, &["a"]), ["1"]);
    fs::rename(&kept, &log).unwrap();
    assert_eq!(logs(&files).len(), 2);
    assert_eq!(values(&files, &["a"]), ["1"]);
}

#[test]
fn a_damaged_log_is_named() {
    let crash = Crash::new();
    crash.put("a", "1", Buffered);
    crash.put("b", "1", Buffered);
    let files = crash.files();
    let log = logs(&files).remove(0);
    let mut bytes = fs::read(&log).unwrap();
    bytes[40] ^= 1;
    fs::write(&log, bytes).unwrap();
    match RocksEngine::open(&files, &Profile::dev()).map(drop) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path.file_name(), log.file_name()),
        other => panic!("{other:?}"),
    }
}

/// A database with RocksDB's own log, as earlier versions wrote it, opens with what that log holds.
#[test]
fn a_database_with_rocksdbs_own_log_is_opened_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksEngine::options(&Profile::dev());
    options.create_missing_column_families(true);
    let families =
        ["default", "c"].map(|name| rocksdb::ColumnFamilyDescriptor::new(name, options.clone()));
    let data = dir.path().join("data");
    let database = rocksdb::DB::open_cf_descriptors(&options, &data, families).unwrap();
    database.put_cf(database.cf_handle("c").unwrap(), "a", "1").unwrap();
    let crashed = dir.path().join("crashed");
    copy(&data, &crashed);
    assert_eq!(values(&crashed, &["a"]), ["1"]);
}

//! The memory engine's own log: reopening, torn tails, damage, locking, replaced logs.
#![allow(clippy::unwrap_used)]

use chronolith_engine::{ColumnId, Durability, Engine, Error, KeyRange, MemoryEngine, WriteBatch};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a log ends with once its engine is closed.
const SEAL_BYTES: u64 = 20;

fn write(engine: &MemoryEngine, column: ColumnId, number: u32) {
    let mut batch = WriteBatch::new();
    batch.put(column, format!("a{number:04}"), number.to_string());
    batch.put(column, format!("b{number:04}"), number.to_string());
    engine.write(batch, Durability::Buffered).unwrap();
}

/// How many batches are there, each whole.
fn batches(engine: &MemoryEngine) -> u32 {
    let column = engine.column("c").unwrap();
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(column, KeyRange::prefix(b"a")).unwrap();
    cursor.seek_to_first().unwrap();
    let mut count = 0;
    while cursor.valid() {
        assert_eq!(cursor.key(), format!("a{count:04}").as_bytes());
        let other = snapshot.get(column, format!("b{count:04}").as_bytes()).unwrap();
        assert_eq!(other.as_deref(), Some(count.to_string().as_bytes()), "half a batch");
        cursor.next().unwrap();
        count += 1;
    }
    count
}

fn filled(dir: &Path, count: u32) -> PathBuf {
    let engine = MemoryEngine::open(dir).unwrap();
    let column = engine.column("c").unwrap();
    (0..count).for_each(|number| write(&engine, column, number));
    dir.join("log-0")
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10);
    let engine = MemoryEngine::open(dir.path()).unwrap();
    assert_eq!(batches(&engine), 10);
    let column = engine.column("c").unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(column, "a0005", "a9");
    batch.delete(column, "b0009");
    engine.write(batch, Durability::Sync).unwrap();
    drop(engine);
    assert_eq!(batches(&MemoryEngine::open(dir.path()).unwrap()), 5);
}

#[test]
fn writes_without_the_log_are_the_callers_to_repeat() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let engine = MemoryEngine::open(dir.path()).unwrap();
    let column = engine.column("c").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(column, "volatile", "");
    engine.write(batch, Durability::NoWal).unwrap();
    assert!(engine.get(column, b"volatile").unwrap().is_some());
    drop(engine);
    let engine = MemoryEngine::open(dir.path()).unwrap();
    assert_eq!(engine.get(column, b"volatile").unwrap(), None);
    assert_eq!(batches(&engine), 3);
}

#[test]
fn a_log_cut_anywhere_keeps_whole_batches_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 5);
    let sound = fs::read(&log).unwrap();
    let mut previous = 0;
    for length in 16..=sound.len() {
        fs::write(&log, &sound[..length]).unwrap();
        let engine = MemoryEngine::open(dir.path()).unwrap();
        let found = batches(&engine);
        assert!(found >= previous && found <= 5, "cut to {length}: {found} after {previous}");
        previous = found;
        let column = engine.column("c").unwrap();
        write(&engine, column, found);
        drop(engine);
        assert_eq!(batches(&MemoryEngine::open(dir.path()).unwrap()), found + 1);
    }
    assert_eq!(previous, 5);
}

#[test]
fn zeros_at_the_end_are_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 5);
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend_from_slice(&[0; 5000]);
    fs::write(&log, bytes).unwrap();
    assert_eq!(batches(&MemoryEngine::open(dir.path()).unwrap()), 5);
}

#[test]
fn damage_to_a_closed_log_is_refused_with_the_files_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 5);
    let sound = fs::read(&log).unwrap();
    for at in 0..sound.len() - SEAL_BYTES as usize {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x40;
        fs::write(&log, damaged).unwrap();
        match MemoryEngine::open(dir.path()) {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, log),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => panic!("byte {at}: not noticed"),
        }
    }
    fs::write(&log, sound).unwrap();
    assert_eq!(batches(&MemoryEngine::open(dir.path()).unwrap()), 5);
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let engine = MemoryEngine::open(dir.path()).unwrap();
    assert!(matches!(MemoryEngine::open(dir.path()), Err(Error::InUse { .. })));
    drop(engine);
    MemoryEngine::open(dir.path()).unwrap();
}

#[test]
fn a_closed_engine_lets_the_next_one_in() {
    let dir = tempfile::tempdir().unwrap();
    let engine = MemoryEngine::open(dir.path()).unwrap();
    engine.close().unwrap();
    MemoryEngine::open(dir.path()).unwrap();
}

#[test]
fn a_copied_checkpoint_is_opened_with_what_it_holds_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir.path().join("data"), 5);
    let engine = MemoryEngine::open(dir.path().join("data")).unwrap();
    let checkpoint = dir.path().join("checkpoint");
    engine.checkpoint(&checkpoint).unwrap();
    assert_eq!(batches(&MemoryEngine::read(&checkpoint).unwrap()), 5);
    let engine = MemoryEngine::open(&checkpoint).unwrap();
    assert_eq!(batches(&engine), 5);
    write(&engine, engine.column("c").unwrap(), 5);
    engine.close().unwrap();
    assert_eq!(batches(&MemoryEngine::open(&checkpoint).unwrap()), 6);
}

#[test]
fn a_checkpoint_beside_logs_that_do_not_follow_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data, 5);
    let engine = MemoryEngine::open(&data).unwrap();
    engine.checkpoint(&dir.path().join("checkpoint")).unwrap();
    drop(engine);
    fs::copy(dir.path().join("checkpoint/state"), data.join("state")).unwrap();
    assert!(matches!(MemoryEngine::open(&data), Err(Error::Corrupt { .. })));
    fs::remove_file(data.join("state")).unwrap();
    assert_eq!(batches(&MemoryEngine::open(&data).unwrap()), 5);
}

#[test]
fn a_missing_log_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 5);
    fs::rename(&log, dir.path().join("log-1")).unwrap();
    match MemoryEngine::open(dir.path()) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, log),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn an_outgrown_log_is_replaced_by_a_checkpoint() {
    const VALUE_BYTES: usize = 1 << 20;
    /// Twice the smallest log that is replaced.
    const WRITES: u32 = 130;
    let dir = tempfile::tempdir().unwrap();
    let engine = MemoryEngine::open(dir.path()).unwrap();
    let column = engine.column("big").unwrap();
    for number in 0..WRITES {
        let mut batch = WriteBatch::new();
        batch.put(column, format!("{}", number % 10), vec![number as u8; VALUE_BYTES]);
        engine.write(batch, Durability::Buffered).unwrap();
    }
    engine.close().unwrap();
    assert!(!dir.path().join("log-0").exists(), "the first log was replaced");
    assert!(dir.path().join("checkpoint-1").exists() || dir.path().join("checkpoint-2").exists());
    drop(engine);
    let engine = MemoryEngine::open(dir.path()).unwrap();
    for key in 0..10 {
        let value = engine.get(column, key.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(u32::from(value[0]), WRITES - 10 + key);
    }
}

/// Every file with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn reading_takes_in_a_torn_tail_and_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 10);
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(length - SEAL_BYTES - 3)
        .unwrap();
    let before = files(dir.path());
    let engine = MemoryEngine::read(dir.path()).unwrap();
    assert_eq!(batches(&engine), 9);
    let column = engine.column("c").unwrap();
    write(&engine, column, 9);
    assert_eq!(batches(&engine), 10, "what is written stays in memory");
    engine.close().unwrap();
    assert_eq!(files(dir.path()), before);
    assert_eq!(batches(&MemoryEngine::open(dir.path()).unwrap()), 9);
}

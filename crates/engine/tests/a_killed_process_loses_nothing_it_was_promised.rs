//! A child process writes, takes checkpoints and compacts; it is killed at any moment, or its disk
//! is full. Afterwards every batch is there whole or not at all, and every acknowledged one is there.
//!
//! The child is this test program again, running the ignored test `child` with its orders in the
//! environment.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::Backend;
use chronolith_engine::{
    Checkpoints, ColumnId, Durability, Engine, Error, KeyRange, Snapshot, WriteBatch,
};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

const DIR: &str = "CHRONOLITH_CRASH_DIR";
const BACKEND: &str = "CHRONOLITH_CRASH_BACKEND";
const UNTIL_FULL: &str = "CHRONOLITH_CRASH_UNTIL_FULL";
/// Kills for each backend: the moment differs each time.
const KILLS: u64 = 6;
const SYNC_EVERY: u64 = 5;
const CHECKPOINT_EVERY: u64 = 40;
const COMPACT_EVERY: u64 = 60;
/// The child's files may not grow beyond this, in blocks of 512 bytes.
const FULL_BLOCKS: u32 = 2048;

fn backend_named(name: &str) -> Backend {
    match name {
        #[cfg(feature = "rocksdb")]
        "rocksdb" => backend::ROCKSDB,
        _ => backend::DURABLE,
    }
}

#[test]
fn a_killed_memory_engine() {
    survives_kills(&backend::DURABLE);
}

#[test]
fn a_memory_engine_on_a_full_disk() {
    survives_a_full_disk(&backend::DURABLE);
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_killed_rocksdb_engine() {
    survives_kills(&backend::ROCKSDB);
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_rocksdb_engine_on_a_full_disk() {
    survives_a_full_disk(&backend::ROCKSDB);
}

fn survives_kills(backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let mut there = 0;
    for kill in 0..KILLS {
        // From a few batches to past several checkpoints and compactions.
        let acknowledged = kill_after(backend, dir.path(), 3 + kill * 37);
        let found = whole_batches(&*(backend.create)(&dir.path().join("engine")));
        assert!(found >= acknowledged, "{acknowledged} were acknowledged, {found} are there");
        assert!(found > there, "the child went on after {there}");
        there = found;
    }
    for checkpoint in checkpoints(dir.path()).list().unwrap() {
        let restored = (backend.restore)(&checkpoint);
        assert!(whole_batches(&*restored.unwrap()) > 0, "a listed checkpoint is whole");
    }
}

fn checkpoints(dir: &Path) -> Checkpoints {
    Checkpoints::new(dir.join("checkpoints"), 1)
}

/// Lets a child write until it has acknowledged so many batches more, kills it, and gives the last
/// number that it acknowledged.
fn kill_after(backend: &Backend, dir: &Path, batches: u64) -> u64 {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    let mut child = start(command, backend, dir);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let numbers =
        lines.map_while(Result::ok).filter_map(|line| line.strip_prefix('#')?.parse().ok());
    let mut last = 0;
    for (seen, number) in (1..).zip(numbers) {
        last = number;
        if seen == batches {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last
}

fn start(mut command: Command, backend: &Backend, dir: &Path) -> Child {
    command.env(DIR, dir).env(BACKEND, backend.name).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs a child whose files cannot grow beyond a limit, until a write fails.
fn survives_a_full_disk(backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let program = env::current_exe().unwrap();
    let mut command = Command::new("sh");
    // With the signal ignored a write beyond the limit fails, like one to a full disk.
    command.arg("-c").arg(format!(
        "trap '' XFSZ; ulimit -f {FULL_BLOCKS}; exec '{}' --exact child --ignored --nocapture",
        program.display()
    ));
    command.env(UNTIL_FULL, "yes");
    let output = start(command, backend, dir.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    let acknowledged = text.lines().filter_map(|line| line.strip_prefix('#')?.parse().ok()).max();
    let found = whole_batches(&*(backend.create)(&dir.path().join("engine")));
    assert!(
        found >= acknowledged.unwrap(),
        "{acknowledged:?} were acknowledged, {found} are there"
    );
}

/// Counts the batches; fails on half a batch or a gap.
fn whole_batches(engine: &dyn Engine) -> u64 {
    let (first, second) = (engine.column("first").unwrap(), engine.column("second").unwrap());
    let snapshot = engine.snapshot().unwrap();
    let mut cursor = snapshot.cursor(first, KeyRange::all()).unwrap();
    cursor.seek_to_first().unwrap();
    let mut count = 0;
    while cursor.valid() {
        assert_eq!(cursor.key(), key(count), "a batch is missing in the middle");
        assert_eq!(
            value(&*snapshot, second, count).as_deref(),
            Some(cursor.value()),
            "half a batch"
        );
        cursor.next().unwrap();
        count += 1;
    }
    assert_eq!(value(&*snapshot, second, count), None, "half a batch");
    count
}

fn value(snapshot: &dyn Snapshot, column: ColumnId, number: u64) -> Option<bytes::Bytes> {
    snapshot.get(column, &key(number)).unwrap()
}

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

#[test]
#[ignore = "the child process of the tests here; does nothing without its orders"]
fn child() {
    let Ok(dir) = env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let engine = (backend_named(&env::var(BACKEND).unwrap()).create)(&dir.join("engine"));
    let columns = [engine.column("first").unwrap(), engine.column("second").unwrap()];
    let mut number = whole_batches(&*engine);
    loop {
        if let Err(error) = write(&*engine, columns, number) {
            assert!(env::var(UNTIL_FULL).is_ok(), "{error}");
            return refuses_writes_but_reads(&*engine, columns[0], number);
        }
        number += 1;
        println!("#{number}");
        std::io::stdout().flush().unwrap();
        if env::var(UNTIL_FULL).is_err() {
            background_work(&*engine, columns[0], dir, number);
        }
    }
}

fn write(
    engine: &dyn Engine,
    columns: [ColumnId; 2],
    number: u64,
) -> chronolith_engine::Result<()> {
    let mut batch = WriteBatch::new();
    let content = vec![number as u8; 3000];
    columns.iter().for_each(|column| batch.put(*column, key(number), content.clone()));
    let sync = number.is_multiple_of(SYNC_EVERY);
    engine.write(batch, if sync { Durability::Sync } else { Durability::Buffered })
}

fn background_work(engine: &dyn Engine, column: ColumnId, dir: &Path, number: u64) {
    if number.is_multiple_of(CHECKPOINT_EVERY) {
        checkpoints(dir).take(engine).unwrap();
    }
    if number.is_multiple_of(COMPACT_EVERY) {
        engine.flush().unwrap();
        engine.compact_range(column, KeyRange::all()).unwrap();
    }
}

fn refuses_writes_but_reads(engine: &dyn Engine, column: ColumnId, number: u64) {
    let error = engine.write(
        {
            let mut batch = WriteBatch::new();
            batch.put(column, "later", "");
            batch
        },
        Durability::Buffered,
    );
    assert!(matches!(error, Err(Error::Poisoned { .. })), "{error:?}");
    assert!(engine.get(column, &key(number - 1)).unwrap().is_some(), "reads go on");
}

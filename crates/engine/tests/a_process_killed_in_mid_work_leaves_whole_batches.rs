//! Kill -9 in the middle of one large batch, of a checkpoint, of a compaction: the child says when it
//! begins and when it is done, and is killed in between.
#![allow(clippy::unwrap_used)]

mod backend;

use backend::Backend;
use chronolith_engine::{Checkpoints, ColumnId, Durability, Engine, KeyRange, WriteBatch};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const DIR: &str = "CHRONOLITH_KILL_DIR";
const BACKEND: &str = "CHRONOLITH_KILL_BACKEND";
const WORK: &str = "CHRONOLITH_KILL_WORK";
/// Records of a batch: enough that each kind of work takes tens of milliseconds.
const RECORDS: u32 = 8_000;
/// Batches that are there and synced before the work begins.
const SYNCED: u32 = 3;
/// How long after the beginning the child is killed.
const DELAYS_MS: [u64; 4] = [0, 2, 5, 12];

for_every_backend!(in_mid_batch, in_mid_checkpoint, in_mid_compaction);

fn in_mid_batch(backend: &Backend) {
    killed_in_mid(backend, "batch");
}

fn in_mid_checkpoint(backend: &Backend) {
    killed_in_mid(backend, "checkpoint");
}

fn in_mid_compaction(backend: &Backend) {
    killed_in_mid(backend, "compaction");
}

fn killed_in_mid(backend: &Backend, work: &str) {
    // Without files there is nothing that a killed process could leave; in memory nothing is compacted.
    let is_rocksdb = backend.name == "rocksdb";
    if backend.name == backend::MEMORY.name || (work == "compaction" && !is_rocksdb) {
        return;
    }
    let mut in_the_middle = 0;
    for delay_ms in DELAYS_MS {
        let dir = tempfile::tempdir().unwrap();
        in_the_middle += u32::from(!kill(backend, work, dir.path(), delay_ms));
        let engine = (backend.create)(&dir.path().join("engine"));
        let found = whole_batches(&*engine);
        assert!(found >= SYNCED, "{found} of {SYNCED} synced batches are there");
        for checkpoint in checkpoints(dir.path()).list().unwrap() {
            let found = whole_batches(&*(backend.restore)(&checkpoint).unwrap());
            assert!(found >= SYNCED, "a listed checkpoint holds {found} batches");
        }
        // What the interrupted work left is no obstacle.
        work_once(&*engine, columns(&*engine), dir.path(), work);
        assert!(whole_batches(&*engine) >= found);
    }
    assert!(in_the_middle > 0, "every child was done before it was killed");
}

fn checkpoints(dir: &Path) -> Checkpoints {
    Checkpoints::new(dir.join("checkpoints"), 2)
}

/// Whether the work was done before the child was killed.
fn kill(backend: &Backend, work: &str, dir: &Path, delay_ms: u64) -> bool {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(BACKEND, backend.name)
        .env(WORK, work)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "begins"), "the child failed before it began");
    thread::sleep(Duration::from_millis(delay_ms));
    child.kill().unwrap();
    child.wait().unwrap();
    lines.any(|line| line == "done")
}

#[test]
#[ignore = "the child process of the tests here; does nothing without its orders"]
fn child() {
    let (Ok(dir), Ok(work)) = (env::var(DIR), env::var(WORK)) else { return };
    let backends = [
        &backend::DURABLE,
        #[cfg(feature = "rocksdb")]
        &backend::ROCKSDB,
    ];
    let name = env::var(BACKEND).unwrap();
    let backend = backends.into_iter().find(|backend| backend.name == name).unwrap();
    let engine = (backend.create)(&Path::new(&dir).join("engine"));
    let columns = columns(&*engine);
    for number in 0..SYNCED {
        write(&*engine, columns, number, Durability::Sync);
        if work == "compaction" {
            engine.flush().unwrap();
        }
    }
    say("\nbegins");
    work_once(&*engine, columns, Path::new(&dir), &work);
    say("\ndone");
    thread::sleep(Duration::from_secs(60));
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn columns(engine: &dyn Engine) -> [ColumnId; 2] {
    ["first", "second"].map(|name| engine.column(name).unwrap())
}

fn work_once(engine: &dyn Engine, columns: [ColumnId; 2], dir: &Path, work: &str) {
    match work {
        "batch" => {
            let next = whole_batches(engine);
            write(engine, columns, next, Durability::Buffered);
        }
        "checkpoint" => drop(checkpoints(dir).take(engine).unwrap()),
        _ => columns
            .iter()
            .for_each(|column| engine.compact_range(*column, KeyRange::all()).unwrap()),
    }
}

fn key(batch: u32, record: u32) -> Vec<u8> {
    [batch.to_be_bytes(), record.to_be_bytes()].concat()
}

fn write(engine: &dyn Engine, columns: [ColumnId; 2], number: u32, durability: Durability) {
    let mut batch = WriteBatch::new();
    for record in 0..RECORDS {
        for column in columns {
            batch.put(column, key(number, record), vec![number as u8; 50]);
        }
    }
    engine.write(batch, durability).unwrap();
}

/// Counts the batches; fails on a part of one.
fn whole_batches(engine: &dyn Engine) -> u32 {
    let counts = columns(engine).map(|column| {
        let snapshot = engine.snapshot().unwrap();
        let mut cursor = snapshot.cursor(column, KeyRange::all()).unwrap();
        cursor.seek_to_first().unwrap();
        let mut count = 0;
        while cursor.valid() {
            assert_eq!(cursor.key(), key(count / RECORDS, count % RECORDS), "a record is missing");
            count += 1;
            cursor.next().unwrap();
        }
        count
    });
    assert_eq!(counts[0], counts[1], "a batch is in one column only");
    assert_eq!(counts[0] % RECORDS, 0, "a part of a batch");
    counts[0] / RECORDS
}

//! Everything that the engine does for an embedder, once, with what it answers.
//!
//! `cargo run -p chronolith-engine --example tour`, or, for the engine on disk,
//! `cargo run -p chronolith-engine --features rocksdb --example tour -- rocksdb`

use bytes::Bytes;
use chronolith_engine::{
    BulkLoader, Checkpoints, ColumnId, Durability, Engine, Error, KeyRange, MemoryEngine, Result,
    Snapshot, WriteBatch, copy_checkpoint,
};
use std::{ops::Bound, path::Path, sync::Arc};

/// A backend: how a database is opened or created, and how one is made of a checkpoint.
#[derive(Clone, Copy)]
struct Backend {
    open: Open,
    restore: Open,
}

type Open = fn(&Path) -> Result<Arc<dyn Engine>>;

/// A checkpoint of it is restored into memory only; `open` is for directories with logs.
const MEMORY: Backend = Backend {
    open: |dir| Ok(Arc::new(MemoryEngine::open(dir)?)),
    restore: |dir| Ok(Arc::new(MemoryEngine::restore(dir)?)),
};

#[cfg(feature = "rocksdb")]
const ROCKSDB: Backend = Backend { open: on_disk, restore: on_disk };

#[cfg(feature = "rocksdb")]
fn on_disk(dir: &Path) -> Result<Arc<dyn Engine>> {
    use chronolith_engine::{Profile, RocksEngine};
    // A profile, and one of its knobs turned.
    let profile = Profile { block_cache_bytes: 64 << 20, ..Profile::dev() };
    Ok(Arc::new(RocksEngine::open(dir, &profile)?))
}

/// What a reader sees of a view, from the start or from the end.
fn keys(view: &dyn Snapshot, column: ColumnId, range: KeyRange, back: bool) -> Result<Vec<String>> {
    let mut cursor = view.cursor(column, range)?;
    if back {
        cursor.seek_to_last()?
    } else {
        cursor.seek_to_first()?
    }
    let mut found = Vec::new();
    while cursor.valid() {
        found.push(String::from_utf8_lossy(cursor.key()).into_owned());
        if back { cursor.prev()? } else { cursor.next()? }
    }
    Ok(found)
}

fn writes_and_reads(engine: &Arc<dyn Engine>) -> Result<()> {
    // Columns are keyspaces of their own; a batch changes all of them at once. Room is made beforehand.
    let (users, mails) = (engine.column("users")?, engine.column("mails")?);
    let mut batch = WriteBatch::with_capacity(4, 40);
    batch.put(users, "user/ada", "1815");
    batch.put(users, "user/alan", "1912");
    batch.put(users, "user/grace", "1906");
    batch.put(mails, "ada@example.com", "user/ada");
    engine.write(batch, Durability::Sync)?; // on stable storage when this returns

    assert_eq!(engine.get(users, b"user/ada")?.as_deref(), Some(&b"1815"[..]));
    assert_eq!(engine.get(mails, b"user/ada")?, None, "another column");
    let years = engine.multi_get(users, &[b"user/alan", b"user/nobody"])?;
    assert_eq!(years, [Some(Bytes::from("1912")), None]);

    // A snapshot stays as it is, whatever is written meanwhile.
    let view = engine.snapshot()?;
    let mut batch = WriteBatch::new();
    batch.delete_range(users, "user/a", "user/b");
    engine.write(batch, Durability::Buffered)?; // handed to the operating system, not synced
    assert_eq!(engine.get(users, b"user/alan")?, None);

    // Bounded iteration, forward and back; a prefix is a range.
    let bounds = KeyRange {
        start: Bound::Excluded("user/ada".into()),
        end: Bound::Included("user/grace".into()),
    };
    assert_eq!(keys(&*view, users, bounds.clone(), false)?, ["user/alan", "user/grace"]);
    assert_eq!(keys(&*view, users, bounds, true)?, ["user/grace", "user/alan"]);
    let prefix = KeyRange::prefix(b"user/a");
    assert_eq!(keys(&*view, users, prefix, false)?, ["user/ada", "user/alan"]);
    Ok(())
}

fn transactions(engine: &Arc<dyn Engine>) -> Result<()> {
    let users = engine.column("users")?;
    let mut change = engine.begin_batch()?;
    change.put(users, "user/barbara", "1928");
    assert!(change.get(users, b"user/barbara")?.is_some(), "it reads its own writes");
    assert!(engine.get(users, b"user/barbara")?.is_none(), "nobody else does yet");
    change.rollback();

    let mut change = engine.begin_batch()?;
    change.put(users, "user/edsger", "1930");
    change.commit(Durability::Sync)?;
    assert!(engine.get(users, b"user/edsger")?.is_some());
    Ok(())
}

fn loads(engine: &dyn Engine) -> Result<()> {
    let numbers = engine.column("numbers")?;
    // In chunks, not atomic. `NoWal` is for callers with a log of their own: this load can be repeated.
    let mut loader = BulkLoader::new(engine, Durability::NoWal).expecting(50_000);
    for number in 0..50_000u32 {
        loader.put(numbers, number.to_be_bytes(), format!("value {number}"))?;
    }
    assert_eq!(loader.finish()?.records, 50_000);
    // Sorted records, as one atomic change: on disk they become files without passing a memtable.
    let mut sorted =
        (50_000..60_000u32).map(|number| (number.to_be_bytes().to_vec().into(), "value".into()));
    assert_eq!(engine.ingest(numbers, &mut sorted)?, 10_000);
    engine.flush()?;
    engine.compact_range(numbers, KeyRange::all())
}

/// Checkpoints of which the newest two stay; a database made of one, and the checkpoint left alone.
fn checkpoints(engine: &dyn Engine, restore: Open, dir: &Path) -> Result<()> {
    let (users, checkpoints) = (engine.column("users")?, Checkpoints::new(dir.join("backups"), 2));
    for year in ["2001", "2002", "2003"] {
        let mut batch = WriteBatch::new();
        batch.put(users, "year", year);
        engine.write(batch, Durability::Sync)?;
        checkpoints.take(engine)?;
    }
    let kept = checkpoints.list()?;
    assert_eq!(kept.len(), 2);
    copy_checkpoint(&kept[0], dir.join("copy"))?;
    let copy = restore(&dir.join("copy"))?;
    assert_eq!(copy.get(copy.column("users")?, b"year")?.as_deref(), Some(&b"2002"[..]));
    copy.close()
}

fn tour(Backend { open, restore }: Backend, dir: &Path) -> Result<()> {
    let engine = open(&dir.join("data"))?;
    writes_and_reads(&engine)?;
    transactions(&engine)?;
    loads(&*engine)?;
    checkpoints(&*engine, restore, dir)?;
    println!("{}", engine.stats()?);

    // Errors are typed and say who must act.
    let users = engine.column("users")?;
    let error = engine.get(ColumnId(99), b"key").expect_err("there is no such column");
    println!("a caller's mistake: {error}");
    engine.close()?;
    assert!(matches!(engine.get(users, b"user/ada"), Err(Error::Closed)));

    // The directory is free for another opening when the last handle is gone.
    drop(engine);
    let engine = open(&dir.join("data"))?;
    assert!(engine.get(engine.column("users")?, b"user/edsger")?.is_some(), "it was synced");
    engine.close()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let backend = match std::env::args().nth(1).as_deref() {
        None | Some("memory") => MEMORY,
        #[cfg(feature = "rocksdb")]
        Some("rocksdb") => ROCKSDB,
        Some(other) => {
            let known = "memory, or rocksdb in a build with the feature of that name";
            return Err(format!("no engine {other} here: {known}").into());
        }
    };
    Ok(tour(backend, dir.path())?)
}

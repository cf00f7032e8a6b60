//! The backends, as the shared suites see them.
#![allow(dead_code, unreachable_pub, reason = "each suite uses its part")]

use chronolith_engine::{
    ColumnId, Cursor, Durability, Engine, KeyRange, MemoryEngine, Result, Snapshot, WriteBatch,
};
#[cfg(feature = "rocksdb")]
use chronolith_engine::{Profile, RocksEngine};
use std::{path::Path, sync::Arc};

/// One backend under test.
pub struct Backend {
    pub name: &'static str,
    /// Histories for the model test: as many as take seconds. On disk each checkpoint is synced.
    pub model_cases: u32,
    /// An empty engine; its files, if it has any, go into the directory.
    pub create: fn(&Path) -> Arc<dyn Engine>,
    /// An engine with a checkpoint's state.
    pub restore: fn(&Path) -> Result<Arc<dyn Engine>>,
}

pub const MEMORY: Backend = Backend {
    name: "memory",
    model_cases: 192,
    create: |_| Arc::new(MemoryEngine::new()),
    restore: |dir| Ok(Arc::new(MemoryEngine::restore(dir)?)),
};

#[cfg(feature = "rocksdb")]
pub const ROCKSDB: Backend = Backend {
    name: "rocksdb",
    model_cases: 16,
    create: |dir| Arc::new(RocksEngine::open(dir, &Profile::dev()).unwrap()),
    restore: |dir| Ok(Arc::new(RocksEngine::open(dir, &Profile::dev())?)),
};

/// The memory engine with a log and checkpoints of its own.
pub const DURABLE: Backend = Backend {
    name: "memory with a log",
    model_cases: 32,
    create: |dir| Arc::new(MemoryEngine::open(dir).unwrap()),
    restore: MEMORY.restore,
};

/// Runs each function as one test for each backend.
#[macro_export]
macro_rules! for_every_backend {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&$crate::backend::MEMORY) })*
        }
        mod durable_memory {
            $(#[test] fn $test() { super::$test(&$crate::backend::DURABLE) })*
        }
        #[cfg(feature = "rocksdb")]
        mod rocksdb {
            $(#[test] fn $test() { super::$test(&$crate::backend::ROCKSDB) })*
        }
    };
}

pub fn put(engine: &dyn Engine, column: ColumnId, records: &[(&str, &str)]) {
    let mut batch = WriteBatch::new();
    for (key, value) in records {
        batch.put(column, key, value);
    }
    engine.write(batch, Durability::NoWal).unwrap();
}

pub fn get(engine: &dyn Engine, column: ColumnId, key: &str) -> Option<String> {
    engine.get(column, key.as_bytes()).unwrap().map(|value| text(&value))
}

/// All keys of a range, walked forward.
pub fn keys(snapshot: &dyn Snapshot, column: ColumnId, range: KeyRange) -> Vec<String> {
    let mut cursor = snapshot.cursor(column, range).unwrap();
    cursor.seek_to_first().unwrap();
    rest(&mut *cursor, |cursor| cursor.next())
}

/// All keys of a range, walked back.
pub fn keys_back(snapshot: &dyn Snapshot, column: ColumnId, range: KeyRange) -> Vec<String> {
    let mut cursor = snapshot.cursor(column, range).unwrap();
    cursor.seek_to_last().unwrap();
    rest(&mut *cursor, |cursor| cursor.prev())
}

fn rest(cursor: &mut dyn Cursor, step: impl Fn(&mut dyn Cursor) -> Result<()>) -> Vec<String> {
    let mut keys = Vec::new();
    while cursor.valid() {
        keys.push(text(cursor.key()));
        step(cursor).unwrap();
    }
    keys
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

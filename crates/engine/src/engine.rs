//! The seam: what every backend does, and what every caller may rely on.

use crate::{Result, WriteBatch};
use bytes::Bytes;
use std::{ops::Bound, path::Path, sync::Arc};

/// A named, ordered keyspace inside one engine (RocksDB's column family).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnId(pub u32);

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the write-ahead log, handed to the operating system: survives the process, not the machine.
    Buffered,
    /// Synced to stable storage before `write` returns.
    Sync,
    /// Not in the engine's log at all. Only for callers with a log of their own (Raft).
    NoWal,
}

/// Bounds of an iteration.
#[derive(Clone, Debug)]
pub struct KeyRange {
    /// Where the range begins.
    pub start: Bound<Bytes>,
    /// Where the range ends.
    pub end: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// From `start` (in) to `end` (out).
    #[must_use]
    pub fn half_open(start: Bytes, end: Bytes) -> Self {
        Self { start: Bound::Included(start), end: Bound::Excluded(end) }
    }
}

/// Ordered bytes in columns.
///
/// A write is atomic over all its columns. One writer at a time is served; readers never wait for
/// longer than the memory part of one batch.
pub trait Engine: Send + Sync + 'static {
    /// The backend's name: `memory` or `rocksdb`.
    fn name(&self) -> &'static str;

    /// Opens the column of this name, or creates it.
    fn column(&self, name: &str) -> Result<ColumnId>;

    /// The newest value of `key`.
    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>>;

    /// The newest values of `keys`, in their order, from one consistent view.
    fn multi_get(&self, column: ColumnId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>>;

    /// A consistent view of all columns, unmoved by later writes. Cheap.
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>>;

    /// Applies a batch whole or not at all.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Writes a copy of the state, as of now, that `open` accepts, into the directory `dir`, which
    /// must not exist yet. Synced when this returns. Writers go on meanwhile.
    fn checkpoint(&self, dir: &Path) -> Result<()>;

    /// Makes everything written so far durable, `NoWal` writes too where the backend can
    /// (RocksDB: flushes memtables; memory: nothing beyond its log, use `checkpoint`).
    fn flush(&self) -> Result<()>;

    /// Stops. Later calls answer [`crate::Error::Closed`].
    fn close(&self) -> Result<()>;
}

/// A consistent view. Held as long as needed; it costs memory or disk while newer writes arrive.
pub trait Snapshot: Send + Sync {
    /// The value of `key` in this view.
    fn get(&self, column: ColumnId, key: &[u8]) -> Result<Option<Bytes>>;

    /// A cursor over `range`; not positioned yet.
    fn cursor(&self, column: ColumnId, range: KeyRange) -> Result<Box<dyn Cursor + '_>>;
}

/// A position in an ordered column. After any move, check [`Cursor::valid`].
pub trait Cursor {
    /// To the first key of the range.
    fn seek_to_first(&mut self) -> Result<()>;
    /// To the last key of the range.
    fn seek_to_last(&mut self) -> Result<()>;
    /// To the first key of the range that is `>= key`.
    fn seek(&mut self, key: &[u8]) -> Result<()>;
    /// To the last key of the range that is `<= key`.
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<()>;
    /// One forward.
    fn next(&mut self) -> Result<()>;
    /// One back.
    fn prev(&mut self) -> Result<()>;
    /// Whether the cursor stands on a record.
    fn valid(&self) -> bool;
    /// The key here. Panics unless valid.
    fn key(&self) -> &[u8];
    /// The value here. Panics unless valid.
    fn value(&self) -> &[u8];
    /// The value here, shared rather than copied where the backend can. Panics unless valid.
    fn value_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.value())
    }
}

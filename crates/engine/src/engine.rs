//! The seam: what every backend does, and what every caller may rely on.

use crate::{Error, Result, Stats, WriteBatch};
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

    /// Every key that begins with `prefix`.
    ///
    /// ```
    /// use chronolith_engine::KeyRange;
    /// use std::ops::Bound;
    /// assert_eq!(KeyRange::prefix(b"user/").end, Bound::Excluded("user0".into()));
    /// ```
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let start = Bound::Included(Bytes::copy_from_slice(prefix));
        Self { start, end: prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded) }
    }

    /// Whether no key at all can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Self::bounds_are_empty(
            self.start.as_ref().map(|k| &k[..]),
            self.end.as_ref().map(|k| &k[..]),
        )
    }

    /// Whether no key at all can lie between the bounds.
    pub(crate) fn bounds_are_empty(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
        match (start, end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
            _ => false,
        }
    }

    /// Whether `key` lies before the start.
    pub(crate) fn starts_after(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Included(start) => key < &start[..],
            Bound::Excluded(start) => key <= &start[..],
            Bound::Unbounded => false,
        }
    }

    /// Whether `key` lies behind the end.
    pub(crate) fn ends_before(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Included(end) => key > &end[..],
            Bound::Excluded(end) => key >= &end[..],
            Bound::Unbounded => false,
        }
    }
}

/// The first key after all that begin with `prefix`; none where the prefix is all `0xff`.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// Gives each record to `each`, as long as keys ascend.
pub(crate) fn ascending(
    records: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    mut each: impl FnMut(Bytes, Bytes) -> Result<()>,
) -> Result<()> {
    let mut previous: Option<Bytes> = None;
    for (position, (key, value)) in (0..).zip(records) {
        if previous.is_some_and(|previous| previous >= key) {
            return Err(Error::NotAscending { position });
        }
        previous = Some(key.clone());
        each(key, value)?;
    }
    Ok(())
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

    /// The first record from `start` (in) to `end` (out): what a cursor would find, without making
    /// a snapshot and a cursor for it.
    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.snapshot()?.first(column, start, end)
    }

    /// A consistent view of all columns, unmoved by later writes. Cheap.
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>>;

    /// Applies a batch whole or not at all.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Writes a copy of the state, as of now, into the directory `dir`, which must not exist yet.
    /// Synced when this returns. Writers go on meanwhile. `RocksEngine::open` accepts a copy of it
    /// ([`crate::copy_checkpoint`]), and [`crate::MemoryEngine::restore`] reads one as it is.
    fn checkpoint(&self, dir: &Path) -> Result<()>;

    /// What the data takes: of memory where it lives there, otherwise of the disk, what is not written
    /// out yet included. An estimate, cheap to ask for; `None` where the backend has none.
    fn size_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Rewrites the files of `range` without what was deleted or overwritten, and waits for it. A
    /// backend without files has nothing to do.
    fn compact_range(&self, column: ColumnId, range: KeyRange) -> Result<()>;

    /// Adds `records`, whose keys ascend, as one atomic and durable change; gives their number. On
    /// disk they become files of the bottom level directly, without log and memtable.
    fn ingest(
        &self,
        column: ColumnId,
        records: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<u64>;

    /// How many small records a batch of a bulk load should have, by measurement.
    fn preferred_batch_records(&self) -> usize {
        crate::bulk::MAX_CHUNK
    }

    /// What the engine did since it was opened, and what it holds.
    fn stats(&self) -> Result<Stats>;

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

    /// The first record from `start` (in) to `end` (out) in this view.
    fn first(&self, column: ColumnId, start: &[u8], end: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let mut cursor = self.cursor(column, KeyRange::half_open(start, end))?;
        cursor.seek_to_first()?;
        Ok(cursor.valid().then(|| (cursor.key_bytes(), cursor.value_bytes())))
    }

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
    /// The key here, shared rather than copied where the backend can. Panics unless valid.
    fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key())
    }
    /// The value here. Panics unless valid.
    fn value(&self) -> &[u8];
    /// The value here, shared rather than copied where the backend can. Panics unless valid.
    fn value_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.value())
    }
}

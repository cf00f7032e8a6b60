//! What the writer, the readers and the watch hub share.

use crate::{
    Error, Result,
    counts::Counts,
    key::{self, Revision},
    log,
    record::Record,
    watch::Published,
};
use bytes::Bytes;
use chronolith_engine::{ColumnId, Engine, KeyRange, Snapshot};
use parking_lot::Mutex;
use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

/// Revision of an empty store: the first write makes revision 2.
pub(crate) const FIRST_REVISION: i64 = 1;
/// Compact revision of a store that was never compacted.
pub(crate) const NEVER_COMPACTED: i64 = -1;
/// Meta key of the logical compact revision.
pub(crate) const COMPACT_KEY: &[u8] = b"compact";
/// Meta key of the compact revision up to which superseded records are gone.
pub(crate) const SCRUBBED_KEY: &[u8] = b"scrubbed";

/// Meta key of the compact revision below which removal left nothing that could be proven.
pub(crate) const BARE_KEY: &[u8] = b"bare";

/// Meta key of the oldest revision that may keep more than hashes of what is gone.
pub(crate) const META_FROM_KEY: &[u8] = b"meta from";

/// The columns of the versioned store.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) versions: ColumnId,
    pub(crate) log: ColumnId,
    pub(crate) meta: ColumnId,
}

/// See the module. `current` and `compact` only grow, and only the writer moves them, after the
/// engine holds what they promise.
pub(crate) struct Core {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) columns: Columns,
    current: AtomicI64,
    compact: AtomicI64,
    /// True at the current revision, which only moves with this lock held if a key came or went.
    pub(crate) counts: Mutex<Counts>,
}

/// The newest version of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// Its revision; 0 where the key has no version at all.
    pub(crate) revision: i64,
    /// Its record; none for a tombstone.
    pub(crate) record: Option<Record>,
}

impl Core {
    pub(crate) fn open(engine: Arc<dyn Engine>) -> Result<(Self, u64)> {
        let columns = Columns {
            versions: engine.column("versions")?,
            log: engine.column("log")?,
            meta: engine.column("meta")?,
        };
        let (current, time_ms) = last_logged(&*engine, columns.log)?;
        let compact = number(&*engine, columns.meta, COMPACT_KEY)?.unwrap_or(NEVER_COMPACTED);
        let (current, compact) = (AtomicI64::new(current), AtomicI64::new(compact));
        let counts = Mutex::new(Counts::unknown());
        Ok((Self { engine, columns, current, compact, counts }, time_ms))
    }

    pub(crate) fn current(&self) -> i64 {
        self.current.load(Ordering::Acquire)
    }

    pub(crate) fn compact(&self) -> i64 {
        self.compact.load(Ordering::Acquire)
    }

    /// Lets readers see what the engine holds since the last call, and how many keys came and went:
    /// which of the changes, and by how much.
    pub(crate) fn advance(
        &self,
        current: i64,
        compact: i64,
        turns: &[(usize, i64)],
        changes: &[Published],
    ) {
        let mut counts = (!turns.is_empty()).then(|| self.counts.lock());
        if let Some(counts) = counts.as_mut().filter(|counts| !counts.knows_nothing()) {
            counts.turn(turns.iter().map(|(at, change)| (&changes[*at].key, *change)));
        }
        self.current.store(current, Ordering::Release);
        self.compact.store(compact, Ordering::Release);
    }

    /// The version of `key` that is the newest at revision `at`.
    pub(crate) fn head(&self, key: &[u8], at: i64) -> Result<Head> {
        let (start, end) = key::versions_from(key, key::newest_at(at));
        let found = self.engine.first(self.columns.versions, &start, &end)?;
        found.map_or(Ok(Head::default()), |(key, value)| head(&key, &value))
    }

    /// The same, in a snapshot.
    pub(crate) fn head_in(&self, snapshot: &dyn Snapshot, key: &[u8], at: i64) -> Result<Head> {
        let (start, end) = key::versions_from(key, key::newest_at(at));
        let found = snapshot.first(self.columns.versions, &start, &end)?;
        found.map_or(Ok(Head::default()), |(key, value)| head(&key, &value))
    }

    /// The record that revision `at` gave `key`, by what its log says.
    pub(crate) fn record(
        &self,
        snapshot: &dyn Snapshot,
        key: &[u8],
        at: Revision,
    ) -> Result<Record> {
        let corrupt = || Error::Corrupt { what: "version of a key" };
        let stored = snapshot.get(self.columns.versions, &key::version(key, at))?;
        Record::decode(&stored.ok_or_else(corrupt)?)?.ok_or_else(corrupt)
    }

    pub(crate) fn meta(&self, key: &[u8]) -> Result<Option<i64>> {
        number(&*self.engine, self.columns.meta, key)
    }

    /// The bounds of the log from one revision on.
    pub(crate) fn log_from(main: i64) -> KeyRange {
        let start = Bytes::copy_from_slice(&key::log(main.max(0)));
        KeyRange { start: Bound::Included(start), end: Bound::Unbounded }
    }
}

/// Reads what a version's stored key and value say.
pub(crate) fn head(key: &[u8], value: &Bytes) -> Result<Head> {
    let (_, revision) = key::split(key).ok_or(Error::Corrupt { what: "key of a version" })?;
    Ok(Head { revision: revision.main, record: Record::decode(value)? })
}

/// The newest logged revision and its time. Every revision is logged, and a compaction keeps the
/// log from its own revision on, so the log's end is the current revision.
fn last_logged(engine: &dyn Engine, column: ColumnId) -> Result<(i64, u64)> {
    let snapshot = engine.snapshot()?;
    let mut cursor = snapshot.cursor(column, KeyRange::all())?;
    cursor.seek_to_last()?;
    if !cursor.valid() {
        return Ok((FIRST_REVISION, 0));
    }
    let main = key::log_revision(cursor.key()).ok_or(Error::Corrupt { what: "key of the log" })?;
    Ok((main, log::time_ms(cursor.value())?))
}

fn number(engine: &dyn Engine, column: ColumnId, key: &[u8]) -> Result<Option<i64>> {
    let Some(bytes) = engine.get(column, key)? else { return Ok(None) };
    let bytes = bytes[..].try_into().map_err(|_| Error::Corrupt { what: "compact revision" })?;
    Ok(Some(i64::from_be_bytes(bytes)))
}

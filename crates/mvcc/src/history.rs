//! The past: what each revision did, each version of a key, and which revision a time means.
//!
//! All of it is read from `log` and `versions`; nothing is kept for it. A value that a compaction
//! removed is absent, never made up. Compaction bounds all three: what lies before it answers
//! [`Error::Compacted`].

use crate::{
    Error, Kind, PutMeta, Reader, Result, Stamp,
    core::{BARE_KEY, Core, NEVER_COMPACTED},
    key::{self, Revision},
    log::{self, Left, LogEntry, LoggedChange},
    record::Record,
    span::Span,
};
use bytes::Bytes;
use chronolith_engine::{Cursor, Snapshot};

/// One change of one key, with what it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Revision of the change.
    pub revision: i64,
    /// Whether the key was set or removed.
    pub kind: Kind,
    /// The key.
    pub key: Bytes,
    /// Revision of the key's version before this revision, a tombstone's too unless it was compacted
    /// by then; 0 where there was none.
    pub previous: i64,
    /// What a put left; none for a delete, and where a compaction removed it.
    pub put: Option<Put>,
}

/// What a put left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// Revision that created the key.
    pub create_revision: i64,
    /// Versions since then, this one included.
    pub version: i64,
    /// The lease; 0 is none.
    pub lease: i64,
}

impl Put {
    pub(crate) fn of(record: Record) -> Self {
        let Record { create_revision, version, lease, value } = record;
        Self { value, create_revision, version, lease }
    }
}

/// One revision: who, when, and its changes by their position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revised {
    /// Its number.
    pub revision: i64,
    /// Who and when.
    pub stamp: Stamp,
    /// What it did.
    pub changes: Vec<Change>,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// Revision that made it.
    pub revision: i64,
    /// Its position in the revision.
    pub position: u32,
    /// What it holds; none for a tombstone, and where it was erased.
    pub put: Option<Put>,
    /// Whether it held a value that was erased.
    pub erased: bool,
    /// Who and when; none where the revision's log was compacted.
    pub stamp: Option<Stamp>,
}

/// What is left of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its number.
    pub revision: i64,
    /// Who and when; the salt is zero where something was erased.
    pub stamp: Stamp,
    /// What is left of its changes, by their position.
    pub changes: Vec<Remnant>,
}

/// What is left of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remnant {
    /// All of it.
    Whole {
        /// The change.
        change: Change,
        /// Its salt, where that is not made of the revision's.
        salt: Option<[u8; 16]>,
    },
    /// A put without its value.
    Meta {
        /// The key.
        key: Bytes,
        /// As in [`Change::previous`].
        previous: i64,
        /// What else it left.
        put: PutMeta,
    },
    /// A put whose value was erased: the key, and the hash of the rest.
    Erased {
        /// The key.
        key: Bytes,
        /// The hash.
        hash: [u8; 32],
    },
    /// The hash.
    Hash([u8; 32]),
    /// A put whose value should be there and is not: compaction took it while nothing committed to
    /// it, or somebody removed it.
    Missing {
        /// The key.
        key: Bytes,
    },
}

impl Remains {
    /// The key that a change concerned, where that is still known.
    #[must_use]
    pub fn key(&self, position: usize) -> Option<&Bytes> {
        match self.changes.get(position)? {
            Remnant::Whole { change, .. } => Some(&change.key),
            Remnant::Meta { key, .. } | Remnant::Erased { key, .. } | Remnant::Missing { key } => {
                Some(key)
            }
            Remnant::Hash(_) => None,
        }
    }
}

impl Reader {
    /// Up to `limit` revisions from `from` on, with everything they did.
    pub fn changes(&self, from: i64, limit: usize) -> Result<Vec<Revised>> {
        let found = self.remains(from, limit)?.into_iter().map(Revised::of).collect();
        // Looked at after the snapshot: what it needs was in the snapshot if this has not moved.
        if from < self.core.compact() { Err(Error::Compacted) } else { Ok(found) }
    }

    /// The revision below which a compaction left nothing of the log, since nothing was to be proven; -1 if
    /// there is none.
    pub fn bare_below(&self) -> Result<i64> {
        Ok(self.core.meta(BARE_KEY)?.unwrap_or(NEVER_COMPACTED))
    }

    /// What is left of up to `limit` revisions from `from` on, compacted ones too. One of which nothing
    /// is left is left out.
    pub fn remains(&self, from: i64, limit: usize) -> Result<Vec<Remains>> {
        let core = &self.core;
        let last = core.current();
        let snapshot = core.engine.snapshot()?;
        let mut cursor = snapshot.cursor(core.columns.log, Core::log_from(from))?;
        cursor.seek_to_first()?;
        let mut found = Vec::new();
        while cursor.valid() && found.len() < limit {
            let revision = log_key(&*cursor)?;
            if revision > last {
                break;
            }
            let entry = log::decode(revision, &cursor.value_bytes())?;
            found.push(remains(core, &*snapshot, revision, entry)?);
            cursor.next()?;
        }
        Ok(found)
    }

    /// Versions of `key` made at revisions `from` to `to`, newest first, up to `limit` of them.
    ///
    /// Of those up to the compact revision only the one that was current then is shown, whether or
    /// not the others have been removed yet: the answer is the same on every replica.
    pub fn key_history(
        &self,
        key: &[u8],
        from: i64,
        to: i64,
        limit: usize,
    ) -> Result<Vec<KeyVersion>> {
        self.with_view(|view| {
            let bounds = key::range(&Span::Point(Bytes::copy_from_slice(key)));
            let mut cursor = view.source.cursor(view.versions, bounds)?;
            let mut newest = key::prefix(key);
            key::push_revision(&mut newest, key::newest_at(to.min(view.current)));
            cursor.seek(&newest)?;
            let mut found = Vec::new();
            while cursor.valid() && found.len() < limit {
                let (_, place) = key::split(cursor.key()).ok_or(CORRUPT_KEY)?;
                let is_compacted = place.main < view.compact;
                if place.main < from || (is_compacted && Record::is_tombstone(cursor.value())) {
                    break;
                }
                let stored = cursor.value_bytes();
                found.push(key_version(&self.core, view.source, place, is_compacted, &stored)?);
                if place.main <= view.compact {
                    break;
                }
                cursor.next()?;
            }
            Ok(found)
        })
    }

    /// The newest revision not later than `time_ms`; none where all of the log is later.
    pub fn revision_at_time(&self, time_ms: u64) -> Result<Option<i64>> {
        let core = &self.core;
        let snapshot = core.engine.snapshot()?;
        let mut cursor = snapshot.cursor(core.columns.log, Core::log_from(core.compact()))?;
        cursor.seek_to_first()?;
        if !cursor.valid() {
            return Ok(None);
        }
        let (mut early, mut late) = (log_key(&*cursor)? - 1, core.current() + 1);
        let oldest = early;
        // Times never go back in the log, so the border is found by halving.
        while late - early > 1 {
            let middle = early + (late - early) / 2;
            let bytes = snapshot.get(core.columns.log, &key::log(middle))?.ok_or(CORRUPT_KEY)?;
            if log::time_ms(&bytes)? <= time_ms { early = middle } else { late = middle }
        }
        Ok((early > oldest).then_some(early))
    }

    /// Calls `each` with every stored version, in the order of keys: `(key, revision, position)`. For
    /// whoever checks that nothing is stored which no revision made.
    pub fn each_version(&self, mut each: impl FnMut(Bytes, i64, u32) -> Result<()>) -> Result<()> {
        let snapshot = self.core.engine.snapshot()?;
        let all = chronolith_engine::KeyRange::all();
        let mut cursor = snapshot.cursor(self.core.columns.versions, all)?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let (_, place) = key::split(cursor.key()).ok_or(CORRUPT_KEY)?;
            each(key::user_key(&cursor.key_bytes()), place.main, place.sub)?;
            cursor.next()?;
        }
        Ok(())
    }
}

const CORRUPT_KEY: Error = Error::Corrupt { what: "key of a version or of the log" };

fn log_key(cursor: &dyn Cursor) -> Result<i64> {
    key::log_revision(cursor.key()).ok_or(CORRUPT_KEY)
}

impl Revised {
    /// The revision, without the values that are gone.
    fn of(remains: Remains) -> Self {
        let Remains { revision, stamp, changes } = remains;
        let changes = changes.into_iter().map(|remnant| {
            let (key, previous) = match remnant {
                Remnant::Whole { change, .. } => return change,
                Remnant::Meta { key, previous, .. } => (key, previous),
                Remnant::Erased { key, .. } | Remnant::Missing { key } => (key, 0),
                Remnant::Hash(_) => (Bytes::new(), 0),
            };
            Change { revision, kind: Kind::Put, key, previous, put: None }
        });
        Self { revision, stamp, changes: changes.collect() }
    }
}

fn remains(
    core: &Core,
    snapshot: &dyn Snapshot,
    revision: i64,
    entry: LogEntry,
) -> Result<Remains> {
    let LogEntry { stamp, changes } = entry;
    let changes = (0..).zip(changes).map(|(sub, change)| {
        let LoggedChange { kind, key, previous, left } = change;
        let salt = match left {
            Left::Hash(hash) => return Ok(Remnant::Hash(hash)),
            Left::Erased(hash) => return Ok(Remnant::Erased { key, hash }),
            Left::Meta(put) => return Ok(Remnant::Meta { key, previous, put }),
            Left::Salted(salt) => Some(salt),
            Left::Whole => None,
        };
        if !kind.is_put() {
            let change = Change { revision, kind, key, previous, put: None };
            return Ok(Remnant::Whole { change, salt });
        }
        let place = Revision { main: revision, sub };
        let stored = snapshot.get(core.columns.versions, &key::version(&key, place))?;
        let record = stored.map(|bytes| Record::decode(&bytes)).transpose()?.flatten();
        Ok(match record.map(Put::of) {
            None => Remnant::Missing { key },
            put => {
                let change = Change { revision, kind, key, previous, put };
                Remnant::Whole { change, salt }
            }
        })
    });
    Ok(Remains { revision, stamp, changes: changes.collect::<Result<_>>()? })
}

fn key_version(
    core: &Core,
    snapshot: &dyn Snapshot,
    place: Revision,
    is_compacted: bool,
    stored: &Bytes,
) -> Result<KeyVersion> {
    // The log of a compacted revision may still be there, or not any more.
    let entry = match is_compacted {
        true => None,
        false => snapshot.get(core.columns.log, &key::log(place.main))?,
    };
    let stamp =
        entry.map(|bytes| log::decode(place.main, &bytes)).transpose()?.map(|entry| entry.stamp);
    let erased = Record::is_erased(stored);
    let put = if erased { None } else { Record::decode(stored)?.map(Put::of) };
    Ok(KeyVersion { revision: place.main, position: place.sub, put, erased, stamp })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]

    use super::*;
    use crate::{Leases, Mvcc};
    use chronolith_engine::{Durability, MemoryEngine};
    use chronolith_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};
    use std::sync::Arc;

    struct NoLeases;

    impl Leases for NoLeases {
        fn contains(&self, _: i64) -> bool {
            false
        }

        fn moved(&mut self, _: &Bytes, _: i64, _: i64) {}
    }

    fn stamp(time_ms: u64) -> Stamp {
        Stamp { time_ms, actor: [u8::try_from(time_ms).unwrap(); 16], salt: [3; 16] }
    }

    /// Revision 2 at 10 puts a, 3 at 20 puts b, 4 at 20 puts a, 5 at 40 deletes a, 6 at 50 puts a.
    fn store() -> Mvcc {
        let mut mvcc = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
        let mut run = mvcc.begin_run().unwrap();
        for (time_ms, key, value) in [(10, "a", "1"), (20, "b", "2"), (20, "a", "3")] {
            let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            run.put(&put, &mut NoLeases, &stamp(time_ms)).unwrap();
        }
        let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
        run.delete_range(&delete, &mut NoLeases, &stamp(40)).unwrap();
        let put = PutRequest { key: "a".into(), value: "5".into(), ..Default::default() };
        run.put(&put, &mut NoLeases, &stamp(50)).unwrap();
        run.commit(Durability::Buffered).unwrap();
        mvcc
    }

    #[test]
    fn the_log_reads_as_the_run_told_it() {
        let mut mvcc = store();
        let reader = mvcc.reader();
        let mut run = mvcc.begin_run().unwrap();
        let put = PutRequest { key: "b".into(), value: "7".into(), ..Default::default() };
        run.put(&put, &mut NoLeases, &stamp(60)).unwrap();
        let gone = DeleteRangeRequest { key: "b".into(), ..Default::default() };
        run.delete_range(&gone, &mut NoLeases, &stamp(59)).unwrap();
        run.put(&put, &mut NoLeases, &stamp(61)).unwrap();
        run.expire_keys(&["b".into()], &mut NoLeases, &stamp(62)).unwrap();
        assert!(reader.changes(7, 9).unwrap().is_empty(), "not before the commit");
        let applied = run.commit(Durability::Buffered).unwrap();
        let told: Vec<_> = applied.revisions().map(|revision| revision.to_revised()).collect();
        let read = reader.changes(7, 9).unwrap();
        assert_eq!(read, told);
        assert_eq!((read[0].revision, read[0].stamp), (7, stamp(60)));
        let kinds: Vec<_> = told.iter().map(|revised| revised.changes[0].kind).collect();
        assert_eq!(kinds, [Kind::Put, Kind::Delete, Kind::Put, Kind::Expire]);
        assert_eq!(told[1].stamp, Stamp { time_ms: 60, ..stamp(59) }, "time never goes back");
        let told = &told[0].changes;
        assert_eq!((told[0].previous, told[0].put.as_ref().unwrap().version), (3, 2));
        let pairs = |from, limit| -> Vec<_> {
            let read = reader.changes(from, limit).unwrap();
            read.iter().map(|read| (read.revision, read.changes[0].previous)).collect()
        };
        assert_eq!(pairs(2, 3), [(2, 0), (3, 0), (4, 2)]);
        assert_eq!(pairs(5, 9), [(5, 4), (6, 5), (7, 3), (8, 7), (9, 8), (10, 9)]);
    }

    #[test]
    fn a_key_has_its_versions() {
        let reader = store().reader();
        let history = |from, to, limit| -> Vec<_> {
            let versions = reader.key_history(b"a", from, to, limit).unwrap();
            versions
                .into_iter()
                .map(|version| (version.revision, version.put.map(|put| put.version)))
                .collect()
        };
        assert_eq!(history(0, 99, 99), [(6, Some(1)), (5, None), (4, Some(2)), (2, Some(1))]);
        assert_eq!(history(3, 5, 99), [(5, None), (4, Some(2))]);
        assert_eq!(history(0, 99, 1), [(6, Some(1))]);
        let versions = reader.key_history(b"a", 4, 4, 9).unwrap();
        assert_eq!(versions[0].stamp, Some(stamp(20)));
        assert!(reader.key_history(b"none", 0, 99, 99).unwrap().is_empty());
    }

    #[test]
    fn a_time_means_the_newest_revision_not_later() {
        let mvcc = store();
        let at = |time_ms| mvcc.reader().revision_at_time(time_ms).unwrap();
        assert_eq!(
            [at(9), at(10), at(19), at(20), at(45), at(1000)],
            [None, Some(2), Some(2), Some(4), Some(5), Some(6)]
        );
        let empty = Mvcc::open(Arc::new(MemoryEngine::new())).unwrap();
        assert_eq!(empty.reader().revision_at_time(5).unwrap(), None);
    }

    #[test]
    fn compaction_bounds_the_past() {
        let mut mvcc = store();
        let mut run = mvcc.begin_run().unwrap();
        run.compact(5).unwrap();
        run.commit(Durability::Buffered).unwrap();
        let left = mvcc.reader().remains(2, 9).unwrap();
        assert_eq!((left.len(), left[0].revision), (5, 2), "hidden, and not yet removed");
        while mvcc.scrub_step(2).unwrap() {}
        let reader = mvcc.reader();
        assert!(matches!(reader.changes(4, 9), Err(Error::Compacted)));
        assert_eq!(reader.remains(2, 9).unwrap()[0].revision, 5, "the others are removed");
        assert_eq!(reader.changes(5, 9).unwrap().len(), 2);
        assert_eq!(reader.revision_at_time(30).unwrap(), None);
        assert_eq!(reader.revision_at_time(45).unwrap(), Some(5));
        let b = reader.key_history(b"b", 0, 99, 9).unwrap();
        assert_eq!((b.len(), b[0].stamp), (1, None));
    }

    #[test]
    fn each_stored_version_is_shown_once() {
        let mut seen = Vec::new();
        let note = |key: Bytes, revision, _| {
            seen.push((key, revision));
            Ok(())
        };
        store().reader().each_version(note).unwrap();
        let revisions: Vec<_> = seen.iter().map(|(_, revision)| *revision).collect();
        assert_eq!(revisions, [6, 5, 4, 2, 3]);
    }
}

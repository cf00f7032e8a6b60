//! Physical compaction: removing what no revision from the compact revision C on can see.
//!
//! ```text
//! log    [oldest .. C)   goes, revision by revision, after the versions of its keys
//! a key  v12 v9 │ C=8 │ v7  v5† v3        v7 stays (it is the state at C), v5 and v3 go
//!        v12    │     │ v6† v2            v6 goes too: deleted is what a key is without versions
//! ```
//! * Only keys that changed at a revision up to C can have something to remove, so the log names
//!   them: no pass over all keys.
//! * The log of C itself stays, and so do versions written at C, tombstones too: a watch may start
//!   there. The next compaction takes them.
//! * Nothing of this is visible: readers refuse revisions before C since the compaction was committed.
//!   So it need not happen at the same time on every replica, and after a crash it goes on where the
//!   log begins.

use crate::{
    Error, Mvcc, Result,
    core::{NEVER_COMPACTED, SCRUBBED_KEY},
    key, log,
    record::Record,
    span::Span,
};
use bytes::Bytes;
use chronolith_engine::{Cursor, Durability, Snapshot, WriteBatch};

impl Mvcc {
    /// Removes superseded records for about `max_records` of them, and says whether more are left.
    /// Call it between runs until it answers false.
    pub fn scrub_step(&mut self, max_records: usize) -> Result<bool> {
        let compact = self.core.compact();
        let scrubbed = self.core.meta(SCRUBBED_KEY)?.unwrap_or(NEVER_COMPACTED);
        if scrubbed >= compact {
            return Ok(false);
        }
        let snapshot = self.core.engine.snapshot()?;
        let step = Step { mvcc: self, snapshot: &*snapshot, compact, left: max_records.max(1) };
        let (batch, more) = step.run()?;
        drop(snapshot);
        // Lost in a crash, it is done again: nothing waits for it to be durable.
        self.core.engine.write(batch, Durability::NoWal)?;
        Ok(more)
    }
}

struct Step<'a> {
    mvcc: &'a Mvcc,
    snapshot: &'a dyn Snapshot,
    compact: i64,
    /// Records that may still be looked at.
    left: usize,
}

impl Step<'_> {
    fn run(mut self) -> Result<(WriteBatch, bool)> {
        let columns = self.mvcc.core.columns;
        let mut batch = WriteBatch::new();
        let mut cursor = self.snapshot.cursor(columns.log, chronolith_engine::KeyRange::all())?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let corrupt = Error::Corrupt { what: "key of the log" };
            let main = key::log_revision(cursor.key()).ok_or(corrupt)?;
            if main > self.compact {
                break;
            }
            let entry = log::decode(main, &cursor.value_bytes())?;
            for change in entry.changes {
                if !self.scrub_key(change.key, &mut batch)? {
                    return Ok((batch, true));
                }
            }
            if main < self.compact {
                batch.delete(columns.log, Bytes::copy_from_slice(&key::log(main)));
            }
            cursor.next()?;
        }
        let compact = Bytes::copy_from_slice(&self.compact.to_be_bytes());
        batch.put(columns.meta, SCRUBBED_KEY, compact);
        Ok((batch, false))
    }

    /// Removes what the compaction supersedes of one key. False if the step's share ran out first.
    fn scrub_key(&mut self, key: Bytes, batch: &mut WriteBatch) -> Result<bool> {
        let versions = self.mvcc.core.columns.versions;
        let mut from = key::prefix(&key);
        key::push_revision(&mut from, key::newest_at(self.compact));
        let mut cursor = self.snapshot.cursor(versions, key::range(&Span::Point(key)))?;
        cursor.seek(&from)?;
        let mut newest = true;
        while cursor.valid() {
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            if self.is_superseded(&*cursor, newest)? {
                batch.delete(versions, cursor.key_bytes());
            }
            newest = false;
            cursor.next()?;
        }
        // A key that had nothing to look at costs its seek.
        self.left = self.left.saturating_sub(usize::from(newest));
        Ok(true)
    }

    fn is_superseded(&self, cursor: &dyn Cursor, newest: bool) -> Result<bool> {
        let corrupt = Error::Corrupt { what: "key of a version" };
        let (_, revision) = key::split(cursor.key()).ok_or(corrupt)?;
        let dead = !newest || Record::is_tombstone(cursor.value());
        Ok(dead && revision.main < self.compact)
    }
}

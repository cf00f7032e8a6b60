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
    core::{Core, NEVER_COMPACTED, SCRUBBED_KEY},
    key,
    log::{self, LoggedChange},
    record::Record,
};
use bytes::Bytes;
use chronolith_engine::{Durability, KeyRange, Snapshot, WriteBatch};
use std::collections::VecDeque;

/// A step does at least this much, one key looked up and one record removed, or it might never end.
const MIN_STEP_RECORDS: usize = 2;

/// Where the removal stands between two steps.
#[derive(Default)]
pub(crate) struct Scrub {
    /// The compaction that is being carried out.
    compact: i64,
    /// The revision whose keys are being looked at.
    main: i64,
    /// Those of its keys that are left.
    changes: VecDeque<LoggedChange>,
}

impl Mvcc {
    /// Looks up keys and removes superseded records, `max_records` of both together, and says whether
    /// more are left. Call it between runs until it answers false.
    pub fn scrub_step(&mut self, max_records: usize) -> Result<bool> {
        let compact = self.core.compact();
        let scrubbed = self.core.meta(SCRUBBED_KEY)?.unwrap_or(NEVER_COMPACTED);
        if scrubbed >= compact {
            return Ok(false);
        }
        if self.scrub.compact != compact {
            self.scrub = Scrub { compact, ..Scrub::default() };
        }
        let snapshot = self.core.engine.snapshot()?;
        let left = max_records.max(MIN_STEP_RECORDS);
        let batch = WriteBatch::new();
        let mut step = Step { core: &self.core, snapshot: &*snapshot, compact, left, batch };
        let more = step.run(&mut self.scrub)?;
        let batch = step.batch;
        // Released first, or the memory engine copies what it shares with the batch.
        drop(snapshot);
        // Lost in a crash, it is done again: nothing waits for it to be durable.
        self.core.engine.write(batch, Durability::NoWal)?;
        Ok(more)
    }
}

struct Step<'a> {
    core: &'a Core,
    snapshot: &'a dyn Snapshot,
    compact: i64,
    /// Keys that may still be looked up, and records that may still be removed.
    left: usize,
    batch: WriteBatch,
}

impl Step<'_> {
    fn run(&mut self, scrub: &mut Scrub) -> Result<bool> {
        loop {
            while let Some(change) = scrub.changes.front() {
                if self.left == 0 || !self.scrub_key(&change.key)? {
                    return Ok(true);
                }
                scrub.changes.pop_front();
            }
            if scrub.main > 0 && scrub.main < self.compact {
                let key = Bytes::copy_from_slice(&key::log(scrub.main));
                self.batch.delete(self.core.columns.log, key);
            }
            if !self.load_revision(scrub)? {
                let compact = Bytes::copy_from_slice(&self.compact.to_be_bytes());
                self.batch.put(self.core.columns.meta, SCRUBBED_KEY, compact);
                return Ok(false);
            }
        }
    }

    /// Loads the keys of the next revision up to the compact revision; false if there is none.
    fn load_revision(&mut self, scrub: &mut Scrub) -> Result<bool> {
        let range = Core::log_from(scrub.main + 1);
        let mut cursor = self.snapshot.cursor(self.core.columns.log, range)?;
        cursor.seek_to_first()?;
        if !cursor.valid() {
            return Ok(false);
        }
        let corrupt = Error::Corrupt { what: "key of the log" };
        let main = key::log_revision(cursor.key()).ok_or(corrupt)?;
        if main > self.compact {
            return Ok(false);
        }
        scrub.main = main;
        scrub.changes = log::decode(main, &cursor.value_bytes())?.changes.into();
        Ok(true)
    }

    /// Removes what the compaction supersedes of one key, oldest first, so that a step that ends in
    /// between leaves the newest version, or the tombstone, above the rest. False if the step's share
    /// ran out.
    fn scrub_key(&mut self, key: &[u8]) -> Result<bool> {
        let versions = self.core.columns.versions;
        let (start, end) = key::versions_from(key, key::newest_at(self.compact));
        let range = KeyRange::half_open(start.into(), end.into());
        let mut cursor = self.snapshot.cursor(versions, range)?;
        cursor.seek_to_first()?;
        // Looking a key up costs a seek, whatever is found.
        self.left = self.left.saturating_sub(1);
        if !cursor.valid() {
            return Ok(true);
        }
        let newest = cursor.key_bytes();
        cursor.seek_to_last()?;
        while cursor.valid() {
            if self.left == 0 {
                return Ok(false);
            }
            let visible = cursor.key() == newest && !Record::is_tombstone(cursor.value());
            if !visible && self.is_before_compaction(cursor.key())? {
                self.batch.delete(versions, cursor.key_bytes());
                self.left -= 1;
            }
            cursor.prev()?;
        }
        Ok(true)
    }

    fn is_before_compaction(&self, version: &[u8]) -> Result<bool> {
        let corrupt = Error::Corrupt { what: "key of a version" };
        let (_, revision) = key::split(version).ok_or(corrupt)?;
        Ok(revision.main < self.compact)
    }
}

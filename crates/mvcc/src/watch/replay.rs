//! Reading past events from the log, for watchers that are behind.

use super::{EventBatch, WatchEvent, groups::Wish};
use crate::{
    Error, Kind, Result,
    core::{Core, Head},
    key::{self, Revision},
    log::{self, Left, LoggedChange},
};
use bytes::Bytes;
use chronolith_engine::{Cursor, Snapshot};
use std::sync::Arc;

/// How much one call of `catch_up` reads. A revision is never split, so the last one may go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpLimits {
    /// Events returned.
    pub max_events: usize,
    /// Bytes of events returned.
    pub max_bytes: usize,
    /// Revisions looked at, whether or not they hold events for this watcher.
    pub max_revisions: usize,
}

impl Default for CatchUpLimits {
    /// About a millisecond of reading, and responses far below any message limit.
    fn default() -> Self {
        Self { max_events: 1_000, max_bytes: 1 << 20, max_revisions: 10_000 }
    }
}

/// Events that `wish` wants from revision `from` on, up to `to` at most, and the first revision that
/// was not read.
pub(crate) fn replay(
    core: &Core,
    wish: &Wish,
    (from, to): (i64, i64),
    limits: &CatchUpLimits,
) -> Result<(EventBatch, i64)> {
    let snapshot = core.engine.snapshot()?;
    let compact = core.compact();
    if from < compact {
        return Err(Error::WatchCompacted { compact_revision: compact });
    }
    let mut reading =
        Replay { core, snapshot: &*snapshot, wish, compact, events: vec![], bytes: 0 };
    let mut cursor = snapshot.cursor(core.columns.log, Core::log_from(from))?;
    cursor.seek_to_first()?;
    let mut next = from;
    for _ in 0..limits.max_revisions.max(1) {
        let main = if cursor.valid() { log_revision(&*cursor)? } else { i64::MAX };
        if main > to {
            // Revision 1, the empty store, has no log: the end of what is there is what counts.
            next = to + 1;
            break;
        }
        reading.revision(main, &cursor.value_bytes())?;
        next = main + 1;
        if reading.events.len() >= limits.max_events || reading.bytes >= limits.max_bytes {
            break;
        }
        cursor.next()?;
    }
    Ok((EventBatch::new(reading.events, wish.prev_kv), next))
}

fn log_revision(cursor: &dyn Cursor) -> Result<i64> {
    key::log_revision(cursor.key()).ok_or(Error::Corrupt { what: "key of the log" })
}

struct Replay<'a> {
    core: &'a Core,
    snapshot: &'a dyn Snapshot,
    wish: &'a Wish,
    compact: i64,
    events: Vec<Arc<WatchEvent>>,
    bytes: usize,
}

impl Replay<'_> {
    fn revision(&mut self, main: i64, bytes: &Bytes) -> Result<()> {
        for (sub, change) in (0..).zip(log::decode(main, bytes)?.changes) {
            if self.wish.wants(change.kind) && self.wish.span.contains(&change.key) {
                let event = self.event(Revision { main, sub }, change)?;
                self.bytes += event.size_bytes();
                self.events.push(Arc::new(event));
            }
        }
        Ok(())
    }

    fn event(&self, at: Revision, change: LoggedChange) -> Result<WatchEvent> {
        // An event may wait in a queue for long: it must not keep the whole log entry in memory.
        let key = Bytes::copy_from_slice(&change.key);
        if let Left::Erased(_) = change.left {
            // As if it had been compacted, which watchers know how to go on from: by reading what is.
            return Err(Error::WatchCompacted { compact_revision: at.main + 1 });
        }
        let after = match change.kind {
            Kind::Put => Some(self.core.record(self.snapshot, &key, at)?),
            Kind::Delete | Kind::Expire => None,
        };
        let before = if self.wish.prev_kv && change.previous != 0 {
            self.before(&key, at.main - 1)?
        } else {
            Head::default()
        };
        let prev_kv =
            before.record.map(|record| record.into_key_value(key.clone(), before.revision));
        Ok(WatchEvent::new(at.main, key, after, prev_kv))
    }

    /// The key at revision `at`, unless that was compacted or erased.
    fn before(&self, key: &[u8], at: i64) -> Result<Head> {
        if at < self.compact {
            return Ok(Head::default());
        }
        match self.core.head_in(self.snapshot, key, at) {
            Err(Error::Erased) => Ok(Head::default()),
            head => head,
        }
    }
}

//! Physical compaction: removing what no revision from the compact revision C on can see.
//!
//! ```text
//! log    [before .. C)   each revision keeps what can still be read, and of the rest what is to be proven
//! a key  v12 v9 │ C=8 │ v7  v5† v3        v7 stays (it is the state at C), v5 and v3 go
//!        v12    │     │ v6† v2            v6 goes too: deleted is what a key is without versions
//! ```
//! * Only keys that changed at a revision up to C can have something to remove, so the log names
//!   them: no pass over all keys. What an earlier compaction left of a key is named by the first
//!   change after it, as its previous version.
//! * A version and its change in the log go in one batch. What stays of the change is up to the
//!   [`Retention`]: nothing, its hash, or all but the value. A revision of which only hashes are left
//!   goes as a whole: the log outside has its own hash of it.
//! * The log of C itself stays, and so do versions written at C, tombstones too: a watch may start
//!   there. The next compaction takes them.
//! * Nothing of this is visible: readers refuse revisions before C since the compaction was committed.
//!   So it need not happen at the same time on every replica, and after a crash it goes on from the
//!   compaction before.

use crate::{
    Commitment, Error, Mvcc, OpMeta, PutMeta, Result, Retention, Stamp,
    core::{BARE_KEY, Core, META_FROM_KEY, NEVER_COMPACTED, SCRUBBED_KEY},
    key::{self, Revision},
    log::{self, Left, LogEntry, LoggedChange},
    record::Record,
};
use bytes::Bytes;
use chronolith_engine::{Durability, KeyRange, Snapshot, WriteBatch};
use std::collections::{BTreeMap, VecDeque};

/// A step does at least this much, one key looked up and one record removed, or it might never end.
const MIN_STEP_RECORDS: usize = 2;

/// Where the removal stands between two steps.
#[derive(Default)]
pub(crate) struct Scrub {
    /// The compaction that is being carried out.
    compact: i64,
    /// The one before it: older revisions were looked at then.
    before: i64,
    /// Older changes leave their hashes, later ones all but the value.
    cutoff_ms: u64,
    /// The next revision that may keep more than it still should; none when all were looked at.
    aging: Option<i64>,
    /// The oldest revision that keeps more than hashes from now on.
    meta_from: Option<i64>,
    /// The revision whose keys are being looked at.
    main: i64,
    stamp: Stamp,
    count: usize,
    /// Those of its changes that are left.
    changes: VecDeque<(u32, LoggedChange)>,
    /// What goes once all of them were looked at.
    doomed: Vec<Doomed>,
}

impl Scrub {
    /// Whether a change of this time keeps all but the value; then its revision is remembered.
    fn keeps_meta(&mut self, main: i64, time_ms: u64) -> bool {
        let keeps = time_ms >= self.cutoff_ms;
        if keeps {
            self.meta_from = Some(self.meta_from.map_or(main, |from| from.min(main)));
        }
        keeps
    }
}

/// A version that goes, and what its change leaves in the log.
struct Doomed {
    place: Revision,
    version: Bytes,
    left: Option<Left>,
}

impl Mvcc {
    /// Looks up keys and removes superseded records, `max_records` of both together, and says whether
    /// more are left. Call it between runs until it answers false. The versions of one revision go
    /// together, as they came.
    ///
    /// Lost in a crash, it is done again. That holds where nothing of the engine's is durable but whole
    /// checkpoints; where writes are, see [`scrub_step_logged`](Self::scrub_step_logged).
    pub fn scrub_step(&mut self, max_records: usize) -> Result<bool> {
        self.scrub_step_as(max_records, Durability::NoWal)
    }

    /// The same, in the engine's own log: for stores whose writes are there. An erasure that builds on
    /// what a removal left must not outlive it.
    pub fn scrub_step_logged(&mut self, max_records: usize) -> Result<bool> {
        self.scrub_step_as(max_records, Durability::Buffered)
    }

    fn scrub_step_as(&mut self, max_records: usize, durability: Durability) -> Result<bool> {
        let compact = self.core.compact();
        let scrubbed = self.core.meta(SCRUBBED_KEY)?.unwrap_or(NEVER_COMPACTED);
        if scrubbed >= compact {
            return Ok(false);
        }
        let snapshot = self.core.engine.snapshot()?;
        if self.scrub.compact != compact {
            self.scrub = self.begin(&*snapshot, compact, scrubbed)?;
        }
        let left = max_records.max(MIN_STEP_RECORDS);
        let commitment = self.commitment.as_deref();
        let keeps = commitment.is_some() && self.retention != Retention::Nothing;
        let batch = WriteBatch::new();
        let stubs = BTreeMap::new();
        let mut step = Step {
            core: &self.core,
            commitment,
            keeps,
            snapshot: &*snapshot,
            compact,
            left,
            batch,
            stubs,
        };
        let more = step.run(&mut self.scrub)?;
        step.write_stubs();
        let batch = step.batch;
        // Released first, or the memory engine copies what it shares with the batch.
        drop(snapshot);
        self.core.engine.write(batch, durability)?;
        Ok(more)
    }

    fn begin(&self, snapshot: &dyn Snapshot, compact: i64, before: i64) -> Result<Scrub> {
        let logged = snapshot.get(self.core.columns.log, &key::log(compact))?;
        let now_ms = logged.map_or(Ok(0), |bytes| log::time_ms(&bytes))?;
        let cutoff_ms = match self.retention {
            Retention::Meta { keep_ms } => now_ms.saturating_sub(keep_ms),
            Retention::Nothing | Retention::Hashes => u64::MAX,
        };
        let meta_from = self.core.meta(META_FROM_KEY)?;
        let aging = meta_from.filter(|_| cutoff_ms > 0);
        let main = (before - 1).max(0);
        Ok(Scrub { compact, before, cutoff_ms, aging, meta_from, main, ..Scrub::default() })
    }
}

struct Step<'a> {
    core: &'a Core,
    commitment: Option<&'a dyn Commitment>,
    /// Whether anything is to be proven of what goes.
    keeps: bool,
    snapshot: &'a dyn Snapshot,
    compact: i64,
    /// Keys that may still be looked up, and records that may still be removed.
    left: usize,
    batch: WriteBatch,
    /// Revisions that were read, and whether they changed; none for one that is gone.
    stubs: BTreeMap<i64, (Option<LogEntry>, bool)>,
}

impl Step<'_> {
    fn run(&mut self, scrub: &mut Scrub) -> Result<bool> {
        if !self.age(scrub)? {
            return Ok(true);
        }
        loop {
            while let Some((sub, change)) = scrub.changes.front().cloned() {
                if self.left == 0 {
                    return Ok(true);
                }
                if self.keeps {
                    self.look_at(scrub, sub, &change)?;
                } else if !self.strip(&change.key)? {
                    return Ok(true);
                }
                scrub.changes.pop_front();
            }
            self.remove(scrub)?;
            if !self.load_revision(scrub)? {
                self.finish(scrub);
                return Ok(false);
            }
        }
    }

    fn finish(&mut self, scrub: &Scrub) {
        let bytes = |number: i64| Bytes::copy_from_slice(&number.to_be_bytes());
        let meta = self.core.columns.meta;
        self.batch.put(meta, SCRUBBED_KEY, bytes(self.compact));
        if !self.keeps {
            self.batch.put(meta, BARE_KEY, bytes(self.compact));
        }
        match scrub.meta_from {
            Some(from) => self.batch.put(meta, META_FROM_KEY, bytes(from)),
            None => self.batch.delete(meta, META_FROM_KEY),
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
        let main = key::log_revision(cursor.key()).ok_or(CORRUPT_LOG)?;
        if main > self.compact {
            return Ok(false);
        }
        let LogEntry { stamp, changes } = log::decode(main, &cursor.value_bytes())?;
        (scrub.main, scrub.stamp, scrub.count) = (main, stamp, changes.len());
        scrub.changes = (0..).zip(changes).collect();
        Ok(true)
    }

    /// Finds out what the compaction takes of one change's key: the change itself, if it cannot be
    /// seen any more, and what the compaction before had left.
    fn look_at(&mut self, scrub: &mut Scrub, sub: u32, change: &LoggedChange) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        let place = Revision { main: scrub.main, sub };
        match change.left {
            Left::Hash(_) => return Ok(()),
            // Of a removal that was broken off.
            Left::Meta(put) => {
                self.look_at_meta(scrub, place, change, put);
                return Ok(());
            }
            Left::Whole | Left::Salted(_) | Left::Erased(_) => {}
        }
        if scrub.main < self.compact {
            let own = key::version(&change.key, place);
            let newest = self.newest(&change.key, self.compact)?;
            let visible = newest
                .as_ref()
                .is_some_and(|(found, stored)| *found == own && !Record::is_tombstone(stored));
            if !visible {
                let stored = self.snapshot.get(self.core.columns.versions, &own)?;
                let own = Removed { place, version: own.into(), stored };
                self.doom(scrub, own, (scrub.stamp, scrub.count), change)?;
            }
        }
        if change.previous > 0 && change.previous < scrub.before {
            self.look_at_previous(scrub, change)?;
        }
        Ok(())
    }

    /// Removes what the compaction supersedes of one key, where nothing of it is to be proven: oldest
    /// first, so that a step that ends in between leaves the newest version, or the tombstone, above the
    /// rest. False if the step's share ran out.
    fn strip(&mut self, key: &[u8]) -> Result<bool> {
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
            let (_, place) = key::split(cursor.key()).ok_or(CORRUPT_LOG)?;
            if !visible && place.main < self.compact {
                self.batch.delete(versions, cursor.key_bytes());
                self.left -= 1;
            }
            cursor.prev()?;
        }
        Ok(true)
    }

    fn look_at_meta(
        &self,
        scrub: &mut Scrub,
        place: Revision,
        change: &LoggedChange,
        put: PutMeta,
    ) {
        let Some(commitment) = self.commitment else { return };
        if scrub.keeps_meta(place.main, scrub.stamp.time_ms) {
            return;
        }
        let left = Some(Left::Hash(commitment.hash(&op(change, Some(put)))));
        scrub.doomed.push(Doomed { place, version: key::version(&change.key, place).into(), left });
    }

    /// The version that was the state at the compaction before. Something followed it.
    fn look_at_previous(&mut self, scrub: &mut Scrub, change: &LoggedChange) -> Result<()> {
        let Some((version, stored)) = self.newest(&change.key, change.previous)? else {
            return Ok(());
        };
        let (_, place) = key::split(&version).ok_or(CORRUPT_LOG)?;
        if place.main != change.previous {
            return Ok(());
        }
        let sub = place.sub as usize;
        let found = self.entry(place.main)?;
        let logged = found.and_then(|entry| {
            let change = entry.changes.get(sub)?.clone();
            Some((entry.stamp, entry.changes.len(), change))
        });
        let removed = Removed { place, version, stored: Some(stored) };
        match logged {
            Some((stamp, count, change)) => self.doom(scrub, removed, (stamp, count), &change),
            None => {
                let Removed { place, version, .. } = removed;
                scrub.doomed.push(Doomed { place, version, left: None });
                Ok(())
            }
        }
    }

    fn newest(&self, key: &[u8], at: i64) -> Result<Option<(Bytes, Bytes)>> {
        let (start, end) = key::versions_from(key, key::newest_at(at));
        Ok(self.snapshot.first(self.core.columns.versions, &start, &end)?)
    }

    fn doom(
        &self,
        scrub: &mut Scrub,
        removed: Removed,
        (stamp, count): (Stamp, usize),
        change: &LoggedChange,
    ) -> Result<()> {
        let Removed { place, version, stored } = removed;
        let put = match (self.commitment, stored) {
            (Some(_), Some(stored)) if Record::is_erased(&stored) => None,
            (Some(commitment), Some(stored)) => {
                let salt = match change.left {
                    Left::Salted(salt) => salt,
                    _ => commitment.salt(&stamp.salt, count, place.sub as usize),
                };
                Record::decode(&stored)?.map(|record| meta(commitment, record, salt))
            }
            _ => None,
        };
        let left = match self.commitment.filter(|_| put.is_some() || !change.kind.is_put()) {
            Some(_) if scrub.keeps_meta(place.main, stamp.time_ms) => {
                Some(put.map_or(Left::Whole, Left::Meta))
            }
            Some(commitment) => Some(Left::Hash(commitment.hash(&op(change, put)))),
            None => None,
        };
        scrub.doomed.push(Doomed { place, version, left });
        Ok(())
    }

    /// Removes what the revision that was looked at made superfluous, in the log too.
    fn remove(&mut self, scrub: &mut Scrub) -> Result<()> {
        for Doomed { place, version, left } in std::mem::take(&mut scrub.doomed) {
            self.batch.delete(self.core.columns.versions, version);
            self.left = self.left.saturating_sub(1);
            self.replace(place, left)?;
        }
        let gone = scrub.main > 0 && scrub.main < self.compact && !self.keeps;
        if gone {
            let key = Bytes::copy_from_slice(&key::log(scrub.main));
            self.batch.delete(self.core.columns.log, key);
        }
        Ok(())
    }

    /// Puts what is left of a change in its place. Erasure may have come in between: then nothing but
    /// the hash is left.
    fn replace(&mut self, place: Revision, left: Option<Left>) -> Result<()> {
        self.entry(place.main)?;
        let Some((Some(entry), changed)) = self.stubs.get_mut(&place.main) else { return Ok(()) };
        let Some(change) = entry.changes.get_mut(place.sub as usize) else { return Ok(()) };
        let left = match (change.left, left) {
            (Left::Erased(hash), _) => Left::Hash(hash),
            (Left::Hash(_), _) | (_, None) => return Ok(()),
            (_, Some(left)) => left,
        };
        *changed = true;
        match left {
            Left::Hash(hash) => *change = LoggedChange::hash(hash),
            left => change.left = left,
        }
        Ok(())
    }

    /// What is left of a revision, as this step has changed it so far.
    fn entry(&mut self, main: i64) -> Result<Option<&LogEntry>> {
        if !self.stubs.contains_key(&main) {
            let stored = self.snapshot.get(self.core.columns.log, &key::log(main))?;
            let entry = stored.map(|bytes| log::decode(main, &bytes)).transpose()?;
            self.stubs.insert(main, (entry, false));
        }
        Ok(self.stubs.get(&main).and_then(|(entry, _)| entry.as_ref()))
    }

    fn write_stubs(&mut self) {
        for (main, (entry, changed)) in std::mem::take(&mut self.stubs) {
            let Some(entry) = entry.filter(|_| changed) else { continue };
            let key = Bytes::copy_from_slice(&key::log(main));
            match entry.has_only_hashes() {
                true => self.batch.delete(self.core.columns.log, key),
                false => self.batch.put(self.core.columns.log, key, log::encode(main, &entry)),
            }
        }
    }

    /// Turns what is kept of changes beyond their hashes, and is older than it is to be kept, into the
    /// hashes. False if the step's share ran out.
    fn age(&mut self, scrub: &mut Scrub) -> Result<bool> {
        let Some(commitment) = self.commitment else { return Ok(true) };
        let Some(next) = scrub.aging else { return Ok(true) };
        let mut cursor = self.snapshot.cursor(self.core.columns.log, Core::log_from(next))?;
        cursor.seek_to_first()?;
        loop {
            let main = if cursor.valid() { key::log_revision(cursor.key()) } else { None };
            let Some(main) = main.filter(|main| *main < scrub.before) else {
                (scrub.aging, scrub.meta_from) = (None, None);
                return Ok(true);
            };
            let bytes = cursor.value_bytes();
            if log::time_ms(&bytes)? >= scrub.cutoff_ms {
                (scrub.aging, scrub.meta_from) = (None, Some(main));
                return Ok(true);
            }
            let mut entry = log::decode(main, &bytes)?;
            let changed = age(commitment, &mut entry);
            self.stubs.insert(main, (Some(entry), changed));
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                scrub.aging = Some(main + 1);
                return Ok(false);
            }
            cursor.next()?;
        }
    }
}

const CORRUPT_LOG: Error = Error::Corrupt { what: "key of the log or of a version" };

/// A version that is still stored, or was when it was looked at.
struct Removed {
    place: Revision,
    version: Bytes,
    stored: Option<Bytes>,
}

fn meta(commitment: &dyn Commitment, record: Record, salt: [u8; 16]) -> PutMeta {
    let Record { create_revision, version, lease, value } = record;
    PutMeta { create_revision, version, lease, salt, digest: commitment.digest(&salt, &value) }
}

fn op(change: &LoggedChange, put: Option<PutMeta>) -> OpMeta<'_> {
    OpMeta { kind: change.kind, key: &change.key, previous: change.previous, put }
}

/// Reduces what nobody can read to hashes: puts without value, and removals, of which a compacted
/// revision has no others. Whether there was any.
fn age(commitment: &dyn Commitment, entry: &mut LogEntry) -> bool {
    let mut changed = false;
    for change in &mut entry.changes {
        let put = match change.left {
            Left::Meta(put) => Some(put),
            Left::Whole if !change.kind.is_put() => None,
            _ => continue,
        };
        *change = LoggedChange::hash(commitment.hash(&op(change, put)));
        changed = true;
    }
    changed
}

//! Erasure: taking a value away for good, and what could be used to guess it.
//!
//! ```text
//! versions   key!7 → value            key!7 → 02 (erased)
//! log 7      salt · put key, …        0 · put key, hash · put other with its own salt, …
//! ```
//! * The value, its salt and everything the log outside commits to go; the hash of all that stays, so
//!   whatever else the revision did is proven as before. The key's name stays until a compaction.
//! * Only what something follows can be erased: a reader of the newest revision never meets it. One of
//!   an older revision is told so, and so is a watcher that would need the value.
//! * It makes no revision: it is no change of a key.

use crate::{
    Commitment, Error, OpMeta, PutMeta, Result, Run,
    commitment::SALT_BYTES,
    core::{Core, META_FROM_KEY, NEVER_COMPACTED, SCRUBBED_KEY},
    key::{self, Revision},
    log::{self, Left, LogEntry, LoggedChange},
    record::Record,
    span::Span,
};
use bytes::Bytes;

/// A version that is to be erased.
struct Target {
    place: Revision,
    version: Bytes,
    record: Record,
}

impl Run<'_> {
    /// Erases the values that revisions from `from` to `to` gave `key`: the revisions that had one.
    /// None, if there was nothing to erase any more.
    pub fn erase(&mut self, key: &Bytes, from: i64, to: i64) -> Result<Vec<i64>> {
        let commitment = self.mvcc.commitment.clone().ok_or(Error::NoCommitment)?;
        let targets = self.targets(key, from, to)?;
        let mut revisions = self.erase_compacted(key, from, to)?;
        for Target { place, version, record } in targets {
            self.overlay.put(self.columns.versions, version, Record::erased());
            revisions.push(place.main);
            // A compaction may have kept nothing of the log but what can be read.
            let Some(mut entry) = self.logged(place.main)? else { continue };
            let own = give_own_salts(&*commitment, &mut entry, place.sub as usize);
            if let Some(change) = entry.changes.get_mut(place.sub as usize) {
                let Record { create_revision, version, lease, value } = record;
                let digest = commitment.digest(&own, &value);
                let put = PutMeta { create_revision, version, lease, salt: own, digest };
                change.left = Left::Erased(commitment.hash(&op(change, put)));
            }
            self.overlay.put(
                self.columns.log,
                log_key(place.main),
                log::encode(place.main, &entry),
            );
        }
        revisions.sort_unstable();
        revisions.dedup();
        Ok(revisions)
    }

    /// What a compaction kept of values besides them: a salt and a digest could be guessed with.
    fn erase_compacted(&mut self, key: &Bytes, from: i64, to: i64) -> Result<Vec<i64>> {
        let core = &self.mvcc.core;
        let scrubbed = core.meta(SCRUBBED_KEY)?.unwrap_or(NEVER_COMPACTED);
        let oldest = match core.meta(META_FROM_KEY)? {
            Some(oldest) => oldest.min(scrubbed),
            None if scrubbed < self.compact_revision() => scrubbed,
            None => return Ok(Vec::new()),
        };
        let commitment = self.mvcc.commitment.clone().ok_or(Error::NoCommitment)?;
        let mut reduced = Vec::new();
        let range = Core::log_from(oldest.max(from));
        let mut cursor = self.overlay.cursor(self.columns.log, range)?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            let corrupt = Error::Corrupt { what: "key of the log" };
            let main = key::log_revision(cursor.key()).ok_or(corrupt)?;
            if main > to || main >= self.compact_revision() {
                break;
            }
            let mut entry = log::decode(main, &cursor.value_bytes())?;
            let mut found = false;
            for change in entry.changes.iter_mut().filter(|change| change.key == *key) {
                if let Left::Meta(put) = change.left {
                    *change = LoggedChange::hash(commitment.hash(&op(change, put)));
                    found = true;
                }
            }
            if found {
                give_own_salts(&*commitment, &mut entry, usize::MAX);
                reduced.push((main, entry));
            }
            cursor.next()?;
        }
        drop(cursor);
        let revisions = reduced.iter().map(|(main, _)| *main).collect();
        for (main, entry) in reduced {
            match entry.has_only_hashes() {
                true => self.overlay.delete(self.columns.log, log_key(main)),
                false => {
                    self.overlay.put(self.columns.log, log_key(main), log::encode(main, &entry));
                }
            }
        }
        Ok(revisions)
    }

    /// The versions with a value, oldest first.
    fn targets(&self, key: &Bytes, from: i64, to: i64) -> Result<Vec<Target>> {
        let mut cursor =
            self.overlay.cursor(self.columns.versions, key::range(&Span::Point(key.clone())))?;
        cursor.seek_to_first()?;
        let mut targets = Vec::new();
        let mut newest = true;
        while cursor.valid() {
            let corrupt = Error::Corrupt { what: "key of a version" };
            let (_, place) = key::split(cursor.key()).ok_or(corrupt)?;
            let (version, stored) = (cursor.key_bytes(), cursor.value_bytes());
            let in_range = (from..=to).contains(&place.main);
            let has_value = !Record::is_tombstone(&stored) && !Record::is_erased(&stored);
            if newest && in_range && has_value {
                return Err(Error::StillCurrent { revision: place.main });
            }
            newest = false;
            if let Some(record) = decode_if(in_range && has_value, &stored)? {
                targets.push(Target { place, version, record });
            }
            cursor.next()?;
        }
        targets.reverse();
        Ok(targets)
    }

    fn logged(&self, revision: i64) -> Result<Option<LogEntry>> {
        let bytes = self.overlay.get(self.columns.log, &key::log(revision))?;
        bytes.map(|bytes| log::decode(revision, &bytes)).transpose()
    }
}

fn log_key(revision: i64) -> Bytes {
    Bytes::copy_from_slice(&key::log(revision))
}

fn op(change: &LoggedChange, put: PutMeta) -> OpMeta<'_> {
    let (kind, key, previous) = (change.kind, &change.key[..], change.previous);
    OpMeta { kind, key, previous, put: Some(put) }
}

/// Takes the revision's salt away and leaves each value its own; the one at `position` is the answer.
fn give_own_salts(
    commitment: &dyn Commitment,
    entry: &mut LogEntry,
    position: usize,
) -> [u8; SALT_BYTES] {
    let count = entry.changes.len();
    let revision = std::mem::take(&mut entry.stamp.salt);
    let mut wanted = [0; SALT_BYTES];
    for (place, change) in entry.changes.iter_mut().enumerate() {
        let own = match change.left {
            Left::Salted(salt) => salt,
            _ => commitment.salt(&revision, count, place),
        };
        if place == position {
            wanted = own;
        }
        if change.has_value() {
            change.left = Left::Salted(own);
        }
    }
    wanted
}

fn decode_if(wanted: bool, stored: &Bytes) -> Result<Option<Record>> {
    if wanted { Record::decode(stored) } else { Ok(None) }
}

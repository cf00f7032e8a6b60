//! What is stored for one revision: who changed which keys, and when.
//!
//! ```text
//! time in ms (8, big endian) · actor (16) · salt (16) · change*
//! change: 00 put, 01 delete, 02 expire · named
//!         03 put with a salt of its own · named · salt (16)
//!         04 put whose value was erased · named · hash (32)
//!         05 put whose value was compacted · named · create revision · version · lease · salt (16) · digest (32)
//!         06 compacted or erased · hash (32)
//! named:  revisions since the previous version, 0 is none · key length · key
//! ```
//! The position of a change is its sub-revision, so a change's record is found with one read. The
//! values stay in `versions`; watch catch-up, history and the ledger read both. A revision is written
//! with 00 to 02; compaction and erasure make the others of them. Where a value was erased the
//! revision's salt is zero and every put that is left has its own: nothing is left to guess with.

use crate::{
    Error, PutMeta, Result, Stamp,
    commitment::{HASH_BYTES, SALT_BYTES},
    varint,
};
use bytes::Bytes;

/// Whether a change set a key or removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The key was set.
    Put,
    /// The key was removed.
    Delete,
    /// The key was removed because its lease ran out.
    Expire,
}

impl Kind {
    /// Whether a value was left.
    #[must_use]
    pub fn is_put(self) -> bool {
        self == Self::Put
    }

    fn code(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Delete => 1,
            Self::Expire => 2,
        }
    }
}

const SALTED: u8 = 3;
const ERASED: u8 = 4;
const META: u8 = 5;
const HASH: u8 = 6;

/// Time, actor and salt.
const HEADER_BYTES: usize = 8 + 16 + 16;

/// One change of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedChange {
    pub(crate) kind: Kind,
    pub(crate) key: Bytes,
    /// Revision of the key's version before this one, a tombstone's too; 0 where there was none.
    pub(crate) previous: i64,
    pub(crate) left: Left,
}

/// What is left of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it; a put's value is in `versions`.
    Whole,
    /// The same, with a salt that is not made of the revision's.
    Salted([u8; SALT_BYTES]),
    /// A put without its value.
    Meta(PutMeta),
    /// The key and the hash of a put whose value was erased.
    Erased([u8; HASH_BYTES]),
    /// The hash alone: there is no key.
    Hash([u8; HASH_BYTES]),
}

impl LoggedChange {
    pub(crate) fn hash(hash: [u8; HASH_BYTES]) -> Self {
        Self { kind: Kind::Put, key: Bytes::new(), previous: 0, left: Left::Hash(hash) }
    }

    /// Whether its value is in `versions`.
    pub(crate) fn has_value(&self) -> bool {
        self.kind.is_put() && matches!(self.left, Left::Whole | Left::Salted(_))
    }
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) stamp: Stamp,
    pub(crate) changes: Vec<LoggedChange>,
}

impl LogEntry {
    /// Whether nothing is left to be shown of it.
    pub(crate) fn has_only_hashes(&self) -> bool {
        self.changes.iter().all(|change| matches!(change.left, Left::Hash(_)))
    }
}

/// Builds the stored form of a revision change by change.
pub(crate) struct LogWriter {
    revision: i64,
    out: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn new(revision: i64, stamp: &Stamp, room_bytes: usize) -> Self {
        let mut out = Vec::with_capacity(HEADER_BYTES + room_bytes);
        out.extend_from_slice(&stamp.time_ms.to_be_bytes());
        out.extend_from_slice(&stamp.actor);
        out.extend_from_slice(&stamp.salt);
        Self { revision, out }
    }

    pub(crate) fn push(&mut self, kind: Kind, key: &[u8], previous: i64) {
        self.out.push(kind.code());
        self.name(key, previous);
    }

    fn name(&mut self, key: &[u8], previous: i64) {
        let distance = if previous == 0 { 0 } else { self.revision - previous };
        varint::push(&mut self.out, distance.cast_unsigned());
        varint::push(&mut self.out, key.len() as u64);
        self.out.extend_from_slice(key);
    }

    fn push_left(&mut self, change: &LoggedChange) {
        let LoggedChange { kind, key, previous, left } = change;
        match left {
            Left::Whole => self.push(*kind, key, *previous),
            Left::Salted(salt) => self.push_named(SALTED, change, salt),
            Left::Erased(hash) => self.push_named(ERASED, change, hash),
            Left::Meta(meta) => {
                self.push_named(META, change, &[]);
                varint::push(&mut self.out, meta.create_revision.cast_unsigned());
                varint::push(&mut self.out, meta.version.cast_unsigned());
                varint::push_signed(&mut self.out, meta.lease);
                self.out.extend_from_slice(&meta.salt);
                self.out.extend_from_slice(&meta.digest);
            }
            Left::Hash(hash) => {
                self.out.push(HASH);
                self.out.extend_from_slice(hash);
            }
        }
    }

    fn push_named(&mut self, code: u8, change: &LoggedChange, rest: &[u8]) {
        self.out.push(code);
        self.name(&change.key, change.previous);
        self.out.extend_from_slice(rest);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// The stored form of what is left of a revision.
pub(crate) fn encode(revision: i64, entry: &LogEntry) -> Vec<u8> {
    let room_bytes = entry.changes.iter().map(|change| change.key.len() + HASH_BYTES + 8).sum();
    let mut writer = LogWriter::new(revision, &entry.stamp, room_bytes);
    entry.changes.iter().for_each(|change| writer.push_left(change));
    writer.finish()
}

/// Reads a stored revision; the keys are slices of `bytes`.
pub(crate) fn decode(revision: i64, bytes: &Bytes) -> Result<LogEntry> {
    decode_entry(revision, bytes).ok_or(Error::Corrupt { what: "log of a revision" })
}

fn decode_entry(revision: i64, bytes: &Bytes) -> Option<LogEntry> {
    let mut reader = varint::Reader::new(bytes);
    let time_ms = u64::from_be_bytes(reader.array()?);
    let stamp = Stamp { time_ms, actor: reader.array()?, salt: reader.array()? };
    let mut changes = Vec::new();
    while reader.at < bytes.len() {
        changes.push(decode_change(revision, bytes, &mut reader)?);
    }
    Some(LogEntry { stamp, changes })
}

fn decode_change(
    revision: i64,
    bytes: &Bytes,
    reader: &mut varint::Reader<'_>,
) -> Option<LoggedChange> {
    let kind = match reader.byte()? {
        HASH => return Some(LoggedChange::hash(reader.array()?)),
        1 => (Kind::Delete, 1),
        2 => (Kind::Expire, 2),
        code @ (0 | SALTED | ERASED | META) => (Kind::Put, code),
        _ => return None,
    };
    let distance = reader.positive()?;
    let previous = if distance == 0 { 0 } else { revision.checked_sub(distance)? };
    let length = usize::try_from(reader.number()?).ok()?;
    let key = bytes.slice(reader.stretch(length)?);
    let left = match kind.1 {
        SALTED => Left::Salted(reader.array()?),
        ERASED => Left::Erased(reader.array()?),
        META => Left::Meta(PutMeta {
            create_revision: reader.positive()?,
            version: reader.positive()?,
            lease: reader.signed()?,
            salt: reader.array()?,
            digest: reader.array()?,
        }),
        _ => Left::Whole,
    };
    Some(LoggedChange { kind: kind.0, key, previous, left })
}

/// The time of a stored revision, without reading its changes.
pub(crate) fn time_ms(bytes: &[u8]) -> Result<u64> {
    let time = varint::Reader::new(bytes).array();
    time.map(u64::from_be_bytes).ok_or(Error::Corrupt { what: "log of a revision" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_reads_back() {
        let stamp = Stamp { time_ms: 1_700_000_000_123, actor: [7; 16], salt: [9; 16] };
        let mut writer = LogWriter::new(90, &stamp, 0);
        writer.push(Kind::Put, b"new", 0);
        writer.push(Kind::Delete, b"", 1);
        writer.push(Kind::Expire, b"leased", 89);
        let bytes = Bytes::from(writer.finish());
        let change = |kind, key: &'static str, previous| LoggedChange {
            kind,
            key: key.into(),
            previous,
            left: Left::Whole,
        };
        let changes = vec![
            change(Kind::Put, "new", 0),
            change(Kind::Delete, "", 1),
            change(Kind::Expire, "leased", 89),
        ];
        assert_eq!(decode(90, &bytes).unwrap(), LogEntry { stamp, changes });
        assert_eq!(time_ms(&bytes).unwrap(), stamp.time_ms);
    }

    #[test]
    fn what_is_left_of_a_revision_reads_back() {
        let put = |left| LoggedChange { kind: Kind::Put, key: "k".into(), previous: 7, left };
        let meta = PutMeta {
            create_revision: 3,
            version: 300,
            lease: -5,
            salt: [4; SALT_BYTES],
            digest: [5; HASH_BYTES],
        };
        let changes = vec![
            put(Left::Whole),
            LoggedChange { kind: Kind::Expire, ..put(Left::Whole) },
            put(Left::Salted([1; SALT_BYTES])),
            put(Left::Erased([2; HASH_BYTES])),
            put(Left::Meta(meta)),
            LoggedChange::hash([3; HASH_BYTES]),
        ];
        let entry = LogEntry { stamp: Stamp::default(), changes };
        let bytes = Bytes::from(encode(90, &entry));
        assert_eq!(decode(90, &bytes).unwrap(), entry);
        for length in 41..bytes.len() {
            let cut = decode(90, &bytes.slice(..length));
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.changes.len() < 6), "{length}");
        }
    }

    #[test]
    fn damage_is_refused() {
        let mut writer = LogWriter::new(2, &Stamp::default(), 0);
        writer.push(Kind::Put, b"key", 0);
        let bytes = Bytes::from(writer.finish());
        assert!(decode(2, &bytes.slice(..bytes.len() - 1)).is_err());
        assert!(decode(2, &bytes.slice(..5)).is_err());
    }
}

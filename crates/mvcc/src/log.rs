//! What is stored for one revision: who changed which keys, and when.
//!
//! ```text
//! time in ms (8, big endian) · actor (16) · salt (16) · change*
//! change: kind (00 put, 01 delete, 02 expire) · revisions since the previous version, 0 is none · key length · key
//! ```
//! The position of a change is its sub-revision, so a change's record is found with one read. The
//! values stay in `versions`; watch catch-up, history and the ledger read both.

use crate::{Error, Result, Stamp, varint};
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

    fn of_code(code: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Expire].into_iter().find(|kind| kind.code() == code)
    }
}

/// Time, actor and salt.
const HEADER_BYTES: usize = 8 + 16 + 16;

/// One change of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedChange {
    pub(crate) kind: Kind,
    pub(crate) key: Bytes,
    /// Revision of the key's version before this one, a tombstone's too; 0 where there was none.
    pub(crate) previous: i64,
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) stamp: Stamp,
    pub(crate) changes: Vec<LoggedChange>,
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
        let distance = if previous == 0 { 0 } else { self.revision - previous };
        varint::push(&mut self.out, distance.cast_unsigned());
        varint::push(&mut self.out, key.len() as u64);
        self.out.extend_from_slice(key);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
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
        let kind = Kind::of_code(reader.byte()?)?;
        let distance = reader.positive()?;
        let previous = if distance == 0 { 0 } else { revision.checked_sub(distance)? };
        let length = usize::try_from(reader.number()?).ok()?;
        changes.push(LoggedChange { kind, previous, key: bytes.slice(reader.stretch(length)?) });
    }
    Some(LogEntry { stamp, changes })
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
        let change =
            |kind, key: &'static str, previous| LoggedChange { kind, key: key.into(), previous };
        let changes = vec![
            change(Kind::Put, "new", 0),
            change(Kind::Delete, "", 1),
            change(Kind::Expire, "leased", 89),
        ];
        assert_eq!(decode(90, &bytes).unwrap(), LogEntry { stamp, changes });
        assert_eq!(time_ms(&bytes).unwrap(), stamp.time_ms);
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

//! What is stored for one version of a key.
//!
//! ```text
//! tombstone: 01
//! erased:    02
//! live:      00 · create revision · version · lease · value (the rest)      varints
//! ```
//! The value is the tail, so that reading a record copies nothing: it is a slice of what the engine
//! holds. The key and the revision stand in the engine's key.

use crate::{Error, Result, varint};
use bytes::{BufMut, Bytes};
use chronolith_proto::mvccpb::KeyValue;

const LIVE: u8 = 0;
const TOMBSTONE: u8 = 1;
const ERASED: u8 = 2;
/// Room for the header: a flag and three varints of at most ten bytes.
const HEADER_BYTES: usize = 31;

/// A live version, without its key and revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value: Bytes,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::max_bytes(&self.value));
        Self::push(&mut out, (self.create_revision, self.version, self.lease), &self.value);
        out
    }

    /// Appends the stored form of a live version.
    pub(crate) fn push(
        out: &mut impl BufMut,
        (create_revision, version, lease): (i64, i64, i64),
        value: &[u8],
    ) {
        out.put_u8(LIVE);
        varint::push(out, create_revision.cast_unsigned());
        varint::push(out, version.cast_unsigned());
        varint::push_signed(out, lease);
        out.put_slice(value);
    }

    /// The most bytes that a version with this value takes.
    pub(crate) fn max_bytes(value: &[u8]) -> usize {
        HEADER_BYTES + value.len()
    }

    pub(crate) fn tombstone() -> Bytes {
        Bytes::from_static(&[TOMBSTONE])
    }

    /// Whether stored bytes are a tombstone, without decoding them.
    pub(crate) fn is_tombstone(bytes: &[u8]) -> bool {
        bytes == [TOMBSTONE]
    }

    /// Stands for a value that was erased: only versions that something follows can be.
    pub(crate) fn erased() -> Bytes {
        Bytes::from_static(&[ERASED])
    }

    /// Whether stored bytes stand for an erased value.
    pub(crate) fn is_erased(bytes: &[u8]) -> bool {
        bytes == [ERASED]
    }

    /// Reads stored bytes; `None` is a tombstone. A version that was erased answers that it was: no
    /// reader may take it for another state of the key.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Option<Self>> {
        if Self::is_erased(bytes) {
            return Err(Error::Erased);
        }
        if Self::is_tombstone(bytes) {
            return Ok(None);
        }
        Self::decode_live(bytes).map(Some).ok_or(Error::Corrupt { what: "version of a key" })
    }

    /// Reads stored bytes of a live version, all but the value: that is left where it lies.
    pub(crate) fn decode_without_value(bytes: &[u8]) -> Result<Self> {
        if Self::is_erased(bytes) {
            return Err(Error::Erased);
        }
        let decoded = Self::decode_header(bytes).ok_or(Error::Corrupt { what: "version of a key" });
        Ok(decoded?.0)
    }

    fn decode_live(bytes: &Bytes) -> Option<Self> {
        let (record, value_at) = Self::decode_header(bytes)?;
        Some(Self { value: bytes.slice(value_at..), ..record })
    }

    /// The record without its value, and where that begins.
    fn decode_header(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut reader = varint::Reader::new(bytes);
        if reader.byte()? != LIVE {
            return None;
        }
        let (create_revision, version) = (reader.positive()?, reader.positive()?);
        let lease = reader.signed()?;
        Some((Self { create_revision, version, lease, value: Bytes::new() }, reader.at))
    }

    /// The record as clients see it.
    pub(crate) fn into_key_value(self, key: Bytes, mod_revision: i64) -> KeyValue {
        let Self { create_revision, version, lease, value } = self;
        KeyValue { key, create_revision, mod_revision, version, value, lease }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back(create_revision in 1i64.., version in 1i64.., lease: i64, value: Vec<u8>) {
            let record = Record { create_revision, version, lease, value: value.into() };
            let bytes = Bytes::from(record.encode());
            let decoded = Record::decode(&bytes).unwrap();
            prop_assert_eq!(decoded.as_ref(), Some(&record));
            let bare = Record { value: Bytes::new(), ..record };
            prop_assert_eq!(Record::decode_without_value(&bytes).unwrap(), bare);
        }

        #[test]
        fn nonsense_is_refused_or_read_but_never_panics(bytes: Vec<u8>) {
            let _ = Record::decode_without_value(&bytes);
            let _ = Record::decode(&bytes.into());
        }
    }

    #[test]
    fn a_tombstone_is_one() {
        assert_eq!(Record::decode(&Record::tombstone()).unwrap(), None);
    }
}

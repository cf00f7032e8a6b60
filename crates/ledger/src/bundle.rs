//! Bundles: entries, op records and values together with what proves them, for one checkpoint.
//!
//! ```text
//! "chronolith/bundle/1\n" · checkpoint (4-byte length) · revisions 4 · revision*
//! revision:  entry 70 · path · operations 4 · operation*
//! operation: position 4 · path · op record (4-byte length) · value length 4, ffffffff is absent · value
//! path:      hashes 1 · hash 32*
//! ```
//! Revisions ascend, and so do positions: there is one encoding. Each byte is inside something hashed
//! or is checked against it, so a bundle with any bit changed is refused.

use crate::{
    Checkpoint, ENTRY_BYTES, Entry, Error, HASH_BYTES, Hash, OpRecord, Policy, Result, SignedNote,
    bytes::{Fields, push_prefixed},
    proof_file::verify_entry,
    verify_inclusion,
};

const MAGIC: &[u8] = b"chronolith/bundle/1\n";
/// Larger bundles are refused before they are read: split the range.
pub const MAX_BUNDLE_BYTES: usize = 1 << 30;
/// A tree of 2^64 leaves has paths of this length.
const MAX_PATH: u8 = 64;
/// Length that stands for a value which is not in the bundle.
const ABSENT: u32 = u32::MAX;

/// One operation with its place in its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenOp {
    /// Its sub-revision.
    pub position: u32,
    /// Siblings on the way to the operations root.
    pub path: Vec<Hash>,
    /// The encoded [`OpRecord`].
    pub record: Vec<u8>,
    /// The value; none where it was compacted, erased or left out.
    pub value: Option<Vec<u8>>,
}

/// One revision with those of its operations that the bundle shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenRevision {
    /// Its entry.
    pub entry: Entry,
    /// Siblings on the way to the checkpoint's root.
    pub path: Vec<Hash>,
    /// The operations shown, by position.
    pub ops: Vec<ProvenOp>,
}

/// Revisions and the checkpoint that proves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The checkpoint, signed.
    pub checkpoint: SignedNote,
    /// The revisions, ascending.
    pub revisions: Vec<ProvenRevision>,
}

impl ProvenOp {
    /// The record, decoded.
    pub fn decode(&self) -> Result<OpRecord<'_>> {
        OpRecord::decode(&self.record)
    }

    fn verify(&self, entry: &Entry) -> Result<()> {
        let record = self.decode()?;
        let leaf = Hash::of_leaf(&self.record);
        let (position, ops) = (u64::from(self.position), u64::from(entry.ops));
        verify_inclusion(&leaf, position, ops, &self.path, &entry.ops_root)?;
        self.value.as_deref().map_or(Ok(()), |value| record.verify_value(value))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_be_bytes());
        push_path(out, &self.path);
        push_prefixed(out, &self.record);
        match &self.value {
            Some(value) => push_prefixed(out, value),
            None => out.extend_from_slice(&ABSENT.to_be_bytes()),
        }
    }

    fn decode_from(fields: &mut Fields<'_>) -> Result<Self> {
        let (position, path) = (fields.u32()?, path(fields)?);
        let record = fields.prefixed()?.to_vec();
        let value = match fields.u32()? {
            ABSENT => None,
            length => Some(fields.take(length as usize)?.to_vec()),
        };
        Ok(Self { position, path, record, value })
    }
}

impl ProvenRevision {
    fn verify(&self, checkpoint: &Checkpoint) -> Result<()> {
        let at = |error: Error| error.at_revision(self.entry.revision);
        verify_entry(&self.entry, &self.path, checkpoint)?;
        self.ops.iter().try_for_each(|op| op.verify(&self.entry)).map_err(at)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.entry.encode());
        push_path(out, &self.path);
        push_count(out, self.ops.len());
        self.ops.iter().for_each(|op| op.encode(out));
    }

    fn decode_from(fields: &mut Fields<'_>) -> Result<Self> {
        let entry = Entry::decode(fields.take(ENTRY_BYTES)?)?;
        let path = path(fields)?;
        let count = fields.u32()?;
        let ops: Vec<_> =
            (0..count).map(|_| ProvenOp::decode_from(fields)).collect::<Result<_>>()?;
        if !ops.is_sorted_by(|a, b| a.position < b.position) {
            return Err(fields.malformed("operations out of order"));
        }
        Ok(Self { entry, path, ops })
    }
}

impl Bundle {
    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        push_prefixed(&mut out, self.checkpoint.to_string().as_bytes());
        push_count(&mut out, self.revisions.len());
        self.revisions.iter().for_each(|revision| revision.encode(&mut out));
        out
    }

    /// Reads [`encode`](Self::encode)'s bytes, and no others. Nothing is believed yet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("bundle", bytes);
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(fields.malformed("too long"));
        }
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(fields.malformed("unknown first line"));
        }
        let checkpoint = SignedNote::parse(fields.prefixed()?)?;
        let count = fields.u32()?;
        let revisions: Vec<_> =
            (0..count).map(|_| ProvenRevision::decode_from(&mut fields)).collect::<Result<_>>()?;
        if !revisions.is_sorted_by(|a, b| a.entry.revision < b.entry.revision) {
            return Err(fields.malformed("revisions out of order"));
        }
        fields.end().map(|()| Self { checkpoint, revisions })
    }

    /// Checks everything the bundle shows. The checkpoint that proves it, if it holds.
    pub fn verify(&self, policy: &Policy) -> Result<Checkpoint> {
        let checkpoint = policy.open(&self.checkpoint)?;
        self.revisions.iter().try_for_each(|revision| revision.verify(&checkpoint))?;
        Ok(checkpoint)
    }

    /// Checks, besides, that the bundle shows each version of `key` from its first revision here to
    /// its last: every version names the one before it, so none can be left out in between.
    pub fn verify_history(&self, policy: &Policy, key: &[u8]) -> Result<Checkpoint> {
        let checkpoint = self.verify(policy)?;
        let mut newest: Option<u64> = None;
        for revision in &self.revisions {
            for op in &revision.ops {
                let record = op.decode()?;
                if record.key == key {
                    follows(newest, &record, revision.entry.revision)?;
                    newest = Some(revision.entry.revision);
                }
            }
        }
        Ok(checkpoint)
    }
}

/// A key changed several times in one revision names the version before that revision each time.
fn follows(newest: Option<u64>, record: &OpRecord<'_>, at: u64) -> Result<()> {
    match newest {
        Some(newest) if newest != at && record.previous != newest => {
            Err(Error::Mismatch { what: "chain of the key's versions", revision: Some(at) })
        }
        _ => Ok(()),
    }
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a bundle under its size limit has fewer parts");
    out.extend_from_slice(&count.to_be_bytes());
}

fn push_path(out: &mut Vec<u8>, path: &[Hash]) {
    out.push(u8::try_from(path.len()).expect("a path has at most 64 hashes"));
    path.iter().for_each(|hash| out.extend_from_slice(&hash.0));
}

fn path(fields: &mut Fields<'_>) -> Result<Vec<Hash>> {
    let count = fields.byte()?;
    if count > MAX_PATH {
        return Err(fields.malformed("a path longer than any tree is high"));
    }
    let hashes = fields.take(usize::from(count) * HASH_BYTES)?;
    Ok(hashes
        .chunks_exact(HASH_BYTES)
        .map(|hash| Hash(hash.try_into().expect("32 bytes")))
        .collect())
}

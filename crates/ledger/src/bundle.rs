//! Bundles: entries, op records and values together with what proves them, for one checkpoint.
//!
//! ```text
//! "chronolith/bundle/2\n" · checkpoint (4-byte length) · revisions 4 · revision*
//! revision:  entry 70 · path · operations 4 · operation*
//! operation: position 4 · path · what is shown
//! shown:     01 · op record (4-byte length) · value (4-byte length)     a put, whole
//!            02 · op record (4-byte length)      a removal; a put without its value
//!            03 · hash of the op record 32       what compaction and erasure leave
//! path:      hashes 1 · hash 32*
//! ```
//! Revisions ascend, and so do positions: there is one encoding. Each byte is inside something hashed
//! or is checked against it, so a bundle with any bit changed is refused. Whether a hash is all that
//! compaction left or all that erasure left, no bundle says: nothing could prove it.

use crate::{
    Checkpoint, ENTRY_BYTES, Entry, Error, HASH_BYTES, Hash, OpKind, OpRecord, Policy, Result,
    SignedNote,
    bytes::{Fields, push_prefixed},
    proof_file::verify_entry,
    verify_inclusion,
};
use std::collections::BTreeSet;

const MAGIC: &[u8] = b"chronolith/bundle/2\n";
/// Larger bundles are refused before they are read: split the range.
pub const MAX_BUNDLE_BYTES: usize = 1 << 30;
/// A tree of 2^64 leaves has paths of this length.
const MAX_PATH: u8 = 64;
const FULL: u8 = 1;
const META: u8 = 2;
const HASH: u8 = 3;

/// How much of an operation is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// A put with everything it did.
    Full {
        /// The encoded [`OpRecord`].
        record: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// The encoded [`OpRecord`]: of a removal, or of a put whose value was compacted or left out.
    Meta(Vec<u8>),
    /// The hash of the op record, which is all that compaction or erasure left.
    Hash(Hash),
}

/// One operation with its place in its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenOp {
    /// Its sub-revision.
    pub position: u32,
    /// Siblings on the way to the operations root.
    pub path: Vec<Hash>,
    /// What is left of it, or what the bundle's maker wants to show.
    pub level: Level,
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

impl Level {
    /// What is shown of a record: without the value where that is not given.
    pub fn of(record: &OpRecord<'_>, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) if record.kind == OpKind::Put => {
                Self::Full { record: record.encode(), value: value.to_vec() }
            }
            _ => Self::Meta(record.encode()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Full { record, value } => {
                out.push(FULL);
                push_prefixed(out, record);
                push_prefixed(out, value);
            }
            Self::Meta(record) => {
                out.push(META);
                push_prefixed(out, record);
            }
            Self::Hash(hash) => {
                out.push(HASH);
                out.extend_from_slice(&hash.0);
            }
        }
    }

    fn decode_from(fields: &mut Fields<'_>) -> Result<Self> {
        let record = |fields: &mut Fields<'_>| Ok::<_, Error>(fields.prefixed()?.to_vec());
        match fields.byte()? {
            FULL => Ok(Self::Full { record: record(fields)?, value: fields.prefixed()?.to_vec() }),
            META => record(fields).map(Self::Meta),
            HASH => Ok(Self::Hash(Hash(fields.array()?))),
            _ => Err(fields.malformed("unknown level of an operation")),
        }
    }
}

impl ProvenOp {
    /// The record, decoded; none where only its hash is shown.
    pub fn record(&self) -> Result<Option<OpRecord<'_>>> {
        match &self.level {
            Level::Full { record, .. } | Level::Meta(record) => OpRecord::decode(record).map(Some),
            Level::Hash(_) => Ok(None),
        }
    }

    /// The value, if it is shown.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.level {
            Level::Full { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Keys and values in it, and what stands for them.
    pub fn size_bytes(&self) -> usize {
        match &self.level {
            Level::Full { record, value } => record.len() + value.len(),
            Level::Meta(record) => record.len(),
            Level::Hash(_) => HASH_BYTES,
        }
    }

    fn verify(&self, entry: &Entry) -> Result<()> {
        let leaf = match &self.level {
            Level::Full { record, .. } | Level::Meta(record) => Hash::of_leaf(record),
            Level::Hash(hash) => *hash,
        };
        let (position, ops) = (u64::from(self.position), u64::from(entry.ops));
        verify_inclusion(&leaf, position, ops, &self.path, &entry.ops_root)?;
        match (self.record()?, self.value()) {
            (Some(record), Some(_)) if record.kind != OpKind::Put => {
                Err(Error::Malformed { what: "bundle", why: "a removal with a value" })
            }
            (Some(record), Some(value)) => record.verify_value(value),
            _ => Ok(()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_be_bytes());
        push_path(out, &self.path);
        self.level.encode(out);
    }

    fn decode_from(fields: &mut Fields<'_>) -> Result<Self> {
        let (position, path) = (fields.u32()?, path(fields)?);
        Ok(Self { position, path, level: Level::decode_from(fields)? })
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
    ///
    /// A version of which only the hash is left closes the chain towards the newer side. What it names
    /// itself nobody can see any more, so versions before it might be left out.
    pub fn verify_history(&self, policy: &Policy, key: &[u8]) -> Result<Checkpoint> {
        let checkpoint = self.verify(policy)?;
        let mut chain = Chain::default();
        for revision in &self.revisions {
            for op in &revision.ops {
                chain.follow(revision.entry.revision, op.record()?.as_ref(), key)?;
            }
        }
        Ok(checkpoint)
    }
}

/// Where the chain of a key's versions has got to.
#[derive(Default)]
struct Chain {
    newest: Option<u64>,
    /// Revisions that hold something which may have been a version of the key.
    hashed: BTreeSet<u64>,
}

impl Chain {
    fn follow(&mut self, at: u64, record: Option<&OpRecord<'_>>, key: &[u8]) -> Result<()> {
        match record {
            None => {
                self.hashed.insert(at);
            }
            Some(record) if record.key == key => {
                let follows = self.newest.is_none_or(|newest| {
                    // A key changed several times in one revision names the version before that
                    // revision each time.
                    newest == at
                        || record.previous == newest
                        || (record.previous > newest && self.hashed.contains(&record.previous))
                });
                if !follows {
                    let what = "chain of the key's versions";
                    return Err(Error::Mismatch { what, revision: Some(at) });
                }
                self.newest = Some(at);
            }
            Some(_) => {}
        }
        Ok(())
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

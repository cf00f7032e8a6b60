//! What one revision commits to.
//!
//! ```text
//! entry (70 bytes, one leaf):  version 1 · flags 0 · revision 8 · time in ms 8 · operations 4
//!                              · actor reference 16 · operations root 32
//! op record:  kind 1 · key length 4 · key · previous revision 8 · create revision 8 · version 8
//!             · lease 8 · salt 16 · value digest 32
//! value digest = SHA-256(salt · value)
//! ```
//! Big endian. The operations root is an RFC 6962 tree over the op records in the order of their
//! sub-revisions. A delete has zeros from the create revision on. Nothing in the entry names a key, a
//! value or a person, so entries can be published.
//!
//! The salt is the revision's own where it has one operation, and `SHA-256(salt · position)[‥16]`
//! where it has several: showing one operation's salt tells nothing of its neighbours'.

use crate::{
    Error, Frontier, Hash, Result,
    bytes::{Fields, push_prefixed},
};
use sha2::{Digest, Sha256};

/// Length of an entry.
pub const ENTRY_BYTES: usize = 70;
/// Length of a salt: as many bits as nobody can try.
pub const SALT_BYTES: usize = 16;
/// The layout described above.
const FORMAT: u8 = 1;
/// The first revision a write makes; leaf 0 is its.
const FIRST_WRITTEN: u64 = 2;
/// Fixed part of an op record.
const OP_FIXED_BYTES: usize = 1 + 4 + 4 * 8 + SALT_BYTES + 32;

/// The leaf that stands for a revision; none for the empty store's revision.
pub fn leaf_index(revision: u64) -> Option<u64> {
    revision.checked_sub(FIRST_WRITTEN)
}

/// The revision that a leaf stands for.
pub fn revision_of_leaf(index: u64) -> u64 {
    index + FIRST_WRITTEN
}

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// The key was set.
    Put,
    /// The key was removed by a request.
    Delete,
    /// The key was removed because its lease ended.
    Expire,
}

impl OpKind {
    fn code(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
            Self::Expire => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Expire].into_iter().find(|kind| kind.code() == code)
    }
}

/// One applied operation, as the state machine knows it.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// What it did.
    pub kind: OpKind,
    /// The key.
    pub key: &'a [u8],
    /// The value; empty for a removal.
    pub value: &'a [u8],
    /// Revision of the key's version before this one, a removal's too; 0 where there was none.
    pub previous: u64,
    /// Revision that created the key; 0 for a removal.
    pub create: u64,
    /// Versions since then, this one included; 0 for a removal.
    pub version: u64,
    /// The lease; 0 is none.
    pub lease: u64,
}

/// One applied revision. A leaf is a pure function of it.
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    /// Its number.
    pub revision: u64,
    /// When it was proposed, never less than the revision before it.
    pub time_ms: u64,
    /// Who proposed it: see [`actor_reference`].
    pub actor: [u8; 16],
    /// Random, from the proposer.
    pub salt: [u8; SALT_BYTES],
    /// What it did, by sub-revision.
    pub ops: &'a [Op<'a>],
}

/// What the log holds for a revision, and what proofs inside it need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The leaf itself.
    pub entry: Entry,
    /// Hashes of the op records.
    pub op_hashes: Vec<Hash>,
}

impl Revision<'_> {
    /// The leaf of this revision.
    pub fn leaf(&self) -> Leaf {
        let mut record = Vec::new();
        let op_hashes: Vec<_> = (0..self.ops.len())
            .map(|position| {
                record.clear();
                self.record(position).encode_into(&mut record);
                Hash::of_leaf(&record)
            })
            .collect();
        Leaf { entry: self.entry(operations_root(&op_hashes)), op_hashes }
    }

    /// Hash of the leaf.
    pub fn leaf_hash(&self) -> Hash {
        Hash::of_leaf(&self.leaf().entry.encode())
    }

    fn entry(&self, ops_root: Hash) -> Entry {
        let ops =
            u32::try_from(self.ops.len()).expect("requests are limited far below 2^32 operations");
        Entry { revision: self.revision, time_ms: self.time_ms, ops, actor: self.actor, ops_root }
    }

    /// The record of the operation at `position`.
    pub fn record(&self, position: usize) -> OpRecord<'_> {
        let op = &self.ops[position];
        let salt = self.salt_of(position);
        let live = op.kind == OpKind::Put;
        OpRecord {
            kind: op.kind,
            key: op.key,
            previous: op.previous,
            create: op.create,
            version: op.version,
            lease: op.lease,
            salt: if live { salt } else { [0; SALT_BYTES] },
            value_digest: if live { value_digest(&salt, op.value) } else { [0; 32] },
        }
    }

    fn salt_of(&self, position: usize) -> [u8; SALT_BYTES] {
        op_salt(&self.salt, self.ops.len(), position)
    }
}

/// The salt of the operation at `position` of `count`, made of its revision's.
pub fn op_salt(salt: &[u8; SALT_BYTES], count: usize, position: usize) -> [u8; SALT_BYTES] {
    if count == 1 {
        return *salt;
    }
    let digest = Sha256::new().chain_update(salt).chain_update((position as u64).to_be_bytes());
    *digest.finalize().first_chunk().expect("a digest is longer than a salt")
}

/// The commitment to a value.
pub fn value_digest(salt: &[u8; SALT_BYTES], value: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(value).finalize().into()
}

/// Root of the tree over one revision's op records.
pub fn operations_root(op_hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    frontier.extend(op_hashes.iter().copied());
    frontier.root()
}

/// The reference to whoever made a write, which the entry carries in place of names and addresses.
pub fn actor_reference(salt: &[u8], principal: &str, address: &str, request_id: &str) -> [u8; 16] {
    let mut message = Vec::new();
    push_prefixed(&mut message, salt);
    for part in [principal, address, request_id] {
        push_prefixed(&mut message, part.as_bytes());
    }
    *Sha256::digest(message).first_chunk().expect("a digest is longer than a reference")
}

/// The leaf of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its revision.
    pub revision: u64,
    /// When it was proposed.
    pub time_ms: u64,
    /// Number of operations.
    pub ops: u32,
    /// Who proposed it.
    pub actor: [u8; 16],
    /// Root of the tree over the op records.
    pub ops_root: Hash,
}

impl Entry {
    /// The one encoding.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0] = FORMAT;
        out[2..10].copy_from_slice(&self.revision.to_be_bytes());
        out[10..18].copy_from_slice(&self.time_ms.to_be_bytes());
        out[18..22].copy_from_slice(&self.ops.to_be_bytes());
        out[22..38].copy_from_slice(&self.actor);
        out[38..].copy_from_slice(&self.ops_root.0);
        out
    }

    /// Reads [`encode`](Self::encode)'s bytes, and no others.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("entry", bytes);
        if fields.array()? != [FORMAT, 0] {
            return Err(fields.malformed("unknown version or flags"));
        }
        let entry = Self {
            revision: fields.u64()?,
            time_ms: fields.u64()?,
            ops: fields.u32()?,
            actor: fields.array()?,
            ops_root: Hash(fields.array()?),
        };
        if entry.revision < FIRST_WRITTEN || entry.ops == 0 {
            return Err(fields.malformed("a revision without a leaf"));
        }
        fields.end().map(|()| entry)
    }
}

/// What the operations tree holds for one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpRecord<'a> {
    /// What it did.
    pub kind: OpKind,
    /// The key.
    pub key: &'a [u8],
    /// Revision of the key's version before this one; 0 where there was none.
    pub previous: u64,
    /// Revision that created the key.
    pub create: u64,
    /// Versions since then.
    pub version: u64,
    /// The lease.
    pub lease: u64,
    /// Salt of the digest.
    pub salt: [u8; SALT_BYTES],
    /// Digest of salt and value.
    pub value_digest: [u8; 32],
}

impl<'a> OpRecord<'a> {
    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(OP_FIXED_BYTES + self.key.len());
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.kind.code());
        push_prefixed(out, self.key);
        for number in [self.previous, self.create, self.version, self.lease] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.value_digest);
    }

    /// Reads [`encode`](Self::encode)'s bytes, and no others.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new("op record", bytes);
        let kind =
            OpKind::from_code(fields.byte()?).ok_or_else(|| fields.malformed("unknown kind"))?;
        let record = Self {
            kind,
            key: fields.prefixed()?,
            previous: fields.u64()?,
            create: fields.u64()?,
            version: fields.u64()?,
            lease: fields.u64()?,
            salt: fields.array()?,
            value_digest: fields.array()?,
        };
        if kind != OpKind::Put && !record.is_bare() {
            return Err(fields.malformed("a removal with a value"));
        }
        fields.end().map(|()| record)
    }

    fn is_bare(&self) -> bool {
        (self.create, self.version, self.lease) == (0, 0, 0)
            && self.salt == [0; SALT_BYTES]
            && self.value_digest == [0; 32]
    }

    /// Its hash, a leaf of the operations tree.
    pub fn hash(&self) -> Hash {
        Hash::of_leaf(&self.encode())
    }

    /// Checks a value against the digest, which is always computed anew.
    pub fn verify_value(&self, value: &[u8]) -> Result<()> {
        let fits = match self.kind {
            OpKind::Put => value_digest(&self.salt, value) == self.value_digest,
            OpKind::Delete | OpKind::Expire => value.is_empty(),
        };
        if fits { Ok(()) } else { Err(Error::mismatch("value and its digest")) }
    }
}

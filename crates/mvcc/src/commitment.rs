//! What a log outside commits to of each operation, so that compaction and erasure can leave its hash.
//!
//! This crate keeps no such log and knows no hash function. Whoever keeps one hands over a
//! [`Commitment`]; then a removed operation leaves 32 bytes, and what was kept stays provable.

use crate::Kind;

/// Bytes of a salt.
pub(crate) const SALT_BYTES: usize = 16;
/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 32;

/// An operation without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpMeta<'a> {
    /// What it did.
    pub kind: Kind,
    /// The key.
    pub key: &'a [u8],
    /// Revision of the key's version before this one; 0 where there was none.
    pub previous: i64,
    /// What a put left besides the value; none for a removal.
    pub put: Option<PutMeta>,
}

/// What a put left besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutMeta {
    /// Revision that created the key.
    pub create_revision: i64,
    /// Versions since then, this one included.
    pub version: i64,
    /// The lease; 0 is none.
    pub lease: i64,
    /// The operation's own salt.
    pub salt: [u8; SALT_BYTES],
    /// Digest of salt and value.
    pub digest: [u8; HASH_BYTES],
}

/// How a log commits to operations: pure functions, the same on every replica.
pub trait Commitment: Send + Sync {
    /// Salt of the operation at `position` of `count`, made of its revision's.
    fn salt(&self, revision: &[u8; SALT_BYTES], count: usize, position: usize) -> [u8; SALT_BYTES];
    /// Digest of salt and value.
    fn digest(&self, salt: &[u8; SALT_BYTES], value: &[u8]) -> [u8; HASH_BYTES];
    /// Hash of an operation.
    fn hash(&self, op: &OpMeta<'_>) -> [u8; HASH_BYTES];
}

/// What compaction leaves of operations that nobody can read any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Nothing, nor anything but the value of those that can still be read: nothing is to be proven.
    #[default]
    Nothing,
    /// Their hashes, as long as another operation of their revision can be read.
    Hashes,
    /// Everything but the value for so many milliseconds before the compact revision; then hashes.
    Meta {
        /// How long; `u64::MAX` is for ever.
        keep_ms: u64,
    },
}

//! SHA-256 as RFC 6962 uses it: leaves and nodes are told apart by their first byte.

use crate::{Error, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use std::fmt;

/// Length of a hash.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 hash: of a leaf, a node or a whole tree.
///
/// ```
/// use chronolith_ledger::Hash;
/// let (left, right) = (Hash::of_leaf(b"a"), Hash::of_leaf(b"b"));
/// assert_ne!(Hash::of_node(&left, &right), Hash::of_node(&right, &left));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl Hash {
    /// Root of the tree without leaves.
    pub fn of_empty_tree() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// Hash of a leaf that holds `data`.
    pub fn of_leaf(data: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
    }

    /// Hash of an inner node.
    pub fn of_node(left: &Self, right: &Self) -> Self {
        let mut message = [1; 1 + 2 * HASH_BYTES];
        message[1..=HASH_BYTES].copy_from_slice(&left.0);
        message[1 + HASH_BYTES..].copy_from_slice(&right.0);
        Self(Sha256::digest(message).into())
    }

    /// Standard base64, as checkpoints and proof files carry it.
    pub fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// Reads [`to_base64`](Self::to_base64)'s form, and no other.
    pub fn from_base64(text: &str) -> Result<Self> {
        let bytes = base64_decode(text, "hash")?;
        let bytes =
            bytes.try_into().map_err(|_| Error::Malformed { what: "hash", why: "not 32 bytes" })?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Strict base64: padded, no spare bits, no other characters.
pub(crate) fn base64_decode(text: &str, what: &'static str) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|_| Error::Malformed { what, why: "not base64" })
}

pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

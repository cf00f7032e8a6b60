//! One key with its value, in one allocation.
//!
//! Caller's bytes are copied: a value is often a slice of a whole request, and would keep all of it
//! in memory for as long as the key lives. One allocation also halves the reference counts that a
//! copied tree node touches.

use bytes::{Bytes, BytesMut};
use std::{borrow::Borrow, cmp::Ordering};

/// See the module. Compares by key alone.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    bytes: Bytes,
    key_len: u32,
}

impl Record {
    pub(crate) fn new(key: &[u8], value: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        let key_len = u32::try_from(key.len()).expect("keys are limited to MAX_KEY_BYTES");
        Self { bytes: bytes.freeze(), key_len }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }

    pub(crate) fn key_bytes(&self) -> Bytes {
        self.bytes.slice(..self.key_len as usize)
    }

    /// Bytes of key and value.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.key_len as usize..]
    }

    pub(crate) fn value_bytes(&self) -> Bytes {
        self.bytes.slice(self.key_len as usize..)
    }
}

impl Borrow<[u8]> for Record {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

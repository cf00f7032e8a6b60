//! Reading fixed and length-prefixed fields, big endian. What does not end exactly is refused.

use crate::{Error, Result};

pub(crate) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn malformed(&self, why: &'static str) -> Error {
        Error::Malformed { what: self.what, why }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| self.malformed("cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A field behind its 4-byte length.
    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(crate) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }
}

/// Writes a field behind its 4-byte length.
pub(crate) fn push_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    let length =
        u32::try_from(bytes.len()).expect("fields stay far below 4 GiB: requests are limited");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

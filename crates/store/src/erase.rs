//! Taking a value away for good: from the versions, and from what the log committed to.
//!
//! It is a command like others, so every member does it, and a restart does it again where it must. The
//! command that brought the value stays in the Raft log until the log is cut behind a checkpoint, and
//! older checkpoints and backups have it until they are removed: erasure cannot reach those.

use crate::{
    Store, StoreError,
    command::{Change, Erase},
    machine::Answer,
    store::mismatch,
};
use bytes::Bytes;
use chronolith_proto::etcdserverpb::ResponseHeader;
use std::ops::RangeInclusive;

/// What was erased.
#[derive(Clone, Debug, PartialEq)]
pub struct Erasure {
    /// As in every answer.
    pub header: Option<ResponseHeader>,
    /// Revisions of which a value went; empty if there was nothing to erase any more.
    pub revisions: Vec<i64>,
}

impl Store {
    /// Erases the values that these revisions gave a key, all of them if none are named. The current
    /// value cannot be erased: put another, or delete the key, first. The reason is for people.
    pub async fn erase(
        &self,
        key: Bytes,
        revisions: Option<RangeInclusive<i64>>,
        reason: String,
    ) -> Result<Erasure, StoreError> {
        if key.is_empty() {
            return Err(chronolith_mvcc::Error::EmptyKey.into());
        }
        if reason.trim().is_empty() {
            return Err(StoreError::NoReason);
        }
        let (from, to) = revisions.unwrap_or(0..=i64::MAX).into_inner();
        match self.change(Change::Erase(Erase { key, from, to, reason })).await? {
            (Answer::Erased(revisions), header) => Ok(Erasure { header, revisions }),
            (other, _) => Err(mismatch(&other)),
        }
    }
}
